//! Writing: one function per thing that is stored, all within a transaction that the registry begins and commits.

use data_encoding::BASE64;
use ria_protocol::id::{KeyId, NetworkId, NodeId};
use ria_protocol::map::{NetworkInfo, Revision};
use ria_protocol::message::to_bytes;
use ria_protocol::time::UnixTime;
use ria_protocol::witness::AuditHead;
use sqlx::{Any, Transaction};

use super::StoreError;
use crate::audit::{ChainHash, Row};
use crate::epoch::Began;
use crate::state::{Change, JoinKeyEntry, LOG_LENGTH, MemberEntry, Network};

pub(super) type Written = Result<(), StoreError>;

/// Times and counters fit: they are far below 2^63.
pub(super) fn big(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn tags(tags: &[String]) -> String {
    serde_json::json!(tags).to_string()
}

/// What may be written within a transaction.
#[derive(Debug)]
pub struct Write<'t> {
    pub(super) transaction: &'t mut Transaction<'static, Any>,
}

impl<'t> Write<'t> {
    /// Writes into this transaction.
    pub fn new(transaction: &'t mut Transaction<'static, Any>) -> Self {
        Self { transaction }
    }

    /// What follows is a part, which can be undone by itself.
    pub async fn begin_part(&mut self) -> Written {
        self.run("SAVEPOINT part").await
    }

    /// The part is made.
    pub async fn end_part(&mut self) -> Written {
        self.run("RELEASE SAVEPOINT part").await
    }

    /// Nothing of the part is left.
    pub async fn undo_part(&mut self) -> Written {
        self.run("ROLLBACK TO SAVEPOINT part").await?;
        self.end_part().await
    }

