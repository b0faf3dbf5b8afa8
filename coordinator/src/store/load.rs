//! Reading: the whole state at the start, and the audit log when somebody asks.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::TryStreamExt;
use ria_protocol::id::{EpochId, NetworkId, NodeId};
use ria_protocol::map::{NetworkInfo, Revision};
use ria_protocol::message::from_bytes;
use ria_protocol::time::UnixTime;
use ria_protocol::witness::Epoch;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Store, StoreError};
use crate::audit::{Broken, ChainHash, Head, Row, Verifier};
use crate::epoch::Began;
use crate::registry::Changes;
use crate::state::people::UserName;
use crate::state::{
    Change, DEFAULT_MEMBERSHIP, JoinKeyEntry, LOG_LENGTH, Laptop, MemberEntry, Network, World,
};

pub(super) fn damaged(what: &str, error: impl Display) -> StoreError {
    StoreError::Damaged(format!("{what}: {error}"))
}

pub(super) fn text(row: &AnyRow, column: &str) -> Result<String, StoreError> {
    Ok(row.try_get::<String, _>(column)?)
}

pub(super) fn parsed<T: FromStr<Err: Display>>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    text(row, column)?.parse().map_err(|e| damaged(column, e))
}

pub(super) fn number(row: &AnyRow, column: &str) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|e| damaged(column, e))
}

pub(super) fn time(row: &AnyRow, column: &str) -> Result<UnixTime, StoreError> {
    number(row, column).map(UnixTime)
}

pub(super) fn optional_time(row: &AnyRow, column: &str) -> Result<Option<UnixTime>, StoreError> {
    let value = row.try_get::<Option<i64>, _>(column)?;
    value.map(|v| u64::try_from(v).map(UnixTime).map_err(|e| damaged(column, e))).transpose()
}

fn optional_seconds(row: &AnyRow, column: &str) -> Result<Option<Duration>, StoreError> {
    Ok(optional_time(row, column)?.map(|seconds| Duration::from_secs(seconds.0)))
}

pub(super) fn tags(row: &AnyRow) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(&text(row, "tags")?).map_err(|e| damaged("tags", e))
}

/// Which rows of the audit log are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    pub network: Option<NetworkId>,
    /// The latest so many.
    pub limit: usize,
    /// Who did it: this text, or one that begins with it and a colon (`node`).
    pub actor: Option<String>,
    /// What was done: this word, or one that begins with it and a dot (`policy`).
    pub action: Option<String>,
    /// What it was about has this in it.
    pub subject: Option<String>,
    /// Not before.
    pub since: Option<UnixTime>,
    /// Before this.
    pub until: Option<UnixTime>,
    /// Behind the row of this number.
    pub after: Option<u64>,
}

impl AuditQuery {
    pub(super) fn wants(&self, row: &Row) -> bool {
        let is_or_begins = |wanted: &Option<String>, text: &str, mark: char| {
            wanted.as_ref().is_none_or(|wanted| {
                text.strip_prefix(wanted.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(mark))
            })
        };
        self.network.is_none_or(|network| row.network == Some(network))
            && is_or_begins(&self.actor, &row.actor, ':')
            && is_or_begins(&self.action, &row.action, '.')
            && self.subject.as_ref().is_none_or(|part| row.subject.contains(part.as_str()))
            && self.since.is_none_or(|since| since <= row.time)
            && self.until.is_none_or(|until| row.time < until)
            && self.after.is_none_or(|after| after < row.seq)
    }
}

impl Store {
    /// The whole state.
    pub async fn load(&self) -> Result<World, StoreError> {
        self.load_after(&BTreeMap::new()).await
    }

    /// The whole state after another coordinator has changed it, and what is new in it. Who listens to a network's changes
    /// listens on.
    pub async fn reload(&self, before: &World) -> Result<(World, Changes), StoreError> {
        let world = self.load_after(&before.networks).await?.with_membership(before.membership);
        let mut news = Changes::new();
        for (id, network) in &world.networks {
            let Some(known) = before.networks.get(id) else { continue };
            // Without the changes in between nobody can be told of them; sessions begin anew.
            let changes = network.changes_since(known.revision);
            let changes = changes.map_or_else(Vec::new, |changes| changes.cloned().collect());
            news.extend(changes.into_iter().map(|change| (network.feed.clone(), change)));
        }
        Ok((world, news))
    }

