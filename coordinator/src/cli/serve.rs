//! `serve` and `check-config`.

use std::io::IsTerminal;
use std::process::ExitCode;

use ria_service::{Watchdog, notify};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{FAILED, ServeArgs, USAGE, complain, environment, print};
use crate::admin::client::Client;
use crate::config::{BackupSchedule, CONFIG_VARIABLE, Config, ConfigError, PublicUrl};
use crate::duration::shown_span;
use crate::open_files;
use crate::server::Coordinator;

/// Runs until it is told to stop.
pub(super) fn serve(args: ServeArgs) -> ExitCode {
    if let Err(code) = start_log() {
        return code;
    }
    let config = match Config::load(args.into_flags(), &environment) {
        Ok(config) => config,
        Err(error) => return report(&error),
    };
    if environment("RIA_CONFIG").is_some() && environment(CONFIG_VARIABLE).is_none() {
        tracing::warn!(
            "RIA_CONFIG names the settings of the agent; those of the coordinator: {CONFIG_VARIABLE}"
        );
    }
    open_files::allow_many();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(&config)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Logs on standard error from now on, as much as RIA_LOG says.
pub(super) fn start_log() -> Result<(), ExitCode> {
    let wanted = environment("RIA_LOG").filter(|text| !text.is_empty());
    let filter = log_filter(wanted.as_deref().unwrap_or("info")).map_err(|error| {
        complain(&format!("RIA_LOG: {error}; give a level, such as debug, or TARGET=LEVEL with commas"));
        ExitCode::from(USAGE)
    })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    Ok(())
}

/// What libraries say of ordinary things, such as a packet of a stranger, is left out unless it is asked for.
fn log_filter(wanted: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(format!("sqlx=warn,stun_types=error,{wanted}"))
}

async fn run(config: &Config) -> anyhow::Result<()> {
    // Asked for before anything starts: a signal that comes early is not lost.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let coordinator = Coordinator::start(config).await?;
    notify("READY=1");
    if let Some(link) = coordinator.owner_link().await {
        let warned = coordinator.page_fingerprint().map_or_else(String::new, |fingerprint| {
            format!(
                "The browser will warn: it does not know this coordinator's own authority. The certificate that it shows has the \
                 SHA-256 fingerprint\n  {fingerprint}\n"
            )
        });
        print(&format!(
            "Nobody can log in yet. Become the first owner within a day, by this link (good once):\n  {link}\n{warned}"
        ));
    }
    tokio::select! {
        () = feed_watchdog(config) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    notify("STOPPING=1");
    tracing::info!("stopping: nodes are told to come back");
    coordinator.stop().await;
    Ok(())
}

/// Tells a service manager that waits for it that the coordinator is alive: it answers what an admin asks.
async fn feed_watchdog(config: &Config) {
    let Some(mut watchdog) = Watchdog::of_this_process() else { return std::future::pending().await };
    let admin = Client::new(config.admin_socket.clone());
    loop {
        match admin.get::<serde_json::Value>("/v1/networks").await {
            Ok(_) => watchdog.feed(),
            Err(error) => tracing::warn!(%error, "the watchdog is not told that all is well"),
        }
        tokio::time::sleep(watchdog.every()).await;
    }
}

pub(super) fn report(error: &ConfigError) -> ExitCode {
    for mistake in &error.mistakes {
        complain(mistake);
    }
    let count = error.mistakes.len();
    complain(&format!("{count} {} in the settings", if count == 1 { "mistake" } else { "mistakes" }));
    ExitCode::from(USAGE)
}

/// Shows the settings that `serve` would use.
pub(super) fn check_config(args: ServeArgs, as_json: bool) -> ExitCode {
    match Config::load(args.into_flags(), &environment) {
        Ok(config) if as_json => print(&format!("{:#}\n", to_json(&config))),
        Ok(config) => print(&to_text(&config)),
        Err(error) if as_json => {
            let printed = print(&format!("{:#}\n", json!({ "valid": false, "mistakes": error.mistakes })));
            if printed == ExitCode::SUCCESS { ExitCode::from(USAGE) } else { printed }
        }
        Err(error) => report(&error),
    }
}

fn to_json(config: &Config) -> serde_json::Value {
    json!({
        "valid": true,
        "mistakes": [],
        "file": config.file,
        "data_dir": config.data_dir,
        "listen": config.listen,
        "public_url": config.public_urls.iter().map(PublicUrl::as_str).collect::<Vec<_>>(),
        "database": config.database,
        "database_password_file": config.database_password_file,
        "admin_socket": config.admin_socket,
        "metrics_listen": config.metrics_listen,
        "pages": {
            "certificate": config.page_certificate.as_ref().map(|files| &files.certificate),
            "key": config.page_certificate.as_ref().map(|files| &files.key),
        },
        "backup": config.backup.as_ref().map(|schedule| json!({
            "directory": schedule.directory,
            "passphrase_file": schedule.passphrase_file,
            "every": schedule.every.as_secs(),
            "keep": schedule.keep,
        })),
        "oidc": config.oidc.as_ref().map(|oidc| json!({
            "issuer": oidc.issuer,
            "client_id": oidc.client_id,
            "client_secret_file": oidc.client_secret_file,
            "ca": oidc.ca,
            "label": oidc.label,
            "scopes": oidc.scopes,
            "name_claim": oidc.name_claim,
            "groups_claim": oidc.groups_claim,
            "domains": oidc.admits.domains,
            "groups": oidc.admits.groups,
            "claims": oidc.admits.claims,
            "role": oidc.role,
            "role_in": oidc.role_in,
        })),
        "admission": {
            "handshakes": config.admission.handshakes,
            "resumes": config.admission.resumes,
        },
        "laptops": {
            "revalidate": config.laptops.revalidate.as_secs(),
            "role": config.laptops.role,
        },
        "relay": {
            "enabled": config.relay.enabled,
            "listen": config.relay.listen,
            "external": config.relay.external,
            "credentials": config.relay.credentials.as_secs(),
            "outside_ports": shown_ports(config),
            "outside_allow": config.relay.outside_allow,
            "node_bytes_per_second": config.relay.node_bytes_per_second,
            "node_allocations": config.relay.node_allocations,
        },
        "certificates": {
            "lifetime": config.lifetimes.certificate.as_secs(),
            "membership": config.lifetimes.membership.as_secs(),
        },
    })
}

fn shown_ports(config: &Config) -> Option<String> {
    config.relay.outside_ports.as_ref().map(|ports| format!("{}-{}", ports.start(), ports.end()))
}

fn shown_bound(bound: Option<impl ToString>) -> String {
    bound.map_or_else(|| "default".to_owned(), |bound| bound.to_string())
}

fn shown_schedule(schedule: &BackupSchedule) -> String {
    let every = shown_span(schedule.every.as_secs());
    format!("{}, every {every}, the last {}", schedule.directory.display(), schedule.keep)
}

fn to_text(config: &Config) -> String {
    let shown = |value: String, otherwise: &str| if value.is_empty() { otherwise.to_owned() } else { value };
    let urls: Vec<_> = config.public_urls.iter().map(PublicUrl::as_str).collect();
    let listen: Vec<_> = config.relay.listen.iter().map(ToString::to_string).collect();
    let external: Vec<_> = config.relay.external.iter().map(ToString::to_string).collect();
    let allowed: Vec<_> = config.relay.outside_allow.iter().map(ToString::to_string).collect();
    let file = config.file.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    let rows = [
        ("file", shown(file, "none")),
        ("data_dir", config.data_dir.display().to_string()),
        ("listen", config.listen.to_string()),
        ("public_url", shown(urls.join(", "), "not set: `key create` needs it")),
        ("database", config.database.clone().unwrap_or_else(|| "SQLite in the data directory".to_owned())),
        ("admin_socket", config.admin_socket.display().to_string()),
        ("metrics_listen", config.metrics_listen.map_or_else(|| "none".to_owned(), |at| at.to_string())),
        (
            "pages.certificate",
            config
                .page_certificate
                .as_ref()
                .map_or_else(|| "own authority".to_owned(), |files| files.certificate.display().to_string()),
        ),
        ("backup", config.backup.as_ref().map_or_else(|| "by hand".to_owned(), shown_schedule)),
        ("oidc.issuer", config.oidc.as_ref().map_or_else(|| "none".to_owned(), |oidc| oidc.issuer.clone())),
        ("admission.handshakes", config.admission.handshakes.to_string()),
        ("admission.resumes", config.admission.resumes.to_string()),
        ("laptops.revalidate", shown_span(config.laptops.revalidate.as_secs())),
        ("laptops.role", config.laptops.role.name().to_owned()),
        ("relay.enabled", config.relay.enabled.to_string()),
        ("relay.listen", listen.join(", ")),
        ("relay.external", shown(external.join(", "), "not set")),
        ("relay.credentials", shown_span(config.relay.credentials.as_secs())),
        ("relay.outside_ports", shown_ports(config).unwrap_or_else(|| "none".to_owned())),
        ("relay.outside_allow", shown(allowed.join(", "), "none")),
        ("relay.node_bytes_per_second", shown_bound(config.relay.node_bytes_per_second)),
        ("relay.node_allocations", shown_bound(config.relay.node_allocations)),
        ("certificates.lifetime", shown_span(config.lifetimes.certificate.as_secs())),
        ("certificates.membership", shown_span(config.lifetimes.membership.as_secs())),
    ];
    let lines = rows.map(|(key, value)| format!("{key:<27} {value}\n")).concat();
    format!("{lines}The settings are valid.\n")
}
