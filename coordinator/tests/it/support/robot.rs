//! A node, reduced to what the coordinator sees of it. It verifies its coordinator as a real one does: by the pinned
//! authority and the fixed name.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rcgen::{CertificateParams, KeyPair};
use ria_protocol::enrol::{Certificate, EXPORTER_LABEL, Enrol, Enrolled, Transcript, proof};
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::join_key::JoinKey;
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::map::{Live, PatchSet, Relay, Revision, Snapshot};
use ria_protocol::message::{CoordinatorMessage, Hello, NodeMessage, Resume, Welcome, from_bytes, to_bytes};
use ria_protocol::prefix::Prefix;
use ria_protocol::{ALPN_NODE, COORDINATOR_TLS_NAME, STREAM_PATH};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use x509_parser::prelude::{FromDer, X509Certificate};
use x25519_dalek::{PublicKey, StaticSecret};

use super::soon;

/// A robot's keys, and what it was given.
pub struct Robot {
    pub wg: StaticSecret,
    pub tls: KeyPair,
    pub name: &'static str,
    pub certificate: Option<Certificate>,
    pub network: NetworkId,
    pub node: NodeId,
    pub boot: BootId,
    pub pin: SpkiHash,
    /// Local networks that it offers to forward to.
    pub routes: Vec<Prefix>,
}

impl Robot {
    /// A robot that knows its coordinator from a join key.
    pub fn new(name: &'static str, key: &JoinKey) -> Self {
        Self {
            wg: StaticSecret::random(),
            tls: KeyPair::generate().unwrap(),
            name,
            certificate: None,
            network: NetworkId::from_bytes([0; 10]),
            node: NodeId::from_bytes([0; 10]),
            boot: BootId::from_bytes([7; 10]),
            pin: key.ca_pin,
            routes: Vec::new(),
        }
    }

    pub fn wg_key(&self) -> WgPublicKey {
        WgPublicKey(PublicKey::from(&self.wg).to_bytes())
    }

    pub fn csr(&self) -> Vec<u8> {
        CertificateParams::default().serialize_request(&self.tls).unwrap().der().to_vec()
    }

    /// A TLS connection with its certificate, or one that it signed itself.
    pub async fn tls(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let leaf = match &self.certificate {
            Some(certificate) => CertificateDer::from(certificate.leaf.clone()),
            None => CertificateParams::default().self_signed(&self.tls).unwrap().der().clone(),
        };
        let key = PrivateKeyDer::try_from(self.tls.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(self.pin)))
            .with_client_auth_cert(vec![leaf], key)
            .unwrap();
        config.alpn_protocols = vec![ALPN_NODE.to_vec()];
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(COORDINATOR_TLS_NAME).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// A WebSocket, and the coordinator's Welcome.
    pub async fn connect(&self, address: SocketAddr) -> Connection {
        let mut connection = self.connect_silently(address).await;
        connection.send(&NodeMessage::Hello(Hello::ours("test-1"))).await;
        match connection.next().await {
            CoordinatorMessage::Welcome(welcome) => connection.welcome = Some(welcome),
            other => panic!("expected Welcome, got {other:?}"),
        }
        connection
    }

    /// The same, with a coordinator that may end at any moment.
    pub async fn try_connect(&self, address: SocketAddr) -> Option<Connection> {
        let tls = soon(self.tls(address)).await.ok()?;
        let exporter = tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        let url = format!("wss://{COORDINATOR_TLS_NAME}{STREAM_PATH}");
        let (socket, _) = soon(tokio_tungstenite::client_async(url, tls)).await.ok()?;
        let mut connection = Connection { socket, exporter, welcome: None };
        connection.try_send(&NodeMessage::Hello(Hello::ours("test-1"))).await;
        match connection.next_or_end().await? {
            CoordinatorMessage::Welcome(welcome) => connection.welcome = Some(welcome),
            other => panic!("expected Welcome, got {other:?}"),
        }
        Some(connection)
    }

