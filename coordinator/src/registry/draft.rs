//! A change in the making: the next state, and the transaction that stores it.

use std::sync::Arc;

use ria_protocol::id::NetworkId;
use ria_protocol::map::Patch;
use sqlx::{Any, Transaction};
use tokio::sync::{broadcast, watch};

use crate::audit::{Event, Head};
use crate::state::{Change, Network, World};
use crate::store::{Store, StoreError, Write};

/// The next state, not yet visible to anybody. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Draft {
    pub world: World,
    store: Store,
    transaction: Transaction<'static, Any>,
    news: Changes,
}

impl Draft {
    /// Begins with the present state.
    pub async fn begin(store: &Store, present: &World) -> Result<Self, StoreError> {
        let transaction = store.begin().await?;
        Ok(Self { world: present.clone(), store: store.clone(), transaction, news: Vec::new() })
    }

    /// What may be stored with it.
    pub fn write(&mut self) -> Write<'_> {
        Write::new(&mut self.transaction)
    }

    /// Puts a changed network in its place, with the patches that tell of the change and the next revision.
    pub async fn change_network(
        &mut self,
        mut network: Network,
        patches: Vec<Patch>,
    ) -> Result<Arc<Network>, StoreError> {
        let change = network.next_change(patches);
        self.write().change(network.info.id, &change).await?;
        network.record(change.clone());
        self.news.push((network.feed.clone(), change));
        Ok(self.put(network))
    }

    /// Puts a network in its place.
    pub fn put(&mut self, network: Network) -> Arc<Network> {
        let network = Arc::new(Network { membership: self.world.membership, ..network });
        self.world.networks.insert(network.info.id, network.clone());
        network
    }

    /// A copy of a network, to be changed.
    pub fn network(&self, network: NetworkId) -> Option<Network> {
        self.world.networks.get(&network).map(|n| Network::clone(n))
    }

    /// Adds to the audit log.
    pub async fn audit(&mut self, event: &Event) -> Result<(), StoreError> {
        let row = self.world.audit_head.follow(event);
        self.write().audit(&row).await?;
        self.world.audit_head = Head::from(&row);
        Ok(())
    }

    /// Stores everything and, once that is done, makes it visible: first as the state, then as news of it.
    pub async fn commit(self, publish: &watch::Sender<Arc<World>>) -> Result<(), StoreError> {
        self.store.commit(self.transaction).await?;
        self::publish(publish, self.world, self.news);
        Ok(())
    }
}

/// Changes, with the feeds of the networks that they are of.
pub type Changes = Vec<(broadcast::Sender<Arc<Change>>, Arc<Change>)>;

/// Makes a state visible, then tells what is new in it.
pub(super) fn publish(to: &watch::Sender<Arc<World>>, world: World, news: Changes) {
    to.send_replace(Arc::new(world));
    for (feed, change) in news {
        // Nobody may be listening.
        let _ = feed.send(change);
    }
}
