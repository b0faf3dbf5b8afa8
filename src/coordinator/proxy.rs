//! An HTTP proxy on the way out: its URL, what is exempt from it, and the CONNECT request (RFC 9110, section 9.3.6).

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::Empty;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::reach::authority;

/// Bound of what is read of a proxy's answer.
const MAX_ANSWER: usize = 16 * 1024;

/// The port of `http://` without one (RFC 9110, section 4.2.1).
const DEFAULT_PORT: u16 = 80;

/// An HTTP proxy. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `user:password`.
    credentials: Option<Zeroizing<String>>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.credentials.as_ref().map(|_| "…");
        f.debug_struct("Proxy").field("at", &self.to_string()).field("credentials", &hidden).finish()
    }
}

/// What is no proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProxy {
    /// Another kind.
    #[error("proxies are spoken to by http://, not by {0}://; give http://host:port")]
    Scheme(String),
    /// Anything else; not shown, as it may hold a password.
    #[error("this is no proxy address; give http://host:port or http://user:password@host:port")]
    Malformed,
}

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => return Err(BadProxy::Scheme(scheme.chars().take(16).collect())),
            None => text,
        };
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(decoded(credentials)?), place),
            None => (None, rest),
        };
        let (host, port) = authority(place, DEFAULT_PORT).ok_or(BadProxy::Malformed)?;
        Ok(Self { host, port, credentials })
    }
}

fn decoded(credentials: &str) -> Result<Zeroizing<String>, BadProxy> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let text = |part| percent_decode_str(part).decode_utf8().map_err(|_| BadProxy::Malformed);
    Ok(Zeroizing::new(format!("{}:{}", text(user)?, text(password)?)))
}

/// A proxy does not lead to where it should.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It asks who is there.
    #[error(
        "it asks for a user name and a password; give them in its address: proxy = \"http://user:password@host:port\""
    )]
    CredentialsWanted,
    /// It knows who is there, and does not like it.
    #[error("it refuses the user name or the password")]
    CredentialsRefused,
    /// Not there.
    #[error(
        "it does not allow connections to {0} (403); ask who runs it to allow CONNECT to this host and port"
    )]
    Forbidden(String),
    /// It tried.
    #[error(
        "it can't reach {target} ({status}); is the coordinator running, and is it known to the proxy by this name?"
    )]
    Unreachable {
        /// Where to.
        target: String,
        /// What it says.
        status: StatusCode,
    },
    /// Another answer.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// No answer that could be read.
    #[error("it does not speak HTTP as expected ({0})")]
    Broken(String),
}

impl Proxy {
    /// Asks for a tunnel through an open connection to the proxy.
    pub async fn tunnel(&self, stream: TcpStream, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let broken = |error: &dyn fmt::Display| ProxyError::Broken(error.to_string());
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let mut builder = hyper::client::conn::http1::Builder::new();
        let handshake = builder.max_buf_size(MAX_ANSWER).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| broken(&e))?;
        // Ends with the connection, which ends when this function has failed.
        tokio::spawn(connection.with_upgrades());
        let request = self.request(&target).map_err(|e| broken(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(self.refusal(status, target));
        }
        let upgraded = hyper::upgrade::on(answer).await.map_err(|e| broken(&e))?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| broken(&"no tunnel"))?;
        if !parts.read_buf.is_empty() {
            // In TLS it is the client who speaks first.
            return Err(broken(&"data before any was asked for"));
        }
        Ok(parts.io.into_inner())
    }

    fn request(&self, target: &str) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder().method(Method::CONNECT).uri(target).header(HOST, target);
        if let Some(credentials) = &self.credentials {
            let basic = Zeroizing::new(format!("Basic {}", BASE64.encode(credentials.as_bytes())));
            let mut value = HeaderValue::from_str(&basic)?;
            value.set_sensitive(true);
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        request.body(Empty::new())
    }

    fn refusal(&self, status: StatusCode, target: String) -> ProxyError {
        match status {
            // The second is wrong of a proxy, but some say it.
            StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => {
                if self.credentials.is_some() {
                    ProxyError::CredentialsRefused
                } else {
                    ProxyError::CredentialsWanted
                }
            }
            StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => ProxyError::Forbidden(target),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                ProxyError::Unreachable { target, status }
            }
            other => ProxyError::Status(other),
        }
    }
}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> Self {
        Self::other(error)
    }
}

