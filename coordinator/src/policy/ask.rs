//! Who is meant by a policy's words among a network's members, and what it answers when somebody asks.

use std::collections::BTreeMap;

use ria_protocol::id::NodeId;
use ria_protocol::name::Name;
use ria_protocol::policy::Selector;
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;

use super::words::Question;
use super::{Policy, PolicyRule, Test, Who};
use crate::state::Network;
use crate::state::people::UserName;

/// A member, as policies see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub node: NodeId,
    pub name: Name,
    pub tags: Vec<String>,
    /// Whose laptop it is, and the groups that the provider puts that person into.
    pub owner: Option<UserName>,
    pub groups: Vec<String>,
    /// Networks that are reached behind it.
    pub routes: Vec<Prefix>,
    /// These devices behind it are meant, not the member itself.
    pub devices: Option<Prefix>,
}

impl Entry {
    /// Devices behind it, as somebody of their own.
    pub fn part(&self, prefix: Prefix) -> Self {
        Self { devices: Some(prefix), ..self.clone() }
    }

    /// Who is meant, in words.
    pub fn label(&self) -> String {
        match self.devices {
            Some(prefix) => format!("{prefix} behind {}", self.name),
            None => self.name.to_string(),
        }
    }

    /// Whether somebody is among those that a selector means.
    pub fn is_in(&self, selector: &Selector) -> bool {
        match self.devices {
            Some(own) => selector.devices().iter().any(|prefix| prefix.covers(&own)),
            None => selector.contains(self.node, &self.tags),
        }
    }
}

/// All members, static peers too, in order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster(Vec<Entry>);

impl Roster {
    /// Of a network.
    pub fn of(network: &Network) -> Self {
        let nodes = network.members.values();
        let nodes = nodes.map(|m| Entry {
            node: m.node,
            name: m.name.clone(),
            tags: m.tags.clone(),
            owner: m.laptop.as_ref().map(|laptop| laptop.owner.clone()),
            groups: m.laptop.as_ref().map(|laptop| laptop.groups.clone()).unwrap_or_default(),
            routes: network.routed_by(m.node).map(|route| route.prefix).collect(),
            devices: None,
        });
        let statics = network.static_peers.values();
        let statics = statics.map(|s| Entry {
            node: s.node,
            name: s.name.clone(),
            tags: s.tags.clone(),
            owner: None,
            groups: Vec::new(),
            routes: Vec::new(),
            devices: None,
        });
        let mut all: Vec<Entry> = nodes.chain(statics).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Self(all)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// The one of this name.
    pub fn named(&self, name: &Name) -> Option<&Entry> {
        self.0.binary_search_by(|entry| entry.name.cmp(name)).ok().and_then(|at| self.0.get(at))
    }

    /// Devices on a network behind a member, as somebody of their own.
    pub fn devices(&self, prefix: Prefix) -> Option<Entry> {
        let behind = |entry: &&Entry| entry.routes.iter().any(|route| route.covers(&prefix));
        Some(self.0.iter().find(behind)?.part(prefix))
    }

    /// The one of this name or identity.
    pub fn find(&self, wanted: &str) -> Option<&Entry> {
        self.0.iter().find(|e| e.name.as_str() == wanted || wanted.parse().is_ok_and(|node| e.node == node))
    }
}

/// Whom the rules of a policy mean, in their order: who begins, and with whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved(Vec<(Selector, Selector)>);

impl Resolved {
    /// For these members.
    pub fn of(policy: &Policy, roster: &Roster) -> Self {
        let of = |whos: &[Who]| selector(whos, &policy.groups, roster);
        Self(policy.rules.iter().map(|rule| (of(&rule.from), of(&rule.to))).collect())
    }

    /// The rules with whom they mean.
    pub fn rules<'a>(
        &'a self,
        policy: &'a Policy,
    ) -> impl Iterator<Item = (&'a PolicyRule, &'a Selector, &'a Selector)> {
        policy.rules.iter().zip(&self.0).map(|(rule, (from, to))| (rule, from, to))
    }
}

