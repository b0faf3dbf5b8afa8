//! The link by which the first owner comes in: good once, and for a day.

use std::sync::Arc;
use std::time::Duration;

use ria_protocol::time::UnixTime;

use super::secret;
use super::shelf::{Kept, Kind, Shelf};
use crate::store::StoreError;

/// How long a link is good.
pub const LIFE: Duration = Duration::from_secs(24 * 3600);

/// The links that are good now.
#[derive(Debug)]
pub struct OwnerLink {
    shelf: Arc<Shelf>,
}

impl OwnerLink {
    pub fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf }
    }

    /// Another link's secret; those before are good no more.
    pub async fn renew(&self, now: UnixTime) -> Result<(String, UnixTime), StoreError> {
        self.end_all(now).await?;
        self.add(now).await
    }

    /// One more link's secret.
    pub async fn add(&self, now: UnixTime) -> Result<(String, UnixTime), StoreError> {
        let (text, expires) = (secret::fresh(), now.plus(LIFE));
        let link = Kept { owner: String::new(), value: String::new(), made: now, expires };
        self.shelf.add(Kind::OwnerLink, secret::digest(text.as_bytes()), link, now).await?;
        Ok((text, expires))
    }

    /// Whether this is the secret of a link.
    pub async fn is_good(&self, digest: &[u8; 32], now: UnixTime) -> Result<bool, StoreError> {
        Ok(self.shelf.get(Kind::OwnerLink, *digest, now).await?.is_some())
    }

    /// It is used up, and with it all others; whether it was good until now.
    pub async fn take(&self, digest: &[u8; 32], now: UnixTime) -> Result<bool, StoreError> {
        let Some(known) = self.shelf.get(Kind::OwnerLink, *digest, now).await? else { return Ok(false) };
        let taken = self.shelf.take(Kind::OwnerLink, *digest, &known).await?;
        if taken {
            self.end_all(now).await?;
        }
        Ok(taken)
    }

    async fn end_all(&self, now: UnixTime) -> Result<(), StoreError> {
        for (id, known) in self.shelf.all(Kind::OwnerLink, None, now).await? {
            self.shelf.take(Kind::OwnerLink, id, &known).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_is_good_once_for_a_day_and_until_the_next() {
        let (link, now) = (OwnerLink::new(Arc::default()), UnixTime(1000));
        let first = secret::digest(link.renew(now).await.unwrap().0.as_bytes());
        assert!(link.is_good(&first, now).await.unwrap());
        assert!(!link.is_good(&first, now.plus(LIFE)).await.unwrap());
        assert!(!link.is_good(&[0; 32], now).await.unwrap());
        // One of another coordinator's beside it, until somebody asks for one alone.
        let beside = secret::digest(link.add(now).await.unwrap().0.as_bytes());
        assert!(link.is_good(&first, now).await.unwrap() && link.is_good(&beside, now).await.unwrap());
        let second = secret::digest(link.renew(now).await.unwrap().0.as_bytes());
        assert!(!link.is_good(&first, now).await.unwrap() && !link.take(&beside, now).await.unwrap());
        assert!(link.take(&second, now).await.unwrap() && !link.take(&second, now).await.unwrap());
    }
}
