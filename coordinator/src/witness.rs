//! What nodes are given to keep for this coordinator, and the check of what they hand back (see
//! [`ria_protocol::witness`]). The key that seals it lies in the database, so that a restored coordinator has it too.

use std::sync::Arc;

use data_encoding::BASE64;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::SpkiHash;
use ria_protocol::map::{Patch, Revision};
use ria_protocol::time::UnixTime;
use ria_protocol::witness::{
    AuditHead, Deed, Epoch, Keep, Sealed, SealingKey, Statement, Testimony, Tombstone,
};
use zeroize::Zeroizing;

use crate::audit::Head;
use crate::random;
use crate::state::{Change, MemberEntry, Network, World};
use crate::store::{Store, StoreError, Write};

/// The name in the database under which the key stands.
const META_KEY: &str = "sealing_key";

/// Tombstones that a session begins with; older ones are held by nodes that were there before.
const TOMBSTONES_TOLD: usize = 1024;

/// Seals and opens.
#[derive(Debug)]
pub struct Witness {
    key: SealingKey,
}

/// A testimony of which every statement is this coordinator's own.
#[derive(Debug, Clone)]
pub struct Testified {
    pub epoch: Epoch,
    pub revision: Option<Revision>,
    /// Of the node at the other end of the connection.
    pub deed: Option<Deed>,
    pub tombstones: Vec<Tombstone>,
    pub audit: Option<AuditHead>,
    pub agent_version: String,
}

impl Witness {
    /// Takes the key out of the database, made where there is none.
    pub async fn open(store: &Store) -> Result<Self, StoreError> {
        if let Some(text) = store.meta(META_KEY).await? {
            let bytes =
                BASE64.decode(text.as_bytes()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let bytes = bytes.ok_or_else(|| StoreError::Damaged(format!("{META_KEY} is no key")))?;
            return Ok(Self { key: SealingKey::new(&Zeroizing::new(bytes)) });
        }
        let secret = Zeroizing::new(random::bytes::<32>());
        let mut transaction = store.begin().await?;
        Write::new(&mut transaction).meta(META_KEY, &BASE64.encode(&*secret)).await?;
        store.commit(transaction).await?;
        Ok(Self { key: SealingKey::new(&secret) })
    }

    /// What a member is given when its session begins.
    pub fn keep_all(&self, world: &World, network: &Network, member: &MemberEntry) -> Keep {
        let mut tombstones: Vec<_> = network.tombstones.iter().collect();
        tombstones.sort_by_key(|(_, time)| std::cmp::Reverse(**time));
        let id = network.info.id;
        let sealed = |(node, time): (&NodeId, &UnixTime)| {
            self.tombstone(Tombstone { network: id, node: *node, time: *time })
        };
        Keep {
            epoch: world.epoch(),
            deed: Some(self.deed(id, member)),
            tombstones: tombstones.into_iter().take(TOMBSTONES_TOLD).map(sealed).collect(),
            audit: Some(self.head(world)),
        }
    }

    /// What a member is given after changes, as far as they make something new worth keeping.
    pub fn keep_changes(
        &self,
        world: &World,
        network: &Network,
        member: &MemberEntry,
        changes: &[Arc<Change>],
    ) -> Keep {
        let id = network.info.id;
        let own = network.listed(member);
        let of_own = |patch: &&Patch| matches!(patch, Patch::MemberSet(set) if *set == own);
        let buried = |patch: &Patch| match patch {
            Patch::MemberRemoved(node) => {
                let time = *network.tombstones.get(node)?;
                Some(self.tombstone(Tombstone { network: id, node: *node, time }))
            }
            Patch::MemberSet(_) | Patch::NetworkChanged(_) | Patch::PolicySet(_) => None,
        };
        let patches = || changes.iter().flat_map(|change| &change.set.patches);
        Keep {
            epoch: world.epoch(),
            deed: patches().find(of_own).map(|_| self.deed(id, member)),
            tombstones: patches().filter_map(buried).collect(),
            audit: Some(self.head(world)),
        }
    }

    /// What a testimony is worth: statements of others are left out, and so is a deed of another node than the one that
    /// holds `tls_key`.
    pub fn examine(&self, testimony: &Testimony, tls_key: SpkiHash, agent_version: &str) -> Testified {
        let open = |sealed: &Sealed| self.key.open(sealed);
        let deed = testimony.deed.as_ref().and_then(open).and_then(|statement| match statement {
            Statement::Deed(deed) if deed.tls_key == tls_key => Some(deed),
            Statement::Deed(_) | Statement::Tombstone(_) | Statement::AuditHead(_) => None,
        });
        let tombstones = testimony.tombstones.iter().filter_map(|sealed| match open(sealed)? {
            Statement::Tombstone(tombstone) => Some(tombstone),
            Statement::Deed(_) | Statement::AuditHead(_) => None,
        });
        let audit = testimony.audit.as_ref().and_then(open).and_then(|statement| match statement {
            Statement::AuditHead(head) => Some(head),
            Statement::Deed(_) | Statement::Tombstone(_) => None,
        });
        Testified {
            epoch: testimony.epoch,
            revision: testimony.revision,
            deed,
            tombstones: tombstones.collect(),
            audit,
            agent_version: agent_version.to_owned(),
        }
    }

    fn deed(&self, network: NetworkId, member: &MemberEntry) -> Sealed {
        self.key.seal(&Statement::Deed(Deed {
            network,
            node: member.node,
            name: member.name.clone(),
            wg_key: member.wg_key,
            tls_key: member.tls_key,
            address_v4: member.address_v4,
            address_v6: member.address_v6,
            tags: member.tags.clone(),
            join_key: member.join_key,
            joined: member.joined,
            ephemeral: member.ephemeral.map(|d| d.as_secs()),
            owner: member.laptop.as_ref().map(|laptop| laptop.owner.as_str().to_owned()),
        }))
    }

    fn tombstone(&self, tombstone: Tombstone) -> Sealed {
        self.key.seal(&Statement::Tombstone(tombstone))
    }

    fn head(&self, world: &World) -> Sealed {
        let Head { seq, hash } = world.audit_head;
        self.key.seal(&Statement::AuditHead(AuditHead { epoch: world.epoch(), seq, hash: hash.bytes() }))
    }
}
