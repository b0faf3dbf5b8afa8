//! What a relay has to do with the TCP port, in the coordinator or by itself: connections are let in, and those that speak
//! TURN are handed over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::ALPN_TURN;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::begun::TurnStream;
use crate::accept_gate::{AnonymousSlot, Gate};
use crate::relay::{self, Ends, StreamDoor};

/// After accept failed for want of file descriptors, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// TLS for clients of a relay, who show no certificate.
pub fn config(certificate: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN_TURN.to_vec()];
    Ok(config)
}

/// Accepts connections until `stop`, as many as the gate lets in.
pub async fn accept_all(
    listener: TcpListener,
    mut gate: Gate,
    stop: &CancellationToken,
    handle: impl Fn(TcpStream, SocketAddr, AnonymousSlot),
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, from)) => {
                if let Some(slot) = gate.enter(from.ip()) {
                    handle(stream, from, slot);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands a client to the relay.
pub async fn serve<S: TurnStream>(
    mut stream: S,
    from: SocketAddr,
    slot: AnonymousSlot,
    door: &StreamDoor,
    stop: &CancellationToken,
) -> io::Result<()> {
    relay::tune(stream.tcp())?;
    stream.widen();
    let local = stream.tcp().local_addr()?.ip().to_canonical();
    let remote = SocketAddr::new(from.ip().to_canonical(), from.port());
    let one_by_one = S::IS_UNNAMED;
    tokio::select! {
        served = door.serve(stream, Ends { local, remote, one_by_one }, Some(slot)) => served,
        () = stop.cancelled() => Ok(()),
    }
}
