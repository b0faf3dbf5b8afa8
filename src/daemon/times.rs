//! Clocks and ends: how far this machine's clock is off, and what ends soon unless somebody does something.
//!
//! The coordinator's clock is known from the last greeting and the time since. When the system's clock makes a jump
//! (somebody set it, or the machine slept), the coordinator is asked anew before anything is said.

use std::time::{Duration, SystemTime};

use ria_api::state::{CoordinatorState, Severity};
use ria_protocol::id::NetworkId;
use ria_protocol::time::UnixTime;
use tokio::time::Instant;

use super::conditions::Conditions;
use super::control::Control;
use super::network::Network;
use crate::coordinator::freshness::{CLOCK_UNSET_BEFORE, Span};
use crate::coordinator::session::Order;
use crate::coordinator::tls;
use crate::state::Part;
use crate::state::membership::Membership;

/// Differences up to this are none: the greeting tells whole seconds, and a slow network takes some.
const TOLERANCE: u64 = 10;

/// The system's clock has made a jump when it differs from the monotonic one by this since the last look.
const JUMP: u64 = 5;

/// How often the coordinator's time is stored while it is connected.
const STORED_EVERY: Duration = Duration::from_secs(1800);

const DAY: u64 = 86_400;

/// Both clocks of this machine at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    system: UnixTime,
    monotonic: Instant,
}

impl Look {
    /// Now.
    pub fn now() -> Self {
        Self { system: SystemTime::now().into(), monotonic: Instant::now() }
    }

    /// Whether the system's clock went on as it should since `before`.
    fn follows(&self, before: &Self) -> bool {
        let expected = before.system.plus(self.monotonic.saturating_duration_since(before.monotonic));
        expected.0.abs_diff(self.system.0) < JUMP
    }
}

impl Network {
    /// By how many seconds this machine's clock is ahead of the coordinator's; negative when it is behind. Without
    /// contact in this run, no more is known than that it stands before the last one.
    pub fn clock_offset(&self, look: &Look) -> Option<i64> {
        let known = match &self.clock {
            Some(clock) => clock.now(look.monotonic),
            None => Some(self.membership.contact.time).filter(|time| look.system < *time)?,
        };
        Some(i64::try_from(look.system.0).ok()? - i64::try_from(known.0).ok()?)
    }

    /// The coordinator's time as it told it, never ahead: the system's clock has no say in it.
    pub fn coordinator_time(&self, look: &Look) -> UnixTime {
        self.clock.map_or(self.membership.contact.time, |clock| clock.now(look.monotonic))
    }

    /// The time, as well as it is known.
    pub fn time(&self, look: &Look) -> UnixTime {
        let remembered = || look.system.max(self.membership.contact.time);
        self.clock.map_or_else(remembered, |clock| clock.now(look.monotonic))
    }

    fn check_clock(&mut self, look: &Look) -> bool {
        let offset = self.clock_offset(look).filter(|offset| offset.unsigned_abs() > TOLERANCE);
        let Some(offset) = offset else { return self.conditions.clear("clock-off") };
        // A clock that runs a little fast is no news each second.
        if self.clock_told.is_some_and(|told| told.abs_diff(offset) <= TOLERANCE)
            && self.conditions.has("clock-off")
        {
            return false;
        }
        self.clock_told = Some(offset);
        let certain = look.system < self.membership.contact.time.max(CLOCK_UNSET_BEFORE);
        let text = clock_text(offset, self.clock.is_some(), certain);
        self.conditions.set("clock-off", Severity::Warning, text)
    }

    fn check_ends(&mut self, look: &Look) -> bool {
        let now = self.time(look);
        let connected = self.coordinator.state == CoordinatorState::Connected;
        let membership = &self.membership;
        let found = [
            ("certificate-ending", certificate(membership, now)),
            ("membership-ending", membership_end(membership, now).filter(|_| !connected)),
            ("authority-ending", authority(membership, now)),
        ];
        let mut changed = false;
        for (code, problem) in found {
            changed |= tell(&mut self.conditions, code, problem);
        }
        changed
    }
}

