//! How long a robot whose clock says 1970 takes to be on the overlay.

use anyhow::{Result, ensure};

use super::plain_network;
use crate::support::Site;

/// Seconds from the start of `ria daemon --join-file` under a clock that begins in 1970 to the first answered ping.
pub fn join_in_1970() -> Result<f64> {
    let site = Site::start(plain_network(["robot-a".to_owned(), "robot-b".to_owned()])?)?;
    let key = site.key()?;
    let b = site.agent("robot-b", &["--join-file", &key])?;
    let address = b.address()?;
    // A clock that runs on, from a minute after the epoch; timers go by the monotonic one, which stays as it is.
    let starter = [
        "env",
        "LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1",
        "FAKETIME=@1970-01-01 00:01:00",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "DONT_FAKE_MONOTONIC=1",
    ];
    let a = site.agent_by("robot-a", &starter, &["--join-file", &key])?;
    let took = a.first_answer(&address)?;
    let year = a.host.command("env").args(&starter[1..]).args(["date", "+%Y"]).run()?;
    ensure!(year.trim() == "1970", "the Debian package 'faketime' is missing: the year stays {year}");
    Ok(took)
}
