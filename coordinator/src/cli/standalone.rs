//! `relay` without a verb, and `relay check-config`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ria_protocol::relay::RelayKey;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::serve::{report, start_log};
use super::{FAILED, REFUSED, USAGE, complain, environment, print};
use crate::config::{Standalone, StandaloneFlags};
use crate::standalone::{self, StandaloneError};

#[derive(Debug, Default, Args)]
pub(super) struct StandaloneArgs {
    /// File with the key from `relay add`, for the first start; - for standard input [RIA_RELAY_KEY_FILE, or the key itself
    /// in RIA_RELAY_KEY]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Where nodes find this relay: a name or an address [RIA_RELAY_HOST; default: as the coordinator sees it]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Address and port of TURN over TLS and TCP [RIA_LISTEN; default: all addresses, port 443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where everything is kept [RIA_DATA_DIR; default: /var/lib/ria-relay]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration file [RIA_RELAY_CONFIG; default: /etc/ria/relay.toml if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl StandaloneArgs {
    fn into_flags(self) -> StandaloneFlags {
        StandaloneFlags {
            config: self.config,
            data_dir: self.data_dir,
            listen: self.listen,
            host: self.host,
            key_file: self.key_file,
        }
    }
}

/// Runs a relay until it is told to stop, or refused.
pub(super) fn run(args: StandaloneArgs) -> ExitCode {
    if let Err(code) = start_log() {
        return code;
    }
    let settings = match Standalone::load(args.into_flags(), &environment) {
        Ok(settings) => settings,
        Err(error) => return report(&error),
    };
    let key = match read_key(settings.key_file.as_deref()) {
        Ok(key) => key,
        Err(error) => return fail(&error),
    };
    crate::open_files::allow_many();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(run_until_signal(&settings, key)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run_until_signal(settings: &Standalone, key: Option<RelayKey>) -> Result<(), StandaloneError> {
    let stop = CancellationToken::new();
    let failed = |error: std::io::Error| StandaloneError::Listen(error.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let running = standalone::run(settings, key, stop.clone());
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.cancel();
    running.await
}

/// A key that can't be used is a mistake of who started this.
fn fail(error: &StandaloneError) -> ExitCode {
    complain(&error.to_string());
    ExitCode::from(match error {
        StandaloneError::Refused(_) => REFUSED,
        StandaloneError::NoKey | StandaloneError::Key(_) | StandaloneError::KeyFile { .. } => USAGE,
        StandaloneError::DataDir { .. }
        | StandaloneError::Locked(_)
        | StandaloneError::Damaged(_)
        | StandaloneError::Listen(_)
        | StandaloneError::Relay(_)
        | StandaloneError::Tls(_) => FAILED,
    })
}

/// The key, from a file, standard input or the environment. A file of the settings that is gone once the relay is known is no
/// mistake.
fn read_key(file: Option<&Path>) -> Result<Option<RelayKey>, StandaloneError> {
    let mut text = Zeroizing::new(String::new());
    let failed =
        |source| StandaloneError::KeyFile { path: file.unwrap_or(Path::new("-")).to_owned(), source };
    match file {
        Some(path) if path == Path::new("-") => {
            std::io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
        }
        Some(path) => match std::fs::read_to_string(path) {
            Ok(content) => text = Zeroizing::new(content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        },
        None => match environment("RIA_RELAY_KEY").filter(|text| !text.is_empty()) {
            Some(content) => text = Zeroizing::new(content),
            None => return Ok(None),
        },
    }
    Ok(Some(RelayKey::parse(&text)?))
}

/// Shows the settings that a relay would use here.
pub(super) fn check_config(args: StandaloneArgs, as_json: bool) -> ExitCode {
    match Standalone::load(args.into_flags(), &environment) {
        Ok(settings) if as_json => print(&format!("{:#}\n", to_json(&settings))),
        Ok(settings) => print(&to_text(&settings)),
        Err(error) if as_json => {
            let printed = print(&format!("{:#}\n", json!({ "valid": false, "mistakes": error.mistakes })));
            if printed == ExitCode::SUCCESS { ExitCode::from(USAGE) } else { printed }
        }
        Err(error) => report(&error),
    }
}

fn to_json(settings: &Standalone) -> serde_json::Value {
    let relay = &settings.relay;
    json!({
        "valid": true,
        "mistakes": [],
        "file": settings.file,
        "data_dir": settings.data_dir,
        "listen": settings.listen,
        "host": settings.host,
        "key_file": settings.key_file,
        "metrics_listen": settings.metrics_listen,
        "relay": {
            "listen": relay.listen,
            "external": relay.external,
            "outside_ports": relay.outside_ports.as_ref().map(|ports| format!("{}-{}", ports.start(), ports.end())),
            "outside_allow": relay.outside_allow,
            "node_bytes_per_second": relay.node_bytes_per_second,
            "node_allocations": relay.node_allocations,
        },
    })
}

fn to_text(settings: &Standalone) -> String {
    let relay = &settings.relay;
    let path =
        |path: Option<&PathBuf>| path.map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    fn texts<T: ToString>(all: &[T], otherwise: &str) -> String {
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        if all.is_empty() { otherwise.to_owned() } else { all.join(", ") }
    }
    let bound = |bound: Option<String>| bound.unwrap_or_else(|| "as the coordinator says".to_owned());
    let ports = relay.outside_ports.as_ref().map(|ports| format!("{}-{}", ports.start(), ports.end()));
    let rows = [
        ("file", path(settings.file.as_ref())),
        ("data_dir", settings.data_dir.display().to_string()),
        ("listen", settings.listen.to_string()),
        ("host", settings.host.clone().unwrap_or_else(|| "as the coordinator sees it".to_owned())),
        ("key_file", path(settings.key_file.as_ref())),
        ("metrics_listen", settings.metrics_listen.map_or_else(|| "none".to_owned(), |at| at.to_string())),
        ("relay.listen", texts(&relay.listen, "none")),
        ("relay.external", texts(&relay.external, "not set")),
        ("relay.outside_ports", ports.unwrap_or_else(|| "none".to_owned())),
        ("relay.outside_allow", texts(&relay.outside_allow, "none")),
        ("relay.node_bytes_per_second", bound(relay.node_bytes_per_second.map(|most| most.to_string()))),
        ("relay.node_allocations", bound(relay.node_allocations.map(|most| most.to_string()))),
    ];
    let lines = rows.map(|(key, value)| format!("{key:<27} {value}\n")).concat();
    format!("{lines}The settings are valid.\n")
}
