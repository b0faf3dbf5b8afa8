//! `ca`: the certification authority and those before it.

use clap::Subcommand;

use super::Common;
use super::commands::Outcome;
use super::table::table;
use crate::admin::api::{AuthorityStatus, AuthorityView};
use crate::admin::client::escaped;
use crate::duration::shown;

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// List the certification authorities: the one in use, and those before it
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show the authority in use: its fingerprint, or its certificate for browsers and programs
    #[command(
        after_help = "Example:\n  ria-coordinator ca show --pem > ca.pem    (for curl --cacert, Prometheus, or a browser's authorities)"
    )]
    Show {
        /// Print its certificate (PEM)
        #[arg(long)]
        pem: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Put a new authority in the place of the one in use; no node has to join again
    #[command(
        after_help = "The old authority vouches for the new one, and its private key is erased. Nodes that are connected\n\
        are told at once, others when they come; join keys that were made before go on working."
    )]
    Roll {
        #[command(flatten)]
        common: Common,
    },
    /// Have nodes no longer trust an authority that is not in use any more
    #[command(
        after_help = "Example:\n  ria-coordinator ca retire 1f6a09c2    (IDs: ria-coordinator ca list)"
    )]
    Retire {
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) async fn run(command: CaCommand) -> Outcome {
    let (all, common): (Vec<AuthorityView>, Common) = match command {
        CaCommand::Show { pem, common } => return show(pem, common).await,
        CaCommand::List { common } => (common.client().get("/v1/ca").await?, common),
        CaCommand::Roll { common } => (common.client().post("/v1/ca/roll", &()).await?, common),
        CaCommand::Retire { id, common } => {
            (common.client().post(&format!("/v1/ca/{}/retire", escaped(&id)), &()).await?, common)
        }
    };
    common.show(&all, |all| text(all))
}

async fn show(pem: bool, common: Common) -> Outcome {
    let all: Vec<AuthorityView> = common.client().get("/v1/ca").await?;
    let in_use = all.into_iter().find(|authority| authority.status == AuthorityStatus::InUse);
    common.show(&in_use, |in_use| in_use.as_ref().map_or_else(String::new, |in_use| one(in_use, pem)))
}

fn one(authority: &AuthorityView, pem: bool) -> String {
    if pem {
        return authority.certificate.clone().unwrap_or_default();
    }
    let fingerprint = authority.fingerprint.as_deref().unwrap_or("not told by a coordinator of this version");
    let AuthorityView { id, ends, pin, .. } = authority;
    let ends = shown(*ends);
    format!(
        "Ria coordinator CA {id}, until {ends}\nSHA-256 of the certificate: {fingerprint}\nSHA-256 of its key, as in join keys: {pin}\n"
    )
}

fn text(all: &[AuthorityView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|authority| {
            let status = match authority.status {
                AuthorityStatus::InUse => "in use",
                AuthorityStatus::Trusted => "trusted",
                AuthorityStatus::Retired => "retired",
            };
            vec![authority.id.clone(), status.to_owned(), shown(authority.ends), authority.pin.to_string()]
        })
        .collect();
    table(&["id", "status", "ends", "fingerprint"], &rows)
}
