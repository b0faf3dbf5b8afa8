//! Other coordinators on the same database: what they store is seen here, and each tells the others who is connected to it.
//!
//! ```text
//! hub --Report--> NOTIFY ria_live ~~> the others' hubs
//! writer -------> NOTIFY ria_stored ~~> the others' writers catch up; their relays deny who is out
//! ```
//!
//! Nothing that is told here is stored. Who has missed something, or was away, asks for all of it; who falls silent is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use minicbor::{Decode, Encode};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::message::{from_bytes, to_bytes};
use sqlx::postgres::PgListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::hub::{HubGone, Report, Told};
use crate::interest::Tie;
use crate::session::Services;
use crate::state::World;
use crate::store::{Instance, STORED, Store, StoreError};

/// How often a coordinator says that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(3);
/// One that was not heard for so long is gone.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How often all is told anew, in case something was missed.
const ALL_EVERY: Duration = Duration::from_secs(60);
/// A notification of PostgreSQL's holds less than 8000 bytes.
const MOST_BYTES: usize = 7900;
/// Between attempts to reach the database.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What one says to the others.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Said {
    #[n(0)]
    by: Instance,
    #[n(1)]
    what: What,
}

impl Said {
    /// What a notification says; absent where it makes no sense, as from a coordinator that is newer.
    fn read(text: &str) -> Option<Self> {
        from_bytes(&BASE64.decode(text.as_bytes()).ok()?).ok()
    }

