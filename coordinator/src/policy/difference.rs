//! Who gains and who loses what when one policy takes the place of another.

use std::collections::{BTreeMap, BTreeSet};

use ria_protocol::name::Name;
use ria_protocol::policy::{Permit, PermitKind};
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::Policy;
use super::ask::{Resolved, Roster};
use super::valid::Period;
use super::words::permit_text;

/// Pairs that are told one by one; of more only the number is.
const MOST_TOLD: usize = 2000;

/// What may be begun with some members that could not, or can't any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub from: Name,
    pub to: Vec<Name>,
    pub gains: Vec<String>,
    pub loses: Vec<String>,
    /// What stays allowed although something is lost.
    pub keeps: Vec<String>,
}

/// All differences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub changed: Vec<Changed>,
    /// Pairs of members for which something changes.
    pub pairs: usize,
}

type Allowed = BTreeSet<(Permit, Option<(u64, u64)>)>;

/// A policy with whom it means.
pub type Meant<'p> = (&'p Policy, &'p Resolved);

/// From one policy to another; absent: everything is allowed. What has ended by `now` does not count.
pub fn difference(
    before: Option<Meant<'_>>,
    after: Option<Meant<'_>>,
    roster: &Roster,
    now: UnixTime,
) -> Difference {
    let (before, after) = (Table::of(before, roster, now), Table::of(after, roster, now));
    let names: Vec<&Name> = roster.iter().map(|entry| &entry.name).collect();
    let mut made = Difference::default();
    for (from, name) in names.iter().enumerate() {
        let mut alike: BTreeMap<[Vec<String>; 3], Vec<Name>> = BTreeMap::new();
        for (to, other) in names.iter().enumerate().filter(|(to, _)| *to != from) {
            let (old, new) = (before.between(from, to), after.between(from, to));
            let (gains, loses) = (beyond(&new, &old), beyond(&old, &new));
            if !gains.is_empty() || !loses.is_empty() {
                made.pairs += 1;
                if made.pairs <= MOST_TOLD {
                    let is_kept = |text: &String| !loses.is_empty() && !gains.contains(text);
                    let kept = new.iter().map(text).filter(is_kept).collect();
                    alike.entry([gains, loses, kept]).or_default().push((*other).clone());
                }
            }
        }
        let changed = alike.into_iter();
        made.changed.extend(changed.map(|([gains, loses, keeps], to)| Changed {
            from: (*name).clone(),
            to,
            gains,
            loses,
            keeps,
        }));
    }
    made
}

/// For each rule, who is on its sides.
struct Table<'p>(Option<Vec<Row<'p>>>);

struct Row<'p> {
    from: Vec<bool>,
    to: Vec<bool>,
    permits: &'p [Permit],
    period: Option<Period>,
}

impl<'p> Table<'p> {
    fn of(meant: Option<Meant<'p>>, roster: &Roster, now: UnixTime) -> Self {
        let Some((policy, resolved)) = meant else { return Self(None) };
        let rules = resolved.rules(policy);
        let lasting = rules.filter(|(rule, ..)| rule.period.is_none_or(|period| now < period.until));
        Self(Some(
            lasting
                .map(|(rule, from, to)| Row {
                    from: roster.iter().map(|e| e.is_in(from)).collect(),
                    to: roster.iter().map(|e| e.is_in(to)).collect(),
                    permits: &rule.permits,
                    period: rule.period,
                })
                .collect(),
        ))
    }

    fn between(&self, from: usize, to: usize) -> Allowed {
        let Some(rows) = &self.0 else { return [(Permit::plain(PermitKind::ANY), None)].into() };
        let is = |side: &[bool], who: usize| side.get(who).copied().unwrap_or(false);
        let mut allowed = Allowed::new();
        for row in rows {
            let forth = is(&row.from, from) && is(&row.to, to);
            let back = is(&row.from, to) && is(&row.to, from);
            let period = row.period.map(|period| (period.from.0, period.until.0));
            let permits = row.permits.iter().filter(|permit| forth || (back && permit.is_mutual()));
            allowed.extend(permits.map(|permit| (*permit, period)));
        }
        allowed
    }
}

