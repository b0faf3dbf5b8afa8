//! The client alone, and against a TURN server that others wrote (`turn-server-proto`). Against Ria's own relay it is
//! tested in the coordinator.

#![allow(clippy::disallowed_methods, reason = "a test begins now")]

use std::time::Duration;

use stun_types::TransportType;
use turn_server_proto::api::{Transmit, TurnServerApi, TurnServerPollRet};
use turn_server_proto::server::TurnServer;

use super::channels::Channels;
use super::*;
use crate::stun::{Outgoing, Randomness, classify};

const SECOND: Duration = Duration::from_secs(1);

fn server() -> SocketAddr {
    "198.51.100.1:3478".parse().unwrap()
}

fn local() -> SocketAddr {
    "10.0.0.1:41820".parse().unwrap()
}

fn peer(n: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 50_000 + n))
}

/// A foreign server without latency, with one client.
struct Foreign {
    start: Instant,
    now: Instant,
    server: TurnServer,
    client: RelayClient,
    events: Vec<RelayEvent>,
    /// What the server sent to peers.
    to_peers: Vec<(SocketAddr, Vec<u8>)>,
    next_port: u16,
}

impl Foreign {
    fn new(password: &str) -> Self {
        let now = Instant::now();
        let credentials = RelayCredentials { username: "robot".to_owned(), password: password.to_owned() };
        let client = RelayClient::new(server(), credentials, Randomness::new([1; 32]), now);
        let mut foreign = Self {
            start: now,
            now,
            server: Self::server(),
            client,
            events: Vec::new(),
            to_peers: Vec::new(),
            next_port: 50_000,
        };
        foreign.run(SECOND);
        foreign
    }

    fn server() -> TurnServer {
        let mut turn = TurnServer::new(TransportType::Udp, server(), "example.org".to_owned());
        turn.add_user("robot".to_owned(), "secret".to_owned());
        turn
    }

    fn their_now(&self) -> turn_types::Instant {
        turn_types::Instant::from_nanos((SECOND + (self.now - self.start)).as_nanos() as i64)
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.client.handle_timeout(self.now);
            while let Some(Outgoing { to, payload }) = self.client.poll_transmit() {
                assert_eq!(to, server());
                self.deliver_to_server(payload);
            }
            self.poll_server();
            while let Some(event) = self.client.poll_event() {
                self.events.push(event);
            }
            self.now += Duration::from_millis(50);
        }
    }

    fn deliver_to_server(&mut self, payload: Vec<u8>) {
        let now = self.their_now();
        let reply = self.server.recv(Transmit::new(payload, TransportType::Udp, local(), server()), now);
        if let Some(reply) = reply.map(|reply| reply.build()) {
            self.deliver_from_server(reply.to, &reply.data);
        }
        self.poll_server();
    }

    fn poll_server(&mut self) {
        let now = self.their_now();
        while let TurnServerPollRet::AllocateSocket {
            transport,
            listen_addr,
            client_addr,
            allocation_transport,
            family,
        } = self.server.poll(now)
        {
            self.next_port += 1;
            let socket = Ok(SocketAddr::from(([198, 51, 100, 1], self.next_port)));
            let (listen, client) = (listen_addr, client_addr);
            self.server.allocated_socket(
                transport,
                listen,
                client,
                allocation_transport,
                family,
                socket,
                now,
            );
        }
        while let Some(transmit) = self.server.poll_transmit(now) {
            self.deliver_from_server(transmit.to, &transmit.data);
        }
    }

    fn deliver_from_server(&mut self, to: SocketAddr, data: &[u8]) {
        if to == local() {
            self.client.handle_datagram(server(), data, self.now);
        } else {
            self.to_peers.push((to, data.to_vec()));
        }
    }
}

#[test]
fn a_foreign_server_grants_binds_and_refreshes() {
    let mut foreign = Foreign::new("secret");
    let relayed = foreign.client.relayed_address().expect("an allocation");
    assert_eq!(foreign.events, [RelayEvent::Allocated { relayed, mapped: Some(local()) }]);
    foreign.client.connect_peer(peer(1), foreign.now).unwrap();
    foreign.run(SECOND);
    assert_eq!(foreign.events.get(1), Some(&RelayEvent::ChannelBound { peer: peer(1) }));
    for hour in 1..=3 {
        foreign.run(3600 * SECOND);
        let header = foreign.client.wrap(peer(1), 5, foreign.now).expect("still bound");
        foreign.deliver_to_server([&header, &b"hello"[..]].concat());
        assert_eq!(foreign.to_peers.len(), hour, "hour {hour}");
    }
    assert_eq!(foreign.to_peers.last(), Some(&(peer(1), b"hello".to_vec())));
    assert_eq!(foreign.events.len(), 2, "no loss, no failure: {:?}", foreign.events);
}

