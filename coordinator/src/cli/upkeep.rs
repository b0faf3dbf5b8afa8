//! `backup`, `restore` and `audit verify`: what also works while no coordinator runs.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use ria_protocol::message::from_bytes;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Common, FAILED, ServeArgs, complain, environment, print};
use crate::admin::api::{AuditView, ChainView};
use crate::admin::client::RequestError;
use crate::backup::restore::{Plan, Restored};
use crate::backup::seal::Passphrase;
use crate::backup::{self, Archive, files, seal};
use crate::config::Config;
use crate::duration::shown;
use crate::evidence::{self, Claim, Examined};
use crate::registry::known_authority;
use crate::store::{AuditQuery, Store};
use crate::tls::authority::Identity;
use crate::{anchor, epoch, server};

/// Where a passphrase comes from.
#[derive(Debug, Args)]
pub(super) struct Secret {
    /// File whose first line is the passphrase of the backup [RIA_BACKUP_PASSPHRASE_FILE; default: none]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Where to; - for standard output [default: ria-coordinator-EPOCH-TIME.backup here]
    file: Option<PathBuf>,
    #[command(flatten)]
    secret: Secret,
    /// Do not encrypt it: whoever can read the file is the coordinator
    #[arg(long, conflicts_with = "passphrase_file")]
    unencrypted: bool,
    /// Data directory, where no coordinator runs [RIA_DATA_DIR; default: /var/lib/ria-coordinator]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup; - for standard input
    file: PathBuf,
    #[command(flatten)]
    secret: Secret,
    /// Keep what is in the data directory aside, and put the backup in its place
    #[arg(long)]
    force: bool,
    /// Leave the join keys of the backup valid; some may have been revoked after it was made
    #[arg(long)]
    keep_keys: bool,
    /// Configuration file [RIA_COORDINATOR_CONFIG; default: /etc/ria/coordinator.toml if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept [RIA_DATA_DIR; default: /var/lib/ria-coordinator]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Data directory, where no coordinator runs [RIA_DATA_DIR; default: /var/lib/ria-coordinator]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File with heads (audit head) or rows (audit export) that were kept elsewhere: the log has to be what they saw
    #[arg(long, value_name = "FILE")]
    witness: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Runs one of them and turns what comes of it into an exit code.
fn finish(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(work));
    done.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::from(FAILED)
    })
}

fn settings(config: Option<PathBuf>, data_dir: Option<PathBuf>) -> anyhow::Result<(PathBuf, String)> {
    let args = ServeArgs { config, data_dir, ..ServeArgs::default() };
    let config = Config::load(args.into_flags(), &environment)?;
    let database = config.database_url()?;
    Ok((config.data_dir, database))
}

fn passphrase(secret: &Secret) -> anyhow::Result<Option<Passphrase>> {
    let set = environment("RIA_BACKUP_PASSPHRASE_FILE").filter(|text| !text.is_empty()).map(PathBuf::from);
    let Some(path) = secret.passphrase_file.clone().or(set) else { return Ok(None) };
    Ok(Some(backup::passphrase(&path)?))
}

