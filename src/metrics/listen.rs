//! Serves the figures to Prometheus by HTTP, where agent.toml says so.
//!
//! Whoever reaches the port reads names, addresses and traffic of peers, so without a word to the contrary only programs of
//! this machine do.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ria_service::exposition;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{View, text};
use crate::daemon::handle::DaemonHandle;

/// Where they are served.
pub const PATH: &str = "/metrics";

/// Connections at a time, and how long one may take.
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause after an error of the listening socket, such as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// `[metrics]` in agent.toml.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where Prometheus asks; nowhere without it.
    pub listen: Option<SocketAddr>,
    /// Whether other machines may.
    pub allow_remote: bool,
}

impl MetricsConfig {
    /// The same, unless it says what it can't mean.
    pub fn checked(self) -> Result<Self, String> {
        match self.listen {
            Some(address) if !address.ip().to_canonical().is_loopback() && !self.allow_remote => {
                Err(format!(
                    "listen = \"{address}\" lets other machines read names, addresses and traffic of peers; take \"127.0.0.1:9586\", or \
                 set allow_remote = true if they are to"
                ))
            }
            Some(_) | None => Ok(self),
        }
    }
}

/// Serves from now on, until the agent ends. Must be called within its runtime.
pub fn start(address: SocketAddr, agent: DaemonHandle) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(serve(listener, agent));
    Ok(())
}

async fn serve(listener: TcpListener, agent: DaemonHandle) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Who comes when all are taken waits in the kernel's queue.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let agent = agent.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, agent)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "nobody can ask for metrics now");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, agent: DaemonHandle) {
    let service = service_fn(|request| respond(request, agent.clone()));
    let mut http = hyper::server::conn::http1::Builder::new();
    let served = http.keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "whoever asked for metrics did not get them");
    }
}

async fn respond<B>(request: Request<B>, agent: DaemonHandle) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != PATH {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() = Full::from(format!("metrics are at {PATH}\n"));
    } else if request.method() != Method::GET && request.method() != Method::HEAD {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    } else if let Ok(state) = agent.state().await {
        let peers = |view: &crate::daemon::handle::NetworkView| -> View {
            (view.status.clone(), view.peers.iter().map(|(_, peer)| peer.clone()).collect())
        };
        let networks: Vec<View> = state.networks.values().map(peers).collect();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT));
        *response.body_mut() = Full::from(text(&state.agent, &networks));
    } else {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_read_nothing_unless_they_are_to() {
        let parse = |text: &str| toml::from_str::<MetricsConfig>(text).unwrap().checked();
        assert!(parse("listen = '127.0.0.1:9586'").is_ok() && parse("listen = '[::1]:9586'").is_ok());
        for address in ["0.0.0.0:9586", "[::]:9586", "192.0.2.1:9586", "10.213.0.4:9586"] {
            let refused = parse(&format!("listen = '{address}'")).unwrap_err();
            assert!(refused.contains("allow_remote") && refused.contains(address), "{refused}");
            assert!(parse(&format!("listen = '{address}'\nallow_remote = true")).is_ok());
        }
        assert!(toml::from_str::<MetricsConfig>("listen = '9586'").is_err());
    }
}
