//! Tags and names that the policy in force mentions: to give or take one is to change whom its rules mean, so it takes who may
//! change the policy. Otherwise whoever may tag a laptop of their own could give it any rule.

use std::fmt;

use ria_protocol::name::Name;

use crate::audit::Actor;
use crate::policy::Who;
use crate::state::people::{Role, UserEntry, UserName};
use crate::state::{JoinKeyEntry, Network, World};

/// Administrators that are named to somebody who is refused.
const MOST_TOLD: usize = 3;

/// The policy mentions it, and whoever wants to change who it is may not change the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mentioned {
    what: Who,
    network: Name,
    /// Who may.
    admins: Vec<UserName>,
}

impl std::error::Error for Mentioned {}

impl fmt::Display for Mentioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, network, admins } = self;
        let what =
            if let Who::Tag(tag) = what { format!("the tag {tag}") } else { format!("the name {what}") };
        write!(
            f,
            "the policy of {network} mentions {what}, so to give or take it is to change who may do what, which takes the role \
             admin in {network}; ask "
        )?;
        match &admins[..] {
            [] => f.write_str("an owner of this coordinator"),
            some => {
                let told: Vec<&str> = some.iter().map(UserName::as_str).collect();
                f.write_str(&told.join(" or "))
            }
        }
    }
}

/// Whether somebody may change what the policy of a network means.
fn may_change(world: &World, network: &Network, actor: &Actor) -> bool {
    match actor {
        Actor::User(name, _) => administers(world, network, name),
        // Who sits at the coordinator itself may do everything.
        Actor::Coordinator | Actor::Local(_) | Actor::Person(_) => true,
        Actor::Node(_) | Actor::NodeFor(..) | Actor::Stranger(_) => false,
    }
}

fn administers(world: &World, network: &Network, name: &UserName) -> bool {
    let user = world.people.users.get(name).filter(|user| user.disabled.is_none());
    user.is_some_and(|user| user.roles.has(Role::Admin, network.info.id))
}

fn mentions(network: &Network, who: &Who) -> bool {
    network.policy.in_force.as_ref().is_some_and(|in_force| in_force.policy.mentions(who))
}

/// Whether `actor` may have somebody else be meant by these.
pub(super) fn check(
    (world, network): (&World, &Network),
    actor: &Actor,
    mut whos: impl Iterator<Item = Who>,
) -> Result<(), Mentioned> {
    if may_change(world, network, actor) {
        return Ok(());
    }
    let Some(what) = whos.find(|who| mentions(network, who)) else { return Ok(()) };
    let can = |user: &&UserEntry| user.is_active() && user.roles.has(Role::Admin, network.info.id);
    let all = world.people.users.values().map(|user| &**user).filter(can);
    let admins = all.take(MOST_TOLD).map(|user| user.name.clone()).collect();
    Err(Mentioned { what, network: network.info.name.clone(), admins })
}

/// Whether a laptop that joins by this key may not be called so, although nobody else is.
pub(super) fn keeps_from((world, network): (&World, &Network), key: &JoinKeyEntry, name: &Name) -> bool {
    let is_theirs = |owner: &UserName| !administers(world, network, owner);
    key.owner.as_ref().is_some_and(is_theirs) && mentions(network, &Who::Node(name.clone()))
}

/// The name of somebody who joins by this key: the wanted one, or the first with a number that it may have.
pub(super) fn name_for(at: (&World, &Network), key: &JoinKeyEntry, wanted: &Name) -> Name {
    let (_, network) = at;
    network.free_name_but(wanted, |name| keeps_from(at, key, name))
}