pub(super) fn backup(args: BackupArgs) -> ExitCode {
    finish(async move {
        let passphrase = passphrase(&args.secret)?.filter(|_| !args.unencrypted);
        if passphrase.is_none() && !args.unencrypted {
            bail!(
                "a backup holds the key of the authority that all nodes trust: name a file with a passphrase for it \
                 (--passphrase-file), or say --unencrypted"
            );
        }
        let to_stdout = args.file.as_deref() == Some(Path::new("-"));
        if to_stdout && io::stdout().is_terminal() {
            bail!("a backup is no text for a terminal; name a file, or send standard output somewhere");
        }
        let content = contents(&args).await?;
        let archive: Archive = from_bytes(&content).context("the coordinator's answer can't be read")?;
        let file = seal::seal(&content, passphrase.as_ref())?;
        let summary = json!({
            "file": args.file,
            "made": archive.made,
            "epoch": archive.epoch.number,
            "bytes": file.len(),
            "encrypted": passphrase.is_some(),
        });
        if to_stdout {
            io::stdout().lock().write_all(&file).context("the backup can't be written")?;
            complain(&format!("backup of {} written", shown(archive.made)));
            return Ok(ExitCode::SUCCESS);
        }
        let name = || backup::schedule::file_name(&archive).into();
        let path = args.file.clone().unwrap_or_else(name);
        files::write_private(&path, &file)
            .with_context(|| format!("the backup can't be written to {}", path.display()))?;
        Ok(print(&if args.common.json {
            let mut summary = summary;
            summary["file"] = json!(path);
            format!("{summary:#}\n")
        } else {
            let how =
                if passphrase.is_some() { "encrypted" } else { "not encrypted: keep it as secret as a key" };
            format!("{}: {} bytes, {how}.\n", path.display(), file.len())
        }))
    })
}

