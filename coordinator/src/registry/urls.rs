//! Where nodes are told to find the coordinator: the URLs of the settings, then those that were added. They travel in
//! each network's map, so that it shows who has heard of a change.

use std::time::SystemTime;

use ria_protocol::time::UnixTime;
use serde_json::json;

use super::Unavailable;
use super::draft::Draft;
use super::writer::Writer;
use crate::audit::{Actor, Event};
use crate::store::StoreError;

/// The list of URLs can't be changed so.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    #[error("nodes are told {0} already")]
    Known(String),
    #[error("{0} is none of the URLs that were added; `ria-coordinator url list` shows all")]
    Unknown(String),
    #[error(
        "{0} stands in the settings of `serve` (public_url); take it out there and restart the coordinator"
    )]
    Configured(String),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<StoreError> for UrlError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl Writer {
    /// What nodes are told.
    pub(super) fn urls(&self) -> Vec<String> {
        joined(&self.configured_urls, &self.world().added_urls)
    }

    pub(super) async fn add_url(&mut self, url: String, actor: Actor) -> Result<(), UrlError> {
        if self.urls().contains(&url) {
            return Err(UrlError::Known(url));
        }
        let mut added = self.world().added_urls.clone();
        added.push(url.clone());
        let told = joined(&self.configured_urls, &added);
        let made = self.change(async move |draft| {
            draft.write().url_added(&url, now()).await?;
            draft.world.added_urls = added;
            draft.tell(&told, actor).await
        });
        Ok(made.await?)
    }

    pub(super) async fn remove_url(&mut self, url: String, actor: Actor) -> Result<(), UrlError> {
        let mut added = self.world().added_urls.clone();
        added.retain(|known| *known != url);
        if added.len() == self.world().added_urls.len() {
            let configured = self.configured_urls.contains(&url);
            return Err(if configured { UrlError::Configured(url) } else { UrlError::Unknown(url) });
        }
        let told = joined(&self.configured_urls, &added);
        let made = self.change(async move |draft| {
            draft.write().url_removed(&url).await?;
            draft.world.added_urls = added;
            draft.tell(&told, actor).await
        });
        Ok(made.await?)
    }

    /// Tells the networks that were told something else before, since the settings were other ones then.
    pub(super) async fn tell_urls(&mut self, actor: Actor) -> Result<(), Unavailable> {
        let told = self.urls();
        // Without any, what nodes know is better than nothing.
        if told.is_empty() || self.world().networks.values().all(|network| network.info.urls == told) {
            return Ok(());
        }
        Ok(self.change(async move |draft| draft.tell(&told, actor).await).await?)
    }
}

fn joined(configured: &[String], added: &[String]) -> Vec<String> {
    let more = added.iter().filter(|url| !configured.contains(url));
    configured.iter().chain(more).cloned().collect()
}

pub(super) fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

impl Draft {
    async fn tell(&mut self, urls: &[String], actor: Actor) -> Result<(), StoreError> {
        let others = self.world.networks.values().filter(|network| network.info.urls != urls);
        let networks: Vec<_> = others.map(|network| crate::state::Network::clone(network)).collect();
        for mut network in networks {
            let event = Event {
                time: now(),
                actor: actor.clone(),
                action: "network.urls",
                network: Some(network.info.id),
                subject: network.info.name.to_string(),
                detail: json!({ "urls": urls, "before": network.info.urls }),
            };
            network.info.urls = urls.to_vec();
            self.write().network_urls(network.info.id, urls).await?;
            self.set_network(network, &event).await?;
        }
        Ok(())
    }
}
