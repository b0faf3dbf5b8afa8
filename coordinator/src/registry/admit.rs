//! Admission: what the writer decides once a node has proved its keys.
//!
//! ```text
//! member by these keys      -> the same membership (another good key may add its tags)
//! waits by these keys       -> waits on, or was rejected
//! key is no good            -> refused
//! key wants approval        -> waits
//! else                      -> a new member
//! ```
//!
//! Who a node is follows from the two private keys that it has proved; the join key's secret only makes somebody new.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::NodeId;
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::map::Patch;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::draft::Draft;
use super::writer::Writer;
use super::{Admission, AdmitError, Admitted, mentioned};
use crate::audit::{Actor, Event};
use crate::enrol::ProvenEnrolment;
use crate::random;
use crate::state::people::People;
use crate::state::{JoinKeyEntry, JoinKeyStatus, Laptop, MemberEntry, Network, address, domains};
use crate::store::{KeyUse, StoreError};

impl Writer {
    pub(super) async fn admit(&mut self, enrolment: ProvenEnrolment) -> Result<Admission, AdmitError> {
        let now = Instant::now();
        if !self.limiter.allows(enrolment.from, now) {
            return Err(ErrorCode::RateLimited.into());
        }
        let decided = self.decide(enrolment.clone()).await;
        if let Err(AdmitError::Refused(refusal)) = &decided
            && refusal.code == ErrorCode::JoinKeyUnknown
        {
            self.limiter.handle_failure(enrolment.from, now);
        }
        decided
    }

    async fn decide(&mut self, enrolment: ProvenEnrolment) -> Result<Admission, AdmitError> {
        let world = self.world();
        let key = world.keys.get(&enrolment.key_id).ok_or(ErrorCode::JoinKeyUnknown)?;
        let network = world.networks.get(&key.network).ok_or(ErrorCode::JoinKeyUnknown)?;
        let holds_secret = same(&key.secret_digest, &enrolment.secret_digest);
        let now = UnixTime::from(SystemTime::now());
        match known_member(network, &enrolment) {
            Ok(Some(member)) if member.disabled.is_some() => return Err(ErrorCode::Disabled.into()),
            // Its answer got lost, so it asks again: the key may be used up or at its end by now.
            Ok(Some(member)) if member.join_key == key.id && member.expires(network.membership) > now => {
                return Ok(Admission::Member(Admitted { network: network.clone(), member: member.clone() }));
            }
            Ok(Some(member)) if holds_secret => return self.admit_again(member, key, network, now).await,
            Err(refusal) if holds_secret => return Err(refusal.into()),
            Ok(_) | Err(_) => {}
        }
        if let Some(entry) = known_waiting(network, &enrolment).filter(|w| w.join_key == key.id) {
            return self.wait_on(network, entry, &enrolment, now).await;
        }
        if !holds_secret {
            return Err(ErrorCode::JoinKeyUnknown.into());
        }
        if enrolment.only_known {
            return Err(ErrorCode::NotAMember.into());
        }
        check_key(key, now)?;
        if enrolment.name_required && network.is_taken(&enrolment.name) {
            return Err(ErrorCode::NameTaken.into());
        }
        if enrolment.name_required && mentioned::keeps_from((&world, network), key, &enrolment.name) {
            return Err(kept_name(&enrolment.name).into());
        }
        if key.approve {
            return self.enqueue(network, key, &enrolment, now).await;
        }
        let node = NodeId::from_bytes(random::bytes());
        let actor = enrolment.actor(node);
        let newcomer = Newcomer {
            node,
            name: mentioned::name_for((&world, network), key, &enrolment.name),
            wg_key: enrolment.wg_key,
            tls_key: enrolment.tls_key,
            agent_version: enrolment.agent_version,
            laptop: key.owner.clone().map(|owner| Laptop::new(owner, &world.people, now)),
        };
        let member = new_member(network, key, newcomer, now)?;
        let joined = Joined { actor, action: "node.joined", uses_key: true };
        let network = self.store_member(network, key, member.clone(), joined).await?;
        Ok(Admission::Member(Admitted { network, member }))
    }

