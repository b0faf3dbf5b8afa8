//! What an administrator changes about a member: its name and its tags.

use std::sync::Arc;
use std::time::SystemTime;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::Patch;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::writer::Writer;
use super::{EditNodeError, mentioned};
use crate::audit::{Actor, Event};
use crate::policy::Who;
use crate::state::etag::{Etag, NodeChanged};
use crate::state::{MemberEntry, Network};

/// Tags that a member may have.
const MOST_TAGS: usize = 64;

/// A change of a member.
#[derive(Debug, Clone)]
pub enum NodeEdit {
    Rename(Name),
    Tag { add: Vec<Name>, remove: Vec<Name> },
}

/// The same by somebody who has seen the member before.
#[derive(Debug, Clone)]
pub struct SeenEdit {
    pub edit: NodeEdit,
    /// Absent: does not matter.
    pub seen: Option<Etag>,
}

impl From<NodeEdit> for SeenEdit {
    fn from(edit: NodeEdit) -> Self {
        Self { edit, seen: None }
    }
}

impl Writer {
    /// Changes a member; what is so already is no change.
    pub(super) async fn edit_node(
        &mut self,
        network: NetworkId,
        node: NodeId,
        SeenEdit { edit, seen }: SeenEdit,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, EditNodeError> {
        let world = self.world();
        let network = world.networks.get(&network).ok_or(EditNodeError::NoNode)?;
        let before = network.members.get(&node).ok_or(EditNodeError::NoNode)?;
        NodeChanged::check(seen.as_ref(), before)?;
        let (after, action) = match edit {
            NodeEdit::Rename(name) => (renamed(network, before, name)?, "node.renamed"),
            NodeEdit::Tag { add, remove } => (tagged(before, &add, &remove)?, "node.tagged"),
        };
        if after == **before {
            return Ok(before.clone());
        }
        mentioned::check((&world, network), &actor, differs(before, &after))?;
        let id = network.info.id;
        let detail = match action {
            "node.renamed" => json!({ "node": node, "before": before.name, "after": after.name }),
            _ => json!({ "node": node, "before": before.tags, "after": after.tags }),
        };
        let event = Event {
            time: UnixTime::from(SystemTime::now()),
            actor,
            action,
            network: Some(id),
            subject: before.name.to_string(),
            detail,
        };
        let after = Arc::new(after);
        let mut changed = Network::clone(network);
        changed.members.insert(node, after.clone());
        let (patch, stored) = (Patch::MemberSet(network.listed(&after)), after.clone());
        let made = self.change(async move |draft| {
            draft.write().member_changed(id, &stored).await?;
            if stored.is_active() {
                draft.change_network(changed, vec![patch]).await?;
            } else {
                // The others are told of it again when it is enabled.
                draft.put(changed);
            }
            draft.audit(&event).await
        });
        made.await?;
        Ok(after)
    }
}

fn renamed(network: &Network, member: &MemberEntry, name: Name) -> Result<MemberEntry, EditNodeError> {
    if member.name.ros_name() != name.ros_name() && network.is_taken(&name) {
        return Err(EditNodeError::NameTaken(name));
    }
    Ok(MemberEntry { name, ..member.clone() })
}

fn tagged(member: &MemberEntry, add: &[Name], remove: &[Name]) -> Result<MemberEntry, EditNodeError> {
    let mut tags = member.tags.clone();
    tags.extend(add.iter().map(ToString::to_string));
    tags.retain(|tag| !remove.iter().any(|gone| gone.as_str() == tag));
    tags.sort();
    tags.dedup();
    if tags.len() > MOST_TAGS {
        return Err(EditNodeError::TooManyTags);
    }
    Ok(MemberEntry { tags, ..member.clone() })
}

/// Whom a policy means by words that are somebody's before or after, and not both.
fn differs(before: &MemberEntry, after: &MemberEntry) -> impl Iterator<Item = Who> {
    let names = [&before.name, &after.name].into_iter().filter(|_| before.name != after.name);
    let missing = |of: &[String], others: &[String]| -> Vec<Who> {
        of.iter().filter(|tag| !others.contains(tag)).cloned().map(Who::Tag).collect()
    };
    let tags = missing(&before.tags, &after.tags).into_iter().chain(missing(&after.tags, &before.tags));
    names.cloned().map(Who::Node).chain(tags).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::{member, network};

    #[test]
    fn a_name_that_another_member_has_is_refused_and_the_own_one_is_not() {
        let mut lab = network();
        for (n, name) in [(2, "robot-7"), (3, "arm")] {
            let entry = member(n, name);
            lab.members.insert(entry.node, entry);
        }
        let taken = renamed(&lab, &member(3, "arm"), "robot-7".parse().unwrap()).unwrap_err();
        assert!(matches!(taken, EditNodeError::NameTaken(_)) && taken.to_string().contains("robot-7"));
        assert_eq!(renamed(&lab, &member(3, "arm"), "arm".parse().unwrap()).unwrap(), *member(3, "arm"));
        // The other form of the same ROS name is no name at all, so the two can't meet.
        assert!("robot_7".parse::<Name>().is_err());
    }

    #[test]
    fn tags_are_a_sorted_set_of_bounded_size() {
        let tag = |text: &str| text.parse::<Name>().unwrap();
        let arm = MemberEntry { tags: vec!["arm".into()], ..MemberEntry::clone(&member(3, "arm")) };
        let edited = tagged(&arm, &[tag("b"), tag("a"), tag("b")], &[tag("arm"), tag("none")]).unwrap();
        assert_eq!(edited.tags, ["a", "b"]);
        let many: Vec<Name> = (0..=MOST_TAGS).map(|n| tag(&format!("t{n}"))).collect();
        assert!(matches!(tagged(&arm, &many, &[]), Err(EditNodeError::TooManyTags)));
    }
}
