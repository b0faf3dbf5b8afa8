//! Local networks behind nodes, in the database.

use std::collections::BTreeMap;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::prefix::Prefix;
use sqlx::Row as _;

use super::load::{damaged, number, optional_time, parsed, time};
use super::write::{Written, big};
use super::{Store, StoreError, Write};
use crate::state::routes::RouteEntry;

impl Write<'_> {
    /// A local network as it is now.
    pub async fn route(&mut self, network: NetworkId, node: NodeId, route: &RouteEntry) -> Written {
        self.route_removed(network, node, route.lan).await?;
        let sql = "INSERT INTO subnet_routes (network, node, lan, offered, since, approved, prefix) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(node.to_string())
            .bind(route.lan.to_string())
            .bind(i64::from(route.offered))
            .bind(big(route.since.0))
            .bind(route.approved.map(|(time, _)| big(time.0)))
            .bind(route.approved.map(|(_, prefix)| prefix.to_string()))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A local network is of no more interest.
    pub async fn route_removed(&mut self, network: NetworkId, node: NodeId, lan: Prefix) -> Written {
        let sql = "DELETE FROM subnet_routes WHERE network = $1 AND node = $2 AND lan = $3";
        let keys = (network.to_string(), node.to_string(), lan.to_string());
        sqlx::query(sql).bind(keys.0).bind(keys.1).bind(keys.2).execute(&mut **self.transaction).await?;
        Ok(())
    }
}

impl Store {
    pub(super) async fn load_routes(
        &self,
        network: &str,
    ) -> Result<BTreeMap<(NodeId, Option<Prefix>), RouteEntry>, StoreError> {
        let sql = "SELECT * FROM subnet_routes WHERE network = $1";
        let rows = sqlx::query(sql).bind(network.to_owned()).fetch_all(&self.writer).await?;
        let mut routes = BTreeMap::new();
        for row in rows {
            let prefix = row.try_get::<Option<String>, _>("prefix")?;
            let prefix =
                prefix.map(|text| text.parse::<Prefix>().map_err(|e| damaged("prefix", e))).transpose()?;
            let entry = RouteEntry {
                lan: parsed(&row, "lan")?,
                offered: number(&row, "offered")? != 0,
                since: time(&row, "since")?,
                approved: optional_time(&row, "approved")?.zip(prefix),
            };
            routes.insert((parsed(&row, "node")?, Some(entry.lan)), entry);
        }
        Ok(routes)
    }
}