    /// A WebSocket, and not a word.
    pub async fn connect_silently(&self, address: SocketAddr) -> Connection {
        let tls = soon(self.tls(address)).await.unwrap();
        let exporter = tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        let url = format!("wss://{COORDINATOR_TLS_NAME}{STREAM_PATH}");
        let (socket, _) = soon(tokio_tungstenite::client_async(url, tls)).await.unwrap();
        Connection { socket, exporter, welcome: None }
    }

    /// A request to enrol over this connection, as it should be.
    pub fn enrol_request(&self, connection: &Connection, key: &JoinKey) -> Enrol {
        let challenge = connection.welcome.as_ref().unwrap().challenge;
        let shared = self.wg.diffie_hellman(&PublicKey::from(challenge.0));
        let (wg_key, csr) = (self.wg_key(), self.csr());
        let transcript =
            Transcript { exporter: &connection.exporter, challenge: &challenge, wg_key: &wg_key, csr: &csr };
        Enrol {
            key_id: key.key_id,
            secret: key.secret.clone(),
            name: self.name.parse().unwrap(),
            name_required: false,
            wg_key,
            proof: proof(shared.as_bytes(), &transcript),
            csr,
            boot: self.boot,
            only_known: None,
            requester: None,
        }
    }

    /// Enrols and keeps what it is given; the connection stays open.
    pub async fn enrol(&mut self, address: SocketAddr, key: &JoinKey) -> (Connection, Enrolled) {
        let mut connection = self.connect(address).await;
        let request = self.enrol_request(&connection, key);
        connection.send(&NodeMessage::Enrol(request)).await;
        let CoordinatorMessage::Enrolled(enrolled) = connection.next().await else { panic!("not enrolled") };
        self.certificate = Some(enrolled.certificate.clone());
        (self.network, self.node) = (enrolled.network, enrolled.node);
        (connection, enrolled)
    }

    pub fn resume(&self, revision: Option<u64>) -> NodeMessage {
        NodeMessage::Resume(Resume {
            network: self.network,
            node: self.node,
            revision: revision.map(Revision),
            boot: self.boot,
            clock: None,
            trusts: self.certificate.as_ref().map(pins),
            routes: Some(self.routes.clone()),
            holds: None,
        })
    }

    /// The same of an agent that knows on-demand networks, and holds these members.
    pub fn resume_holding(&self, holds: &[NodeId]) -> NodeMessage {
        let NodeMessage::Resume(resume) = self.resume(None) else { panic!("a resume is one") };
        NodeMessage::Resume(Resume { holds: Some(holds.to_vec()), ..resume })
    }

    /// Enrols and begins a session.
    pub async fn join(&mut self, address: SocketAddr, key: &JoinKey) -> (Connection, Start) {
        let (mut connection, _) = self.enrol(address, key).await;
        connection.send(&self.resume(None)).await;
        let start = connection.start().await;
        (connection, start)
    }

    /// Begins a session as the member that it is.
    pub async fn come_back(&self, address: SocketAddr, revision: Option<u64>) -> (Connection, Start) {
        let mut connection = self.connect(address).await;
        connection.send(&self.resume(revision)).await;
        let start = connection.start().await;
        (connection, start)
    }

    /// What it is refused with when it tries to begin a session.
    pub async fn refused_to_come_back(&self, address: SocketAddr) -> ErrorCode {
        let mut connection = self.connect(address).await;
        connection.send(&self.resume(None)).await;
        connection.refusal().await.code
    }
}

/// Public keys of the authorities that came with a certificate.
pub fn pins(certificate: &Certificate) -> Vec<SpkiHash> {
    let pin = |der: &[u8]| SpkiHash::of(X509Certificate::from_der(der).unwrap().1.public_key().raw);
    certificate.authorities.iter().map(|authority| pin(&authority.0)).collect()
}

/// How a session starts.
#[derive(Debug)]
pub struct Start {
    pub map: Map,
    pub relays: Vec<Relay>,
    pub live: Vec<Live>,
}

