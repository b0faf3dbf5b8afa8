//! What a policy's text has of one person: bookings, which are rules for a time, and rules that stay. Bookings can be taken
//! out of the text, which stays as it is otherwise.

use std::collections::BTreeSet;

use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;

use super::text::parse;
use super::words::permit_text;
use super::{Policy, PolicyRule, Who};
use crate::state::people::UserName;

/// Somebody, with their laptops in one network.
#[derive(Debug, Clone)]
pub struct Holder {
    pub name: UserName,
    pub laptops: BTreeSet<Name>,
}

impl Holder {
    fn is(&self, who: &Who) -> bool {
        match who {
            Who::Person(name) => *name == self.name,
            Who::Node(node) => self.laptops.contains(node),
            Who::Everybody | Who::Tag(_) | Who::Group(_) | Who::People(_) | Who::Route(_) => false,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Bookings of this person's alone that have not ended.
    pub bookings: Vec<u32>,
    /// Other rules, and groups, that name them.
    pub others: Vec<String>,
}

/// What a policy has of somebody.
pub fn find(policy: &Policy, holder: &Holder, now: UnixTime) -> Found {
    let mut found = Found::default();
    for rule in &policy.rules {
        let ends = rule.period.map(|period| period.until);
        let alone = !rule.from.is_empty() && rule.from.iter().all(|who| holder.is(who));
        if ends.is_some_and(|until| until <= now)
            || !rule.from.iter().chain(&rule.to).any(|who| holder.is(who))
        {
            continue;
        }
        if alone && ends.is_some() {
            found.bookings.push(rule.number);
        } else {
            found.others.push(told(rule));
        }
    }
    let groups = policy.groups.iter().filter(|(_, whos)| whos.iter().any(|who| holder.is(who)));
    found.others.extend(groups.map(|(name, _)| format!("group {name}")));
    found
}

/// A rule in words.
pub fn told(rule: &PolicyRule) -> String {
    let whos = |whos: &[Who]| whos.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let permits: Vec<String> = rule.permits.iter().map(permit_text).collect();
    let period = rule.period.map(|period| format!(", {period} UTC")).unwrap_or_default();
    format!("{rule}: {} to {}, {}{period}", whos(&rule.from), whos(&rule.to), permits.join(" "))
}

/// The text without these rules; `None` where it is written in a way that they can't be cut out of it with certainty.
pub fn without(text: &str, policy: &Policy, numbers: &[u32]) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut cut = vec![false; lines.len()];
    for rule in policy.rules.iter().filter(|rule| numbers.contains(&rule.number)) {
        let is_head = |at: &usize| lines.get(*at).is_some_and(|line| line.trim_start().starts_with('['));
        let is_blank = |at: &usize| lines.get(*at).is_some_and(|line| is_blank(line));
        let head = (0..rule.line.min(lines.len())).rev().find(is_head)?;
        let end = (head + 1..lines.len()).find(is_head).unwrap_or(lines.len());
        // Comments right before the next part belong to that.
        let own = (head + 1..end).rev().find(|at| !is_blank(at)).unwrap_or(head);
        cut.get_mut(head..=own)?.fill(true);
    }
    let kept = lines.iter().zip(&cut).filter(|(_, cut)| !**cut).map(|(line, _)| *line);
    let made = kept.collect::<Vec<_>>().join("\n") + "\n";
    let read = parse(&made).ok()?;
    let rest: Vec<&PolicyRule> = policy.rules.iter().filter(|rule| !numbers.contains(&rule.number)).collect();
    let same = |a: &PolicyRule, b: &PolicyRule| {
        (&a.name, &a.from, &a.to, &a.permits, a.period) == (&b.name, &b.from, &b.to, &b.permits, b.period)
    };
    let is_rest = read.rules.len() == rest.len()
        && read.rules.iter().zip(rest).all(|(a, b)| same(a, b))
        && read.groups == policy.groups
        && read.tests.len() == policy.tests.len();
    is_rest.then_some(made)
}

fn is_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_796_133_600);

    fn holder() -> Holder {
        Holder { name: "ada".parse().unwrap(), laptops: ["ada-1".parse().unwrap()].into() }
    }

    const TEXT: &str = "# The lab's.\n[groups]\nstaff = [\"person:ada\"]\n\n# For all.\n[[rule]]\nfrom = [\"*\"]\nto = [\"robot-1\"]\n\
        allow = [\"icmp\"]\n\n[[rule]]\n# Her demo.\nname = \"demo\"\nfrom = [\n  \"person:ada\",\n  \"ada-1\",\n]\nto = [\"robot-3\"]\n\
        allow = [\"any\"]\nvalid = \"2026-12-01 13:00..16:00\"\n\n# Together.\n[[rule]]\nfrom = [\"ada-1\", \"bob-1\"]\nto = [\"robot-3\"]\n\
        allow = [\"tcp/22\"]\nvalid = \"2026-12-01 13:00..16:00\"\n\n[[rule]]\nfrom = [\"ada-1\"]\nto = [\"robot-3\"]\n\
        allow = [\"tcp/22\"]\nvalid = \"2026-11-01 13:00..16:00\"\n[[rule]]\nfrom = [\"person:ada\"]\nto = [\"robot-3\"]\nallow = [\"tcp/22\"]\n";

    #[test]
    fn bookings_of_one_person_are_told_from_what_others_share() {
        let policy = parse(TEXT).unwrap();
        let found = find(&policy, &holder(), NOW);
        assert_eq!(found.bookings, [2], "one has ended, one is bob's as well, one is no booking");
        let others: Vec<&str> = found.others.iter().map(|text| text.split(' ').nth(1).unwrap()).collect();
        assert_eq!(others, ["3", "5", "staff"]);
    }

    #[test]
    fn what_is_cut_out_leaves_the_rest_as_it_was_written() {
        let policy = parse(TEXT).unwrap();
        let made = without(TEXT, &policy, &[2]).unwrap();
        assert!(
            !made.contains("demo") && !made.contains("Her demo") && made.contains("# Together.\n[[rule]]")
        );
        assert!(
            made.starts_with("# The lab's.\n[groups]")
                && made.contains("# For all.\n[[rule]]\nfrom = [\"*\"]")
        );
        assert_eq!(without(TEXT, &policy, &[]).unwrap(), TEXT);
        let all = without(TEXT, &policy, &[1, 2, 3, 4, 5]).unwrap();
        assert_eq!(parse(&all).unwrap().rules, []);
        // Written in one line, nothing can be cut out by lines.
        let dense = "rule = [{ from = [\"person:ada\"], to = [\"r\"], allow = [\"any\"], valid = \"2026-12-01 13:00..16:00\" }]\n";
        assert_eq!(without(dense, &parse(dense).unwrap(), &[1]), None);
    }
}
