//! Conversations that are under way: a table of fixed size, so that nobody can fill a robot's memory.
//!
//! A flow lives in one of eight places that a keyed hash of its ends chooses. Where all eight are taken, one gives way: one
//! that has ended, else the oldest of the same pair of members, else the oldest. So whoever opens flows without end
//! pushes out its own.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ria_protocol::policy::protocol::{ICMP, ICMPV6, TCP, UDP};

use super::headers::{Ends, TcpFlags};

const PLACES: usize = 8;
const SETS: usize = 1024;

/// How long a flow without packets is remembered. RFC 4787 asks for two minutes for UDP, RFC 5382 for two hours and four
/// minutes for TCP; a shell that is left open over night costs one entry.
const UDP_LIFE: Duration = Duration::from_secs(180);
const TCP_LIFE: Duration = Duration::from_secs(24 * 3600);
const CLOSED_LIFE: Duration = Duration::from_secs(60);
const ECHO_LIFE: Duration = Duration::from_secs(60);
const OTHER_LIFE: Duration = Duration::from_secs(600);

/// A flow's ends in an order that does not depend on the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    low: (u128, u16),
    high: (u128, u16),
    protocol: u8,
}

/// A conversation that was allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    key: Key,
    /// Whether the lower end has begun it.
    begun_by_low: bool,
    closing: bool,
    /// Whether the rules allow it no more.
    ended: bool,
    /// Seconds since the table was made.
    last: u32,
    /// The rules under which it was allowed.
    pub(super) epoch: u32,
}

/// The table.
pub(super) struct Flows {
    sets: Vec<[Option<Flow>; PLACES]>,
    seed: [u64; 2],
    made: Instant,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The key, and whether the source is its lower end.
fn key(ends: &Ends) -> (Key, bool) {
    let (source, destination) =
        ((number(ends.source.0), ends.source.1), (number(ends.destination.0), ends.destination.1));
    let first = source <= destination;
    let (low, high) = if first { (source, destination) } else { (destination, source) };
    (Key { low, high, protocol: ends.protocol }, first)
}

impl Key {
    fn is_same_pair(&self, other: &Self) -> bool {
        (self.low.0, self.high.0) == (other.low.0, other.high.0)
    }

    fn set(&self, seed: [u64; 2]) -> usize {
        let half = |n: u128| [(n >> 64) as u64, n as u64];
        let ports = u64::from(self.low.1) << 24 | u64::from(self.high.1) << 8 | u64::from(self.protocol);
        let words = half(self.low.0).into_iter().chain(half(self.high.0)).chain([ports]);
        let hash = words.fold(seed[0], |hash, word| {
            let product = u128::from(hash ^ word) * u128::from(seed[1] | 1);
            (product >> 64) as u64 ^ product as u64
        });
        hash as usize % SETS
    }
}

impl Flow {
    fn life(&self) -> Duration {
        match self.key.protocol {
            TCP if self.closing => CLOSED_LIFE,
            TCP => TCP_LIFE,
            UDP => UDP_LIFE,
            ICMP | ICMPV6 => ECHO_LIFE,
            _ => OTHER_LIFE,
        }
    }

    fn has_ended(&self, second: u32) -> bool {
        self.ended || u64::from(second.saturating_sub(self.last)) > self.life().as_secs()
    }

    /// It is no flow any more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Notes a packet of it.
    pub(super) fn touch(&mut self, flags: TcpFlags, second: u32) {
        self.last = second;
        if flags.begins {
            self.closing = false;
        } else if flags.ends {
            self.closing = true;
        }
    }

    /// Who has begun it, and with whom, if `ends` are those of one of its packets.
    pub(super) fn begun_by_source_of(&self, ends: &Ends) -> bool {
        key(ends).1 == self.begun_by_low
    }
}

impl Flows {
    pub(super) fn new(seed: [u64; 2], now: Instant) -> Self {
        Self { sets: vec![[None; PLACES]; SETS], seed, made: now }
    }

    /// The time in the table's own seconds.
    pub(super) fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.made).as_secs()).unwrap_or(u32::MAX)
    }

    /// The flow to which a packet with these ends belongs.
    pub(super) fn find(&mut self, ends: &Ends, second: u32) -> Option<&mut Flow> {
        let (key, _) = key(ends);
        let set = self.sets.get_mut(key.set(self.seed))?;
        set.iter_mut().flatten().find(|flow| flow.key == key && !flow.has_ended(second))
    }

    /// A flow that was begun by the source of a packet with these ends, or by its destination.
    pub(super) fn insert(&mut self, ends: &Ends, by_source: bool, epoch: u32, second: u32) {
        let (key, source_is_low) = key(ends);
        let begun_by_low = by_source == source_is_low;
        let made = Flow { key, begun_by_low, closing: false, ended: false, last: second, epoch };
        let Some(set) = self.sets.get_mut(key.set(self.seed)) else { return };
        // Lowest gives way: the same flow, a free place, one that has ended, one of the same pair, the oldest.
        let rank = |place: &Option<Flow>| match place {
            Some(flow) if flow.key == key => (0, 0),
            None => (1, 0),
            Some(flow) if flow.has_ended(second) => (2, flow.last),
            Some(flow) if flow.key.is_same_pair(&key) => (3, flow.last),
            Some(flow) => (4, flow.last),
        };
        if let Some(place) = set.iter_mut().min_by_key(|place| rank(place)) {
            *place = Some(made);
        }
    }
}