    async fn load_after(&self, before: &BTreeMap<NetworkId, Arc<Network>>) -> Result<World, StoreError> {
        self.note_serial().await?;
        let mut networks = BTreeMap::new();
        for row in sqlx::query("SELECT * FROM networks").fetch_all(&self.writer).await? {
            let before = before.get(&parsed(&row, "id")?).map(|network| &**network);
            let network = self.load_network(&row, before).await?;
            networks.insert(network.info.id, Arc::new(network));
        }
        let mut keys = BTreeMap::new();
        for row in sqlx::query("SELECT * FROM join_keys").fetch_all(&self.writer).await? {
            let key = join_key(&row)?;
            keys.insert(key.id, Arc::new(key));
        }
        let last =
            sqlx::query("SELECT * FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(&self.writer).await?;
        let audit_head =
            last.map(|row| audit_row(&row)).transpose()?.map_or(Head::START, |row| Head::from(&row));
        let (epochs, added_urls) = (self.epochs().await?, self.added_urls().await?);
        let relays = self.relays().await?;
        let people = Arc::new(self.people().await?);
        let epoch = epochs.last().map_or(1, |began| began.epoch.number);
        for network in networks.values_mut() {
            Arc::make_mut(network).epoch = epoch;
        }
        Ok(World {
            networks,
            keys,
            audit_head,
            membership: DEFAULT_MEMBERSHIP,
            epochs,
            added_urls,
            relays,
            people,
        })
    }

    async fn load_network(&self, row: &AnyRow, before: Option<&Network>) -> Result<Network, StoreError> {
        let info = NetworkInfo {
            id: parsed(row, "id")?,
            name: parsed(row, "name")?,
            prefix_v4: parsed(row, "prefix_v4")?,
            prefix_v6: parsed(row, "prefix_v6")?,
            mtu: u16::try_from(number(row, "mtu")?).map_err(|e| damaged("mtu", e))?,
            lock_keys: Vec::new(),
            urls: serde_json::from_str(&text(row, "urls")?).map_err(|e| damaged("urls", e))?,
            ros_domains: row
                .try_get::<Option<String>, _>("ros_domains")?
                .map(|text| text.parse().map_err(|e| damaged("ros_domains", e)))
                .transpose()?,
            multicast: row
                .try_get::<Option<String>, _>("multicast")?
                .map(|text| text.parse().map_err(|e| damaged("multicast", e)))
                .transpose()?,
            peers: row
                .try_get::<Option<String>, _>("peers")?
                .map(|text| text.parse().map_err(|e| damaged("peers", e)))
                .transpose()?,
        };
        let id = info.id.to_string();
        let mut network = Network::new(info, time(row, "created")?);
        network.revision = Revision(number(row, "revision")?);

        let nodes = "SELECT * FROM nodes WHERE network = $1";
        for row in sqlx::query(nodes).bind(&id).fetch_all(&self.writer).await? {
            let member = member(&row)?;
            network.members.insert(member.node, Arc::new(member));
        }
        let freed = "SELECT * FROM addresses WHERE network = $1 AND freed IS NOT NULL";
        for row in sqlx::query(freed).bind(&id).fetch_all(&self.writer).await? {
            network.freed.insert(parsed(&row, "address")?, time(&row, "freed")?);
        }
        network.static_peers = self.load_static_peers(&id).await?;
        network.routes = self.load_routes(&id).await?;
        network.waiting = self.load_waiting(&id).await?;
        let tombstones = "SELECT * FROM tombstones WHERE network = $1";
        for row in sqlx::query(tombstones).bind(&id).fetch_all(&self.writer).await? {
            network.tombstones.insert(parsed(&row, "node")?, time(&row, "time")?);
        }
        let from = before.map_or(Revision(0), |before| before.revision);
        let news = self.load_log(&id, from, network.revision).await?;
        network.policy = self.load_policy(&id).await?;
        match before {
            Some(before) => network.follow(before, news),
            None => {
                network.log = news;
                // Whoever has an older revision is told its part again; it may have changed since.
                network.renew_policies(network.revision, &[]);
            }
        }
        Ok(network)
    }

    /// The changes behind `from` that lead to `last`, as far as they are kept.
    async fn load_log(
        &self,
        network: &str,
        from: Revision,
        last: Revision,
    ) -> Result<VecDeque<Arc<Change>>, StoreError> {
        let sql = "SELECT patches FROM changes WHERE network = $1 AND revision > $3 ORDER BY revision DESC LIMIT $2";
        let limit = i64::try_from(LOG_LENGTH).unwrap_or(i64::MAX);
        let query = sqlx::query(sql).bind(network).bind(limit).bind(super::write::big(from.0));
        let rows = query.fetch_all(&self.writer).await?;
        let mut log: VecDeque<Arc<Change>> = VecDeque::with_capacity(rows.len());
        for row in rows {
            let bytes =
                BASE64.decode(text(&row, "patches")?.as_bytes()).map_err(|e| damaged("patches", e))?;
            let change = Change::new(from_bytes(&bytes).map_err(|e| damaged("patches", e))?);
            let expected = log.front().map_or(last, |next| next.set.from);
            if change.set.to != expected {
                return Err(damaged("changes", format!("revision {} is missing", expected.0)));
            }
            log.push_front(Arc::new(change));
        }
        Ok(log)
    }

    /// A value that is none of the above, such as the fingerprint of the certification authority.
    pub async fn meta(&self, name: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value FROM meta WHERE name = $1";
        let row = sqlx::query(sql).bind(name).fetch_optional(&self.writer).await?;
        row.map(|row| text(&row, "value")).transpose()
    }

    /// All epochs, oldest first.
    pub async fn epochs(&self) -> Result<Vec<Began>, StoreError> {
        let rows = sqlx::query("SELECT * FROM epochs ORDER BY number").fetch_all(&self.writer).await?;
        rows.iter().map(began).collect()
    }

    /// URLs that were added by hand, in the order of their adding.
    pub async fn added_urls(&self) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT url FROM urls ORDER BY added, url").fetch_all(&self.writer).await?;
        rows.iter().map(|row| text(row, "url")).collect()
    }