/// The durable state, whole or as changes.
#[derive(Debug)]
pub enum Map {
    Snapshot(Snapshot),
    Patches(PatchSet),
}

impl Map {
    pub fn snapshot(self) -> Snapshot {
        match self {
            Self::Snapshot(snapshot) => snapshot,
            Self::Patches(set) => panic!("expected a snapshot, got {set:?}"),
        }
    }

    pub fn patches(self) -> PatchSet {
        match self {
            Self::Patches(set) => set,
            Self::Snapshot(snapshot) => panic!("expected patches, got {snapshot:?}"),
        }
    }
}

/// A robot's connection.
pub struct Connection {
    pub socket: WebSocketStream<TlsStream<TcpStream>>,
    pub exporter: [u8; 32],
    pub welcome: Option<Welcome>,
}

impl Connection {
    pub async fn send(&mut self, message: &NodeMessage) {
        self.send_bytes(to_bytes(message)).await;
    }

    /// Sends what may not arrive any more.
    pub async fn try_send(&mut self, message: &NodeMessage) {
        let _ = soon(self.socket.send(Message::Binary(Bytes::from(to_bytes(message))))).await;
    }

    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        soon(self.socket.send(Message::Binary(Bytes::from(bytes)))).await.unwrap();
    }

    /// The next message, or `None` when the coordinator closed the connection.
    pub async fn next_or_end(&mut self) -> Option<CoordinatorMessage> {
        loop {
            match soon(self.socket.next()).await?.ok()? {
                Message::Binary(bytes) => return Some(from_bytes(&bytes).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    pub async fn next(&mut self) -> CoordinatorMessage {
        self.next_or_end().await.expect("the coordinator closed the connection")
    }

    /// The next message that `wanted` takes something from; others are passed over.
    pub async fn next_of<T>(&mut self, wanted: impl Fn(CoordinatorMessage) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    /// The refusal that has to come now, and the end of the connection after it.
    pub async fn refusal(&mut self) -> Refusal {
        let refusal = self
            .next_of(|m| match m {
                CoordinatorMessage::Refused(refusal) => Some(refusal),
                _ => None,
            })
            .await;
        assert!(self.next_or_end().await.is_none(), "the connection stays open after a refusal");
        refusal
    }

    pub async fn start(&mut self) -> Start {
        let map = match self.next().await {
            CoordinatorMessage::Snapshot(snapshot) => Map::Snapshot(snapshot),
            CoordinatorMessage::Patches(set) => Map::Patches(set),
            other => panic!("expected the map, got {other:?}"),
        };
        let CoordinatorMessage::Relays(relays) = self.next().await else { panic!("expected relays") };
        let CoordinatorMessage::Live(live) = self.next().await else { panic!("expected news") };
        assert!(live.whole);
        Start { map, relays, live: live.members }
    }

    /// The next durable changes.
    pub async fn patches(&mut self) -> PatchSet {
        self.next_of(|m| match m {
            CoordinatorMessage::Patches(set) => Some(set),
            _ => None,
        })
        .await
    }

    /// The next news of a member that are as wanted.
    pub async fn news(&mut self, node: NodeId, wanted: impl Fn(&Live) -> bool) -> Live {
        self.next_of(|m| match m {
            CoordinatorMessage::Live(update) => {
                assert!(!update.whole);
                update.members.into_iter().find(|live| live.node == node && wanted(live))
            }
            _ => None,
        })
        .await
    }
}

/// Takes a server whose chain holds the pinned authority and a certificate of it for the fixed name.
#[derive(Debug)]
struct Pinned(SpkiHash);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned = |der: &&CertificateDer<'_>| {
            X509Certificate::from_der(der).is_ok_and(|(_, c)| SpkiHash::of(c.public_key().raw) == self.0)
        };
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(is_pinned).ok_or(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("the coordinator speaks TLS 1.3 with nodes")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