fn tell(conditions: &mut Conditions, code: &'static str, problem: Option<(Severity, String)>) -> bool {
    match problem {
        Some((severity, text)) => conditions.set(code, severity, text),
        None => conditions.clear(code),
    }
}

fn clock_text(offset: i64, contact: bool, certain: bool) -> String {
    let seconds = offset.unsigned_abs();
    let rough = if seconds < 7200 { String::new() } else { format!(" ({})", Span(seconds)) };
    let least = if contact { "" } else { "at least " };
    let direction = if offset < 0 { "behind" } else { "ahead of" };
    let or_there = if certain { "" } else { ", or on the coordinator if that is the one that is wrong" };
    format!(
        "this machine's clock is {least}{seconds} s{rough} {direction} the coordinator's; the overlay works all the \
         same, but time stamps of logs, messages and transforms are off: set the clock right (timedatectl, \
         chrony){or_there}"
    )
}

/// A certificate that should have been renewed by now.
fn certificate(membership: &Membership, now: UnixTime) -> Option<(Severity, String)> {
    let certificate = &membership.certificate;
    let life = certificate.issued.map_or(7 * DAY, |issued| certificate.not_after.since(issued).as_secs());
    let left = certificate.not_after.since(now).as_secs();
    // It is renewed when two thirds are left.
    if left > (2 * DAY).min(life * 2 / 7) {
        return None;
    }
    let ends = if left == 0 { "has ended".to_owned() } else { format!("ends in {}", Span(left)) };
    let until = membership_ends(membership).map_or_else(String::new, |end| {
        format!(" (as long as the membership lasts, for {} more)", Span(end.since(now).as_secs()))
    });
    let text = format!(
        "the certificate {ends} and was not renewed, because the coordinator could not be reached; it is renewed at \
         the next contact{until}"
    );
    Some((Severity::Warning, text))
}

fn membership_ends(membership: &Membership) -> Option<UnixTime> {
    let life = membership.certificate.membership?;
    Some(membership.contact.time.plus(Duration::from_secs(life)))
}

/// A membership that ends by itself because the coordinator does not hear of this machine.
fn membership_end(membership: &Membership, now: UnixTime) -> Option<(Severity, String)> {
    let life = membership.certificate.membership?;
    let left = membership_ends(membership)?.since(now).as_secs();
    if left > (30 * DAY).min(life / 4) {
        return None;
    }
    if left == 0 {
        let text = "the coordinator has not heard of this machine for so long that the membership has ended; join again \
                    with a new key (ria leave --yes, then ria join -)";
        return Some((Severity::Error, text.to_owned()));
    }
    let text = format!(
        "the membership ends in {} unless the coordinator hears of this machine before: connect it to a network from \
         which the coordinator can be reached",
        Span(left)
    );
    Some((Severity::Warning, text))
}

/// The authority that the coordinator works with ends within a year.
fn authority(membership: &Membership, now: UnixTime) -> Option<(Severity, String)> {
    let in_use = membership.certificate.authorities.first()?;
    let (_, end) = tls::validity(&in_use.0)?;
    let left = end.saturating_sub(now.0);
    let text = format!(
        "the coordinator's certification authority ends in {}; ask its administrator to put a new one in its place \
         (ria-coordinator ca roll)",
        Span(left)
    );
    (left < 365 * DAY).then_some((Severity::Warning, text))
}

impl Control {
    /// Looks at all clocks and ends. Every second.
    pub(super) fn check_times(&mut self) {
        let look = Look::now();
        let before = std::mem::replace(&mut self.look, look);
        if !look.follows(&before) {
            tracing::warn!("the system's clock has made a jump; coordinators are asked for the time");
            for network in self.networks.values_mut() {
                network.clock = None;
                network.order(Order::Reconnect);
            }
        }
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            self.check_times_of(id, &look);
            self.store_time_when_due(id, &look);
        }
    }

    /// The same for one network.
    pub(super) fn check_times_of(&mut self, id: NetworkId, look: &Look) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let clock = network.check_clock(look);
        let ends = network.check_ends(look);
        self.changed |= clock || ends;
    }

    fn store_time_when_due(&mut self, id: NetworkId, look: &Look) {
        let Some(network) = self.networks.get(&id) else { return };
        let stored_long_ago = network.clock_stored.is_none_or(|at| look.monotonic >= at + STORED_EVERY);
        if stored_long_ago && network.coordinator.state == CoordinatorState::Connected {
            self.store_time(id, look);
        }
    }

    /// Stores the coordinator's time, as far as it is known: nothing before it is believed after a restart.
    pub(super) fn store_time(&mut self, id: NetworkId, look: &Look) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(clock) = network.clock else { return };
        network.clock_stored = Some(look.monotonic);
        let contact = &mut network.membership.contact;
        contact.time = clock.remembered(contact.time, look.monotonic);
        self.saver.put(id, Part::Contact, contact, 0);
    }
}