    /// How far nodes have shown the audit log of an epoch to have got.
    pub async fn witnessed(&self, epoch: EpochId) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT seq FROM witnessed WHERE epoch = $1";
        let row = sqlx::query(sql).bind(epoch.to_string()).fetch_optional(&self.writer).await?;
        row.map(|row| number(&row, "seq")).transpose()
    }

    /// The hash of a row of the audit log.
    pub async fn audit_hash(&self, seq: u64) -> Result<Option<ChainHash>, StoreError> {
        let Ok(seq) = i64::try_from(seq) else { return Ok(None) };
        let row = sqlx::query("SELECT hash FROM audit WHERE seq = $1").bind(seq).fetch_optional(&self.writer);
        row.await?.map(|row| chain_hash(&row, "hash")).transpose()
    }

    /// Nodes that were removed since `time`.
    pub async fn removed_since(&self, time: UnixTime) -> Result<Vec<NodeId>, StoreError> {
        let sql =
            "SELECT node FROM addresses WHERE freed >= $1 UNION SELECT node FROM departures WHERE time >= $1";
        let since = i64::try_from(time.0).unwrap_or(i64::MAX);
        let rows = sqlx::query(sql).bind(since).fetch_all(&self.readers).await?;
        rows.iter().map(|row| parsed(row, "node")).collect()
    }

    /// The latest rows of the audit log, oldest first, and whether the whole log verifies up to `head`.
    pub async fn audit(
        &self,
        query: AuditQuery,
        head: Head,
    ) -> Result<(Vec<Row>, Result<Head, Broken>), StoreError> {
        let mut kept: VecDeque<Row> = VecDeque::new();
        let mut verifier = Verifier::new();
        let mut verdict = Ok(());
        let last = i64::try_from(head.seq).unwrap_or(i64::MAX);
        // Rows that were written since the caller took the head are not its concern.
        let sql = "SELECT * FROM audit WHERE seq <= $1 ORDER BY seq";
        let mut rows = sqlx::query(sql).bind(last).fetch(&self.readers);
        while let Some(row) = rows.try_next().await? {
            let row = audit_row(&row)?;
            if verdict.is_ok() {
                verdict = verifier.handle_row(&row);
            }
            if query.wants(&row) {
                kept.push_back(row);
            }
            if kept.len() > query.limit {
                kept.pop_front();
            }
        }
        Ok((kept.into(), verdict.and_then(|()| verifier.finish(head))))
    }
}

