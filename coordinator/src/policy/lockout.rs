//! Whether a policy would lock its author out, or everybody who administers the network.
//!
//! Somebody *has a hold* of a machine while a laptop of theirs may open TCP connections to it: of any port, for one robot is
//! looked after by SSH and another by a web page. Laptops of people are no machines that are administered.

use std::collections::BTreeSet;
use std::fmt;

use ria_protocol::name::Name;
use ria_protocol::policy::PermitKind;
use ria_protocol::time::UnixTime;

use super::ask::{Entry, Roster};
use super::difference::Meant;
use crate::state::people::UserName;

/// Names that are told; of more only the number is.
const MOST_TOLD: usize = 12;

/// Who changes a policy, and who administers the network.
#[derive(Debug, Clone, Default)]
pub struct Hands {
    /// Absent for somebody who sits at the coordinator itself, and needs no laptop for that.
    pub author: Option<UserName>,
    pub admins: BTreeSet<UserName>,
}

/// What would be out of reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockOut {
    /// The author has a hold of these by a laptop of theirs, and would have none.
    Author(Vec<Name>),
    /// Some administrator has a hold of something, and none would have of anything.
    Everybody,
}

impl fmt::Display for LockOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Author(nodes) => {
                let told: Vec<&str> = nodes.iter().take(MOST_TOLD).map(Name::as_str).collect();
                write!(f, "your own laptop could open no connection any more to {}", told.join(", "))?;
                match nodes.len().saturating_sub(MOST_TOLD) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Everybody => {
                f.write_str("no administrator's laptop could open a connection to any node any more")
            }
        }
    }
}

/// What would be out of reach when one policy takes the place of another; `None`: nothing that counts.
pub fn lock_out(
    hands: &Hands,
    roster: &Roster,
    (before, after): (Option<Meant<'_>>, Option<Meant<'_>>),
    now: UnixTime,
) -> Option<LockOut> {
    // Without a policy nobody is locked out.
    after?;
    let machines: Vec<&Entry> = roster.iter().filter(|entry| entry.owner.is_none()).collect();
    let held = |laptops: &[&Entry], meant: Option<Meant<'_>>| -> Vec<Name> {
        let is_held = |machine: &&&Entry| laptops.iter().any(|laptop| may_open(meant, laptop, machine, now));
        machines.iter().filter(is_held).map(|machine| machine.name.clone()).collect()
    };
    let laptops = |is_theirs: &dyn Fn(&UserName) -> bool| -> Vec<&Entry> {
        roster.iter().filter(|entry| entry.owner.as_ref().is_some_and(is_theirs)).collect()
    };
    if let Some(author) = &hands.author {
        let own = laptops(&|owner| owner == author);
        let then: BTreeSet<Name> = held(&own, after).into_iter().collect();
        let lost: Vec<Name> = held(&own, before).into_iter().filter(|name| !then.contains(name)).collect();
        if !lost.is_empty() {
            return Some(LockOut::Author(lost));
        }
    }
    let all = laptops(&|owner| hands.admins.contains(owner));
    let is_everybody = !held(&all, before).is_empty() && held(&all, after).is_empty();
    is_everybody.then_some(LockOut::Everybody)
}

