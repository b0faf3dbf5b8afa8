//! Who is trusted: the coordinator proves itself by a certificate of its own authority, never by host name.
//!
//! While joining, the authority is the one whose public key hashes to the pin in the join key; afterwards it is one of
//! those that came with the node's certificate. An authority may vouch for the one that takes over from it.
//!
//! Time is judged apart, in [`freshness`](super::freshness): the handshake finds out who it is, whenever that may be.

use std::sync::Arc;

use ria_protocol::enrol::Authority;
use ria_protocol::keys::SpkiHash;
use ria_protocol::map::RelayTls;
use ria_protocol::{ALPN_NODE, ALPN_TURN, COORDINATOR_TLS_NAME};
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

/// How to connect, and whom to believe.
#[derive(Debug, Clone)]
pub struct CoordinatorTls {
    /// For rustls.
    pub config: Arc<ClientConfig>,
    /// Which authority is believed.
    pub trust: Trust,
    /// The coordinator's clock at the last contact.
    pub floor: ria_protocol::time::UnixTime,
}

/// TLS 1.3 with ALPN `ria/1`; `leaf` is the node's issued certificate, absent before enrolment (then one that the node
/// signs itself shows possession of its key). No time before `floor` is believed.
pub fn client_config(
    trust: Trust,
    floor: ria_protocol::time::UnixTime,
    keys: &NodeKeys,
    leaf: Option<&[u8]>,
) -> Result<CoordinatorTls, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let leaf = match leaf {
        Some(leaf) => CertificateDer::from(leaf.to_vec()),
        None => self_signed(keys)?,
    };
    let name = COORDINATOR_TLS_NAME.to_owned();
    let verifier = CoordinatorVerifier { trust: trust.clone(), name, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![leaf], PrivatePkcs8KeyDer::from(keys.tls_der().to_vec()).into())?;
    config.alpn_protocols = vec![ALPN_NODE.to_vec()];
    // Without resumption each connection shows the certificate that the node has now.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(CoordinatorTls { config: Arc::new(config), trust, floor })
}

/// For TURN over TLS. Of a relay of Ria's, its certificate is of the coordinator's authority: in the coordinator's name for
/// the one within it, else in its own. Of another server, as the coordinator says. The node itself shows none: its
/// credentials for the relay say who it is.
pub fn turn_config(
    authorities: Vec<Authority>,
    shown: Option<RelayTls>,
) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (name, foreign) =
        shown.map_or((COORDINATOR_TLS_NAME.to_owned(), None), |tls| (tls.name, tls.authorities));
    // Who runs a server that is not Ria's may have an older library.
    let versions: &[_] = if foreign.is_some() { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS13] };
    let trust = Trust::Authorities(foreign.unwrap_or(authorities));
    let verifier = CoordinatorVerifier { trust, name, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_TURN.to_vec()];
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
    /// The name that the certificate has to be for, whatever was dialled.
    name: String,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Whether a server's own certificate is one of those that are believed: one that it has signed itself needs no other,
    /// and may say that it is an authority's.
    fn names(&self, leaf: &CertificateDer<'_>) -> bool {
        match self {
            Self::Pin(_) => false,
            Self::Authorities(authorities) => {
                authorities.iter().any(|authority| authority.0 == leaf.as_ref())
            }
        }
    }

    /// The certificates that are believed, with what the server shows.
    pub(super) fn anchors<'c>(&self, chain: &[CertificateDer<'c>]) -> Vec<CertificateDer<'c>> {
        match self {
            Self::Pin(pin) => chain.iter().filter(|cert| spki_hash(cert) == Some(*pin)).cloned().collect(),
            Self::Authorities(authorities) => {
                authorities.iter().map(|authority| CertificateDer::from(authority.0.clone())).collect()
            }
        }
    }
}

impl CoordinatorVerifier {
    fn anchors(&self, chain: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
        let mut anchors = RootCertStore::empty();
        for anchor in self.trust.anchors(chain) {
            anchors.add(anchor.into_owned())?;
        }
        if anchors.is_empty() { Err(other_authority()) } else { Ok(anchors) }
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
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = ServerName::try_from(self.name.as_str()).map_err(|_| {
            rustls::Error::General(format!("{:?} is neither a DNS name nor an address", self.name))
        })?;
        if self.trust.names(leaf) {
            let leaf = rustls::server::ParsedCertificate::try_from(leaf)?;
            rustls::client::verify_server_name(&leaf, &name)?;
            return Ok(ServerCertVerified::assertion());
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(self.anchors(chain)?), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(leaf, chain, &name, ocsp, some_good_time(leaf))
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

/// Public keys of authorities, by hash; one that can't be read is left out.
pub fn pins(authorities: &[Authority]) -> Vec<SpkiHash> {
    let der = |authority: &Authority| CertificateDer::from(authority.0.clone());
    authorities.iter().filter_map(|authority| spki_hash(&der(authority))).collect()
}

fn spki_hash(cert: &CertificateDer<'_>) -> Option<SpkiHash> {
    let (_, parsed) = X509Certificate::from_der(cert).ok()?;
    Some(SpkiHash::of(parsed.tbs_certificate.subject_pki.raw))
}

/// A time at which the certificate is valid; whether that is now, is judged elsewhere.
fn some_good_time(leaf: &CertificateDer<'_>) -> UnixTime {
    let begin = validity(leaf).map_or(0, |(begin, _)| begin);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(begin))
}

/// Begin and end of a certificate, seconds since 1970.
pub fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let validity = parsed.validity();
    // What is before 1970 counts as 1970.
    let seconds = |t: x509_parser::time::ASN1Time| u64::try_from(t.timestamp()).unwrap_or(0);
    Some((seconds(validity.not_before), seconds(validity.not_after)))
}

#[cfg(test)]
mod tests;
