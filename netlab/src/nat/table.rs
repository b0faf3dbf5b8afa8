//! Mappings of a translator: who inside has which outside port, towards whom, and for how long.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::behaviour::{Behaviour, Dependence, Ports};
use crate::packet::{Protocol, TcpFlags};
use crate::random::Random;

/// How often what has expired is cleared away; it counts for nothing from the moment on when it expires.
const CLEAR_EVERY: Duration = Duration::from_secs(1);

/// Sessions of one mapping at most; a scan from inside ends here.
const SESSIONS_MAX: usize = 4096;

/// What a mapping is found by from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    protocol: Protocol,
    inside: SocketAddrV4,
    /// As much of the other end as the mapping depends on.
    remote: Option<(Ipv4Addr, Option<u16>)>,
}

/// One outside port and whose it is.
#[derive(Debug)]
pub struct Mapping {
    key: Key,
    expires: Instant,
    sessions: BTreeMap<SocketAddrV4, Session>,
}

/// One other end that was written to.
#[derive(Debug)]
struct Session {
    expires: Instant,
    tcp: TcpState,
}

/// What was seen of a TCP connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct TcpState {
    /// Opened from inside, from outside.
    syn: [bool; 2],
    /// Ended from inside, from outside.
    fin: [bool; 2],
    reset: bool,
}

impl TcpState {
    fn is_established(self) -> bool {
        self.syn == [true; 2] && self.fin != [true; 2] && !self.reset
    }

    fn see(&mut self, flags: TcpFlags, from_outside: bool) {
        let side = usize::from(from_outside);
        if flags.syn && !flags.ack {
            // A new connection by the old ports.
            if self.reset || self.fin != [false; 2] {
                *self = Self::default();
            }
        }
        self.syn[side] |= flags.syn;
        self.fin[side] |= flags.fin;
        self.reset |= flags.rst;
    }
}

impl Mapping {
    /// The host's end.
    pub fn inside(&self) -> SocketAddrV4 {
        self.key.inside
    }

    /// Whether somebody's packets may come in.
    pub fn admits(&self, filtering: Dependence, remote: SocketAddrV4, now: Instant) -> bool {
        match filtering {
            Dependence::EndpointIndependent => true,
            Dependence::AddressDependent => self.knows_address(*remote.ip(), now),
            Dependence::AddressAndPortDependent => self.knows(remote, now),
        }
    }

    /// Whether anybody at this address was written to.
    pub fn knows_address(&self, address: Ipv4Addr, now: Instant) -> bool {
        let ports = SocketAddrV4::new(address, 0)..=SocketAddrV4::new(address, u16::MAX);
        self.sessions.range(ports).any(|(_, session)| session.expires > now)
    }

    /// Whether this end was written to, or came in already.
    pub fn knows(&self, remote: SocketAddrV4, now: Instant) -> bool {
        self.sessions.get(&remote).is_some_and(|session| session.expires > now)
    }
}

/// All mappings.
#[derive(Debug)]
pub struct Table {
    by_inside: BTreeMap<Key, u16>,
    by_port: BTreeMap<(Protocol, u16), Mapping>,
    clear_at: Option<Instant>,
    random: Random,
}

impl Table {
    pub fn new(seed: u64) -> Self {
        let (by_inside, by_port) = Default::default();
        Self { by_inside, by_port, clear_at: None, random: Random::new(seed) }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.by_inside.clear();
        self.by_port.clear();
    }

    /// Ends of all mappings: protocol, inside, outside port.
    pub fn list(&self, now: Instant) -> impl Iterator<Item = (Protocol, SocketAddrV4, u16)> {
        self.by_port
            .iter()
            .filter(move |(_, mapping)| mapping.expires > now)
            .map(|((protocol, port), mapping)| (*protocol, mapping.key.inside, *port))
    }

    /// Clears away what has expired, once in a while.
    pub fn tidy(&mut self, now: Instant) {
        if self.clear_at.is_some_and(|at| at > now) {
            return;
        }
        self.clear_at = Some(now + CLEAR_EVERY);
        let by_inside = &mut self.by_inside;
        self.by_port.retain(|_, mapping| {
            mapping.sessions.retain(|_, session| session.expires > now);
            let lives = mapping.expires > now;
            if !lives {
                by_inside.remove(&mapping.key);
            }
            lives
        });
    }

    /// The mapping of an outside port.
    pub fn by_port(&self, protocol: Protocol, port: u16, now: Instant) -> Option<&Mapping> {
        self.by_port.get(&(protocol, port)).filter(|mapping| mapping.expires > now)
    }

