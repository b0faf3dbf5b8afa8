//! `relay`: which relays nodes are told of.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use zeroize::Zeroizing;

use super::Common;
use super::commands::Outcome;
use super::table::table;
use crate::admin::api::{AddTurn, RelayView};
use crate::admin::client::{RequestError, escaped};

#[derive(Debug, Subcommand)]
pub(super) enum RelayCommand {
    /// List the relays that nodes are told of
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Tell nodes of another TURN server, such as coturn with use-auth-secret
    #[command(
        after_help = "Nodes get credentials of their own for it, as the TURN REST API has them (user name EXPIRY:NODE, password\n\
        an HMAC-SHA1 with the secret). A node that is removed may use it until they end (relay.credentials); its\n\
        traffic gets nowhere all the same, since nobody answers it.\n\n\
        Example:\n  ria-coordinator relay add-turn library --host turn.lab.example --secret-file /etc/turn-secret"
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
        RelayCommand::AddTurn { name, host, udp_port, secret_file, common } => {
            let secret = read_secret(&secret_file)?;
            let request = AddTurn { name, host, udp_port, secret: secret.trim().to_owned() };
            (common.client().post("/v1/relays", &request).await?, common)
        }
        RelayCommand::Remove { name, common } => {
            (common.client().delete(&format!("/v1/relays/{}", escaped(&name))).await?, common)
        }
    };
    common.show(&all, |all| relays_text(all))
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
            let host = view.host.clone().unwrap_or_else(|| "as the coordinator".to_owned());
            let tls = view.tls_port.map_or_else(|| "-".to_owned(), |port| port.to_string());
            vec![view.name.clone(), view.kind.clone(), host, view.udp_port.to_string(), tls]
        })
        .collect();
    table(&["name", "kind", "host", "udp", "tls"], &rows)
}
