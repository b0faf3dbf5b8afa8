//! What the writer does when the disk does not take what it writes.

use super::*;
use crate::audit::Head;
use crate::store::{AuditQuery, sqlite_url};

async fn start(directory: &std::path::Path) -> (Registry, Store) {
    let store = Store::open(&sqlite_url(directory)).await.unwrap();
    let (registry, _) = Registry::start(store.clone()).await.unwrap();
    (registry, store)
}

async fn make_key(registry: &Registry) -> Result<CreatedKey, CreateKeyError> {
    let network = *registry.world().networks.keys().next().unwrap();
    let new = NewKey { network, reusable: true, expires: None, tags: vec!["x".repeat(2000)], ephemeral: None, approve: false };
    registry.create_key(new, Actor::Local(0)).await
}

async fn chain(registry: &Registry, store: &Store) -> Head {
    let head = registry.world().audit_head;
    let (_, verdict) = store.audit(AuditQuery { network: None, limit: 1 }, head).await.unwrap();
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
    bind_authority(&store, SpkiHash([1; 32])).await.unwrap();
    bind_authority(&store, SpkiHash([1; 32])).await.unwrap();
    let error = bind_authority(&store, SpkiHash([2; 32])).await.unwrap_err();
    assert!(matches!(error, AuthorityMismatch::Other), "{error}");
}
