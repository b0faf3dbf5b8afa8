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
    /// Whether a part that failed could not be undone, so that nothing of it may be stored.
    broken: bool,
    /// Parts that were made.
    parts: usize,
}

impl Draft {
    /// Begins with the present state.
    pub async fn begin(store: &Store, present: &World) -> Result<Self, StoreError> {
        let transaction = store.begin().await?;
        Ok(Self {
            world: present.clone(),
            store: store.clone(),
            transaction,
            news: Vec::new(),
            broken: false,
            parts: 0,
        })
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

    /// Puts a network with another setting in its place, tells its members, and notes who did it.
    pub async fn set_network(&mut self, network: Network, event: &Event) -> Result<(), StoreError> {
        let patch = Patch::NetworkChanged(network.info.clone());
        self.change_network(network, vec![patch]).await?;
        self.audit(event).await
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

    /// Makes a part of the change: all of it, or nothing; other parts stay.
    pub async fn part<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // The transaction may be over, as SQLite ends it on a full disk; a part would then be stored by itself, unseen.
        if self.broken {
            return Err(StoreError::Undone);
        }
        let (world, news) = (self.world.clone(), self.news.len());
        self.write().begin_part().await?;
        let done = match work(self).await {
            Ok(made) => self.write().end_part().await.map(|()| made),
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.world = world;
            self.news.truncate(news);
            self.broken |= self.write().undo_part().await.is_err();
        } else {
            self.parts += 1;
        }
        done
    }

    /// Whether there is anything to store.
    pub fn is_empty(&self) -> bool {
        self.parts == 0 && !self.broken
    }

    /// Stores everything and, once that is done, makes it visible: first as the state, then as news of it.
    pub async fn commit(self, publish: &watch::Sender<Arc<World>>) -> Result<(), StoreError> {
        if self.broken {
            return Err(StoreError::Undone);
        }
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
