//! What an agent with many live sessions needs of memory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::crowd::{Crowd, Identity, enrol};
use super::plain_network;
use crate::support::{Site, until};

/// Resident memory of an agent with so many peers, each with a session and some traffic, in MiB: all of it, and that
/// which no file backs.
pub fn with_peers(count: usize) -> Result<Vec<f64>> {
    let site = Site::start(plain_network(["robot".to_owned(), "crowd".to_owned()])?)?;
    let robot = site.agent("robot", &["--join-file", &site.key()?])?;
    robot.address()?;
    let members = enrol(&site, "crowd", count)?;
    until("the robot's map lists all", || {
        Ok(robot.ask("peers")["peers"].as_array().map_or(0, Vec::len) == count)
    })?;
    // The agent stores its map a moment after it knows it.
    let mut found = None;
    until("the robot's map is stored", || {
        found = Identity::read(&robot.host.path("/var/lib/ria"))
            .filter(|(_, map)| map.members.len() == count + 1);
        Ok(found.is_some())
    })?;
    let (own, map) = found.context("the robot's identity")?;
    let port = robot.ask("status")["networks"][0]["udp_port"].as_u64().context("its UDP port")?;
    let place = (robot.host.address(), u16::try_from(port)?).into();
    let mut crowd = Crowd::new(&site.lab.host("crowd")?, members, &map, own.node, place)?;
    // Handshakes and paths first, then half a minute of traffic.
    for _ in 0..12 {
        crowd.run(Duration::from_millis(500), Duration::from_secs(5))?;
        if crowd.answered(10) == count {
            break;
        }
    }
    crowd.run(Duration::from_millis(500), Duration::from_secs(20))?;
    let (answered, sessions) = (crowd.answered(20), robot.peers_by("direct"));
    ensure!(
        answered == count && sessions == count,
        "{answered} peers get answers, {sessions} have a session"
    );
    Ok(vec![robot.memory_mib("VmRSS")?, robot.memory_mib("RssAnon")?])
}
