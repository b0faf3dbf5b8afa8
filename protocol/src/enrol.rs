//! Enrolment: a node shows a join key and proves that it holds both of its private keys.
//!
//! ```text
//! TLS 1.3, ALPN ria/1: the node presents a certificate that it signed itself  -> holds the TLS key
//! node -> Hello                      coordinator -> Welcome{challenge: X25519 key of this connection}
//! node -> Enrol{.., proof}           proof = HMAC-SHA256(X25519(node's WireGuard key, challenge), transcript)
//! coordinator -> Enrolled | Refused
//! ```
//!
//! The transcript holds the TLS exporter value of the connection (RFC 8446 section 7.5), so a proof is of no use on
//! another connection. Enrolment is idempotent per join key and node key: a node whose answer got lost asks again
//! and is given the same identity.

use minicbor::{Decode, Encode};
use ring::hmac;

use crate::id::{BootId, KeyId, NetworkId, NodeId, base32};
use crate::join_key::JoinSecret;
use crate::keys::{SpkiHash, WgPublicKey};
use crate::name::Name;
use crate::requester::Requester;
use crate::time::UnixTime;

/// Label of the TLS exporter value that binds a proof to its connection (32 bytes, no context).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-ria-enrol-v1";

/// A node asks to become a member.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Enrol {
    /// Which join key.
    #[n(0)]
    pub key_id: KeyId,
    /// Its secret.
    #[n(1)]
    pub secret: JoinSecret,
    /// The name that the node would like; the coordinator may number it when `name_required` is false.
    #[n(2)]
    pub name: Name,
    /// Whether a person chose the name, so that another one would be wrong.
    #[n(3)]
    pub name_required: bool,
    /// WireGuard public key.
    #[n(4)]
    pub wg_key: WgPublicKey,
    /// PKCS #10 certificate request (RFC 2986, DER) for the TLS key of this connection.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub csr: Vec<u8>,
    /// See [`proof`].
    #[cbor(n(6), with = "minicbor::bytes")]
    pub proof: Vec<u8>,
    /// This run of the agent.
    #[n(7)]
    pub boot: BootId,
    /// Whether only a node is meant that is a member by these keys, or waits to become one: nobody is admitted anew.
    #[n(10)]
    pub only_known: Option<bool>,
    /// Who had the node join.
    #[n(15)]
    pub requester: Option<Requester>,
}

/// The node is a member.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Enrolled {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The node's identity in it.
    #[n(1)]
    pub node: NodeId,
    /// The name that it was given.
    #[n(2)]
    pub name: Name,
    /// Its certificate.
    #[n(3)]
    pub certificate: Certificate,
    /// The network's name.
    #[n(4)]
    pub network_name: Name,
}

/// News about the membership of the node that is told (since version 2).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum MembershipNews {
    /// An administrator has to approve first; the answer follows on this connection once one has decided.
    #[n(0)]
    Waiting(#[n(0)] Waiting),
    /// Another machine uses this node's identity.
    #[n(1)]
    Cloned(#[n(0)] Cloned),
    /// The other machine has not been heard of for a while.
    #[n(2)]
    NotCloned,
}

/// A node's place in the approval queue.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Waiting {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The network's name.
    #[n(1)]
    pub network_name: Name,
    /// The identity that the node will have.
    #[n(2)]
    pub node: NodeId,
    /// The name that it will have, unless the administrator gives it another one.
    #[n(3)]
    pub name: Name,
    /// Since when it waits.
    #[n(4)]
    pub since: UnixTime,
}

/// Two machines use one identity.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Cloned {
    /// Since when this is known.
    #[n(0)]
    pub since: UnixTime,
    /// For people: from where the other one was heard.
    #[n(1)]
    pub other: String,
}

/// What people compare on both sides before they approve a node: 80 bits of the hash of its two public keys, as in
/// `k3vq-7mzc-2dhf-pa6x`.
pub fn fingerprint(tls_key: &SpkiHash, wg_key: &WgPublicKey) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(b"ria node fingerprint v1\0");
    context.update(&tls_key.0);
    context.update(&wg_key.0);
    let text = base32().encode(&context.finish().as_ref()[..10]);
    let groups: Vec<&str> = (0..text.len()).step_by(4).filter_map(|at| text.get(at..at + 4)).collect();
    groups.join("-")
}

