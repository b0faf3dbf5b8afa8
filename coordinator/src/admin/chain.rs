//! Whether the audit log is as it was written: the whole of it when it is asked for and once a day, and at each look what
//! came since. Reading all of a log that is never shortened would make each look slower than the one before.

use std::time::{Duration, SystemTime};

use ria_protocol::time::UnixTime;
use tokio::sync::watch;

use crate::audit::{Broken, Head};
use crate::store::{Store, StoreError};

/// After that the next look reads everything.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// How far the log was verified by this process.
#[derive(Debug, Clone, Copy)]
struct Known {
    head: Head,
    /// When all of it was.
    whole: UnixTime,
}

/// What was verified so far.
#[derive(Debug, Default)]
pub struct Chain {
    known: watch::Sender<Option<Known>>,
}

impl Chain {
    /// Verifies up to `head`, all of it if `whole` is asked for; when the whole log was verified last.
    pub async fn verify(
        &self,
        store: &Store,
        head: Head,
        whole: bool,
    ) -> Result<Result<UnixTime, Broken>, StoreError> {
        let now = UnixTime::from(SystemTime::now());
        let known = *self.known.borrow();
        let known =
            known.filter(|known| !whole && now.since(known.whole) < EVERY && known.head.seq <= head.seq);
        let begin = known.map_or(Head::START, |known| known.head);
        let verified = store.audit_since(begin, head).await?;
        let whole = known.map_or(now, |known| known.whole);
        // What is broken is looked at anew each time.
        let next = verified.is_ok().then_some(Known { head, whole });
        self.known.send_replace(next);
        Ok(verified.map(|_| whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Actor, Event};

    async fn store(directory: &std::path::Path, rows: u64) -> (Store, Vec<Head>) {
        let store = Store::open(&crate::store::sqlite_url(directory)).await.unwrap();
        let (mut head, mut heads) = (Head::START, vec![Head::START]);
        for n in 0..rows {
            let event = Event {
                time: UnixTime(1000 + n),
                actor: Actor::Local(0),
                action: if n % 2 == 0 { "node.removed" } else { "key.created" },
                network: None,
                subject: format!("robot-{n}"),
                detail: serde_json::json!({}),
            };
            let row = head.follow(&event);
            let mut transaction = store.begin().await.unwrap();
            crate::store::Write::new(&mut transaction).audit(&row).await.unwrap();
            transaction.commit().await.unwrap();
            head = Head::from(&row);
            heads.push(head);
        }
        (store, heads)
    }

    #[tokio::test]
    async fn a_look_verifies_what_is_new_and_what_it_shows_and_a_whole_check_everything() {
        use crate::store::AuditQuery;
        let directory = tempfile::tempdir().unwrap();
        let (store, heads) = store(directory.path(), 8).await;
        let chain = Chain::default();
        assert!(chain.verify(&store, heads[5], false).await.unwrap().is_ok());
        assert!(chain.verify(&store, heads[8], false).await.unwrap().is_ok());
        let query = AuditQuery { limit: 2, action: Some("key".into()), ..AuditQuery::default() };
        let (rows, verdict) = store.audit_latest(&query, heads[8]).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [6, 8]);
        assert_eq!(verdict, Ok(()));
        // An old row is changed: a short look does not read it, one that shows it and a whole one do.
        store.execute("UPDATE audit SET subject = 'robot-9' WHERE seq = 2").await.unwrap();
        assert!(chain.verify(&store, heads[8], false).await.unwrap().is_ok());
        let all = AuditQuery { limit: 100, ..AuditQuery::default() };
        let (rows, verdict) = store.audit_latest(&all, heads[8]).await.unwrap();
        assert_eq!((rows.len(), verdict), (8, Err(Broken::Changed { seq: 2 })));
        assert_eq!(chain.verify(&store, heads[8], true).await.unwrap(), Err(Broken::Changed { seq: 2 }));
        assert!(chain.verify(&store, heads[8], false).await.unwrap().is_err(), "and it is not forgotten");
        store.execute("DELETE FROM audit WHERE seq IN (1, 8)").await.unwrap();
        let (_, verdict) = store.audit_latest(&all, heads[8]).await.unwrap();
        assert_eq!(verdict, Err(Broken::CutOff { found: 7, expected: 8 }));
        let (_, verdict) = store.audit_latest(&AuditQuery { limit: 100, ..query }, heads[7]).await.unwrap();
        assert!(verdict.is_err());
    }
}