    /// A member shows another key of its network, or the same one after its time had ended. It stays who it is and
    /// gets the tags of the key; a key that changes nothing is not used up. A key whose nodes have to be approved gives
    /// nothing without that.
    async fn admit_again(
        &mut self,
        member: &Arc<MemberEntry>,
        key: &Arc<JoinKeyEntry>,
        network: &Arc<Network>,
        now: UnixTime,
    ) -> Result<Admission, AdmitError> {
        check_key(key, now)?;
        let mut tags = member.tags.clone();
        tags.extend(key.tags.iter().cloned());
        tags.sort();
        tags.dedup();
        let ended = member.expires(network.membership) <= now;
        let laptop = validated(member, key, &self.world().people, now);
        if key.approve || (tags == member.tags && !ended && laptop == member.laptop) {
            return Ok(Admission::Member(Admitted { network: network.clone(), member: member.clone() }));
        }
        let last_contact = if ended { now } else { member.last_contact };
        let lapsed = member.lapsed.filter(|_| !ended);
        let member =
            Arc::new(MemberEntry { tags, last_contact, lapsed, laptop, ..MemberEntry::clone(member) });
        let id = network.info.id;
        let event = Event {
            time: now,
            actor: Actor::Node(member.node),
            action: "node.rejoined",
            network: Some(id),
            subject: member.name.to_string(),
            detail: json!({ "node": member.node, "key": key.id, "tags": member.tags,
                "laptop_of": member.laptop.as_ref().map(|laptop| laptop.owner.clone()) }),
        };
        let mut changed = Network::clone(network);
        changed.members.insert(member.node, member.clone());
        let patch = if member.is_active() {
            Patch::MemberSet(network.listed(&member))
        } else {
            Patch::MemberRemoved(member.node)
        };
        let (key, stored) = (key.clone(), member.clone());
        let made = self.change(async move |draft| {
            draft.use_key(&key, &stored, now).await?;
            draft.write().member_changed(id, &stored).await?;
            draft.write().contact(id, &stored).await?;
            draft.write().member_standing(id, &stored).await?;
            let network = draft.change_network(changed, vec![patch]).await?;
            draft.audit(&event).await?;
            Ok(network)
        });
        let network = made.await?;
        Ok(Admission::Member(Admitted { network, member }))
    }

    /// Stores a new member, in whose place in the queue nobody waits any more.
    pub(super) async fn store_member(
        &mut self,
        network: &Network,
        key: &Arc<JoinKeyEntry>,
        member: Arc<MemberEntry>,
        Joined { actor, action, uses_key }: Joined,
    ) -> Result<Arc<Network>, StoreError> {
        let id = network.info.id;
        let event = Event {
            time: member.joined,
            actor,
            action,
            network: Some(id),
            subject: member.name.to_string(),
            detail: json!({
                "node": member.node,
                "key": key.id,
                "wg_key": member.wg_key,
                "address_v4": member.address_v4,
                "address_v6": member.address_v6,
            }),
        };
        let mut changed = network.clone();
        let patch = Patch::MemberSet(network.listed(&member));
        changed.freed.remove(&member.address_v4.into());
        changed.freed.remove(&member.address_v6.into());
        changed.waiting.remove(&member.node);
        changed.members.insert(member.node, member.clone());
        let key = key.clone();
        let made = self.change(async move |draft| {
            if uses_key {
                draft.use_key(&key, &member, member.joined).await?;
            }
            draft.write().waiting_ended(id, member.node).await?;
            draft.write().member(id, &member).await?;
            let changed = draft.change_network(changed, vec![patch]).await?;
            draft.audit(&event).await?;
            Ok(changed)
        });
        made.await
    }
}

impl Draft {
    async fn use_key(
        &mut self,
        key: &JoinKeyEntry,
        member: &MemberEntry,
        time: UnixTime,
    ) -> Result<(), StoreError> {
        let by = KeyUse { node: member.node, name: member.name.clone(), time };
        self.note_key_use(key, &by).await
    }

    /// One more node has used a join key.
    pub(super) async fn note_key_use(&mut self, key: &JoinKeyEntry, by: &KeyUse) -> Result<(), StoreError> {
        self.write().join_key_used(key.id, by).await?;
        let used = JoinKeyEntry { uses: key.uses + 1, ..key.clone() };
        self.world.keys.insert(used.id, Arc::new(used));
        Ok(())
    }
}

