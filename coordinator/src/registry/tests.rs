//! What the writer does when the disk does not take what it writes.

use ria_protocol::version::Protocol;

use super::*;
use crate::audit::Head;
use crate::state::view;
use crate::store::{AuditQuery, sqlite_url};
use crate::tls::authority::Identity;
use crate::tls::succession::Authorities;

async fn start(directory: &std::path::Path) -> (Registry, Store) {
    let store = Store::open(&sqlite_url(directory)).await.unwrap();
    let membership = crate::state::DEFAULT_MEMBERSHIP;
    let (registry, _) = Registry::start(store.clone(), membership, Vec::new()).await.unwrap();
    (registry, store)
}

async fn make_key(registry: &Registry) -> Result<CreatedKey, CreateKeyError> {
    let network = *registry.world().networks.keys().next().unwrap();
    let new = NewKey {
        network,
        reusable: true,
        expires: None,
        tags: vec!["x".repeat(2000)],
        ephemeral: None,
        approve: false,
        owner: None,
    };
    registry.create_key(new, Actor::Local(0)).await
}

async fn chain(registry: &Registry, store: &Store) -> Head {
    let head = registry.world().audit_head;
    let (_, verdict) = store.audit(AuditQuery { limit: 1, ..AuditQuery::default() }, head).await.unwrap();
    verdict.unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_nothing_is_lost_or_half_done() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, store) = start(directory.path()).await;
    store.execute("PRAGMA max_page_count = 60").await.unwrap();
    let mut made = 0;
    let error = loop {
        match make_key(&registry).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 1000, "the disk never became full");
    };
    let CreateKeyError::Unavailable(Unavailable::Store(StoreError::Full)) = error else { panic!("{error}") };
    assert!(!registry.is_writable());
    assert_eq!(registry.world().keys.len(), made);
    assert_eq!(chain(&registry, &store).await.seq, made as u64 + 1);

    store.execute("PRAGMA max_page_count = 100000").await.unwrap();
    make_key(&registry).await.unwrap();
    assert!(registry.is_writable());
    // What another start finds is what this one had.
    let (again, store) = start(directory.path()).await;
    assert_eq!(again.world().keys, registry.world().keys);
    assert_eq!(chain(&again, &store).await, registry.world().audit_head);
}

#[tokio::test]
async fn a_read_only_database_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, store) = start(directory.path()).await;
    store.execute("PRAGMA query_only = ON").await.unwrap();
    let error = make_key(&registry).await.unwrap_err();
    assert!(
        matches!(error, CreateKeyError::Unavailable(Unavailable::Store(StoreError::ReadOnly))),
        "{error}"
    );
    assert!(error.to_string().contains("read-only"));
    store.execute("PRAGMA query_only = OFF").await.unwrap();
    make_key(&registry).await.unwrap();
}

#[tokio::test]
async fn a_database_stays_with_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    // The database is closed with the last way to its writer.
    let (_registry, store) = start(directory.path()).await;
    assert_eq!(known_authority(&store).await.unwrap(), None);
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [ours, theirs] = [here.path(), there.path()].map(|dir| {
        let authority = Identity::load_or_create(dir, None).unwrap().authority;
        Authorities::new(Identity::path(dir), authority)
    });
    bind_authority(&store, &ours.current()).await.unwrap();
    bind_authority(&store, &ours.current()).await.unwrap();
    let error = bind_authority(&store, &theirs.current()).await.unwrap_err();
    assert!(matches!(error, AuthorityMismatch::Other), "{error}");
    // The next authority takes the database over, also where a crash came in between, and the one before it is out.
    let before = ours.current();
    bind_authority(&store, &ours.roll().unwrap()).await.unwrap();
    assert_eq!(known_authority(&store).await.unwrap(), Some(ours.current().pin()));
    let error = bind_authority(&store, &before).await.unwrap_err();
    assert!(matches!(error, AuthorityMismatch::Other), "{error}");
}

