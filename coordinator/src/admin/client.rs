//! The command line's side of the admin socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api::{Problem, ProblemCode};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A request was not answered as wished.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(
        "no coordinator is running here: {path} does not answer ({source}); start it with `ria-coordinator serve`, or \
         name its socket with --admin-socket or RIA_ADMIN_SOCKET",
        path = path.display()
    )]
    NotRunning { path: PathBuf, source: io::Error },
    #[error("{path}: {source}; only root may administer the coordinator, so use sudo", path = path.display())]
    NotPermitted { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Input(String),
    #[error("{}", .0.message)]
    Problem(Problem),
    #[error("the coordinator did not answer in time; try again, and look at its log")]
    TimedOut,
    #[error("the coordinator's answer can't be read ({0}); are command and coordinator of the same version?")]
    Answer(String),
}

/// A way to the coordinator on this machine.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// At this socket.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Reads something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// Removes something.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.request(Method::DELETE, path, Bytes::new()).await
    }

    /// Makes or changes something.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, RequestError> {
        let body = serde_json::to_vec(body).map_err(|e| RequestError::Answer(e.to_string()))?;
        self.request(Method::POST, path, body.into()).await
    }

    /// Makes something that is no JSON.
    pub async fn post_for_bytes(&self, path: &str) -> Result<Vec<u8>, RequestError> {
        let (status, bytes) = self.ask(Method::POST, path, Bytes::new()).await?;
        if status.is_success() { Ok(bytes.to_vec()) } else { Err(refused(status, &bytes)) }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), RequestError> {
        timeout(TIMEOUT, self.exchange(method, path, body)).await.map_err(|_| RequestError::TimedOut)?
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, RequestError> {
        let (status, bytes) = self.ask(method, path, body).await?;
        let unreadable = |e: serde_json::Error| RequestError::Answer(e.to_string());
        if status.is_success() {
            serde_json::from_slice(&bytes).map_err(unreadable)
        } else {
            Err(refused(status, &bytes))
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), RequestError> {
        let failed = |e: hyper::Error| RequestError::Answer(e.to_string());
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| connect_error(&self.socket, e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let driver = tokio::spawn(connection);
        let uri: Uri = path.parse().map_err(|_| RequestError::Answer(format!("bad path {path:?}")))?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| RequestError::Answer(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(failed)?.to_bytes();
        driver.abort();
        Ok((status, bytes))
    }
}

fn refused(status: StatusCode, bytes: &[u8]) -> RequestError {
    RequestError::Problem(serde_json::from_slice(bytes).unwrap_or_else(|_| Problem {
        code: ProblemCode::BadRequest,
        message: format!(
            "the coordinator answered {status}; are command and coordinator of the same version?"
        ),
    }))
}

fn connect_error(path: &Path, source: io::Error) -> RequestError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::PermissionDenied {
        RequestError::NotPermitted { path, source }
    } else {
        RequestError::NotRunning { path, source }
    }
}

/// A part of a path or query as it has to be written there.
pub fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
