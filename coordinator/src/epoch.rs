//! Epochs: each restore from a backup begins one. What a new epoch changes in a database, so that nothing that nodes
//! still hold from before is taken for something else:
//!
//! - revisions jump beyond all that any node has seen, and no patch leads over the jump, so that everybody gets the
//!   whole map;
//! - new addresses are taken from another part of the prefix (see [`crate::state::address`]), since some may have been
//!   given away after the backup was made;
//! - join keys are revoked: one may have been used up or revoked after the backup.

use std::time::SystemTime;

use ria_protocol::id::EpochId;
use ria_protocol::map::Revision;
use ria_protocol::time::UnixTime;
use ria_protocol::witness::Epoch;
use serde_json::json;

use crate::audit::{Actor, Event, Head};
use crate::random;
use crate::store::{Store, StoreError, Write};

/// The revisions of an epoch begin at its number less one, times this: far more changes than an epoch sees.
const REVISIONS_OF_AN_EPOCH: u64 = 1_000_000_000;

/// An epoch, and the row of the audit log behind which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began {
    pub epoch: Epoch,
    pub base: Head,
}

/// Why an epoch begins.
#[derive(Debug, Clone, Copy)]
pub enum Reason {
    /// A backup made at this time was restored.
    Restored { made: UnixTime, keep_keys: bool },
    /// The database turned out to be an older copy of itself, put there without `restore`.
    Rewound { last_known: Head },
}

/// The database's epoch, begun when it has none yet.
pub async fn ensure_first(store: &Store) -> Result<(), StoreError> {
    if !store.epochs().await?.is_empty() {
        return Ok(());
    }
    let first = Began { epoch: new_epoch(1), base: Head::START };
    let mut transaction = store.begin().await?;
    Write::new(&mut transaction).epoch(&first, now()).await?;
    store.commit(transaction).await
}

/// Begins the next epoch in a database that nobody serves.
pub async fn begin_next(store: &Store, reason: Reason) -> Result<Began, StoreError> {
    ensure_first(store).await?;
    let world = store.load().await?;
    let number = world.epoch().number.saturating_add(1);
    let began = Began { epoch: new_epoch(number), base: world.audit_head };
    let event = event(&began, reason);
    let mut transaction = store.begin().await?;
    let mut write = Write::new(&mut transaction);
    write.epoch(&began, event.time).await?;
    for network in world.networks.values() {
        write.jump(network.info.id, jumped(network.revision, number)).await?;
    }
    if matches!(reason, Reason::Restored { keep_keys: false, .. } | Reason::Rewound { .. }) {
        for key in world.keys.values().filter(|key| key.revoked.is_none()) {
            write.join_key_revoked(key.id, event.time).await?;
        }
    }
    write.audit(&world.audit_head.follow(&event)).await?;
    store.commit(transaction).await?;
    Ok(began)
}

fn event(began: &Began, reason: Reason) -> Event {
    let base = json!({ "seq": began.base.seq, "hash": began.base.hash });
    let (action, detail) = match reason {
        Reason::Restored { made, keep_keys } => (
            "coordinator.restored",
            json!({ "epoch": began.epoch.number, "backup_made": made, "base": base, "keys_revoked": !keep_keys }),
        ),
        Reason::Rewound { last_known } => (
            "coordinator.rewound",
            json!({ "epoch": began.epoch.number, "base": base, "last_known": last_known, "keys_revoked": true }),
        ),
    };
    Event {
        time: now(),
        actor: Actor::Coordinator,
        action,
        network: None,
        subject: format!("epoch {}", began.epoch.number),
        detail,
    }
}

fn jumped(revision: Revision, number: u32) -> Revision {
    let first = u64::from(number.saturating_sub(1)).saturating_mul(REVISIONS_OF_AN_EPOCH);
    Revision(revision.0.saturating_add(1).max(first))
}

fn new_epoch(number: u32) -> Epoch {
    Epoch { number, id: EpochId::from_bytes(random::bytes()) }
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_of_epochs_never_meet() {
        assert_eq!(jumped(Revision(7), 2), Revision(REVISIONS_OF_AN_EPOCH));
        assert_eq!(jumped(Revision(REVISIONS_OF_AN_EPOCH + 5), 3), Revision(2 * REVISIONS_OF_AN_EPOCH));
        // Even where an epoch had more changes than anybody thought.
        assert_eq!(jumped(Revision(u64::MAX / 2), 3), Revision(u64::MAX / 2 + 1));
    }
}
