//! `ria uninstall`: takes away what `ria install` made, and says what stays. The membership stays unless that is asked for.

use std::fs;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::path::Path;

use ria_api::client::Agent;
use serde_json::json;

use super::super::Context;
use super::super::args::UninstallArgs;
use super::super::failure::{FAILED, Failure, USAGE};
use super::super::output::with_progress;
use super::files::{CONFIG_DIR, UNIT_FILE};
use super::machine::Machine;
use super::{DIRECTORY, PACKAGED_UNITS, PROGRAM, can_not, files, group, need_root};
use crate::gateway;
use crate::names::{HOSTS, clear};
use crate::netdev::exclusions::Exclusions;
use crate::netdev::netlink::Netlink;
use crate::netdev::tun;

const STATE_DIR: &str = "/var/lib/ria";
const RUN_DIR: &str = "/run/ria";

/// What else was made on this machine by Ria, and goes with `--purge`.
const LEFT_OVERS: [&str; 4] = [STATE_DIR, CONFIG_DIR, "/run/ria", "/etc/sysctl.d/60-ria.conf"];

/// What came of it, for people and for programs.
#[derive(Default)]
struct Report {
    removed: Vec<String>,
    kept: Vec<String>,
    left: Vec<String>,
    untold: bool,
}

pub async fn uninstall(context: &Context, args: &UninstallArgs) -> Result<(), Failure> {
    let machine = Machine::new(args.root.as_deref());
    need_root("ria uninstall")?;
    if PACKAGED_UNITS.iter().any(|unit| machine.at(unit).exists()) {
        return Err(Failure::new(
            FAILED,
            "Ria is here as a package; to remove it: apt remove ria (keeps the membership) or apt purge ria",
        ));
    }
    let memberships = memberships(&machine);
    if memberships > 0 && !args.yes {
        ask(memberships, args.purge)?;
    }
    let mut report = Report::default();
    if args.purge && memberships > 0 {
        leave_all(context, &machine, &mut report).await?;
    }
    if machine.at(UNIT_FILE).exists() {
        machine.stop()?;
    }
    if machine.image().is_none() {
        report.removed.extend(left_interfaces().await.into_iter().map(|name| format!("interface {name}")));
        match gateway::clear(Path::new(RUN_DIR)).await {
            Ok(true) => report.removed.push("rules of forwarding".to_owned()),
            Ok(false) => {}
            Err(error) => return Err(Failure::new(FAILED, error.to_string())),
        }
    }
    if clear(&machine.at(HOSTS), &machine.at(STATE_DIR))
        .map_err(|e| can_not("change", &machine.at(HOSTS), &e))?
    {
        report.removed.push(format!("names in {HOSTS}"));
    }
    for (name, _) in files::all(Path::new(PROGRAM)) {
        remove(&machine, name, &mut report)?;
    }
    remove(&machine, PROGRAM, &mut report)?;
    remove(&machine, DIRECTORY, &mut report)?;
    machine.reload();
    if args.purge {
        for name in LEFT_OVERS {
            remove(&machine, name, &mut report)?;
        }
        if group::remove(&machine)? {
            report.removed.push(format!("group {}", group::NAME));
        }
    } else {
        let there = LEFT_OVERS.iter().filter(|name| **name != "/run/ria" && machine.at(name).exists());
        report.kept.extend(there.map(|name| (*name).to_owned()));
    }
    report.tell(context)
}

/// Removes the overlay's interfaces, which outlive the agent; gives their names.
async fn left_interfaces() -> Vec<String> {
    let Ok(netlink) = Netlink::open(Exclusions::default()) else { return Vec::new() };
    let Ok(host) = netlink.host().await else { return Vec::new() };
    tun::sweep(&host, |_| false).await
}

/// How many networks this machine is in, by what is stored.
fn memberships(machine: &Machine) -> usize {
    let networks = fs::read_dir(machine.at(STATE_DIR).join("networks"));
    networks.map_or(0, |entries| entries.flatten().count())
}

/// Nothing of a membership is touched unasked.
fn ask(memberships: usize, purge: bool) -> Result<(), Failure> {
    let networks = if memberships == 1 { "a network".to_owned() } else { format!("{memberships} networks") };
    let what = if purge {
        format!(
            "this machine is in {networks}; it leaves, its keys are erased, and coming back needs a new join key"
        )
    } else {
        format!(
            "this machine is in {networks} and stays a member: keys and address are kept in {STATE_DIR} for when Ria is \
             installed again. To leave as well: ria uninstall --purge"
        )
    };
    if !io::stdin().is_terminal() {
        return Err(Failure::new(USAGE, format!("{what}. Nothing was done; to go on: add --yes")));
    }
    let mut out = io::stderr().lock();
    write!(out, "{what}.\nGo on? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") {
        Ok(())
    } else {
        Err(Failure::new(FAILED, "nothing was done"))
    }
}

/// Leaves every network while there is an agent to do it, so that the coordinator hears of it.
async fn leave_all(context: &Context, machine: &Machine, report: &mut Report) -> Result<(), Failure> {
    if machine.image().is_some() {
        report.untold = true;
        return Ok(());
    }
    let Ok(agent) = Agent::connect(context.global.socket.as_deref()).await else {
        report.untold = true;
        return Ok(());
    };
    for network in agent.proxy().status().await?.networks {
        let proxy = agent.network_at(&network.path).await?;
        with_progress(&format!("Leaving {}", network.name), proxy.leave()).await?;
        report.left.push(network.name);
    }
    let conditions = agent.proxy().status().await?.conditions;
    report.untold = conditions.iter().any(|condition| condition.code == "left-untold");
    Ok(())
}

fn remove(machine: &Machine, name: &str, report: &mut Report) -> Result<(), Failure> {
    let path = machine.at(name);
    let is_directory = path.is_dir() && !path.is_symlink();
    let done = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    match done {
        Ok(()) => report.removed.push(name.to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(can_not("remove", &path, &error)),
    }
    Ok(())
}

impl Report {
    fn tell(&self, context: &Context) -> Result<(), Failure> {
        let Self { removed, kept, left, untold } = self;
        if context.output.json {
            let value =
                json!({ "removed": removed, "kept": kept, "left": left, "coordinator_told": !untold });
            return Ok(context.output.value(&value)?);
        }
        context.output.lines(left.iter().map(|network| format!("left     {network}")))?;
        context.output.lines(removed.iter().map(|name| format!("removed  {name}")))?;
        context.output.lines(kept.iter().map(|name| format!("kept     {name}")))?;
        if *untold {
            context.output.line(
                "the coordinator could not be told; remove this machine there: ria-coordinator node remove NAME",
            )?;
        }
        if removed.is_empty() {
            context.output.line("there was nothing to remove")?;
        }
        Ok(())
    }
}
