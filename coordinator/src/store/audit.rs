//! Looking at the audit log without reading all of it: the latest rows, each held against the row behind it; and what has
//! come since a row that was verified before.

use std::collections::VecDeque;

use futures_util::TryStreamExt;

use super::load::{AuditQuery, audit_row};
use super::{Store, StoreError};
use crate::audit::{Broken, Head, Row, Verifier};

impl Store {
    /// The latest rows that are wanted, oldest first, and whether all rows that were read for that lead up to `head`.
    pub async fn audit_latest(
        &self,
        query: &AuditQuery,
        head: Head,
    ) -> Result<(Vec<Row>, Result<(), Broken>), StoreError> {
        let mut kept: VecDeque<Row> = VecDeque::new();
        let (mut expected, mut verdict) = (head, Ok(()));
        let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let sql = "SELECT * FROM audit WHERE seq <= $1 AND seq > $2 ORDER BY seq DESC";
        let after = query.after.unwrap_or(0);
        let mut rows = sqlx::query(sql).bind(number(head.seq)).bind(number(after)).fetch(&self.readers);
        while kept.len() < query.limit
            && let Some(row) = rows.try_next().await?
        {
            let row = audit_row(&row)?;
            if verdict.is_ok() {
                verdict = leads_to(&row, expected, head);
            }
            expected = Head { seq: row.seq.saturating_sub(1), hash: row.prev_hash };
            if query.wants(&row) {
                kept.push_front(row);
            }
        }
        let read_all = kept.len() < query.limit;
        if verdict.is_ok() && read_all && expected.seq > after {
            verdict = Err(Broken::Missing { expected: expected.seq });
        }
        Ok((kept.into(), verdict))
    }

    /// Whether what was written behind `known` leads up to `head`.
    pub async fn audit_since(&self, known: Head, head: Head) -> Result<Result<Head, Broken>, StoreError> {
        let mut verifier = Verifier::behind(known);
        let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let sql = "SELECT * FROM audit WHERE seq > $1 AND seq <= $2 ORDER BY seq";
        let mut rows = sqlx::query(sql).bind(number(known.seq)).bind(number(head.seq)).fetch(&self.readers);
        while let Some(row) = rows.try_next().await? {
            if let Err(broken) = verifier.handle_row(&audit_row(&row)?) {
                return Ok(Err(broken));
            }
        }
        Ok(verifier.finish(head))
    }
}

/// Whether a row is the expected one, and whole.
fn leads_to(row: &Row, expected: Head, head: Head) -> Result<(), Broken> {
    if row.seq != expected.seq {
        return Err(if expected == head {
            Broken::CutOff { found: row.seq, expected: head.seq }
        } else {
            Broken::Missing { expected: expected.seq }
        });
    }
    if !row.is_whole() {
        return Err(Broken::Changed { seq: row.seq });
    }
    if row.hash != expected.hash {
        // Rewritten together with its own hash: the row behind it, or the head, knows another.
        return Err(Broken::Unlinked { seq: row.seq + 1 });
    }
    Ok(())
}
