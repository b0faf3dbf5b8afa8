//! Where releases come from: a directory, or a web server. Neither is trusted; the signature is.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::coordinator::reach::{Reach, authority};

/// A server that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where distributions keep the authorities that they trust.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Where a release lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Directory(PathBuf),
    Url(Url),
}

/// A directory of a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    secure: bool,
    host: String,
    port: u16,
    /// Begins and ends with `/`.
    path: String,
}

/// Something can't be fetched.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{place} can't be read: {source}")]
    Io { place: String, source: io::Error },
    #[error("{place} can't be fetched: {reason}")]
    Http { place: String, reason: String },
    #[error("{place} has more than {most} bytes; this is no release of Ria, or a damaged one")]
    TooLong { place: String, most: u64 },
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) if Path::new(text).is_absolute() => return Ok(Self::Directory(text.into())),
            (None, None) => {
                return Err(format!(
                    "{text} is neither an absolute path nor an address (https://… or http://…)"
                ));
            }
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        let (host, port) = authority(host, if secure { 443 } else { 80 })
            .filter(|_| is_plain)
            .ok_or_else(|| format!("{text} is no address of a directory"))?;
        let path = if path.is_empty() { "/".to_owned() } else { format!("/{path}/") };
        Ok(Self::Url(Url { secure, host, port, path }))
    }
}

impl Source {
    /// Reads a short file.
    pub async fn read(&self, reach: &Reach, name: &str, most: u64) -> Result<Vec<u8>, SourceError> {
        let mut content = Vec::new();
        let mut keep = |piece: &[u8]| {
            content.extend_from_slice(piece);
            Ok(())
        };
        self.fetch(reach, name, most, &mut keep).await?;
        Ok(content)
    }

    /// Hands a file over piece by piece, and no more than so many bytes of it.
    pub async fn fetch(
        &self,
        reach: &Reach,
        name: &str,
        most: u64,
        take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), SourceError> {
        let place = self.place(name);
        let mut rest = most;
        let mut take = |piece: &[u8]| {
            let len = piece.len() as u64;
            rest =
                rest.checked_sub(len).ok_or_else(|| SourceError::TooLong { place: place.clone(), most })?;
            take(piece).map_err(|source| SourceError::Io { place: place.clone(), source })
        };
        match self {
            Self::Directory(directory) => copy_file(&directory.join(name), &mut take),
            Self::Url(url) => {
                let failed = |reason: String| SourceError::Http { place: self.place(name), reason };
                let mut answer = url.ask(reach, name).await.map_err(failed)?;
                loop {
                    let frame = timeout(PATIENCE, answer.body_mut().frame()).await;
                    let frame =
                        frame.map_err(|_| failed("the server has fallen silent; try again".into()))?;
                    let Some(frame) = frame else { return Ok(()) };
                    if let Ok(piece) = frame.map_err(|e| failed(e.to_string()))?.into_data() {
                        take(&piece)?;
                    }
                }
            }
        }
    }

    fn place(&self, name: &str) -> String {
        match self {
            Self::Directory(directory) => directory.join(name).display().to_string(),
            Self::Url(Url { secure, host, port, path }) => {
                let scheme = if *secure { "https" } else { "http" };
                format!("{scheme}://{}:{port}{path}{name}", bracketed(host))
            }
        }
    }
}

fn copy_file(path: &Path, take: &mut dyn FnMut(&[u8]) -> Result<(), SourceError>) -> Result<(), SourceError> {
    let failed = |source| SourceError::Io { place: path.display().to_string(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = file.read(&mut buffer).map_err(failed)?;
        match buffer.get(..len) {
            Some([]) | None => return Ok(()),
            Some(piece) => take(piece)?,
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl Url {
    async fn ask(&self, reach: &Reach, name: &str) -> Result<Response<Incoming>, String> {
        let stream = reach.connect(&self.host, self.port).await.map_err(|error| error.to_string())?.stream;
        let answer = async {
            if !self.secure {
                return self.get(stream, name).await;
            }
            let server = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
            let connector = TlsConnector::from(Arc::new(trusting_the_system()?));
            self.get(connector.connect(server, stream).await.map_err(|e| e.to_string())?, name).await
        };
        timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| Err("the server does not answer; try again".into()))
    }

    async fn get<S>(&self, stream: S, name: &str) -> Result<Response<Incoming>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let told = |error: hyper::Error| error.to_string();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        // It ends with the answer's body.
        tokio::spawn(connection);
        let host = format!("{}:{}", bracketed(&self.host), self.port);
        let request =
            Request::get(format!("{}{name}", self.path)).header(HOST, host).header(USER_AGENT, "ria");
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(told)?;
        match (answer.status().as_u16(), answer.headers().get(LOCATION).and_then(|to| to.to_str().ok())) {
            (200, _) => Ok(answer),
            (status, None) => Err(format!("the server answers {status}; is there a release?")),
            (_, Some(to)) => {
                Err(format!("it is elsewhere now: {to}; put that address into /etc/ria/update.toml"))
            }
        }
    }
}

/// TLS as every other program of this machine has it.
fn trusting_the_system() -> Result<ClientConfig, String> {
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let file = file.or_else(|| AUTHORITIES.iter().map(PathBuf::from).find(|file| file.exists()));
    let file =
        file.ok_or("this machine knows no certification authorities; install the package ca-certificates")?;
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&file).map_err(|e| failed(&e))? {
        // Some that a distribution trusts are too old for rustls; the rest serves.
        let _ = roots.add(certificate.map_err(|e| failed(&e))?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|e| failed(&e))?.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_directory_here_or_on_a_server() {
        let place = |text: &str| text.parse::<Source>().map(|source| source.place("x"));
        assert_eq!(place("/srv/ria").unwrap(), "/srv/ria/x");
        assert_eq!(place("https://lab.example/ria/").unwrap(), "https://lab.example:443/ria/x");
        assert_eq!(place("http://[2001:db8::1]:8080").unwrap(), "http://[2001:db8::1]:8080/x");
        for bad in [
            "",
            "ria",
            "ftp://a/b",
            "https://",
            "https://a b/",
            "https://a/b?c",
            "https://u@a/",
            "http://a:0/",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn no_more_is_taken_than_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), [7; 100]).unwrap();
        let source: Source = directory.path().to_str().unwrap().parse().unwrap();
        let reach = Reach::default();
        assert_eq!(source.read(&reach, "a", 100).await.unwrap(), [7; 100]);
        assert!(matches!(source.read(&reach, "a", 99).await, Err(SourceError::TooLong { most: 99, .. })));
        assert!(matches!(source.read(&reach, "b", 99).await, Err(SourceError::Io { .. })));
    }
}
