//! What benchmarks share: a lab with a real coordinator and real agents, waiting, and statistics.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use netlab::{Host, Lab, Process};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Figures;

/// Longest that one step may take before the benchmark gives up.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What is measured in one go, by the metrics that come of it. It is given the number of runs, where one was asked for.
pub type Measurement = (&'static [&'static str], fn(Option<usize>) -> Result<Vec<f64>>);

/// Runs all of a table, or those with one of the metrics named.
pub fn measure(table: &[Measurement], runs: Option<usize>, only: &[String]) -> Result<Figures> {
    let mut figures = Figures::new();
    for (metrics, measure) in table {
        if !only.is_empty() && !metrics.iter().any(|metric| only.iter().any(|o| o == metric)) {
            continue;
        }
        eprintln!("measuring {}", metrics.join(", "));
        let values = measure(runs)?;
        ensure!(values.len() == metrics.len(), "{} figures for {}", values.len(), metrics.join(", "));
        figures
            .extend(metrics.iter().zip(values).map(|(metric, value)| ((*metric).to_owned(), json!(value))));
    }
    Ok(figures)
}

/// A lab with the coordinator on its host `coordinator`.
pub struct Site {
    /// The lab.
    pub lab: Lab,
    coordinator: Option<Process>,
    directory: TempDir,
}

impl Site {
    /// Starts the coordinator in a lab.
    pub fn start(lab: Lab) -> Result<Self> {
        let mut site = Self { lab, coordinator: None, directory: tempfile::tempdir()? };
        site.start_coordinator()?;
        Ok(site)
    }

    /// Starts the coordinator, again, and waits until it answers.
    pub fn start_coordinator(&mut self) -> Result<()> {
        let host = self.lab.host("coordinator")?;
        let url = format!("https://{}", host.address());
        let program = program("ria-coordinator")?;
        let line = [program.as_os_str(), "serve".as_ref(), "--public-url".as_ref(), url.as_ref()];
        self.coordinator = Some(host.spawn(&line, &self.log("coordinator"))?);
        until("the coordinator", || Ok(self.admin(&["network", "list"]).is_ok()))
    }

    /// Ends the coordinator: SIGKILL, or SIGTERM with the time that it takes for its good-byes.
    pub fn stop_coordinator(&mut self, signal: Signal) -> Result<()> {
        let mut coordinator = self.coordinator.take().context("the coordinator does not run")?;
        coordinator.signal(signal)?;
        coordinator.wait_timeout(LIMIT)?.context("the coordinator does not end")?;
        Ok(())
    }

    /// The coordinator's process, while it runs.
    pub fn coordinator(&self) -> Result<&Process> {
        self.coordinator.as_ref().context("the coordinator does not run")
    }

    /// Runs a verb of the coordinator; gives its output.
    pub fn admin(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.lab.host("coordinator")?.command(program("ria-coordinator")?);
        Ok(command.args(arguments).run()?)
    }

    /// A file with a reusable join key.
    pub fn key(&self) -> Result<String> {
        let file = self.directory.path().join("join.key");
        if !file.exists() {
            std::fs::write(&file, self.admin(&["key", "create", "--reusable"])?)?;
        }
        Ok(file.to_string_lossy().into_owned())
    }

    /// Starts an agent on a host.
    pub fn agent(&self, host: &str, arguments: &[&str]) -> Result<Agent> {
        self.agent_by(host, &[], arguments)
    }

    /// Starts an agent on a host by another program, which is given the agent's command line.
    pub fn agent_by(&self, host: &str, starter: &[&str], arguments: &[&str]) -> Result<Agent> {
        let log = self.log(host);
        let host = self.lab.host(host)?;
        let ria = program("ria")?.to_string_lossy().into_owned();
        let line = [starter, &[ria.as_str(), "daemon"], arguments].concat();
        let began = Instant::now();
        let began_unix = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        Ok(Agent { process: host.spawn(&line, &log)?, host, began, began_unix })
    }

    /// Where a host's programs log.
    pub fn log(&self, host: &str) -> PathBuf {
        self.directory.path().join(format!("{host}.log"))
    }
}

/// A running agent. Dropping it kills it.
pub struct Agent {
    /// Where it runs.
    pub host: Host,
    /// Its process.
    pub process: Process,
    /// When it was started.
    pub began: Instant,
    /// The same, seconds since 1970.
    pub began_unix: f64,
}

impl Agent {
    /// What a verb with `--json` says; null when it fails.
    pub fn ask(&self, verb: &str) -> Value {
        ask(&self.host, verb)
    }

    /// Own IPv4 overlay address, once it has one.
    pub fn address(&self) -> Result<String> {
        let mut address = String::new();
        until(&format!("the agent of {}", self.host.name()), || {
            let status = self.ask("status");
            let own = status["networks"][0]["addresses"][0].as_str().unwrap_or_default();
            address = own.split('/').next().unwrap_or_default().to_owned();
            Ok(!address.is_empty() && status["networks"][0]["state"] == "up")
        })?;
        Ok(address)
    }

    /// How many peers are reached by a kind of path.
    pub fn peers_by(&self, path: &str) -> usize {
        let peers = self.ask("peers");
        let peers = peers["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        peers.iter().filter(|peer| peer["path"] == path && peer["link_state"] == "up").count()
    }

    /// A number of `/proc/PID/status`, in MiB.
    pub fn memory_mib(&self, field: &str) -> Result<f64> {
        memory_mib(&self.process, field)
    }

    /// When the first answer to the kernel's ping came, seconds after the start of the agent.
    pub fn first_answer(&self, address: &str) -> Result<f64> {
        while self.began.elapsed() < LIMIT {
            // Without any route, as on a network without a gateway, ping ends at once.
            if let Some(line) = self.answered_line(address)? {
                let stamp = line.strip_prefix('[').and_then(|l| l.split(']').next());
                return Ok(stamp.context("ping -D gave no time")?.parse::<f64>()? - self.began_unix);
            }
        }
        bail!("{} got no answer to its pings", self.host.name())
    }

    fn answered_line(&self, address: &str) -> Result<Option<String>> {
        let mut ping = self.host.command("timeout");
        // Neither `-c` nor `-w`: with them ping ends at the first "unreachable", of which there are some before a join.
        ping.args([&LIMIT.as_secs().to_string(), "ping", "-D", "-n", "-i", "0.01", address]);
        let mut ping = ping.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = BufReader::new(ping.take_stdout().context("ping has no output")?);
        let answer = output.lines().map_while(Result::ok).find(|line| line.contains("bytes from"));
        ping.kill()?;
        Ok(answer)
    }
}

/// A number of `/proc/PID/status`, in MiB.
pub fn memory_mib(process: &Process, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.id().to_string()).join("status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// What a verb with `--json` says on a host; null when it fails.
pub fn ask(host: &Host, verb: &str) -> Value {
    let Ok(ria) = program("ria") else { return Value::Null };
    let output = host.output(&[ria.as_os_str(), verb.as_ref(), "--json".as_ref()]);
    output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default()
}

/// The workspace's programs lie side by side.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_ria")).with_file_name(name);
    ensure!(path.exists(), "{} is missing; scripts/bench builds it", path.display());
    Ok(path)
}

/// Asks every 20 ms.
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < LIMIT, "{what}: not so within {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The value below which this share of the values lies; the largest one when there are few.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}
