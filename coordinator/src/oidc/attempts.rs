//! Logins that are under way: sent to the provider, and not back yet. In memory, bounded, each good once and from the
//! browser that it began in.

use std::collections::BTreeMap;
use std::time::Duration;

use ria_protocol::time::UnixTime;
use tokio::sync::watch;

use crate::people::secret;
use crate::state::people::UserName;

/// Somebody may look for a password for so long.
pub const LIFE: Duration = Duration::from_secs(15 * 60);
/// More end the oldest.
const MOST: usize = 4096;

/// A login under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub nonce: String,
    /// What PKCE shows at the end, after its hash was sent at the beginning.
    pub verifier: String,
    /// Where to go afterwards.
    pub next: String,
    /// Somebody who is logged in, and wants to log in this way from now on.
    pub link: Option<UserName>,
    browser: [u8; 32],
    began: UnixTime,
}

/// What a login begins with.
pub struct Begun {
    pub state: String,
    /// For the browser's cookie.
    pub browser: String,
    pub attempt: Attempt,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Attempts {
    all: watch::Sender<BTreeMap<[u8; 32], Attempt>>,
}

impl Attempts {
    /// One more.
    pub fn begin(&self, next: &str, link: Option<UserName>, now: UnixTime) -> Begun {
        let (state, browser) = (secret::fresh(), secret::fresh());
        let attempt = Attempt {
            nonce: secret::fresh(),
            // 43 characters at least (RFC 7636).
            verifier: secret::fresh() + &secret::fresh(),
            next: next.to_owned(),
            link,
            browser: secret::digest(browser.as_bytes()),
            began: now,
        };
        self.all.send_modify(|all| {
            all.retain(|_, attempt| now.since(attempt.began) < LIFE);
            if all.len() >= MOST
                && let Some(oldest) = all.iter().min_by_key(|(_, attempt)| attempt.began).map(|(key, _)| *key)
            {
                all.remove(&oldest);
            }
            all.insert(secret::digest(state.as_bytes()), attempt.clone());
        });
        Begun { state, browser, attempt }
    }

    /// The one that comes back with this state, from this browser; it is used up by that.
    pub fn take(&self, state: &str, browser: &str, now: UnixTime) -> Option<Attempt> {
        let (key, browser) = (secret::digest(state.as_bytes()), secret::digest(browser.as_bytes()));
        let mut taken = None;
        self.all.send_if_modified(|all| {
            // Whoever has only learnt the state can't take it away from its browser.
            if all.get(&key).is_some_and(|attempt| secret::same(&attempt.browser, &browser)) {
                taken = all.remove(&key);
            }
            taken.is_some()
        });
        taken.filter(|attempt| now.since(attempt.began) < LIFE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);

    #[test]
    fn a_login_comes_back_once_in_time_and_from_its_browser() {
        let attempts = Attempts::default();
        let begun = attempts.begin("/nodes", None, NOW);
        assert!(begun.attempt.verifier.len() >= 43);
        assert_eq!(attempts.take("guessed", &begun.browser, NOW), None);
        assert_eq!(attempts.take(&begun.state, "another", NOW), None);
        assert_eq!(attempts.take(&begun.state, &begun.browser, NOW), Some(begun.attempt));
        assert_eq!(attempts.take(&begun.state, &begun.browser, NOW), None);
        let late = attempts.begin("/", None, NOW);
        assert_eq!(attempts.take(&late.state, &late.browser, NOW.plus(LIFE)), None);
    }

    #[test]
    fn a_crowd_takes_a_bounded_room() {
        let attempts = Attempts::default();
        let first = attempts.begin("/", None, UnixTime(NOW.0 - 1));
        (0..MOST).for_each(|_| drop(attempts.begin("/", None, NOW)));
        assert_eq!(attempts.all.borrow().len(), MOST);
        assert_eq!(attempts.take(&first.state, &first.browser, NOW), None);
    }
}
