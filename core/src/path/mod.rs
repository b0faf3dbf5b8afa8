//! Paths to a peer: each is proven, measured and given up by our own probes over it.
//!
//! ```text
//!              pong to own ping              pings in a row unanswered
//!  Untested ─────────────────────> Proven ─────────────────────────────> Dead
//!      (burst, then back-off)        ▲  (paced by traffic; unanswered once: every 100 ms)   │
//!                                    └───────────────────── pong ──────────────────────────┘
//! ```
//!
//! A path is used to send only after a pong to an own ping over it; what an authentic peer sends is taken from
//! anywhere. [`Path`] owns the schedule of one path; which path takes the traffic is [`choice`], which addresses become
//! paths is [`candidates`], what a probe looks like is [`probe`], how quickly packets may
//! leave is [`pacing`], how large datagrams may be is [`mtu`].

pub(crate) mod candidates;
pub(crate) mod choice;
pub(crate) mod mtu;
pub(crate) mod pacing;
pub(crate) mod probe;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::relay::Transport;

/// Pings of a burst, and the time between them: both ends begin at about the same time, so within a second each has
/// opened its NAT for the other.
pub(crate) const BURST: u32 = 8;
const STRAY_BURST: u32 = 2;
const HINT_BURST: u32 = 1;
const BURST_EVERY: Duration = Duration::from_millis(100);

/// How long the answer of an address that nobody has reported is waited for.
const STRAY_PATIENCE: Duration = Duration::from_secs(1);

/// Least time between pings that events ask for.
const PING_GAP: Duration = Duration::from_millis(50);

/// While a better path is sought although one works: short bursts, less and less often. Cheap enough for ever, and opens
/// NATs whose owner has changed networks.
const UPGRADE_BURST: u32 = 3;
const UPGRADE_BURST_IDLE: u32 = 1;
const UPGRADE_FIRST: Duration = Duration::from_secs(1);
const UPGRADE_EVERY: Duration = Duration::from_secs(30);

/// The same where nothing is gained at the moment: a direct path works, or nothing is sent.
const UPGRADE_IDLE: Duration = Duration::from_secs(120);

/// Time between tries while no path works: doubling from the first to the longest, which depends on how long it has been
/// so. A link shall be back a second after the network is, within the first ten minutes.
const SEEK_FIRST: Duration = Duration::from_millis(250);
const SEEK: [(Duration, Duration); 2] = [
    (Duration::from_secs(10 * 60), Duration::from_secs(1)),
    (Duration::from_secs(30 * 60), Duration::from_secs(5)),
];
const SEEK_LONGEST: Duration = Duration::from_secs(30);

/// Time between pings of a path that carries traffic. With the figures below a cut is known after at most 0.9 s.
const PACE_BUSY: Duration = Duration::from_millis(400);

/// Of one that carried traffic within the last half minute.
const PACE_QUIET: Duration = Duration::from_secs(5);

/// Of one that carried none for longer: well below the 30 s after which the strictest NATs forget.
const PACE_IDLE: Duration = Duration::from_secs(10);

/// Of a direct path beside the one in use, whose NAT's mapping is to live on.
const PACE_STANDBY: Duration = Duration::from_secs(20);

/// Of a relayed one: the relay's refreshes hold that mapping, and what works still is asked when the other one fails.
const PACE_STANDBY_RELAYED: Duration = Duration::from_secs(60);

/// Where the peer pings a path that is little used, its pings do for both ends, while they come in time: its pace and this.
const PEER_PINGS: Duration = Duration::from_secs(3);

/// A ping without answer for so long (or twice the round-trip time and 50 ms) makes a path suspect: it is then pinged ...
const SUSPECT_AFTER: Duration = Duration::from_millis(100);

/// ... this often, ...
const SUSPECT_EVERY: Duration = Duration::from_millis(100);

/// (while the peer's data comes over it, it is full rather than dead, and probes may get lost in queues on the way: so it
/// is asked twice as often, to be judged by twice as many pings in the same time)
const SUSPECT_EVERY_FED: Duration = Duration::from_millis(50);

