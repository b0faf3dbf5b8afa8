//! For how long a running ROS 2 subscription gets nothing when a robot moves: `scripts/lib/dds/steady.py` on both robots,
//! with the environment that `scripts/lib/ros-env` makes and the settings that Ria gives.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netlab::{Host, Process};
use serde_json::Value;

use super::gaps::{Pair, SETTLING, direct_pair, gaps};
use crate::support::{LIMIT, program};

pub const METRICS: &[&str] = &[
    "roam_gap_ros_ms",
    "roam_gap_ros_p99_ms",
    "roam_gap_ros_best_effort_ms",
    "roam_gap_ros_best_effort_p99_ms",
];

/// Samples a second on each topic.
const HERTZ: &str = "50";

/// ROS 2 and the settings of the overlay, then the program.
const WITH_ENVIRONMENT: &str = r#"source "$1"; eval "$("$2" env)"; shift 2; exec "$@""#;

/// One end of the topics. It ends with its standard input.
struct End {
    process: Process,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl End {
    fn start(host: &Host, arguments: &[&str]) -> Result<Self> {
        let mut command = host.command("bash");
        command.args(["-c", WITH_ENVIRONMENT, "ros"]).arg(setup()?).arg(program("ria")?).arg("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/dds/steady.py")).args(arguments);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = Some(process.take_stdin().context("no standard input")?);
        let output = BufReader::new(process.take_stdout().context("no standard output")?);
        Ok(Self { process, input, output })
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        self.input.as_mut().context("it has been told to end")?.write_all(line.as_bytes())?;
        Ok(())
    }

    fn report(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("steady.py said {line:?}"))
    }

    /// Its last words.
    fn end(mut self) -> Result<Value> {
        self.input = None;
        let report = self.report()?;
        self.process.wait_timeout(LIMIT)?.context("steady.py does not end")?;
        Ok(report)
    }
}

fn setup() -> Result<PathBuf> {
    let directory = std::env::var_os("RIA_ROS_DIR").context("no ROS 2 is named; scripts/bench does it")?;
    Ok(Path::new(&directory).join("setup.sh"))
}

/// Robot A, which publishes, moves to another Wi-Fi, behind another NAT.
pub fn roam(runs: usize) -> Result<Vec<f64>> {
    let mut pair = direct_pair()?;
    let mut receiver = End::start(&pair.b.host, &["receive"])?;
    let sender = End::start(&pair.a.host, &["send", HERTZ])?;
    let (mut reliable, mut best_effort) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let [gap, other] = one_move(&mut pair, &mut receiver, run)?;
        eprintln!("run {run} of {runs}: {gap:.0} ms, best effort {other:.0} ms");
        reliable.push(gap);
        best_effort.push(other);
    }
    let (sent, received) = (sender.end()?, receiver.end()?);
    let all = sent["acknowledged"] == true && received["missing"] == 0;
    ensure!(all && received["received"] == sent["sent"], "samples are missing: {sent}, {received}");
    Ok([gaps(&reliable), gaps(&best_effort)].concat())
}

/// The longest pauses of both topics around one move, in milliseconds.
fn one_move(pair: &mut Pair, receiver: &mut End, run: usize) -> Result<[f64; 2]> {
    // At another place of whatever ROS does at intervals each time.
    std::thread::sleep(Duration::from_millis(2000 + 137 * run as u64));
    receiver.tell("\n")?;
    pair.site.lab.move_host("robot-a", if run % 2 == 1 { "hall" } else { "wifi-1" })?;
    std::thread::sleep(SETTLING);
    receiver.tell("pause\n")?;
    let report = receiver.report()?;
    let pause = |name: &str| report[name].as_f64().with_context(|| format!("no {name}"));
    let pauses = [pause("pause_ms")?, pause("best_effort_pause_ms")?];
    ensure!(pauses.iter().all(|pause| *pause > 0.0), "the subscription hears nothing");
    pair.until_direct()?;
    Ok(pauses)
}
