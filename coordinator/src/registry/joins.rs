//! Nodes that join at the same time are admitted by one transaction: what takes time is that the disk has it, and that is once
//! for all of them. Each is decided by itself, after those before it; one that fails leaves nothing, and the others stay. Nobody
//! is answered before all of it is stored.

use tokio::sync::mpsc;

use super::writer::Writer;
use super::{Admission, AdmitError, Command, Reply};
use crate::enrol::ProvenEnrolment;

/// So many are stored together.
const TOGETHER: usize = 64;

/// One that wants to join, and waits for the answer.
pub(super) type Join = (Box<ProvenEnrolment>, Reply<Admission, AdmitError>);

/// All that wait to join at the head of the queue, where `first` was taken from, up to a bound; and what comes next, if that is
/// something else.
pub(super) fn gather(first: Command, queue: &mut mpsc::Receiver<Command>) -> (Vec<Join>, Option<Command>) {
    let (mut group, mut next) = (Vec::new(), Some(first));
    loop {
        match next {
            Some(Command::Admit(enrolment, reply)) => group.push((enrolment, reply)),
            other => return (group, other),
        }
        next = if group.len() < TOGETHER { queue.try_recv().ok() } else { None };
    }
}

impl Writer {
    /// Admits them, in their order.
    pub(super) async fn admit_all(&mut self, joins: Vec<Join>) {
        // Without a transaction each tries to get one of its own, and is told what is wrong.
        let together = joins.len() > 1 && self.begin_group().await.is_ok();
        let mut decided = Vec::new();
        for (enrolment, reply) in joins {
            let answer = self.admit(ProvenEnrolment::clone(&enrolment)).await;
            decided.push((enrolment, reply, answer));
        }
        let stored = !together || self.end_group().await.is_ok();
        for (enrolment, reply, mut answer) in decided {
            let is_lost = answer.is_ok() && !stored;
            if is_lost || (together && matches!(answer, Err(AdmitError::Unavailable(_)))) {
                answer = self.admit(*enrolment).await;
            }
            // Whoever asked may have gone away; what was done stays done.
            let _ = reply.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use futures_util::future::join_all;
    use ria_protocol::error::ErrorCode;
    use ria_protocol::id::KeyId;
    use ria_protocol::keys::{SpkiHash, WgPublicKey};
    use tokio::sync::oneshot;

    use super::super::{CreatedKey, NewKey, Registry, Unavailable};
    use super::*;
    use crate::audit::Actor;
    use crate::store::{AuditQuery, Store, StoreError, sqlite_url};

    async fn start(directory: &Path) -> (Registry, Store, CreatedKey) {
        let store = Store::open(&sqlite_url(directory)).await.unwrap();
        let membership = crate::state::DEFAULT_MEMBERSHIP;
        let (registry, _) = Registry::start(store.clone(), membership, Vec::new()).await.unwrap();
        let network = *registry.world().networks.keys().next().unwrap();
        let (tags, owner) = (Vec::new(), None);
        let new =
            NewKey { network, reusable: true, expires: None, tags, ephemeral: None, approve: false, owner };
        let key = registry.create_key(new, Actor::Local(0)).await.unwrap();
        (registry, store, key)
    }

    fn enrolment(key: &CreatedKey, number: u8) -> ProvenEnrolment {
        ProvenEnrolment {
            key_id: key.entry.id,
            secret_digest: key.secret.digest(),
            name: "robot".parse().unwrap(),
            name_required: false,
            wg_key: WgPublicKey([number; 32]),
            tls_key: SpkiHash([number; 32]),
            agent_version: "x".repeat(400),
            from: "192.0.2.1".parse().unwrap(),
            only_known: false,
            reported: None,
        }
    }

    async fn check_audit(registry: &Registry, store: &Store) {
        let head = registry.world().audit_head;
        let query = AuditQuery { limit: 1, ..AuditQuery::default() };
        assert_eq!(store.audit(query, head).await.unwrap().1.unwrap(), head);
    }

    #[tokio::test]
    async fn those_behind_each_other_are_gathered_up_to_a_bound_and_no_further_than_the_next_other() {
        let directory = tempfile::tempdir().unwrap();
        let (_registry, _store, key) = start(directory.path()).await;
        let (send, mut queue) = mpsc::channel(200);
        let join = |number: u8| Command::Admit(Box::new(enrolment(&key, number)), oneshot::channel().0);
        for number in 0..100 {
            send.send(join(number)).await.unwrap();
        }
        send.send(Command::CatchUp(oneshot::channel().0)).await.unwrap();
        let (group, next) = gather(join(200), &mut queue);
        assert!(group.len() == TOGETHER && next.is_none());
        let (group, next) = gather(join(201), &mut queue);
        assert_eq!(group.len(), 1 + 100 - (TOGETHER - 1));
        assert!(matches!(next, Some(Command::CatchUp(_))));
        assert_eq!(gather(join(202), &mut queue).0.len(), 1);
        let (group, next) = gather(Command::CatchUp(oneshot::channel().0), &mut queue);
        assert!(group.is_empty() && next.is_some());
    }

    #[tokio::test]
    async fn each_that_joins_at_the_same_time_is_decided_after_those_before_it_and_refused_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, store, key) = start(directory.path()).await;
        let network = key.entry.network;
        let before = registry.network(network).unwrap().revision;
        let mut all: Vec<_> = (1..=40).map(|number| enrolment(&key, number)).collect();
        all[20].key_id = KeyId::from_bytes([9; KeyId::LEN]);
        // Half of the keys of another: this one has to be refused because of one that is stored with it.
        all[30].wg_key = all[29].wg_key;
        let answers = join_all(all.into_iter().map(|enrolment| registry.admit(enrolment))).await;
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for (number, answer) in answers.into_iter().enumerate() {
            match (number, answer) {
                (20, Err(AdmitError::Refused(refusal))) => {
                    assert_eq!(refusal.code, ErrorCode::JoinKeyUnknown)
                }
                (30, Err(AdmitError::Refused(refusal))) => assert_eq!(refusal.code, ErrorCode::ProofFailed),
                (_, Ok(Admission::Member(admitted))) => {
                    names.insert(admitted.member.name.clone());
                    addresses.insert(admitted.member.address_v4);
                }
                (number, other) => panic!("{number}: {other:?}"),
            }
        }
        assert_eq!((names.len(), addresses.len()), (38, 38));
        let now = registry.network(network).unwrap();
        assert_eq!((now.revision.0, now.members.len()), (before.0 + 38, 38));
        assert_eq!(registry.world().keys[&key.entry.id].uses, 38);
        check_audit(&registry, &store).await;
        let stored = store.load().await.unwrap();
        assert_eq!(stored.networks[&network].members, now.members);
    }

