//! The machine that the service is installed on: this one with its systemd, or an image that is only a directory yet.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::failure::{FAILED, Failure};

const NO_SYSTEMD: &str =
    "installed; there is no systemd here: have `ria daemon` started by what starts programs here";

/// This machine, or the image below a directory.
pub struct Machine {
    image: Option<PathBuf>,
}

impl Machine {
    pub fn new(image: Option<&Path>) -> Self {
        Self { image: image.map(Path::to_owned) }
    }

    /// The directory of an image.
    pub fn image(&self) -> Option<&Path> {
        self.image.as_deref()
    }

    /// Where a file is that has this absolute path on the machine.
    pub fn at(&self, path: &str) -> PathBuf {
        self.image.as_deref().unwrap_or(Path::new("/")).join(path.trim_start_matches('/'))
    }

    /// Whether services can be started and stopped now (sd_booted(3)).
    pub fn is_running(&self) -> bool {
        self.image.is_none() && Path::new("/run/systemd/system").is_dir()
    }

    /// Has the service started at each boot, and now; tells what is to be done next.
    pub fn start(&self, changed: bool, only_enable: bool) -> Result<String, Failure> {
        if !self.is_running() {
            match self.systemctl(&["enable", "ria.service"]) {
                // A container, or another init: there is nothing that could start it.
                Err(Refusal::NoSystemctl) if self.image.is_none() => return Ok(NO_SYSTEMD.into()),
                result => result.map_err(|refusal| enabling_failed(&refusal))?,
            }
            let where_to = if self.image.is_some() { "in the image" } else { "here (systemd does not run)" };
            return Ok(format!(
                "installed {where_to}; the agent starts with the machine. By hand: ria daemon"
            ));
        }
        self.systemctl(&["daemon-reload"]).map_err(|refusal| enabling_failed(&refusal))?;
        self.systemctl(&["enable", "ria.service"]).map_err(|refusal| enabling_failed(&refusal))?;
        // Those that don't run need not be told.
        let _ = self.systemctl(&["reload", "dbus.service"]);
        let _ = self.systemctl(&["reload", "NetworkManager.service"]);
        if only_enable {
            return Ok("installed; the agent starts with the machine. Now: systemctl restart ria".into());
        }
        let verb = if changed { "restart" } else { "start" };
        self.systemctl(&[verb, "ria.service"]).map_err(|refusal| {
            Failure::new(
                FAILED,
                format!(
                    "the service is installed, but did not start: {refusal}; see: journalctl -u ria. Another agent that \
                     was started by hand has to be stopped first"
                ),
            )
        })?;
        Ok("installed, and the agent runs. Next: ria join -".into())
    }

    /// Stops the service now and at each boot.
    pub fn stop(&self) -> Result<(), Failure> {
        let verb: &[&str] = if self.is_running() { &["disable", "--now"] } else { &["disable"] };
        match self.systemctl(&[verb, &["ria.service"]].concat()) {
            // Then it has not started anything either.
            Err(Refusal::NoSystemctl) if self.image.is_none() => Ok(()),
            result => {
                result.map_err(|refusal| Failure::new(FAILED, format!("can't stop the service: {refusal}")))
            }
        }
    }

    /// Has systemd forget the unit that is gone.
    pub fn reload(&self) {
        if self.is_running() {
            // It is no harm if it still knows it.
            let _ = self.systemctl(&["daemon-reload"]);
        }
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<(), Refusal> {
        let mut command = Command::new("systemctl");
        match self.image() {
            Some(image) => command.arg("--root").arg(image),
            None if !self.is_running() => command.arg("--root").arg("/"),
            None => &mut command,
        };
        match command.args(arguments).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(Refusal::Said(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Refusal::NoSystemctl),
            Err(error) => Err(Refusal::Said(format!("systemctl: {error}"))),
        }
    }
}

/// Why systemctl has not done something.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no systemctl")]
    NoSystemctl,
    #[error("{0}")]
    Said(String),
}

fn enabling_failed(refusal: &Refusal) -> Failure {
    Failure::new(
        FAILED,
        format!(
            "the files are in place, but the service can't be enabled: {refusal}; where there is no systemd, have \
             `ria daemon` started by what starts programs there"
        ),
    )
}