/// ... and is dead when so many pings in a row are unanswered (at 10 % loss each way a false alarm per 750 such cases),
const DEAD_AFTER_PINGS: u32 = 4;

/// or so many while the peer's data comes over it;
const DEAD_AFTER_PINGS_FED: u32 = 8;

/// of which the first is at least so old (or three round-trip times).
const DEAD_AFTER: Duration = Duration::from_millis(400);

/// A ping that is unanswered for so long (or three round-trip times) counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// Weight of one ping in the loss estimate, and of one sample in the round-trip time (RFC 6298 has 1/8 too).
const LOSS_WEIGHT: f32 = 1.0 / 16.0;
const RTT_WEIGHT: u32 = 8;

/// The same for its deviation.
const DEVIATION_WEIGHT: u32 = 4;

/// Most pings of one path that wait for an answer.
const MAX_OUTSTANDING: usize = 16;

/// Assumed where nothing is measured yet.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    /// Straight to this address.
    Direct(SocketAddr),
    /// Through this node's relay, spoken to in this way, to the address that the peer's relay gave it.
    Relayed(Transport, SocketAddr),
}

impl Address {
    pub(crate) fn socket(self) -> SocketAddr {
        match self {
            Self::Direct(address) | Self::Relayed(_, address) => address,
        }
    }
}

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathState {
    /// No answer yet.
    Untested,
    /// It answers.
    Proven,
    /// It answered once.
    Dead,
}

/// How much a path matters at the moment, for how often it is pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// No path works, since this time.
    Seek(Instant),
    /// Another path carries the traffic, and this one would be better, or has to be there when that one dies.
    Standby,
    /// Another path would carry traffic, of which there is none, or is as good as any.
    Spare,
    /// This one is in use, with traffic in the last seconds.
    Busy,
    /// This one is in use, with traffic a while ago.
    Quiet,
    /// This one is in use, without traffic.
    Idle,
}

/// One path.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) address: Address,
    /// Whether the peer reports this address; else it was seen on a probe or check.
    pub(crate) reported: bool,
    /// Whether an ICE check of the peer's, or the answer to one of this node's, came from there.
    pub(crate) found: bool,
    /// The address of this node that it works from, where there is a choice; else the kernel's.
    pub(crate) from: Option<IpAddr>,
    /// Where the peer sees this node on this path.
    pub(crate) observed: Option<SocketAddr>,
    pub(crate) state: PathState,
    rtt: Option<Duration>,
    /// Mean deviation of that (RFC 6298), once there is one.
    deviation: Option<Duration>,
    /// The quickest answer, since the network under it may have become another one.
    quickest: Option<Duration>,
    samples: u32,
    loss: f32,
    /// Pings from before this tell nothing of how good the path is.
    measured_from: Option<Instant>,
    /// Pings without answer: what they ask to be echoed, and when they went.
    outstanding: VecDeque<(u64, Instant)>,
    /// Pings since the last pong, and when the first of them went.
    unanswered: u32,
    unanswered_since: Option<Instant>,
    last_ping: Option<Instant>,
    burst: u32,
    tries: u32,
    suspect: bool,
    /// When an answer came last.
    answered: Option<Instant>,
    /// When the peer's last ping came.
    pinged: Option<Instant>,
    /// Since when the network under it may be another; until an answer comes, any other path is as good.
    doubted: Option<Instant>,
    /// Whether the peer's data has come over it a moment ago.
    fed: bool,
    /// Whether a ping must go as soon as it may, whatever the pace.
    owed: bool,
}

/// What a path wants to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// Send a ping.
    Ping,
    /// The path has just died; ping it all the same.
    Died,
}

impl Path {
    pub(crate) fn new(address: Address, reported: bool) -> Self {
        Self {
            address,
            reported,
            found: false,
            from: None,
            observed: None,
            state: PathState::Untested,
            rtt: None,
            deviation: None,
            quickest: None,
            samples: 0,
            loss: 0.0,
            measured_from: None,
            outstanding: VecDeque::new(),
            unanswered: 0,
            unanswered_since: None,
            last_ping: None,
            // An address that was only seen may be forged: few datagrams go there until it answers.
            burst: if reported { BURST } else { STRAY_BURST },
            tries: 0,
            suspect: false,
            answered: None,
            pinged: None,
            fed: false,
            doubted: None,
            owed: false,
        }
    }

