//! From a URL to an open WebSocket: a connection ([`reach`](super::reach)), TLS, upgrade, each with its own error and its
//! own advice.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::enrol::EXPORTER_LABEL;
use ria_protocol::{ALPN_NODE, COORDINATOR_TLS_NAME, MAX_COORDINATOR_MESSAGE, STREAM_PATH};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::race::staggered;
use super::reach::{Connected, Reach, ReachError, authority};
use super::tls::OtherAuthority;

/// The port of `https://` without one.
const DEFAULT_PORT: u16 = 443;

/// When the next URL is tried beside one that does not answer.
const NEXT_AFTER: Duration = Duration::from_secs(1);

/// Time for TLS and the upgrade together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// An open stream to a coordinator.
pub struct Dialled {
    /// WebSocket in TLS.
    pub socket: WebSocketStream<TlsStream<TcpStream>>,
    /// Which URL answered.
    pub url: String,
    /// Its address, unless a proxy hides it.
    pub address: Option<IpAddr>,
    /// What binds an enrolment proof to this connection.
    pub exporter: [u8; 32],
    /// The certificate that it showed, and what vouches for it.
    pub chain: Vec<CertificateDer<'static>>,
}

/// A coordinator can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL makes no sense.
    #[error("{0} is no coordinator address (expected https://host or https://host:port)")]
    BadUrl(String),
    /// No connection.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// No answer through the connection.
    #[error(
        "{0} accepts connections but does not answer; try again, and see whether the coordinator is well"
    )]
    Silent(String),
    /// Another coordinator, or somebody in between.
    #[error(
        "{0} is another coordinator than the one that the join key was made by (its certification authority differs), \
         or the connection is intercepted; ask the administrator for a new join key"
    )]
    OtherAuthority(String),
    /// The certificate's time.
    #[error(
        "by this machine's clock the certificate of {host} {how}; set the clock right (timedatectl), here or, if it is \
         the wrong one, on the coordinator"
    )]
    WrongTime {
        /// Which.
        host: String,
        /// In which direction, and how far.
        how: String,
    },
    /// TLS, but not Ria's.
    #[error("{host} does not speak Ria's protocol ({reason}); is this the coordinator's address and port?")]
    NotRia {
        /// Which.
        host: String,
        /// What happened.
        reason: String,
    },
}

impl DialError {
    /// How telling an error is, when several URLs fail in several ways.
    fn rank(&self) -> u8 {
        match self {
            Self::OtherAuthority(_) => 5,
            Self::WrongTime { .. } => 4,
            Self::NotRia { .. } => 3,
            Self::Reach(ReachError::Refused(_)) | Self::Silent(_) => 2,
            Self::Reach(_) => 1,
            Self::BadUrl(_) => 0,
        }
    }
}

/// Tries the URLs in order; returns the first stream, or the most telling error. One that takes long is not waited for:
/// the next is tried beside it.
pub async fn dial(reach: &Reach, urls: &[String], tls: &Arc<ClientConfig>) -> Result<Dialled, DialError> {
    let attempts: Vec<_> = urls.iter().map(|url| dial_one(reach.clone(), url.clone(), tls.clone())).collect();
    let failed = match staggered(attempts, NEXT_AFTER).await {
        Ok(dialled) => return Ok(dialled),
        Err(failures) => failures.into_iter().max_by_key(DialError::rank),
    };
    Err(failed.unwrap_or_else(|| DialError::BadUrl("(no address)".into())))
}

async fn dial_one(reach: Reach, url: String, tls: Arc<ClientConfig>) -> Result<Dialled, DialError> {
    let dialled = open_stream(&reach, &url, tls).await;
    dialled.inspect_err(|error| tracing::debug!(url, %error, "coordinator address tried"))
}

async fn open_stream(reach: &Reach, url: &str, tls: Arc<ClientConfig>) -> Result<Dialled, DialError> {
    let (host, port) = parse_url(url).ok_or_else(|| DialError::BadUrl(url.to_owned()))?;
    let Connected { stream, address } = reach.connect(&host, port).await?;
    let shown = format!("{host}:{port}");
    let opened = timeout(HANDSHAKE_TIMEOUT, open(&shown, stream, tls)).await;
    let (socket, exporter, chain) = opened.unwrap_or(Err(DialError::Silent(shown)))?;
    Ok(Dialled { socket, url: url.to_owned(), address, exporter, chain })
}

type Opened = (WebSocketStream<TlsStream<TcpStream>>, [u8; 32], Vec<CertificateDer<'static>>);

async fn open(host: &str, tcp: TcpStream, tls: Arc<ClientConfig>) -> Result<Opened, DialError> {
    let not_ria = |reason: String| DialError::NotRia { host: host.to_owned(), reason };
    let name = ServerName::try_from(COORDINATOR_TLS_NAME).map_err(|e| not_ria(e.to_string()))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|e| tls_error(host, e))?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN_NODE) {
        return Err(not_ria("it does not offer the node protocol".into()));
    }
    let exporter = session
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(|error| not_ria(error.to_string()))?;
    let chain = session.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_COORDINATOR_MESSAGE))
        .max_frame_size(Some(MAX_COORDINATOR_MESSAGE));
    let request = format!("wss://{COORDINATOR_TLS_NAME}{STREAM_PATH}");
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config))
        .await
        .map_err(|error| not_ria(error.to_string()))?;
    Ok((socket, exporter, chain))
}

fn tls_error(host: &str, error: io::Error) -> DialError {
    let host = host.to_owned();
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(e))) if e.0.is::<OtherAuthority>() => {
            DialError::OtherAuthority(host)
        }
        _ => DialError::NotRia { host, reason: error.to_string() },
    }
}

/// Host and port of `https://host[:port][/]`; IPv6 addresses in brackets.
pub fn parse_url(url: &str) -> Option<(String, u16)> {
    authority(url.strip_prefix("https://")?, DEFAULT_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_host_and_port_and_nothing_else() {
        let parsed = |url| parse_url(url).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(parsed("https://ria.lab.example").as_deref(), Some("ria.lab.example 443"));
        assert_eq!(parsed("https://192.0.2.7:8443/").as_deref(), Some("192.0.2.7 8443"));
        assert_eq!(parsed("https://[2001:db8::1]:8443").as_deref(), Some("2001:db8::1 8443"));
        assert_eq!(parsed("https://[2001:db8::1]").as_deref(), Some("2001:db8::1 443"));
        for bad in [
            "http://a",
            "https://",
            "https://a:x",
            "https://a:0",
            "https://a/b",
            "https://[a]",
            "https://u@h",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    fn tls() -> Arc<ClientConfig> {
        let keys = crate::state::membership::NodeKeys::generate().unwrap();
        let pin = ria_protocol::keys::SpkiHash([0; 32]);
        super::super::tls::client_config(super::super::tls::Trust::Pin(pin), Default::default(), &keys, None)
            .unwrap()
            .config
    }

    #[tokio::test]
    async fn a_closed_port_and_a_foreign_server_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let foreign = format!("https://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH\r\n").await.unwrap();
        });
        let error = dial(&Reach::default(), std::slice::from_ref(&foreign), &tls()).await.err().unwrap();
        assert!(matches!(error, DialError::NotRia { .. }), "{error}");
        server.await.unwrap();
        // The listener is gone now, so its port is closed.
        let error = dial(&Reach::default(), &[foreign], &tls()).await.err().unwrap();
        assert!(matches!(error, DialError::Reach(ReachError::Refused(_))), "{error}");
    }
}
