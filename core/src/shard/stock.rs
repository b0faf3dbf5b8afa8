//! What is different in a slot whose peer runs stock WireGuard: it has no probes, so where it is follows from what it
//! sends, and handshakes begin when there is something to send (WireGuard's whitepaper, sections 2.1 and 6).
//!
//! The other end renews a session that it began after 120 s, when it sends; this end does the same a little earlier, and
//! in the place of the other one when that has not done it after 150 s. A session that is not used is left to end.

use std::time::{Duration, Instant};

use super::message::{Conduct, Route};
use super::slot::{PeerSlot, RENEW_AFTER, RENEW_AFTER_IN_PLACE};
use crate::packet::DatagramBatch;

/// First wait for an answer of a stock peer. Its way may be a slow one, and each initiation that it answers makes the
/// session before void.
pub(super) const STOCK_RETRY: Duration = Duration::from_secs(1);

/// Packets of this age show that a session whose renewal is due is in use.
const IN_USE: Duration = Duration::from_secs(30);

/// Initiations to where a stock peer was seen last, in case that it is there: after a restart of this end.
const GREETINGS: u32 = 3;

impl PeerSlot {
    pub(crate) fn is_stock(&self) -> bool {
        matches!(self.conduct, Conduct::Stock { .. })
    }

    fn keepalive(&self) -> Option<Duration> {
        match self.conduct {
            Conduct::Stock { keepalive } => keepalive,
            Conduct::Agent { .. } => None,
        }
    }

    /// Control knows where the peer is, or this end is in another place: the peer shall hear of it.
    pub(super) fn greet(&mut self, now: Instant) {
        self.attempts = 0;
        if self.route.is_none() {
            (self.handshake_at, self.keepalive_at) = (None, None);
        } else if self.session.is_ready() {
            self.keepalive_at = Some(now);
        } else {
            self.handshake_at = Some(now);
            self.keepalive_at = self.keepalive().map(|every| now + every);
        }
    }

    /// An authentic datagram came from there; tells whether that is another place than before.
    pub(super) fn roam(&mut self, route: Route) -> bool {
        let moved = self.route.is_none_or(|known| known.to != route.to);
        if moved || self.route.is_some_and(|known| known.from != route.from) {
            self.route = Some(route);
        }
        moved
    }

    pub(super) fn plan_stock_handshake(&mut self, now: Instant) {
        self.handshake_at = match (self.route, self.traffic.handshake) {
            (None, _) => None,
            (Some(_), Some(at)) if self.session.is_ready() => Some(at + self.renewed_after()),
            (Some(_), _) => self.has_cause().then_some(now),
        };
        if self.keepalive_at.is_none() && self.route.is_some() {
            self.keepalive_at = self.keepalive().map(|every| now + every);
        }
    }

    fn renewed_after(&self) -> Duration {
        if self.began { RENEW_AFTER } else { RENEW_AFTER_IN_PLACE }
    }

    /// Something waits to be sent, or the way shall stay open.
    fn has_cause(&self) -> bool {
        !self.pending.is_empty() || self.keepalive().is_some()
    }

    /// Whether the handshake that is due is of use to anybody.
    pub(super) fn wants_handshake(&mut self, now: Instant) -> bool {
        self.pending.expire(now);
        let in_use = self.traffic.active.is_some_and(|at| now.saturating_duration_since(at) < IN_USE);
        let ready = self.session.is_ready();
        (ready && in_use) || self.has_cause() || (!ready && self.attempts < GREETINGS)
    }

    /// A packet waits for a session.
    pub(super) fn want_session(&mut self, now: Instant) {
        self.traffic.unanswered.get_or_insert(now);
        if self.handshake_at.is_none() && self.route.is_some() {
            self.plan_handshake(now);
        }
    }

    /// A packet went out. A session of some age that was not in use when its renewal was due is renewed now.
    pub(super) fn note_sent(&mut self, now: Instant) {
        self.traffic.unanswered.get_or_insert(now);
        let age = self.traffic.handshake.map(|at| now.saturating_duration_since(at));
        let old = age.is_some_and(|age| age > self.renewed_after());
        if old && self.handshake_at.is_none() {
            self.attempts = 0;
            self.handshake_at = Some(now);
        }
    }

    pub(super) fn keep_alive(&mut self, now: Instant, out: &mut DatagramBatch) {
        self.keepalive_at = self.keepalive().filter(|_| self.route.is_some()).map(|every| now + every);
        self.catch_up(now, out);
        if self.session.is_ready() {
            self.seal(&[], now, out);
        } else if self.handshake_at.is_none() {
            self.plan_handshake(now);
        }
    }
}