fn owner(row: &AnyRow) -> Result<Option<UserName>, StoreError> {
    let text = row.try_get::<Option<String>, _>("owner")?;
    text.map(|text| text.parse().map_err(|error| damaged("owner", error))).transpose()
}

fn member(row: &AnyRow) -> Result<MemberEntry, StoreError> {
    Ok(MemberEntry {
        node: parsed(row, "id")?,
        name: parsed(row, "name")?,
        wg_key: parsed(row, "wg_key")?,
        tls_key: parsed(row, "tls_key")?,
        address_v4: parsed(row, "address_v4")?,
        address_v6: parsed(row, "address_v6")?,
        tags: tags(row)?,
        join_key: parsed(row, "join_key")?,
        joined: time(row, "joined")?,
        last_contact: time(row, "last_contact")?,
        agent_version: text(row, "agent_version")?,
        ephemeral: optional_seconds(row, "ephemeral")?,
        disabled: optional_time(row, "disabled")?,
        lapsed: optional_time(row, "lapsed")?,
        laptop: match (owner(row)?, optional_time(row, "validated")?) {
            (Some(owner), Some(validated)) => {
                let groups = row.try_get::<Option<String>, _>("owner_groups")?;
                let groups = groups.map(|text| serde_json::from_str(&text)).transpose();
                let groups = groups.map_err(|error| damaged("owner_groups", error))?.unwrap_or_default();
                Some(Laptop { owner, groups, validated, due: optional_time(row, "login_due")? })
            }
            (_, _) => None,
        },
        ros_domain: row
            .try_get::<Option<i64>, _>("ros_domain")?
            .map(|number| u8::try_from(number).map_err(|e| damaged("ros_domain", e)))
            .transpose()?,
    })
}

fn join_key(row: &AnyRow) -> Result<JoinKeyEntry, StoreError> {
    let digest =
        BASE64.decode(text(row, "secret_digest")?.as_bytes()).map_err(|e| damaged("secret_digest", e))?;
    Ok(JoinKeyEntry {
        id: parsed(row, "id")?,
        network: parsed(row, "network")?,
        secret_digest: digest.try_into().map_err(|_| damaged("secret_digest", "wrong length"))?,
        reusable: number(row, "reusable")? != 0,
        tags: tags(row)?,
        created: time(row, "created")?,
        expires: optional_time(row, "expires")?,
        revoked: optional_time(row, "revoked")?,
        uses: number(row, "uses")?,
        ephemeral: optional_seconds(row, "ephemeral")?,
        approve: number(row, "approve")? != 0,
        owner: owner(row)?,
    })
}

pub(super) fn audit_row(row: &AnyRow) -> Result<Row, StoreError> {
    let network = row.try_get::<Option<String>, _>("network")?;
    Ok(Row {
        seq: number(row, "seq")?,
        time: time(row, "time")?,
        actor: text(row, "actor")?,
        action: text(row, "action")?,
        network: network.map(|n| n.parse()).transpose().map_err(|e| damaged("network", e))?,
        subject: text(row, "subject")?,
        detail: text(row, "detail")?,
        prev_hash: chain_hash(row, "prev_hash")?,
        hash: chain_hash(row, "hash")?,
    })
}

fn chain_hash(row: &AnyRow, column: &str) -> Result<ChainHash, StoreError> {
    text(row, column)?.try_into().map_err(|e| damaged(column, e))
}

fn began(row: &AnyRow) -> Result<Began, StoreError> {
    let number = u32::try_from(number(row, "number")?).map_err(|e| damaged("number", e))?;
    let base = Head { seq: self::number(row, "base_seq")?, hash: chain_hash(row, "base_hash")? };
    Ok(Began { epoch: Epoch { number, id: parsed(row, "id")? }, base })
}
