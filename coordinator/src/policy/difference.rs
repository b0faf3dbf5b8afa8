//! Who gains and who loses what when one policy takes the place of another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ria_protocol::name::Name;
use ria_protocol::policy::{Permit, PermitKind};
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::Policy;
use super::ask::{Entry, Resolved, Roster};
use super::valid::Period;
use super::words::permit_text;

/// Pairs that are told one by one; of more only the number is.
const MOST_TOLD: usize = 2000;

/// What may be begun with some members that could not, or can't any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub from: Name,
    pub to: Vec<Name>,
    /// The same with devices on networks behind members.
    #[serde(default)]
    pub to_devices: Vec<Devices>,
    pub gains: Vec<String>,
    pub loses: Vec<String>,
    /// What stays allowed although something is lost.
    pub keeps: Vec<String>,
}

/// Devices on a network behind a member, by the addresses under which members reach them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    pub prefix: Prefix,
    pub behind: Name,
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} behind {}", self.prefix, self.behind)
    }
}

impl Changed {
    /// With whom, in words.
    pub fn whom(&self) -> String {
        let members = self.to.iter().map(ToString::to_string);
        members.chain(self.to_devices.iter().map(ToString::to_string)).collect::<Vec<_>>().join(", ")
    }

    /// Of how many pairs it tells.
    pub fn count(&self) -> usize {
        self.to.len() + self.to_devices.len()
    }
}

/// All differences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub changed: Vec<Changed>,
    /// Pairs of members for which something changes.
    pub pairs: usize,
    /// Pairs of a member and devices behind another for which something changes.
    #[serde(default)]
    pub device_pairs: usize,
}

type Allowed = BTreeSet<(Permit, Option<(u64, u64)>)>;

/// A policy with whom it means.
pub type Meant<'p> = (&'p Policy, &'p Resolved);

/// What somebody gains, loses and keeps.
type Effect = [Vec<String>; 3];

/// From one policy to another; absent: everything is allowed. What has ended by `now` does not count.
pub fn difference(
    before: Option<Meant<'_>>,
    after: Option<Meant<'_>>,
    roster: &Roster,
    now: UnixTime,
) -> Difference {
    let named = [before, after].into_iter().flatten().flat_map(|(policy, _)| policy.routes()).collect();
    let targets = Targets::of(roster, &named);
    let (before, after) = (Table::of(before, roster, &targets, now), Table::of(after, roster, &targets, now));
    let mut made = Difference::default();
    for (from, member) in roster.iter().enumerate() {
        let mut alike: BTreeMap<Effect, (Vec<Name>, Vec<Devices>)> = BTreeMap::new();
        let mut known: Vec<(Prefix, Effect)> = Vec::new();
        for (to, target) in targets.0.iter().enumerate().filter(|(_, target)| target.node != member.node) {
            let new = after.between(from, to);
            let mut effect = effect(&before.between(from, to), &new);
            if let Some(prefix) = target.devices {
                // Of a part, only what is otherwise than with all around it; also that it stays as it is.
                let wider = known.iter().rev().find(|(wider, _)| wider.covers(&prefix));
                let (is_told, stays) = match wider {
                    Some((_, whole)) => (*whole == effect, is_change(whole) && !is_change(&effect)),
                    None => (false, false),
                };
                known.push((prefix, effect.clone()));
                if is_told {
                    continue;
                }
                if stays {
                    effect[2] = new.iter().map(text).collect();
                }
            }
            if effect.iter().all(Vec::is_empty) {
                continue;
            }
            let count = if target.devices.is_some() { &mut made.device_pairs } else { &mut made.pairs };
            *count += 1;
            if *count <= MOST_TOLD {
                let (members, devices) = alike.entry(effect).or_default();
                match target.devices {
                    None => members.push(target.name.clone()),
                    Some(prefix) => devices.push(Devices { prefix, behind: target.name.clone() }),
                }
            }
        }
        let changed = alike.into_iter();
        made.changed.extend(changed.map(|([gains, loses, keeps], (to, to_devices))| Changed {
            from: member.name.clone(),
            to,
            to_devices,
            gains,
            loses,
            keeps,
        }));
    }
    made
}

fn is_change([gains, loses, _]: &Effect) -> bool {
    !gains.is_empty() || !loses.is_empty()
}

fn effect(old: &Allowed, new: &Allowed) -> Effect {
    let (gains, loses) = (beyond(new, old), beyond(old, new));
    let is_kept = |text: &String| !loses.is_empty() && !gains.contains(text);
    let kept = new.iter().map(text).filter(is_kept).collect();
    [gains, loses, kept]
}

