//! Streams to the relay in the world: opened a moment after they are wanted, as reliable as TCP, and broken at will.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ria_core::relay::framing;
use ria_core::{Command, Event, SocketIndex, StreamNews};

use super::{World, ms, network};

/// Streams begin at this address.
const END: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 200));

/// A stream that an engine wants.
struct Wanted {
    host: usize,
    socket: SocketIndex,
    relay: SocketAddr,
    /// This end of it, another one each time it is opened; `None` while it is not open.
    end: Option<SocketAddr>,
}

/// All streams.
#[derive(Default)]
pub struct Streams {
    /// Whether TCP does not get through either.
    pub blocked: bool,
    /// Bytes that went over streams to the relay.
    pub sent: usize,
    wanted: Vec<Wanted>,
    opening: BTreeMap<(Instant, u64), (usize, SocketIndex)>,
    ends: u16,
}

impl Streams {
    pub fn due(&self) -> Option<Instant> {
        self.opening.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.wanted.iter().filter(|stream| stream.end.is_some()).count()
    }

    /// Whether somebody's stream begins here.
    pub fn is_end(&self, address: SocketAddr) -> bool {
        address.ip() == END
    }

    pub fn is_relay(&self, address: SocketAddr) -> bool {
        self.wanted.iter().any(|stream| stream.relay == address)
    }

    pub fn host_at(&self, end: SocketAddr) -> Option<(usize, SocketIndex, SocketAddr)> {
        let stream = self.wanted.iter().find(|stream| stream.end == Some(end))?;
        Some((stream.host, stream.socket, stream.relay))
    }

    fn index(&self, host: usize, socket: SocketIndex) -> Option<usize> {
        self.wanted.iter().position(|stream| (stream.host, stream.socket) == (host, socket))
    }
}

impl World {
    pub fn follow_streams(&mut self, host: usize, event: &Event) {
        if let Event::RelayStreamWanted { socket, address, .. } = event {
            let (socket, relay) = (*socket, *address);
            self.streams.wanted.push(Wanted { host, socket, relay, end: None });
            // TCP and TLS take a round trip each.
            self.open_later(host, socket, 4 * self.latency);
        }
        if let Event::RelayStreamUnwanted { socket, .. } = event {
            self.streams.wanted.retain(|stream| (stream.host, stream.socket) != (host, *socket));
        }
    }

    fn open_later(&mut self, host: usize, socket: SocketIndex, after: Duration) {
        self.order += 1;
        self.streams.opening.insert((self.now + after, self.order), (host, socket));
    }

    /// The next stream that is due opens, or fails to.
    pub fn open_stream(&mut self) {
        let Some((_, (host, socket))) = self.streams.opening.pop_first() else { return };
        let Some(index) = self.streams.index(host, socket) else { return };
        if self.streams.blocked {
            self.open_later(host, socket, ms(1000));
            return self.tell(host, socket, StreamNews::Closed("refused".into()));
        }
        self.streams.ends += 1;
        self.streams.wanted[index].end = Some(SocketAddr::new(END, self.streams.ends));
        self.tell(host, socket, StreamNews::Opened);
    }

    fn tell(&mut self, host: usize, socket: SocketIndex, news: StreamNews) {
        self.command(host, Command::RelayStream { network: network(), socket, news });
    }

    /// All streams break, and are opened again.
    pub fn break_streams(&mut self) {
        let broken = self.streams.wanted.iter_mut().filter(|stream| stream.end.is_some());
        let broken: Vec<(usize, SocketIndex)> = broken
            .map(|stream| {
                stream.end = None;
                (stream.host, stream.socket)
            })
            .collect();
        for (host, socket) in broken {
            self.open_later(host, socket, ms(500));
            self.tell(host, socket, StreamNews::Closed("broken".into()));
        }
    }

    /// A datagram goes as a frame, and comes out of it at the other end.
    pub fn send_on_stream(&mut self, host: usize, socket: SocketIndex, datagram: &[u8]) {
        let wanted = self.streams.index(host, socket).map(|index| &self.streams.wanted[index]);
        let Some((end, relay)) = wanted.and_then(|stream| Some((stream.end?, stream.relay))) else { return };
        let mut bytes = Vec::new();
        framing::push(datagram, &mut bytes);
        self.streams.sent += bytes.len();
        let mut rest = &bytes[..];
        while let Some(datagram) = framing::take(&mut rest).unwrap() {
            self.launch_surely(end, relay, datagram.to_vec());
        }
        assert!(rest.is_empty());
    }
}
