//! The trial of a new program: it is put in place, watched, and kept only when the agent is as well as it was before.
//! Else the program from before comes back.
//!
//! Three may take part, and any of them may die: the command, which only looks on; the watcher, a process of its own that
//! decides; and the guard, which the service runs before each start of the agent and which is the program from before. It
//! gives the new one up when it does not stay up, and starts the watcher again when that is gone, as after a power cut.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ria_api::client::Agent;
use ria_api::state::CoordinatorState;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::release::Version;
use crate::cli::Context;
use crate::cli::failure::{FAILED, Failure};
use crate::cli::service::{DIRECTORY, PREVIOUS, PROGRAM, place};

/// What goes on, and what came of it.
const TRIAL_FILE: &str = "/var/lib/ria/update.json";
const OUTCOME_FILE: &str = "/var/lib/ria/updated.json";

/// The agent has to be well for so long.
const STEADY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long the program from before may take to be there again, for the report.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// A new agent that has to be started so often is no good.
const MOST_STARTS: u32 = 3;

/// A trial that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub from: Version,
    pub to: Version,
    /// The program on trial.
    pub program: PathBuf,
    /// Seconds that it has.
    pub patience: u64,
    /// Networks, by id, whose coordinator was reached before.
    pub connected: Vec<String>,
    /// How often the service has started it.
    #[serde(default)]
    pub starts: u32,
    /// The guard has put the program from before in its place.
    #[serde(default)]
    pub given_up: bool,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the new program stays.
    pub updated: bool,
    pub from: Version,
    pub to: Version,
    /// What happened, for people.
    pub text: String,
}

/// The trial that goes on, if one does.
pub fn current() -> Result<Option<Trial>, Failure> {
    read(Path::new(TRIAL_FILE))
}

/// How well the agent is.
struct Look {
    version: String,
    boot_id: String,
    connected: Vec<String>,
}

/// Networks whose coordinator is reached now; none without an agent.
pub async fn connected(context: &Context) -> Vec<String> {
    look(context).await.map(|look| look.connected).unwrap_or_default()
}

async fn look(context: &Context) -> Result<Look, Failure> {
    let agent = Agent::connect(context.global.socket.as_deref()).await?;
    let status = agent.proxy().status().await?;
    let mut connected = Vec::new();
    for network in &status.networks {
        let network = agent.network_at(&network.path).await?.status().await?;
        if network.coordinator_state == CoordinatorState::Connected {
            connected.push(network.network_id);
        }
    }
    Ok(Look { version: status.version, boot_id: status.boot_id, connected })
}

impl Trial {
    /// Keeps the program that is there now for the way back, and has the watcher begin.
    pub fn begin(&self) -> Result<(), Failure> {
        keep_previous()?;
        remove(Path::new(OUTCOME_FILE))?;
        write(Path::new(TRIAL_FILE), self)?;
        start_watcher().map_err(|error| {
            // Nothing has happened yet.
            let _ = remove(Path::new(TRIAL_FILE));
            Failure::new(FAILED, format!("can't start the process that watches over the update: {error}"))
        })
    }

