//! What nodes keep for their coordinator, so that little is lost with it: after a restore from a backup they hand back
//! what it does not know any more.
//!
//! ```text
//! coordinator -> Keep{deed, tombstones, audit head}      sealed: HMAC-SHA256 under a key that only it has
//!    ... the coordinator is lost, and restored from an older backup: it begins a new epoch ...
//! coordinator -> Welcome{epoch}                          another than the node has kept
//! node        -> Testify{what it was given}              before Resume
//! ```
//!
//! A node can't make a sealed statement, only repeat one. So a node that testifies can bring back itself and have
//! others put out that were put out before; it can change nothing else.

use std::net::{Ipv4Addr, Ipv6Addr};

use minicbor::{Decode, Encode};
use ring::hmac;

use crate::id::{EpochId, KeyId, NetworkId, NodeId};
use crate::keys::{SpkiHash, WgPublicKey};
use crate::map::Revision;
use crate::message::{from_bytes, to_bytes};
use crate::name::Name;
use crate::time::UnixTime;

/// A life of a coordinator's database: each restore from a backup begins the next. Revisions, and all that one may
/// conclude from them, belong to an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Epoch {
    /// Grows by one with each restore; the first is 1.
    #[n(0)]
    pub number: u32,
    /// Tells two restores of one backup apart.
    #[n(1)]
    pub id: EpochId,
}

/// A statement of a coordinator to itself, kept by a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sealed {
    /// Canonical bytes of a [`Statement`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub statement: Vec<u8>,
    /// HMAC-SHA256 over context string and statement.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub tag: Vec<u8>,
}

/// What is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Statement {
    /// The bearer is this member.
    #[n(0)]
    Deed(#[n(0)] Deed),
    /// This node was removed for good.
    #[n(1)]
    Tombstone(#[n(0)] Tombstone),
    /// The audit log had got this far.
    #[n(2)]
    AuditHead(#[n(0)] AuditHead),
}

/// All that makes a node the member that it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Deed {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The node.
    #[n(1)]
    pub node: NodeId,
    /// Its name.
    #[n(2)]
    pub name: Name,
    /// Its WireGuard key.
    #[n(3)]
    pub wg_key: WgPublicKey,
    /// SHA-256 of the public key of its certificate.
    #[n(4)]
    pub tls_key: SpkiHash,
    /// Its IPv4 address.
    #[n(5)]
    pub address_v4: Ipv4Addr,
    /// Its IPv6 address.
    #[n(6)]
    pub address_v6: Ipv6Addr,
    /// Its tags.
    #[n(7)]
    pub tags: Vec<String>,
    /// The join key that it came by.
    #[n(8)]
    pub join_key: KeyId,
    /// When it joined.
    #[n(9)]
    pub joined: UnixTime,
    /// Seconds that it may be away before it is removed; absent: it stays.
    #[n(10)]
    pub ephemeral: Option<u64>,
    /// Whose laptop it is, as the coordinator calls that person; absent: nobody's in particular.
    #[n(11)]
    pub owner: Option<String>,
}

/// A node that was removed. Ids are never given twice, so this stays true for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tombstone {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The node.
    #[n(1)]
    pub node: NodeId,
    /// When.
    #[n(2)]
    pub time: UnixTime,
}

/// The end of the audit log at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuditHead {
    /// Of which epoch.
    #[n(0)]
    pub epoch: Epoch,
    /// Number of the last row.
    #[n(1)]
    pub seq: u64,
    /// Its hash.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// A coordinator gives a node something to keep.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Keep {
    /// The epoch that all of it belongs to.
    #[n(0)]
    pub epoch: Epoch,
    /// Replaces the one before; absent when it has not changed.
    #[n(1)]
    pub deed: Option<Sealed>,
    /// To be kept beside those that are there.
    #[n(2)]
    pub tombstones: Vec<Sealed>,
    /// Replaces the one before; absent when it has not changed.
    #[n(3)]
    pub audit: Option<Sealed>,
}

