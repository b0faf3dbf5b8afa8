//! What lies between the hosts: networks behind NATs, the public network with the relay, and all that goes wrong there.
//!
//! It carries datagrams and knows nothing of what is in them. Each host has one address, either public or in a private
//! network behind a NAT; hosts of one private network reach each other straight.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::nat::{Filtering, Mapping, Nat};
use crate::random::Random;
use crate::turn::TurnServer;

/// Where the relay answers.
pub const RELAY: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 3478);

/// The UDP port of every agent.
pub const PORT: u16 = 41_820;

/// How many datagrams that arrived are kept, so that they can be sent again.
const KEPT: usize = 256;

/// Between hosts of one private network.
const NEAR: Duration = Duration::from_micros(300);

/// A host, by its place in the list.
pub type HostId = usize;

/// Where a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the public network.
    Public,
    /// Behind the NAT of this number.
    Behind(usize),
}

/// The NATs that there are: of each kind two.
pub const NATS: usize = 6;

fn nat_kind(number: usize) -> (Mapping, Filtering) {
    match number % 3 {
        0 => (Mapping::EndpointIndependent, Filtering::AddressDependent),
        1 => (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent),
        _ => (Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent),
    }
}

/// One end of a datagram's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A host.
    Host(HostId),
    /// The relay.
    Relay,
}

/// How datagrams fare, shares in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Lost.
    pub loss: u16,
    /// Delivered twice.
    pub duplicates: u16,
    /// With a bit turned over (Ria's and WireGuard's own only: a real network's checksum would drop it).
    pub damage: u16,
    /// One-way delay in milliseconds.
    pub delay: u16,
    /// Up to this much more at random, in milliseconds: they overtake each other.
    pub jitter: u16,
}

impl Weather {
    /// A good day.
    pub const FAIR: Self = Self { loss: 0, duplicates: 0, damage: 0, delay: 10, jitter: 0 };
}

#[derive(Debug, Clone)]
struct Flight {
    source: End,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// A datagram that reached a host.
#[derive(Debug)]
pub struct Arrival {
    /// Where.
    pub host: HostId,
    /// Who sent it, as the host sees it.
    pub from: SocketAddr,
    /// Content.
    pub bytes: Vec<u8>,
}

/// The internet.
pub struct Internet {
    places: Vec<Place>,
    /// How often each host has been given an address: roaming within one network gives another one.
    leases: Vec<u8>,
    nats: Vec<Nat>,
    relay: TurnServer,
    relay_runs: bool,
    /// How it is today.
    pub weather: Weather,
    cuts: BTreeSet<(End, End)>,
    isolated: BTreeSet<HostId>,
    queue: BTreeMap<(Instant, u64), Flight>,
    order: u64,
    random: Random,
    kept: VecDeque<Flight>,
    /// Datagrams sent by hosts so far.
    pub sent: u64,
}

impl Internet {
    /// An internet with hosts in these places.
    pub fn new(places: Vec<Place>, random: Random) -> Self {
        let nats = (0..NATS).map(|number| {
            let (mapping, filtering) = nat_kind(number);
            Nat::new(IpAddr::from([203, 0, 113, byte(number + 1)]), mapping, filtering)
        });
        Self {
            leases: vec![0; places.len()],
            places,
            nats: nats.collect(),
            relay: TurnServer::new(RELAY),
            relay_runs: true,
            weather: Weather::FAIR,
            cuts: BTreeSet::new(),
            isolated: BTreeSet::new(),
            queue: BTreeMap::new(),
            order: 0,
            random,
            kept: VecDeque::new(),
            sent: 0,
        }
    }

    /// A host's own address.
    pub fn address(&self, host: HostId) -> SocketAddr {
        let lease = self.leases[host] % 16;
        let last = byte(host + 1) + 16 * lease % 240;
        let ip = match self.places[host] {
            Place::Public => [198, 51, 101, last],
            Place::Behind(nat) => [192, 168, byte(nat % NATS + 1), last],
        };
        SocketAddr::from((ip, PORT))
    }

    /// Where a host is.
    pub fn place(&self, host: HostId) -> Place {
        match self.places[host] {
            Place::Public => Place::Public,
            Place::Behind(nat) => Place::Behind(nat % NATS),
        }
    }

    /// A host moves and gets another address.
    pub fn roam(&mut self, host: HostId, place: Place) {
        self.places[host] = place;
        self.leases[host] = self.leases[host].wrapping_add(1);
    }

    /// A NAT forgets its mappings.
    pub fn rebind(&mut self, nat: usize) {
        self.nats[nat % NATS].rebind();
    }

    /// Nothing passes between the two any more.
    pub fn cut(&mut self, a: End, b: End) {
        self.cuts.insert((a.min(b), a.max(b)));
    }

    /// A host reaches nobody any more.
    pub fn isolate(&mut self, host: HostId) {
        self.isolated.insert(host);
    }

    /// Whether a host reaches nobody.
    pub fn is_isolated(&self, host: HostId) -> bool {
        self.isolated.contains(&host)
    }

    /// Everything passes again.
    pub fn mend(&mut self) {
        self.cuts.clear();
        self.isolated.clear();
    }

    /// Whether datagrams pass between the two.
    pub fn is_cut(&self, a: End, b: End) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    /// The relay stops or starts. Either way it remembers nothing.
    pub fn set_relay(&mut self, runs: bool) {
        self.relay_runs = runs;
        self.relay.restart();
    }

