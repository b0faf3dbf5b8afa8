//! The one TCP port: the ClientHello's ALPN chooses who is served, and where there is none, the first bytes.
//!
//! ```text
//! ria/1          TLS 1.3, own authority, client certificate mandatory  -> node stream (WebSocket)
//! stun.turn      own authority, no client certificate                  -> relay
//! h2, http/1.1   operator's certificate or own, none of the client     -> pages, REST
//! acme-tls/1     the proof that an ACME server has asked for                    -> nothing more
//! no ALPN        the same                                              -> relay when STUN comes, else pages
//! no TLS                                                               -> relay when STUN comes, else nothing
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ria_protocol::enrol::EXPORTER_LABEL;
use ria_protocol::{ALPN_NODE, ALPN_TURN, COORDINATOR_TLS_NAME};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{Acceptor, NoServerSessionStorage, ResolvesServerCert};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::begun::{Begun, TurnStream};
use super::leaf::{Leaf, LeafError};
use super::operator::Operator;
use super::shown::fingerprint;
use super::succession::Authorities;
use super::turn;
use super::verifier::{NodeVerifier, identify};
use super::wide::Wide;
use crate::accept_gate::{AnonymousSlot, Gate};
use crate::acme::challenge::{ALPN_ACME, Challenges};
use crate::admission::{Admission, Line};
use crate::config::PageCertificate;
use crate::relay;
use crate::rest::caller::ClientAddress;
use crate::session::{Peer, Services};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const H2: &[u8] = b"h2";
/// Requests at a time on one connection.
const STREAMS: u32 = 64;
/// A connection that does not answer is ended.
const HTTP2_PING: Duration = Duration::from_secs(60);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS configurations of the port.
#[derive(Debug, Clone)]
pub struct Tls {
    node: Arc<ServerConfig>,
    turn: Arc<ServerConfig>,
    pages: Arc<ServerConfig>,
    /// Where a certificate is had by ACME.
    proof: Option<Arc<ServerConfig>>,
    leaves: [Arc<Leaf>; 2],
    operator: Option<Arc<Operator>>,
}

/// Whose certificate the pages show.
#[derive(Debug)]
pub enum PageSource {
    /// The own authority's.
    Own,
    /// The operator's.
    Given(Operator),
    /// One that is to come into these files, when what is shown meanwhile has proven the names.
    Acme(PageCertificate, Challenges),
}

impl Tls {
    /// `page_names`: host names and addresses under which people reach the pages.
    pub fn new(
        authorities: &Authorities,
        page_names: Vec<String>,
        source: PageSource,
    ) -> Result<Self, LeafError> {
        let node_leaf = Arc::new(Leaf::new(authorities.clone(), vec![COORDINATOR_TLS_NAME.to_owned()])?);
        let page_leaf = Arc::new(Leaf::new(authorities.clone(), page_names)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (operator, proof) = match source {
            PageSource::Own => (None, None),
            PageSource::Given(operator) => (Some(operator), None),
            PageSource::Acme(files, challenges) => (
                Some(Operator::awaited(files, page_leaf.clone())),
                Some(prover(provider.clone(), challenges)?),
            ),
        };
        let operator = operator.map(Arc::new);
        let mut node = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(NodeVerifier::new(authorities.clone())))
            .with_cert_resolver(node_leaf.clone() as Arc<dyn ResolvesServerCert>);
        node.alpn_protocols = vec![ALPN_NODE.to_vec()];
        // Every connection proves its key anew.
        node.session_storage = Arc::new(NoServerSessionStorage {});
        node.send_tls13_tickets = 0;
        let turn = turn::config(node_leaf.clone())?;
        let mut pages = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(match &operator {
                Some(operator) => operator.clone() as Arc<dyn ResolvesServerCert>,
                None => page_leaf.clone(),
            });
        pages.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
        let [node, turn, pages] = [node, turn, pages].map(Arc::new);
        Ok(Self { node, turn, pages, proof, leaves: [node_leaf, page_leaf], operator })
    }

