//! Messages of the node stream: one CBOR item per binary WebSocket message.
//!
//! ```text
//! node                                   coordinator
//!  Hello ------------------------------->
//!  <------------------------------------- Welcome | Refused
//!  [Testify] Enrol | Resume ------------->
//!  <------------------------------------- Enrolled | Refused            (after Enrolled the node sends Resume)
//!                                         | Membership{Waiting}, and one of the two later
//!  <------------------------------------- Snapshot or Patches, Relays, Live{whole}, [Keep]
//!  Ack, Report, Renew ... --------------->
//!  <------------------------------------- Patches, Live, Relays, Renewed, Drain ...
//! ```

use minicbor::{Decode, Encode};

use crate::demand::Sought;
use crate::enrol::{Authority, Certificate, Enrol, Enrolled, MembershipNews};
use crate::error::Refusal;
use crate::id::{BootId, NetworkId, NodeId};
use crate::keys::{SpkiHash, WgPublicKey};
use crate::links::LinkNews;
use crate::map::{Candidate, Live, PatchSet, Relay, Revision, Snapshot};
use crate::prefix::Prefix;
use crate::requester::LocalChange;
use crate::rotation::Rotate;
use crate::time::UnixTime;
use crate::witness::{Epoch, Keep, Testimony};

/// From a node to its coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum NodeMessage {
    /// Always first.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Become a member.
    #[n(1)]
    Enrol(#[n(0)] Enrol),
    /// Begin a session as a member; needs the certificate that enrolment gave.
    #[n(2)]
    Resume(#[n(0)] Resume),
    /// The map has been applied up to this revision.
    #[n(3)]
    Ack(#[n(0)] Revision),
    /// Where this node may be reached now; replaces the report before.
    #[n(4)]
    Report(#[n(0)] Vec<Candidate>),
    /// A new certificate, please: PKCS #10 request (DER) for the same TLS key.
    #[n(5)]
    Renew(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// This node leaves the network for good.
    #[n(6)]
    Leave,
    /// Somebody changed something on the node itself. Version 2.
    #[n(10)]
    Changed(#[n(0)] LocalChange),
    /// What the node has kept for its coordinator, before Resume, when that has begun another epoch. Version 2.
    #[n(14)]
    Testify(#[n(0)] Testimony),
    /// This node has another WireGuard key from now on. The answer is the member's changed record in the map.
    #[n(7)]
    Rotate(#[n(0)] Rotate),
    /// How the node reaches its peers, for people. Version 2.
    #[n(30)]
    Links(#[n(0)] LinkNews),
    /// This node has something to say to this member, in an on-demand network.
    #[n(61)]
    Seek(#[n(0)] Sought),
    /// This node has had nothing to do with these for a while.
    #[n(62)]
    Release(#[n(0)] Vec<NodeId>),
    /// The network has become on-demand just now, and of all members this node goes on holding these. The answer is a
    /// Snapshot.
    #[n(63)]
    Hold(#[n(0)] Vec<NodeId>),
}

/// From a coordinator to a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CoordinatorMessage {
    /// Answer to Hello.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// No; the connection is closed after it.
    #[n(1)]
    Refused(#[n(0)] Refusal),
    /// Answer to Enrol.
    #[n(2)]
    Enrolled(#[n(0)] Enrolled),
    /// The whole durable state.
    #[n(3)]
    Snapshot(#[n(0)] Snapshot),
    /// Durable changes.
    #[n(4)]
    Patches(#[n(0)] PatchSet),
    /// What is known of members at the moment.
    #[n(5)]
    Live(#[n(0)] LiveUpdate),
    /// All relays with fresh credentials; replaces the list before.
    #[n(6)]
    Relays(#[n(0)] Vec<Relay>),
    /// Answer to Renew.
    #[n(7)]
    Renewed(#[n(0)] Certificate),
    /// The coordinator is about to stop: reconnect after this many milliseconds, nothing else changes.
    #[n(8)]
    Drain(#[n(0)] u32),
    /// Answer to Leave: done, the connection is closed after it.
    #[n(9)]
    Left,
    /// News about the node's own membership.
    #[n(15)]
    Membership(#[n(0)] MembershipNews),
    /// Something to keep and to hand back in another epoch. Version 2.
    #[n(13)]
    Keep(#[n(0)] Keep),
    /// The authorities to trust from now on, in place of those before; never empty.
    #[n(10)]
    Authorities(#[n(0)] Vec<Authority>),
    /// Answer to Seek: this node can have nothing to do with such a member, whether there is one or not.
    #[n(61)]
    Absent(#[n(0)] Sought),
}

/// A node's first words.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Oldest protocol that the node speaks.
    #[n(0)]
    pub protocol_min: u16,
    /// Newest protocol that the node speaks.
    #[n(1)]
    pub protocol_max: u16,
    /// Version of the agent, for people.
    #[n(2)]
    pub agent_version: String,
}

/// A coordinator's first words.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// The [version](crate::version::Protocol) of this connection: the newest that both speak.
    #[n(0)]
    pub protocol: u16,
    /// Version of the coordinator, for people.
    #[n(1)]
    pub coordinator_version: String,
    /// An X25519 public key of this connection, for proofs of possession.
    #[n(2)]
    pub challenge: WgPublicKey,
    /// The coordinator's clock.
    #[n(3)]
    pub time: UnixTime,
    /// The life of the coordinator's database; absent in version 1.
    #[n(10)]
    pub epoch: Option<Epoch>,
    /// The authority itself is at the other end now, and says that it is this time (see [`crate::authority`]).
    #[cbor(n(15), with = "minicbor::bytes")]
    pub authority_proof: Option<Vec<u8>>,
}

/// A member begins a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Resume {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The node.
    #[n(1)]
    pub node: NodeId,
    /// Which revision it has; absent asks for a snapshot.
    #[n(2)]
    pub revision: Option<Revision>,
    /// This run of the agent.
    #[n(3)]
    pub boot: BootId,
    /// The node's clock.
    #[n(15)]
    pub clock: Option<UnixTime>,
    /// Public keys of the authorities that the node trusts.
    #[n(16)]
    pub trusts: Option<Vec<SpkiHash>>,
    /// Local networks that the node offers to forward to; absent: none.
    #[n(30)]
    pub routes: Option<Vec<Prefix>>,
    /// The members that it holds, in an on-demand network; empty in others. Absent: it knows no such networks.
    #[n(61)]
    pub holds: Option<Vec<NodeId>>,
}

/// News of members.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LiveUpdate {
    /// Whether this is all there is to know (members not in it are offline), or only what changed.
    #[n(0)]
    pub whole: bool,
    /// The members.
    #[n(1)]
    pub members: Vec<Live>,
}

/// Bytes are not the message that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct DecodeError(String);

/// The canonical bytes of a value.
pub fn to_bytes<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A vector takes any bytes and no type of this crate reports an error of its own, so this can't fail.
    let encoded = minicbor::encode(value, &mut bytes);
    debug_assert!(encoded.is_ok(), "encoding to memory failed");
    bytes
}

/// Reads a value that fills `bytes` exactly.
pub fn from_bytes<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|e| DecodeError(e.to_string()))?;
    if decoder.position() == bytes.len() { Ok(value) } else { Err(DecodeError("bytes left over".into())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn byte_form_of_a_message_is_fixed() {
        let message = NodeMessage::Resume(Resume {
            network: NetworkId::from_bytes([1; 10]),
            node: NodeId::from_bytes([2; 10]),
            revision: Some(Revision(300)),
            boot: BootId::from_bytes([3; 10]),
            clock: None,
            trusts: None,
            routes: None,
            holds: None,
        });
        let bytes = to_bytes(&message);
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let id = |b: &str| format!("4a{}", b.repeat(10));
        assert_eq!(text, format!("820281a400{}01{}0219012c03{}", id("01"), id("02"), id("03")));
        assert_eq!(from_bytes(&bytes), Ok(message));
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut bytes = to_bytes(&NodeMessage::Leave);
        bytes.push(0);
        assert!(from_bytes::<NodeMessage>(&bytes).is_err());
    }

    proptest! {
        /// Whatever arrives is either refused or is a message that has one byte form.
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(message) = from_bytes::<CoordinatorMessage>(&bytes) {
                prop_assert_eq!(from_bytes::<CoordinatorMessage>(&to_bytes(&message)), Ok(message));
            }
            let _ = from_bytes::<NodeMessage>(&bytes);
        }
    }
}
