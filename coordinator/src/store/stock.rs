//! Static peers in the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::PresharedKey;
use ria_protocol::time::UnixTime;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::load::{damaged, parsed, tags, time};
use super::write::{Written, big, tags as tags_text};
use super::{Store, StoreError, Write};
use crate::state::stock::StaticEntry;

impl Write<'_> {
    /// A new static peer and its addresses.
    pub async fn static_peer(&mut self, network: NetworkId, peer: &StaticEntry) -> Written {
        let sql = "INSERT INTO static_peers (network, id, name, wg_key, address_v4, address_v6, tags, psk, gateway, \
                   endpoint, keepalive, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(peer.node.to_string())
            .bind(peer.name.as_str())
            .bind(peer.wg_key.to_string())
            .bind(peer.address_v4.to_string())
            .bind(peer.address_v6.to_string())
            .bind(tags_text(&peer.tags))
            .bind(peer.psk.as_ref().map(PresharedKey::reveal))
            .bind(peer.gateway.map(|node| node.to_string()))
            .bind(peer.endpoint.map(|address| address.to_string()))
            .bind(peer.keepalive.map(i64::from))
            .bind(big(peer.created.0))
            .execute(&mut **self.transaction)
            .await?;
        let addresses = [peer.address_v4.to_string(), peer.address_v6.to_string()];
        self.addresses(network, peer.node, addresses).await
    }

    /// Another member forwards for a static peer.
    pub async fn static_peer_routed(&mut self, network: NetworkId, peer: &StaticEntry) -> Written {
        let sql = "UPDATE static_peers SET gateway = $3, psk = $4 WHERE network = $1 AND id = $2";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(peer.node.to_string())
            .bind(peer.gateway.map(|node| node.to_string()))
            .bind(peer.psk.as_ref().map(PresharedKey::reveal))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A static peer is gone; its addresses are held back from now on.
    pub async fn static_peer_removed(&mut self, network: NetworkId, node: NodeId, time: UnixTime) -> Written {
        let sql = "DELETE FROM static_peers WHERE network = $1 AND id = $2";
        let ids = (network.to_string(), node.to_string());
        sqlx::query(sql).bind(ids.0).bind(ids.1).execute(&mut **self.transaction).await?;
        self.addresses_freed(network, node, time).await
    }
}

impl Store {
    pub(super) async fn load_static_peers(
        &self,
        network: &str,
    ) -> Result<BTreeMap<NodeId, Arc<StaticEntry>>, StoreError> {
        let sql = "SELECT * FROM static_peers WHERE network = $1";
        let rows = sqlx::query(sql).bind(network.to_owned()).fetch_all(&self.writer).await?;
        rows.iter().map(|row| static_peer(row).map(|peer| (peer.node, Arc::new(peer)))).collect()
    }
}

fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &AnyRow,
    column: &str,
) -> Result<Option<T>, StoreError> {
    let value = row.try_get::<Option<String>, _>(column)?;
    value.map(|text| text.parse().map_err(|e| damaged(column, e))).transpose()
}

fn static_peer(row: &AnyRow) -> Result<StaticEntry, StoreError> {
    let keepalive = row.try_get::<Option<i64>, _>("keepalive")?;
    Ok(StaticEntry {
        node: parsed(row, "id")?,
        name: parsed(row, "name")?,
        wg_key: parsed(row, "wg_key")?,
        address_v4: parsed(row, "address_v4")?,
        address_v6: parsed(row, "address_v6")?,
        tags: tags(row)?,
        psk: optional(row, "psk")?,
        gateway: optional(row, "gateway")?,
        endpoint: optional(row, "endpoint")?,
        keepalive: keepalive.map(u16::try_from).transpose().map_err(|e| damaged("keepalive", e))?,
        created: time(row, "created")?,
    })
}