    #[tokio::test]
    async fn a_group_that_can_not_be_stored_is_tried_one_by_one_and_nothing_of_it_is_left_before() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, store, key) = start(directory.path()).await;
        // The disk is full until the connection is another one, which it is after the first failure.
        store.execute("PRAGMA max_page_count = 70").await.unwrap();
        let answers = join_all((1..=120).map(|number| registry.admit(enrolment(&key, number)))).await;
        assert!(registry.store_errors() > 0, "the disk never became full");
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!((refused, registry.is_writable()), (0, true));
        let members = registry.network(key.entry.network).unwrap().members.clone();
        assert_eq!((members.len(), registry.world().keys[&key.entry.id].uses), (120, 120));
        assert_eq!(store.load().await.unwrap().networks[&key.entry.network].members, members);
        check_audit(&registry, &store).await;
    }

    #[tokio::test]
    async fn where_nothing_can_be_stored_nobody_is_told_to_be_a_member() {
        let directory = tempfile::tempdir().unwrap();
        let (registry, store, key) = start(directory.path()).await;
        std::fs::remove_file(directory.path().join("coordinator.db")).unwrap();
        let answers = join_all((1..=20).map(|number| registry.admit(enrolment(&key, number)))).await;
        let moved = |answer: &&Result<_, _>| {
            matches!(answer, Err(AdmitError::Unavailable(Unavailable::Store(StoreError::Moved(_)))))
        };
        assert_eq!(answers.iter().filter(moved).count(), 20, "{answers:?}");
        assert!(registry.network(key.entry.network).unwrap().members.is_empty() && !registry.is_writable());
        // Nothing is put in its place, not by a reader either.
        let _ = store.audit(AuditQuery::default(), registry.world().audit_head).await;
        assert!(!directory.path().join("coordinator.db").exists());
    }
}
