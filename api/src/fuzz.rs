//! Bodies of the fuzz targets for the local API's structures. The fuzzer runs them, and the tests replay its corpora.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::Type;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{BE, LE, to_bytes};

use crate::state::{AgentStatus, Event, NetworkReport, NetworkStatus, PeerStatus};

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: [Target; 1] = [("structures", structures)];

/// The dictionaries of the local API, from D-Bus in either byte order and from JSON.
pub fn structures(data: &[u8]) {
    structure::<AgentStatus>(data);
    structure::<NetworkStatus>(data);
    structure::<Vec<PeerStatus>>(data);
    structure::<Event>(data);
    structure::<NetworkReport>(data);
}

fn structure<T: Type + Serialize + DeserializeOwned>(data: &[u8]) {
    for context in [Context::new(LE, 0), Context::new(BE, 0)] {
        if let Ok((value, _)) = Data::new(data, context).deserialize::<T>() {
            writes_and_reads(&value);
        }
    }
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        writes_and_reads(&value);
    }
}

/// What was read can be written in both forms, and is read from them again.
fn writes_and_reads<T: Type + Serialize + DeserializeOwned>(value: &T) {
    let bytes = to_bytes(Context::new(LE, 0), value);
    assert!(bytes.is_ok_and(|bytes| bytes.deserialize::<T>().is_ok()), "not over D-Bus");
    let json = serde_json::to_string(value);
    assert!(json.is_ok_and(|json| serde_json::from_str::<T>(&json).is_ok()), "not as JSON");
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        super::TARGETS.iter().for_each(|(name, body)| ria_corpus::replay(name, *body));
    }
}
