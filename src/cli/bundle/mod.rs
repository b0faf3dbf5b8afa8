//! `ria debug-bundle`: what somebody who helps wants to see, in one archive, without a secret in it.
//!
//! Owns what goes in. It asks the agent and the machine, with the caller's rights, and reads no key: of the state directory it
//! tells names and sizes. What comes out of logs and configuration goes through [`scrub()`] all the same.

mod scrub;
mod tar;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use self::scrub::scrub;
use super::Context;
use super::args::BundleArgs;
use super::failure::{FAILED, Failure};
use super::output::with_progress;
use crate::config::CONFIG_FILE;

/// Longest part: the end of what is longer is what matters.
const MOST: usize = 4 << 20;

/// A command that takes longer is left out.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked of the machine; what it does not have is said.
const COMMANDS: [(&str, &[&str]); 9] = [
    ("host/uname", &["uname", "-a"]),
    ("host/addresses", &["ip", "-d", "address"]),
    ("host/routes", &["ip", "route", "show", "table", "all"]),
    ("host/routes6", &["ip", "-6", "route", "show", "table", "all"]),
    ("host/rules", &["ip", "rule"]),
    ("host/sockets", &["ss", "-uanp"]),
    ("host/nft", &["nft", "list", "ruleset"]),
    ("service/status", &["systemctl", "status", "--no-pager", "ria.service"]),
    ("service/log", &["journalctl", "--no-pager", "-o", "short-iso", "-u", "ria.service", "-n", "5000"]),
];

/// What is read of the machine.
const FILES: [&str; 7] = [
    CONFIG_FILE,
    "/etc/os-release",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc/net/snmp",
    "/proc/meminfo",
    "/etc/sysctl.d/60-ria.conf",
];

const STATE_DIR: &str = "/var/lib/ria";
const RUN_DIR: &str = "/run/ria";

/// Named texts, in the order in which they are written.
type Parts = Vec<(String, String)>;

pub async fn run(context: &Context, args: &BundleArgs) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("ria-debug-{now}.tar")));
    let parts = with_progress("Collecting", collect(context)).await;
    let failed = |error: io::Error| Failure::new(FAILED, format!("can't write {}: {error}", path.display()));
    // Names and addresses of the network are in it: for who made it to pass on.
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    let mut archive = tar::Archive::new(&mut file, now);
    for (name, text) in &parts {
        archive.add(&format!("ria-debug/{name}"), scrub(text).as_bytes()).map_err(failed)?;
    }
    archive.end().map_err(failed)?;
    file.flush().and_then(|()| file.sync_all()).map_err(failed)?;
    if context.output.json {
        let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
        return Ok(context.output.value(&json!({ "file": path, "parts": names }))?);
    }
    Ok(context.output.line(format_args!(
        "wrote {}: no keys and passwords, but names and addresses of this network; see what is in it: tar -xf {0}",
        path.display()
    ))?)
}

async fn collect(context: &Context) -> Parts {
    let mut parts = vec![("version".to_owned(), format!("ria {}\n", env!("CARGO_PKG_VERSION")))];
    match ask_agent(context).await {
        Ok(told) => parts.extend(told),
        Err(failure) => parts.push(("agent/unreachable".into(), format!("{failure:?}\n"))),
    }
    for (name, line) in COMMANDS {
        parts.push((name.to_owned(), output_of(line).await));
    }
    for file in FILES {
        parts.push((format!("files{file}"), content(Path::new(file))));
    }
    let dds = fs::read_dir(Path::new(RUN_DIR).join("dds"));
    for entry in dds.into_iter().flatten().flatten().filter(|entry| entry.path().is_file()) {
        parts.push((format!("files{}", entry.path().display()), content(&entry.path())));
    }
    let mut listed = String::new();
    list(Path::new(STATE_DIR), &mut listed);
    parts.push(("state/names-and-sizes".into(), listed));
    parts
}

async fn ask_agent(context: &Context) -> Result<Parts, Failure> {
    let agent = context.agent().await?;
    let status = agent.proxy().status().await?;
    let mut parts = vec![in_json("agent/agent.json", &json!(status))];
    for network in &status.networks {
        let proxy = agent.network_at(&network.path).await?;
        let place = |name: &str| format!("agent/{}/{name}.json", network.id);
        parts.push(in_json(&place("status"), &json!(proxy.status().await?)));
        parts.push(in_json(&place("peers"), &json!(proxy.peers().await?)));
        parts.push(in_json(&place("environment"), &json!(proxy.environment().await?)));
    }
    let facts = super::doctor::told(context).await?;
    parts.push(in_json("agent/doctor.json", &facts));
    Ok(parts)
}

fn in_json(name: &str, value: &Value) -> (String, String) {
    (name.to_owned(), format!("{value:#}\n"))
}

/// What a command says, or why it said nothing.
async fn output_of(line: &[&str]) -> String {
    let [program, arguments @ ..] = line else { return String::new() };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => {
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            end_of(&format!("$ {}\n{out}{err}", line.join(" "))).to_owned()
        }
        Ok(Err(error)) => format!("$ {}\n{error}\n", line.join(" ")),
        Err(_) => format!("$ {}\ntook too long\n", line.join(" ")),
    }
}

fn content(path: &Path) -> String {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MOST as u64).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{error}\n"),
    }
}

fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(MOST);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[from..]
}

/// Names and sizes of all files, and of nothing what is in it.
fn list(directory: &Path, listed: &mut String) {
    let mut entries: Vec<_> = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => {
            let _ = writeln!(listed, "{}: {error}", directory.display());
            return;
        }
    };
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            list(&path, listed);
        } else {
            let size = path.symlink_metadata().map_or(0, |metadata| metadata.len());
            let _ = writeln!(listed, "{size:>10}  {}", path.display());
        }
    }
}
