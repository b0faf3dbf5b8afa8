//! `relay`: which relays nodes are told of; without a verb, such a relay itself.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ria_protocol::name::Name;
use zeroize::Zeroizing;

use super::Common;
use super::commands::{self, Outcome, now};
use super::standalone::{self, StandaloneArgs};
use super::table::table;
use crate::admin::api::{AddRelay, AddTurn, AddedRelay, RelayState, RelayView};
use crate::admin::client::{RequestError, escaped};
use crate::duration::{Lifetime, shown_relative};

/// `relay`, with a verb or without.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct RelayArgs {
    #[command(subcommand)]
    command: Option<RelayCommand>,
    #[command(flatten)]
    standalone: StandaloneArgs,
}

/// Does what is meant.
pub(super) fn dispatch(args: RelayArgs) -> ExitCode {
    match args.command {
        None => standalone::run(args.standalone),
        Some(RelayCommand::CheckConfig { standalone, json }) => standalone::check_config(standalone, json),
        Some(command) => commands::run(commands::Request::Relay(command)),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum RelayCommand {
    /// List the relays that nodes are told of
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Expect a relay on another machine, and print its key; it is shown only once
    #[command(
        after_help = "The key is all that is printed on standard output. It is good for one machine: the first that connects with it.\n\n\
        Example:\n  ria-coordinator relay add vps > relay.key     (copy it to the other machine)\n  \
        ria-coordinator relay --key-file relay.key    (there, as a service)"
    )]
    Add {
        /// A name for it, in small letters
        name: Name,
        /// Serve only this network; may be given several times [default: all]
        #[arg(long = "network", value_name = "NAME")]
        networks: Vec<Name>,
        /// How long the key is good for the first connection: 30m, 12h, 7d or never
        #[arg(long, value_name = "DURATION", default_value = "7d")]
        expires: Lifetime,
        #[command(flatten)]
        common: Common,
    },
    /// Show the settings that `relay` would use here, or every mistake in them; starts nothing
    #[command(after_help = "Example:\n  ria-coordinator relay check-config --config /etc/ria/relay.toml")]
    CheckConfig {
        #[command(flatten)]
        standalone: StandaloneArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell nodes of another TURN server, such as coturn with use-auth-secret
    #[command(
        after_help = "Nodes get credentials of their own for it, as the TURN REST API has them (user name EXPIRY:NODE, password\n\
        an HMAC-SHA1 with the secret). A node that is removed may use it until they end (relay.credentials); its\n\
        traffic gets nowhere all the same, since nobody answers it.\n\n\
        Examples:\n  ria-coordinator relay add-turn library --host turn.lab.example --secret-file /etc/turn-secret\n  \
        ria-coordinator relay add-turn library --host turn.lab.example --secret-file /etc/turn-secret \\\n    \
        --tls-port 5349 --tls-ca /etc/turn-ca.pem"
    )]
    AddTurn {
        /// A name for it, in small letters
        name: String,
        /// Where nodes find it: a name or an address
        #[arg(long)]
        host: String,
        /// Its UDP port
        #[arg(long, value_name = "PORT", default_value_t = 3478, value_parser = clap::value_parser!(u16).range(1..))]
        udp_port: u16,
        /// TCP port of TURN over TLS (turns:), where nodes may go when UDP does not get out; needs --tls-ca
        #[arg(long, value_name = "PORT", requires = "tls_ca", value_parser = clap::value_parser!(u16).range(1..))]
        tls_port: Option<u16>,
        /// File with the certificate (PEM) of the authority that has issued the server's, or with that one itself
        #[arg(long, value_name = "FILE", requires = "tls_port")]
        tls_ca: Option<PathBuf>,
        /// File with its secret (static-auth-secret); - for standard input
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Nodes leave it at once
    Remove {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) async fn run(command: RelayCommand) -> Outcome {
    let (all, common): (Vec<RelayView>, Common) = match command {
        RelayCommand::List { common } => (common.client().get("/v1/relays").await?, common),
        RelayCommand::Add { name, networks, expires, common } => {
            let request = AddRelay { name, networks, expires_after: expires.seconds() };
            let added: AddedRelay = common.client().post("/v1/standalone-relays", &request).await?;
            return common.show(&added, |added| format!("{}\n", added.key));
        }
        RelayCommand::AddTurn { name, host, udp_port, tls_port, tls_ca, secret_file, common } => {
            let secret = read_secret(&secret_file)?;
            let tls_ca = tls_ca.map(|file| read_text(&file)).transpose()?;
            let secret = secret.trim().to_owned();
            let request = AddTurn { name, host, udp_port, tls_port, tls_ca, secret };
            (common.client().post("/v1/relays", &request).await?, common)
        }
        RelayCommand::Remove { name, common } => {
            (common.client().delete(&format!("/v1/relays/{}", escaped(&name))).await?, common)
        }
        RelayCommand::CheckConfig { .. } => {
            return Err(RequestError::Input("it asks no coordinator".to_owned()));
        }
    };
    common.show(&all, |all| relays_text(all))
}

fn read_text(file: &Path) -> Result<String, RequestError> {
    std::fs::read_to_string(file).map_err(|error| RequestError::Input(format!("{}: {error}", file.display())))
}

fn read_secret(file: &Path) -> Result<Zeroizing<String>, RequestError> {
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)).map(|_| ())
    };
    read.map_err(|error| RequestError::Input(format!("{}: {error}", file.display())))?;
    Ok(text)
}

fn relays_text(all: &[RelayView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|view| {
            let own = if view.kind == "own" { "as the coordinator" } else { "-" };
            let host = view.host.clone().unwrap_or_else(|| own.to_owned());
            let port = |port: u16| if port == 0 { "-".to_owned() } else { port.to_string() };
            let (clients, relayed, dropped) = load_text(view);
            vec![
                view.name.clone(),
                view.kind.clone(),
                host,
                port(view.udp_port),
                port(view.tls_port.unwrap_or(0)),
                state_text(view),
                clients,
                relayed,
                dropped,
            ]
        })
        .collect();
    table(&["name", "kind", "host", "udp", "tls", "state", "clients", "relayed", "dropped"], &rows)
}

fn state_text(view: &RelayView) -> String {
    let Some(known) = &view.standalone else { return "-".to_owned() };
    let since = known.since.map(|at| shown_relative(at, now())).unwrap_or_default();
    let version = known.version.as_deref().unwrap_or_default();
    match (known.state, known.key_expires) {
        (RelayState::Connected, _) => format!("connected {since}, version {version}"),
        (RelayState::Away, _) if known.since.is_none() => "away".to_owned(),
        (RelayState::Away, _) => format!("away, left {since}"),
        (RelayState::Expected, Some(end)) if end <= now() => "never came, its key has expired".to_owned(),
        (RelayState::Expected, Some(end)) => format!("expected, its key ends {}", shown_relative(end, now())),
        (RelayState::Expected, None) => "expected".to_owned(),
    }
}

/// Clients, bytes relayed, and datagrams dropped by reason.
fn load_text(view: &RelayView) -> (String, String, String) {
    let dash = || "-".to_owned();
    let Some(load) = &view.load else { return (dash(), dash(), dash()) };
    let clients = match load.streams {
        0 => load.clients.to_string(),
        streams => format!("{} ({streams} over TCP)", load.clients),
    };
    let drops = |drops: &BTreeMap<String, u64>| {
        let each = drops.iter().map(|(reason, count)| format!("{count} {reason}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let dropped = drops(&load.drops);
    (clients, format!("{} MB", load.bytes / 1_000_000), if dropped.is_empty() { dash() } else { dropped })
}