/// What one allows and the other does not, in words.
fn beyond(one: &Allowed, other: &Allowed) -> Vec<String> {
    let is_covered = |(permit, period): &&(Permit, Option<(u64, u64)>)| {
        other.iter().any(|(wide, when)| {
            covers(wide, permit)
                && when.is_none_or(|(from, until)| period.is_some_and(|p| from <= p.0 && p.1 <= until))
        })
    };
    one.iter().filter(|allowed| !is_covered(allowed)).map(text).collect()
}

fn text((permit, period): &(Permit, Option<(u64, u64)>)) -> String {
    match period {
        None => permit_text(permit),
        Some((from, until)) => {
            let period = Period { from: UnixTime(*from), until: UnixTime(*until) };
            format!("{} ({period})", permit_text(permit))
        }
    }
}

fn covers(wide: &Permit, narrow: &Permit) -> bool {
    wide.kind == PermitKind::ANY
        || (wide.kind == narrow.kind
            && wide.group == narrow.group
            && wide.first <= narrow.first
            && narrow.last <= wide.last)
}

#[cfg(test)]
mod tests {
    use super::super::text::parse;
    use super::*;
    use crate::state::tests::{member, network};

    fn told(before: Option<&str>, after: Option<&str>) -> Vec<String> {
        let mut lab = network();
        for (n, name) in [(2, "a"), (3, "b"), (4, "c")] {
            let entry = member(n, name);
            lab.members.insert(entry.node, entry);
        }
        let roster = Roster::of(&lab);
        let read = |text: Option<&str>| text.map(|text| parse(text).unwrap());
        let (before, after) = (read(before), read(after));
        let resolved = |policy: &Option<Policy>| policy.as_ref().map(|policy| Resolved::of(policy, &roster));
        let (old, new) = (resolved(&before), resolved(&after));
        let made = difference(
            before.as_ref().zip(old.as_ref()),
            after.as_ref().zip(new.as_ref()),
            &roster,
            UnixTime(9),
        );
        let to = |changed: &Changed| changed.to.iter().map(Name::as_str).collect::<Vec<_>>().join("+");
        let text = |c: &Changed| {
            let [gains, loses, keeps] = [&c.gains, &c.loses, &c.keeps].map(|texts| texts.join(","));
            format!("{}>{} +{gains} -{loses} ={keeps}", c.from, to(c))
        };
        made.changed.iter().map(text).collect()
    }

    fn rule(from: &str, to: &str, allow: &str) -> String {
        format!("[[rule]]\nfrom = [\"{from}\"]\nto = [\"{to}\"]\nallow = [\"{allow}\"]\n")
    }

    #[test]
    fn who_gains_and_who_loses_is_told_for_each_direction() {
        assert_eq!(told(None, Some(&rule("*", "*", "any"))), Vec::<String>::new());
        let ssh = rule("a", "b", "tcp/22");
        let all = ["a>c + -any =", "a>b + -any =tcp/22", "b>a+c + -any =", "c>a+b + -any ="];
        assert_eq!(told(None, Some(&ssh)), all);
        assert_eq!(told(Some(&ssh), Some(&rule("a", "b", "tcp/20-30"))), ["a>b +tcp/20-30 - ="]);
        assert_eq!(
            told(Some(&ssh), Some(&rule("b", "a", "ros/7"))),
            ["a>b +ros/7 -tcp/22 =", "b>a +ros/7 - ="]
        );
        assert_eq!(told(Some(&ssh), Some("")), ["a>b + -tcp/22 ="]);
        let booked = format!("{ssh}valid = \"2026-12-01 14:00..16:00\"\n");
        assert_eq!(told(Some(&ssh), Some(&booked)), ["a>b + -tcp/22 =tcp/22 (2026-12-01 14:00..16:00)"]);
        assert_eq!(told(Some(""), Some(&booked)), ["a>b +tcp/22 (2026-12-01 14:00..16:00) - ="]);
    }
}
