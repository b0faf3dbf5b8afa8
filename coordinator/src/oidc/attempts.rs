//! Logins that are under way: sent to the provider, and not back yet. Bounded, each good once and from the browser that it
//! began in. What has to stay secret of one is made from what that browser alone holds, and is kept nowhere.

use std::sync::Arc;
use std::time::Duration;

use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::people::secret;
use crate::people::shelf::{Kept, Kind, Shelf};
use crate::state::people::UserName;
use crate::store::StoreError;

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
}

/// What a login begins with.
pub struct Begun {
    pub state: String,
    /// For the browser's cookie.
    pub browser: String,
    pub attempt: Attempt,
}

/// What is kept of one.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    next: String,
    link: Option<UserName>,
    /// Digest of what the browser holds.
    browser: [u8; 32],
}

/// All of them.
#[derive(Debug)]
pub struct Attempts {
    shelf: Arc<Shelf>,
}

impl Attempt {
    fn of(Value { next, link, .. }: Value, state: &str, browser: &str) -> Self {
        let derived =
            |purpose: &str| secret::base32(&secret::derived(browser.as_bytes(), purpose, state.as_bytes()));
        // 52 characters; RFC 7636 asks for 43 at least.
        Self { nonce: derived("oidc nonce"), verifier: derived("oidc verifier"), next, link }
    }
}

impl Attempts {
    pub fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf }
    }

    /// One more.
    pub async fn begin(
        &self,
        next: &str,
        link: Option<UserName>,
        now: UnixTime,
    ) -> Result<Begun, StoreError> {
        let (state, browser) = (secret::fresh(), secret::fresh());
        let value = Value { next: next.to_owned(), link, browser: secret::digest(browser.as_bytes()) };
        // Texts and numbers can always be written.
        let text = serde_json::to_string(&value).unwrap_or_default();
        let kept = Kept { owner: String::new(), value: text, made: now, expires: now.plus(LIFE) };
        self.shelf.make_room(Kind::Login, (None, MOST), now).await?;
        self.shelf.add(Kind::Login, secret::digest(state.as_bytes()), kept, now).await?;
        let attempt = Attempt::of(value, &state, &browser);
        Ok(Begun { state, browser, attempt })
    }

    /// The one that comes back with this state, from this browser; it is used up by that.
    pub async fn take(
        &self,
        state: &str,
        browser: &str,
        now: UnixTime,
    ) -> Result<Option<Attempt>, StoreError> {
        let key = secret::digest(state.as_bytes());
        let Some(kept) = self.shelf.get(Kind::Login, key, now).await? else { return Ok(None) };
        let Ok(value) = serde_json::from_str::<Value>(&kept.value) else { return Ok(None) };
        // Whoever has only learnt the state can't take it away from its browser.
        let is_theirs = secret::same(&value.browser, &secret::digest(browser.as_bytes()));
        let taken = is_theirs && self.shelf.take(Kind::Login, key, &kept).await?;
        Ok(taken.then(|| Attempt::of(value, state, browser)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);

    #[tokio::test]
    async fn a_login_comes_back_once_in_time_and_from_its_browser() {
        let attempts = Attempts::new(Arc::default());
        let begun = attempts.begin("/nodes", None, NOW).await.unwrap();
        assert!(begun.attempt.verifier.len() >= 43 && begun.attempt.verifier != begun.attempt.nonce);
        assert_eq!(attempts.take("guessed", &begun.browser, NOW).await.unwrap(), None);
        assert_eq!(attempts.take(&begun.state, "another", NOW).await.unwrap(), None);
        assert_eq!(attempts.take(&begun.state, &begun.browser, NOW).await.unwrap(), Some(begun.attempt));
        assert_eq!(attempts.take(&begun.state, &begun.browser, NOW).await.unwrap(), None);
        let late = attempts.begin("/", None, NOW).await.unwrap();
        assert_eq!(attempts.take(&late.state, &late.browser, NOW.plus(LIFE)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_crowd_takes_a_bounded_room() {
        let shelf = Arc::new(Shelf::default());
        let attempts = Attempts::new(shelf.clone());
        let first = attempts.begin("/", None, UnixTime(NOW.0 - 1)).await.unwrap();
        for _ in 0..MOST {
            attempts.begin("/", None, NOW).await.unwrap();
        }
        assert_eq!(shelf.count(Kind::Login, NOW).await.unwrap(), MOST);
        assert_eq!(attempts.take(&first.state, &first.browser, NOW).await.unwrap(), None);
    }
}