fn selector(whos: &[Who], groups: &BTreeMap<String, Vec<Who>>, roster: &Roster) -> Selector {
    let mut made = Selector::default();
    for who in whos {
        match who {
            Who::Everybody => made.all = true,
            // Somebody of this name may come later; then the rules are made again.
            Who::Node(name) => made.nodes.extend(roster.named(name).map(|entry| entry.node)),
            Who::Person(person) => {
                let theirs = roster.iter().filter(|entry| entry.owner.as_ref() == Some(person));
                made.nodes.extend(theirs.map(|entry| entry.node));
            }
            Who::People(group) => {
                let theirs = roster.iter().filter(|entry| entry.groups.contains(group));
                made.nodes.extend(theirs.map(|entry| entry.node));
            }
            Who::Tag(tag) => made.tags.push(tag.clone()),
            Who::Route(prefix) => made.prefixes.get_or_insert_default().push(*prefix),
            Who::Group(group) => {
                let inner =
                    selector(groups.get(group).map_or(&[][..], Vec::as_slice), &BTreeMap::new(), roster);
                made.all |= inner.all;
                made.nodes.extend(inner.nodes);
                made.tags.extend(inner.tags);
                if let Some(prefixes) = inner.prefixes {
                    made.prefixes.get_or_insert_default().extend(prefixes);
                }
            }
        }
    }
    made.nodes.sort_unstable();
    made.nodes.dedup();
    made.tags.sort();
    made.tags.dedup();
    if let Some(prefixes) = &mut made.prefixes {
        prefixes.sort_unstable();
        prefixes.dedup();
    }
    made
}

/// What a policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'p> {
    /// This rule allows it.
    Allowed(&'p PolicyRule),
    /// No rule does. This one would, at another time.
    Denied(Option<&'p PolicyRule>),
}

/// Whether `from` may begin this with `to`. Without a time only rules that hold always count.
pub fn ask<'p>(
    policy: &'p Policy,
    resolved: &'p Resolved,
    (from, to): (&Entry, &Entry),
    question: Question,
    time: Option<UnixTime>,
) -> Answer<'p> {
    let mut at_other_times = None;
    for (rule, froms, tos) in resolved.rules(policy) {
        let forth = from.is_in(froms) && to.is_in(tos);
        let back = question.is_mutual() && to.is_in(froms) && from.is_in(tos);
        if !(forth || back) || !rule.permits.iter().any(|permit| question.is_allowed_by(permit)) {
            continue;
        }
        if rule.holds(time) {
            return Answer::Allowed(rule);
        }
        at_other_times.get_or_insert(rule);
    }
    Answer::Denied(at_other_times)
}

impl PolicyRule {
    /// Whether it holds at this time; without one, whether it always does.
    pub fn holds(&self, time: Option<UnixTime>) -> bool {
        match (self.period, time) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(period), Some(time)) => period.from <= time && time < period.until,
        }
    }
}

/// A test of a policy that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failed {
    pub line: usize,
    pub text: String,
}

/// Runs the tests of a policy, which are about what always holds: rules with a period don't count.
pub fn run_tests(policy: &Policy, resolved: &Resolved, roster: &Roster) -> Vec<Failed> {
    policy.tests.iter().filter_map(|test| run_test(policy, resolved, roster, test)).collect()
}

/// A member that there might be.
fn nobody_yet(tag: String) -> Result<Entry, String> {
    let name = "nobody-yet".parse::<Name>().map_err(|error| error.to_string())?;
    let node = NodeId::from_bytes([0; NodeId::LEN]);
    let (groups, routes) = (Vec::new(), Vec::new());
    Ok(Entry { node, name, tags: vec![tag], owner: None, groups, routes, devices: None })
}