#[cfg(test)]
mod tests {
    use ria_protocol::enrol::Certificate;

    use super::*;
    use crate::coordinator::greet::CoordinatorTime;
    use crate::state::tests::membership;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn look(system: UnixTime) -> Look {
        Look { system, monotonic: Instant::now() }
    }

    fn network(contact: UnixTime) -> Network {
        let mut membership = membership(1);
        membership.contact.time = contact;
        membership.certificate.not_after = NOW.plus(Duration::from_secs(7 * DAY));
        membership.certificate.issued = Some(NOW);
        Network::new(membership)
    }

    #[tokio::test]
    async fn a_clock_that_is_off_is_told_with_its_seconds_until_it_is_set_right() {
        let mut network = network(UnixTime(NOW.0 - 100));
        assert!(!network.check_clock(&look(NOW)), "nothing is known of the coordinator's clock yet");
        assert!(network.check_clock(&look(UnixTime(60))));
        assert!(network.conditions.in_words().contains("at least 1799999840 s (20833 days) behind"));
        network.clock = Some(CoordinatorTime::new(NOW, Instant::now(), true));
        assert!(network.check_clock(&look(NOW.plus(Duration::from_secs(365 * DAY)))));
        let text = network.conditions.in_words();
        assert!(text.contains("is 31536000 s (365 days) ahead of") && text.contains("or on the coordinator"));
        assert!(!network.check_clock(&look(NOW.plus(Duration::from_secs(365 * DAY + 2)))), "no news");
        assert!(network.check_clock(&look(NOW)));
        assert!(network.conditions.list().is_empty());
    }

    #[tokio::test]
    async fn a_jump_of_the_systems_clock_is_noticed_in_both_directions() {
        let before = look(NOW);
        let later = |system| Look { system, monotonic: before.monotonic + Duration::from_secs(3) };
        assert!(later(UnixTime(NOW.0 + 3)).follows(&before));
        assert!(!later(UnixTime(NOW.0 + 60)).follows(&before));
        assert!(!later(UnixTime(0)).follows(&before));
    }

    #[tokio::test]
    async fn what_ends_soon_is_told_in_time_and_only_when_nothing_is_done_about_it() {
        let mut network = network(NOW);
        network.membership.certificate.membership = Some(365 * DAY);
        let codes = |network: &mut Network, days: u64| {
            network.check_ends(&look(NOW.plus(Duration::from_secs(days * DAY))));
            network.conditions.list().into_iter().map(|c| (c.code, c.severity)).collect::<Vec<_>>()
        };
        let of = |code: &str, severity| (code.to_owned(), severity);
        assert_eq!(codes(&mut network, 4), []);
        assert_eq!(codes(&mut network, 6), [of("certificate-ending", Severity::Warning)]);
        assert!(network.conditions.in_words().contains("for 359 days more"));
        let both = [of("certificate-ending", Severity::Warning), of("membership-ending", Severity::Warning)];
        assert_eq!(codes(&mut network, 340), both);
        let ended = [of("membership-ending", Severity::Error), of("certificate-ending", Severity::Warning)];
        assert_eq!(codes(&mut network, 366), ended);
        // Who is connected is heard of.
        network.coordinator.state = CoordinatorState::Connected;
        assert_eq!(codes(&mut network, 340).len(), 1);
        network.membership.certificate = Certificate {
            not_after: NOW.plus(Duration::from_secs(400 * DAY)),
            ..network.membership.certificate.clone()
        };
        assert_eq!(codes(&mut network, 340), []);
    }
}
