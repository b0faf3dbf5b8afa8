//! From a name and a port to an open TCP connection: DNS, both address families side by side (Happy Eyeballs, RFC 8305),
//! and a proxy where there is one.
//!
//! Where a proxy is set it is asked first, but a robot moves: when the proxy fails or takes long, the direct way is tried
//! beside it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::proxy::{BadProxy, Exempt, Proxy, ProxyError};
use super::race::staggered;

/// Time for DNS, TCP and a proxy's answer together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// When the next address is tried beside one that does not answer (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// When the direct way is tried beside a proxy that does not answer.
const DIRECT_AFTER: Duration = Duration::from_secs(1);

/// How this machine gets out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    proxy: Option<Arc<Proxy>>,
    exempt: Arc<Exempt>,
    /// Whether the direct way is left alone where there is a proxy.
    proxy_alone: bool,
}

/// An open connection.
#[derive(Debug)]
pub struct Connected {
    /// TCP to the server, or to the proxy that passes everything on to it.
    pub stream: TcpStream,
    /// The server's address; unknown behind a proxy, unless it was given as such.
    pub address: Option<IpAddr>,
}

/// No connection.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// No such name.
    #[error(
        "the name {host} can't be resolved ({source}); check DNS and the network connection of this machine"
    )]
    Dns {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("{0} refuses the connection; is the coordinator running, and is this its port?")]
    Refused(String),
    /// No answer.
    #[error("{0} does not answer; check the network connection of this machine and firewalls in between")]
    TimedOut(String),
    /// Another trouble of the network.
    #[error(
        "{host} can't be reached: {source}; check the network connection of this machine, and that address"
    )]
    Network {
        /// Which.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Neither by the proxy nor without.
    #[error("the proxy {proxy} does not help: {reason}; without it, {direct}")]
    Proxy {
        /// Which.
        proxy: String,
        /// What is wrong with it.
        reason: String,
        /// What happened without it.
        direct: Box<ReachError>,
    },
}

/// How a connection by the proxy failed.
enum Failure {
    Proxy(String),
    Direct(ReachError),
}

impl Reach {
    /// By this proxy from now on; an empty text is none.
    pub fn set_proxy(&mut self, proxy: &str) -> Result<(), BadProxy> {
        self.proxy = if proxy.trim().is_empty() { None } else { Some(Arc::new(proxy.parse()?)) };
        Ok(())
    }

    /// What is reached without the proxy, as in `NO_PROXY`.
    pub fn set_exempt(&mut self, exempt: &str) {
        self.exempt = Arc::new(Exempt::parse(exempt));
    }

    /// As if no proxy were set.
    pub fn without_proxy(&self) -> Self {
        Self::default()
    }

    /// By the proxy and in no other way; `None` without one.
    pub fn by_proxy_alone(&self) -> Option<Self> {
        self.proxy.is_some().then(|| Self { proxy_alone: true, ..self.clone() })
    }

    /// Connects to a host by name or address.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Connected, ReachError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let Some(proxy) = self.proxy.as_deref().filter(|_| !self.exempt.covers(host)) else {
            return directly(host, port, deadline).await;
        };
        if self.proxy_alone {
            let failed = |why| both_failed(proxy, host, vec![Failure::Proxy(why)]);
            return by_proxy(proxy, host, port, deadline).await.map_err(failed);
        }
        let by_proxy = async { by_proxy(proxy, host, port, deadline).await.map_err(Failure::Proxy) };
        let without = async { directly(host, port, deadline).await.map_err(Failure::Direct) };
        staggered([Either::Left(by_proxy), Either::Right(without)], DIRECT_AFTER)
            .await
            .map_err(|failures| both_failed(proxy, host, failures))
    }
}

fn both_failed(proxy: &Proxy, host: &str, failures: Vec<Failure>) -> ReachError {
    let (mut reason, mut direct) = (String::new(), ReachError::TimedOut(host.to_owned()));
    for failure in failures {
        match failure {
            Failure::Proxy(why) => reason = why,
            Failure::Direct(error) => direct = error,
        }
    }
    ReachError::Proxy { proxy: proxy.to_string(), reason, direct: Box::new(direct) }
}

async fn by_proxy(proxy: &Proxy, host: &str, port: u16, deadline: Instant) -> Result<Connected, String> {
    let opened = directly(&proxy.host, proxy.port, deadline).await.map_err(|error| match error {
        ReachError::Refused(_) => "it refuses the connection; is this its port?".to_owned(),
        ReachError::TimedOut(_) => "it does not answer".to_owned(),
        other @ (ReachError::Dns { .. } | ReachError::Network { .. } | ReachError::Proxy { .. }) => {
            other.to_string()
        }
    })?;
    let tunnel = timeout_at(deadline, proxy.tunnel(opened.stream, host, port));
    let stream = tunnel
        .await
        .unwrap_or_else(|_| Err(ProxyError::Broken("no answer in time".into())))
        .map_err(|error| error.to_string())?;
    Ok(Connected { stream, address: host.parse().ok() })
}

async fn directly(host: &str, port: u16, deadline: Instant) -> Result<Connected, ReachError> {
    let shown = format!("{host}:{port}");
    let addresses = interleaved(resolve(host, port, deadline).await?);
    let attempts = addresses.into_iter().map(|address| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(Connected { stream, address: Some(address.ip().to_canonical()) })
    });
    let connected = timeout_at(deadline, staggered(attempts, ATTEMPT_DELAY)).await;
    let failures: Vec<io::Error> = match connected {
        Ok(Ok(connected)) => return Ok(connected),
        Ok(Err(failures)) => failures,
        Err(_) => return Err(ReachError::TimedOut(shown)),
    };
    Err(most_telling(shown, failures))
}

