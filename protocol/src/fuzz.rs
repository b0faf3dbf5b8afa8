//! Bodies of the fuzz targets for what this crate reads. The fuzzer runs them, and the tests replay its corpora.
//!
//! What is held of everything: no panic; what was read has one byte form (or text form), which reads back as the same.

use minicbor::{Decode, Encode};

use crate::enrol::Certificate;
use crate::id::{BootId, KeyId, NetworkId, NodeId};
use crate::join_key::JoinKey;
use crate::keys::{LockKey, Signature, SpkiHash, WgPublicKey};
use crate::map::{Relay, Snapshot};
use crate::message::{CoordinatorMessage, NodeMessage, from_bytes, to_bytes};
use crate::name::Name;
use crate::policy::NodePolicy;
use crate::prefix::Prefix;
use crate::record::SignedRecord;
use crate::relay::{FromRelay, RelayKey, RelayTerms, ToRelay};

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: [Target; 6] = [
    ("node_message", node_message),
    ("coordinator_message", coordinator_message),
    ("member_record", member_record),
    ("join_key", join_key),
    ("texts", texts),
    ("relay_link", relay_link),
];

/// What a coordinator reads from nodes.
pub fn node_message(data: &[u8]) {
    reads_back::<NodeMessage>(data);
}

/// What a node reads from its coordinator, and the parts of it that a node stores.
pub fn coordinator_message(data: &[u8]) {
    reads_back::<CoordinatorMessage>(data);
    reads_back::<Snapshot>(data);
    reads_back::<NodePolicy>(data);
    reads_back::<Relay>(data);
    reads_back::<Certificate>(data);
}

/// Member records: canonical or refused, and never taken under a lock key that has not signed.
pub fn member_record(data: &[u8]) {
    let network = NetworkId::from_bytes([1; 10]);
    let mut signed = SignedRecord { bytes: data.to_vec(), signature: None };
    if let Ok(record) = signed.open(network, &[]) {
        assert_eq!(to_bytes(&record), data, "a record with two byte forms");
        assert_eq!(record.network, network);
        let lock = [LockKey([7; 32])];
        assert!(signed.open(network, &lock).is_err(), "unsigned in a locked network");
        signed.signature = Some(Signature([9; 64]));
        assert!(signed.open(network, &lock).is_err(), "a signature by nobody");
    }
    reads_back::<SignedRecord>(data);
}

/// What passes between a stand-alone relay and its coordinator, both ways, and what such a relay stores of it.
pub fn relay_link(data: &[u8]) {
    reads_back::<FromRelay>(data);
    reads_back::<ToRelay>(data);
    reads_back::<RelayTerms>(data);
}

/// Join keys, and keys of relays, as people paste them.
pub fn join_key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = RelayKey::parse(text) {
        assert_eq!(RelayKey::parse(&key.to_text()).as_ref(), Ok(&key));
        assert!(JoinKey::parse(text).is_err(), "one text, two kinds of key");
    }
    if let Ok(key) = JoinKey::parse(text) {
        let again = JoinKey::parse(&key.to_text());
        assert_eq!(again.as_ref(), Ok(&key));
        assert!(!format!("{key:?}").contains(&key.to_text()));
    }
}

/// Names, prefixes, identities and keys as people type them.
pub fn texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    prints_back::<Name>(text);
    prints_back::<Prefix>(text);
    prints_back::<NetworkId>(text);
    prints_back::<NodeId>(text);
    prints_back::<BootId>(text);
    prints_back::<KeyId>(text);
    prints_back::<WgPublicKey>(text);
    prints_back::<SpkiHash>(text);
}

fn reads_back<T>(data: &[u8])
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = from_bytes::<T>(data) {
        let bytes = to_bytes(&value);
        assert_eq!(from_bytes::<T>(&bytes).as_ref(), Ok(&value));
        assert_eq!(to_bytes(&value), bytes);
    }
}

fn prints_back<T>(text: &str)
where
    T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        super::TARGETS.iter().for_each(|(name, body)| ria_corpus::replay(name, *body));
    }
}