    /// The certificate of the pages that is in files.
    pub fn operator(&self) -> Option<Arc<Operator>> {
        self.operator.clone()
    }

    /// What a browser shows of a certificate that it has no reason to trust; absent where the operator gave one.
    pub fn page_fingerprint(&self) -> Option<String> {
        let [_, pages] = &self.leaves;
        self.operator.is_none().then(|| pages.certificate().map(|leaf| fingerprint(&leaf)))?
    }

    /// Renews the server's certificates when it is time.
    pub fn renew_if_due(&self) {
        if let Some(operator) = &self.operator {
            operator.renew_if_changed();
            operator.warn_when_it_ends(SystemTime::now().into(), Instant::now());
        }
        for leaf in &self.leaves {
            if let Err(error) = leaf.renew_if_due(SystemTime::now()) {
                tracing::error!(%error, "a server certificate is not renewed; tried again");
            }
        }
    }
}

fn prover(provider: Arc<CryptoProvider>, challenges: Challenges) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut proof = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(challenges));
    proof.alpn_protocols = vec![ALPN_ACME.to_vec()];
    Ok(Arc::new(proof))
}

/// What a connection is handed to.
#[derive(Debug, Clone)]
struct Port {
    tls: Tls,
    node: Router,
    pages: Router,
    services: Arc<Services>,
}

/// Accepts connections until the coordinator drains.
pub async fn serve(
    listener: TcpListener,
    tls: Tls,
    (node, pages): (Router, Router),
    services: Arc<Services>,
) {
    let port = Port { tls, node, pages, services: services.clone() };
    let gate = Gate::new(services.counters.refused.clone());
    turn::accept_all(listener, gate, &services.draining, |stream, from, slot| {
        services.tasks.spawn(handle_connection(stream, from, slot, port.clone()));
    })
    .await;
}

/// A connection, and what its first words say of whom it is for.
enum Caller {
    Node(TlsStream<Wide<TcpStream>>),
    Relay(TlsStream<Wide<TcpStream>>),
    /// TURN without TLS.
    BareRelay(TcpStream),
    Pages(TlsStream<Wide<TcpStream>>),
    /// No ALPN, and this was the first byte inside.
    Unnamed(TlsStream<Wide<TcpStream>>, u8),
    /// An ACME server, which has seen what it wanted.
    Prover(TlsStream<Wide<TcpStream>>),
}

async fn handle_connection(stream: TcpStream, from: SocketAddr, slot: AnonymousSlot, port: Port) {
    let draining = port.services.draining.clone();
    let relays = port.services.relays.door().is_some();
    let met = timeout(HANDSHAKE_TIMEOUT, meet(stream, &port.tls, relays, &port.services.admission));
    let met = tokio::select! {
        met = met => met.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        () = draining.cancelled() => return,
    };
    let served = match met {
        Ok(Caller::Node(stream)) => serve_node(stream, from, slot, port).await,
        Ok(Caller::Pages(stream)) => serve_pages(stream, from, slot, port).await,
        Ok(Caller::Relay(stream)) => serve_turn(stream, from, slot, &port).await,
        Ok(Caller::Prover(mut stream)) => stream.shutdown().await,
        Ok(Caller::BareRelay(stream)) => serve_turn(stream, from, slot, &port).await,
        Ok(Caller::Unnamed(stream, first)) if relay::begins_turn(first) => {
            serve_turn(Begun::new(stream, first), from, slot, &port).await
        }
        Ok(Caller::Unnamed(stream, first)) => {
            serve_http(Begun::new(stream, first), from_here(port.pages, from), &draining, slot).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection failed");
    }
}

/// Finds out for whom a connection is. `relays` says whether there is a relay here.
async fn meet(stream: TcpStream, tls: &Tls, relays: bool, admission: &Admission) -> io::Result<Caller> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && relays && relay::begins_turn(first[0]) {
        return Ok(Caller::BareRelay(stream));
    }
    let start = LazyConfigAcceptor::new(Acceptor::default(), Wide::new(stream)).await?;
    let names = start.client_hello().alpn();
    let named = names.is_some();
    let offered: Vec<&[u8]> = names.into_iter().flatten().collect();
    if offered.contains(&ALPN_NODE) {
        return Ok(Caller::Node(in_turn(&admission.nodes, start.into_stream(tls.node.clone())).await?));
    }
    if offered.contains(&ALPN_TURN) && relays {
        return Ok(Caller::Relay(in_turn(&admission.others, start.into_stream(tls.turn.clone())).await?));
    }
    if let Some(proof) = tls.proof.as_ref().filter(|_| offered.contains(&ALPN_ACME)) {
        return Ok(Caller::Prover(in_turn(&admission.others, start.into_stream(proof.clone())).await?));
    }
    let mut stream = in_turn(&admission.others, start.into_stream(tls.pages.clone())).await?;
    if named || !relays {
        return Ok(Caller::Pages(stream));
    }
    let first = stream.read_u8().await?;
    Ok(Caller::Unnamed(stream, first))
}

