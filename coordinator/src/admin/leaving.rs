//! Somebody leaves: nothing of theirs works any more, and what is left for others to look after is told.

use std::collections::BTreeSet;
use std::time::SystemTime;

use axum::Json;
use axum::extract::Path as UrlPath;
use ria_protocol::id::KeyId;
use ria_protocol::time::UnixTime;

use super::api::{Problem, ProblemCode};
use super::api_people::{LeftView, TokenView};
use super::desk::{Desk, Shared};
use super::people::{change, token_view, user_name};
use super::server::{Answer, By, problem, remove_member};
use crate::audit::Actor;
use crate::policy::bookings::{Holder, find, told, without};
use crate::registry::people::UserDeed;
use crate::registry::policy::{PolicyChange, PolicyEdit};
use crate::state::people::UserName;
use crate::state::{JoinKeyStatus, MemberEntry, Network, World};

/// First of all they can't log in, then the rest is taken back.
pub(super) async fn leave(
    Shared(admin): Shared,
    UrlPath(name): UrlPath<String>,
    axum::Extension(actor): By,
) -> Answer<LeftView> {
    let name = user_name(&name)?;
    let mut user = change(&admin, name.clone(), UserDeed::SetEnabled(false), actor.clone()).await?;
    user.tokens = 0;
    let keys: BTreeSet<KeyId> =
        admin.store.made_by(&name, "key.created").await?.iter().filter_map(|id| id.parse().ok()).collect();
    let world = admin.world();
    let is_theirs = |member: &MemberEntry| member.laptop.as_ref().is_some_and(|laptop| laptop.owner == name);
    let leaver = Leaver { admin: &admin, world: &world, name: &name, actor };
    let tokens_removed = leaver.remove_tokens().await?;
    let keys_revoked = leaver.revoke_keys(&keys).await?;
    let mut bookings = (Vec::new(), Vec::new());
    for network in world.networks.values() {
        leaver.take_bookings(network, &mut bookings).await?;
    }
    let mut laptops_removed = Vec::new();
    for network in world.networks.values() {
        for member in network.members.values().filter(|member| is_theirs(member)) {
            remove_member(&admin, (network.info.id, member.node), leaver.actor.clone()).await?;
            laptops_removed.push(format!("{}/{}", network.info.name, member.name));
        }
    }
    let nodes_left = world.networks.values().flat_map(|network| {
        let joined =
            network.members.values().filter(|member| keys.contains(&member.join_key) && !is_theirs(member));
        joined.map(|member| format!("{}/{}", network.info.name, member.name))
    });
    Ok(Json(LeftView {
        user,
        tokens_removed,
        keys_revoked,
        laptops_removed,
        nodes_left: nodes_left.collect(),
        static_peers_removed: leaver.remove_static_peers().await?,
        bookings_removed: bookings.0,
        rules_left: bookings.1,
    }))
}

struct Leaver<'a> {
    admin: &'a Desk,
    world: &'a World,
    name: &'a UserName,
    actor: Actor,
}

impl Leaver<'_> {
    async fn remove_tokens(&self) -> Result<Vec<TokenView>, Problem> {
        let mut removed = Vec::new();
        for token in self.world.people.tokens.values().filter(|token| token.user == *self.name) {
            self.admin.services.registry.remove_token(token.id, self.actor.clone()).await?;
            removed.push(token_view(token));
        }
        Ok(removed)
    }

    async fn revoke_keys(&self, keys: &BTreeSet<KeyId>) -> Result<Vec<KeyId>, Problem> {
        let now = UnixTime::from(SystemTime::now());
        let mut revoked = Vec::new();
        let known = keys.iter().filter_map(|id| self.world.keys.get(id));
        for key in known.filter(|key| key.status(now) == JoinKeyStatus::Valid) {
            let done = self.admin.services.registry.revoke_key(key.id, self.actor.clone()).await;
            done.map_err(|error| problem(ProblemCode::Unavailable, error))?;
            revoked.push(key.id);
        }
        Ok(revoked)
    }

    /// Whoever added a static peer has seen its private key, or has made it.
    async fn remove_static_peers(&self) -> Result<Vec<String>, Problem> {
        let made = self.admin.store.static_peers_of(self.name).await?;
        let mut removed = Vec::new();
        for network in self.world.networks.values() {
            for peer in network.static_peers.values().filter(|peer| made.contains(&peer.node)) {
                let (id, actor) = (network.info.id, self.actor.clone());
                self.admin.services.registry.remove_static_peer((id, peer.node), None, actor).await?;
                removed.push(format!("{}/{}", network.info.name, peer.name));
            }
        }
        Ok(removed)
    }

    /// Takes their bookings out of a network's policy; tells what was taken out, and what else names them.
    async fn take_bookings(
        &self,
        network: &Network,
        (taken, left): &mut (Vec<String>, Vec<String>),
    ) -> Result<(), Problem> {
        let Some(in_force) = network.policy.in_force.as_ref() else { return Ok(()) };
        let own = network
            .members
            .values()
            .filter(|member| member.laptop.as_ref().is_some_and(|laptop| laptop.owner == *self.name));
        let holder = Holder { name: self.name.clone(), laptops: own.map(|m| m.name.clone()).collect() };
        let found = find(&in_force.policy, &holder, UnixTime::from(SystemTime::now()));
        let at = |text: String| format!("{}: {text}", network.info.name);
        left.extend(found.others.into_iter().map(at));
        if found.bookings.is_empty() {
            return Ok(());
        }
        let rules = in_force.policy.rules.iter().filter(|rule| found.bookings.contains(&rule.number));
        let names: Vec<String> = rules.map(|rule| at(told(rule))).collect();
        let Some(text) = without(&in_force.text, &in_force.policy, &found.bookings) else {
            left.extend(names);
            return Ok(());
        };
        let edit = PolicyEdit {
            what: PolicyChange::Set(text),
            base: Some(in_force.version),
            note: format!("{} has left", self.name),
            // It takes from nobody but who leaves.
            force: true,
        };
        match self.admin.services.registry.set_policy(network.info.id, edit, self.actor.clone()).await {
            Ok(_) => taken.extend(names),
            Err(error) => {
                tracing::warn!(%error, "bookings of somebody who has left can't be taken out of the policy");
                left.extend(names);
            }
        }
        Ok(())
    }
}
