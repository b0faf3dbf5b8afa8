//! The head of the audit log beside the database, noted when the coordinator stops. A database that does not reach it
//! any more, or has another row there, is an older copy that somebody put in place by hand: the rows behind it and what
//! they tell of are lost, and nodes know more than it does. Then a new epoch begins, as after a restore.

use std::fs;
use std::io;
use std::path::Path;

use crate::audit::Head;
use crate::backup::files;
use crate::epoch::{self, Reason};
use crate::store::{Store, StoreError};

const FILE: &str = "audit.head";

/// Notes the head. It is only ever behind the database, never before it.
pub fn drop_at(data_dir: &Path, head: Head) -> io::Result<()> {
    let text = serde_json::to_vec(&head).map_err(io::Error::other)?;
    files::write_private(&data_dir.join(FILE), &text)
}

/// The head that was noted last; a file that can't be read is as good as none.
pub fn last(data_dir: &Path) -> Option<Head> {
    let text = fs::read(data_dir.join(FILE)).ok()?;
    serde_json::from_slice(&text).map_err(|error| tracing::warn!(%error, "{FILE} can't be read")).ok()
}

/// Whether the database has the row that was noted.
pub async fn holds(data_dir: &Path, store: &Store) -> Result<Result<(), Head>, StoreError> {
    let Some(head) = last(data_dir).filter(|head| *head != Head::START) else { return Ok(Ok(())) };
    let fits = store.audit_hash(head.seq).await? == Some(head.hash);
    Ok(if fits { Ok(()) } else { Err(head) })
}

/// Begins a new epoch when the database was wound back.
pub async fn check(data_dir: &Path, store: &Store) -> Result<(), StoreError> {
    let Err(last_known) = holds(data_dir, store).await? else { return Ok(()) };
    let began = epoch::begin_next(store, Reason::Rewound { last_known }).await?;
    tracing::error!(
        epoch = began.epoch.number,
        rows = began.base.seq,
        last_known = last_known.seq,
        "the database is an older copy than the one that was here before; join keys are revoked, nodes hand back what \
         they know (next time: ria-coordinator restore)"
    );
    forget(data_dir);
    Ok(())
}

/// The database is another one now.
pub fn forget(data_dir: &Path) {
    // What is left over does no more than begin another epoch.
    let _ = fs::remove_file(data_dir.join(FILE));
}