/// A handshake, for which there is a turn once it is known who calls. Who gets none comes again by itself.
async fn in_turn<T>(line: &Line, handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let crowded = || io::Error::other("too many handshakes wait");
    line.shake(handshake).await.ok_or_else(crowded)?
}

/// Hands a client to the relay.
async fn serve_turn<S: TurnStream>(
    stream: S,
    from: SocketAddr,
    slot: AnonymousSlot,
    port: &Port,
) -> io::Result<()> {
    let Some(door) = port.services.relays.door() else { return Ok(()) };
    turn::serve(stream, from, slot, door, &port.services.draining).await
}

async fn serve_node(
    stream: TlsStream<Wide<TcpStream>>,
    from: SocketAddr,
    slot: AnonymousSlot,
    port: Port,
) -> io::Result<()> {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or_else(|| io::Error::other("no client certificate"))?;
    let identity = identify(certificate, &port.services.authorities.current()).map_err(io::Error::other)?;
    let exporter =
        connection.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(io::Error::other)?;
    let peer = Peer { identity, exporter, address: from, slot: Arc::new(slot) };
    let draining = port.services.draining.clone();
    let router = port.node.layer(axum::Extension(peer));
    serve_http(stream, router, &draining, ()).await
}

/// Has handlers know from where a connection comes.
fn from_here(router: Router, from: SocketAddr) -> Router {
    router.layer(axum::Extension(ClientAddress(from.ip().to_canonical())))
}

async fn serve_pages(
    stream: TlsStream<Wide<TcpStream>>,
    from: SocketAddr,
    slot: AnonymousSlot,
    port: Port,
) -> io::Result<()> {
    let router = from_here(port.pages, from);
    let draining = port.services.draining.clone();
    if stream.get_ref().1.alpn_protocol() != Some(H2) {
        return serve_http(stream, router, &draining, slot).await;
    }
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HEADER_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    drop(slot);
    served.map_err(io::Error::other)
}

/// Serves HTTP on one connection; an upgraded one goes on by itself.
async fn serve_http<Kept>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    draining: &tokio_util::sync::CancellationToken,
    _kept: Kept,
) -> io::Result<()> {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(16 * 1024);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    served.map_err(io::Error::other)
}

/// The names in the certificate of the pages: those of the public URLs, and this machine's own.
pub fn page_names(hosts: impl Iterator<Item = String>) -> Vec<String> {
    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut names: Vec<String> =
        hosts.map(|host| host.trim_matches(['[', ']']).to_owned()).chain(own).collect();
    names.retain(|name| name.parse::<IpAddr>().is_ok() || name.is_ascii());
    names.dedup();
    names
}
