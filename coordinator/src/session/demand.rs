//! A member's session in an on-demand network: whom the node is told of, whom it asks for and lets go of.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ria_protocol::demand::Sought;
use ria_protocol::error::ErrorCode;
use ria_protocol::id::NodeId;
use ria_protocol::map::{PatchSet, Revision, Snapshot};
use ria_protocol::message::{CoordinatorMessage, LiveUpdate};
use ria_protocol::time::UnixTime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::member::Session;
use super::socket::Socket;
use super::{End, Services};
use crate::hub::{LiveNews, NodeKey};
use crate::interest::Seen;
use crate::state::sight::{self, Sight};
use crate::state::view::{self, Reader};
use crate::state::{Change, Network};

/// Questions that a node may ask at once; the rest is not answered, and asked again while there is something to send.
const QUESTIONS: u32 = 64;
/// One more is granted after each of these.
const QUESTION_EVERY: Duration = Duration::from_millis(50);
/// A node of a network that has become on-demand has this long to say whom it uses; then it has to come again.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// What a node is told of an on-demand network.
#[derive(Debug)]
pub(super) struct Demand {
    seen: watch::Receiver<Seen>,
    sight: Sight,
    /// The revision up to which there was nothing else to tell.
    so_far: Revision,
    questions: Questions,
}

impl Demand {
    /// Of a node that begins; `None` where it is told of everybody.
    pub(super) async fn begin(
        services: &Services,
        node: NodeKey,
        network: &Network,
        holds: Option<&[NodeId]>,
    ) -> Result<Option<Self>, End> {
        if !network.info.is_on_demand() {
            return Ok(None);
        }
        let interests = &services.interests;
        let Some(holds) = holds else {
            interests.begin_open(node).await.map_err(|_| End::Drained)?;
            return Ok(None);
        };
        let is_member = |node: &&NodeId| network.members.get(*node).is_some_and(|member| member.is_active());
        let holds = holds.iter().filter(is_member).copied().collect();
        let seen = interests.begin(node, holds).await.map_err(|_| End::Drained)?;
        let questions = Questions { left: QUESTIONS, since: Instant::now() };
        Ok(Some(Self { seen, sight: Sight::default(), so_far: network.revision, questions }))
    }

    /// The map that it begins with.
    pub(super) fn snapshot(&mut self, network: &Network, reader: Reader) -> Snapshot {
        self.so_far = network.revision;
        let seen = self.seen.borrow_and_update().clone();
        self.sight.begin(network, reader, &seen)
    }

    /// Changes before this one are no news.
    pub(super) fn so_far(&self) -> Revision {
        self.so_far
    }

    /// Waits until it has to do with others than before; for ever where it is told of everybody.
    pub(super) async fn changed(demand: &mut Option<Self>) -> Result<(), End> {
        match demand {
            Some(demand) => demand.seen.changed().await.map_err(|_| End::Replaced),
            None => std::future::pending().await,
        }
    }
}

/// How much a node may ask.
#[derive(Debug)]
struct Questions {
    left: u32,
    since: Instant,
}