#[test]
fn a_foreign_server_that_restarts_is_noticed_and_asked_anew() {
    let mut foreign = Foreign::new("secret");
    foreign.client.connect_peer(peer(1), foreign.now).unwrap();
    foreign.run(SECOND);
    foreign.server = Foreign::server();
    foreign.events.clear();
    foreign.client.note_sent(foreign.now);
    foreign.run(3 * SECOND);
    assert!(matches!(foreign.events.first(), Some(RelayEvent::Lost(_))), "{:?}", foreign.events);
    assert!(foreign.client.relayed_address().is_some());
    assert!(foreign.client.channel(peer(1)).is_some(), "the peer is bound again without being asked for");
}

#[test]
fn a_foreign_server_refuses_a_wrong_password() {
    let mut foreign = Foreign::new("wrong");
    foreign.run(60 * SECOND);
    let unauthorized =
        |event: &RelayEvent| matches!(event, RelayEvent::Failed { reason: RelayFailure::Unauthorized, .. });
    assert!(!foreign.events.is_empty() && foreign.events.iter().all(unauthorized), "{:?}", foreign.events);
    assert!(foreign.events.len() < 12, "{} attempts in a minute", foreign.events.len());
}

#[test]
fn payload_is_not_copied_and_headers_are_right() {
    let mut foreign = Foreign::new("secret");
    foreign.client.connect_peer(peer(1), foreign.now).unwrap();
    foreign.run(SECOND);
    let header = foreign.client.wrap(peer(1), 3, foreign.now).unwrap();
    let channel = foreign.client.channel(peer(1)).unwrap();
    let datagram = [&header, &b"abc"[..]].concat();
    assert_eq!(classify(&datagram), Some(crate::stun::Form::ChannelData { channel, len: 3 }));
    let now = foreign.now;
    let RelayInput::FromPeer { peer: from, payload } =
        foreign.client.handle_datagram(server(), &datagram, now)
    else {
        panic!("a peer's payload")
    };
    assert_eq!((from, payload), (peer(1), &b"abc"[..]));
    assert_eq!(payload.as_ptr(), datagram[4..].as_ptr());
    assert_eq!(foreign.client.handle_datagram(peer(9), &datagram, now), RelayInput::NotOurs);
    assert_eq!(foreign.client.wrap(peer(1), 70_000, now), None, "too long for a datagram");
    assert_eq!(foreign.client.wrap(peer(2), 3, now), None, "not connected");
    foreign.client.disconnect_peer(peer(1));
    assert_eq!(foreign.client.wrap(peer(1), 3, now), None);
}

#[test]
fn answers_without_the_servers_signature_are_not_believed() {
    let now = Instant::now();
    let credentials = RelayCredentials { username: "robot".to_owned(), password: "secret".to_owned() };
    let mut client = RelayClient::new(server(), credentials, Randomness::new([1; 32]), now);
    let mut request = client.poll_transmit().unwrap().payload;
    // A success (0x0103) and an error (0x0113) response to the right transaction, with nothing in them.
    for class in [0x01, 0x01] {
        request.truncate(20);
        request[0] = class;
        request[1] = if request[1] == 0x03 { 0x13 } else { 0x03 };
        request[2..4].copy_from_slice(&[0, 0]);
        assert_eq!(client.handle_datagram(server(), &request, now), RelayInput::Consumed);
        assert_eq!((client.relayed_address(), client.poll_event()), (None, None));
    }
    assert!(client.poll_timeout().is_some(), "it waits on");
}

#[test]
fn a_number_belongs_to_its_peer_until_the_server_has_forgotten_it() {
    let start = Instant::now();
    let mut channels = Channels::default();
    channels.connect(peer(1), start).unwrap();
    let (number, _) = channels.poll_due(start).unwrap();
    assert!(channels.handle_bound(peer(1), start));
    channels.disconnect(peer(1));
    assert_eq!((channels.number(peer(1)), channels.peer(number)), (None, Some(peer(1))));
    channels.connect(peer(2), start + 899 * SECOND).unwrap();
    assert_ne!(channels.poll_due(start + 899 * SECOND).unwrap().0, number);
    channels.connect(peer(3), start + 900 * SECOND).unwrap();
    assert_eq!(channels.poll_due(start + 900 * SECOND), Some((number, peer(3))));
    // Who comes back in time gets the same number.
    assert!(channels.handle_bound(peer(3), start + 900 * SECOND));
    channels.disconnect(peer(3));
    channels.connect(peer(3), start + 901 * SECOND).unwrap();
    assert_eq!(channels.poll_due(start + 901 * SECOND), Some((number, peer(3))));
}

#[test]
fn a_relay_carries_4096_peers_and_says_so() {
    let now = Instant::now();
    let mut channels = Channels::default();
    for n in 0..4096 {
        channels.connect(peer(n), now).unwrap();
    }
    assert_eq!(channels.connect(peer(4096), now), Err(TooManyPeers));
    assert_eq!(channels.connect(peer(7), now), Ok(()), "one that is there already");
}
