//! Who is logged in to the pages. Cookies are known by their digests alone.

use std::sync::Arc;
use std::time::Duration;

use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::secret;
use super::shelf::{Kept, Kind, Shelf};
use crate::state::people::UserName;
use crate::store::StoreError;

/// A session ends after so long in any case.
pub const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// And after so long without a request.
const IDLE: Duration = Duration::from_secs(2 * 3600);
/// How exactly it is known when the last request was.
const SEEN_EVERY: Duration = Duration::from_secs(60);
/// Sessions of one person at a time; more end the oldest.
const PER_USER: usize = 16;
const IN_ALL: usize = 4096;

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub user: UserName,
    /// [`crate::state::people::UserEntry::era`] when it began; another one means that it ended.
    pub era: u64,
    /// What forms have to carry.
    pub csrf: String,
}

/// What is kept of one.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    era: u64,
    seen: UnixTime,
}

/// All of them.
#[derive(Debug)]
pub struct Sessions {
    shelf: Arc<Shelf>,
}

fn kept(user: &str, era: u64, (made, seen): (UnixTime, UnixTime)) -> Kept {
    let expires = made.plus(LONGEST).min(seen.plus(IDLE));
    // Two numbers can always be written.
    let value = serde_json::to_string(&Value { era, seen }).unwrap_or_default();
    Kept { owner: user.to_owned(), value, made, expires }
}

impl Sessions {
    pub fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf }
    }

    /// Somebody has logged in; what their cookie holds.
    pub async fn begin(&self, user: &UserName, era: u64, now: UnixTime) -> Result<String, StoreError> {
        let cookie = secret::fresh();
        self.shelf.make_room(Kind::Session, (Some(user.as_str()), PER_USER), now).await?;
        self.shelf.make_room(Kind::Session, (None, IN_ALL), now).await?;
        let session = kept(user.as_str(), era, (now, now));
        self.shelf.add(Kind::Session, secret::digest(cookie.as_bytes()), session, now).await?;
        Ok(cookie)
    }

    /// The session of a cookie, which goes on by this.
    pub async fn find(&self, cookie: &str, now: UnixTime) -> Result<Option<Session>, StoreError> {
        let key = secret::digest(cookie.as_bytes());
        let Some(known) = self.shelf.get(Kind::Session, key, now).await? else { return Ok(None) };
        let value = serde_json::from_str::<Value>(&known.value).ok();
        let (Some(Value { era, seen }), Ok(user)) = (value, known.owner.parse()) else { return Ok(None) };
        if now.since(seen) >= SEEN_EVERY {
            let later = kept(&known.owner, era, (known.made, now));
            // Another request of theirs may have been quicker.
            self.shelf.replace(Kind::Session, key, &known, later).await?;
        }
        let csrf = secret::base32(&secret::derived(cookie.as_bytes(), "csrf", &[]));
        Ok(Some(Session { user, era, csrf }))
    }

    /// Somebody has logged out.
    pub async fn end(&self, cookie: &str, now: UnixTime) -> Result<(), StoreError> {
        let key = secret::digest(cookie.as_bytes());
        while let Some(known) = self.shelf.get(Kind::Session, key, now).await? {
            self.shelf.take(Kind::Session, key, &known).await?;
        }
        Ok(())
    }

    /// How many there are.
    pub async fn count(&self, now: UnixTime) -> Result<usize, StoreError> {
        self.shelf.count(Kind::Session, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        Sessions::new(Arc::default())
    }

    #[tokio::test]
    async fn sessions_end_by_age_by_idleness_and_by_wish() {
        let (sessions, ada, start) = (sessions(), "ada".parse().unwrap(), UnixTime(1_000_000));
        let cookie = sessions.begin(&ada, 1, start).await.unwrap();
        assert_eq!(sessions.find("another", start).await.unwrap(), None);
        let first = sessions.find(&cookie, start).await.unwrap().unwrap();
        let mut now = start;
        while now.since(start) + IDLE / 2 < LONGEST {
            now = now.plus(IDLE / 2);
            assert_eq!(sessions.find(&cookie, now).await.unwrap().as_ref(), Some(&first));
        }
        assert_eq!(sessions.find(&cookie, start.plus(LONGEST)).await.unwrap(), None);
        let idle = sessions.begin(&ada, 1, start).await.unwrap();
        assert_ne!(sessions.find(&idle, start).await.unwrap().unwrap().csrf, first.csrf);
        assert_eq!(sessions.find(&idle, start.plus(IDLE)).await.unwrap(), None);
        let ended = sessions.begin(&ada, 1, start).await.unwrap();
        sessions.end(&ended, start).await.unwrap();
        assert_eq!(sessions.find(&ended, start).await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_person_can_not_fill_the_table() {
        let (sessions, ada, now) = (sessions(), "ada".parse().unwrap(), UnixTime(1_000_000));
        let first = sessions.begin(&ada, 1, now).await.unwrap();
        for n in 0..100 {
            sessions.begin(&ada, 1, UnixTime(now.0 + n + 1)).await.unwrap();
        }
        let later = UnixTime(now.0 + 200);
        assert_eq!(sessions.count(later).await.unwrap(), PER_USER);
        assert_eq!(sessions.find(&first, later).await.unwrap(), None);
    }
}