    /// The path to an address that a beacon names: one datagram goes there for each.
    pub(crate) fn hinted(address: Address) -> Self {
        Self { burst: HINT_BURST, ..Self::new(address, false) }
    }

    pub(crate) fn is_direct_and_works(&self) -> bool {
        self.state == PathState::Proven && !self.is_relayed()
    }

    pub(crate) fn is_relayed(&self) -> bool {
        matches!(self.address, Address::Relayed(..))
    }

    /// Whether it leads through the relay to this address, one way or the other.
    pub(crate) fn leads_to(&self, relayed: SocketAddr) -> bool {
        matches!(self.address, Address::Relayed(_, address) if address == relayed)
    }

    /// Which paths go before which, whatever their round-trip time: direct, relayed over UDP, relayed over TLS. And a
    /// relayed address that the peer does not report any more is on its way out, while a link-local one works only here.
    pub(crate) fn rank(&self) -> (u8, bool) {
        match self.address {
            Address::Direct(address) => (0, candidates::is_link_local(address.ip())),
            Address::Relayed(Transport::Udp, _) => (1, !self.reported),
            Address::Relayed(Transport::Tls, _) => (2, !self.reported),
        }
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Whether nothing has come over it since the network under it may have changed.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.is_some()
    }

    /// A ping of the peer's present run came over it.
    pub(crate) fn handle_peers_ping(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// Whether the peer's data has come over it a moment ago.
    pub(crate) fn set_fed(&mut self, fed: bool) {
        self.fed = fed;
    }

    /// When an answer came last.
    pub(crate) fn answered(&self) -> Option<Instant> {
        self.answered
    }

    /// When something came by it last: an answer, or a ping of the peer's.
    pub(crate) fn brought(&self) -> Option<Instant> {
        self.answered.max(self.pinged)
    }

    /// Smoothed round-trip time, or a guess.
    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(RTT_UNKNOWN)
    }

    /// By how much round-trip times differ from that, when measured.
    pub(crate) fn measured_deviation(&self) -> Option<Duration> {
        self.deviation
    }

    /// Smoothed round-trip time, when measured.
    pub(crate) fn measured_rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// What an answer takes when nothing else is on the path, as far as is known.
    pub(crate) fn quickest(&self) -> Option<Duration> {
        self.quickest
    }

    pub(crate) fn samples(&self) -> u32 {
        self.samples
    }

    /// Share of pings that were lost lately.
    pub(crate) fn loss(&self) -> f32 {
        self.loss
    }

    /// Whether something passed at `active` that no ping has followed yet.
    pub(crate) fn is_behind(&self, active: Instant) -> bool {
        self.last_ping.is_none_or(|at| at < active)
    }

    /// Whether an address that nobody has reported is of no more use: it was tried, and gave no answer. One that worked
    /// is kept while no other way does.
    pub(crate) fn is_spent(&self, seeking: bool, now: Instant) -> bool {
        let waited = |at: Instant| now.saturating_duration_since(at) >= STRAY_PATIENCE;
        let over = self.burst == 0 && self.last_ping.is_none_or(waited);
        let kept = self.reported || self.state == PathState::Proven;
        !kept && over && !(seeking && self.state == PathState::Dead)
    }

    /// Whether its pings have gone and nothing but an answer can make it of use again.
    fn is_waiting(&self, pace: Pace) -> bool {
        let seeks = matches!(pace, Pace::Seek(_)) && self.state == PathState::Dead;
        !self.reported && self.state != PathState::Proven && self.burst == 0 && !self.owed && !seeks
    }

    /// Tries the path hard, from now on.
    pub(crate) fn burst(&mut self) {
        if self.state != PathState::Proven && self.reported {
            self.burst = BURST;
            self.tries = 0;
        }
    }

    /// It was tried by ICE in the stead of probes, in vain: probes come rarely from now on.
    pub(crate) fn rest(&mut self, now: Instant) {
        (self.burst, self.tries) = (0, 0);
        self.last_ping.get_or_insert(now);
    }