    /// Looks on until the watcher has decided.
    pub async fn outcome(&self) -> Result<Outcome, Failure> {
        let end = Instant::now() + Duration::from_secs(self.patience) + BACK_WITHIN * 2;
        while Instant::now() < end {
            if let Some(outcome) = read::<Outcome>(Path::new(OUTCOME_FILE))? {
                return Ok(outcome);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(Failure::new(
            FAILED,
            "the process that watches over the update says nothing; see: journalctl -u ria-update",
        ))
    }

    /// Why the agent is not as it should be.
    fn judge(&self, look: &Look) -> Result<(), String> {
        if look.version != self.to.to_string() {
            return Err(format!("the agent that runs is still {}", look.version));
        }
        let missing = self.connected.iter().filter(|id| !look.connected.contains(id)).count();
        if missing == 0 {
            return Ok(());
        }
        Err(format!("the coordinator of {missing} network(s) is not reached, as it was before"))
    }

    async fn is_passed(&self, context: &Context) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(self.patience);
        let mut well_since: Option<(Instant, String)> = None;
        let mut why = "no agent answers".to_owned();
        while Instant::now() < end {
            if current().ok().flatten().is_some_and(|trial| trial.given_up) {
                return Err(format!("the new agent ended {MOST_STARTS} times; see: journalctl -u ria"));
            }
            let judged = match look(context).await {
                Ok(look) => self.judge(&look).map(|()| look.boot_id),
                Err(Failure::Told { text, .. }) => Err(text),
                Err(Failure::Silent { .. }) => Err("no agent answers".into()),
            };
            match (judged, &well_since) {
                (Ok(run), Some((since, same))) if run == *same => {
                    if since.elapsed() >= STEADY {
                        return Ok(());
                    }
                }
                (Ok(run), _) => well_since = Some((Instant::now(), run)),
                (Err(reason), _) => (why, well_since) = (reason, None),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(format!("after {} s: {why}", self.patience))
    }

    /// Puts the program from before in its place again.
    async fn take_back(&self, context: &Context) -> String {
        if let Err(why) = install(Path::new(PREVIOUS)) {
            return format!("{} could not be put back: {why}; by hand: sudo {PREVIOUS} install", self.from);
        }
        let end = Instant::now() + BACK_WITHIN;
        while Instant::now() < end {
            if look(context).await.is_ok_and(|look| look.version == self.from.to_string()) {
                return format!("{} runs again", self.from);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        format!("{} is in its place again, and does not answer yet; see: systemctl status ria", self.from)
    }
}

/// `ria update --watch`: tries the program and decides.
pub async fn watch(context: &Context) -> Result<(), Failure> {
    let Some(trial) = current()? else { return Ok(()) };
    let passed = match install(&trial.program) {
        _ if trial.given_up => {
            Err(format!("the new agent ended {MOST_STARTS} times; see: journalctl -u ria"))
        }
        Ok(()) => trial.is_passed(context).await,
        Err(why) => Err(format!("it can't be installed: {why}")),
    };
    let (updated, text) = match passed {
        Ok(()) => (true, format!("updated from {} to {}", trial.from, trial.to)),
        Err(why) => {
            let back = trial.take_back(context).await;
            (false, format!("{} was tried and taken back: {why}. {back}", trial.to))
        }
    };
    let Trial { from, to, program, .. } = trial;
    remove(&program)?;
    write(Path::new(OUTCOME_FILE), &Outcome { updated, from, to, text })?;
    remove(Path::new(TRIAL_FILE))
}

/// `ria update --guard`: before each start of the agent, by the program from before.
pub fn guard() -> Result<(), Failure> {
    let Some(mut trial) = current()? else { return Ok(()) };
    trial.starts = trial.starts.saturating_add(1);
    if trial.starts >= MOST_STARTS && !trial.given_up {
        let mut previous =
            fs::File::open(PREVIOUS).map_err(|error| failed("read", Path::new(PREVIOUS), &error))?;
        place(Path::new(PROGRAM), &mut previous, 0o755)?;
        trial.given_up = true;
    }
    write(Path::new(TRIAL_FILE), &trial)?;
    // One that is there already keeps a second one out.
    let _ = start_watcher();
    Ok(())
}

fn keep_previous() -> Result<(), Failure> {
    let mut now = fs::File::open(PROGRAM).map_err(|error| failed("read", Path::new(PROGRAM), &error))?;
    fs::create_dir_all(DIRECTORY).map_err(|error| failed("make", Path::new(DIRECTORY), &error))?;
    place(Path::new(PREVIOUS), &mut now, 0o755).map(drop)
}

/// Starts the watcher where no terminal, no login and no restart of the agent takes it along.
fn start_watcher() -> io::Result<()> {
    let watch = [PREVIOUS, "update", "--watch"];
    let mut command = if Path::new("/run/systemd/system").is_dir() {
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--collect", "--unit=ria-update", "--description=Ria: an update on trial"]);
        command
    } else {
        let mut command = Command::new("setsid");
        command.arg("--fork");
        command
    };
    command.args(watch).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} failed ({status})"))) }
}

/// Has a program put itself in its place, with all that belongs to it, and start anew.
fn install(program: &Path) -> Result<(), String> {
    let output = Command::new(program).args(["install", "--json"]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("{}: {error}", program.display())),
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(FAILED, format!("can't {what} {}: {error}", path.display()))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    match fs::read(path) {
        Ok(content) => serde_json::from_slice(&content).map(Some).map_err(|error| {
            Failure::new(FAILED, format!("{} is damaged ({error}); remove it", path.display()))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let content = serde_json::to_vec(value).map_err(|error| Failure::new(FAILED, error.to_string()))?;
    place(path, &mut content.as_slice(), 0o600).map(drop)
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(connected: &[&str]) -> Trial {
        let connected = connected.iter().map(|&id| id.to_owned()).collect();
        let (from, to) = ("0.1.0".parse().unwrap(), "0.2.0".parse().unwrap());
        Trial { from, to, program: "/x".into(), patience: 1, connected, starts: 0, given_up: false }
    }

    #[test]
    fn an_agent_has_to_be_the_new_one_and_as_connected_as_the_old_one_was() {
        let look = |version: &str, connected: &[&str]| Look {
            version: version.into(),
            boot_id: String::new(),
            connected: connected.iter().map(|&id| id.to_owned()).collect(),
        };
        let judged = |trial: Trial, look: Look| trial.judge(&look).is_ok();
        assert!(judged(trial(&["a"]), look("0.2.0", &["b", "a"])));
        assert!(judged(trial(&[]), look("0.2.0", &[])), "the coordinator was away before, too");
        assert!(!judged(trial(&["a", "b"]), look("0.2.0", &["a"])));
        assert!(!judged(trial(&[]), look("0.1.0", &[])));
    }
}
