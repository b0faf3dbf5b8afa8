//! Clients over TCP on loopback, with the running relay.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as Tcp;

use ria_core::relay::{RelayClient, RelayInput, framing as client_framing};
use ria_core::stun::Randomness;
use ria_protocol::id::NodeId;
use ria_protocol::time::UnixTime;
use tokio::net::TcpListener;

use super::*;
use crate::accept_gate::Gate;
use crate::relay::io::tests::{Peer, Running, blocking, credentials, start};

/// A relay that is spoken to over TCP at this address too.
async fn start_with_tcp() -> (Running, SocketAddr) {
    let relay = start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, door) = (listener.local_addr().unwrap(), relay.handle.door().clone());
    tokio::spawn(async move {
        let mut gate = Gate::default();
        while let Ok((stream, remote)) = listener.accept().await {
            tune(&stream).unwrap();
            let ends = Ends { local: stream.local_addr().unwrap().ip(), remote, one_by_one: false };
            let (door, slot) = (door.clone(), gate.enter(remote.ip()));
            tokio::spawn(async move { door.serve(stream, ends, slot).await });
        }
    });
    (relay, address)
}

struct Client {
    stream: Tcp,
    client: RelayClient,
    held: Vec<u8>,
}

impl Client {
    fn new(server: SocketAddr, node: u8) -> Self {
        let stream = Tcp::connect(server).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let client =
            RelayClient::over_stream(server, credentials(node), Randomness::new([node; 32]), Instant::now());
        Self { stream, client, held: Vec::new() }
    }