/// A node hands back what it was given to keep. Long lists of tombstones come in several of these.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Testimony {
    /// The epoch that the node has known.
    #[n(0)]
    pub epoch: Epoch,
    /// The revision that it has, of that epoch.
    #[n(1)]
    pub revision: Option<Revision>,
    /// Who it is.
    #[n(2)]
    pub deed: Option<Sealed>,
    /// Who was removed.
    #[n(3)]
    pub tombstones: Vec<Sealed>,
    /// How far the audit log had got.
    #[n(4)]
    pub audit: Option<Sealed>,
}

/// Tombstones that fit into one message, with room to spare.
pub const TOMBSTONES_PER_MESSAGE: usize = 400;

/// Tombstones that a node keeps; the oldest are forgotten first.
pub const TOMBSTONES_KEPT: usize = 4096;

/// Put before what is sealed, so that the tag fits nothing else.
const CONTEXT: &[u8] = b"ria witness v1\0";

/// The key under which a coordinator seals.
pub struct SealingKey(hmac::Key);

impl SealingKey {
    /// The key made of these random bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Seals a statement.
    pub fn seal(&self, statement: &Statement) -> Sealed {
        let statement = to_bytes(statement);
        let tag = hmac::sign(&self.0, &[CONTEXT, &statement].concat()).as_ref().to_vec();
        Sealed { statement, tag }
    }

    /// The statement, if it was sealed with this key.
    pub fn open(&self, sealed: &Sealed) -> Option<Statement> {
        hmac::verify(&self.0, &[CONTEXT, &sealed.statement].concat(), &sealed.tag).ok()?;
        sealed.read()
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(hidden)")
    }
}

impl Sealed {
    /// The statement, for a node, which can't check the seal and got it from its coordinator itself.
    pub fn read(&self) -> Option<Statement> {
        from_bytes(&self.statement).ok()
    }

    /// The node that was removed, if that is what it says.
    pub fn tombstone(&self) -> Option<Tombstone> {
        match self.read()? {
            Statement::Tombstone(tombstone) => Some(tombstone),
            Statement::Deed(_) | Statement::AuditHead(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_opens_only_with_its_key_and_unchanged() {
        let (key, other) = (SealingKey::new(&[1; 32]), SealingKey::new(&[2; 32]));
        let tombstone = Tombstone {
            network: NetworkId::from_bytes([1; 10]),
            node: NodeId::from_bytes([2; 10]),
            time: UnixTime(3),
        };
        let statement = Statement::Tombstone(tombstone);
        let sealed = key.seal(&statement);
        assert_eq!(key.open(&sealed), Some(statement));
        assert_eq!(sealed.tombstone(), Some(tombstone));
        assert_eq!(other.open(&sealed), None);
        for at in 0..sealed.statement.len() {
            let mut changed = sealed.clone();
            changed.statement[at] ^= 1;
            assert_eq!(key.open(&changed), None);
        }
        assert_eq!(key.open(&Sealed { tag: Vec::new(), ..sealed }), None);
    }

    #[test]
    fn the_longest_testimony_fits_into_a_message() {
        let key = SealingKey::new(&[1; 32]);
        let id = [0xff; 10];
        let tombstone = Tombstone {
            network: NetworkId::from_bytes(id),
            node: NodeId::from_bytes(id),
            time: UnixTime(u64::MAX),
        };
        let sealed = key.seal(&Statement::Tombstone(tombstone));
        let testimony = Testimony {
            epoch: Epoch { number: u32::MAX, id: EpochId::from_bytes(id) },
            revision: Some(Revision(u64::MAX)),
            deed: None,
            tombstones: vec![sealed; TOMBSTONES_PER_MESSAGE],
            audit: None,
        };
        // Twice as much would fit: a deed has many tags at most, and there is one.
        assert!(to_bytes(&testimony).len() < crate::MAX_NODE_MESSAGE * 2 / 3);
    }
}
