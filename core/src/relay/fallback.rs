//! When a relay is spoken to over TLS: while it does not answer over UDP.
//!
//! ```text
//!            no answer for a while                UDP answers
//!   UDP ────────────────────────────> TLS ───────────────────────> both, for a while ──> UDP
//!    ▲                                 ▲           no answer            │
//!    └── another network               └────────────────────────────────┘
//! ```
//!
//! It only decides. Opening the stream is the caller's, moving traffic over is that of each peer's paths: both ways are
//! there while one takes over from the other, and probes over each tell when.

use std::time::{Duration, Instant};

/// How long UDP may leave everything unanswered: four transmissions, or three answers' time ...
const PATIENCE: Duration = Duration::from_secs(3);

/// ... and when the coordinator is there, so that only UDP can be what does not get through: three.
const PATIENCE_REACHED: Duration = Duration::from_millis(1500);

/// How long the stream stays open when it is not needed any more. A firewall that lets some UDP through, or an access
/// point that comes and goes, would else cost a new one each time.
const LINGER: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// All stays as it is.
    Stay,
    /// Open a stream to the relay.
    Open,
    /// Close it.
    Close,
}

/// How it goes over UDP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Udp {
    /// Whether there is an allocation.
    pub(crate) allocated: bool,
    /// Since when nothing is answered.
    pub(crate) deaf_since: Option<Instant>,
}

/// The decision for one relay.
#[derive(Debug, Default)]
pub(crate) struct Fallback {
    /// Whether the coordinator is there, over TCP.
    reached: bool,
    /// Whether UDP has given no answer for too long.
    silent: bool,
    /// When the stream is opened if the relay, which was asked in a hurry, has not answered over UDP by then.
    hurried: Option<Instant>,
    /// Since when the stream is open without need.
    needless_since: Option<Instant>,
}

impl Fallback {
    /// Whether the coordinator can be reached.
    pub(crate) fn set_reached(&mut self, reached: bool) {
        self.reached = reached;
    }

