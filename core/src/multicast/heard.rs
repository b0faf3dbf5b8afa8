//! Which DDS participants of a peer have announced themselves.

use std::time::{Duration, Instant};

use crate::rtps::{Announcement, GuidPrefix};

/// Participants of one peer that are told apart; with more, those not heard for longest are forgotten.
const MAX_PARTICIPANTS: usize = 256;

/// What is not heard of for this long is gone, even if its lease is shorter: some announce themselves every 30 s and keep
/// their lease by other messages.
const SHORTEST_LIFE: Duration = Duration::from_secs(40);

/// Leases without end end here; an announcement begins them anew.
const LONGEST_LIFE: Duration = Duration::from_secs(600);

/// The participants of a peer.
#[derive(Debug, Default)]
pub(super) struct Heard(Vec<(GuidPrefix, Instant)>);

impl Heard {
    /// Takes an announcement; tells whether the participant is new.
    pub(super) fn note(&mut self, announced: &Announcement<'_>, now: Instant) -> bool {
        let known = self.0.iter().position(|(participant, _)| *participant == announced.participant);
        if announced.is_farewell {
            known.map(|index| self.0.swap_remove(index));
            return false;
        }
        let until = now + announced.lease.unwrap_or_default().clamp(SHORTEST_LIFE, LONGEST_LIFE);
        if let Some((_, end)) = known.and_then(|index| self.0.get_mut(index)) {
            return std::mem::replace(end, until) <= now;
        }
        if self.0.len() >= MAX_PARTICIPANTS {
            self.0.retain(|(_, until)| *until > now);
        }
        let entry = (announced.participant, until);
        if self.0.len() < MAX_PARTICIPANTS {
            self.0.push(entry);
        } else if let Some(oldest) = self.0.iter_mut().min_by_key(|(_, until)| *until) {
            *oldest = entry;
        }
        true
    }

    /// Whether a participant is alive.
    pub(super) fn has(&self, participant: &[u8], now: Instant) -> bool {
        self.0.iter().any(|(known, until)| known == participant && *until > now)
    }

    pub(super) fn count(&self, now: Instant) -> usize {
        self.0.iter().filter(|(_, until)| *until > now).count()
    }
}
