//! Makes a plan that fails smaller, so that somebody can read it: leaves out what it fails without.

use crate::happening::Plan;
use crate::run::{Failure, run};

/// The smallest plan found that still fails, with its failure. `runs` bounds the search.
pub fn shrink(plan: &Plan, failure: Failure, runs: usize) -> (Plan, Failure) {
    shrink_by(plan, failure, runs, |plan| run(plan).err())
}

fn shrink_by(
    plan: &Plan,
    failure: Failure,
    runs: usize,
    fails: impl Fn(&Plan) -> Option<Failure>,
) -> (Plan, Failure) {
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
            match fails(&smaller) {
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

/// Nothing after the failure matters.
fn cut_after(plan: &Plan, at: usize) -> Plan {
    let mut plan = plan.clone();
    plan.happenings.truncate(at + 1);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::happening::Happening::{Rebound, Removed};
    use crate::ledger::Wrong;

    #[test]
    fn only_what_a_failure_needs_is_left() {
        let mut plan = Plan::from_seed(3);
        plan.happenings.insert(7, Removed(1));
        plan.happenings.insert(20, Rebound(3));
        let fails = |plan: &Plan| {
            let removed = plan.happenings.iter().position(|h| *h == Removed(1))?;
            let at = plan.happenings.iter().skip(removed).position(|h| *h == Rebound(3))? + removed;
            Some(Failure { wrong: Wrong("both happened".into()), at, lines: vec![] })
        };
        let failure = fails(&plan).unwrap();
        let (small, _) = shrink_by(&plan, failure, 400, fails);
        assert_eq!(small.happenings, [Removed(1), Rebound(3)]);
    }
}