    /// Whether the relay runs.
    pub fn relay_runs(&self) -> bool {
        self.relay_runs
    }

    /// When the next datagram arrives.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Number of datagrams under way.
    pub fn under_way(&self) -> usize {
        self.queue.len()
    }

    /// A host sends a datagram.
    pub fn send(&mut self, host: HostId, to: SocketAddr, bytes: &[u8], now: Instant) {
        if self.is_isolated(host) {
            return;
        }
        self.sent += 1;
        let from = self.address(host);
        let place = self.place(host);
        let near = (0..self.places.len()).any(|h| self.place(h) == place && self.address(h) == to);
        let public = match place {
            Place::Behind(nat) if !near => self.nats[nat].outbound(from, to),
            Place::Behind(_) | Place::Public => from,
        };
        self.launch(Flight { source: End::Host(host), from: public, to, bytes: bytes.to_vec() }, now);
    }

    /// Datagrams of the recent past are sent once more, from where they came.
    pub fn replay(&mut self, count: usize, now: Instant) {
        for _ in 0..count.min(self.kept.len()) {
            let which = self.random.index(self.kept.len());
            if let Some(flight) = self.kept.get(which).cloned() {
                self.schedule(flight, now);
            }
        }
    }

    /// Anything at all, from an address that nobody has.
    pub fn garbage(&mut self, host: HostId, len: usize, now: Instant) {
        let to = self.address(host);
        let random = &mut self.random;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.bytes::<1>()[0]).collect();
        // The first bytes decide which protocol gets it; at random nearly none would.
        let heads: [&[u8]; 7] = [
            &[],
            &[1, 0, 0, 0],
            &[2, 0, 0, 0],
            &[4, 0, 0, 0],
            &[0xd1],
            &[0x40, 0],
            &[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42],
        ];
        let head = heads[random.index(heads.len())];
        bytes.iter_mut().zip(head).for_each(|(byte, wanted)| *byte = *wanted);
        let from = SocketAddr::from(([203, 0, 114, 7], 666));
        self.order += 1;
        let flight = Flight { source: End::Relay, from, to, bytes };
        self.queue.insert((now, self.order), flight);
    }

    fn launch(&mut self, flight: Flight, now: Instant) {
        if self.random.chance(self.weather.loss) {
            return;
        }
        if self.random.chance(self.weather.duplicates) {
            self.schedule(flight.clone(), now);
        }
        self.schedule(flight, now);
    }

    fn schedule(&mut self, mut flight: Flight, now: Instant) {
        let is_ours = matches!(flight.bytes.first(), Some(1 | 2 | 4)) && flight.bytes.get(1) == Some(&0)
            || flight.bytes.first() == Some(&0xd1);
        if is_ours && self.random.chance(self.weather.damage) {
            let at = self.random.index(flight.bytes.len());
            flight.bytes[at] ^= 1 << self.random.below(8);
        }
        let near = private(flight.from.ip()) && private(flight.to.ip());
        let delay = if near { NEAR } else { Duration::from_millis(self.weather.delay.into()) };
        let jitter = Duration::from_micros(self.random.below(u64::from(self.weather.jitter) * 1000));
        self.order += 1;
        self.queue.insert((now + delay + jitter, self.order), flight);
    }

    /// The next datagram ends its way. `None` when it did not reach a host.
    pub fn arrive(&mut self, now: Instant) -> Option<Arrival> {
        let (_, flight) = self.queue.pop_first()?;
        if flight.to == RELAY {
            self.pass_relay(&flight, now);
            return None;
        }
        let inside = match self.nats.iter().find(|nat| nat.public() == flight.to.ip()) {
            Some(nat) => nat.inbound(flight.from, flight.to)?,
            None => flight.to,
        };
        // A private address leads to a host of the sender's own network only.
        let reached = |host: &HostId| {
            let near = || matches!(flight.source, End::Host(s) if self.place(s) == self.place(*host));
            self.address(*host) == inside && (inside != flight.to || !private(inside.ip()) || near())
        };
        let host = (0..self.places.len()).find(reached)?;
        if self.is_isolated(host) || self.is_cut(flight.source, End::Host(host)) {
            return None;
        }
        // Who keeps datagrams from arriving and sends them later only delays them; what arrived must not count twice.
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(flight.clone());
        Some(Arrival { host, from: flight.from, bytes: flight.bytes })
    }

    fn pass_relay(&mut self, flight: &Flight, now: Instant) {
        if !self.relay_runs || self.is_cut(flight.source, End::Relay) {
            return;
        }
        if let Some((to, bytes)) = self.relay.handle(flight.from, &flight.bytes) {
            self.launch(Flight { source: End::Relay, from: RELAY, to, bytes }, now);
        }
    }

    /// Whether two hosts that know each other's addresses surely reach each other without the relay.
    pub fn surely_direct(&self, a: HostId, b: HostId) -> bool {
        let (near, far) = (self.place(a), self.place(b));
        let (ends, public) = ((End::Host(a), End::Host(b)), Place::Public);
        !self.is_cut(ends.0, ends.1) && (near == far || near == public || far == public)
    }

    /// Whether two hosts surely reach each other through the relay.
    pub fn surely_relayed(&self, a: HostId, b: HostId) -> bool {
        let reaches = |host| !self.is_cut(End::Host(host), End::Relay);
        self.relay_runs && reaches(a) && reaches(b)
    }
}

fn private(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.is_private())
}

fn byte(number: usize) -> u8 {
    number.to_le_bytes()[0]
}