fn run_test(policy: &Policy, resolved: &Resolved, roster: &Roster, test: &Test) -> Option<Failed> {
    let failed = |text: String| Some(Failed { line: test.line, text });
    let all_of = |who: &Who| -> Result<Vec<Entry>, String> {
        let selector = selector(std::slice::from_ref(who), &policy.groups, roster);
        let found: Vec<Entry> = if let Who::Route(prefix) = who {
            roster.devices(*prefix).into_iter().collect()
        } else {
            roster.iter().filter(|entry| entry.is_in(&selector)).cloned().collect()
        };
        match who {
            _ if !found.is_empty() => Ok(found),
            // The first one with the tag is to find what the test says.
            Who::Tag(tag) => nobody_yet(tag.clone()).map(|entry| vec![entry]),
            // People come and go; what has to hold for their laptops holds while there are none.
            Who::Person(_) | Who::People(_) => Ok(Vec::new()),
            Who::Route(_) => {
                Err(format!("{who} is no approved network behind a node (ria-coordinator route list)"))
            }
            Who::Node(_) | Who::Group(_) | Who::Everybody => Err(format!("{who} is nobody in this network")),
        }
    };
    let (from, to) = match (all_of(&test.from), all_of(&test.to)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(text), _) | (_, Err(text)) => return failed(text),
    };
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
    for (from, to) in pairs.filter(|(from, to)| from.node != to.node || from.name != to.name) {
        let answer = ask(policy, resolved, (from, to), test.question, None);
        let told = |entry: &Entry, who: &Who| match who {
            Who::Node(_) => entry.name.to_string(),
            Who::Tag(_)
            | Who::Group(_)
            | Who::Person(_)
            | Who::People(_)
            | Who::Route(_)
            | Who::Everybody => format!("{} ({who})", entry.name),
        };
        let (from, to) = (told(from, &test.from), told(to, &test.to));
        match answer {
            Answer::Allowed(rule) if !test.allow => {
                return failed(format!("{} from {from} to {to} is allowed by {rule}", test.question));
            }
            Answer::Denied(_) if test.allow => {
                return failed(format!(
                    "{} from {from} to {to} is allowed by no rule that always holds",
                    test.question
                ));
            }
            Answer::Allowed(_) | Answer::Denied(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::text::parse;
    use super::*;

    fn roster() -> Roster {
        let entry = |n: u8, name: &str, tags: &[&str]| Entry {
            node: NodeId::from_bytes([n; 10]),
            name: name.parse().unwrap(),
            tags: tags.iter().map(ToString::to_string).collect(),
            owner: None,
            groups: Vec::new(),
            routes: Vec::new(),
            devices: None,
        };
        Roster(vec![
            entry(1, "laptop-1", &[]),
            entry(2, "laptop-2", &["laptop"]),
            entry(3, "robot-1", &["robot"]),
            entry(4, "robot-2", &["robot"]),
        ])
    }

    const LAB: &str = r#"
[groups]
operators = ["laptop-1", "tag:laptop"]
[[rule]]
from = ["group:operators"]
to = ["tag:robot"]
allow = ["tcp/22"]
[[rule]]
from = ["robot-1"]
to = ["robot-2"]
allow = ["ros/7"]
[[rule]]
from = ["robot-1"]
to = ["robot-2"]
allow = ["tcp/80"]
valid = "2026-12-01 14:00..16:00"
"#;

    fn answer(from: &str, to: &str, question: &str, time: Option<u64>) -> Result<u32, Option<u32>> {
        let (policy, roster) = (parse(LAB).unwrap(), roster());
        let resolved = Resolved::of(&policy, &roster);
        let pair = (roster.find(from).unwrap(), roster.find(to).unwrap());
        match ask(&policy, &resolved, pair, question.parse().unwrap(), time.map(UnixTime)) {
            Answer::Allowed(rule) => Ok(rule.number),
            Answer::Denied(later) => Err(later.map(|rule| rule.number)),
        }
    }

    #[test]
    fn groups_tags_and_nodes_are_found_and_ros_is_mutual() {
        assert_eq!(answer("laptop-1", "robot-1", "22", None), Ok(1));
        assert_eq!(answer("laptop-2", "robot-2", "22", None), Ok(1));
        assert_eq!(answer("robot-1", "laptop-1", "22", None), Err(None), "who may be called may not call");
        assert_eq!(answer("laptop-1", "robot-1", "23", None), Err(None));
        assert_eq!(answer("robot-1", "robot-2", "ros/7", None), Ok(2));
        assert_eq!(answer("robot-2", "robot-1", "ros/7", None), Ok(2));
        assert_eq!(answer("robot-2", "robot-1", "ros/8", None), Err(None));
    }

    #[test]
    fn people_are_their_laptops_and_groups_are_the_providers() {
        let mut roster = roster();
        roster.0[0].owner = Some("ada@uni.example".parse().unwrap());
        roster.0[0].groups = vec!["Robotics Lab".into()];
        let text = "[groups]\nstaff = [\"person:Ada@uni.example\"]\n[[rule]]\nfrom = [\"group:staff\"]\nto = [\"robot-1\"]\n\
                    allow = [\"tcp/22\"]\n[[rule]]\nfrom = [\"people:Robotics Lab\"]\nto = [\"robot-2\"]\nallow = [\"icmp\"]\n\
                    [[test]]\nfrom = \"person:bob\"\nto = \"robot-1\"\nport = \"icmp\"\nexpect = \"deny\"\n";
        let policy = parse(text).unwrap();
        let resolved = Resolved::of(&policy, &roster);
        let may = |from: &str, to: &str, what: &str| {
            let pair = (roster.find(from).unwrap(), roster.find(to).unwrap());
            matches!(ask(&policy, &resolved, pair, what.parse().unwrap(), None), Answer::Allowed(_))
        };
        assert!(may("laptop-1", "robot-1", "tcp/22") && may("laptop-1", "robot-2", "icmp"));
        assert!(!may("laptop-2", "robot-1", "tcp/22") && !may("laptop-2", "robot-2", "icmp"));
        assert!(run_tests(&policy, &resolved, &roster).is_empty(), "bob has no laptop");
        for bad in ["person:", "person:a b", "people:", "people: x", "user:ada"] {
            assert!(bad.parse::<Who>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rule_with_a_period_is_named_when_it_does_not_hold() {
        assert_eq!(answer("robot-1", "robot-2", "80", Some(1_796_133_600)), Ok(3));
        assert_eq!(answer("robot-1", "robot-2", "80", Some(1_796_140_800)), Err(Some(3)));
        assert_eq!(answer("robot-1", "robot-2", "80", None), Err(Some(3)));
    }

    #[test]
    fn tests_are_about_each_member_that_they_name() {
        let failed = |tests: &str| -> Vec<String> {
            let policy = parse(&format!("{LAB}{tests}")).unwrap();
            let roster = roster();
            let failed = run_tests(&policy, &Resolved::of(&policy, &roster), &roster);
            failed.into_iter().map(|failed| failed.text).collect()
        };
        let test = |from: &str, to: &str, port: &str, expect: &str| {
            format!("[[test]]\nfrom = \"{from}\"\nto = \"{to}\"\nport = \"{port}\"\nexpect = \"{expect}\"\n")
        };
        assert!(failed(&test("group:operators", "tag:robot", "tcp/22", "allow")).is_empty());
        assert!(failed(&test("tag:robot", "tag:robot", "tcp/22", "deny")).is_empty());
        assert!(
            failed(&test("tag:camera", "tag:robot", "tcp/22", "deny")).is_empty(),
            "nobody has the tag yet"
        );
        let told = failed(&test("laptop-1", "robot-1", "tcp/22", "deny"));
        assert!(told[0].contains("allowed by rule 1"), "{told:?}");
        let told = failed(&test("tag:robot", "tag:robot", "ros/7", "allow"));
        assert!(told.is_empty());
        let told = failed(&test("*", "robot-1", "icmp", "allow"));
        assert!(told[0].contains("laptop-1 (*)"), "{told:?}");
        assert!(failed(&test("robot-9", "robot-1", "icmp", "deny"))[0].contains("robot-9 is nobody"));
        assert!(!failed(&test("robot-1", "robot-2", "tcp/80", "allow")).is_empty(), "not always");
    }
}
