//! One peer in a shard: its session, its route, its queue, and when which handshake is due.
//!
//! Handshakes. One end of each pair *leads*: it begins as soon as there is a route and no session, and renews the keys
//! in time. The other end does the same with more patience, so both begin at once only when messages get lost. When it
//! happens, both handshakes complete: each end answers the other's initiation, keeps its own outstanding, and holds both
//! sessions, of which either decrypts; the leader's next renewal replaces both.
//!
//! With stock WireGuard nobody leads: a handshake begins when there is something to send, in both directions, as
//! WireGuard does it. The module `stock` has what is different then.

use std::time::{Duration, Instant};

use ria_protocol::id::{NetworkId, NodeId};

use super::denials::Denials;
use super::flows::Flows;
use super::message::{Conduct, Route, Slot, Traffic};
use super::pending::Pending;
use super::stock::STOCK_RETRY;
use crate::marks;
use crate::multicast::PeerMulticast;
use crate::packet::{Class, DatagramBatch, Destination, Lane};
use crate::relay::channel_header;
use crate::session::handover::hand_over;
use crate::session::{HANDSHAKE_ROOM, OVERHEAD, Session};
use crate::stun::CHANNEL_HEADER;

/// Age at which the leading end renews the keys. WireGuard's own limit is 120 s, by which its initiator would; being
/// earlier leaves the renewal to one end.
pub(super) const RENEW_AFTER: Duration = Duration::from_secs(110);

/// Age at which the other end does it, well before the keys end at 180 s.
pub(super) const RENEW_AFTER_IN_PLACE: Duration = Duration::from_secs(150);

/// How long the other end waits for the leader when there is no session: a handshake over a slow relay fits in.
const PATIENCE: Duration = Duration::from_millis(300);

/// First wait for an answer, unless the round-trip time asks for more. WireGuard waits 5 s, which a robot would notice.
const RETRY: Duration = Duration::from_millis(250);

/// Longest wait for an answer; below WireGuard's own 5 s, so that its timer never fires.
const LONGEST_RETRY: Duration = Duration::from_secs(4);

/// How often a session in use looks at its clock (for the passive keepalive and the end of keys).
const TICK_ACTIVE: Duration = Duration::from_millis(250);

/// How often an unused one does, only so that control hears of its end: before each use it looks anyway.
const TICK_IDLE: Duration = Duration::from_secs(20);

/// How old the session's idea of the time may be when a packet passes.
const TICK_STALE: Duration = Duration::from_millis(100);

/// Traffic of this age still counts as use: WireGuard's longest timer after a packet is 15 s.
const IN_USE: Duration = Duration::from_secs(16);

/// Smallest time between two keepalives that answer messages of a session that is gone.
const NUDGE_EVERY: Duration = Duration::from_millis(100);

/// Smallest time between two reports of traffic to control.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// One peer.
pub(crate) struct PeerSlot {
    slot: Slot,
    pub(crate) network: NetworkId,
    pub(crate) node: NodeId,
    pub(crate) session: Box<dyn Session>,
    pub(crate) route: Option<Route>,
    pub(crate) pending: Pending,
    pub(crate) traffic: Traffic,
    pub(crate) multicast: PeerMulticast,
    pub(super) flows: Flows,
    pub(super) denials: Denials,
    pub(super) conduct: Conduct,
    /// Whether control was told that the session is ready.
    announced: bool,
    pub(super) handshake_at: Option<Instant>,
    pub(super) attempts: u32,
    /// When a stock peer is sent a keepalive.
    pub(super) keepalive_at: Option<Instant>,
    /// Whether this end began the last handshake.
    pub(super) began: bool,
    tick_at: Option<Instant>,
    ticked: Option<Instant>,
    nudged: Option<Instant>,
    reported: Option<Instant>,
    report_at: Option<Instant>,
}

impl PeerSlot {
    pub(crate) fn new(
        slot: Slot,
        (network, node): (NetworkId, NodeId),
        session: Box<dyn Session>,
        conduct: Conduct,
    ) -> Self {
        Self {
            slot,
            network,
            node,
            session,
            route: None,
            pending: Pending::default(),
            traffic: Traffic::default(),
            multicast: PeerMulticast::default(),
            flows: Flows::default(),
            denials: Denials::default(),
            conduct,
            announced: false,
            handshake_at: None,
            attempts: 0,
            keepalive_at: None,
            began: false,
            tick_at: None,
            ticked: None,
            nudged: None,
            reported: None,
            report_at: None,
        }
    }

