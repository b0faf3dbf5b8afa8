//! Bodies of the fuzz targets for what the coordinator reads. The fuzzer runs them, and the tests replay its corpora.

use ria_protocol::keys::SpkiHash;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::api::{
    AddRelay, AddTurn, AuditView, CreateKey, CreateNetwork, KeyView, NetworkView, NodeView, RelayView,
    Rename, Tag,
};
use crate::config::{Config, Standalone};
use crate::duration::Lifetime;
use crate::enrol::check_request;
pub use crate::relay::fuzz::{relay_server, relay_stream};

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: [Target; 5] = [
    ("coordinator_config", coordinator_config),
    ("admin_json", admin_json),
    ("certificate_request", certificate_request),
    ("relay_server", relay_server),
    ("relay_stream", relay_stream),
];

/// `coordinator.toml`: read, or each mistake told; and durations as people type them.
pub fn coordinator_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Config::from_text("coordinator.toml", text) {
        assert!(!error.mistakes.is_empty() && error.mistakes.iter().all(|mistake| !mistake.is_empty()));
    }
    if let Err(error) = Standalone::from_text("relay.toml", text) {
        assert!(!error.mistakes.is_empty() && error.mistakes.iter().all(|mistake| !mistake.is_empty()));
    }
    if let Ok(lifetime) = text.parse::<Lifetime>() {
        assert_ne!(lifetime.seconds(), Some(0));
    }
}

/// What the admin socket and its clients read.
pub fn admin_json(data: &[u8]) {
    json::<CreateNetwork>(data);
    json::<CreateKey>(data);
    json::<Rename>(data);
    json::<Tag>(data);
    json::<NetworkView>(data);
    json::<KeyView>(data);
    json::<NodeView>(data);
    json::<AuditView>(data);
    json::<RelayView>(data);
    json::<AddRelay>(data);
    json::<AddTurn>(data);
}

/// What was read is written to a text that reads back to the same text.
fn json<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return };
    let text = serde_json::to_string(&value).unwrap_or_default();
    let again = serde_json::from_str::<T>(&text).map(|again| serde_json::to_string(&again));
    assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == text)), "{text}");
}

/// Certificate requests of nodes: none is good for a key that is not in it.
pub fn certificate_request(data: &[u8]) {
    assert!(check_request(data, SpkiHash([0; 32])).is_err());
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        super::TARGETS.iter().for_each(|(name, body)| ria_corpus::replay(name, *body));
    }
}
