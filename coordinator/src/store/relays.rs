//! Relays in the database.

use std::sync::Arc;

use sqlx::any::AnyRow;
use zeroize::Zeroizing;

use super::load::{damaged, number, parsed, text, time};
use super::write::{Written, big};
use super::{Store, StoreError, Write};
use crate::state::relay::RelayEntry;

/// Another TURN server.
const TURN: &str = "turn";

impl Write<'_> {
    /// Nodes are told of another relay.
    pub async fn relay_added(&mut self, relay: &RelayEntry) -> Written {
        let sql =
            "INSERT INTO relays (name, kind, host, udp_port, secret, added) VALUES ($1, $2, $3, $4, $5, $6)";
        sqlx::query(sql)
            .bind(relay.name.as_str())
            .bind(TURN)
            .bind(&relay.host)
            .bind(i64::from(relay.udp_port))
            .bind(relay.secret.as_str())
            .bind(big(relay.added.0))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// It is there no more.
    pub async fn relay_removed(&mut self, name: &str) -> Written {
        let sql = "DELETE FROM relays WHERE name = $1";
        sqlx::query(sql).bind(name).execute(&mut **self.transaction).await?;
        Ok(())
    }
}

impl Store {
    /// All relays, in order of their names.
    pub async fn relays(&self) -> Result<Vec<Arc<RelayEntry>>, StoreError> {
        let rows = sqlx::query("SELECT * FROM relays ORDER BY name").fetch_all(&self.writer).await?;
        rows.iter().map(|row| relay(row).map(Arc::new)).collect()
    }
}

fn relay(row: &AnyRow) -> Result<RelayEntry, StoreError> {
    let kind = text(row, "kind")?;
    if kind != TURN {
        return Err(damaged("kind", format!("{kind:?} is no kind of relay that this version knows")));
    }
    Ok(RelayEntry {
        name: parsed(row, "name")?,
        host: text(row, "host")?,
        udp_port: u16::try_from(number(row, "udp_port")?).map_err(|e| damaged("udp_port", e))?,
        secret: Zeroizing::new(text(row, "secret")?),
        added: time(row, "added")?,
    })
}
