//! Two machines with one identity: seen by the runs of their agents.
//!
//! Each start of an agent draws a new boot id, so the runs of one machine follow each other and none comes back. Runs
//! that take each other's place in turns are two machines. From then on one of them is kept and the other refused, so
//! that they do not throw each other out for ever; which of them is the copy, the coordinator can't know.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use ria_protocol::enrol::Cloned;
use ria_protocol::id::BootId;
use ria_protocol::time::UnixTime;
use tokio::time::Instant;

/// Runs that are remembered.
const RUNS: usize = 8;
/// Returns that make two machines certain; a single one might be a connection attempt that was delayed.
const RETURNS: u32 = 2;
/// Returns further apart than this do not count together.
const WINDOW: Duration = Duration::from_secs(600);
/// After so long without the other machine, the matter is over.
const QUIET: Duration = Duration::from_secs(600);

/// What is known of one node's runs.
#[derive(Debug, Default)]
pub(super) struct Runs {
    current: Option<BootId>,
    before: VecDeque<BootId>,
    returns: u32,
    first_return: Option<Instant>,
    conflict: Option<Conflict>,
}

#[derive(Debug, Clone)]
struct Conflict {
    since: UnixTime,
    other: IpAddr,
    other_heard: Instant,
}

/// A run wants to begin a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub boot: BootId,
    pub from: IpAddr,
    /// Whether the node has a session now.
    pub online: bool,
}

/// What is to be done with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Begin,
    /// Another machine has the identity now; `first` when this was not known before.
    Refuse {
        first: bool,
    },
}

impl Runs {
    /// Judges a run that wants to begin.
    pub fn handle_arrival(&mut self, arrival: Arrival, now: Instant, time: UnixTime) -> Verdict {
        let Arrival { boot, from, online } = arrival;
        if self.current.is_none_or(|current| current == boot) {
            self.current = Some(boot);
            return Verdict::Begin;
        }
        if let Some(conflict) = &mut self.conflict {
            if online {
                (conflict.other, conflict.other_heard) = (from, now);
                return Verdict::Refuse { first: false };
            }
            self.follow(boot);
            return Verdict::Begin;
        }
        if self.before.contains(&boot) && self.count_return(now) >= RETURNS && online {
            self.conflict = Some(Conflict { since: time, other: from, other_heard: now });
            return Verdict::Refuse { first: true };
        }
        self.follow(boot);
        Verdict::Begin
    }

    /// Ends a conflict of which nothing was heard for long; whether there was one.
    pub fn handle_tick(&mut self, now: Instant) -> bool {
        let quiet =
            self.conflict.as_ref().is_some_and(|c| now.saturating_duration_since(c.other_heard) >= QUIET);
        if quiet {
            *self = Self { current: self.current, ..Self::default() };
        }
        quiet
    }

    /// What the node that was kept is told.
    pub fn cloned(&self) -> Option<Cloned> {
        let conflict = self.conflict.as_ref()?;
        Some(Cloned { since: conflict.since, other: conflict.other.to_string() })
    }

    fn count_return(&mut self, now: Instant) -> u32 {
        if self.first_return.is_none_or(|first| now.saturating_duration_since(first) > WINDOW) {
            (self.first_return, self.returns) = (Some(now), 0);
        }
        self.returns += 1;
        self.returns
    }

    fn follow(&mut self, boot: BootId) {
        self.before.extend(self.current.replace(boot));
        self.before.retain(|known| *known != boot);
        while self.before.len() > RUNS {
            self.before.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        runs: Runs,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { runs: Runs::default(), now: Instant::now() }
        }

        fn arrives(&mut self, boot: u8, online: bool) -> Verdict {
            self.now += Duration::from_secs(1);
            let from = IpAddr::from([192, 0, 2, boot]);
            let arrival = Arrival { boot: BootId::from_bytes([boot; 10]), from, online };
            self.runs.handle_arrival(arrival, self.now, UnixTime(1000))
        }
    }

    #[test]
    fn a_machine_may_start_and_reconnect_as_often_as_it_likes() {
        let mut world = World::new();
        for boot in 0..100 {
            for online in [false, true, false, true] {
                assert_eq!(world.arrives(boot, online), Verdict::Begin);
            }
        }
        assert!(world.runs.before.len() <= RUNS && world.runs.cloned().is_none());
    }

    #[test]
    fn runs_that_take_turns_are_two_machines_of_which_one_is_kept_while_it_is_here() {
        let mut world = World::new();
        for boot in [1, 2, 1] {
            assert_eq!(world.arrives(boot, true), Verdict::Begin);
        }
        assert_eq!(world.arrives(2, true), Verdict::Refuse { first: true });
        for _ in 0..20 {
            assert_eq!(world.arrives(2, true), Verdict::Refuse { first: false });
            assert_eq!(world.arrives(1, true), Verdict::Begin, "who is kept may reconnect");
        }
        assert_eq!(world.runs.cloned().unwrap().other, "192.0.2.2");
        // A further start of either is one of the two, nobody knows which.
        assert_eq!(world.arrives(3, true), Verdict::Refuse { first: false });
        // Once the one that was kept is away, the other may take its place.
        assert_eq!(world.arrives(2, false), Verdict::Begin);
        assert_eq!(world.arrives(1, true), Verdict::Refuse { first: false });
        // And when one is gone for good, it is over.
        assert!(!world.runs.handle_tick(world.now + QUIET / 2));
        assert!(world.runs.handle_tick(world.now + QUIET));
        assert!(world.runs.cloned().is_none());
        assert_eq!(world.arrives(4, true), Verdict::Begin);
    }

    #[test]
    fn a_delayed_connection_of_an_earlier_run_is_no_second_machine() {
        let mut world = World::new();
        for boot in [1, 2, 1] {
            assert_eq!(world.arrives(boot, true), Verdict::Begin);
        }
        world.now += WINDOW;
        assert_eq!(world.arrives(2, true), Verdict::Begin);
    }
}
