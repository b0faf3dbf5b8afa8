//! `./scripts/bench join`: from process start to the first answered ping (docs/benchmarks.md).
//!
//! Real processes in network namespaces: a coordinator and two robots, each behind a port-preserving NAT on a Wi-Fi
//! with client isolation. Times are taken from outside, as a user's `ping` sees it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "prints a table")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use netlab::{Host, Lab, Process};
use serde_json::{Map, Value, json};

/// Longest that one run may take before the benchmark gives up.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let options = Options::from_arguments()?;
    let bench = Bench::start()?;
    let (mut join, mut resume) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        bench.forget_robot_a()?;
        let key = bench.key.to_string_lossy().into_owned();
        join.push(bench.measure(&["--join-file", &key])?);
        resume.push(bench.measure(&[])?);
        eprintln!("run {run} of {}: {:?} {:?}", options.runs, join[join.len() - 1], resume[resume.len() - 1]);
    }
    let mut figures = Map::new();
    for (name, runs) in [("join", &join), ("resume", &resume)] {
        figures.insert(format!("{name}_to_ping_s"), json!(median(runs.iter().map(|r| r.ping))));
        figures.insert(format!("{name}_to_direct_s"), json!(median(runs.iter().map(|r| r.direct))));
    }
    figures.insert("agent_rss_mib_2".into(), json!(bench.robot_b_rss_mib()?));
    for (metric, value) in &figures {
        println!("{metric:22} {value:>8.3}", value = value.as_f64().unwrap_or(f64::NAN));
    }
    if let Some(file) = options.json {
        std::fs::write(&file, Value::Object(figures).to_string())
            .with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}

struct Options {
    json: Option<PathBuf>,
    runs: usize,
}

impl Options {
    fn from_arguments() -> Result<Self> {
        let mut options = Self { json: None, runs: 10 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => options.json = Some(arguments.next().context("--json needs a file")?.into()),
                "--runs" => options.runs = arguments.next().context("--runs needs a number")?.parse()?,
                // Cargo adds it.
                "--bench" => {}
                other => bail!("unknown argument {other}; there are --json FILE and --runs N"),
            }
        }
        ensure!(options.runs > 0, "--runs must be at least 1");
        Ok(options)
    }
}

/// Seconds since the start of the process.
#[derive(Debug, Clone, Copy)]
struct Run {
    ping: f64,
    direct: f64,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// The lab with everything that runs all the time.
struct Bench {
    robot_a: Host,
    robot_b: Host,
    robot_b_address: String,
    ria: PathBuf,
    key: PathBuf,
    logs: PathBuf,
    agent_b: Process,
    _coordinator: Process,
    _lab: Lab,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let logs = directory.path().to_path_buf();
        let ria = PathBuf::from(env!("CARGO_BIN_EXE_ria"));
        let coordinator_program = ria.with_file_name("ria-coordinator");
        ensure!(coordinator_program.exists(), "build the workspace first: scripts/bench does");
        let lab = Lab::build(&netlab::topologies::campus()?)?;
        let server = lab.host("coordinator")?;
        let url = format!("https://{}", server.address());
        let program = coordinator_program.to_string_lossy().into_owned();
        let coordinator =
            server.spawn(&[&program, "serve", "--public-url", &url], &logs.join("coordinator.log"))?;
        until("the coordinator", || Ok(server.output(&[&program, "network", "list"])?.status.success()))?;
        let key = logs.join("join.key");
        std::fs::write(&key, server.run(&[&program, "key", "create", "--reusable"])?)?;

        let (robot_a, robot_b) = (lab.host("robot-a")?, lab.host("robot-b")?);
        let agent = ria.to_string_lossy().into_owned();
        let agent_b = robot_b
            .spawn(&[&agent, "daemon", "--join-file", &key.to_string_lossy()], &logs.join("robot-b.log"))?;
        let mut address = String::new();
        until("robot-b", || {
            address = own_address(&robot_b, &ria).unwrap_or_default();
            Ok(!address.is_empty())
        })?;
        Ok(Self {
            robot_a,
            robot_b,
            robot_b_address: address,
            ria,
            key,
            logs,
            agent_b,
            _coordinator: coordinator,
            _lab: lab,
            _directory: directory,
        })
    }

    /// Makes robot A one that never joined.
    fn forget_robot_a(&self) -> Result<()> {
        let state = self.robot_a.path("/var/lib/ria");
        for entry in std::fs::read_dir(&state)? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        Ok(())
    }

    /// Starts robot A's agent, measures, and stops it.
    fn measure(&self, arguments: &[&str]) -> Result<Run> {
        let began = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64());
        let mut agent = self.robot_a.command(&self.ria);
        agent.arg("daemon").args(arguments);
        let mut agent = agent.log(&self.logs.join("robot-a.log"))?.spawn()?;
        let ping = self.first_answer()? - began.1;
        let direct = self.until_direct(began.0)?;
        agent.terminate(Duration::from_secs(5))?;
        Ok(Run { ping, direct })
    }

    /// When the first answer to the kernel's ping came, seconds since 1970.
    fn first_answer(&self) -> Result<f64> {
        let mut ping = self.robot_a.command("timeout");
        // Neither `-c` nor `-w`: with them ping ends at the first "unreachable", of which there are some before a join.
        ping.args([&LIMIT.as_secs().to_string(), "ping", "-D", "-n", "-i", "0.01", &self.robot_b_address]);
        let mut ping = ping.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = BufReader::new(ping.take_stdout().context("ping has no output")?);
        let answer = output.lines().map_while(Result::ok).find(|line| line.contains("bytes from"));
        ping.kill()?;
        let line = answer.context("robot-b never answered a ping")?;
        let stamp =
            line.strip_prefix('[').and_then(|l| l.split(']').next()).context("ping -D gave no time")?;
        Ok(stamp.parse()?)
    }

    fn until_direct(&self, began: Instant) -> Result<f64> {
        until("the direct path", || {
            let output = self.robot_a.output(&[self.ria.as_os_str(), "peers".as_ref(), "--json".as_ref()])?;
            let peers: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let is_b = |p: &&Value| p["addresses"][0].as_str() == Some(&self.robot_b_address);
            Ok(peers["peers"]
                .as_array()
                .and_then(|p| p.iter().find(is_b))
                .is_some_and(|p| p["path"] == "direct"))
        })?;
        Ok(began.elapsed().as_secs_f64())
    }

    fn robot_b_rss_mib(&self) -> Result<f64> {
        let status =
            std::fs::read_to_string(Path::new("/proc").join(self.agent_b.id().to_string()).join("status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        ensure!(own_address(&self.robot_b, &self.ria).is_some(), "robot-b's agent is gone");
        Ok(kib / 1024.0)
    }
}

/// A robot's own IPv4 overlay address, once it has one.
fn own_address(host: &Host, ria: &Path) -> Option<String> {
    let output = host.output(&[ria.as_os_str(), "status".as_ref(), "--json".as_ref()]).ok()?;
    let status: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(status["networks"][0]["addresses"][0].as_str()?.split('/').next()?.to_owned())
}

/// Asks every 20 ms.
fn until(what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !ready()? {
        ensure!(began.elapsed() < LIMIT, "{what} was not ready in {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
