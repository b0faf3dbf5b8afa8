//! Whom a client certificate makes its bearer. The handshake takes certificates of our authority, expired or not, and
//! certificates that a node signed itself; both prove only that the node holds the key. What it may do is decided
//! afterwards, from [`Identity`] and the state.

use ria_protocol::keys::SpkiHash;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::authority::Authority;
use super::succession::Authorities;

/// Far above any node's certificate.
const MAX_CERTIFICATE: usize = 8 * 1024;

/// What a client certificate says of its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// It holds this key, and nothing else is known.
    SelfSigned(SpkiHash),
    /// It holds this key, for which our authority, or one before it, has issued a certificate once.
    Issued(SpkiHash),
}

impl Identity {
    /// SHA-256 of the public key that the bearer holds.
    pub fn tls_key(self) -> SpkiHash {
        match self {
            Self::SelfSigned(key) | Self::Issued(key) => key,
        }
    }
}

/// A certificate is no node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    #[error("malformed certificate")]
    Malformed,
    #[error("certificate neither of this coordinator's authority nor signed by itself")]
    Foreign,
}

/// Whom a certificate makes its bearer.
pub fn identify(certificate: &[u8], authority: &Authority) -> Result<Identity, IdentifyError> {
    if certificate.len() > MAX_CERTIFICATE {
        return Err(IdentifyError::Malformed);
    }
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentifyError::Malformed)?;
    let tls_key = SpkiHash::of(parsed.public_key().raw);
    let is_by = |spki: &[u8]| {
        SubjectPublicKeyInfo::from_der(spki).is_ok_and(|(_, key)| parsed.verify_signature(Some(&key)).is_ok())
    };
    if authority.spkis().any(is_by) {
        // The authority also signs itself and server certificates: those are nobody's identity as a client.
        let usage = parsed.extended_key_usage().ok().flatten();
        return if usage.is_some_and(|usage| usage.value.client_auth) {
            Ok(Identity::Issued(tls_key))
        } else {
            Err(IdentifyError::Foreign)
        };
    }
    if parsed.verify_signature(None).is_ok() {
        return Ok(Identity::SelfSigned(tls_key));
    }
    Err(IdentifyError::Foreign)
}

/// The check within the handshake.
#[derive(Debug)]
pub struct NodeVerifier {
    authorities: Authorities,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodeVerifier {
    /// Takes the nodes of these authorities, and strangers that want to become such.
    pub fn new(authorities: Authorities) -> Self {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Self { authorities, algorithms }
    }
}

impl ClientCertVerifier for NodeVerifier {
    /// No hints: a node has one certificate and sends it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match identify(end_entity, &self.authorities.current()) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(IdentifyError::Malformed) => Err(CertificateError::BadEncoding.into()),
            Err(IdentifyError::Foreign) => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};
    use ria_protocol::id::{NetworkId, NodeId};

    use super::*;
    use crate::tls::authority::{Identity as Stored, NodeLifetimes};

    #[test]
    fn own_and_self_signed_certificates_are_told_apart_and_others_refused() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = Stored::load_or_create(here.path(), None).unwrap().authority;
        let theirs = Stored::load_or_create(there.path(), None).unwrap().authority;
        let key = KeyPair::generate().unwrap();
        let hash = SpkiHash::of(&key.subject_public_key_info());
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let issue = |authority: &Authority| {
            let (network, node) = (NetworkId::from_bytes([1; 10]), NodeId::from_bytes([2; 10]));
            let day = std::time::Duration::from_secs(86_400);
            let lifetimes = NodeLifetimes { certificate: day, membership: day };
            authority.issue_node(network, node, csr.der(), lifetimes).unwrap().leaf
        };
        assert_eq!(identify(&issue(&ours), &ours), Ok(Identity::Issued(hash)));
        assert_eq!(identify(&issue(&theirs), &ours), Err(IdentifyError::Foreign));
        let own = CertificateParams::default().self_signed(&key).unwrap();
        assert_eq!(identify(own.der(), &ours), Ok(Identity::SelfSigned(hash)));
        let server =
            ours.issue_server(&key, &["a.example".into()], std::time::Duration::from_secs(60)).unwrap();
        assert_eq!(identify(&server, &ours), Err(IdentifyError::Foreign));
        assert_eq!(identify(ours.certificate(), &ours), Err(IdentifyError::Foreign));
        assert_eq!(identify(b"\x30\x03abc", &ours), Err(IdentifyError::Malformed));
        // What an authority has issued stays good when another takes over.
        let issued = issue(&ours);
        let authorities = Authorities::new(Stored::directory(here.path()).unwrap(), ours);
        let next = authorities.roll().unwrap();
        assert_eq!(identify(&issued, &next), Ok(Identity::Issued(hash)));
        assert_eq!(identify(&issue(&next), &next), Ok(Identity::Issued(hash)));
    }
}