/// With whom something may be begun: members in the order of the roster, then the devices behind them. Of networks behind a member
/// each as a whole, and each part of it that a rule names, wider ones first.
struct Targets(Vec<Entry>);

impl Targets {
    fn of(roster: &Roster, named: &BTreeSet<Prefix>) -> Self {
        let mut all: Vec<Entry> = roster.iter().cloned().collect();
        for gateway in roster.iter().filter(|entry| !entry.routes.is_empty()) {
            let parts = named.iter().filter(|part| gateway.routes.iter().any(|route| route.covers(part)));
            let prefixes: BTreeSet<Prefix> = gateway.routes.iter().chain(parts).copied().collect();
            let mut prefixes: Vec<Prefix> = prefixes.into_iter().collect();
            prefixes.sort_by_key(Prefix::length);
            all.extend(prefixes.into_iter().map(|prefix| gateway.part(prefix)));
        }
        Self(all)
    }
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
    fn of(meant: Option<Meant<'p>>, roster: &Roster, targets: &Targets, now: UnixTime) -> Self {
        let Some((policy, resolved)) = meant else { return Self(None) };
        let rules = resolved.rules(policy);
        let lasting = rules.filter(|(rule, ..)| rule.period.is_none_or(|period| now < period.until));
        Self(Some(
            lasting
                .map(|(rule, from, to)| Row {
                    from: roster.iter().map(|e| e.is_in(from)).collect(),
                    to: targets.0.iter().map(|e| e.is_in(to)).collect(),
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
            // Devices begin nothing: they are on no rule's first side.
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

    #[test]
    fn devices_behind_a_member_are_told_beside_it() {
        let mut lab = crate::state::routes::tests::lab();
        lab.members.retain(|_, entry| entry.name.as_str() != "robot-2");
        let roster = Roster::of(&lab);
        let told = |before: Option<&str>, after: Option<&str>| -> (Vec<String>, [usize; 2]) {
            let read = |text: Option<&str>| text.map(|text| parse(text).unwrap());
            let (before, after) = (read(before), read(after));
            let resolved =
                |policy: &Option<Policy>| policy.as_ref().map(|policy| Resolved::of(policy, &roster));
            let (old, new) = (resolved(&before), resolved(&after));
            let (before, after) = (before.as_ref().zip(old.as_ref()), after.as_ref().zip(new.as_ref()));
            let made = difference(before, after, &roster, UnixTime(9));
            let text = |c: &Changed| {
                let [gains, loses, keeps] = [&c.gains, &c.loses, &c.keeps].map(|texts| texts.join(","));
                format!("{}>{} +{gains} -{loses} ={keeps}", c.from, c.whom())
            };
            (made.changed.iter().map(text).collect(), [made.pairs, made.device_pairs])
        };
        let all = rule("*", "*", "any");
        let lost = "laptop>10.66.1.0/24 behind robot-1 + -any =";
        assert_eq!(told(None, Some(&all)), (vec![lost.to_owned()], [0, 1]), "\"*\" means no devices");
        let page = format!("{all}{}", rule("laptop", "route:10.66.1.7/32", "tcp/80"));
        let but = "laptop>10.66.1.7/32 behind robot-1 + -any =tcp/80";
        assert_eq!(told(None, Some(&page)).0, [lost, but]);
        let gained = "laptop>10.66.1.7/32 behind robot-1 +tcp/80 - =";
        assert_eq!(told(Some(&all), Some(&page)), (vec![gained.to_owned()], [0, 1]));
        // A part that fares as the whole is not told again, and a wider prefix means all of it.
        let wide = format!("{page}{}", rule("laptop", "route:10.64.0.0/12", "tcp/80"));
        assert_eq!(told(Some(&all), Some(&wide)).0, ["laptop>10.66.1.0/24 behind robot-1 +tcp/80 - ="]);
        let stays = "laptop>10.66.1.7/32 behind robot-1 + - =tcp/80";
        assert_eq!(
            told(Some(&page), Some(&wide)).0,
            [stays, "laptop>10.66.1.0/24 behind robot-1 +tcp/80 - ="]
        );
        let narrow = format!("{all}{}", rule("*", "route:10.66.1.0/24", "ros/7"));
        let both = ["laptop>10.66.1.0/24 behind robot-1 +ros/7 - ="];
        assert_eq!(told(Some(&all), Some(&narrow)).0, both, "its own robot is beside it already");
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