impl Questions {
    fn take(&mut self, now: Instant) -> bool {
        let granted = now.duration_since(self.since).as_millis() / QUESTION_EVERY.as_millis();
        let granted = u32::try_from(granted).unwrap_or(u32::MAX).min(QUESTIONS);
        if granted > 0 {
            self.left = (self.left + granted).min(QUESTIONS);
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl Session<'_> {
    fn is_shown(&self, node: NodeId) -> bool {
        self.demand.as_ref().is_none_or(|demand| demand.sight.shows(node)) && node != self.node.1
    }

    /// All that is known of members, as far as it is for this node.
    pub(super) fn whole_news(&self, whole: &LiveNews) -> Option<Bytes> {
        if self.demand.is_none() {
            return whole.told_to(self.node.1);
        }
        Some(view::whole_of(whole, |node| self.is_shown(node)))
    }

    /// News of members, as far as they are for this node.
    pub(super) fn news(&self, news: &[LiveNews]) -> Option<Bytes> {
        if self.demand.is_none() {
            return view::news(news, self.node.1);
        }
        view::news_of(news, |node| self.is_shown(node))
    }

    /// Tells of changes and of whom the node has to do with now.
    pub(super) async fn send_seen(
        &mut self,
        socket: &mut Socket,
        changes: &[Arc<Change>],
        reader: Reader,
    ) -> Result<(), End> {
        let services = self.services;
        for gone in
            changes.iter().flat_map(|change| sight::taken_out(change)).filter(|node| self.is_shown(*node))
        {
            services.interests.forget((self.node.0, gone)).await.map_err(|_| End::Drained)?;
        }
        let network = services.registry.network(self.node.0).ok_or(ErrorCode::NotAMember)?;
        let Some(demand) = &mut self.demand else { return Ok(()) };
        demand.so_far = changes.last().map_or(demand.so_far, |change| change.set.to);
        let seen = demand.seen.borrow_and_update().clone();
        let span = (self.told, demand.so_far);
        let changes = changes.iter().map(AsRef::as_ref);
        let (set, new) = demand.sight.step((&network, &seen), reader, span, changes);
        if set.patches.is_empty() {
            self.head_at.get_or_insert_with(|| Instant::now() + super::member::HEAD_AFTER);
            return Ok(());
        }
        self.told = set.to;
        socket.send(&CoordinatorMessage::Patches(set)).await?;
        if new.is_empty() {
            return Ok(());
        }
        let members = services.hub.live_of(self.node.0, new).await.map_err(|_| End::Drained)?;
        Ok(socket.send(&CoordinatorMessage::Live(LiveUpdate { whole: false, members })).await?)
    }

    /// Changes that were about nobody whom the node knows take it to a later revision all the same.
    pub(super) async fn send_revision(&mut self, socket: &mut Socket) -> Result<(), End> {
        let to = self.demand.as_ref().map_or(self.told, Demand::so_far);
        if to == self.told {
            return Ok(());
        }
        let from = std::mem::replace(&mut self.told, to);
        Ok(socket.send(&CoordinatorMessage::Patches(PatchSet { from, to, patches: Vec::new() })).await?)
    }

    /// Where the network works another way from now on, the node begins anew: with everybody, or when it has said whom it
    /// uses.
    pub(super) async fn follow_mode(
        &mut self,
        socket: &mut Socket,
        changes: &[Arc<Change>],
        reader: Reader,
    ) -> Result<(), End> {
        if !changes.iter().any(|change| sight::changes_network(change)) {
            return Ok(());
        }
        let network = self.services.registry.network(self.node.0).ok_or(ErrorCode::NotAMember)?;
        self.hold_by = None;
        match (network.info.is_on_demand(), &self.demand) {
            (false, Some(_)) => self.begin_anew(socket, &[], reader).await,
            (true, None) if self.knows_demand => {
                self.hold_by = Some(Instant::now() + SAID_WITHIN);
                Ok(())
            }
            (true, None) => self.services.interests.begin_open(self.node).await.map_err(|_| End::Drained),
            (false, None) | (true, Some(_)) => Ok(()),
        }
    }

    /// Whom the node uses, in a network that has become on-demand.
    pub(super) async fn hold(
        &mut self,
        socket: &mut Socket,
        holds: Vec<NodeId>,
        reader: Reader,
    ) -> Result<(), End> {
        // Said too late: it has begun, or the network has changed again.
        if self.hold_by.take().is_none() {
            return Ok(());
        }
        self.begin_anew(socket, &holds, reader).await
    }

    /// The node is told its map on the stream that it has, in its turn.
    async fn begin_anew(&mut self, socket: &mut Socket, holds: &[NodeId], reader: Reader) -> Result<(), End> {
        let services = self.services;
        let place = tokio::select! {
            place = services.admission.map() => place,
            () = services.draining.cancelled() => return Err(End::Drained),
        };
        let Some(_place) = place else { return Err(End::Crowded) };
        let network = self.send_map(socket, (None, Some(holds)), reader).await?;
        let members = match &self.demand {
            Some(demand) => demand.sight.members(),
            None => network.members.keys().copied().collect(),
        };
        let mut members = services.hub.live_of(self.node.0, members).await.map_err(|_| End::Drained)?;
        members.retain(|live| live.node != self.node.1);
        Ok(socket.send(&CoordinatorMessage::Live(LiveUpdate { whole: true, members })).await?)
    }

    /// The node has something to say to somebody.
    pub(super) async fn seek(&mut self, socket: &mut Socket, sought: Sought) -> Result<(), End> {
        // Of a network that is not on-demand any more it knows everybody.
        let Some(demand) = &mut self.demand else { return Ok(()) };
        if !demand.questions.take(Instant::now()) {
            return Ok(());
        }
        let network = self.services.registry.network(self.node.0).ok_or(ErrorCode::NotAMember)?;
        let now = UnixTime::from(SystemTime::now());
        let held = match sight::find(&network, self.node.1, &sought, now) {
            Some(peer) => self.services.interests.hold(self.node, peer).await.map_err(|_| End::Drained)?,
            None => false,
        };
        if held { Ok(()) } else { Ok(socket.send(&CoordinatorMessage::Absent(sought)).await?) }
    }

    /// The node has had nothing to do with these for a while.
    pub(super) async fn release(&mut self, nodes: Vec<NodeId>) -> Result<(), End> {
        if self.demand.is_none() {
            return Ok(());
        }
        self.services.interests.release(self.node, nodes).await.map_err(|_| End::Drained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_asks_so_much_at_once_and_then_at_a_rate() {
        let start = Instant::now();
        let mut questions = Questions { left: QUESTIONS, since: start };
        assert_eq!((0..100).filter(|_| questions.take(start)).count(), QUESTIONS as usize);
        let later = start + QUESTION_EVERY * 3;
        assert_eq!((0..100).filter(|_| questions.take(later)).count(), 3);
        let much_later = later + QUESTION_EVERY * 1000;
        assert_eq!((0..100).filter(|_| questions.take(much_later)).count(), QUESTIONS as usize);
    }
}
