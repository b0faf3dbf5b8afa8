//! Leaves out announcements that nobody needs (the figures behind it: docs/decisions/0024-multicast.md).
//!
//! A participant repeats its announcement to the group and to each participant that it knows, every few seconds, so that
//! the others keep it: its lease is renewed. Copied to every peer, the one to the group does that alone. So
//!
//! - the first three of a content pass, in case that one gets lost;
//! - after that one to the group passes every 8 s, or sooner where the lease is short;
//! - and none to a single participant, while those to the group are carried;
//! - another content, another participant, a farewell, and everything to a peer that is new, passes at once.
//!
//! Fast DDS tells all readers of its endpoints what it has whenever one of them asks for something again. Where many
//! participants start together that becomes most of the traffic, and what it displaces is asked for again. So the same
//! heartbeat passes once in a while.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::budget::{Bucket, Limit};
use crate::rtps::heartbeats::Heartbeat;
use crate::rtps::{Announcement, GuidPrefix};

/// Announcements of one content that pass in any case.
pub(super) const FIRST: u8 = 3;

/// How often peers hear the same again at most: twice within Fast DDS's lease of 20 s.
const REPEAT: Duration = Duration::from_secs(8);

/// What one participant may send to the group, damped or not.
const PARTICIPANT: Limit = Limit { per_second: 10, at_once: 30 };

/// Participants of this host that are told apart. Those beyond share one budget and are not damped.
const MAX_PARTICIPANTS: usize = 256;

/// A participant that was silent for this long (and longer than its lease) is gone.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// How old an announcement may be to be told to a peer that comes into reach: Cyclone 11 repeats its own every 30 s.
const LAST_WORDS: Duration = Duration::from_secs(40);

/// While one to the group went out within this time, or the lease where it is longer, peers know the participant by it.
const CARRIED: Duration = Duration::from_secs(20);

/// A participant of this host.
#[derive(Debug)]
struct Participant {
    guid_prefix: GuidPrefix,
    budget: Bucket,
    heard: Instant,
    lease: Duration,
    content: u64,
    passed: u8,
    /// When all peers were sent an announcement last.
    round: Option<Instant>,
    /// That announcement, as a packet.
    last: Vec<u8>,
}

/// The participants of this host that speak to the group.
#[derive(Debug, Default)]
pub(super) struct Participants {
    known: Vec<Participant>,
    /// Of what has no place above.
    others: Bucket,
}

impl Participants {
    /// Whether a participant, or somebody who is none, may send one more packet to a group.
    pub(super) fn take(&mut self, sender: Option<GuidPrefix>, now: Instant) -> bool {
        let known =
            sender.and_then(|guid_prefix| self.known.iter_mut().find(|p| p.guid_prefix == guid_prefix));
        known.map_or(&mut self.others, |participant| &mut participant.budget).take(1, PARTICIPANT, now)
    }

    /// Takes an announcement to the group. Gives the time since when all but new peers know it, if they do.
    pub(super) fn announce(
        &mut self,
        announced: &Announcement<'_>,
        packet: &[u8],
        now: Instant,
    ) -> Option<Instant> {
        let index = self.known.iter().position(|p| p.guid_prefix == announced.participant)?;
        if announced.is_farewell {
            self.known.swap_remove(index);
            return None;
        }
        let participant = self.known.get_mut(index)?;
        let content = hash(0, announced.content);
        if content != participant.content {
            (participant.content, participant.passed) = (content, 0);
            participant.last.clear();
            participant.last.extend_from_slice(packet);
        }
        participant.heard = now;
        participant.lease = announced.lease.unwrap_or_default().min(FORGOTTEN);
        let repeat = match participant.lease {
            Duration::ZERO => REPEAT,
            lease => REPEAT.min(lease * 2 / 5),
        };
        let is_known = participant.passed >= FIRST;
        let lately = participant.round.filter(|at| is_known && now.saturating_duration_since(*at) < repeat);
        if lately.is_none() {
            participant.passed = participant.passed.saturating_add(1);
            participant.round = Some(now);
        }
        lately
    }

    /// How many there are, as far as they were heard of late.
    pub(super) fn count(&self, now: Instant) -> usize {
        let is_alive = |p: &&Participant| now.saturating_duration_since(p.heard) < LAST_WORDS.max(p.lease);
        self.known.iter().filter(is_alive).count()
    }

    /// Gives a participant that is new a place, if there is one.
    pub(super) fn meet(&mut self, announced: &Announcement<'_>, now: Instant) {
        let is_known = self.known.iter().any(|p| p.guid_prefix == announced.participant);
        if is_known || announced.is_farewell {
            return;
        }
        if self.known.len() >= MAX_PARTICIPANTS {
            self.known.retain(|p| now.saturating_duration_since(p.heard) < FORGOTTEN.max(p.lease));
        }
        if self.known.len() >= MAX_PARTICIPANTS {
            return;
        }
        self.known.push(Participant {
            guid_prefix: announced.participant,
            budget: Bucket::default(),
            heard: now,
            lease: Duration::ZERO,
            content: 0,
            passed: 0,
            round: None,
            last: Vec::new(),
        });
    }

