//! Which packets for a peer go before the others when not all can go at once: those of flows that send little, as
//! `/cmd_vel`, `/tf` or a shell do, before images and copied files.
//!
//! A flow is what has the same addresses, protocol and ports. Each is given an allowance that grows with time; while it
//! keeps within, its packets are [prompt](Class::Prompt). Nobody has to mark anything for it. Marks count all the same
//! (RFC 4594): a flow that asks for haste is given ten times as much, one that asks for less than the usual (RFC 8622,
//! RFC 3662) nothing. Discovery of DDS is given as much as what asks for haste: a participant that comes tells each other one all
//! that it has, and nothing works before that.
//!
//! Order within a flow is kept: one whose packets may still wait among the others stays with them until they are gone.

use std::time::{Duration, Instant};

use crate::ip::IpPacket;
use crate::packet::Class;

/// Flows that are told apart; two in one place are taken for one. A power of two.
const PLACES: usize = 128;

/// Bytes that a flow may send at once and within each second, for its packets to be prompt: 100 messages of some hundred
/// bytes a second with all that RTPS adds, acknowledgements of a download at 20 Mbit/s.
const AT_ONCE: u32 = 8 * 1024;
const PER_SECOND: u64 = 64 * 1024;

/// How much more a flow may send whose packets ask for haste.
const MARKED: u32 = 10;

/// Class selectors from here on (RFC 2474): CS4 to CS7, AF4x, VOICE-ADMIT, EF.
const HASTE: u8 = 32;

/// Less than the usual: LE and CS1.
const SCAVENGERS: [u8; 2] = [1, 8];

/// Where DDS discovery goes (DDSI-RTPS 2.5, section 9.6.1.1): from this port on each domain has so many, of which the first is for
/// all, and of those of a participant the first.
const DDS_PORTS: u16 = 7400;
const DDS_DOMAIN: u16 = 250;
const DDS_PARTICIPANTS: std::ops::RangeInclusive<u16> = 10..=73;

/// What each message of DDS begins with.
const RTPS: &[u8] = b"RTPS";

/// By then nothing waits any more, with the caller or in the kernel.
const GONE: Duration = Duration::from_millis(400);

/// In a thread of its own, a shard has heard by then that packets have begun to wait.
const HEARD: Duration = Duration::from_millis(50);

/// A place of the table.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// What was sent and has not been forgotten since.
    level: u32,
    at: Option<Instant>,
    /// When a packet of it went among the others last.
    bulk: Option<Instant>,
}

/// The flows to one peer.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// Made with the first packet.
    places: Vec<Place>,
    /// Whether packets for the peer wait.
    waiting: bool,
    /// For how long they may have waited without word of it.
    unheard: Duration,
    /// The flow of the packet before and its place: packets come in runs.
    last: (Key, usize),
}

/// What a flow is known by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Key {
    /// Addresses, folded to one number.
    addresses: u128,
    ports: u32,
    protocol: u8,
}

impl Flows {
    /// Whether packets for the peer wait with the caller.
    pub(super) fn set_waiting(&mut self, waiting: bool) {
        self.waiting = waiting;
    }

    /// That packets wait is told from another thread.
    pub(super) fn hear_late(&mut self) {
        self.unheard = HEARD;
    }

    /// The class of a packet that is sent now.
    pub(super) fn class(&mut self, packet: &[u8], now: Instant) -> Class {
        let Some((key, dscp, hasty)) = describe(packet) else { return Class::Bulk };
        if self.places.is_empty() {
            self.places = vec![Place::default(); PLACES];
        }
        if self.last.0 != key {
            self.last = (key, key.place());
        }
        let Some(place) = self.places.get_mut(self.last.1) else { return Class::Bulk };
        let times = match dscp {
            _ if SCAVENGERS.contains(&dscp) => 0,
            HASTE.. => MARKED,
            _ if hasty => MARKED,
            _ => 1,
        };
        let stays = if self.waiting { GONE } else { self.unheard };
        place.take(u32::try_from(packet.len()).unwrap_or(u32::MAX), times, stays, now)
    }
}

impl Place {
    /// `stays`: for how long a flow that has gone among the others stays with them.
    fn take(&mut self, bytes: u32, times: u32, stays: Duration, now: Instant) -> Class {
        let most = AT_ONCE * times;
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let forgotten = (PER_SECOND * u64::from(times)).saturating_mul(micros) / 1_000_000;
        self.level = self.level.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        // What is forgotten in less than a byte's time must not be lost to many small packets.
        if forgotten > 0 || self.at.is_none() {
            self.at = Some(now);
        }
        self.level = self.level.saturating_add(bytes).min(2 * most);
        let follows = self.bulk.is_some_and(|at| now.saturating_duration_since(at) < stays);
        if follows || times == 0 || self.level > most {
            self.bulk = Some(now);
            return Class::Bulk;
        }
        Class::Prompt
    }
}

impl Key {
    fn place(self) -> usize {
        let folded = (self.addresses >> 64) as u64 ^ self.addresses as u64;
        let mixed = folded ^ (u64::from(self.ports) << 16) ^ u64::from(self.protocol);
        // Fibonacci hashing: the upper bits of the product depend on all of the number.
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PLACES.ilog2())) as usize
    }
}

