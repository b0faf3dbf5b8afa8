//! The machine that the service is installed on: this one with its systemd, or an image that is only a directory yet.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::failure::{FAILED, Failure};

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
            self.systemctl(&["enable", "ria.service"]).map_err(|text| enabling_failed(&text))?;
            let where_to = if self.image.is_some() { "in the image" } else { "here (systemd does not run)" };
            return Ok(format!(
                "installed {where_to}; the agent starts with the machine. By hand: ria daemon"
            ));
        }
        self.systemctl(&["daemon-reload"]).map_err(|text| enabling_failed(&text))?;
        self.systemctl(&["enable", "ria.service"]).map_err(|text| enabling_failed(&text))?;
        // Those that don't run need not be told.
        let _ = self.systemctl(&["reload", "dbus.service"]);
        let _ = self.systemctl(&["reload", "NetworkManager.service"]);
        if only_enable {
            return Ok("installed; the agent starts with the machine. Now: systemctl restart ria".into());
        }
        let verb = if changed { "restart" } else { "start" };
        self.systemctl(&[verb, "ria.service"]).map_err(|text| {
            Failure::new(
                FAILED,
                format!(
                    "the service is installed, but did not start: {text}; see: journalctl -u ria. Another agent that \
                     was started by hand has to be stopped first"
                ),
            )
        })?;
        Ok("installed, and the agent runs. Next: ria join -".into())
    }

    /// Stops the service now and at each boot.
    pub fn stop(&self) -> Result<(), Failure> {
        let verb: &[&str] = if self.is_running() { &["disable", "--now"] } else { &["disable"] };
        self.systemctl(&[verb, &["ria.service"]].concat())
            .map_err(|text| Failure::new(FAILED, format!("can't stop the service: {text}")))
    }

    /// Has systemd forget the unit that is gone.
    pub fn reload(&self) {
        if self.is_running() {
            // It is no harm if it still knows it.
            let _ = self.systemctl(&["daemon-reload"]);
        }
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new("systemctl");
        match self.image() {
            Some(image) => command.arg("--root").arg(image),
            None if !self.is_running() => command.arg("--root").arg("/"),
            None => &mut command,
        };
        match command.args(arguments).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("systemctl: {error}")),
        }
    }
}

fn enabling_failed(text: &str) -> Failure {
    Failure::new(
        FAILED,
        format!(
            "the files are in place, but the service can't be enabled: {text}; where there is no systemd, have \
             `ria daemon` started by what starts programs there"
        ),
    )
}