    /// What was set last.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached
    }

    /// Another network: what held in the one before says nothing.
    pub(crate) fn start_anew(&mut self) {
        (self.silent, self.needless_since, self.hurried) = (false, None, None);
    }

    /// No way to some peer answers any more, and the relay has just been asked, too: one answer that is missing is enough.
    pub(crate) fn hurry(&mut self, until: Instant) {
        self.hurried.get_or_insert(until);
    }

    /// Whether UDP does not get through, as far as known.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    fn patience(&self) -> Duration {
        if self.reached { PATIENCE_REACHED } else { PATIENCE }
    }

    /// Draws conclusions. `open` says whether a stream is open or being opened, `in_use` whether traffic takes it.
    pub(crate) fn decide(&mut self, udp: Udp, open: bool, in_use: bool, now: Instant) -> Decision {
        let hurried = self.is_over(udp, now);
        if hurried || udp.deaf_since.is_some_and(|since| since + self.patience() <= now) {
            self.silent = true;
        } else if udp.allocated && udp.deaf_since.is_none() {
            self.silent = false;
        }
        if self.silent {
            self.needless_since = None;
            return if open { Decision::Stay } else { Decision::Open };
        }
        if !open {
            return Decision::Stay;
        }
        if !udp.allocated || in_use {
            self.needless_since = None;
            return Decision::Stay;
        }
        let since = *self.needless_since.get_or_insert(now);
        if since + LINGER <= now {
            self.needless_since = None;
            return Decision::Close;
        }
        Decision::Stay
    }

    /// Whether the answer that was waited for in a hurry has not come. Each hurry ends here, one way or the other.
    fn is_over(&mut self, udp: Udp, now: Instant) -> bool {
        let over = self.hurried.is_some_and(|until| until <= now) && udp.deaf_since.is_some();
        if over || udp.deaf_since.is_none() {
            self.hurried = None;
        }
        over
    }

    /// When to decide again, should nothing happen before.
    pub(crate) fn deadline(&self, udp: Udp) -> Option<Instant> {
        let silence = udp.deaf_since.filter(|_| !self.silent).map(|since| since + self.patience());
        let close = self.needless_since.map(|since| since + LINGER);
        let hurry = self.hurried.filter(|_| udp.deaf_since.is_some());
        [silence, close, hurry].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAF: fn(Instant) -> Udp = |since| Udp { allocated: false, deaf_since: Some(since) };
    const WELL: Udp = Udp { allocated: true, deaf_since: None };

    #[allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn silence_opens_a_stream_and_sooner_when_the_coordinator_is_there() {
        for (reached, patience) in [(false, PATIENCE), (true, PATIENCE_REACHED)] {
            let (mut fallback, now) = (Fallback::default(), start());
            fallback.set_reached(reached);
            assert_eq!(fallback.decide(DEAF(now), false, false, now), Decision::Stay);
            assert_eq!(fallback.deadline(DEAF(now)), Some(now + patience));
            let just_before = now + patience - Duration::from_millis(1);
            assert_eq!(fallback.decide(DEAF(now), false, false, just_before), Decision::Stay);
            assert_eq!(fallback.decide(DEAF(now), false, false, now + patience), Decision::Open);
            assert!(fallback.is_silent());
            assert_eq!(fallback.decide(DEAF(now), true, false, now + patience * 9), Decision::Stay);
        }
    }

    #[test]
    fn in_a_hurry_a_stream_is_opened_in_case_unless_udp_answers() {
        let (mut fallback, now) = (Fallback::default(), start());
        let deaf = Udp { allocated: true, deaf_since: Some(now) };
        let (soon, hurry) = (Duration::from_millis(249), Duration::from_millis(250));
        for _ in 0..2 {
            fallback.hurry(now + hurry);
            assert_eq!(fallback.decide(deaf, false, false, now), Decision::Stay);
            assert_eq!(fallback.deadline(deaf), Some(now + hurry));
            assert_eq!(fallback.decide(deaf, false, false, now + soon), Decision::Stay);
            assert_eq!(fallback.decide(WELL, false, false, now + soon), Decision::Stay, "it answers");
            assert_eq!(fallback.decide(deaf, false, false, now + hurry), Decision::Stay, "that was over");
        }
        fallback.hurry(now + hurry);
        assert_eq!(fallback.decide(deaf, false, false, now + hurry), Decision::Open);
        assert_eq!(fallback.decide(deaf, true, false, now + hurry), Decision::Stay);
        assert!(fallback.is_silent());
        assert_eq!(fallback.decide(WELL, true, false, now + hurry), Decision::Stay);
        assert!(!fallback.is_silent(), "it was late");
        assert_eq!(fallback.decide(WELL, true, false, now + hurry + LINGER), Decision::Close);
    }

    #[test]
    fn a_stream_is_closed_when_udp_has_carried_everything_for_a_while() {
        let (mut fallback, now) = (Fallback::default(), start());
        fallback.decide(DEAF(now), false, false, now + PATIENCE);
        let back = now + PATIENCE * 2;
        assert_eq!(fallback.decide(WELL, true, true, back), Decision::Stay);
        assert!(!fallback.is_silent());
        assert_eq!(fallback.deadline(WELL), None, "while traffic takes it nothing is due");
        assert_eq!(fallback.decide(WELL, true, false, back), Decision::Stay);
        assert_eq!(fallback.deadline(WELL), Some(back + LINGER));
        assert_eq!(fallback.decide(WELL, true, false, back + LINGER), Decision::Close);
    }

    #[test]
    fn a_relay_that_refuses_over_udp_is_not_asked_over_tls() {
        let (mut fallback, now) = (Fallback::default(), start());
        let refused = Udp { allocated: false, deaf_since: None };
        assert_eq!(fallback.decide(refused, false, false, now + PATIENCE * 99), Decision::Stay);
        assert_eq!(fallback.deadline(refused), None);
    }
}