    /// The network may have changed under it: find out soon whether it works still, or works now.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.last_ping = None;
        if self.state == PathState::Proven {
            self.doubted = Some(now);
            // What went out before the change says nothing of what is now.
            (self.unanswered, self.unanswered_since) = (0, None);
        }
        self.burst();
    }

    /// There is no network under it any more.
    pub(crate) fn cut(&mut self) {
        if self.state == PathState::Proven {
            self.die();
        }
    }

    fn die(&mut self) {
        self.state = PathState::Dead;
        (self.suspect, self.doubted) = (false, None);
        (self.burst, self.tries) = (BURST, 0);
        // Perhaps it works from another address.
        self.from = None;
    }

    /// Whether a ping went out within the last half burst interval; then another one would tell nothing new of the path.
    pub(crate) fn pinged_lately(&self, now: Instant) -> bool {
        self.last_ping.is_some_and(|at| now.saturating_duration_since(at) < PING_GAP)
    }

    /// The peer has started anew: what was lost went to its run before, and not by the path's fault.
    pub(crate) fn measure_anew(&mut self, now: Instant) {
        self.loss = 0.0;
        self.measured_from = Some(now);
    }

    /// The peer may have started anew since the last ping: another one goes as soon as it may, however idle the path.
    pub(crate) fn owe_ping(&mut self) {
        self.owed = true;
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn deadline(&self, pace: Pace, now: Instant) -> Instant {
        let Some(last) = self.last_ping else { return now };
        let due = self.regular_deadline(last, pace, now);
        if self.owed { due.min(last + PING_GAP) } else { due }
    }

    fn regular_deadline(&self, last: Instant, pace: Pace, now: Instant) -> Instant {
        if self.is_waiting(pace) {
            return last + STRAY_PATIENCE;
        }
        if self.state != PathState::Proven {
            return last + self.try_interval(pace, now);
        }
        let interval = pace.interval(self.is_relayed());
        match self.unanswered_since {
            Some(_) if self.suspect && self.fed => last + SUSPECT_EVERY_FED,
            Some(_) if self.suspect => last + SUSPECT_EVERY,
            Some(since) => (since + self.suspect_after()).min(last + interval),
            // The peer's pings tell that the path works, and hold the NATs open. It notices when the answers don't come.
            None if interval >= PACE_IDLE => {
                self.pinged.filter(|at| *at > last).map_or(last + interval, |at| at + interval + PEER_PINGS)
            }
            None => last + interval,
        }
    }

    fn try_interval(&self, pace: Pace, now: Instant) -> Duration {
        if self.burst > 0 {
            return BURST_EVERY;
        }
        let (first, longest) = match pace {
            Pace::Seek(since) => {
                let sought = now.saturating_duration_since(since);
                let tier = SEEK.iter().find(|(until, _)| sought < *until);
                (SEEK_FIRST, tier.map_or(SEEK_LONGEST, |(_, every)| *every))
            }
            Pace::Spare => (UPGRADE_FIRST, UPGRADE_IDLE),
            Pace::Standby | Pace::Busy | Pace::Quiet | Pace::Idle => (UPGRADE_FIRST, UPGRADE_EVERY),
        };
        first.saturating_mul(1 << self.tries.min(10)).min(longest)
    }

    fn suspect_after(&self) -> Duration {
        SUSPECT_AFTER.max(2 * self.rtt() + SUSPECT_AFTER / 2)
    }

    /// Does what the clock asks for.
    pub(crate) fn handle_timeout(&mut self, pace: Pace, now: Instant) -> Due {
        self.count_lost(now);
        let waited = self.unanswered_since.filter(|_| self.state == PathState::Proven);
        if let Some(waited) = waited.map(|since| now.saturating_duration_since(since)) {
            self.suspect |= waited >= self.suspect_after();
            let enough = if self.fed { DEAD_AFTER_PINGS_FED } else { DEAD_AFTER_PINGS };
            if self.unanswered >= enough && waited >= DEAD_AFTER.max(3 * self.rtt()) {
                self.die();
                return Due::Died;
            }
        }
        if self.deadline(pace, now) > now || self.is_waiting(pace) {
            return Due::Nothing;
        }
        if self.state != PathState::Proven && self.burst == 0 && !matches!(pace, Pace::Seek(_)) {
            self.burst = if pace == Pace::Spare { UPGRADE_BURST_IDLE } else { UPGRADE_BURST };
            self.tries = self.tries.saturating_add(1);
        }
        Due::Ping
    }

    /// A ping goes out over this path.
    pub(crate) fn handle_ping_sent(&mut self, echo: u64, now: Instant) {
        if self.outstanding.len() >= MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((echo, now));
        self.last_ping = Some(now);
        self.owed = false;
        self.unanswered += 1;
        self.unanswered_since.get_or_insert(now);
        if self.state != PathState::Proven {
            if self.burst > 0 {
                self.burst -= 1;
            } else {
                self.tries = self.tries.saturating_add(1);
            }
        }
    }

    /// A pong came over this path; returns its round-trip time when it answers one of our pings.
    pub(crate) fn handle_pong(&mut self, echo: u64, now: Instant) -> Option<Duration> {
        let index = self.outstanding.iter().position(|(sent, _)| *sent == echo)?;
        let (_, at) = self.outstanding.remove(index)?;
        let sample = now.saturating_duration_since(at);
        (self.rtt, self.deviation) = match (self.rtt, self.deviation) {
            (Some(rtt), Some(deviation)) if self.state == PathState::Proven && !self.is_doubted() => (
                Some(rtt + sample / RTT_WEIGHT - rtt / RTT_WEIGHT),
                Some(deviation + rtt.abs_diff(sample) / DEVIATION_WEIGHT - deviation / DEVIATION_WEIGHT),
            ),
            _ => (Some(sample), Some(sample / 2)),
        };
        let before = self.quickest.filter(|_| !self.is_doubted());
        self.quickest = Some(before.map_or(sample, |quickest| quickest.min(sample)));
        if self.state != PathState::Proven {
            // What went before the path worked says nothing of how well it works.
            self.outstanding.retain(|(_, sent)| *sent > at);
        }
        self.samples = self.samples.saturating_add(1);
        self.loss -= self.loss * LOSS_WEIGHT;
        self.state = PathState::Proven;
        self.answered = Some(now);
        self.doubted = self.doubted.filter(|since| at < *since);
        self.burst = 0;
        self.tries = 0;
        self.trust_until(at);
        Some(sample)
    }

    /// A ping that went out then to ask something else was answered by this path, so it works, if it did before.
    pub(crate) fn handle_sign(&mut self, at: Instant, now: Instant) {
        if self.state == PathState::Proven {
            self.answered = Some(now);
            self.doubted = self.doubted.filter(|since| at < *since);
            self.trust_until(at);
        }
    }

    /// Pings that went out after this time may still be answered.
    fn trust_until(&mut self, at: Instant) {
        let later = self.outstanding.iter().filter(|(_, sent)| *sent > at);
        self.unanswered = u32::try_from(later.clone().count()).unwrap_or(u32::MAX);
        self.unanswered_since = later.map(|(_, sent)| *sent).min();
        self.suspect = false;
    }

    fn count_lost(&mut self, now: Instant) {
        let patience = LOST_AFTER.max(3 * self.rtt());
        while let Some((_, at)) = self.outstanding.front() {
            if now.saturating_duration_since(*at) < patience {
                break;
            }
            let counts = self.measured_from.is_none_or(|from| *at >= from);
            self.outstanding.pop_front();
            if self.state == PathState::Proven && counts {
                self.loss += (1.0 - self.loss) * LOSS_WEIGHT;
            }
        }
    }
}

impl Pace {
    const fn interval(self, relayed: bool) -> Duration {
        match self {
            Self::Busy => PACE_BUSY,
            Self::Quiet => PACE_QUIET,
            Self::Idle => PACE_IDLE,
            Self::Standby | Self::Spare | Self::Seek(_) if relayed => PACE_STANDBY_RELAYED,
            Self::Standby | Self::Spare | Self::Seek(_) => PACE_STANDBY,
        }
    }
}

#[cfg(test)]
mod tests;