    /// As a notification.
    fn text(&self) -> String {
        BASE64.encode(&to_bytes(self))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
enum What {
    /// It has come, and knows nothing yet.
    #[n(0)]
    Hello,
    /// It is still there.
    #[n(1)]
    Alive,
    /// News of nodes that are connected to it.
    #[n(2)]
    Nodes(#[n(0)] NetworkId, #[n(1)] Vec<Told>),
    /// It stops.
    #[n(3)]
    Bye,
    /// In this network, a node that is connected to it asks for another, or lets go of it.
    #[n(61)]
    Tie(#[n(0)] NetworkId, #[n(1)] NodeId, #[n(2)] NodeId, #[n(3)] bool),
}

/// Works until the coordinator drains.
pub async fn run(
    (store, instance): (Store, Instance),
    (mut reports, mut ties): (mpsc::Receiver<Report>, mpsc::Receiver<Tie>),
    services: Arc<Services>,
) {
    let mut fellows = Fellows { store, instance, services, heard: BTreeMap::new() };
    let draining = fellows.services.draining.clone();
    while let Some(listened) = draining.run_until_cancelled(fellows.listen(&mut reports, &mut ties)).await {
        match listened {
            Ok(HubGone) => return,
            Err(error) => {
                tracing::warn!(%error, "other coordinators are neither heard nor told; tried again");
                draining.run_until_cancelled(sleep(AGAIN_AFTER)).await;
            }
        }
    }
    fellows.say(What::Bye).await;
}

struct Fellows {
    store: Store,
    instance: Instance,
    services: Arc<Services>,
    /// Who was heard when.
    heard: BTreeMap<Instance, Instant>,
}

impl Fellows {
    /// Until the database can't be reached, or the hub is gone.
    async fn listen(
        &mut self,
        reports: &mut mpsc::Receiver<Report>,
        ties: &mut mpsc::Receiver<Tie>,
    ) -> Result<HubGone, StoreError> {
        let Some(mut listener) = self.store.listen().await? else { return Ok(HubGone) };
        // What was stored while nobody listened is seen, too.
        self.catch_up().await;
        self.say(What::Hello).await;
        let mut alive = interval(ALIVE_EVERY);
        let mut all = interval(ALL_EVERY);
        for tick in [&mut alive, &mut all] {
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let done = tokio::select! {
                // First what the others say: nobody is taken for silent whose words wait here.
                biased;
                heard = next(&mut listener) => self.handle_heard(heard?).await,
                Some((network, told)) = reports.recv() => {
                    self.tell(network, told).await;
                    Ok(())
                }
                Some(Tie { network, node, peer, held }) = ties.recv() => {
                    self.say(What::Tie(network, node, peer, held)).await;
                    Ok(())
                }
                _ = alive.tick() => {
                    self.say(What::Alive).await;
                    self.end_silent().await
                }
                _ = all.tick() => self.tell_all().await,
            };
            if done.is_err() {
                return Ok(HubGone);
            }
        }
    }

    async fn handle_heard(&mut self, (channel, text): (String, String)) -> Result<(), HubGone> {
        if channel == STORED {
            // One's own are told here, too.
            if text.split(' ').next() != Some(self.instance.to_string().as_str()) {
                self.catch_up().await;
            }
            return Ok(());
        }
        let Some(said) = Said::read(&text) else {
            tracing::debug!(channel, "another coordinator says something that can't be read");
            return Ok(());
        };
        if said.by == self.instance {
            return Ok(());
        }
        let new = self.heard.insert(said.by, Instant::now()).is_none();
        if new {
            tracing::info!(coordinator = %said.by, "another coordinator uses the database, too");
        }
        let hub = &self.services.hub;
        match said.what {
            What::Hello => self.tell_all().await,
            What::Tie(network, node, peer, held) => {
                self.services.interests.told(Tie { network, node, peer, held }).await
            }
            What::Alive => Ok(()),
            What::Nodes(network, told) => hub.told(said.by, network, told).await,
            What::Bye => self.end(said.by).await,
        }
    }

    /// Sees what is stored before anything else is heard: a node is in the map before there is news of it.
    async fn catch_up(&self) {
        if let Err(error) = self.services.registry.catch_up().await {
            tracing::debug!(%error, "what another coordinator has stored is not seen yet");
        }
    }

    async fn tell_all(&self) -> Result<(), HubGone> {
        self.services.hub.tell_all().await?;
        self.services.interests.tell_all().await
    }

    async fn end_silent(&mut self) -> Result<(), HubGone> {
        let silent = self.heard.iter().filter(|(_, at)| at.elapsed() > GONE_AFTER);
        for gone in silent.map(|(instance, _)| *instance).collect::<Vec<_>>() {
            self.end(gone).await?;
        }
        Ok(())
    }

    async fn end(&mut self, gone: Instance) -> Result<(), HubGone> {
        if self.heard.remove(&gone).is_some() {
            tracing::info!(coordinator = %gone, "another coordinator is gone");
        }
        self.services.hub.gone(gone).await
    }

    /// In as many notifications as it takes.
    async fn tell(&self, network: NetworkId, mut told: Vec<Told>) {
        while !told.is_empty() {
            let mut rest = Vec::new();
            let text = loop {
                let said = Said { by: self.instance, what: What::Nodes(network, told.clone()) };
                let text = said.text();
                if text.len() <= MOST_BYTES {
                    break text;
                }
                let later = told.split_off(told.len() / 2);
                if told.is_empty() {
                    tracing::debug!("a node has too many addresses to be told of");
                    rest.splice(0..0, later.into_iter().skip(1));
                    break String::new();
                }
                rest.splice(0..0, later);
            };
            if !text.is_empty() {
                self.send(&text).await;
            }
            told = rest;
        }
    }

    async fn say(&self, what: What) {
        self.send(&Said { by: self.instance, what }.text()).await;
    }

    async fn send(&self, text: &str) {
        if let Err(error) = self.store.tell_others(text).await {
            tracing::debug!(%error, "other coordinators are not told something");
        }
    }
}

/// The next notification. A connection that was lost meanwhile is an error, for something may have been missed.
async fn next(listener: &mut PgListener) -> Result<(String, String), sqlx::Error> {
    match listener.try_recv().await? {
        Some(heard) => Ok((heard.channel().to_owned(), heard.payload().to_owned())),
        None => Err(sqlx::Error::WorkerCrashed),
    }
}

/// What somebody has written into the channel, and what comes of it where nodes of others are known: read, or left alone.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn hear(text: &str, known: &mut crate::hub::Heard) -> bool {
    let Some(said) = Said::read(text) else { return false };
    assert_eq!(Said::read(&said.text()).as_ref(), Some(&said));
    match said.what {
        What::Nodes(network, told) => told.into_iter().for_each(|told| known.tell(said.by, network, told)),
        What::Bye => known.end(said.by),
        What::Hello | What::Alive | What::Tie(..) => {}
    }
    true
}

/// Has the relay here refuse whom another coordinator has put out, and take whom it has let in again, until the coordinator
/// drains.
pub async fn follow_whom_others_put_out(services: Arc<Services>) {
    let mut worlds = services.registry.watch();
    let mut before = services.registry.world();
    loop {
        tokio::select! {
            () = services.draining.cancelled() => return,
            changed = worlds.changed() => if changed.is_err() { return },
        }
        let now = worlds.borrow_and_update().clone();
        put_out(&before, &now).into_iter().for_each(|node| services.relays.revoke(node));
        let let_in = put_out(&now, &before);
        let_in.into_iter().for_each(|node| services.relays.readmit(node));
        before = now;
    }
}

/// Members that were active and are not any more.
fn put_out(before: &World, now: &World) -> Vec<NodeId> {
    let mut out = Vec::new();
    for (id, network) in &before.networks {
        let Some(later) = now.networks.get(id) else { continue };
        if network.revision == later.revision {
            continue;
        }
        let active = |node: &NodeId| later.members.get(node).is_some_and(|member| member.is_active());
        out.extend(network.active_members().map(|member| member.node).filter(|node| !active(node)));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::Head;
    use crate::state::tests::{member, network};

    #[test]
    fn what_is_said_is_read_as_it_was_meant() {
        let by = Instance::from_bytes([7; 10]);
        let network = NetworkId::from_bytes([1; 10]);
        let [one, other] = [2, 3].map(|n| NodeId::from_bytes([n; 10]));
        let tie = What::Tie(network, one, other, true);
        for what in [What::Hello, What::Alive, What::Nodes(network, vec![]), What::Bye, tie] {
            let said = Said { by, what };
            assert_eq!(from_bytes::<Said>(&to_bytes(&said)).unwrap(), said);
        }
    }

    #[test]
    fn whom_another_coordinator_puts_out_is_found() {
        let mut lab = network();
        lab.members = [2, 3, 4].map(|n| (member(n, "m").node, member(n, "m"))).into();
        let world = |lab: &crate::state::Network| World {
            networks: [(lab.info.id, Arc::new(lab.clone()))].into(),
            keys: BTreeMap::new(),
            audit_head: Head::START,
            membership: crate::state::DEFAULT_MEMBERSHIP,
            epochs: Vec::new(),
            added_urls: Vec::new(),
            relays: Vec::new(),
            people: Arc::default(),
        };
        let before = world(&lab);
        lab.members.remove(&member(2, "m").node);
        let mut off = crate::state::MemberEntry::clone(&member(3, "m"));
        off.disabled = Some(ria_protocol::time::UnixTime(5));
        lab.members.insert(off.node, Arc::new(off));
        lab.revision = lab.revision.next();
        let out = [2, 3].map(|n| member(n, "m").node);
        assert_eq!(put_out(&before, &world(&lab)), out);
        // The other way round: who comes back.
        assert_eq!(put_out(&world(&lab), &before), out[..0]);
        let mut back = lab.clone();
        back.members.insert(out[1], member(3, "m"));
        back.revision = back.revision.next();
        assert_eq!(put_out(&world(&back), &world(&lab)), out[1..]);
    }
}
