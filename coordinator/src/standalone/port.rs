//! The TCP port of a stand-alone relay: TURN, over TLS or without it, and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::accept_gate::{AnonymousSlot, Gate};
use crate::relay::{StreamDoor, begins_turn};
use crate::tls::begun::Begun;
use crate::tls::turn;
use crate::tls::wide::Wide;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificate that the coordinator gave last.
#[derive(Debug, Default)]
pub(super) struct GivenCertificate(watch::Sender<Option<Arc<CertifiedKey>>>);

impl GivenCertificate {
    pub fn set(&self, certificate: CertifiedKey) {
        self.0.send_replace(Some(Arc::new(certificate)));
    }
}

impl ResolvesServerCert for GivenCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().clone()
    }
}

/// Serves clients until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    door: StreamDoor,
    stop: CancellationToken,
) {
    turn::accept_all(listener, Gate::default(), &stop, |stream, from, slot| {
        let (tls, door, stop) = (tls.clone(), door.clone(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = handle_connection(stream, from, slot, (tls, door, stop)).await {
                tracing::debug!(%error, "connection failed");
            }
        });
    })
    .await;
}

async fn handle_connection(
    stream: TcpStream,
    from: SocketAddr,
    slot: AnonymousSlot,
    (tls, door, stop): (Arc<ServerConfig>, StreamDoor, CancellationToken),
) -> io::Result<()> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    stream.set_nodelay(true)?;
    let mut first = [0];
    if timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await.map_err(late)?? == 1 && begins_turn(first[0])
    {
        return turn::serve(stream, from, slot, &door, &stop).await;
    }
    let met = timeout(HANDSHAKE_TIMEOUT, meet(stream, tls)).await.map_err(late)??;
    match met {
        (stream, None) => turn::serve(stream, from, slot, &door, &stop).await,
        (stream, Some(first)) if begins_turn(first) => {
            turn::serve(Begun::new(stream, first), from, slot, &door, &stop).await
        }
        (_, Some(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "no TURN")),
    }
}

/// A connection by TLS; of one that does not say what it speaks, with its first byte.
async fn meet(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
) -> io::Result<(TlsStream<Wide<TcpStream>>, Option<u8>)> {
    let mut stream = TlsAcceptor::from(tls).accept(Wide::new(stream)).await?;
    let first = match stream.get_ref().1.alpn_protocol() {
        Some(_) => None,
        None => Some(stream.read_u8().await?),
    };
    Ok((stream, first))
}
