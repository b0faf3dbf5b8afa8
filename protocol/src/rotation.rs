//! Rotation of a node's WireGuard key: a member proves that it holds the private half of another one.
//!
//! ```text
//! coordinator -> Welcome{challenge: X25519 key of this connection}      at the beginning of the connection
//! node -> Rotate{wg_key, proof}       proof = HMAC-SHA256(X25519(new key, challenge), exporter | challenge | new key)
//! coordinator -> Patches{MemberSet}   to all members, this node among them: the key is the member's from here on
//! ```
//!
//! A challenge is good for one proof, so for one rotation on a connection. Rotating to the key that a member has is
//! no change, so a node that did not hear of its success may ask again.

use minicbor::{Decode, Encode};
use ring::hmac;

use crate::enrol::ring_equal;
use crate::keys::WgPublicKey;

/// A node asks to be known by another WireGuard key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Rotate {
    /// The new key.
    #[n(0)]
    pub wg_key: WgPublicKey,
    /// See [`proof`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub proof: Vec<u8>,
}

/// What a proof covers besides the Diffie-Hellman result.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    /// TLS exporter value of the connection, see [`crate::enrol::EXPORTER_LABEL`].
    pub exporter: &'a [u8; 32],
    /// The coordinator's challenge.
    pub challenge: &'a WgPublicKey,
    /// The new key.
    pub wg_key: &'a WgPublicKey,
}

fn tag_context(shared_secret: &[u8; 32], transcript: &Transcript<'_>) -> hmac::Context {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, shared_secret));
    context.update(b"ria rotation proof v1\0");
    context.update(transcript.exporter);
    context.update(&transcript.challenge.0);
    context.update(&transcript.wg_key.0);
    context
}

/// The proof that a node holds its new key; `shared_secret` is X25519 of that key and the challenge.
pub fn proof(shared_secret: &[u8; 32], transcript: &Transcript<'_>) -> Vec<u8> {
    tag_context(shared_secret, transcript).sign().as_ref().to_vec()
}

/// Whether a proof is right, compared in constant time; `shared_secret` is X25519 of the challenge's private half
/// and the new key.
pub fn proof_holds(shared_secret: &[u8; 32], transcript: &Transcript<'_>, proof: &[u8]) -> bool {
    let expected = tag_context(shared_secret, transcript).sign();
    // An all-zero secret means a point of small order, which proves nothing.
    shared_secret != &[0; 32] && ring_equal(expected.as_ref(), proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_only_for_its_connection_and_key() {
        let (challenge, wg_key) = (WgPublicKey([1; 32]), WgPublicKey([2; 32]));
        let here = Transcript { exporter: &[3; 32], challenge: &challenge, wg_key: &wg_key };
        let tag = proof(&[4; 32], &here);
        assert!(proof_holds(&[4; 32], &here, &tag));
        assert!(!proof_holds(&[5; 32], &here, &tag));
        assert!(!proof_holds(&[4; 32], &Transcript { exporter: &[9; 32], ..here }, &tag));
        assert!(!proof_holds(&[4; 32], &Transcript { wg_key: &WgPublicKey([7; 32]), ..here }, &tag));
        assert!(!proof_holds(&[0; 32], &here, &proof(&[0; 32], &here)));
        // A proof of enrolment over the same values is none of rotation.
        let enrol =
            crate::enrol::Transcript { exporter: &[3; 32], challenge: &challenge, wg_key: &wg_key, csr: b"" };
        assert!(!proof_holds(&[4; 32], &here, &crate::enrol::proof(&[4; 32], &enrol)));
    }
}
