//! The way to the coordinator: TLS 1.3 with a certificate that the relay signs itself, to a server of the pinned authority.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use ria_protocol::keys::SpkiHash;
use ria_protocol::{ALPN_NODE, COORDINATOR_TLS_NAME, MAX_COORDINATOR_MESSAGE, RELAY_PATH};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::PublicUrl;
use crate::relay;

/// Time for each step of a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that speaks messages.
pub(super) type Link = WebSocketStream<TlsStream<TcpStream>>;

/// The coordinator can't be reached at one of its URLs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Url(String),
    #[error("{url} can't be reached: {source}")]
    Unreachable { url: String, source: io::Error },
    #[error("the server at {0} is not the coordinator whose authority is known here; is the address right?")]
    Stranger(String),
    #[error("{url}: {source}")]
    Tls { url: String, source: io::Error },
    #[error("{url} does not serve relays ({reason}); is the coordinator of this version or newer?")]
    NoRelays { url: String, reason: String },
    #[error("TLS can't be set up: {0}")]
    Setup(String),
}

/// Whom a relay believes to be its coordinator.
pub(crate) struct Trust {
    /// Public keys of authorities, of which one has to vouch for it.
    pub pins: Vec<SpkiHash>,
    /// The coordinator's clock when it was heard of last: it is not earlier than that.
    pub floor: ria_protocol::time::UnixTime,
}

/// Connects to the coordinator at a URL, and makes sure that it is that.
pub(crate) async fn connect_tls(
    url: &str,
    key: &KeyPair,
    trust: Trust,
) -> Result<TlsStream<TcpStream>, LinkError> {
    let place = PublicUrl::parse(url).map_err(LinkError::Url)?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer");
    let unreachable = |source| LinkError::Unreachable { url: url.to_owned(), source };
    let tcp = timeout(PATIENCE, TcpStream::connect((place.host(), place.port()))).await;
    let tcp = tcp.map_err(late).flatten().map_err(unreachable)?;
    relay::tune(&tcp).map_err(unreachable)?;
    let connector = TlsConnector::from(Arc::new(config(key, trust)?));
    let name = ServerName::try_from(COORDINATOR_TLS_NAME).map_err(|e| LinkError::Setup(e.to_string()))?;
    let tls = timeout(PATIENCE, connector.connect(name, tcp)).await.map_err(late).flatten();
    tls.map_err(|source| {
        if is_stranger(&source) {
            LinkError::Stranger(url.to_owned())
        } else {
            LinkError::Tls { url: url.to_owned(), source }
        }
    })
}

/// Connects to the coordinator at a URL, as a relay.
pub(super) async fn connect(url: &str, key: &KeyPair, trust: Trust) -> Result<Link, LinkError> {
    let tls = connect_tls(url, key, trust).await?;
    let address = format!("wss://{COORDINATOR_TLS_NAME}{RELAY_PATH}");
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_COORDINATOR_MESSAGE))
        .max_frame_size(Some(MAX_COORDINATOR_MESSAGE));
    let opening = tokio_tungstenite::client_async_with_config(address, tls, Some(limits));
    let refused = |reason: String| LinkError::NoRelays { url: url.to_owned(), reason };
    let opened = timeout(PATIENCE, opening).await.map_err(|_| refused("no answer".to_owned()))?;
    opened.map(|(link, _)| link).map_err(|error| refused(error.to_string()))
}

fn is_stranger(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

fn config(key: &KeyPair, trust: Trust) -> Result<ClientConfig, LinkError> {
    let failed = |error: &dyn ToString| LinkError::Setup(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ria relay");
    let own = params.self_signed(key).map_err(|error| failed(&error))?.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { trust, algorithms }))
        .with_client_auth_cert(vec![own], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .map_err(|error| failed(&error))?;
    config.alpn_protocols = vec![ALPN_NODE.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The coordinator has a certificate in its fixed name, from a pinned authority; where it was dialled does not matter.
struct Pinned {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pinned({:?})", self.trust.pins)
    }
}

impl Pinned {
    fn anchors(&self, chain: &[CertificateDer<'_>]) -> Result<RootCertStore, rustls::Error> {
        let is_pinned = |der: &CertificateDer<'_>| {
            X509Certificate::from_der(der)
                .is_ok_and(|(_, parsed)| self.trust.pins.contains(&SpkiHash::of(parsed.public_key().raw)))
        };
        let mut anchors = RootCertStore::empty();
        for pinned in chain.iter().filter(|der| is_pinned(der)) {
            anchors.add(pinned.clone().into_owned())?;
        }
        if anchors.is_empty() { Err(CertificateError::UnknownIssuer.into()) } else { Ok(anchors) }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let general = |error: &dyn ToString| rustls::Error::General(error.to_string());
        let name = ServerName::try_from(COORDINATOR_TLS_NAME).map_err(|error| general(&error))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().max(self.trust.floor.0)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(self.anchors(chain)?), provider)
            .build()
            .map_err(|error| general(&error))?
            .verify_server_cert(leaf, chain, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The later of what the coordinator said last and nothing.
pub(super) fn floor_of(terms: Option<&ria_protocol::relay::RelayTerms>) -> ria_protocol::time::UnixTime {
    terms.map_or(ria_protocol::time::UnixTime::from(SystemTime::UNIX_EPOCH), |terms| terms.time)
}
