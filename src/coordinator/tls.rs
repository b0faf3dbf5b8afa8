//! Who is trusted: the coordinator proves itself by a certificate of its own authority, never by host name.
//!
//! While joining, the authority is the one whose public key hashes to the pin in the join key; afterwards it is one of
//! those that came with the node's certificate.
//!
//! Robots boot in 1970. Certificates are checked against the later of the system's clock and the coordinator's clock at
//! the last contact. A system clock that stands before that is known to be wrong, and then nothing is held against a
//! certificate for being newer: that it has begun matters little, that it has not ended is still checked.

use std::sync::Arc;

use ria_protocol::enrol::Authority;
use ria_protocol::keys::SpkiHash;
use ria_protocol::{ALPN_NODE, COORDINATOR_TLS_NAME};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::state::membership::NodeKeys;

/// No Ria existed before this moment (2026-01-01), so a clock that stands before it was never set.
const CLOCK_UNSET_BEFORE: u64 = 1_767_225_600;

/// Which authority is believed.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The one whose public key has this hash.
    Pin(SpkiHash),
    /// Any of these.
    Authorities(Vec<Authority>),
}

/// The server is not the one that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's certificate is by another authority than the expected one")]
pub struct OtherAuthority;

/// A TLS configuration can't be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// rustls.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The own certificate.
    #[error("the node's own certificate can't be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The key.
    #[error(transparent)]
    Key(#[from] crate::state::membership::KeyError),
}

/// TLS 1.3 with ALPN `ria/1`; `leaf` is the node's issued certificate, absent before enrolment (then one that the node
/// signs itself shows possession of its key). No time before `floor` is believed.
pub fn client_config(
    trust: Trust,
    floor: ria_protocol::time::UnixTime,
    keys: &NodeKeys,
    leaf: Option<&[u8]>,
) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let leaf = match leaf {
        Some(leaf) => CertificateDer::from(leaf.to_vec()),
        None => self_signed(keys)?,
    };
    let verifier = CoordinatorVerifier { trust, floor: floor.0, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![leaf], PrivatePkcs8KeyDer::from(keys.tls_der().to_vec()).into())?;
    config.alpn_protocols = vec![ALPN_NODE.to_vec()];
    // Without resumption each connection shows the certificate that the node has now.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn self_signed(keys: &NodeKeys) -> Result<CertificateDer<'static>, TlsSetupError> {
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "ria node");
    Ok(params.self_signed(&keys.tls()?)?.der().clone())
}

#[derive(Debug)]
struct CoordinatorVerifier {
    trust: Trust,
    floor: u64,
    provider: Arc<CryptoProvider>,
}

impl CoordinatorVerifier {
    fn anchors(&self, chain: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
        let mut anchors = RootCertStore::empty();
        match &self.trust {
            Trust::Pin(pin) => {
                let pinned = chain.iter().find(|cert| spki_hash(cert) == Some(*pin));
                anchors.add(pinned.ok_or_else(other_authority)?.clone().into_owned())?;
            }
            Trust::Authorities(authorities) => {
                for authority in authorities {
                    anchors.add(CertificateDer::from(authority.0.clone()))?;
                }
            }
        }
        Ok(anchors)
    }

    /// The time to check at, see the module's text.
    fn time(&self, leaf: &CertificateDer<'_>, system: UnixTime) -> UnixTime {
        let known = system.as_secs().max(self.floor);
        let clock_is_wrong = system.as_secs() < self.floor.max(CLOCK_UNSET_BEFORE);
        let begin = not_before(leaf).filter(|_| clock_is_wrong).unwrap_or(0);
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(known.max(begin)))
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for CoordinatorVerifier {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enumeration, of which a few values matter")]
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = ServerName::try_from(COORDINATOR_TLS_NAME)
            .map_err(|_| rustls::Error::General("the coordinator's TLS name is no DNS name".into()))?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(self.anchors(chain)?), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(leaf, chain, &name, ocsp, self.time(leaf, now))
            .map_err(|error| match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => other_authority(),
                other => other,
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

fn other_authority() -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(OtherAuthority))).into()
}

fn spki_hash(cert: &CertificateDer<'_>) -> Option<SpkiHash> {
    let (_, parsed) = X509Certificate::from_der(cert).ok()?;
    Some(SpkiHash::of(parsed.tbs_certificate.subject_pki.raw))
}

fn not_before(cert: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(cert).ok()?;
    u64::try_from(parsed.validity().not_before.timestamp()).ok()
}

/// Begin and end of a certificate, seconds since 1970.
pub fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let validity = parsed.validity();
    let seconds = |t: x509_parser::time::ASN1Time| u64::try_from(t.timestamp()).ok();
    Some((seconds(validity.not_before)?, seconds(validity.not_after)?))
}

#[cfg(test)]
mod tests;
