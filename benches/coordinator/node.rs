//! A node, reduced to what costs the coordinator something: TLS 1.3 with a certificate of its own, the WebSocket, enrolment,
//! the session. It has no tunnel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use rcgen::{CertificateParams, KeyPair};
use ria_protocol::enrol::{Certificate, EXPORTER_LABEL, Enrol, Transcript, proof};
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::join_key::JoinKey;
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::map::{Candidate, CandidateKind, Revision};
use ria_protocol::message::{CoordinatorMessage, Hello, NodeMessage, Resume, Welcome, from_bytes, to_bytes};
use ria_protocol::{ALPN_NODE, COORDINATOR_TLS_NAME, STREAM_PATH};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use x509_parser::prelude::{FromDer, X509Certificate};
use x25519_dalek::{PublicKey, StaticSecret};

/// Longer than a coordinator with much to do takes for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes that share a source address, as behind one NAT.
const PER_ADDRESS: usize = 100;

/// A node between its connections.
pub struct Node {
    number: usize,
    tls_key: KeyPair,
    wg: StaticSecret,
    boot: BootId,
    pin: SpkiHash,
    /// What it was given when it joined.
    member: Option<Membership>,
    /// The map that it has.
    pub revision: Option<Revision>,
}

struct Membership {
    network: NetworkId,
    node: NodeId,
    certificate: Certificate,
}

impl Node {
    /// A node with fresh keys, which will be called `node-NUMBER`.
    pub fn new(number: usize, key: &JoinKey) -> Result<Self> {
        Ok(Self {
            number,
            tls_key: KeyPair::generate()?,
            wg: StaticSecret::random(),
            boot: BootId::from_bytes([7; BootId::LEN]),
            pin: key.ca_pin,
            member: None,
            revision: None,
        })
    }

    /// Becomes a member and begins a session on the same connection, as agents do.
    pub async fn join(&mut self, coordinator: SocketAddr, key: &JoinKey) -> Result<Link> {
        let (mut link, welcome) = self.connect(coordinator).await?;
        link.send(&NodeMessage::Enrol(self.enrolment(&link, welcome, key)?)).await?;
        let CoordinatorMessage::Enrolled(enrolled) = link.next().await? else { bail!("not enrolled") };
        let (network, node, certificate) = (enrolled.network, enrolled.node, enrolled.certificate);
        self.member = Some(Membership { network, node, certificate });
        self.resume(&mut link).await?;
        Ok(link)
    }

    /// Begins a session as the member that it is.
    pub async fn come_back(&mut self, coordinator: SocketAddr) -> Result<Link> {
        let (mut link, _) = self.connect(coordinator).await?;
        self.resume(&mut link).await?;
        Ok(link)
    }

    /// The session begins: the map, relays and all that is known of the others come; then this node says where it is.
    async fn resume(&mut self, link: &mut Link) -> Result<()> {
        let member = self.member.as_ref().context("not a member yet")?;
        let (network, node) = (member.network, member.node);
        let trusts = Some(member.certificate.authorities.iter().filter_map(|ca| pin_of(&ca.0)).collect());
        let resume = Resume {
            network,
            node,
            revision: self.revision,
            boot: self.boot,
            clock: None,
            trusts,
            routes: None,
            holds: Some(Vec::new()),
        };
        link.send(&NodeMessage::Resume(resume)).await?;
        loop {
            let message = link.next().await?;
            if let CoordinatorMessage::Snapshot(snapshot) = &message {
                self.revision = Some(snapshot.revision);
            } else if let CoordinatorMessage::Patches(set) = &message {
                self.revision = Some(set.to);
            } else if let CoordinatorMessage::Refused(refusal) = &message {
                bail!("refused: {}", refusal.text);
            } else if matches!(&message, CoordinatorMessage::Live(live) if live.whole) {
                break;
            }
        }
        if let Some(revision) = self.revision {
            link.send(&NodeMessage::Ack(revision)).await?;
        }
        link.send(&self.report(0)).await
    }

    /// Where the node may be reached after so many moves.
    pub fn report(&self, moves: usize) -> NodeMessage {
        let [_, _, high, low] = u32::try_from(self.number).unwrap_or(u32::MAX).to_be_bytes();
        let [.., subnet] = moves.to_be_bytes();
        let at = |kind, a, b: u8, port| {
            let address = SocketAddr::new(Ipv4Addr::new(a, b.wrapping_add(subnet), high, low).into(), port);
            Candidate { kind, address }
        };
        NodeMessage::Report(vec![
            at(CandidateKind::Host, 10, 0, 51820),
            at(CandidateKind::ServerReflexive, 198, 18, 40000),
        ])
    }