#[tokio::test]
async fn the_approval_queue_is_bounded() {
    use crate::state::waiting::MOST_WAITING;
    let directory = tempfile::tempdir().unwrap();
    let (registry, _store) = start(directory.path()).await;
    let network = *registry.world().networks.keys().next().unwrap();
    let new = NewKey {
        network,
        reusable: true,
        expires: None,
        tags: Vec::new(),
        ephemeral: None,
        approve: true,
        owner: None,
    };
    let key = registry.create_key(new, Actor::Local(0)).await.unwrap();
    let ask = async |number: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let enrolment = ProvenEnrolment {
            key_id: key.entry.id,
            secret_digest: key.secret.digest(),
            name: "robot".parse().unwrap(),
            name_required: false,
            wg_key: ria_protocol::keys::WgPublicKey(bytes),
            tls_key: SpkiHash(bytes),
            agent_version: String::new(),
            from: "192.0.2.1".parse().unwrap(),
            only_known: false,
            reported: None,
        };
        registry.admit(enrolment).await
    };
    for number in 0..MOST_WAITING {
        assert!(matches!(ask(number).await, Ok(Admission::Waiting(_))));
    }
    let Err(AdmitError::Refused(refusal)) = ask(MOST_WAITING).await else { panic!("there is no bound") };
    assert!(refusal.code.is_temporary() && refusal.text.contains("node pending"), "{refusal}");
    // Who waits already goes on; one that is rejected makes room.
    let Ok(Admission::Waiting(first)) = ask(0).await else { panic!("it does not wait any more") };
    registry.reject(network, first.entry.node, Actor::Local(0)).await.unwrap();
    assert!(matches!(ask(MOST_WAITING).await, Ok(Admission::Waiting(_))));
}

#[tokio::test]
async fn a_member_that_was_away_for_too_long_is_in_nobodys_map_until_that_holds_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, store) = start(directory.path()).await;
    let network = *registry.world().networks.keys().next().unwrap();
    let key = make_key(&registry).await.unwrap();
    let enrolment = ProvenEnrolment {
        key_id: key.entry.id,
        secret_digest: key.secret.digest(),
        name: "robot".parse().unwrap(),
        name_required: false,
        wg_key: ria_protocol::keys::WgPublicKey([7; 32]),
        tls_key: SpkiHash([7; 32]),
        agent_version: String::new(),
        from: "192.0.2.1".parse().unwrap(),
        only_known: false,
        reported: None,
    };
    let Ok(Admission::Member(admitted)) = registry.admit(enrolment).await else { panic!("not admitted") };
    let node = admitted.member.node;
    let reader = view::Reader { node, protocol: Protocol::NEWEST };
    let listed = || view::snapshot(&registry.network(network).unwrap(), reader).members.len();
    let heard = async |time| {
        let contact = Contact { network, node, time, agent_version: String::new() };
        registry.note_contacts(vec![contact]).await.unwrap();
    };
    registry.sweep_lapsed(Vec::new()).await.unwrap();
    assert_eq!(listed(), 1);
    heard(UnixTime(1000)).await;
    registry.sweep_lapsed(vec![(network, node)]).await.unwrap();
    assert_eq!(listed(), 1, "it is connected, and its last contact is just not stored yet");
    registry.sweep_lapsed(Vec::new()).await.unwrap();
    registry.sweep_lapsed(Vec::new()).await.unwrap();
    assert_eq!(listed(), 0);
    let stored = store.load().await.unwrap();
    assert!(stored.networks[&network].members[&node].lapsed.is_some(), "it is not stored");
    // It was the clock of this machine, say.
    heard(UnixTime::from(std::time::SystemTime::now())).await;
    registry.sweep_lapsed(Vec::new()).await.unwrap();
    assert_eq!(listed(), 1);
    chain(&registry, &store).await;
}