/// What is reached without a proxy, as in `NO_PROXY`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exempt(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Everything,
    Network(IpNet),
    /// A domain with all below it, without leading dot.
    Domain(String),
}

impl Exempt {
    /// Reads `NO_PROXY`: names (with all below them), addresses, networks and `*`, with commas or blanks between.
    pub fn parse(text: &str) -> Self {
        let words = text.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty());
        Self(words.map(entry).collect())
    }

    /// Whether a host is reached directly.
    pub fn covers(&self, host: &str) -> bool {
        let ip = host.parse::<IpAddr>().ok();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().any(|entry| match entry {
            Entry::Everything => true,
            Entry::Network(network) => ip.is_some_and(|ip| network.contains(&ip)),
            Entry::Domain(domain) => {
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        })
    }
}

fn entry(word: &str) -> Entry {
    if word == "*" {
        return Entry::Everything;
    }
    let bare = word.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpNet>().or_else(|_| bare.parse::<IpAddr>().map(IpNet::from)) {
        Ok(network) => Entry::Network(network),
        Err(_) => Entry::Domain(word.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, Option<String>), BadProxy> {
        let proxy: Proxy = text.parse()?;
        Ok((proxy.to_string(), proxy.credentials.as_ref().map(|c| c.to_string())))
    }

    #[test]
    fn proxy_addresses_are_read_as_elsewhere() {
        let plain = |shown: &str| Ok((shown.to_owned(), None));
        assert_eq!(read("http://proxy.uni.example:3128"), plain("proxy.uni.example:3128"));
        assert_eq!(read("HTTP://proxy.uni.example/"), plain("proxy.uni.example:80"));
        assert_eq!(read("proxy.uni.example:8080"), plain("proxy.uni.example:8080"));
        assert_eq!(read("http://[2001:db8::1]:3128"), plain("[2001:db8::1]:3128"));
        let with = read("http://rob%40ot:p%3Aa%2Fs@proxy:3128").unwrap();
        assert_eq!(with, ("proxy:3128".into(), Some("rob@ot:p:a/s".into())));
        for bad in
            ["", "http://", "http://:80", "http://a:b", "http://%ff@a", "http://a/b", "socks5://a:1080"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("https://proxy:3128").unwrap_err().to_string().contains("not by https://"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let proxy: Proxy = "http://robot:s3cret@proxy:3128".parse().unwrap();
        for shown in [format!("{proxy:?}"), proxy.to_string()] {
            assert!(!shown.contains("s3cret") && !shown.contains("robot"), "{shown}");
        }
        let error = "http://robot:s3cret@pro xy".parse::<Proxy>().unwrap_err();
        assert!(!error.to_string().contains("s3cret"));
    }

    #[test]
    fn exempt_are_names_with_all_below_addresses_and_networks() {
        let exempt = Exempt::parse("localhost, .uni.example,192.0.2.0/24 2001:db8::1,*.lab.test");
        for inside in
            ["localhost", "uni.example", "RIA.Uni.Example.", "192.0.2.9", "2001:db8::1", "a.lab.test"]
        {
            assert!(exempt.covers(inside), "{inside}");
        }
        for outside in ["example", "notuni.example", "192.0.3.9", "2001:db8::2", "lab.test.org"] {
            assert!(!exempt.covers(outside), "{outside}");
        }
        assert!(Exempt::parse("*").covers("anything") && !Exempt::parse(" ,").covers("anything"));
    }
}
