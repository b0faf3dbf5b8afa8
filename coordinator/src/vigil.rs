//! What an administrator should hear of in time: a clock that is wrong here, an authority that ends, members that nobody
//! has heard of for long. Looks at the start and now and then; `node list` and `ca list` have the particulars.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::time::UnixTime;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::duration::shown_relative;
use crate::session::Services;
use crate::state::World;
use crate::tls::authority::end_of;

/// How often the clock is looked at.
const EVERY: Duration = Duration::from_secs(30);
/// How often ends are told of.
const ENDS_EVERY: Duration = Duration::from_secs(24 * 3600);
/// The system's clock made a jump when it differs from the monotonic one by this since the last look.
const JUMP: u64 = 10;
/// The database has seen a later time than the clock shows, by more than this.
const BEHIND: u64 = 60;
const DAY: u64 = 86_400;

/// Works until the coordinator drains.
pub async fn run(services: Arc<Services>) {
    let draining = services.draining.clone();
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(UnixTime, Instant)> = None;
    let mut ends_at = Instant::now();
    while draining.run_until_cancelled(tick.tick()).await.is_some() {
        let (now, monotonic) = (UnixTime::from(SystemTime::now()), Instant::now());
        let world = services.registry.world();
        match before {
            None => {
                if let Some(behind) = behind(&world, now) {
                    tracing::error!(
                        seconds = behind,
                        "this machine's clock stands before the last change in the database; set it right (NTP): \
                         expiries of join keys and memberships go by it"
                    );
                }
            }
            Some((system, then)) => {
                let expected = system.plus(monotonic.saturating_duration_since(then));
                if expected.0.abs_diff(now.0) >= JUMP {
                    tracing::warn!(
                        seconds = expected.0.abs_diff(now.0),
                        forwards = now > expected,
                        "this machine's clock was set or made a jump; if it is wrong now, set it right (NTP)"
                    );
                }
            }
        }
        before = Some((now, monotonic));
        if monotonic >= ends_at {
            ends_at = monotonic + ENDS_EVERY;
            tell_ends(&services, &world, now);
        }
    }
}

/// By how much the clock stands before what was stored last, if it does.
fn behind(world: &World, now: UnixTime) -> Option<u64> {
    let members = world.networks.values().flat_map(|network| network.members.values());
    let newest = members.map(|member| member.last_contact.max(member.joined)).max()?;
    Some(newest.since(now).as_secs()).filter(|behind| *behind > BEHIND)
}

fn tell_ends(services: &Services, world: &World, now: UnixTime) {
    let end = end_of(services.authorities.current().certificate());
    if end.since(now).as_secs() < 365 * DAY {
        tracing::warn!(
            ends = shown_relative(end, now),
            "the certification authority ends soon; put a new one in its place with `ria-coordinator ca roll`"
        );
    }
    let count = ending(world, now);
    if count > 0 {
        tracing::warn!(
            count,
            "memberships end soon because their nodes were not heard of for long; `ria-coordinator node list` shows when"
        );
    }
}

/// Members whose time is over within 30 days, or a quarter of what they have.
fn ending(world: &World, now: UnixTime) -> usize {
    let ends_soon = |network: &&Arc<crate::state::Network>| {
        let warned = (30 * DAY).min(network.membership.as_secs() / 4);
        let soon = |member: &&Arc<crate::state::MemberEntry>| {
            let left = member.expires(network.membership).since(now).as_secs();
            left > 0 && left <= warned
        };
        network.members.values().filter(soon).count()
    };
    world.networks.values().map(|network| ends_soon(&network)).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::audit::Head;
    use crate::state::DEFAULT_MEMBERSHIP;
    use crate::state::tests::{member, network};

    fn world() -> World {
        let mut lab = network();
        lab.members = [2, 3].map(|n| (member(n, "m").node, member(n, "m"))).into();
        World {
            networks: [(lab.info.id, Arc::new(lab))].into(),
            keys: BTreeMap::new(),
            audit_head: Head::START,
            membership: DEFAULT_MEMBERSHIP,
            epochs: Vec::new(),
            added_urls: Vec::new(),
            relays: Vec::new(),
            people: Arc::default(),
        }
    }

    #[test]
    fn a_clock_before_what_is_stored_is_noticed() {
        // Members of the tests were heard of at 1000.
        assert_eq!(behind(&world(), UnixTime(5)), Some(995));
        assert_eq!(behind(&world(), UnixTime(960)), None, "clocks are a little off");
        assert_eq!(behind(&world(), UnixTime(9000)), None);
    }

    #[test]
    fn memberships_that_end_soon_are_counted() {
        let at = |days: u64| UnixTime(1000 + days * DAY);
        assert_eq!([330, 336, 364, 366].map(|days| ending(&world(), at(days))), [0, 2, 2, 0]);
    }
}
