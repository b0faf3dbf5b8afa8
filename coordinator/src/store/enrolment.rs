//! What is stored of enrolment besides members: uses of join keys, nodes that wait for approval, and departures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::id::{KeyId, NetworkId, NodeId};
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use sqlx::any::AnyRow;

use super::load::{number, optional_time, parsed, text, time};
use super::write::{Write, Written, big};
use super::{Store, StoreError};
use crate::state::MemberEntry;
use crate::state::waiting::WaitingEntry;

/// Uses of a join key that are shown; a key may have admitted thousands.
const MOST_USES: i64 = 1000;

/// Why a node is no member any more is told for this long.
const DEPARTURES_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// Somebody used a join key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    pub node: NodeId,
    /// Its name at that time.
    pub name: Name,
    pub time: UnixTime,
}

/// Why a node is no member any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It left.
    Left,
    /// An administrator removed it.
    Removed,
    /// It was to be removed when it is away for long, and it was.
    Ended,
}

impl Departure {
    /// As the audit log calls it.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Left => "node.left",
            Self::Removed => "node.removed",
            Self::Ended => "node.ended",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Removed => "removed",
            Self::Ended => "ended",
        }
    }

    fn of_word(word: &str) -> Self {
        // What a later version may write here is a removal to this one.
        [Self::Left, Self::Ended].into_iter().find(|d| d.word() == word).unwrap_or(Self::Removed)
    }
}

impl Store {
    pub(super) async fn load_waiting(
        &self,
        network: &str,
    ) -> Result<BTreeMap<NodeId, Arc<WaitingEntry>>, StoreError> {
        let sql = "SELECT * FROM waiting_nodes WHERE network = $1";
        let rows = sqlx::query(sql).bind(network).fetch_all(&self.writer).await?;
        let entries = rows.iter().map(|row| waiting(row).map(|entry| (entry.node, Arc::new(entry))));
        entries.collect()
    }

    /// Who used a join key last, oldest first.
    pub async fn key_uses(&self, key: KeyId) -> Result<Vec<KeyUse>, StoreError> {
        let sql =
            "SELECT node, name, time FROM key_uses WHERE join_key = $1 ORDER BY time DESC, node LIMIT $2";
        let rows = sqlx::query(sql).bind(key.to_string()).bind(MOST_USES).fetch_all(&self.readers).await?;
        let uses = rows.iter().rev().map(|row| {
            Ok(KeyUse { node: parsed(row, "node")?, name: parsed(row, "name")?, time: time(row, "time")? })
        });
        uses.collect()
    }

    /// Why a node is no member any more, if that is known.
    pub async fn departure(&self, network: NetworkId, node: NodeId) -> Result<Option<Departure>, StoreError> {
        let sql = "SELECT reason FROM departures WHERE network = $1 AND node = $2";
        let query = sqlx::query(sql).bind(network.to_string()).bind(node.to_string());
        let row = query.fetch_optional(&self.readers).await?;
        row.map(|row| text(&row, "reason").map(|word| Departure::of_word(&word))).transpose()
    }
}

fn waiting(row: &AnyRow) -> Result<WaitingEntry, StoreError> {
    Ok(WaitingEntry {
        node: parsed(row, "id")?,
        name: parsed(row, "name")?,
        name_required: number(row, "name_required")? != 0,
        wg_key: parsed(row, "wg_key")?,
        tls_key: parsed(row, "tls_key")?,
        join_key: parsed(row, "join_key")?,
        asked: time(row, "asked")?,
        heard: time(row, "heard")?,
        rejected: optional_time(row, "rejected")?,
        former: number(row, "former")? != 0,
        address: parsed(row, "address")?,
        agent_version: text(row, "agent_version")?,
    })
}

impl Write<'_> {
    /// A join key was used by one more node.
    pub async fn join_key_used(&mut self, key: KeyId, by: &KeyUse) -> Written {
        let sql = "UPDATE join_keys SET uses = uses + 1 WHERE id = $1";
        sqlx::query(sql).bind(key.to_string()).execute(&mut **self.transaction).await?;
        let sql = "INSERT INTO key_uses (join_key, node, name, time) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (join_key, node) DO UPDATE SET name = excluded.name, time = excluded.time";
        sqlx::query(sql)
            .bind(key.to_string())
            .bind(by.node.to_string())
            .bind(by.name.as_str())
            .bind(big(by.time.0))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A waiting node, new or changed.
    pub async fn waiting(&mut self, network: NetworkId, entry: &WaitingEntry) -> Written {
        let sql = "INSERT INTO waiting_nodes (network, id, name, name_required, wg_key, tls_key, join_key, asked, \
                   heard, rejected, former, address, agent_version) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
                   ON CONFLICT (network, id) DO UPDATE SET heard = excluded.heard, rejected = excluded.rejected, \
                   address = excluded.address, agent_version = excluded.agent_version";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(entry.node.to_string())
            .bind(entry.name.as_str())
            .bind(i64::from(entry.name_required))
            .bind(entry.wg_key.to_string())
            .bind(entry.tls_key.to_string())
            .bind(entry.join_key.to_string())
            .bind(big(entry.asked.0))
            .bind(big(entry.heard.0))
            .bind(entry.rejected.map(|at| big(at.0)))
            .bind(i64::from(entry.former))
            .bind(entry.address.to_string())
            .bind(&entry.agent_version)
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A node waits no more.
    pub async fn waiting_ended(&mut self, network: NetworkId, node: NodeId) -> Written {
        let sql = "DELETE FROM waiting_nodes WHERE network = $1 AND id = $2";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(node.to_string())
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A node is no member any more; what is long past is forgotten.
    pub async fn departed(
        &mut self,
        network: NetworkId,
        member: &MemberEntry,
        reason: Departure,
        at: UnixTime,
    ) -> Written {
        let oldest = at.0.saturating_sub(DEPARTURES_KEPT.as_secs());
        let sql = "DELETE FROM departures WHERE time < $1";
        sqlx::query(sql).bind(big(oldest)).execute(&mut **self.transaction).await?;
        let sql = "INSERT INTO departures (network, node, reason, time) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (network, node) DO UPDATE SET reason = excluded.reason, time = excluded.time";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(member.node.to_string())
            .bind(reason.word())
            .bind(big(at.0))
            .execute(&mut **self.transaction)
            .await?;
        if member.ephemeral.is_some() {
            // Nobody knows such a node by its address; a network full of addresses held back would be worse.
            let sql = "DELETE FROM addresses WHERE network = $1 AND node = $2";
            sqlx::query(sql)
                .bind(network.to_string())
                .bind(member.node.to_string())
                .execute(&mut **self.transaction)
                .await?;
        }
        Ok(())
    }
}
