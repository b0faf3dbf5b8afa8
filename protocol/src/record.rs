//! The member record: what a network says of one member, as one canonical byte string that an owner may sign.
//!
//! The bytes travel as they were signed. A reader decodes them, encodes the result again and refuses bytes that
//! differ, so one record has exactly one byte form.

use minicbor::{Decode, Encode};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::id::{NetworkId, NodeId};
use crate::keys::{LockKey, Signature, WgPublicKey};
use crate::message::{from_bytes, to_bytes};
use crate::prefix::Prefix;
use crate::time::UnixTime;

/// Put before the bytes that a lock key signs, so that the signature fits nothing else.
const SIGNATURE_CONTEXT: &[u8] = b"ria member record v1\0";

/// What a network says of one member.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MemberRecord {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The member.
    #[n(1)]
    pub node: NodeId,
    /// Its WireGuard public key.
    #[n(2)]
    pub wg_key: WgPublicKey,
    /// Source addresses that it may use: its own first, one of each family; behind them those that it forwards for.
    #[n(3)]
    pub prefixes: Vec<Prefix>,
    /// Tags, sorted.
    #[n(4)]
    pub tags: Vec<String>,
    /// When its membership ends by itself; absent means never.
    #[n(5)]
    pub expires: Option<UnixTime>,
}

impl MemberRecord {
    /// The prefixes of the member itself, without those that it forwards for: the first of each family.
    pub fn own_prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        let first =
            |v4: bool| self.prefixes.iter().copied().find(move |prefix| prefix.address().is_ipv4() == v4);
        first(true).into_iter().chain(first(false))
    }
}

/// A member record as bytes, with the signature of a lock key where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedRecord {
    /// Canonical bytes of a [`MemberRecord`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
    /// Ed25519 over the context string and the bytes; absent while the network is not locked.
    #[n(1)]
    pub signature: Option<Signature>,
}

/// A member record is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are no record, or not its canonical form.
    #[error("member record is malformed or not in canonical form")]
    Malformed,
    /// The record belongs to another network.
    #[error("member record belongs to another network")]
    OtherNetwork,
    /// The network is locked and no signature is there.
    #[error("the network is locked and the member record is not signed")]
    Unsigned,
    /// The signature is by none of the lock keys.
    #[error("the member record's signature is by none of the network's lock keys")]
    BadSignature,
    /// The membership has ended by itself.
    #[error("the membership has ended")]
    Expired,
}

impl RecordError {
    /// Why nothing is exchanged with a member of such a record, for people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "its record can't be read",
            Self::OtherNetwork => "its record is of another network",
            Self::Unsigned => "the network is locked and its record is not signed",
            Self::BadSignature => "the network is locked and its record is signed by none of the owners",
            Self::Expired => "its membership has ended",
        }
    }
}

impl SignedRecord {
    /// A record without signature.
    pub fn unsigned(record: &MemberRecord) -> Self {
        Self { bytes: to_bytes(record), signature: None }
    }

    /// Reads the record, checked against the network that it came for and against the lock keys, of which one must
    /// have signed unless there are none.
    pub fn open(&self, network: NetworkId, lock_keys: &[LockKey]) -> Result<MemberRecord, RecordError> {
        let record: MemberRecord = from_bytes(&self.bytes).map_err(|_| RecordError::Malformed)?;
        if to_bytes(&record) != self.bytes {
            return Err(RecordError::Malformed);
        }
        if record.network != network {
            return Err(RecordError::OtherNetwork);
        }
        if !lock_keys.is_empty() {
            let signature = self.signature.as_ref().ok_or(RecordError::Unsigned)?;
            let message = signed_bytes(&self.bytes);
            let good = |key: &LockKey| {
                UnparsedPublicKey::new(&ED25519, key.0).verify(&message, &signature.0).is_ok()
            };
            if !lock_keys.iter().any(good) {
                return Err(RecordError::BadSignature);
            }
        }
        Ok(record)
    }
}

/// What a lock key signs for a record with these bytes.
pub fn signed_bytes(record: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, record].concat()
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn record() -> MemberRecord {
        MemberRecord {
            network: NetworkId::from_bytes([1; 10]),
            node: NodeId::from_bytes([2; 10]),
            wg_key: WgPublicKey([3; 32]),
            prefixes: vec!["10.213.0.7/32".parse().unwrap(), "fd00::7/128".parse().unwrap()],
            tags: vec!["arm".into()],
            expires: None,
        }
    }

    fn signer(seed: u8) -> (Ed25519KeyPair, LockKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = LockKey(pair.public_key().as_ref().try_into().unwrap());
        (pair, public)
    }

    fn signed(pair: &Ed25519KeyPair) -> SignedRecord {
        let mut signed = SignedRecord::unsigned(&record());
        let bytes: [u8; 64] = pair.sign(&signed_bytes(&signed.bytes)).as_ref().try_into().unwrap();
        signed.signature = Some(Signature(bytes));
        signed
    }

    #[test]
    fn a_locked_network_takes_only_records_signed_by_one_of_its_keys() {
        let ((pair, lock), (_, other)) = (signer(5), signer(6));
        let network = record().network;
        assert_eq!(signed(&pair).open(network, &[other, lock]), Ok(record()));
        assert_eq!(signed(&pair).open(network, &[other]), Err(RecordError::BadSignature));
        assert_eq!(SignedRecord::unsigned(&record()).open(network, &[lock]), Err(RecordError::Unsigned));
        assert_eq!(SignedRecord::unsigned(&record()).open(network, &[]), Ok(record()));
    }

    #[test]
    fn records_of_other_networks_and_non_canonical_bytes_are_refused() {
        let network = record().network;
        let elsewhere = NetworkId::from_bytes([9; 10]);
        assert_eq!(SignedRecord::unsigned(&record()).open(elsewhere, &[]), Err(RecordError::OtherNetwork));
        let mut longer = SignedRecord::unsigned(&record());
        longer.bytes.push(0);
        assert_eq!(longer.open(network, &[]), Err(RecordError::Malformed));
        // The map header 0xa5 (five pairs) written in its longer form 0xb8 0x05 means the same and is refused.
        let mut padded = SignedRecord::unsigned(&record());
        padded.bytes.splice(0..1, [0xb8, 0x05]);
        assert_eq!(padded.open(network, &[]), Err(RecordError::Malformed));
    }
}