    /// Of a shard that hears late of what waits with the caller.
    pub(crate) fn far(mut self) -> Self {
        self.flows.hear_late();
        self
    }

    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// When [`Self::work`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.handshake_at, self.tick_at, self.report_at, self.keepalive_at].into_iter().flatten().min()
    }

    pub(crate) fn set_route(&mut self, route: Option<Route>, now: Instant) {
        let way = |route: Option<Route>| route.map(|route| (route.to, route.socket, route.channel));
        let changed = way(route) != way(self.route);
        self.route = route;
        if self.is_stock() {
            return self.greet(now);
        }
        // A handshake that waits for an answer over the old way is begun again over the new one.
        if changed && (!self.session.is_ready() || self.handshake_at.is_none()) {
            self.plan_handshake(now);
        }
    }

    /// The peer is a new run, first seen at `since`; a session that was made after that is with it already.
    pub(crate) fn replace_session(&mut self, session: Box<dyn Session>, since: Instant, now: Instant) {
        if self.traffic.handshake.is_some_and(|at| at >= since) {
            return;
        }
        self.session = session;
        self.traffic.handshake = None;
        self.ticked = None;
        self.plan_handshake(now);
    }

    /// One of the two ends has another key. What the old session is good for, it is good for until the new one is ready.
    pub(crate) fn rekey(&mut self, session: Box<dyn Session>, conduct: Conduct, now: Instant) {
        hand_over(&mut self.session, session);
        self.conduct = conduct;
        self.traffic.handshake = None;
        self.ticked = None;
        self.plan_handshake(now);
    }

    /// Decides when a handshake is due, after a change of session or route.
    pub(super) fn plan_handshake(&mut self, now: Instant) {
        self.attempts = 0;
        let leads = match self.conduct {
            Conduct::Agent { leads } => leads,
            Conduct::Stock { .. } => return self.plan_stock_handshake(now),
        };
        self.handshake_at = match (self.route, self.traffic.handshake) {
            (None, _) => None,
            (Some(_), Some(at)) if self.session.is_ready() => {
                Some(at + if leads { RENEW_AFTER } else { RENEW_AFTER_IN_PLACE })
            }
            (Some(_), _) if leads => Some(now),
            (Some(route), _) => Some(now + PATIENCE + 2 * route.rtt),
        };
    }

    /// Does what is due; datagrams go to `out`.
    pub(crate) fn work(&mut self, now: Instant, out: &mut DatagramBatch) {
        if self.tick_at.is_some_and(|at| at <= now) {
            self.tick(now, out);
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.keep_alive(now, out);
        }
        if self.handshake_at.is_some_and(|at| at <= now) {
            self.initiate(now, out);
        }
    }

    fn initiate(&mut self, now: Instant, out: &mut DatagramBatch) {
        let Some(route) = self.route else {
            self.handshake_at = None;
            return;
        };
        if self.is_stock() && !self.wants_handshake(now) {
            self.handshake_at = None;
            return;
        }
        self.catch_up(now, out);
        let session = &mut self.session;
        send_urgent(out, &route, HANDSHAKE_ROOM, |room| session.initiate(room));
        let first = if self.is_stock() { STOCK_RETRY } else { RETRY.max(3 * route.rtt) };
        let wait = first.saturating_mul(1 << self.attempts.min(8)).min(LONGEST_RETRY);
        self.attempts += 1;
        self.handshake_at = Some(now + wait);
        self.schedule_tick(now);
    }

    /// Lets the session know the time when its idea of it is old. Before each use.
    pub(crate) fn catch_up(&mut self, now: Instant, out: &mut DatagramBatch) {
        let fresh = self.ticked.is_some_and(|at| now.saturating_duration_since(at) < TICK_STALE);
        if !fresh {
            self.tick(now, out);
        }
    }

    fn tick(&mut self, now: Instant, out: &mut DatagramBatch) {
        let session = &mut self.session;
        match self.route {
            Some(route) => {
                send_urgent(out, &route, HANDSHAKE_ROOM, |room| session.tick(room));
            }
            None => {
                session.tick(&mut [0; HANDSHAKE_ROOM]);
            }
        }
        if let Some(settled) = self.session.take_settled() {
            self.session = settled;
        }
        self.ticked = Some(now);
        self.schedule_tick(now);
        if self.announced && !self.session.is_ready() && self.handshake_at.is_some() {
            self.plan_handshake(now);
        }
    }

    fn schedule_tick(&mut self, now: Instant) {
        let in_use = self.traffic.active.is_some_and(|at| now.saturating_duration_since(at) < IN_USE);
        self.tick_at = match (self.session.is_ready(), in_use) {
            (true, true) => Some(now + TICK_ACTIVE),
            (true, false) => Some(now + TICK_IDLE),
            // Nothing can expire.
            (false, _) => None,
        };
    }

    /// A handshake message of this WireGuard type was taken, and answered where it asks for an answer.
    pub(crate) fn handle_handshake_taken(&mut self, kind: u8, now: Instant) {
        self.traffic.heard = Some(now);
        if kind != 3 {
            self.traffic.unanswered = None;
        }
        match kind {
            3 => {
                // A cookie: the next initiation carries it, and need not wait.
                self.handshake_at = self.handshake_at.map(|_| now);
                return;
            }
            1 if !self.session.is_ready() => {
                // Their first data makes it ready. Should it get lost, this end begins itself.
                self.traffic.handshake = Some(now);
                self.began = false;
                let patience = if self.is_stock() { STOCK_RETRY } else { PATIENCE };
                self.handshake_at = self.route.map(|route| now + patience + 2 * route.rtt);
            }
            _ => {
                self.traffic.handshake = Some(now);
                self.began = kind == 2;
                self.plan_handshake(now);
            }
        }
        self.schedule_tick(now);
    }

    /// Seals what waits, now that it can be.
    pub(crate) fn flush(&mut self, now: Instant, out: &mut DatagramBatch) -> usize {
        let mut unsent = self.pending.expire(now);
        while self.session.is_ready() && self.route.is_some() {
            let Some(packet) = self.pending.pop() else { break };
            if !self.seal(&packet, now, out) {
                unsent += 1;
            }
        }
        unsent
    }

    /// Encrypts a packet straight into the batch. `false` when there is no room or no way.
    pub(crate) fn seal(&mut self, packet: &[u8], now: Instant, out: &mut DatagramBatch) -> bool {
        let Some(route) = self.route else { return false };
        let (session, room) = (&mut self.session, (packet.len() + OVERHEAD).max(HANDSHAKE_ROOM));
        let sent = if packet.is_empty() {
            send_urgent(out, &route, room, |room| session.seal(packet, room))
        } else {
            let (class, traffic_class) = (self.flows.class(packet, now), marks::traffic_class(packet));
            let to = route.destination(class, Lane(Some(self.slot)), traffic_class);
            append(out, to, route.channel, room, |room| session.seal(packet, room))
        };
        if sent && !packet.is_empty() {
            self.traffic.tx_packets += 1;
            self.traffic.tx_bytes += packet.len() as u64;
            self.mark_active(now);
            if self.is_stock() {
                self.note_sent(now);
            }
        }
        sent
    }

    /// A data message opened to a packet of this length (0 for a keepalive).
    pub(crate) fn handle_opened(&mut self, len: usize, now: Instant) {
        self.traffic.heard = Some(now);
        self.traffic.unanswered = None;
        if !self.announced && self.session.is_ready() {
            self.traffic.handshake.get_or_insert(now);
            self.plan_handshake(now);
            self.schedule_tick(now);
        }
        if len > 0 {
            self.traffic.rx_packets += 1;
            self.traffic.rx_bytes += len as u64;
            self.mark_active(now);
        }
    }

    fn mark_active(&mut self, now: Instant) {
        self.traffic.active = Some(now);
        let soon = now + TICK_ACTIVE;
        if self.tick_at.is_none_or(|at| at > soon) && self.session.is_ready() {
            self.tick_at = Some(soon);
        }
    }

    /// The peer uses a session that is not there any more: data under the current one makes it change over.
    pub(crate) fn nudge(&mut self, now: Instant, out: &mut DatagramBatch) {
        let lately = self.nudged.is_some_and(|at| now.saturating_duration_since(at) < NUDGE_EVERY);
        if !lately && self.session.is_ready() {
            self.nudged = Some(now);
            self.seal(&[], now, out);
        }
    }

    /// Whether a packet for it can leave now.
    pub(crate) fn is_reached(&self) -> bool {
        self.session.is_ready() && self.route.is_some()
    }

    /// Whether the session became ready or stopped being it since control was told.
    pub(crate) fn has_news(&self) -> bool {
        self.session.is_ready() != self.announced
    }

    /// Whether the session's readiness is news to control: `Some(ready)` once per change.
    pub(crate) fn take_announcement(&mut self) -> Option<bool> {
        let ready = self.session.is_ready();
        (ready != self.announced).then(|| {
            self.announced = ready;
            ready
        })
    }

    /// The traffic report, when one is due; else plans it. Call after something has passed.
    pub(crate) fn take_report(&mut self, now: Instant) -> Option<Traffic> {
        let due = self.reported.map_or(now, |at| at + REPORT_EVERY);
        if due > now {
            self.report_at = Some(due);
            return None;
        }
        self.report_at = None;
        self.reported = Some(now);
        Some(self.traffic)
    }

    /// Whether a report was planned and is due.
    pub(crate) fn report_due(&self, now: Instant) -> bool {
        self.report_at.is_some_and(|at| at <= now)
    }
}

/// Appends a datagram of at most `len` bytes on a route, before packets.
pub(crate) fn send_urgent(
    out: &mut DatagramBatch,
    route: &Route,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> bool {
    append(out, route.destination(Class::Urgent, Lane::default(), 0), route.channel, len, fill)
}

/// Appends a datagram. On a relayed route, the ChannelData header stands directly before what `fill` writes, so nothing is copied.
fn append(
    out: &mut DatagramBatch,
    to: Destination,
    channel: Option<u16>,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> bool {
    let Some(channel) = channel else { return out.push_to(to, len, fill) };
    out.push_to(to, CHANNEL_HEADER + len, |room| {
        let (header, payload) = room.split_at_mut(CHANNEL_HEADER);
        let written = fill(payload)?;
        header.copy_from_slice(&channel_header(channel, written)?);
        Some(CHANNEL_HEADER + written)
    })
}
