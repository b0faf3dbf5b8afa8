//! How long a robot whose clock says 1970 takes to be on the overlay.

use std::process::Command;

use anyhow::{Result, ensure};

use super::plain_network;
use crate::support::Site;

/// Seconds from the start of `ria daemon --join-file` under a clock that begins in 1970 to the first answered ping.
pub fn join_in_1970() -> Result<f64> {
    let there =
        Command::new("faketime").arg("--version").output().is_ok_and(|output| output.status.success());
    ensure!(there, "the program 'faketime' is missing; install the Debian package of that name");
    let site = Site::start(plain_network(["robot-a".to_owned(), "robot-b".to_owned()])?)?;
    let key = site.key()?;
    let b = site.agent("robot-b", &["--join-file", &key])?;
    let address = b.address()?;
    // A clock that runs on, from a minute after the epoch; the monotonic clock stays as it is.
    let starter = ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", "@1970-01-01 00:01:00"];
    let a = site.agent_by("robot-a", &starter, &["--join-file", &key])?;
    let took = a.first_answer(&address)?;
    let year = a.host.command("env").args(&starter[1..]).args(["date", "+%Y"]).run()?;
    ensure!(year.trim() == "1970", "faketime did not change the clock: {year}");
    Ok(took)
}
