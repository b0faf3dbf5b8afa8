//! `./scripts/bench NAME`: benchmarks on real parts (docs/benchmarks.md). Each is a module of its name.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "prints tables")]

mod coordinator;
mod faults;
mod join;
mod paths;
mod soak;
mod support;
mod throughput;
mod wifi;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

const NAMES: &str = "coordinator, join, faults, paths, soak, throughput and wifi";

/// Metric name to number.
type Figures = Map<String, Value>;

/// What was asked for.
struct Options {
    name: String,
    json: Option<PathBuf>,
    runs: Option<usize>,
    only: Vec<String>,
}

fn main() -> Result<()> {
    let options = Options::from_arguments()?;
    let figures = match options.name.as_str() {
        "coordinator" => coordinator::run(options.runs.unwrap_or(10), &options.only)?,
        "join" => join::run(options.runs.unwrap_or(10))?,
        "faults" => faults::run(options.runs, &options.only)?,
        "paths" => paths::run(options.runs, &options.only)?,
        "soak" => soak::run(options.runs.unwrap_or(10))?,
        "throughput" => throughput::run(options.runs.unwrap_or(3), &options.only)?,
        "wifi" => wifi::run(options.runs.unwrap_or(3), &options.only)?,
        other => bail!("no benchmark named '{other}'; there are {NAMES}"),
    };
    for (metric, value) in &figures {
        println!("{metric:34} {value:>10.3}", value = value.as_f64().unwrap_or(f64::NAN));
    }
    if let Some(file) = options.json {
        std::fs::write(&file, Value::Object(figures).to_string())
            .with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}

impl Options {
    fn from_arguments() -> Result<Self> {
        // Cargo adds --bench.
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        let name = arguments.next().with_context(|| format!("which benchmark? there are {NAMES}"))?;
        let mut options = Self { name, json: None, runs: None, only: Vec::new() };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => options.json = Some(arguments.next().context("--json needs a file")?.into()),
                "--runs" => {
                    options.runs = Some(arguments.next().context("--runs needs a number")?.parse()?);
                }
                "--only" => options.only.push(arguments.next().context("--only needs a metric")?),
                other => bail!("unknown argument {other}; there are --json FILE, --runs N and --only METRIC"),
            }
        }
        ensure!(options.runs != Some(0), "--runs must be at least 1");
        Ok(options)
    }
}