    /// Sends and receives until `done`, or gives up after half a minute; the payloads that came.
    fn drive(&mut self, done: impl Fn(&RelayClient, &[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        let end = Instant::now() + Duration::from_secs(30);
        while !done(&self.client, &received) && Instant::now() < end {
            self.client.handle_timeout(Instant::now());
            while let Some(outgoing) = self.client.poll_transmit() {
                let mut frame = Vec::new();
                client_framing::push(&outgoing.payload, &mut frame);
                self.stream.write_all(&frame).unwrap();
            }
            self.read(&mut received);
        }
        received
    }

    fn read(&mut self, received: &mut Vec<Vec<u8>>) {
        let mut buffer = [0; 4096];
        let Ok(count) = self.stream.read(&mut buffer) else { return };
        self.held.extend_from_slice(&buffer[..count]);
        let mut rest = &self.held[..];
        while let Some(datagram) = client_framing::take(&mut rest).unwrap() {
            let server = self.client.server();
            let input = self.client.handle_datagram(server, datagram, Instant::now());
            if let RelayInput::FromPeer { payload, .. } = input {
                received.push(payload.to_vec());
            }
        }
        self.held = rest.to_vec();
    }

    fn relayed(&mut self) -> SocketAddr {
        self.drive(|client, _| client.relayed_address().is_some());
        self.client.relayed_address().expect("an allocation")
    }

    fn connect(&mut self, peer: SocketAddr) {
        self.client.connect_peer(peer, Instant::now()).unwrap();
        self.drive(|client, _| client.channel(peer).is_some());
        assert!(self.client.channel(peer).is_some());
    }

    fn say(&mut self, peer: SocketAddr, payload: &[u8]) -> bool {
        let header = self.client.wrap(peer, payload.len(), Instant::now()).unwrap();
        let mut frame = Vec::new();
        client_framing::push(&[&header, payload].concat(), &mut frame);
        self.stream.write_all(&frame).is_ok()
    }

    /// Whether the relay closes the stream, sooner or later.
    fn is_closed(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(30);
        let mut buffer = [0; 4096];
        while Instant::now() < end {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
        }
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_datagrams_are_joined_whatever_the_length() {
    let (relay, tcp) = start_with_tcp().await;
    let udp = SocketAddr::from(([127, 0, 0, 1], relay.port));
    let handle = relay.handle.clone();
    blocking(move || {
        let (mut a, mut b, mut c) =
            (Client::new(tcp, 1), Client::new(tcp, 2), Peer::new("127.0.0.1:0", udp, 3));
        let (at_a, at_b, at_c) = (a.relayed(), b.relayed(), c.relayed());
        assert_eq!(a.client.mapped_address(), Some(a.stream.local_addr().unwrap()));
        for peer in [at_b, at_c] {
            a.connect(peer);
        }
        b.connect(at_a);
        c.connect(at_a);
        let payloads: Vec<Vec<u8>> = [1, 2, 3, 4, 1247, 0, 9001].iter().map(|len| vec![7; *len]).collect();
        for payload in &payloads {
            assert!(a.say(at_b, payload) && a.say(at_c, payload));
            assert!(b.say(at_a, payload));
        }
        assert_eq!(b.drive(|_, received| received.len() == payloads.len()), payloads);
        assert_eq!(c.drive(|_, received| received.len() == payloads.len()), payloads);
        assert_eq!(a.drive(|_, received| received.len() == payloads.len()), payloads);
        payloads.iter().for_each(|payload| c.say(at_a, payload));
        assert_eq!(a.drive(|_, received| received.len() == payloads.len()), payloads);
        assert_eq!((handle.counters().streams, handle.counters().allocations), (2, 3));
        drop((a, b));
        let end = Instant::now() + Duration::from_secs(20);
        while handle.counters().allocations > 1 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(handle.counters().allocations, 1, "an allocation ends with its stream");
    })
    .await;
    relay.cancelled.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_a_revoked_node_and_one_that_speaks_something_else_are_closed() {
    let (relay, tcp) = start_with_tcp().await;
    let handle = relay.handle.clone();
    blocking(move || {
        let (mut a, mut b) = (Client::new(tcp, 1), Client::new(tcp, 2));
        let (at_a, at_b) = (a.relayed(), b.relayed());
        a.connect(at_b);
        b.connect(at_a);
        handle.revoke(NodeId::from_bytes([2; 10]), UnixTime(u64::MAX));
        assert!(b.is_closed());
        assert!(a.say(at_b, b"secret"));
        let mut stranger = Client::new(tcp, 2);
        stranger.drive(|client, _| client.deaf_since().is_none());
        assert_eq!(stranger.client.relayed_address(), None);
        stranger.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(stranger.is_closed());
        let mut greedy = Client::new(tcp, 3);
        greedy.stream.write_all(&[0x40, 1, 0xff, 0xf0]).unwrap();
        assert!(greedy.is_closed(), "who has no allocation announces no 64 KiB");
    })
    .await;
    relay.cancelled.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_keep_up_loses_what_is_old_and_nobody_else_suffers() {
    let (relay, tcp) = start_with_tcp().await;
    let handle = relay.handle.clone();
    blocking(move || {
        let (mut a, mut b, mut c) = (Client::new(tcp, 1), Client::new(tcp, 2), Client::new(tcp, 3));
        let (at_a, at_b, at_c) = (a.relayed(), b.relayed(), c.relayed());
        for peer in [at_b, at_c] {
            a.connect(peer);
        }
        b.connect(at_a);
        c.connect(at_a);
        // B reads nothing of some 80 MB.
        for n in 0..80_000u32 {
            assert!(a.say(at_b, &[&n.to_be_bytes()[..], &[0; 996]].concat()));
        }
        assert!(a.say(at_c, b"hello"));
        assert_eq!(c.drive(|_, received| !received.is_empty()), [b"hello".to_vec()]);
        let dropped = |reason| handle.counters().dropped(reason);
        assert!(dropped(DropReason::StreamFull) > 40_000, "{:?}", handle.counters());
        std::thread::sleep(Duration::from_millis(300));
        assert!(a.say(at_b, b"fresh"));
        let received = b.drive(|_, received| received.last().is_some_and(|last| last == b"fresh"));
        let bytes: usize = received.iter().map(Vec::len).sum();
        assert_eq!(received.last().unwrap(), b"fresh");
        assert!(bytes < 12 << 20, "only what the kernel had taken: {bytes}");
    })
    .await;
    relay.cancelled.cancel();
}

#[test]
fn who_shows_no_credentials_is_put_out_in_time() {
    let now = Instant::now();
    let mut streams = Streams::new(Arc::default());
    let remote: SocketAddr = "192.0.2.1:5".parse().unwrap();
    let (mut gate, ends) =
        (Gate::default(), Ends { local: [127, 0, 0, 1].into(), remote, one_by_one: false });
    for number in 0..3 {
        let (queue, _) = queue::new(Arc::default());
        streams.add(NewStream { number, ends, queue, slot: gate.enter(ends.remote.ip()) }, now);
    }
    streams.set_allocated(1);
    streams.set_allocated(2);
    let first = |tuple: &Tuple| tuple.via == Via::Stream(1);
    streams.end_unbound(first, now + UNBOUND - Duration::from_millis(1));
    assert!(streams.tuple(0).is_some() && streams.tuple(1).is_some());
    assert_eq!(streams.tuple(2), None, "its allocation is gone");
    streams.end_unbound(first, now + UNBOUND);
    assert_eq!((streams.tuple(0), streams.tuple(1).is_some()), (None, true));
    assert!(streams.poll_timeout().is_some());
    streams.end_unbound(|_| false, now + UNBOUND);
    assert_eq!(streams.poll_timeout(), None);
}
