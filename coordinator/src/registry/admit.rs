//! Admission: what the writer decides once a node has proved its keys.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::NodeId;
use ria_protocol::map::Patch;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::writer::Writer;
use super::{AdmitError, Admitted};
use crate::audit::{Actor, Event};
use crate::enrol::ProvenEnrolment;
use crate::random;
use crate::state::{JoinKeyEntry, JoinKeyStatus, MemberEntry, Network, address};

impl Writer {
    pub(super) async fn admit(&mut self, enrolment: ProvenEnrolment) -> Result<Admitted, AdmitError> {
        let now = Instant::now();
        if !self.limiter.allows(enrolment.from, now) {
            return Err(ErrorCode::RateLimited.into());
        }
        let decided = self.decide(enrolment.clone()).await;
        if let Err(AdmitError::Refused(refusal)) = &decided {
            tracing::info!(code = %refusal.code, "a node was not admitted");
            if refusal.code == ErrorCode::JoinKeyUnknown {
                self.limiter.handle_failure(enrolment.from, now);
            }
        }
        decided
    }

    async fn decide(&mut self, enrolment: ProvenEnrolment) -> Result<Admitted, AdmitError> {
        let world = self.world();
        let key = world
            .keys
            .get(&enrolment.key_id)
            .filter(|key| same(&key.secret_digest, &enrolment.secret_digest));
        let key = key.ok_or(ErrorCode::JoinKeyUnknown)?;
        let network = world.networks.get(&key.network).ok_or(ErrorCode::JoinKeyUnknown)?;
        match known_member(network, &enrolment)? {
            // Its answer got lost, so it asks again: the key may be used up or at its end by now.
            Some(member) if member.join_key == key.id => {
                Ok(Admitted { network: network.clone(), member: member.clone() })
            }
            // It is a member by another key; this one has to be good all the same, and stays unused.
            Some(member) => {
                check_key(key, UnixTime::from(SystemTime::now()))?;
                Ok(Admitted { network: network.clone(), member: member.clone() })
            }
            None => self.admit_new(enrolment, key, network).await,
        }
    }

    async fn admit_new(
        &mut self,
        enrolment: ProvenEnrolment,
        key: &Arc<JoinKeyEntry>,
        network: &Arc<Network>,
    ) -> Result<Admitted, AdmitError> {
        let now = UnixTime::from(SystemTime::now());
        check_key(key, now)?;
        let name = choose_name(network, &enrolment)?;
        let node = NodeId::from_bytes(random::bytes());
        let member = Arc::new(MemberEntry {
            node,
            name,
            wg_key: enrolment.wg_key,
            tls_key: enrolment.tls_key,
            address_v4: address::next_v4(network, now).ok_or(ErrorCode::NetworkFull)?,
            address_v6: address::next_v6(network, node, now).ok_or(ErrorCode::NetworkFull)?,
            tags: key.tags.clone(),
            join_key: key.id,
            joined: now,
            last_contact: now,
            agent_version: enrolment.agent_version,
        });
        let network = self.store_member(network, key, member.clone(), now).await?;
        Ok(Admitted { network, member })
    }

    async fn store_member(
        &self,
        network: &Network,
        key: &JoinKeyEntry,
        member: Arc<MemberEntry>,
        now: UnixTime,
    ) -> Result<Arc<Network>, crate::store::StoreError> {
        let id = network.info.id;
        let event = Event {
            time: now,
            actor: Actor::Node(member.node),
            action: "node.joined",
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
        let used = JoinKeyEntry { uses: key.uses + 1, ..key.clone() };
        let mut changed = network.clone();
        let patch = Patch::MemberSet(member.to_member(id));
        changed.freed.remove(&member.address_v4.into());
        changed.freed.remove(&member.address_v6.into());
        changed.members.insert(member.node, member.clone());
        let made = self.change(async move |draft| {
            draft.write().join_key_used(used.id).await?;
            draft.world.keys.insert(used.id, Arc::new(used));
            draft.write().member(id, &member).await?;
            let changed = draft.change_network(changed, vec![patch]).await?;
            draft.audit(&event).await?;
            Ok(changed)
        });
        made.await
    }
}

/// The member that has the keys of this enrolment; one that has only one of them is somebody else.
fn known_member<'n>(
    network: &'n Network,
    enrolment: &ProvenEnrolment,
) -> Result<Option<&'n Arc<MemberEntry>>, Refusal> {
    let found =
        network.members.values().find(|m| m.wg_key == enrolment.wg_key || m.tls_key == enrolment.tls_key);
    match found {
        Some(m) if m.wg_key != enrolment.wg_key || m.tls_key != enrolment.tls_key => Err(Refusal {
            code: ErrorCode::ProofFailed,
            text: "one of this node's two keys belongs to another member; remove the state directory and join again"
                .to_owned(),
        }),
        found => Ok(found),
    }
}

fn check_key(key: &JoinKeyEntry, now: UnixTime) -> Result<(), ErrorCode> {
    match key.status(now) {
        JoinKeyStatus::Valid => Ok(()),
        JoinKeyStatus::Used => Err(ErrorCode::JoinKeyUsed),
        JoinKeyStatus::Expired => Err(ErrorCode::JoinKeyExpired),
        JoinKeyStatus::Revoked => Err(ErrorCode::JoinKeyRevoked),
    }
}

fn choose_name(network: &Network, enrolment: &ProvenEnrolment) -> Result<Name, ErrorCode> {
    if enrolment.name_required && network.member_named(&enrolment.name).is_some() {
        return Err(ErrorCode::NameTaken);
    }
    Ok(network.free_name(&enrolment.name))
}

/// Compared in constant time, although digests of random secrets give little away.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