/// Whether one member may open TCP connections to another at this time.
fn may_open(meant: Option<Meant<'_>>, from: &Entry, to: &Entry, now: UnixTime) -> bool {
    let Some((policy, resolved)) = meant else { return true };
    resolved.rules(policy).any(|(rule, froms, tos)| {
        rule.holds(Some(now))
            && froms.contains(from.node, &from.tags)
            && tos.contains(to.node, &to.tags)
            && rule.permits.iter().any(|permit| [PermitKind::ANY, PermitKind::TCP].contains(&permit.kind))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::super::ask::Resolved;
    use super::super::text::parse;
    use super::*;
    use crate::state::tests::{member, network};
    use crate::state::{Laptop, MemberEntry};

    const NOW: UnixTime = UnixTime(1_796_133_600);

    /// ada's and bob's laptops, and two robots.
    fn roster() -> Roster {
        let mut lab = network();
        for (n, name, owner) in
            [(2, "ada-1", Some("ada")), (3, "bob-1", Some("bob")), (4, "robot-1", None), (5, "robot-2", None)]
        {
            let laptop = owner.map(|owner| Laptop {
                owner: owner.parse().unwrap(),
                groups: Vec::new(),
                validated: UnixTime(0),
                due: None,
            });
            let entry = MemberEntry { laptop, ..MemberEntry::clone(&member(n, name)) };
            lab.members.insert(entry.node, entry.into());
        }
        Roster::of(&lab)
    }

    fn told(author: Option<&str>, before: Option<&str>, after: Option<&str>) -> Option<String> {
        let roster = roster();
        let hands = Hands {
            author: author.map(|name| name.parse().unwrap()),
            admins: ["ada", "bob"].map(|name| name.parse().unwrap()).into(),
        };
        let read = |text: Option<&str>| text.map(|text| parse(text).unwrap());
        let (before, after) = (read(before), read(after));
        let resolved = |policy: &Option<Policy>| policy.as_ref().map(|policy| Resolved::of(policy, &roster));
        let (old, new) = (resolved(&before), resolved(&after));
        let meant = (before.as_ref().zip(old.as_ref()), after.as_ref().zip(new.as_ref()));
        lock_out(&hands, &roster, meant, NOW).map(|out| out.to_string())
    }

    fn rule(from: &str, to: &str, allow: &str) -> String {
        format!("[[rule]]\nfrom = [\"{from}\"]\nto = [\"{to}\"]\nallow = [\"{allow}\"]\n")
    }

    #[test]
    fn an_author_keeps_a_hold_of_what_they_have_a_hold_of() {
        let ssh = rule("person:ada", "*", "tcp/22");
        assert_eq!(told(Some("ada"), None, Some(&ssh)), None, "another port will do");
        let some = rule("person:ada", "robot-1", "tcp/22");
        let lost = told(Some("ada"), Some(&ssh), Some(&some)).unwrap();
        assert!(lost.contains("your own laptop") && lost.ends_with("robot-2"), "{lost}");
        let ping = rule("person:ada", "*", "icmp");
        assert!(told(Some("ada"), None, Some(&ping)).unwrap().ends_with("robot-1, robot-2"));
        assert_eq!(told(Some("ada"), Some(&ping), Some(&ping)), None, "nothing is lost that was there");
        // What others may is not what the author may; their laptops are nobody's to administer.
        assert!(told(Some("bob"), None, Some(&ssh)).is_some());
        assert_eq!(told(Some("bob"), Some(&ssh), Some(&some)), None);
        assert_eq!(told(Some("ada"), Some(&some), None), None, "without a policy everything is allowed");
    }

    #[test]
    fn what_a_booking_gives_counts_while_it_lasts() {
        let booked = format!("{}valid = \"2026-12-01 13:00..16:00\"\n", rule("ada-1", "robot-1", "tcp/22"));
        let over = format!("{}valid = \"2026-11-01 13:00..16:00\"\n", rule("ada-1", "robot-1", "tcp/22"));
        assert_eq!(told(Some("ada"), Some(&booked), Some(&booked)), None);
        assert!(told(Some("ada"), Some(&booked), Some(&over)).is_some());
        assert_eq!(told(Some("ada"), Some(&over), Some("")), None);
    }

    #[test]
    fn who_sits_at_the_coordinator_does_not_lock_all_others_out() {
        let bob = rule("person:bob", "robot-2", "tcp/22");
        assert_eq!(told(None, None, Some(&bob)), None, "one of them can look after something");
        assert!(told(None, Some(&bob), Some("")).unwrap().starts_with("no administrator's laptop"));
        assert_eq!(told(None, Some(""), Some("")), None, "nobody had a hold of anything");
    }
}
