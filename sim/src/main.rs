//! Makes runs of many seeds by hand: `cargo run --release -p ria-sim -- 0..10000`.

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ria_sim::trace::Trace;
use ria_sim::{Failure, Plan, run, run_traced, shrink};

const USAGE: &str = "\
usage: ria-sim SEED..SEED      makes the runs of these seeds and stops at the first that fails
       ria-sim SEED            makes one run, and prints how it went
       ria-sim --trace SEED    the same, with everything that happened";

/// Runs that shrinking a plan may take.
const SHRINKING: usize = 400;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--trace", seed] => seed.parse().ok().map(trace),
        [range] => seeds(range).map(run_all),
        _ => None,
    };
    done.unwrap_or_else(|| {
        say(USAGE);
        ExitCode::from(2)
    })
}

fn seeds(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((first, last)) => Some(first.parse().ok()?..last.parse().ok()?),
        None => text.parse().ok().map(|seed: u64| seed..seed.saturating_add(1)),
    }
}

fn run_all(seeds: Range<u64>) -> ExitCode {
    let begin = Instant::now();
    let (mut node_time, mut packets, mut recovery) = (Duration::ZERO, 0, Duration::ZERO);
    for seed in seeds.clone() {
        let plan = Plan::from_seed(seed);
        match run(&plan) {
            Ok(report) => {
                node_time += report.node_time;
                packets += report.packets;
                recovery = recovery.max(report.recovery);
            }
            Err(failure) => return tell(&plan, failure),
        }
    }
    let (took, hours) = (begin.elapsed().as_secs_f64(), node_time.as_secs_f64() / 3600.0);
    say(&format!(
        "seeds {}..{}: all well; {hours:.1} node hours in {took:.1} s ({:.1} per second), {packets} packets, longest \
         recovery {:.1} s",
        seeds.start,
        seeds.end,
        hours / took,
        recovery.as_secs_f64(),
    ));
    ExitCode::SUCCESS
}

fn tell(plan: &Plan, failure: Failure) -> ExitCode {
    say(&format!("seed {}: {}\nmaking the plan smaller ...", plan.seed, failure.wrong));
    let (plan, failure) = shrink(plan, failure, SHRINKING);
    say(&format!(
        "{}\nfails with: {}\nread what happened: ria-sim --trace {}",
        plan.show(),
        failure.wrong,
        plan.seed
    ));
    ExitCode::FAILURE
}

fn trace(seed: u64) -> ExitCode {
    let plan = Plan::from_seed(seed);
    let failure = run(&plan).err();
    let plan = match failure {
        Some(failure) => shrink(&plan, failure, SHRINKING).0,
        None => plan,
    };
    say(&plan.show());
    match run_traced(&plan, Trace::readable()) {
        Ok(report) => {
            say(&format!("{report:#?}"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            failure.lines.iter().for_each(|line| say(line));
            say(&failure.wrong.to_string());
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "this program's output")]
fn say(line: &str) {
    println!("{line}");
}
