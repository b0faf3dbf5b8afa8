//! Over real loopback sockets, with the running task.

use std::net::UdpSocket;

use ria_core::relay::{RelayClient, RelayCredentials as ClientCredentials, RelayInput};
use ria_core::stun::Randomness;
use ria_protocol::id::NetworkId;

use super::*;
use crate::relay::DropReason;
use crate::relay::RelayCredentials;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};

const SECRET: [u8; 32] = [3; 32];

pub(in crate::relay) struct Peer {
    socket: UdpSocket,
    pub(in crate::relay) client: RelayClient,
}

pub(in crate::relay) fn credentials(node: u8) -> ClientCredentials {
    let issued = RelayCredentials::issue(
        &SECRET,
        NetworkId::from_bytes([1; 10]),
        NodeId::from_bytes([node; 10]),
        clock().unix.plus(crate::relay::DEFAULT_CREDENTIALS),
    );
    ClientCredentials { username: issued.username.clone(), password: issued.password.clone() }
}

impl Peer {
    pub(in crate::relay) fn new(local: &str, server: SocketAddr, node: u8) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let client = RelayClient::new(server, credentials(node), Randomness::new([node; 32]), Instant::now());
        Self { socket, client }
    }

    /// Sends and receives until `done`, or gives up after half a minute. Returns the payloads that came.
    pub(in crate::relay) fn drive(
        &mut self,
        done: impl Fn(&RelayClient, &[Vec<u8>]) -> bool,
    ) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        let mut buffer = [0; 65_536];
        let end = Instant::now() + Duration::from_secs(30);
        while !done(&self.client, &received) && Instant::now() < end {
            self.client.handle_timeout(Instant::now());
            while let Some(outgoing) = self.client.poll_transmit() {
                self.socket.send_to(&outgoing.payload, outgoing.to).unwrap();
            }
            let Ok((len, from)) = self.socket.recv_from(&mut buffer) else { continue };
            if let RelayInput::FromPeer { payload, .. } =
                self.client.handle_datagram(from, &buffer[..len], Instant::now())
            {
                received.push(payload.to_vec());
            }
        }
        received
    }

    pub(in crate::relay) fn relayed(&mut self) -> SocketAddr {
        self.drive(|client, _| client.relayed_address().is_some());
        self.client.relayed_address().expect("an allocation")
    }

    pub(in crate::relay) fn connect(&mut self, peer: SocketAddr) {
        self.client.connect_peer(peer, Instant::now()).unwrap();
        self.drive(|client, _| client.channel(peer).is_some());
        assert!(self.client.channel(peer).is_some());
    }

    pub(in crate::relay) fn say(&mut self, peer: SocketAddr, payload: &[u8]) {
        let header = self.client.wrap(peer, payload.len(), Instant::now()).unwrap();
        self.socket.send_to(&[&header, payload].concat(), self.client.server()).unwrap();
    }
}

/// Two clients with channels to each other, and the relayed address of the second.
fn connected(server: SocketAddr) -> (Peer, Peer, SocketAddr) {
    let (mut a, mut b) = (Peer::new("127.0.0.1:0", server, 1), Peer::new("127.0.0.1:0", server, 2));
    let (at_a, at_b) = (a.relayed(), b.relayed());
    a.connect(at_b);
    b.connect(at_a);
    (a, b, at_b)
}