/// A packet's flow, its DSCP (RFC 2474), and whether it is of discovery.
fn describe(packet: &[u8]) -> Option<(Key, u8, bool)> {
    const HAVE_PORTS: [u8; 2] = [6, 17];
    let view = IpPacket::parse(packet)?;
    let (header, dscp, addresses) = if packet.first()? >> 4 == 4 {
        let addresses = u128::from(u64::from_be_bytes(*packet.get(12..)?.first_chunk()?));
        (usize::from(packet.first()? & 0x0f) * 4, packet.get(1)? >> 2, addresses)
    } else {
        let part = |at: usize| Some(u128::from_be_bytes(*packet.get(at..)?.first_chunk()?));
        let dscp = (u16::from_be_bytes(*packet.first_chunk()?) >> 6) & 0x3f;
        (40, dscp as u8, part(8)?.rotate_left(7) ^ part(24)?)
    };
    // Of a packet in pieces only the first has ports, so none counts by them.
    let whole = HAVE_PORTS.contains(&view.protocol) && !view.is_fragment();
    let ports = if whole {
        packet.get(header..)?.first_chunk().map(|ports| u32::from_be_bytes(*ports))
    } else {
        None
    };
    let ports = ports.unwrap_or(0);
    let is_discovery = view.protocol == 17
        && is_discovery_port(ports as u16)
        && packet.get(header + 8..).is_some_and(|payload| payload.starts_with(RTPS));
    Some((Key { addresses, ports, protocol: view.protocol }, dscp, is_discovery))
}

fn is_discovery_port(port: u16) -> bool {
    port.checked_sub(DDS_PORTS).is_some_and(|above| {
        let offset = above % DDS_DOMAIN;
        offset == 0 || DDS_PARTICIPANTS.contains(&offset) && offset.is_multiple_of(2)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]

    use super::*;

    const CAMERA: u16 = 7411;
    const COMMANDS: u16 = 7413;

    fn packet(port: u16, len: usize, dscp: u8) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[0] = 0x45;
        packet[1] = dscp << 2;
        packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        packet[9] = 17;
        packet[12..20].copy_from_slice(&[10, 213, 0, 1, 10, 213, 0, 2]);
        packet[20..24].copy_from_slice(&[0x30, 0x39, (port >> 8) as u8, port as u8]);
        packet
    }

    #[test]
    fn discovery_may_send_more_and_its_ports_are_not_enough_for_that() {
        let prompt = |port, begins: &[u8]| {
            let (mut flows, now) = (Flows::default(), Instant::now());
            let mut packet = packet(port, 1228, 0);
            packet[28..28 + begins.len()].copy_from_slice(begins);
            (0..60).filter(|_| flows.class(&packet, now) == Class::Prompt).count()
        };
        // Domain 0 to all, to its third participant, and domain 42 to its first.
        for port in [7400, 7414, 17_910] {
            assert_eq!((prompt(port, RTPS), prompt(port, b"else")), (60, 6), "{port}");
        }
        assert_eq!(prompt(CAMERA, RTPS), 6, "what participants send is judged by itself");
    }

    #[test]
    fn what_sends_little_goes_before_what_sends_much() {
        let (mut flows, start) = (Flows::default(), Instant::now());
        let mut prompt = [0, 0];
        for ms in 0..2000 {
            let now = start + Duration::from_millis(ms);
            flows.set_waiting(ms > 20);
            for _ in 0..4 {
                prompt[0] += u32::from(flows.class(&packet(CAMERA, 1280, 0), now) == Class::Prompt);
            }
            if ms % 20 == 0 {
                prompt[1] += u32::from(flows.class(&packet(COMMANDS, 200, 0), now) == Class::Prompt);
            }
        }
        assert_eq!(prompt, [AT_ONCE / 1280, 100]);
    }

    #[test]
    fn marks_count() {
        let now = Instant::now();
        let first_bulk = |dscp| {
            let mut flows = Flows::default();
            (0..200).position(|_| flows.class(&packet(CAMERA, 1000, dscp), now) == Class::Bulk)
        };
        assert_eq!([0, 46, 8, 1].map(first_bulk), [Some(8), Some(81), Some(0), Some(0)]);
    }

    #[test]
    fn a_flow_does_not_overtake_itself() {
        let (mut flows, start) = (Flows::default(), Instant::now());
        flows.set_waiting(true);
        while flows.class(&packet(CAMERA, 1280, 0), start) == Class::Prompt {}
        let mut later = |ms| flows.class(&packet(CAMERA, 100, 0), start + Duration::from_millis(ms));
        assert_eq!((later(390), later(780)), (Class::Bulk, Class::Bulk), "some of it may still wait");
        assert_eq!(later(1200), Class::Prompt);
        assert_eq!(flows.class(&packet(CAMERA, 9000, 0), start + Duration::from_millis(1210)), Class::Bulk);
        flows.set_waiting(false);
        let soon = start + Duration::from_millis(1400);
        assert_eq!(flows.class(&packet(CAMERA, 100, 0), soon), Class::Prompt, "nothing waits");
    }

    #[test]
    fn pieces_of_a_packet_are_one_flow_and_nonsense_is_bulk() {
        let whole = packet(CAMERA, 600, 0);
        let mut first = whole.clone();
        first[6] = 0x20;
        let mut second = packet(COMMANDS, 600, 0);
        second[7] = 100;
        let key = |packet: &[u8]| describe(packet).unwrap().0;
        assert_eq!(key(&first), key(&second));
        assert_ne!(key(&first), key(&whole));
        assert_eq!(Flows::default().class(&[0x45; 10], Instant::now()), Class::Bulk);
    }
}
