//! Finding the coordinator after it has moved: which URLs are tried in which order, and which of those that answer is
//! the one that this node belongs to now.

use ria_protocol::message::NodeMessage;

use super::greet::{GreetError, Greeted, greet};
use super::reach::Reach;
use super::stream::StreamError;
use super::tls::{self, CoordinatorTls, TlsSetupError, Trust};
use crate::state::kept::Kept;
use crate::state::membership::Membership;

/// Who answers is an older copy of this node's coordinator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url} is an older copy of this network's coordinator, which was restored from a backup or moved since; it must not \
     run any more"
)]
pub struct Outdated {
    url: String,
}

/// No coordinator that this node belongs to.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// None that is believed.
    #[error(transparent)]
    Greet(#[from] GreetError),
    /// An older copy.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// TLS.
    #[error(transparent)]
    Setup(#[from] TlsSetupError),
}

/// URLs in the order in which they are tried: what a person has set, what answered last, what the coordinator has told.
pub fn urls(membership: &Membership) -> Vec<String> {
    let (identity, contact) = (&membership.identity, &membership.contact);
    let mut urls: Vec<String> = Vec::new();
    for url in contact.by_hand.iter().chain(&contact.reached).chain(&identity.urls) {
        if !urls.contains(url) {
            urls.push(url.clone());
        }
    }
    urls
}

/// The first coordinator that answers and is no older copy.
pub async fn find(
    reach: &Reach,
    urls: &[String],
    tls: &CoordinatorTls,
    kept: &Kept,
) -> Result<Greeted, FindError> {
    let mut urls = urls.to_vec();
    let mut outdated = None;
    loop {
        let greeted = match (greet(reach, &urls, tls).await, outdated) {
            (Ok(greeted), _) => greeted,
            (Err(_), Some(outdated)) => return Err(FindError::Outdated(outdated)),
            (Err(error), None) => return Err(error.into()),
        };
        if !kept.is_outdated(greeted.welcome.epoch) {
            return Ok(greeted);
        }
        let error = Outdated { url: greeted.url };
        tracing::warn!(%error, "another address is tried");
        urls.retain(|url| *url != error.url);
        greeted.stream.close().await;
        if urls.is_empty() {
            return Err(error.into());
        }
        outdated = Some(error);
    }
}

/// Hands back what the coordinator gave, if it has begun another epoch since.
pub async fn testify(greeted: &mut Greeted, kept: &Kept) -> Result<(), StreamError> {
    for testimony in kept.testimonies(greeted.welcome.epoch, None) {
        tracing::info!("the coordinator was restored or moved; it is told what this node has kept");
        greeted.stream.send(&NodeMessage::Testify(testimony)).await?;
    }
    Ok(())
}

/// Whether this node's coordinator answers at a URL.
pub async fn check(reach: &Reach, url: String, membership: &Membership) -> Result<(), FindError> {
    let certificate = &membership.certificate;
    let trust = Trust::Authorities(certificate.authorities.clone());
    let tls = tls::client_config(trust, membership.contact.time, &membership.keys, Some(&certificate.leaf))?;
    let greeted = find(reach, &[url], &tls, &membership.kept).await?;
    greeted.stream.close().await;
    Ok(())
}