    /// Whether peers keep a participant of this host by what it sends to the group.
    pub(super) fn is_carried(&self, participant: &GuidPrefix, now: Instant) -> bool {
        let known = self.known.iter().find(|p| p.guid_prefix == *participant);
        known.is_some_and(|p| {
            p.round.is_some_and(|at| now.saturating_duration_since(at) < CARRIED.max(p.lease))
        })
    }

    pub(super) fn last_words(&self, now: Instant) -> impl Iterator<Item = &[u8]> {
        let lately = move |p: &&Participant| now.saturating_duration_since(p.heard) < LAST_WORDS;
        self.known.iter().filter(lately).map(|p| p.last.as_slice())
    }
}

/// Slots of a table of repeats: 8 to a set, and this many at first and at most (1 MiB).
const WAYS: usize = 8;
const FIRST_SLOTS: usize = 1024;
const MAX_SLOTS: usize = 65_536;

/// An entry of this age makes room for another one.
const UNUSED: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    fingerprint: u64,
    last: Option<Instant>,
    count: u8,
}

/// How often which announcement went to which participant: a table of fingerprints, for there are as many as this host
/// has participants, times those of all peers. When it is full, some are forgotten and pass again, which does no harm.
#[derive(Debug, Default)]
pub(super) struct Repeats(Vec<Seen>);

impl Repeats {
    /// Counts one more, and tells how many there are.
    pub(super) fn note(
        &mut self,
        announced: &Announcement<'_>,
        (address, port): (IpAddr, u16),
        epoch: u64,
        now: Instant,
    ) -> u8 {
        let fingerprint = fingerprint(announced, address, port, epoch);
        if self.0.is_empty() {
            self.0 = vec![Seen::default(); FIRST_SLOTS];
        }
        let seen = self.slot(fingerprint, now);
        if seen.fingerprint != fingerprint {
            let displaced = seen.last.is_some_and(|at| now.saturating_duration_since(at) < UNUSED);
            *seen = Seen { fingerprint, ..Seen::default() };
            if displaced && self.0.len() < MAX_SLOTS {
                // Everything passes three more times, which is rare enough.
                self.0 = vec![Seen::default(); self.0.len() * 2];
                return self.note(announced, (address, port), epoch, now);
            }
        }
        let seen = self.slot(fingerprint, now);
        seen.count = seen.count.saturating_add(1);
        seen.last = Some(now);
        seen.count
    }

    /// The entry of a fingerprint, or the one that makes room for it.
    fn slot(&mut self, fingerprint: u64, now: Instant) -> &mut Seen {
        let sets = self.0.len() / WAYS;
        #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
        let set = (fingerprint >> 32) as usize % sets * WAYS;
        let ways = set..set + WAYS;
        let found = ways.clone().find(|index| self.0[*index].fingerprint == fingerprint);
        let age = |seen: &Seen| seen.last.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let index = found.or_else(|| ways.max_by_key(|index| age(&self.0[*index]))).unwrap_or(set);
        &mut self.0[index]
    }
}

/// A heartbeat that says the same to the same reader passes again after this time. By itself a writer repeats it every second.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// Places for those that passed last (64 KiB).
const HEARTBEATS: usize = 4096;

/// Which heartbeats went to whom, and when: by fingerprint, each in one place. One that is displaced passes once more.
#[derive(Debug, Default)]
pub(super) struct Heartbeats(Vec<(u64, Option<Instant>)>);

impl Heartbeats {
    /// Whether the same went there just now, from this very address: a participant on several interfaces sends each message
    /// from all of them, and peers take only the one from the overlay's.
    pub(super) fn is_echo(
        &mut self,
        heartbeat: &Heartbeat<'_>,
        (from, to): (IpAddr, (IpAddr, u16)),
        now: Instant,
    ) -> bool {
        let seed = hash(u64::from(to.1) ^ (u64::from(heartbeat.flags) << 16), &heartbeat.participant);
        let fingerprint = hash(with_address(with_address(seed, from), to.0), heartbeat.content);
        if self.0.is_empty() {
            self.0 = vec![(0, None); HEARTBEATS];
        }
        #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
        let place = (fingerprint >> 32) as usize % HEARTBEATS;
        let Some((known, at)) = self.0.get_mut(place) else { return false };
        let lately = at.is_some_and(|at| now.saturating_duration_since(at) < HEARTBEAT);
        if *known == fingerprint && lately {
            return true;
        }
        (*known, *at) = (fingerprint, Some(now));
        false
    }
}

fn with_address(seed: u64, address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => hash(seed, &v4.octets()),
        IpAddr::V6(v6) => hash(seed, &v6.octets()),
    }
}

fn fingerprint(announced: &Announcement<'_>, address: IpAddr, port: u16, epoch: u64) -> u64 {
    let from = hash(u64::from(port) ^ (epoch << 16), &announced.participant);
    hash(with_address(from, address), announced.content)
}

/// Mixes bytes into a number, eight at a time. It only has to tell this host's own announcements apart.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let state = (state ^ word).wrapping_mul(ODD);
        state ^ (state >> 29)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let state =
        words.iter().fold(seed ^ bytes.len() as u64, |state, word| mix(state, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    mix(mix(state, u64::from_le_bytes(last)), ODD)
}
