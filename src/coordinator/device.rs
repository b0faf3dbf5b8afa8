//! Asking to be let in by a person (RFC 8628): a code for them to type at the coordinator, and what they decided. Whom to
//! believe follows from the address: with a pin behind it, the coordinator's own authority; without, what this system
//! knows, as browsers do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ria_protocol::COORDINATOR_TLS_NAME;
use ria_protocol::keys::SpkiHash;
use ria_protocol::time::UnixTime;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::dial::parse_url;
use super::reach::{Reach, ReachError};
use super::tls::{self, OtherAuthority, TlsSetupError, Trust};
use crate::state::membership::{KeyError, NodeKeys};

const CODE: &str = "/login/device/code";
const TOKEN: &str = "/login/device/token";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// For a whole request.
const PATIENCE: Duration = Duration::from_secs(15);
/// Answers are far smaller.
const LARGEST: usize = 64 * 1024;

/// The coordinator can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The address makes no sense.
    #[error(
        "{0} is no coordinator address; take the one that its page \"Let a laptop in\" shows, such as \
         https://ria.lab.example, with what stands behind # if there is something"
    )]
    BadUrl(String),
    /// No connection.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// Another coordinator, or somebody in between.
    #[error(
        "the server at {0} is not of the authority that the address names (behind #), or the connection is intercepted; \
         copy the address anew from the coordinator's page"
    )]
    OtherAuthority(String),
    /// Nobody vouches for it.
    #[error(
        "no authority that this machine knows vouches for {0}; give the address with the pin that the coordinator's page \
         \"Let a laptop in\" shows: https://HOST#PIN"
    )]
    NoAuthority(String),
    /// Something is there that is no coordinator.
    #[error("{host} does not let laptops in ({reason}); is it the coordinator, of this version or newer?")]
    Foreign {
        /// Which.
        host: String,
        /// What happened.
        reason: String,
    },
    /// No answer.
    #[error("{0} does not answer in time; try again")]
    Late(String),
    /// Keys for the connection.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// TLS.
    #[error(transparent)]
    Setup(#[from] TlsSetupError),
    /// The coordinator says no.
    #[error("{text}")]
    Refused {
        /// As RFC 8628 calls it.
        code: String,
        /// For people.
        text: String,
    },
}

/// A coordinator's address as people copy it: `https://host[:port][#pin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    pin: Option<SpkiHash>,
}

impl std::str::FromStr for Address {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let bad = || DeviceError::BadUrl(text.chars().take(200).collect());
        let (url, pin) = match text.split_once('#') {
            Some((url, pin)) => (url, Some(pin.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let (host, port) = parse_url(url).ok_or_else(bad)?;
        Ok(Self { host, port, pin })
    }
}

impl Address {
    fn shown(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }
}

/// What somebody has to type, and where.
#[derive(Debug, Clone, Deserialize)]
pub struct Code {
    /// By which this machine asks what came of it.
    pub device_code: String,
    /// For people.
    pub user_code: String,
    /// Where they type it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: String,
    /// Seconds that it is good for.
    pub expires_in: u64,
    /// Seconds between two questions.
    #[serde(default = "five")]
    pub interval: u64,
}

/// RFC 8628, section 3.2.
fn five() -> u64 {
    5
}

/// Somebody has let this machine in.
#[derive(Clone, Deserialize)]
pub struct Granted {
    /// A join key, for this machine only.
    #[serde(deserialize_with = "secret")]
    pub access_token: Zeroizing<String>,
    /// Who.
    pub user: String,
    /// Where.
    pub network: String,
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

/// The way to one coordinator.
pub struct Device {
    address: Address,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Device {
    /// To this address.
    pub fn new(address: Address) -> Result<Self, DeviceError> {
        let foreign =
            |error: &dyn ToString| DeviceError::Foreign { host: address.shown(), reason: error.to_string() };
        let (config, name) = match address.pin {
            Some(pin) => {
                let keys = NodeKeys::generate()?;
                let config = tls::client_config(Trust::Pin(pin), UnixTime::default(), &keys, None)?.config;
                (config, COORDINATOR_TLS_NAME.to_owned())
            }
            None => (Arc::new(by_system().map_err(|error| foreign(&error))?), address.host.clone()),
        };
        let name = ServerName::try_from(name).map_err(|error| foreign(&error))?;
        Ok(Self { tls: TlsConnector::from(config), name, address })
    }

    /// Asks for a code.
    pub async fn ask(&self, name: &str, network: Option<&str>) -> Result<Code, DeviceError> {
        let mut form = vec![("name", name)];
        form.extend(network.map(|network| ("network", network)));
        self.post(CODE, &form).await
    }

    /// What came of it; `None`: nobody has decided yet.
    pub async fn poll(&self, code: &Code) -> Result<Option<Granted>, DeviceError> {
        match self.post(TOKEN, &[("grant_type", GRANT), ("device_code", &code.device_code)]).await {
            Ok(granted) => Ok(Some(granted)),
            Err(DeviceError::Refused { code, .. }) if code == "authorization_pending" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, form: &[(&str, &str)]) -> Result<T, DeviceError> {
        let answered = timeout(PATIENCE, self.exchange(path, form)).await;
        let (status, body) = answered.map_err(|_| DeviceError::Late(self.address.shown()))??;
        let unreadable = || self.foreign(&format!("status {status}"));
        if status == 200 {
            return serde_json::from_slice(&body).map_err(|_| unreadable());
        }
        let refusal: Refusal = serde_json::from_slice(&body).map_err(|_| unreadable())?;
        let plain = |text: String| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
        let text = plain(refusal.error_description.unwrap_or_else(|| refusal.error.clone()));
        Err(DeviceError::Refused { code: refusal.error, text })
    }

    fn foreign(&self, reason: &dyn ToString) -> DeviceError {
        DeviceError::Foreign { host: self.address.shown(), reason: reason.to_string() }
    }

    async fn exchange(&self, path: &str, form: &[(&str, &str)]) -> Result<(u16, Bytes), DeviceError> {
        let stream = Reach::default().connect(&self.address.host, self.address.port).await?.stream;
        let tls =
            self.tls.connect(self.name.clone(), stream).await.map_err(|error| self.tls_error(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| self.foreign(&error))?;
        let driver = tokio::spawn(connection);
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let request = Request::post(path)
            .header(HOST, self.address.shown())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(pairs.join("&"))))
            .map_err(|error| self.foreign(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.foreign(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| self.foreign(&error))?.to_bytes();
        driver.abort();
        Ok((status, body))
    }

    fn tls_error(&self, error: &std::io::Error) -> DeviceError {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(e)))
                if e.0.is::<OtherAuthority>() =>
            {
                DeviceError::OtherAuthority(self.address.shown())
            }
            Some(rustls::Error::InvalidCertificate(_)) if self.address.pin.is_none() => {
                DeviceError::NoAuthority(self.address.shown())
            }
            Some(_) | None => self.foreign(error),
        }
    }
}

/// Believes whom this system believes.
fn by_system() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    // Without any, nobody is believed, and the error says what to do.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_with_or_without_a_pin() {
        let pin = SpkiHash([7; 32]);
        let with = format!("https://ria.lab.example:8443#{pin}").parse::<Address>().unwrap();
        assert_eq!((with.shown().as_str(), with.pin), ("ria.lab.example:8443", Some(pin)));
        let without = "https://[2001:db8::1]/".parse::<Address>().unwrap();
        assert_eq!((without.shown().as_str(), without.pin), ("[2001:db8::1]", None));
        for bad in ["ria.lab.example", "http://ria.lab.example", "https://ria.lab.example#x", "https://#", ""]
        {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
