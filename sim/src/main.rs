//! Makes runs of many seeds by hand: `cargo run --release -p ria-sim -- 0..10000`.

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ria_sim::trace::Trace;
use ria_sim::{Failure, Plan, run, run_traced, shrink};

const USAGE: &str = "\
usage: ria-sim SEED..SEED      makes the runs of these seeds and stops at the first that fails
       ria-sim SEED            makes one run, and prints how it went
       ria-sim --trace SEED    the same, with everything that happened
       ria-sim --policies ...  each of these, with policies that come and go";

/// What is to happen with a seed.
type PlanOf = fn(u64) -> Plan;

/// Runs that shrinking a plan may take.
const SHRINKING: usize = 400;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (plan, words): (PlanOf, _) = match words.as_slice() {
        ["--policies", rest @ ..] => (Plan::with_policies, rest),
        all => (Plan::from_seed, all),
    };
    let done = match words {
        ["--trace", seed] => seed.parse().ok().map(|seed| trace(&plan(seed))),
        [range] => seeds(range).map(|seeds| run_all(seeds, plan)),
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

fn run_all(seeds: Range<u64>, plan: PlanOf) -> ExitCode {
    let begin = Instant::now();
    let (mut node_time, mut packets, mut recovery) = (Duration::ZERO, 0, Duration::ZERO);
    for seed in seeds.clone() {
        let plan = plan(seed);
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

fn trace(plan: &Plan) -> ExitCode {
    let smaller = run(plan).err().map(|failure| shrink(plan, failure, SHRINKING).0);
    let plan = smaller.as_ref().unwrap_or(plan);
    say(&plan.show());
    match run_traced(plan, Trace::readable()) {
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
