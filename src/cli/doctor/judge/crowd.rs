//! More DDS processes on a machine than a domain has room for.

use std::collections::BTreeMap;

use ria_api::environment::DOMAIN_VARIABLE;
use ria_api::state::Severity;

use super::super::facts::{Facts, Middleware, Process};
use super::Findings;

/// Processes with Cyclone DDS that Ria's configuration lets a machine run (`MaxAutoParticipantIndex`).
const CYCLONE: usize = 32;

/// Participants of a machine that have ports in their domain's 250, from 7410 + 250 × domain on, two each; those of others
/// reach into the next domain.
const FAST_DDS: usize = 119;

/// From this share of what there is room for on, in percent, it is told: the next node is the one that fails.
const FULL: usize = 85;

pub(super) fn judge(all: &mut Findings, facts: &Facts) {
    let mut count: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for process in &facts.processes.ros {
        *count.entry((domain(process), is_cyclone(process))).or_default() += 1;
    }
    for ((domain, is_cyclone), count) in count {
        let next =
            "put nodes together into fewer processes (component containers), or some into another ROS domain";
        let (name, most, what) = if is_cyclone {
            ("Cyclone DDS", CYCLONE, "a further one does not start")
        } else {
            ("Fast DDS", FAST_DDS, "further ones take ports of the next domain")
        };
        let asked = facts.ports_asked.filter(|asked| !is_cyclone && count > *asked);
        let text = if count * 100 >= most * FULL {
            format!(
                "{count} processes with {name} are in ROS domain {domain}, where a machine has room for {most}: {what}"
            )
        } else if let Some(asked) = asked {
            format!(
                "{count} processes with {name} are in ROS domain {domain}, and peers ask for the first {asked} of a machine only"
            )
        } else {
            continue;
        };
        all.add("processes", "crowded", Severity::Warning, text, next.to_owned());
    }
}

fn domain(process: &Process) -> &str {
    process.environment.get(DOMAIN_VARIABLE).map_or("0", |id| if id.is_empty() { "0" } else { id })
}

fn is_cyclone(process: &Process) -> bool {
    process.middleware.first() == Some(&Middleware::Cyclone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(count: usize, middleware: Middleware, change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let process = Process { middleware: vec![middleware], ..Process::default() };
        let mut facts = Facts::default();
        facts.processes.ros = vec![process; count];
        change(&mut facts);
        let mut all = Findings::default();
        judge(&mut all, &facts);
        all.0.into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn two_hundred_processes_have_no_room_in_one_domain() {
        for (count, middleware, most) in [
            (200, Middleware::FastDds2, "119"),
            (200, Middleware::FastDds3, "119"),
            (30, Middleware::Cyclone, "32"),
        ] {
            let told = with(count, middleware, |_| {});
            assert!(
                told.len() == 1 && told[0].contains(&format!("{count} processes")) && told[0].contains(most),
                "{told:?}"
            );
        }
        assert!(
            with(100, Middleware::FastDds2, |_| {}).is_empty()
                && with(27, Middleware::Cyclone, |_| {}).is_empty()
        );
    }

    #[test]
    fn each_domain_has_room_of_its_own() {
        let told = with(200, Middleware::FastDds2, |facts| {
            for (number, process) in facts.processes.ros.iter_mut().enumerate() {
                process.environment.insert(DOMAIN_VARIABLE.into(), (number % 3).to_string());
            }
        });
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn by_unicast_no_more_are_found_than_are_asked_for() {
        let told = with(20, Middleware::FastDds3, |facts| facts.ports_asked = Some(16));
        assert!(told.len() == 1 && told[0].contains("first 16"), "{told:?}");
        assert!(with(16, Middleware::FastDds3, |facts| facts.ports_asked = Some(16)).is_empty());
    }
}