/// How a member came to be one.
pub(super) struct Joined {
    pub actor: Actor,
    pub action: &'static str,
    /// Whether the key is used by this, and not before.
    pub uses_key: bool,
}

/// Who is to become a member.
pub(super) struct Newcomer {
    pub node: NodeId,
    pub name: Name,
    pub wg_key: WgPublicKey,
    pub tls_key: SpkiHash,
    pub agent_version: String,
    pub laptop: Option<Laptop>,
}

/// A member with addresses of its own, by the choices of its join key.
pub(super) fn new_member(
    network: &Network,
    key: &JoinKeyEntry,
    newcomer: Newcomer,
    now: UnixTime,
) -> Result<Arc<MemberEntry>, ErrorCode> {
    let Newcomer { node, name, wg_key, tls_key, agent_version, laptop } = newcomer;
    Ok(Arc::new(MemberEntry {
        node,
        name,
        wg_key,
        tls_key,
        address_v4: address::next_v4(network, now).ok_or(ErrorCode::NetworkFull)?,
        address_v6: address::next_v6(network, node, now).ok_or(ErrorCode::NetworkFull)?,
        tags: key.tags.clone(),
        join_key: key.id,
        joined: now,
        last_contact: now,
        agent_version,
        ephemeral: key.ephemeral,
        disabled: None,
        lapsed: None,
        laptop,
        ros_domain: domains::next_own(network),
    }))
}

/// Whose laptop a member is once it shows this key: a key that a login has made is that person's, who has just logged in. What
/// is no laptop does not become one, for a robot must not end with somebody's login.
fn validated(member: &MemberEntry, key: &JoinKeyEntry, people: &People, now: UnixTime) -> Option<Laptop> {
    match (&member.laptop, &key.owner) {
        (Some(_), Some(owner)) => Some(Laptop::new(owner.clone(), people, now)),
        (known, _) => known.clone(),
    }
}

/// The member that has the keys of this enrolment; one that has only one of them is somebody else.
fn known_member<'n>(
    network: &'n Network,
    enrolment: &ProvenEnrolment,
) -> Result<Option<&'n Arc<MemberEntry>>, Refusal> {
    let found =
        network.members.values().find(|m| m.wg_key == enrolment.wg_key || m.tls_key == enrolment.tls_key);
    let is_static = network.static_peers.values().any(|peer| peer.wg_key == enrolment.wg_key);
    match found {
        None if is_static => Err(Refusal {
            code: ErrorCode::ProofFailed,
            text: "this node's WireGuard key belongs to a static peer; remove the state directory and join again"
                .to_owned(),
        }),
        Some(m) if m.wg_key != enrolment.wg_key || m.tls_key != enrolment.tls_key => Err(Refusal {
            code: ErrorCode::ProofFailed,
            text: "one of this node's two keys belongs to another member; remove the state directory and join again"
                .to_owned(),
        }),
        found => Ok(found),
    }
}

fn known_waiting<'n>(
    network: &'n Network,
    enrolment: &ProvenEnrolment,
) -> Option<&'n Arc<crate::state::waiting::WaitingEntry>> {
    network.waiting.values().find(|w| w.wg_key == enrolment.wg_key && w.tls_key == enrolment.tls_key)
}

fn kept_name(name: &Name) -> Refusal {
    let text = format!(
        "the policy of the network mentions the name {name}, so a laptop is not called so by itself; choose another name, or \
         ask an administrator of the network to rename it"
    );
    Refusal { code: ErrorCode::NameTaken, text }
}

fn check_key(key: &JoinKeyEntry, now: UnixTime) -> Result<(), ErrorCode> {
    match key.status(now) {
        JoinKeyStatus::Valid => Ok(()),
        JoinKeyStatus::Used => Err(ErrorCode::JoinKeyUsed),
        JoinKeyStatus::Expired => Err(ErrorCode::JoinKeyExpired),
        JoinKeyStatus::Revoked => Err(ErrorCode::JoinKeyRevoked),
    }
}

/// Compared in constant time, although digests of random secrets give little away.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