/// One family of two is often not there at all; what the other one says counts more.
#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enumeration, of which a few values matter")]
fn most_telling(shown: String, failures: Vec<io::Error>) -> ReachError {
    let rank = |error: &io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused => 3,
        io::ErrorKind::TimedOut => 2,
        io::ErrorKind::NetworkUnreachable => 0,
        _ => 1,
    };
    let nothing = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
    let telling = failures.into_iter().max_by_key(rank).unwrap_or_else(nothing);
    match telling.kind() {
        io::ErrorKind::ConnectionRefused => ReachError::Refused(shown),
        io::ErrorKind::TimedOut => ReachError::TimedOut(shown),
        _ => ReachError::Network { host: shown, source: telling },
    }
}

async fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, ReachError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no name server answers"));
    let found = timeout_at(deadline, tokio::net::lookup_host((host, port))).await.unwrap_or_else(|_| late());
    found.map(Iterator::collect).map_err(|source| ReachError::Dns { host: host.to_owned(), source })
}

/// The families in turn, beginning with that of the first address, which the resolver prefers (RFC 8305, section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut other = other.into_iter();
    let mut turns: Vec<SocketAddr> =
        preferred.into_iter().flat_map(|address| [Some(address), other.next()]).flatten().collect();
    turns.extend(other);
    turns
}

/// Host and port of `host[:port][/]`; IPv6 addresses in brackets.
pub fn authority(text: &str, default_port: u16) -> Option<(String, u16)> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, tail) = v6.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default_port), |port| port.parse().ok()).filter(|port| *port != 0)?;
    let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
    plain.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
    use tokio::net::TcpListener;

    use super::*;

    /// A proxy that gives this answer to whatever it is asked; tunnels lead to `target`. Tells what it was asked.
    async fn proxy(
        answer: &'static str,
        target: SocketAddr,
    ) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(client.read_u8().await.unwrap());
            }
            client.write_all(answer.as_bytes()).await.unwrap();
            if answer.starts_with("HTTP/1.1 200") {
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
            String::from_utf8(asked).unwrap()
        });
        (address, served)
    }

    async fn greeter() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let _ = client.write_all(b"hello").await;
            }
        });
        address
    }

    fn by(proxy: &str) -> Reach {
        let mut reach = Reach::default();
        reach.set_proxy(proxy).unwrap();
        reach
    }

    async fn heard(connected: Connected) -> String {
        let mut said = String::new();
        let mut stream = connected.stream;
        stream.read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn a_proxy_is_asked_by_name_and_leads_there() {
        let server = greeter().await;
        let (address, asked) = proxy("HTTP/1.1 200 Connection established\r\n\r\n", server).await;
        let reach = by(&format!("http://robot:p%40ss@{address}"));
        let connected = reach.connect("ria.nowhere.invalid", 443).await.unwrap();
        assert_eq!(connected.address, None, "the name is the proxy's to resolve");
        assert_eq!(heard(connected).await, "hello");
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("CONNECT ria.nowhere.invalid:443 HTTP/1.1\r\n"), "{asked}");
        let credentials = "proxy-authorization: Basic cm9ib3Q6cEBzcw==";
        assert!(asked.to_lowercase().contains(&credentials.to_lowercase()), "{asked}");
    }

    #[tokio::test]
    async fn without_the_proxy_it_goes_on_directly() {
        let server = greeter().await;
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let connected = by(&gone.to_string()).connect("127.0.0.1", server.port()).await.unwrap();
        assert_eq!(connected.address, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(heard(connected).await, "hello");
    }

    #[tokio::test]
    async fn what_is_exempt_is_not_asked_of_the_proxy() {
        let server = greeter().await;
        let (address, asked) = proxy("HTTP/1.1 403 Forbidden\r\n\r\n", server).await;
        let mut reach = by(&address.to_string());
        reach.set_exempt("127.0.0.0/8");
        assert_eq!(heard(reach.connect("127.0.0.1", server.port()).await.unwrap()).await, "hello");
        assert!(!asked.is_finished());
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_says_what_to_do() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for (answer, told) in [
            ("HTTP/1.1 407 Who are you\r\n\r\n", "give them in its address"),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "allow CONNECT to this host and port"),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "can't reach 127.0.0.1"),
            ("SSH-2.0-Something\r\n\r\n", "does not speak HTTP"),
        ] {
            let (address, _asked) = proxy(answer, closed).await;
            let error = by(&address.to_string()).connect("127.0.0.1", closed.port()).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(told) && text.contains(&address.to_string()), "{text}");
            assert!(text.contains("refuses the connection"), "also what happened without it: {text}");
        }
    }

    #[test]
    fn the_families_take_turns() {
        let addresses = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let (a, b, c) = ("[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1");
        let (x, y) = ("192.0.2.1:1", "192.0.2.2:1");
        assert_eq!(interleaved(addresses(&[a, b, c, x])), addresses(&[a, x, b, c]));
        assert_eq!(interleaved(addresses(&[x, y, a, b, c])), addresses(&[x, a, y, b, c]));
    }

    #[test]
    fn what_one_family_says_counts_more_than_that_the_other_is_not_there() {
        let kinds = [io::ErrorKind::NetworkUnreachable, io::ErrorKind::ConnectionRefused];
        for kinds in [kinds, [kinds[1], kinds[0]]] {
            let error = most_telling("a:1".into(), kinds.map(io::Error::from).into());
            assert!(matches!(error, ReachError::Refused(_)), "{error}");
        }
    }
}
