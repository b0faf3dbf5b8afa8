//! Proof that a certification authority itself is at the other end of a connection, now.
//!
//! A node whose clock is wrong can't tell whether the certificate that a coordinator shows has ended, or has not begun.
//! So the coordinator's authority signs, for each connection, that connection's TLS exporter value (RFC 8446 section
//! 7.5) and its own time. Nobody but the holder of the authority's key can do so, and nobody can have done so before:
//! whatever the clocks say, the certificate is as good as a new one, and the time is the authority's.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use crate::time::UnixTime;

const CONTEXT: &[u8] = b"ria authority proof v1\0";

/// What the authority signs (ECDSA on P-256 with SHA-256, ASN.1): the connection's exporter value, and its time.
pub fn statement(exporter: &[u8; 32], time: UnixTime) -> Vec<u8> {
    [CONTEXT, exporter, &time.0.to_be_bytes()].concat()
}

/// Whether a proof is the signature of the holder of this public key (an uncompressed point).
pub fn proof_holds(public_key: &[u8], exporter: &[u8; 32], time: UnixTime, proof: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key);
    key.verify(&statement(exporter, time), proof).is_ok()
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    #[test]
    fn a_proof_holds_only_for_its_authority_connection_and_time() {
        let random = SystemRandom::new();
        let pair = || {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap()
        };
        let (authority, other) = (pair(), pair());
        let proof = authority.sign(&random, &statement(&[1; 32], UnixTime(5))).unwrap();
        let public = authority.public_key().as_ref();
        assert!(proof_holds(public, &[1; 32], UnixTime(5), proof.as_ref()));
        assert!(!proof_holds(public, &[2; 32], UnixTime(5), proof.as_ref()), "another connection");
        assert!(!proof_holds(public, &[1; 32], UnixTime(6), proof.as_ref()), "another time");
        assert!(!proof_holds(other.public_key().as_ref(), &[1; 32], UnixTime(5), proof.as_ref()));
        assert!(!proof_holds(b"no key", &[1; 32], UnixTime(5), proof.as_ref()));
    }
}
