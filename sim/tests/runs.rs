//! Runs of many seeds. `RIA_SIM_SEEDS=0..100000` makes others than the usual ones; a run that fails is printed small, and
//! `cargo run -p ria-sim -- --trace SEED` tells everything that happened in it.

use std::ops::Range;

use ria_sim::Happening::{
    ClockSet, Crashed, Cut, KeyChanged, KeyRotated, NewsDelayed, Paused, Settled, Stopped, Talked,
};
use ria_sim::internet::End::{Host, Relay};
use ria_sim::internet::Place::{Behind, Public};
use ria_sim::trace::Trace;
use ria_sim::{Happening, Plan, run, run_traced, shrink};

/// As many as take some ten seconds.
const SEEDS: Range<u64> = 0..160;
const WITH_POLICIES: Range<u64> = 0..60;

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

/// What policies deny never comes out, whatever happens beside, and what they allow does once all trouble has ended.
#[test]
fn what_a_policy_denies_never_arrives() {
    let range = std::env::var("RIA_SIM_SEEDS").map_or(WITH_POLICIES, |_| seeds());
    for seed in range {
        let plan = Plan::with_policies(seed);
        let Err(failure) = run(&plan) else { continue };
        let first = failure.wrong.clone();
        let (plan, failure) = shrink(&plan, failure, 300);
        panic!(
            "seed {seed} with policies: {first}\nthe smallest plan that fails ({}):\n{}",
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

/// A plan that failed once.
fn passes(seed: u64, places: Vec<ria_sim::internet::Place>, happenings: Vec<Happening>) {
    let members = places.len().min(3);
    let plan = Plan { seed, places, members, has_relay: true, happenings };
    if let Err(failure) = run(&plan) {
        panic!("{}", failure.wrong);
    }
}

/// The relay's answer to a refresh was lost with the rest, and its data was back before the refresh was given up.
#[test]
fn a_relay_that_is_heard_again_is_not_given_up() {
    let happenings = vec![Paused(207), Cut(Host(0), Relay), Paused(7972), Settled];
    passes(1623, vec![Behind(2), Behind(5)], happenings);
}

/// A node that answered a handshake of a run that it never heard of otherwise, and whose next run is back in 1970.
#[test]
fn a_handshake_of_an_earlier_run_locks_nobody_out() {
    let happenings = vec![
        NewsDelayed(971),
        Paused(5699),
        KeyChanged(1),
        Paused(1297),
        Stopped(0),
        ClockSet { host: 0, seconds: 0 },
        Settled,
    ];
    passes(6607, vec![Public, Public, Public, Behind(0)], happenings);
}

/// Words on a stream take 20 ms here: the moments lie before, between and after the steps of a change of keys.
#[test]
fn a_robot_that_is_killed_while_its_key_changes_is_back_on_its_links() {
    for moment in [0, 10, 30, 45, 65, 80, 110, 150, 400, 1500] {
        for write_lost in [false, true] {
            let happenings = vec![
                Paused(3000),
                Talked { from: 0, to: 1, packets: 50, every: 100 },
                KeyRotated(1),
                Paused(moment),
                Crashed { host: 1, write_lost },
                Settled,
            ];
            passes(u64::from(moment), vec![Public, Public, Behind(0)], happenings);
        }
    }
}
