//! Makes a plan that fails smaller, so that somebody can read it: leaves out what it fails without.

use crate::happening::{Happening, Plan};
use crate::run::{Failure, run};

/// The smallest plan found that still fails, with its failure. `runs` bounds the search.
pub fn shrink(plan: &Plan, failure: Failure, runs: usize) -> (Plan, Failure) {
    let mut best = (cut_after(plan, failure.at), failure);
    let mut left = runs;
    let mut chunk = best.0.happenings.len().div_ceil(2);
    while chunk > 0 && left > 0 {
        let mut from = 0;
        let mut found = false;
        while from < best.0.happenings.len() && left > 0 {
            left -= 1;
            let mut smaller = best.0.clone();
            let to = (from + chunk).min(smaller.happenings.len());
            smaller.happenings.drain(from..to);
            match still_fails(&smaller) {
                Some(failure) => {
                    best = (cut_after(&smaller, failure.at), failure);
                    found = true;
                }
                None => from = to,
            }
        }
        if !found || chunk > 1 {
            chunk /= 2;
        }
    }
    best
}

fn still_fails(plan: &Plan) -> Option<Failure> {
    run(plan).err()
}

/// Nothing after the failure matters.
fn cut_after(plan: &Plan, at: usize) -> Plan {
    let mut plan = plan.clone();
    plan.happenings.truncate(at + 1);
    if plan.happenings.last() != Some(&Happening::Settled) && plan.happenings.is_empty() {
        plan.happenings.push(Happening::Settled);
    }
    plan
}
