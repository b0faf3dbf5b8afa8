//! The link by which the first owner comes in: good once, for a day, for as long as this process runs.

use std::time::Duration;

use ria_protocol::time::UnixTime;
use tokio::sync::watch;

use super::secret;
use crate::state::people::Invitation;

/// How long a link is good.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);

/// The link that is good now, if there is one.
#[derive(Debug, Default)]
pub struct OwnerLink {
    current: watch::Sender<Option<Invitation>>,
}

impl OwnerLink {
    /// Another link's secret; the one before is good no more.
    pub fn renew(&self, now: UnixTime) -> (String, UnixTime) {
        let (text, expires) = (secret::fresh(), now.plus(LIFE));
        self.current.send_replace(Some(Invitation { digest: secret::digest(text.as_bytes()), expires }));
        (text, expires)
    }

    /// Whether this is the secret of the link.
    pub fn is_good(&self, digest: &[u8; 32], now: UnixTime) -> bool {
        self.current.borrow().as_ref().is_some_and(|link| link.digest == *digest && now < link.expires)
    }

    /// It is used up; whether it was good until now.
    pub fn take(&self, digest: &[u8; 32], now: UnixTime) -> bool {
        self.current.send_if_modified(|current| {
            let good = current.as_ref().is_some_and(|link| link.digest == *digest && now < link.expires);
            if good {
                *current = None;
            }
            good
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_good_once_for_a_day_and_until_the_next() {
        let (link, now) = (OwnerLink::default(), UnixTime(1000));
        let first = secret::digest(link.renew(now).0.as_bytes());
        assert!(
            link.is_good(&first, now)
                && !link.is_good(&first, now.plus(LIFE))
                && !link.is_good(&[0; 32], now)
        );
        let second = secret::digest(link.renew(now).0.as_bytes());
        assert!(!link.is_good(&first, now) && !link.take(&first, now));
        assert!(link.take(&second, now) && !link.take(&second, now));
    }
}
