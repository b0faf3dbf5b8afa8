//! Versions of policies. None is ever changed or removed.

use std::sync::Arc;

use ria_protocol::id::NetworkId;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::load::{damaged, number, text, time};
use super::write::{Written, big};
use super::{Store, StoreError, Write};
use crate::policy::text::parse;
use crate::state::policy::{InForce, PolicyState, PolicyVersion};

fn version(row: &AnyRow) -> Result<PolicyVersion, StoreError> {
    Ok(PolicyVersion {
        version: number(row, "version")?,
        text: row.try_get::<Option<String>, _>("text")?,
        time: time(row, "time")?,
        actor: text(row, "actor")?,
        note: text(row, "note")?,
    })
}

impl Store {
    /// The policy of a network as it is in force.
    pub(super) async fn load_policy(&self, network: &str) -> Result<PolicyState, StoreError> {
        let sql = "SELECT * FROM policies WHERE network = $1 ORDER BY version DESC LIMIT 1";
        let row = sqlx::query(sql).bind(network).fetch_optional(&self.writer).await?;
        let Some(row) = row else { return Ok(PolicyState::default()) };
        let found = version(&row)?;
        let in_force = found.text.map(|text| {
            let policy = parse(&text).map_err(|problems| {
                damaged("policies", problems.first().map(ToString::to_string).unwrap_or_default())
            })?;
            let in_force = InForce { version: found.version, text, policy, since: found.time };
            Ok::<_, StoreError>(Arc::new(in_force))
        });
        Ok(PolicyState::stored(found.version, in_force.transpose()?))
    }

    /// All versions of a network's policy, oldest first.
    pub async fn policy_versions(&self, network: NetworkId) -> Result<Vec<PolicyVersion>, StoreError> {
        let sql = "SELECT * FROM policies WHERE network = $1 ORDER BY version";
        let rows = sqlx::query(sql).bind(network.to_string()).fetch_all(&self.readers).await?;
        rows.iter().map(version).collect()
    }

    /// One version of a network's policy.
    pub async fn policy_version(
        &self,
        network: NetworkId,
        wanted: u64,
    ) -> Result<Option<PolicyVersion>, StoreError> {
        let sql = "SELECT * FROM policies WHERE network = $1 AND version = $2";
        let query = sqlx::query(sql).bind(network.to_string()).bind(big(wanted));
        query.fetch_optional(&self.readers).await?.map(|row| version(&row)).transpose()
    }
}

impl Write<'_> {
    /// A new version of a network's policy.
    pub async fn policy(&mut self, network: NetworkId, version: &PolicyVersion) -> Written {
        let sql = "INSERT INTO policies (network, version, text, time, actor, note) VALUES ($1, $2, $3, $4, $5, $6)";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(big(version.version))
            .bind(version.text.as_deref())
            .bind(big(version.time.0))
            .bind(&version.actor)
            .bind(&version.note)
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }
}