    /// The outside port that a host's end has towards another.
    pub fn port_of(
        &self,
        behaviour: &Behaviour,
        protocol: Protocol,
        (inside, remote): (SocketAddrV4, SocketAddrV4),
        now: Instant,
    ) -> Option<u16> {
        let port = *self.by_inside.get(&key(behaviour, protocol, inside, remote))?;
        self.by_port(protocol, port, now).map(|_| port)
    }

    /// Makes a mapping and gives its port; none is left when all are taken.
    pub fn map(
        &mut self,
        behaviour: &Behaviour,
        protocol: Protocol,
        (inside, remote): (SocketAddrV4, SocketAddrV4),
        now: Instant,
    ) -> Option<u16> {
        let key = key(behaviour, protocol, inside, remote);
        let port = self.free_port(behaviour, protocol, inside.port(), now)?;
        // What was there has expired.
        if let Some(old) =
            self.by_port.insert((protocol, port), Mapping { key, expires: now, sessions: BTreeMap::new() })
        {
            self.by_inside.remove(&old.key);
        }
        self.by_inside.insert(key, port);
        Some(port)
    }

    /// Notes a packet between a mapping and another end. False when the mapping has too many other ends.
    pub fn touch(
        &mut self,
        behaviour: &Behaviour,
        (protocol, port): (Protocol, u16),
        seen: Seen,
        now: Instant,
    ) -> bool {
        let Some(mapping) = self.by_port.get_mut(&(protocol, port)) else { return false };
        let is_new = !mapping.sessions.contains_key(&seen.remote);
        if is_new && mapping.sessions.len() >= SESSIONS_MAX {
            return false;
        }
        // An end that came in through an open filter gets no session of its own: it was not written to.
        if is_new && seen.from_outside && protocol != Protocol::Tcp {
            if behaviour.inbound_refresh {
                mapping.expires = mapping.expires.max(now + behaviour.udp());
            }
            return true;
        }
        let session =
            mapping.sessions.entry(seen.remote).or_insert(Session { expires: now, tcp: TcpState::default() });
        let life = match protocol {
            Protocol::Udp if seen.from_outside && !behaviour.inbound_refresh => return true,
            Protocol::Udp => behaviour.udp(),
            Protocol::Icmp => behaviour.icmp(),
            Protocol::Tcp => {
                if session.expires <= now {
                    session.tcp = TcpState::default();
                }
                session.tcp.see(seen.flags, seen.from_outside);
                behaviour.tcp(session.tcp.is_established())
            }
        };
        let shorter = now + life < session.expires;
        session.expires = now + life;
        if shorter {
            // A connection is ending: the mapping lives as long as the longest of its sessions.
            let last = mapping.sessions.values().map(|session| session.expires).max();
            mapping.expires = last.unwrap_or(now);
        } else {
            mapping.expires = mapping.expires.max(now + life);
        }
        true
    }

    /// A free outside port: in the range of the host's own (REQ-3), of its parity if that is kept.
    fn free_port(
        &mut self,
        behaviour: &Behaviour,
        protocol: Protocol,
        wanted: u16,
        now: Instant,
    ) -> Option<u16> {
        let is_free = |port: u16| self.by_port(protocol, port, now).is_none();
        if behaviour.ports == Ports::Preserving && is_free(wanted) {
            return Some(wanted);
        }
        let (low, high) = match (protocol, wanted) {
            (Protocol::Icmp, _) => (0, u16::MAX),
            (_, ..1024) => (1, 1023),
            _ => (1024, u16::MAX),
        };
        let count = u32::from(high - low) + 1;
        let start = u32::try_from(self.random.below(u64::from(count))).unwrap_or(0);
        let has_parity = |port: u16| !behaviour.parity || (port ^ wanted) & 1 == 0;
        (0..count)
            .filter_map(|step| u16::try_from(u32::from(low) + (start + step) % count).ok())
            .find(|port| has_parity(*port) && self.by_port(protocol, *port, now).is_none())
    }
}

/// One packet, as far as a mapping's life depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The other end.
    pub remote: SocketAddrV4,
    /// It came from there.
    pub from_outside: bool,
    /// If it is TCP.
    pub flags: TcpFlags,
}

fn key(behaviour: &Behaviour, protocol: Protocol, inside: SocketAddrV4, remote: SocketAddrV4) -> Key {
    let remote = match behaviour.mapping {
        Dependence::EndpointIndependent => None,
        Dependence::AddressDependent => Some((*remote.ip(), None)),
        Dependence::AddressAndPortDependent => Some((*remote.ip(), Some(remote.port()))),
    };
    Key { protocol, inside, remote }
}
