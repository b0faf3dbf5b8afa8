//! Who is logged in to the pages. Cookies are known by their digests, and nothing of it is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use ria_protocol::time::UnixTime;
use tokio::sync::watch;

use super::secret;
use crate::state::people::UserName;

/// A session ends after so long in any case.
pub const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// And after so long without a request.
const IDLE: Duration = Duration::from_secs(2 * 3600);
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
    began: UnixTime,
    seen: UnixTime,
}

impl Session {
    fn is_over(&self, now: UnixTime) -> bool {
        now.since(self.began) >= LONGEST || now.since(self.seen) >= IDLE
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sessions {
    all: watch::Sender<BTreeMap<[u8; 32], Session>>,
}

impl Sessions {
    /// Somebody has logged in; what their cookie holds.
    pub fn begin(&self, user: &UserName, era: u64, now: UnixTime) -> String {
        let cookie = secret::fresh();
        let session = Session { user: user.clone(), era, csrf: secret::fresh(), began: now, seen: now };
        self.all.send_modify(|all| {
            all.retain(|_, session| !session.is_over(now));
            let own = || all.iter().filter(|(_, session)| session.user == *user);
            let crowded = own().count() >= PER_USER || all.len() >= IN_ALL;
            let oldest = own().min_by_key(|(_, session)| session.began).map(|(key, _)| *key);
            if let (true, Some(oldest)) = (crowded, oldest) {
                all.remove(&oldest);
            }
            all.insert(secret::digest(cookie.as_bytes()), session);
        });
        cookie
    }

    /// The session of a cookie, which goes on by this.
    pub fn find(&self, cookie: &str, now: UnixTime) -> Option<Session> {
        let key = secret::digest(cookie.as_bytes());
        let mut found = None;
        self.all.send_if_modified(|all| {
            if let Some(session) = all.get_mut(&key).filter(|session| !session.is_over(now)) {
                session.seen = now;
                found = Some(session.clone());
            }
            // Nobody waits for that.
            false
        });
        found
    }

    /// Somebody has logged out.
    pub fn end(&self, cookie: &str) {
        let key = secret::digest(cookie.as_bytes());
        self.all.send_modify(|all| drop(all.remove(&key)));
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_by_age_by_idleness_and_by_wish() {
        let (sessions, ada, start) = (Sessions::default(), "ada".parse().unwrap(), UnixTime(1_000_000));
        let cookie = sessions.begin(&ada, 1, start);
        assert_eq!(sessions.find("another", start), None);
        let mut now = start;
        while now.since(start) + IDLE / 2 < LONGEST {
            now = now.plus(IDLE / 2);
            assert!(sessions.find(&cookie, now).is_some());
        }
        assert_eq!(sessions.find(&cookie, start.plus(LONGEST)), None);
        let idle = sessions.begin(&ada, 1, start);
        assert_eq!(sessions.find(&idle, start.plus(IDLE)), None);
        let ended = sessions.begin(&ada, 1, start);
        sessions.end(&ended);
        assert_eq!(sessions.find(&ended, start), None);
    }

    #[test]
    fn one_person_can_not_fill_the_table() {
        let (sessions, ada, now) = (Sessions::default(), "ada".parse().unwrap(), UnixTime(1_000_000));
        let first = sessions.begin(&ada, 1, now);
        (0..100).for_each(|n| drop(sessions.begin(&ada, 1, UnixTime(now.0 + n + 1))));
        assert_eq!((sessions.count(), sessions.find(&first, UnixTime(now.0 + 200))), (PER_USER, None));
    }
}