pub(in crate::relay) struct Running {
    pub(in crate::relay) port: u16,
    pub(in crate::relay) handle: RelayHandle,
    pub(in crate::relay) cancelled: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A relay on all addresses of IPv4 and IPv6, on a free port.
pub(in crate::relay) fn start() -> Running {
    let relay = Relay::bind(RelayConfig::new(vec!["[::]:0".parse().unwrap()], Terms::new(SECRET))).unwrap();
    let (port, handle, cancelled) = (relay.local_port(), relay.handle(), CancellationToken::new());
    let task = tokio::spawn(relay.run(cancelled.clone()));
    Running { port, handle, cancelled, task }
}

pub(in crate::relay) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_clients_behind_a_wildcard_socket_and_stops_when_told() {
    let relay = start();
    let (port, handle) = (relay.port, relay.handle.clone());
    blocking(move || {
        // Two addresses of one host: answers must come from the one that was asked.
        let mut a = Peer::new("127.0.0.1:0", SocketAddr::from(([127, 0, 0, 1], port)), 1);
        let mut b = Peer::new("127.0.0.2:0", SocketAddr::from(([127, 0, 0, 2], port)), 2);
        let (at_a, at_b) = (a.relayed(), b.relayed());
        assert_eq!((at_a.ip(), at_b.ip()), ([127, 0, 0, 1].into(), [127, 0, 0, 2].into()));
        assert_eq!(a.client.mapped_address(), Some(a.socket.local_addr().unwrap()));
        a.connect(at_b);
        b.connect(at_a);
        a.say(at_b, b"one");
        a.say(at_b, b"two");
        assert_eq!(b.drive(|_, received| received.len() == 2), [b"one".to_vec(), b"two".to_vec()]);
        let largest = vec![7; 9000];
        b.say(at_a, &largest);
        assert_eq!(a.drive(|_, received| !received.is_empty()), [largest]);
        assert_eq!(handle.counters().relayed_packets, 3);
        assert_eq!(handle.counters().allocations, 2);
    })
    .await;
    relay.cancelled.cancel();
    relay.task.await.unwrap();
    assert!(UdpSocket::bind(("127.0.0.1", port)).is_ok(), "the port is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_ipv4_with_ipv6() {
    let relay = start();
    let port = relay.port;
    blocking(move || {
        let mut a = Peer::new("127.0.0.1:0", SocketAddr::from(([127, 0, 0, 1], port)), 1);
        let mut b = Peer::new("[::1]:0", format!("[::1]:{port}").parse().unwrap(), 2);
        let (at_a, at_b) = (a.relayed(), b.relayed());
        assert!(at_a.is_ipv4() && at_b.is_ipv6());
        a.connect(at_b);
        b.connect(at_a);
        a.say(at_b, b"four");
        assert_eq!(b.drive(|_, received| !received.is_empty()), [b"four".to_vec()]);
        b.say(at_a, b"six");
        assert_eq!(a.drive(|_, received| !received.is_empty()), [b"six".to_vec()]);
    })
    .await;
    relay.cancelled.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_arrives_whole_and_in_order() {
    let relay = start();
    let (port, handle) = (relay.port, relay.handle.clone());
    blocking(move || {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let (mut a, mut b, at_b) = connected(server);
        // As an agent sends it: one segmented send of 40 datagrams, the last one shorter.
        let state = UdpSocketState::new(UdpSockRef::from(&a.socket)).unwrap();
        let header = a.client.wrap(at_b, 1000, Instant::now()).unwrap();
        let short = a.client.wrap(at_b, 10, Instant::now()).unwrap();
        let mut contents = Vec::new();
        for number in 0..39u8 {
            contents.extend_from_slice(&[&header, &[number; 1000][..]].concat());
        }
        contents.extend_from_slice(&[&short, &[39; 10][..]].concat());
        let segment_size = Some(1004);
        let transmit =
            Transmit { destination: server, ecn: None, contents: &contents, segment_size, src_ip: None };
        state.try_send(UdpSockRef::from(&a.socket), &transmit).unwrap();
        let received = b.drive(|_, received| received.len() == 40);
        let order: Vec<u8> = received.iter().map(|payload| payload[0]).collect();
        assert_eq!(order, (0..40).collect::<Vec<u8>>());
        assert_eq!((received[0].len(), received[39].len()), (1000, 10));
        assert_eq!(handle.counters().relayed_packets, 40);
    })
    .await;
    relay.cancelled.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_hears_nothing_more() {
    let relay = start();
    let (port, handle) = (relay.port, relay.handle.clone());
    blocking(move || {
        let (mut a, mut b, at_b) = connected(SocketAddr::from(([127, 0, 0, 1], port)));
        handle.revoke(NodeId::from_bytes([2; 10]), UnixTime(u64::MAX));
        let end = Instant::now() + Duration::from_secs(20);
        while handle.counters().allocations == 2 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        a.say(at_b, b"secret");
        b.client.restart(Instant::now());
        let wait = Instant::now() + Duration::from_millis(300);
        assert!(b.drive(|_, _| Instant::now() > wait).is_empty());
        assert_eq!(b.client.relayed_address(), None);
        assert_eq!(handle.counters().dropped(DropReason::PeerGone), 1);
    })
    .await;
    relay.cancelled.cancel();
}

#[tokio::test]
async fn a_taken_port_is_named_with_advice() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Relay::bind(RelayConfig::new(vec![address], Terms::new(SECRET))).err().unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("set relay.listen"), "{error}");
    let error = Relay::bind(RelayConfig::new(Vec::new(), Terms::new(SECRET))).err().unwrap().to_string();
    assert!(error.contains("relay.listen"), "{error}");
}