/// A node's TLS certificate and what it needs to verify its coordinator later.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Certificate {
    /// The node's certificate (RFC 5280, DER).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub leaf: Vec<u8>,
    /// Certificates of the authorities to trust from now on (DER).
    #[n(1)]
    pub authorities: Vec<Authority>,
    /// When the node's certificate ends.
    #[n(2)]
    pub not_after: UnixTime,
    /// When it was issued; it is renewed when a third of the time from then to its end has passed.
    #[n(3)]
    pub issued: Option<UnixTime>,
    /// For how many seconds a node stays a member that is not heard of.
    #[n(4)]
    pub membership: Option<u64>,
}

/// The certificate of a certification authority (RFC 5280, DER).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Authority(#[cbor(with = "minicbor::bytes")] pub Vec<u8>);

/// What a proof of possession covers besides the Diffie-Hellman result.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    /// TLS exporter value of the connection, see [`EXPORTER_LABEL`].
    pub exporter: &'a [u8; 32],
    /// The coordinator's challenge.
    pub challenge: &'a WgPublicKey,
    /// The node's WireGuard key.
    pub wg_key: &'a WgPublicKey,
    /// The certificate request.
    pub csr: &'a [u8],
}

fn tag_context(shared_secret: &[u8; 32], transcript: &Transcript<'_>) -> hmac::Context {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, shared_secret));
    context.update(b"ria enrol proof v1\0");
    context.update(transcript.exporter);
    context.update(&transcript.challenge.0);
    context.update(&transcript.wg_key.0);
    context.update(transcript.csr);
    context
}

/// The proof that a node holds its WireGuard key; `shared_secret` is X25519 of that key and the challenge.
pub fn proof(shared_secret: &[u8; 32], transcript: &Transcript<'_>) -> Vec<u8> {
    tag_context(shared_secret, transcript).sign().as_ref().to_vec()
}

/// Whether a proof is right, compared in constant time; `shared_secret` is X25519 of the challenge's private half
/// and the node's WireGuard key.
pub fn proof_holds(shared_secret: &[u8; 32], transcript: &Transcript<'_>, proof: &[u8]) -> bool {
    let expected = tag_context(shared_secret, transcript).sign();
    // An all-zero secret means that a peer sent a point of small order, which proves nothing.
    shared_secret != &[0; 32] && ring_equal(expected.as_ref(), proof)
}

pub(crate) fn ring_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_short_and_covers_both_keys() {
        let print = |tls: u8, wg: u8| fingerprint(&SpkiHash([tls; 32]), &WgPublicKey([wg; 32]));
        assert_eq!(print(1, 2).len(), 19);
        assert!(print(1, 2).split('-').all(|group| group.len() == 4), "{}", print(1, 2));
        assert_ne!(print(1, 2), print(1, 3));
        assert_ne!(print(1, 2), print(2, 2));
    }

    #[test]
    fn a_proof_holds_only_for_its_connection_key_and_request() {
        let (challenge, wg_key) = (WgPublicKey([1; 32]), WgPublicKey([2; 32]));
        let here = Transcript { exporter: &[3; 32], challenge: &challenge, wg_key: &wg_key, csr: b"csr" };
        let tag = proof(&[4; 32], &here);
        assert!(proof_holds(&[4; 32], &here, &tag));
        assert!(!proof_holds(&[5; 32], &here, &tag));
        assert!(!proof_holds(&[4; 32], &Transcript { exporter: &[9; 32], ..here }, &tag));
        assert!(!proof_holds(&[4; 32], &Transcript { csr: b"other", ..here }, &tag));
        assert!(!proof_holds(&[4; 32], &here, &tag[..16]));
        assert!(!proof_holds(&[0; 32], &here, &proof(&[0; 32], &here)));
    }
}
