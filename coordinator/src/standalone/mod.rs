//! A relay that runs by itself: the coordinator's relay on another machine, without its store.
//!
//! ```text
//!  nodes ── UDP 3478, TCP/TLS 443 ──► relay ◄── whom to serve, whom to refuse ── uplink ◄── TLS ── coordinator
//! ```
//!
//! It is told by its coordinator how to verify the nodes' credentials, which networks to serve and whom to refuse, keeps
//! that in its data directory, and goes on with it while the coordinator is away. Its key admits it once; afterwards it is
//! known by a TLS key that it made itself.

pub(crate) mod client;
mod port;
mod stored;
mod terms;
mod uplink;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ria_protocol::relay::{ParseRelayKeyError, RelayKey, RelayPlace, RelayRefusal};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Standalone as Settings;
use crate::metrics;
use crate::random;
use crate::relay::{Relay, RelayHandle, Terms};
use crate::server::{self, StartError};
use crate::tls::turn;
use port::GivenCertificate;
use stored::Stored;
use terms::Obedience;
use uplink::Uplink;

pub use stored::{IDENTITY_FILE, TERMS_FILE};

/// The relay can't be started, or has to end.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    #[error("the data directory {path} can't be used: {source}; make it one that can be written, or choose another with --data-dir or RIA_DATA_DIR",
        path = path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("another relay is running on the data directory {path}; stop it first, or choose another directory with --data-dir",
        path = .0.display())]
    Locked(PathBuf),
    #[error("{path} is damaged; remove the data directory, and have the administrator make a new key (on the coordinator: \
             ria-coordinator relay remove NAME, then relay add NAME)", path = .0.display())]
    Damaged(PathBuf),
    #[error(
        "this relay has no key yet; on the coordinator: ria-coordinator relay add NAME > relay.key, then here: \
         --key-file relay.key (or RIA_RELAY_KEY_FILE, or the key itself in RIA_RELAY_KEY)"
    )]
    NoKey,
    #[error("{path}: {source}", path = path.display())]
    KeyFile { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Key(#[from] ParseRelayKeyError),
    #[error("{0}")]
    Listen(String),
    #[error("the relay can't be started: {0}; set relay.listen to another address")]
    Relay(io::Error),
    #[error("TLS can't be set up: {0}")]
    Tls(String),
    #[error("refused by the coordinator: {}", .0.text)]
    Refused(RelayRefusal),
}

impl StandaloneError {
    fn of_start(error: StartError) -> Self {
        match error {
            StartError::DataDir { path, source } => Self::DataDir { path, source },
            StartError::Locked(path) => Self::Locked(path),
            other @ (StartError::NoDatabase { .. }
            | StartError::EmptyDatabase(_)
            | StartError::Password(_)
            | StartError::Store(_)
            | StartError::Authority(_)
            | StartError::Mismatch(_)
            | StartError::Registry(_)
            | StartError::Leaf(_)
            | StartError::Operator(_)
            | StartError::Listen(_)
            | StartError::AdminSocket(_)
            | StartError::Oidc(_)
            | StartError::Acme(_)
            | StartError::Relay(_)) => Self::Listen(other.to_string()),
        }
    }
}

/// Runs until `stop`, or until the coordinator does not want it. `key` is what the settings or the environment give.
pub async fn run(
    settings: &Settings,
    key: Option<RelayKey>,
    stop: CancellationToken,
) -> Result<(), StandaloneError> {
    let _lock = server::lock(&settings.data_dir).map_err(StandaloneError::of_start)?;
    let stored = Stored::open(&settings.data_dir, key)?;
    // Sockets are bound before anything runs, so that a mistake shows at once.
    let listener = server::listen(settings.listen).map_err(StandaloneError::of_start)?;
    let metrics_listener =
        settings.metrics_listen.map(server::listen).transpose().map_err(StandaloneError::of_start)?;
    // Until there are terms nobody can have credentials.
    let config = settings.relay.to_config(Terms::new(random::bytes())).map_err(StandaloneError::Relay)?;
    let relay = Relay::bind(config).map_err(StandaloneError::Relay)?;
    let (handle, place) = (relay.handle(), place(settings, &listener, relay.local_port())?);
    let certificate = Arc::new(GivenCertificate::default());
    let tls = turn::config(certificate.clone()).map_err(|error| StandaloneError::Tls(error.to_string()))?;
    let obedience = Obedience::new(handle.clone(), settings.relay.clone(), certificate, stored)?;
    announce(settings, &place, &obedience);
    let running = tokio::spawn(relay.run(stop.clone()));
    let streams = tokio::spawn(port::serve(listener, Arc::new(tls), handle.door().clone(), stop.clone()));
    let figures = metrics_listener.map(|listener| {
        tokio::spawn(metrics::serve(listener, metrics::relay_router(handle.clone()), stop.clone()))
    });
    let refused = Uplink::new(obedience, handle, place).run(stop.clone()).await;
    stop.cancel();
    for part in [running, streams].into_iter().chain(figures) {
        // A part that failed has said so.
        let _ = part.await;
    }
    match refused {
        Some(refusal) => Err(StandaloneError::Refused(refusal)),
        None => Ok(()),
    }
}

/// What the coordinator is told of where this relay is.
fn place(settings: &Settings, listener: &TcpListener, udp_port: u16) -> Result<RelayPlace, StandaloneError> {
    let address = listener.local_addr().map_err(|error| StandaloneError::Listen(error.to_string()))?;
    Ok(RelayPlace { host: settings.host.clone(), udp_port, tls_port: Some(address.port()) })
}

fn announce(settings: &Settings, place: &RelayPlace, obedience: &Obedience) {
    tracing::info!(
        relay = %obedience.name(),
        listen = %settings.listen,
        udp_port = place.udp_port,
        host = place.host.as_deref().unwrap_or("as the coordinator sees it"),
        data_dir = %settings.data_dir.display(),
        version = env!("CARGO_PKG_VERSION"),
        "{}",
        if obedience.has_terms() { "serving, with what the coordinator said last" } else { "waiting for the coordinator" },
    );
}

/// What a running relay has done, as it is reported.
fn load(handle: &RelayHandle) -> ria_protocol::relay::RelayLoad {
    (&handle.counters()).into()
}