    async fn connect(&self, coordinator: SocketAddr) -> Result<(Link, Welcome)> {
        let mut link = timeout(PATIENCE, self.dial(coordinator)).await.context("no connection in time")??;
        link.send(&NodeMessage::Hello(Hello::ours("bench"))).await?;
        let answer = link.next().await?;
        if let CoordinatorMessage::Refused(refusal) = &answer {
            bail!("refused: {}", refusal.text);
        }
        let CoordinatorMessage::Welcome(welcome) = answer else { bail!("expected Welcome, got {answer:?}") };
        Ok((link, welcome))
    }

    async fn dial(&self, coordinator: SocketAddr) -> Result<Link> {
        let socket = TcpSocket::new_v4()?;
        let [.., high, low] = (self.number / PER_ADDRESS).to_be_bytes();
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 1, high, low.wrapping_add(1))), 0))?;
        let stream = socket.connect(coordinator).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(self.tls_config()?));
        let tls = connector.connect(ServerName::try_from(COORDINATOR_TLS_NAME)?, stream).await?;
        let exporter = tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None)?;
        let url = format!("wss://{COORDINATOR_TLS_NAME}{STREAM_PATH}");
        // Small buffers, for there are thousands of these.
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let (socket, _) = tokio_tungstenite::client_async_with_config(url, tls, Some(config)).await?;
        Ok(Link { socket, exporter })
    }

    fn tls_config(&self) -> Result<ClientConfig> {
        let leaf = match &self.member {
            Some(member) => CertificateDer::from(member.certificate.leaf.clone()),
            None => CertificateParams::default().self_signed(&self.tls_key)?.der().clone(),
        };
        let key = PrivateKeyDer::try_from(self.tls_key.serialize_der()).map_err(|error| anyhow!(error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(self.pin)))
            .with_client_auth_cert(vec![leaf], key)?;
        config.alpn_protocols = vec![ALPN_NODE.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    fn enrolment(&self, link: &Link, welcome: Welcome, key: &JoinKey) -> Result<Enrol> {
        let shared = self.wg.diffie_hellman(&PublicKey::from(welcome.challenge.0));
        let wg_key = WgPublicKey(PublicKey::from(&self.wg).to_bytes());
        let csr = CertificateParams::default().serialize_request(&self.tls_key)?.der().to_vec();
        let challenge = &welcome.challenge;
        let transcript = Transcript { exporter: &link.exporter, challenge, wg_key: &wg_key, csr: &csr };
        Ok(Enrol {
            key_id: key.key_id,
            secret: key.secret.clone(),
            name: format!("node-{}", self.number).parse()?,
            name_required: false,
            wg_key,
            proof: proof(shared.as_bytes(), &transcript),
            csr,
            boot: self.boot,
            only_known: None,
            requester: None,
        })
    }
}

/// A node's connection.
pub struct Link {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    exporter: [u8; 32],
}

impl Link {
    /// Sends a message.
    pub async fn send(&mut self, message: &NodeMessage) -> Result<()> {
        Ok(self.socket.send(Message::Binary(to_bytes(message).into())).await?)
    }

    /// The next message, which has to come soon.
    async fn next(&mut self) -> Result<CoordinatorMessage> {
        timeout(PATIENCE, self.next_ever()).await.context("no answer in time")?
    }

    /// The next message, whenever it comes; pings are answered meanwhile.
    pub async fn next_ever(&mut self) -> Result<CoordinatorMessage> {
        loop {
            let message = self.socket.next().await.context("the connection has ended")??;
            if let Message::Binary(bytes) = message {
                return Ok(from_bytes(&bytes)?);
            }
            if message.is_close() {
                bail!("the coordinator has closed the connection");
            }
        }
    }
}

fn pin_of(certificate: &[u8]) -> Option<SpkiHash> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(SpkiHash::of(parsed.public_key().raw))
}

/// Takes a server whose chain holds the pinned authority. Real agents verify the chain as well; here that would cost the
/// machine what the coordinator should have.
#[derive(Debug)]
struct Pinned(SpkiHash);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if intermediates.iter().any(|certificate| pin_of(certificate) == Some(self.0)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("nodes speak TLS 1.3".to_owned()))
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
