//! Laptops: members that are somebody's. They stand in the maps while that person may log in here and has done so lately.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::people::PeopleCommand;
use super::writer::Writer;
use super::{Command, Registry, Unavailable};
use crate::audit::{Actor, Event};
use crate::state::people::People;
use crate::state::{Laptop, MemberEntry};

/// A laptop whose standing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    pub network: NetworkId,
    pub node: NodeId,
    /// Whether it is in the maps now.
    pub active: bool,
}

impl Registry {
    /// Keeps out laptops whose people have not logged in from them for `period`, or may not any more; and lets in again those
    /// for whom that has changed.
    pub async fn sweep_laptops(&self, period: Duration) -> Result<Vec<Swept>, Unavailable> {
        self.ask(|reply| Command::People(PeopleCommand::SweepLaptops(period, reply))).await
    }
}

/// Whether a laptop's person has to log in, or may not.
fn is_due(laptop: &Laptop, people: &People, period: Duration, now: UnixTime) -> bool {
    let active = people.users.get(&laptop.owner).is_some_and(|owner| owner.is_active());
    !active || laptop.validated.plus(period) <= now
}

impl Writer {
    pub(super) async fn sweep_laptops(&mut self, period: Duration) -> Result<Vec<Swept>, Unavailable> {
        let (world, now) = (self.world(), UnixTime::from(SystemTime::now()));
        let mut swept = Vec::new();
        for (id, network) in &world.networks {
            for member in network.members.values() {
                let Some(laptop) = &member.laptop else { continue };
                let due = is_due(laptop, &world.people, period, now);
                if due == laptop.due.is_some() {
                    continue;
                }
                let changed = Laptop { due: due.then_some(now), ..laptop.clone() };
                let event = Event {
                    time: now,
                    actor: Actor::Coordinator,
                    action: if due { "node.login-due" } else { "node.returned" },
                    network: Some(*id),
                    subject: member.name.to_string(),
                    detail: json!({ "node": member.node, "owner": laptop.owner, "validated": laptop.validated }),
                };
                let changed = MemberEntry { laptop: Some(changed), ..MemberEntry::clone(member) };
                // One after the other: each begins with what the one before has made of the network.
                let Some(latest) = self.world().networks.get(id).cloned() else { continue };
                self.store_standing(&latest, &Arc::new(changed.clone()), &event).await?;
                swept.push(Swept { network: *id, node: member.node, active: changed.is_active() });
            }
        }
        Ok(swept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::people::{Federated, Roles, UserEntry};

    #[test]
    fn a_laptop_is_due_after_its_period_and_at_once_when_its_person_is_gone() {
        let ada = UserEntry {
            name: "ada".parse().unwrap(),
            roles: Roles::default(),
            login: None,
            federated: Some(Federated {
                issuer: "https://a".into(),
                subject: "1".into(),
                groups: Vec::new(),
            }),
            invitation: None,
            created: UnixTime(0),
            disabled: None,
            version: 1,
            era: 1,
        };
        let laptop = Laptop::new(ada.name.clone(), &People::default(), UnixTime(1000));
        let people = |user: UserEntry| People {
            users: [(user.name.clone(), Arc::new(user))].into(),
            ..People::default()
        };
        let week = Duration::from_secs(7 * 24 * 3600);
        let due = |people: &People, now: u64| is_due(&laptop, people, week, UnixTime(now));
        assert!(!due(&people(ada.clone()), 1000 + week.as_secs() - 1));
        assert!(due(&people(ada.clone()), 1000 + week.as_secs()));
        assert!(due(&People::default(), 1001));
        assert!(due(&people(UserEntry { disabled: Some(UnixTime(1)), ..ada }), 1001));
    }
}
