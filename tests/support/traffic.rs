//! Traffic from each robot to each other one, and which of it arrives.

use std::thread;
use std::time::Duration;

use netlab::{FlowEnd, Flows};

use super::{Robot, eventually};

/// Between two packets of a flow.
const PACE: Duration = Duration::from_millis(10);

/// How long nothing may arrive before traffic counts as stopped: a hundred packets of each flow.
const SILENCE: Duration = Duration::from_secs(1);

/// Who sends, and to whom: indices of robots.
pub type Pair = (usize, usize);

/// Runs until it is dropped.
pub struct Traffic {
    flows: Flows,
    /// Who sends to whom, in the order of the flows.
    pairs: Vec<Pair>,
}

impl Traffic {
    /// Begins, and waits until all of it flows.
    pub fn among(robots: &[Robot]) -> Self {
        let end =
            |robot: &Robot| FlowEnd { host: robot.host.clone(), address: robot.address().parse().unwrap() };
        let ends: Vec<FlowEnd> = robots.iter().map(end).collect();
        let all = (0..ends.len()).flat_map(|from| (0..ends.len()).map(move |to| (from, to)));
        let pairs: Vec<Pair> = all.filter(|(from, to)| from != to).collect();
        let flows: Vec<_> = pairs.iter().map(|(from, to)| (ends[*from].clone(), ends[*to].clone())).collect();
        let traffic = Self { flows: Flows::start(&flows, PACE).unwrap(), pairs };
        traffic.wait_for(|_| true);
        traffic
    }

    /// Packets that have been sent between the wanted ones.
    pub fn sent(&self, wanted: impl Fn(Pair) -> bool) -> u64 {
        self.numbers(wanted).map(|flow| self.flows.sent(flow)).sum()
    }

    /// Waits until more has arrived of each of the wanted flows.
    pub fn wait_for(&self, wanted: impl Fn(Pair) -> bool) {
        let before = self.received(&wanted);
        eventually("all of it flows", || {
            self.received(&wanted).iter().zip(&before).all(|(now, before)| now > before)
        });
    }

    /// Waits until nothing arrives any more but of the wanted flows, and makes sure that these go on.
    pub fn wait_for_only(&self, wanted: impl Fn(Pair) -> bool) {
        eventually("the rest stands still", || {
            let before = self.received(|pair| !wanted(pair));
            thread::sleep(SILENCE);
            self.received(|pair| !wanted(pair)) == before
        });
        self.wait_for(wanted);
    }

    fn received(&self, wanted: impl Fn(Pair) -> bool) -> Vec<u64> {
        self.numbers(wanted).map(|flow| self.flows.received(flow)).collect()
    }

    fn numbers(&self, wanted: impl Fn(Pair) -> bool) -> impl Iterator<Item = usize> {
        self.pairs.iter().enumerate().filter(move |(_, pair)| wanted(**pair)).map(|(number, _)| number)
    }
}
