//! Runs of many seeds. `RIA_SIM_SEEDS=0..100000` makes others than the usual ones; a run that fails is printed small, and
//! `cargo run -p ria-sim -- --trace SEED` tells everything that happened in it.

use std::ops::Range;

use ria_sim::trace::Trace;
use ria_sim::{Plan, run, run_traced, shrink};

/// As many as take some ten seconds.
const SEEDS: Range<u64> = 0..160;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("RIA_SIM_SEEDS") else { return SEEDS };
    let parsed =
        text.split_once("..").and_then(|(first, last)| Some(first.parse().ok()?..last.parse().ok()?));
    parsed.unwrap_or_else(|| panic!("RIA_SIM_SEEDS is {text:?}; give it as 0..1000"))
}

#[test]
fn whatever_happens_all_promises_are_kept() {
    for seed in seeds() {
        let plan = Plan::from_seed(seed);
        let Err(failure) = run(&plan) else { continue };
        let first = failure.wrong.clone();
        let (plan, failure) = shrink(&plan, failure, 300);
        panic!(
            "seed {seed}: {first}\nthe smallest plan that fails ({}):\n{}\nall that happened in it: cargo run -p ria-sim -- \
             --trace {seed}",
            failure.wrong,
            plan.show()
        );
    }
}

#[test]
fn one_seed_gives_one_run_to_the_last_bit() {
    for seed in 1000..1012 {
        let plan = Plan::from_seed(seed);
        assert_eq!(plan, Plan::from_seed(seed));
        let runs = [run(&plan).unwrap(), run_traced(&plan, Trace::readable()).unwrap()];
        assert_eq!(runs[0], runs[1], "seed {seed}");
        assert_ne!(runs[0].trace, run(&Plan { seed: seed + 1, ..plan }).unwrap().trace);
    }
}
