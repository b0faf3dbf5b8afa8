//! What a restart of the coordinator costs flows between its nodes: 20 agents with direct paths, each pinging two others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlab::Process;
use nix::sys::signal::Signal;

use super::plain_network;
use crate::support::{Agent, Site, until};

/// How long flows run before, while and after the coordinator is away.
const PHASE: Duration = Duration::from_secs(2);

/// What was lost.
pub struct Restarts {
    /// Pings that were sent.
    pub sent: u64,
    /// Those without an answer.
    pub lost: u64,
    /// While nothing flows.
    pub idle: Idle,
}

/// What agents do while nothing flows.
pub struct Idle {
    /// CPU of all agents together, in per cent of one core.
    pub cpu_percent: f64,
    /// How often one agent wakes up.
    pub wakeups_per_s: f64,
}

/// Kills (SIGKILL) and stops (SIGTERM) the coordinator so many times each, under flows.
pub fn restart_under_flows(count: usize, runs: usize) -> Result<Restarts> {
    let names: Vec<String> = (0..count).map(|n| format!("robot-{n}")).collect();
    let mut site = Site::start(plain_network(names.clone())?)?;
    let key = site.key()?;
    let agents: Vec<Agent> =
        names.iter().map(|name| site.agent(name, &["--join-file", &key])).collect::<Result<_>>()?;
    let addresses: Vec<String> = agents.iter().map(Agent::address).collect::<Result<_>>()?;
    until("direct paths between all", || {
        Ok(agents.iter().all(|agent| agent.peers_by("direct") == count - 1))
    })?;
    let mut restarts = Restarts { sent: 0, lost: 0, idle: idle(&agents)? };
    for signal in [Signal::SIGKILL, Signal::SIGTERM].repeat(runs) {
        let flows = start_flows(&agents, &addresses)?;
        std::thread::sleep(PHASE);
        site.stop_coordinator(signal)?;
        std::thread::sleep(PHASE);
        site.start_coordinator()?;
        until("all agents are back at the coordinator", || {
            Ok(agents.iter().all(|a| a.ask("status")["networks"][0]["coordinator_state"] == "connected"))
        })?;
        std::thread::sleep(PHASE);
        let (sent, received) = end_flows(flows)?;
        eprintln!("{signal}: {sent} packets, {} lost", sent - received);
        restarts.sent += sent;
        restarts.lost += sent - received;
    }
    Ok(restarts)
}

/// Every agent pings its neighbour and one further away, each 20 times a second.
fn start_flows(agents: &[Agent], addresses: &[String]) -> Result<Vec<Process>> {
    let mut flows = Vec::new();
    for (n, agent) in agents.iter().enumerate() {
        for distance in [1, agents.len() / 3] {
            let to = addresses.get((n + distance) % agents.len()).context("an address")?;
            let mut ping = agent.host.command("ping");
            ping.args(["-n", "-q", "-i", "0.05", to]);
            ping.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
            flows.push(ping.spawn()?);
        }
    }
    Ok(flows)
}

/// How many were sent and answered. The last of each may still be under way, and does not count.
fn end_flows(flows: Vec<Process>) -> Result<(u64, u64)> {
    let (mut sent, mut received) = (0, 0);
    for mut flow in flows {
        flow.signal(Signal::SIGINT)?;
        let output = flow.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary =
            text.lines().find(|line| line.contains("packets transmitted")).context("ping's summary")?;
        let number = |word: &str| {
            let part = summary.split(", ").find_map(|part| part.strip_suffix(word));
            part.and_then(|n| n.parse::<u64>().ok()).with_context(|| format!("{word} in {summary}"))
        };
        let (of_flow, answered) = (number(" packets transmitted")?, number(" received")?);
        ensure!(answered > 0, "a flow got no answer at all: {summary}");
        sent += of_flow - u64::from(of_flow == answered + 1);
        received += answered;
    }
    Ok((sent, received))
}

#[allow(clippy::cast_precision_loss, reason = "some thousands")]
fn idle(agents: &[Agent]) -> Result<Idle> {
    let sum = |count: fn(u32) -> Result<u64>| -> Result<u64> {
        agents.iter().map(|agent| count(agent.process.id())).sum()
    };
    let (ticks, woken, began) = (sum(cpu_ticks)?, sum(wakeups)?, Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let seconds = began.elapsed().as_secs_f64();
    Ok(Idle {
        // 100 ticks a second, on every Linux.
        cpu_percent: (sum(cpu_ticks)? - ticks) as f64 / seconds,
        wakeups_per_s: (sum(wakeups)? - woken) as f64 / seconds / agents.len() as f64,
    })
}

/// How often the threads of a process have gone to sleep, which is how often they woke up.
fn wakeups(pid: u32) -> Result<u64> {
    let mut count = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end meanwhile.
        let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count += line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(count)
}

/// Time that a process has spent on a CPU, in hundredths of a second.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // Fields 14 and 15 of the whole line (proc(5)); the rest begins with the third.
    [11, 12].iter().map(|n| Ok(fields.get(*n).context("a field")?.parse::<u64>()?)).sum()
}
