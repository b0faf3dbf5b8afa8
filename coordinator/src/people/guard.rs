//! Slows down whoever guesses passwords, codes, links and tokens: per address, and per name from wherever. Remembers which
//! one-time codes were used.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::registry::limiter::FailureLimiter;
use crate::state::people::UserName;

/// Failures that a name has before one must wait.
const FREE: u32 = 5;
/// The longest wait for a name. It is short: whoever wants to can make others wait.
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// One failure is forgiven after each of these.
const FORGIVEN: Duration = Duration::from_secs(120);
/// Names remembered.
const REMEMBERED: usize = 4096;
/// Rows in the audit log that one name may cause by what it may not, in an hour.
const ROWS: u32 = 60;
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct Inner {
    addresses: FailureLimiter,
    /// Of tokens and links, apart from passwords: a program that has an old token must keep nobody from logging in.
    secrets: FailureLimiter,
    names: BTreeMap<String, (u32, Instant)>,
    used_codes: BTreeMap<UserName, u64>,
    rows: BTreeMap<String, (u32, Instant)>,
    failures: u64,
}

/// Who failed how often.
#[derive(Debug, Default)]
pub struct Guard {
    inner: watch::Sender<Inner>,
}

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl Guard {
    /// Whether an attempt may be made now from this address, for this name if there is one.
    pub fn allows(&self, from: IpAddr, name: Option<&str>, now: Instant) -> Result<(), Wait> {
        let inner = self.inner.borrow();
        if !inner.addresses.allows(from, now) {
            return Err(Wait(FailureLimiter::REFILL));
        }
        let Some((failures, last)) = name.and_then(|name| inner.names.get(name)) else { return Ok(()) };
        let since = now.saturating_duration_since(*last);
        let wait = wait(failures_left(*failures, since));
        if since < wait { Err(Wait(wait - since)) } else { Ok(()) }
    }

    /// Counts a failure.
    pub fn handle_failure(&self, from: IpAddr, name: Option<&str>, now: Instant) {
        self.inner.send_modify(|inner| {
            inner.failures += 1;
            inner.addresses.handle_failure(from, now);
            let Some(name) = name else { return };
            if inner.names.len() >= REMEMBERED {
                inner
                    .names
                    .retain(|_, (failures, last)| failures_left(*failures, now.duration_since(*last)) > 0);
            }
            if inner.names.len() >= REMEMBERED && !inner.names.contains_key(name) {
                return;
            }
            let (failures, last) = inner.names.entry(name.to_owned()).or_insert((0, now));
            let left = failures_left(*failures, now.saturating_duration_since(*last));
            (*failures, *last) = (left.saturating_add(1).min(32), now);
        });
    }

    /// What was counted from this address was no failure.
    pub fn forgive(&self, from: IpAddr, now: Instant) {
        self.inner.send_modify(|inner| {
            inner.failures = inner.failures.saturating_sub(1);
            inner.addresses.forgive(from, now);
        });
    }

    /// Counts a wrong token or link; whether this address has to wait before it is told more. Right ones are taken in any
    /// case: nobody guesses 160 bits.
    pub fn handle_wrong_secret(&self, from: IpAddr, now: Instant) -> bool {
        let mut waits = false;
        self.inner.send_modify(|inner| {
            inner.failures += 1;
            waits = !inner.secrets.allows(from, now);
            inner.secrets.handle_failure(from, now);
        });
        waits
    }

    /// Somebody has proved who they are.
    pub fn handle_success(&self, name: &UserName) {
        self.inner.send_modify(|inner| inner.names.retain(|known, _| known != name.as_str()));
    }

    /// Whether a one-time code is used for the first time; from now on it was.
    pub fn uses_code(&self, name: &UserName, step: u64) -> bool {
        self.inner.send_if_modified(|inner| {
            let fresh = inner.used_codes.get(name).is_none_or(|used| step > *used);
            if fresh {
                inner.used_codes.insert(name.clone(), step);
            }
            fresh
        })
    }

    /// Whether one more row about what `who` was denied is kept.
    pub fn keeps_row(&self, who: &str, now: Instant) -> bool {
        let mut kept = false;
        self.inner.send_if_modified(|inner| {
            inner.rows.retain(|_, (_, since)| now.saturating_duration_since(*since) < HOUR);
            if inner.rows.len() < REMEMBERED || inner.rows.contains_key(who) {
                let (count, _) = inner.rows.entry(who.to_owned()).or_insert((0, now));
                *count = count.saturating_add(1);
                kept = *count <= ROWS;
            }
            false
        });
        kept
    }

    /// Failures since the start.
    pub fn failures(&self) -> u64 {
        self.inner.borrow().failures
    }
}

fn failures_left(failures: u32, since: Duration) -> u32 {
    let forgiven = since.as_secs() / FORGIVEN.as_secs();
    failures.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
}

fn wait(failures: u32) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(6)).min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn guessing_one_name_from_many_addresses_gets_slow_and_success_forgives() {
        let (guard, mut now) = (Guard::default(), Instant::now());
        let mut tried = 0;
        for n in 0..600u32 {
            let from = IpAddr::from(std::net::Ipv4Addr::from(n + 1));
            if guard.allows(from, Some("ada"), now).is_ok() {
                tried += 1;
                guard.handle_failure(from, Some("ada"), now);
            }
            now += Duration::from_secs(1);
        }
        assert!((8..30).contains(&tried), "{tried} guesses in ten minutes");
        assert!(guard.allows(address("192.0.2.1"), Some("ada"), now).is_err());
        assert_eq!(guard.allows(address("192.0.2.1"), Some("bob"), now), Ok(()));
        guard.handle_success(&"ada".parse().unwrap());
        assert_eq!(guard.allows(address("192.0.2.1"), Some("ada"), now), Ok(()));
    }

    #[test]
    fn one_address_that_tries_many_names_is_slowed_down() {
        let (guard, now) = (Guard::default(), Instant::now());
        let from = address("192.0.2.1");
        let tried = (0..100).filter(|n| {
            let name = format!("user{n}");
            let allowed = guard.allows(from, Some(&name), now).is_ok();
            guard.handle_failure(from, Some(&name), now);
            allowed
        });
        assert_eq!(tried.count(), 10);
    }

    #[test]
    fn a_code_is_good_once() {
        let (guard, ada) = (Guard::default(), "ada".parse().unwrap());
        assert!(guard.uses_code(&ada, 7) && !guard.uses_code(&ada, 7) && !guard.uses_code(&ada, 6));
        assert!(guard.uses_code(&ada, 8));
    }
}