/// The archive, from the coordinator that runs, or from its data directory.
async fn contents(args: &BackupArgs) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match args.common.client().post_for_bytes("/v1/backup").await {
        Ok(bytes) => return Ok(Zeroizing::new(bytes)),
        Err(RequestError::NotRunning { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let (data_dir, database) = settings(None, args.data_dir.clone())?;
    let (_lock, store) = open(&data_dir, &database).await?;
    epoch::ensure_first(&store).await?;
    let content = backup::collect(&data_dir, &store).await;
    store.close().await;
    Ok(content?)
}

type Lock = nix::fcntl::Flock<fs::File>;

/// A database that nobody serves.
async fn open(data_dir: &Path, database: &str) -> anyhow::Result<(Lock, Store)> {
    if let Some(path) = crate::store::missing_file(database) {
        bail!(
            "no coordinator runs here, and there is none at {}; name its directory with --data-dir",
            path.display()
        );
    }
    let lock = server::lock(data_dir)?;
    Ok((lock, Store::open(database).await?))
}

pub(super) fn restore(args: RestoreArgs) -> ExitCode {
    finish(async move {
        let passphrase = passphrase(&args.secret)?;
        let (data_dir, database) = settings(args.config, args.data_dir)?;
        let mut file = Vec::new();
        let read = if args.file == Path::new("-") {
            io::stdin().lock().read_to_end(&mut file).map(drop)
        } else {
            fs::read(&args.file).map(|content| file = content)
        };
        read.with_context(|| format!("{} can't be read", args.file.display()))?;
        let plan = Plan { data_dir, database, force: args.force, keep_keys: args.keep_keys };
        let restored = backup::restore::restore(&file, passphrase.as_ref(), &plan).await?;
        Ok(print(&if args.json {
            format!("{:#}\n", restored_json(&restored, &plan))
        } else {
            restored_text(&restored, &plan)
        }))
    })
}

fn restored_json(restored: &Restored, plan: &Plan) -> serde_json::Value {
    json!({
        "data_dir": plan.data_dir,
        "backup_made": restored.made,
        "epoch": restored.began.epoch.number,
        "nodes": restored.nodes,
        "audit_rows": restored.began.base.seq + 1,
        "urls": restored.urls,
        "keys_revoked": !plan.keep_keys,
        "aside": restored.aside,
    })
}

fn restored_text(restored: &Restored, plan: &Plan) -> String {
    let mut text = format!(
        "Restored into {}: {} nodes, as of {}; epoch {} begins.\n",
        plan.data_dir.display(),
        restored.nodes,
        shown(restored.made),
        restored.began.epoch.number
    );
    if let Some(aside) = &restored.aside {
        text += &format!("What was there before is kept in {}.\n", aside.display());
    }
    if !plan.keep_keys {
        text += "Join keys of the backup are revoked: make new ones with `key create`.\n";
    }
    let urls = if restored.urls.is_empty() { "nowhere yet".to_owned() } else { restored.urls.join(", ") };
    text + &format!(
        "Nodes look for the coordinator at {urls}. Start it where one of these leads, with\n  \
         ria-coordinator serve --public-url URL\n\
         and never start the old one again. A node that finds none of them: ria set-url URL, on the node.\n"
    )
}

pub(super) fn verify(args: VerifyArgs) -> ExitCode {
    finish(async move {
        let claims = args.witness.as_deref().map(read_claims).transpose()?;
        let client = args.common.client();
        let (chain, witness) = match client.get::<AuditView>("/v1/audit?limit=1&whole=true").await {
            Ok(view) => {
                let asked =
                    async |claims: &Vec<Claim>| client.post::<Examined>("/v1/audit/witness", claims).await;
                let witness = if let Some(claims) = &claims { Some(asked(claims).await?) } else { None };
                (view.chain, witness)
            }
            Err(RequestError::NotRunning { .. }) => {
                verify_here(args.data_dir.clone(), claims.as_deref()).await?
            }
            Err(error) => return Err(error.into()),
        };
        let problems = witness.as_ref().map_or(&[][..], |witness| &witness.problems);
        let well = chain.intact && problems.is_empty();
        let shown = if args.common.json {
            let told = json!({
                "intact": chain.intact, "problem": chain.problem, "length": chain.length, "witness": witness,
            });
            format!("{told:#}\n")
        } else {
            verdict_text(&chain, witness.as_ref())
        };
        let printed = print(&shown);
        Ok(if well { printed } else { ExitCode::from(FAILED) })
    })
}

fn read_claims(path: &Path) -> anyhow::Result<Vec<Claim>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    let claims = evidence::claims(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    if claims.is_empty() {
        bail!("{} has no heads and no rows in it", path.display());
    }
    Ok(claims)
}

fn verdict_text(chain: &ChainView, witness: Option<&Examined>) -> String {
    let mut lines = vec![match &chain.problem {
        None => format!("The chain of all {} rows is intact.", chain.length),
        Some(problem) => format!("THE LOG WAS TAMPERED WITH: {problem}."),
    }];
    let problems = witness.map_or(&[][..], |witness| &witness.problems);
    lines.extend(problems.iter().map(|problem| format!("THE LOG IS NOT WHAT IT WAS: {problem}.")));
    lines.extend(witness.iter().flat_map(|witness| &witness.notes).map(|note| format!("note: {note}")));
    if chain.intact {
        lines.push(evidence::limits(witness, chain.length));
    }
    lines.join("\n") + "\n"
}

async fn verify_here(
    data_dir: Option<PathBuf>,
    claims: Option<&[Claim]>,
) -> anyhow::Result<(ChainView, Option<Examined>)> {
    let (data_dir, database) = settings(None, data_dir)?;
    let (_lock, store) = open(&data_dir, &database).await?;
    let world = store.load().await?;
    let head = world.audit_head;
    let (_, verdict) = store.audit(AuditQuery { limit: 1, ..AuditQuery::default() }, head).await?;
    let noted = anchor::holds(&data_dir, &store).await?;
    let witness = match claims {
        Some(claims) => {
            let authority = Identity::load_or_create(&data_dir, known_authority(&store).await?)?.authority;
            let older = authority.older().iter().map(|older| older.pin);
            let pins: Vec<_> = std::iter::once(authority.pin()).chain(older).collect();
            Some(evidence::examine(&store, &world, &pins, claims).await?)
        }
        None => None,
    };
    store.close().await;
    let problem = match (verdict, noted) {
        (Err(broken), _) => Some(broken.to_string()),
        (Ok(_), Err(last)) => {
            Some(format!("row {} was there when the coordinator stopped, and is not", last.seq))
        }
        (Ok(_), Ok(())) => None,
    };
    Ok((ChainView { intact: problem.is_none(), problem, length: head.seq, whole: None }, witness))
}