    async fn run(&mut self, sql: &'static str) -> Written {
        sqlx::query(sql).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// A value of [`super::Store::meta`], new or in place of another.
    pub async fn meta(&mut self, name: &str, value: &str) -> Written {
        let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) \
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        sqlx::query(sql).bind(name).bind(value).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// A new network.
    pub async fn network(&mut self, network: &Network) -> Written {
        let sql = "INSERT INTO networks (id, name, prefix_v4, prefix_v6, mtu, revision, created, urls, ros_domains, \
                   multicast, peers) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        sqlx::query(sql)
            .bind(network.info.id.to_string())
            .bind(network.info.name.as_str())
            .bind(network.info.prefix_v4.to_string())
            .bind(network.info.prefix_v6.to_string())
            .bind(i64::from(network.info.mtu))
            .bind(big(network.revision.0))
            .bind(big(network.created.0))
            .bind(tags(&network.info.urls))
            .bind(network.info.ros_domains.as_ref().map(ToString::to_string))
            .bind(network.info.multicast.as_ref().map(ToString::to_string))
            .bind(network.info.peers.map(|mode| mode.as_str()))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A change and the revision that it leads to; the oldest changes are forgotten.
    pub async fn change(&mut self, network: NetworkId, change: &Change) -> Written {
        let (network, to) = (network.to_string(), big(change.set.to.0));
        let sql = "INSERT INTO changes (network, revision, patches) VALUES ($1, $2, $3)";
        let patches = BASE64.encode(&to_bytes(&change.set));
        sqlx::query(sql).bind(&network).bind(to).bind(patches).execute(&mut **self.transaction).await?;
        let sql = "DELETE FROM changes WHERE network = $1 AND revision <= $2";
        let oldest = to.saturating_sub_unsigned(LOG_LENGTH as u64);
        sqlx::query(sql).bind(&network).bind(oldest).execute(&mut **self.transaction).await?;
        let sql = "UPDATE networks SET revision = $2 WHERE id = $1";
        sqlx::query(sql).bind(&network).bind(to).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// The URLs that a network's nodes are told.
    pub async fn network_urls(&mut self, network: NetworkId, urls: &[String]) -> Written {
        let sql = "UPDATE networks SET urls = $2 WHERE id = $1";
        sqlx::query(sql).bind(network.to_string()).bind(tags(urls)).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// Its multicast groups.
    pub async fn network_multicast(&mut self, info: &NetworkInfo) -> Written {
        let sql = "UPDATE networks SET multicast = $2 WHERE id = $1";
        let groups = info.multicast.as_ref().map(ToString::to_string);
        sqlx::query(sql).bind(info.id.to_string()).bind(groups).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// Of whom its members are told.
    pub async fn network_peers(&mut self, info: &NetworkInfo) -> Written {
        let sql = "UPDATE networks SET peers = $2 WHERE id = $1";
        let mode = info.peers.map(|mode| mode.as_str());
        sqlx::query(sql).bind(info.id.to_string()).bind(mode).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// A URL besides those in the settings.
    pub async fn url_added(&mut self, url: &str, time: UnixTime) -> Written {
        let sql = "INSERT INTO urls (url, added) VALUES ($1, $2)";
        sqlx::query(sql).bind(url).bind(big(time.0)).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// It is there no more.
    pub async fn url_removed(&mut self, url: &str) -> Written {
        let sql = "DELETE FROM urls WHERE url = $1";
        sqlx::query(sql).bind(url).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// A new epoch.
    pub async fn epoch(&mut self, began: &Began, time: UnixTime) -> Written {
        let sql = "INSERT INTO epochs (number, id, began, base_seq, base_hash) VALUES ($1, $2, $3, $4, $5)";
        sqlx::query(sql)
            .bind(i64::from(began.epoch.number))
            .bind(began.epoch.id.to_string())
            .bind(big(time.0))
            .bind(big(began.base.seq))
            .bind(String::from(began.base.hash))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A revision that no patches lead to; those that are kept lead nowhere any more.
    pub async fn jump(&mut self, network: NetworkId, to: Revision) -> Written {
        let network = network.to_string();
        sqlx::query("DELETE FROM changes WHERE network = $1")
            .bind(&network)
            .execute(&mut **self.transaction)
            .await?;
        let sql = "UPDATE networks SET revision = $2 WHERE id = $1";
        sqlx::query(sql).bind(&network).bind(big(to.0)).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// A node was removed for good.
    pub async fn tombstone(&mut self, network: NetworkId, node: NodeId, time: UnixTime) -> Written {
        let sql = "INSERT INTO tombstones (network, node, time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(node.to_string())
            .bind(big(time.0))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A node has shown how far the audit log of an epoch had got.
    pub async fn witnessed(&mut self, seen: &AuditHead) -> Written {
        let sql = "INSERT INTO witnessed (epoch, seq, hash) VALUES ($1, $2, $3) \
                   ON CONFLICT (epoch) DO UPDATE SET seq = excluded.seq, hash = excluded.hash";
        sqlx::query(sql)
            .bind(seen.epoch.id.to_string())
            .bind(big(seen.seq))
            .bind(String::from(ChainHash::from(seen.hash)))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A new join key.
    pub async fn join_key(&mut self, key: &JoinKeyEntry) -> Written {
        let sql = "INSERT INTO join_keys (id, network, secret_digest, reusable, tags, created, expires, uses, \
                   ephemeral, approve, owner) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        sqlx::query(sql)
            .bind(key.id.to_string())
            .bind(key.network.to_string())
            .bind(BASE64.encode(&key.secret_digest))
            .bind(i64::from(key.reusable))
            .bind(tags(&key.tags))
            .bind(big(key.created.0))
            .bind(key.expires.map(|t| big(t.0)))
            .bind(big(key.uses))
            .bind(key.ephemeral.map(|d| big(d.as_secs())))
            .bind(i64::from(key.approve))
            .bind(key.owner.as_ref().map(|owner| owner.as_str().to_owned()))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A join key admits nobody any more.
    pub async fn join_key_revoked(&mut self, key: KeyId, time: UnixTime) -> Written {
        let sql = "UPDATE join_keys SET revoked = $2 WHERE id = $1";
        sqlx::query(sql).bind(key.to_string()).bind(big(time.0)).execute(&mut **self.transaction).await?;
        Ok(())
    }

    /// A new member and its addresses.
    pub async fn member(&mut self, network: NetworkId, member: &MemberEntry) -> Written {
        let network_id = network;
        let network = network.to_string();
        let sql = "INSERT INTO nodes (network, id, name, wg_key, tls_key, address_v4, address_v6, tags, join_key, \
                   joined, last_contact, agent_version, ephemeral, ros_domain, owner, validated, owner_groups) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
        sqlx::query(sql)
            .bind(&network)
            .bind(member.node.to_string())
            .bind(member.name.as_str())
            .bind(member.wg_key.to_string())
            .bind(member.tls_key.to_string())
            .bind(member.address_v4.to_string())
            .bind(member.address_v6.to_string())
            .bind(tags(&member.tags))
            .bind(member.join_key.to_string())
            .bind(big(member.joined.0))
            .bind(big(member.last_contact.0))
            .bind(&member.agent_version)
            .bind(member.ephemeral.map(|d| big(d.as_secs())))
            .bind(member.ros_domain.map(i64::from))
            .bind(member.laptop.as_ref().map(|laptop| laptop.owner.as_str().to_owned()))
            .bind(member.laptop.as_ref().map(|laptop| big(laptop.validated.0)))
            .bind(member.laptop.as_ref().map(|laptop| tags(&laptop.groups)))
            .execute(&mut **self.transaction)
            .await?;
        let addresses = [member.address_v4.to_string(), member.address_v6.to_string()];
        self.addresses(network_id, member.node, addresses).await
    }

    /// Addresses that belong to somebody now.
    pub(super) async fn addresses(
        &mut self,
        network: NetworkId,
        node: NodeId,
        addresses: [String; 2],
    ) -> Written {
        // An address whose time of being held back is over has a row already.
        let sql = "INSERT INTO addresses (network, address, node, freed) VALUES ($1, $2, $3, NULL) \
                   ON CONFLICT (network, address) DO UPDATE SET node = excluded.node, freed = NULL";
        for address in addresses {
            sqlx::query(sql)
                .bind(network.to_string())
                .bind(address)
                .bind(node.to_string())
                .execute(&mut **self.transaction)
                .await?;
        }
        Ok(())
    }

    /// A member has another name or other tags.
    pub async fn member_changed(&mut self, network: NetworkId, member: &MemberEntry) -> Written {
        let sql = "UPDATE nodes SET name = $3, tags = $4 WHERE network = $1 AND id = $2";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(member.node.to_string())
            .bind(member.name.as_str())
            .bind(tags(&member.tags))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A member is gone; its addresses are held back from now on.
    pub async fn member_removed(&mut self, network: NetworkId, node: NodeId, time: UnixTime) -> Written {
        let sql = "DELETE FROM nodes WHERE network = $1 AND id = $2";
        let ids = (network.to_string(), node.to_string());
        sqlx::query(sql).bind(ids.0).bind(ids.1).execute(&mut **self.transaction).await?;
        self.addresses_freed(network, node, time).await
    }

    /// Addresses that are held back from now on.
    pub(super) async fn addresses_freed(
        &mut self,
        network: NetworkId,
        node: NodeId,
        time: UnixTime,
    ) -> Written {
        let sql = "UPDATE addresses SET freed = $3 WHERE network = $1 AND node = $2 AND freed IS NULL";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(node.to_string())
            .bind(big(time.0))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// Whether a member is in the others' maps has changed.
    pub async fn member_standing(&mut self, network: NetworkId, member: &MemberEntry) -> Written {
        let sql = "UPDATE nodes SET disabled = $3, lapsed = $4, owner = $5, validated = $6, login_due = $7, owner_groups = $8 \
                   WHERE network = $1 AND id = $2";
        let laptop = member.laptop.as_ref();
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(member.node.to_string())
            .bind(member.disabled.map(|time| big(time.0)))
            .bind(member.lapsed.map(|time| big(time.0)))
            .bind(laptop.map(|laptop| laptop.owner.as_str().to_owned()))
            .bind(laptop.map(|laptop| big(laptop.validated.0)))
            .bind(laptop.and_then(|laptop| laptop.due).map(|time| big(time.0)))
            .bind(laptop.map(|laptop| tags(&laptop.groups)))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A member has another WireGuard key.
    pub async fn wg_key(&mut self, network: NetworkId, member: &MemberEntry) -> Written {
        let sql = "UPDATE nodes SET wg_key = $3 WHERE network = $1 AND id = $2";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(member.node.to_string())
            .bind(member.wg_key.to_string())
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A node was heard of.
    pub async fn contact(&mut self, network: NetworkId, member: &MemberEntry) -> Written {
        let sql = "UPDATE nodes SET last_contact = $3, agent_version = $4 WHERE network = $1 AND id = $2";
        sqlx::query(sql)
            .bind(network.to_string())
            .bind(member.node.to_string())
            .bind(big(member.last_contact.0))
            .bind(&member.agent_version)
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A row of the audit log.
    pub async fn audit(&mut self, row: &Row) -> Written {
        let sql = "INSERT INTO audit (seq, time, actor, action, network, subject, detail, prev_hash, hash) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        sqlx::query(sql)
            .bind(big(row.seq))
            .bind(big(row.time.0))
            .bind(&row.actor)
            .bind(&row.action)
            .bind(row.network.map(|n| n.to_string()))
            .bind(&row.subject)
            .bind(&row.detail)
            .bind(String::from(row.prev_hash))
            .bind(String::from(row.hash))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }
}
