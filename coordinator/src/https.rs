//! Requests to other servers (a provider of logins, an ACME server): HTTPS only, by authorities that the operator names or
//! the system knows, bounded in time and size, and never sent on to another place.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, Method, Request, Response, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// For a whole request.
const PATIENCE: Duration = Duration::from_secs(10);
const LARGEST: usize = 1024 * 1024;

/// A server can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0:?} is no https address")]
    Address(String),
    #[error("{host} can't be reached: {source}")]
    Unreachable { host: String, source: io::Error },
    #[error("{0} does not answer in time")]
    Late(String),
    #[error("{host} does not speak HTTP as it should: {reason}")]
    Http { host: String, reason: String },
}

/// The authorities can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error(
        "{setting} ({path}) can't be used: {reason}; give a PEM file with the certificates of authorities"
    )]
    File { setting: &'static str, path: String, reason: String },
    #[error(
        "this machine knows no certification authorities ({reasons}); install the package ca-certificates, or give the \
         server's authority as {setting}"
    )]
    None { setting: &'static str, reasons: String },
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// Whoever asks.
#[derive(Clone)]
pub struct Https {
    tls: TlsConnector,
}

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Https")
    }
}

impl Https {
    /// Believes servers for which the authorities vouch that this setting names, or those of the system.
    pub fn new(setting: &'static str, ca: Option<&Path>) -> Result<Self, RootsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(setting, ca)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Reads something, by a token if there is one.
    pub async fn get(&self, url: &str, token: Option<&str>) -> Result<Answer, HttpError> {
        let token = token.map(|token| format!("Bearer {token}"));
        self.send(Method::GET, url, token, String::new()).await
    }

    /// Sends a form.
    pub async fn post(
        &self,
        url: &str,
        authorization: Option<String>,
        form: String,
    ) -> Result<Answer, HttpError> {
        self.send(Method::POST, url, authorization, form).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        authorization: Option<String>,
        form: String,
    ) -> Result<Answer, HttpError> {
        let (host, port, path) = split(url)?;
        let late = |_| HttpError::Late(host.clone());
        let failed = |error: &dyn ToString| HttpError::Http { host: host.clone(), reason: error.to_string() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, authority(&host, port))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::from(form))).map_err(|error| failed(&error))?;
        let response = timeout(PATIENCE, self.exchange((&host, port), request)).await.map_err(late)??;
        Ok(Answer { status: response.status().as_u16(), body: response.into_body() })
    }

    /// Sends a request to where its address says.
    pub async fn request(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError> {
        let (host, port, path) = split(&request.uri().to_string())?;
        let failed = |error: &dyn ToString| HttpError::Http { host: host.clone(), reason: error.to_string() };
        *request.uri_mut() = path.parse().map_err(|error| failed(&error))?;
        let named = HeaderValue::try_from(authority(&host, port)).map_err(|error| failed(&error))?;
        request.headers_mut().insert(HOST, named);
        let late = |_| HttpError::Late(host.clone());
        timeout(PATIENCE, self.exchange((&host, port), request)).await.map_err(late)?
    }

    async fn exchange(
        &self,
        (host, port): (&str, u16),
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, HttpError> {
        let unreachable = |source| HttpError::Unreachable { host: host.to_owned(), source };
        let failed =
            |error: &dyn ToString| HttpError::Http { host: host.to_owned(), reason: error.to_string() };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| failed(&error))?;
        let tcp = TcpStream::connect((bare, port)).await.map_err(unreachable)?;
        let tls = self.tls.connect(name, tcp).await.map_err(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|error| failed(&error))?;
        let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map_err(|error| failed(&error))?.to_bytes();
        drop(driver);
        Ok(Response::from_parts(parts, body))
    }
}

/// Whether something can be asked at this address.
pub fn is_https(url: &str) -> bool {
    split(url).is_ok()
}

fn authority(host: &str, port: u16) -> String {
    if port == 443 { host.to_owned() } else { format!("{host}:{port}") }
}

fn split(url: &str) -> Result<(String, u16, String), HttpError> {
    let wrong = || HttpError::Address(url.chars().take(200).collect());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().filter(|host| !host.is_empty() && uri.scheme_str() == Some("https"));
    let host = host.ok_or_else(wrong)?.to_owned();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok((host, uri.port_u16().unwrap_or(443), path))
}

fn roots(setting: &'static str, ca: Option<&Path>) -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        // Systems carry some that are too old to be read; the others are good all the same.
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            return Err(RootsError::None { setting, reasons: reasons.join("; ") });
        }
        return Ok(roots);
    };
    let wrong = |reason: String| RootsError::File { setting, path: path.display().to_string(), reason };
    let all = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in all {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() { Err(wrong("it holds no certificate".to_owned())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_asked() {
        let parts = |url| split(url).ok();
        let whole = Some(("login.uni.example".to_owned(), 8443, "/a/b?c=d".to_owned()));
        assert_eq!(parts("https://login.uni.example:8443/a/b?c=d"), whole);
        assert_eq!(parts("https://login.uni.example").unwrap().2, "/");
        for bad in ["", "http://login.uni.example", "ftp://a", "/path", "https://", "javascript:alert(1)"] {
            assert!(!is_https(bad), "{bad:?}");
        }
    }
}
