//! A member's session: the map and its changes, news of other members, relays, renewal, and leaving.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::enrol::MembershipNews;
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::NodeId;
use ria_protocol::links::LinkNews;
use ria_protocol::map::{Candidate, Revision};
use ria_protocol::message::{CoordinatorMessage, NodeMessage, Resume};
use ria_protocol::name::Name;
use ria_protocol::requester::{LocalChange, LocalDeed};
use ria_protocol::rotation::Rotate;
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::demand::Demand;
use super::greeted::Joined;
use super::socket::Socket;
use super::{End, Peer, Services};
use crate::admission::Place;
use crate::audit::Actor;
use crate::enrol::{Challenge, check_request, verify_rotation};
use crate::hub::{Begin, BeginError, Begun, NodeKey, SessionId};
use crate::links::Report;
use crate::person::Reported;
use crate::registry::{RemoveNodeError, RotateKeyError};
use crate::state::view::{self, Reader};
use crate::state::{Change, Network};

/// A node is told this much later how far the audit log has got, unless there is more for it to keep.
pub(super) const HEAD_AFTER: Duration = Duration::from_secs(1);
/// What is told in one message, where many things happen at once.
const TOGETHER: usize = 256;

/// Addresses that a node may report; the rest is dropped.
const MAX_CANDIDATES: usize = 64;

/// Where a session stands.
pub(super) struct Session<'a> {
    pub(super) services: &'a Services,
    peer: &'a Peer,
    pub(super) node: NodeKey,
    id: SessionId,
    /// The revision that the node was told of last.
    pub(super) told: Revision,
    /// What it is told of an on-demand network; absent in others, and for an older agent.
    pub(super) demand: Option<Demand>,
    /// Whether the agent knows on-demand networks.
    pub(super) knows_demand: bool,
    /// Until when it is to say whom it uses, because its network has become on-demand.
    pub(super) hold_by: Option<Instant>,
    /// For one proof of another WireGuard key.
    challenge: Option<Challenge>,
    /// Who has the node leave, as it says.
    leaver: Option<Reported>,
    /// When the node is told how far the audit log has got, if it does not know.
    pub(super) head_at: Option<Instant>,
}

/// Serves a member until the session ends.
pub(super) async fn run(
    socket: &mut Socket,
    peer: &Peer,
    services: &Services,
    (joined, place): (Joined, Place<'_>),
) -> End {
    let node = (joined.resume.network, joined.resume.node);
    let begin = Begin {
        network: node.0,
        node: node.1,
        boot: joined.resume.boot,
        agent_version: joined.agent_version,
        protocol: socket.protocol(),
        clock_offset: joined.resume.clock.and_then(ahead_of_here),
        from: peer.address.ip().to_canonical(),
    };
    let begun = match services.hub.begin(begin).await {
        Ok(begun) => begun,
        Err(BeginError::Gone(_)) => return End::Drained,
        Err(BeginError::Cloned) => return End::Refused(kept_out(&joined.member.name)),
    };
    let id = begun.id;
    let protocol = socket.protocol();
    tracing::debug!(node = %node.1, name = %joined.member.name, %protocol, "session begins");
    let challenge = joined.challenge;
    let mut session = Session {
        services,
        peer,
        node,
        id,
        told: Revision(0),
        demand: None,
        knows_demand: joined.resume.holds.is_some(),
        hold_by: None,
        challenge,
        leaver: None,
        head_at: None,
    };
    let end = match session.serve(socket, begun, &joined.resume, place).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    tracing::debug!(node = %node.1, ?end, "session ends");
    // A hub that is gone knows that all sessions are.
    let removed = matches!(&end, End::Refused(refusal) if refusal.code == ErrorCode::NotAMember);
    let _ = if removed { services.hub.forget(node).await } else { services.hub.end(node, id).await };
    let _ = if removed { services.links.forget(node).await } else { services.links.end(node, id).await };
    end
}

fn kept_out(name: &Name) -> Refusal {
    Refusal {
        code: ErrorCode::Cloned,
        text: format!(
            "another machine is connected as {name}, with the same keys, and this one is kept out for as long as that \
             is so. If this machine is the copy: ria leave --yes (which tells nobody now), give it a machine-id of its \
             own (rm /etc/machine-id; systemd-machine-id-setup) and join again; if not, tell the administrator"
        ),
    }
}

/// By how many seconds a node's clock is ahead of this one.
fn ahead_of_here(clock: UnixTime) -> Option<i64> {
    let here = UnixTime::from(SystemTime::now());
    Some(i64::try_from(clock.0).ok()?.saturating_sub(i64::try_from(here.0).ok()?))
}

/// A session has no result but its end.
enum Never {}

impl Session<'_> {
    async fn serve(
        &mut self,
        socket: &mut Socket,
        mut begun: Begun,
        resume: &Resume,
        place: Place<'_>,
    ) -> Result<Never, End> {
        let (mut changes, reader) = self.begin(socket, resume).await?;
        let mut relays = interval(self.services.relays.renewed_every());
        relays.set_missed_tick_behavior(MissedTickBehavior::Delay);
        relays.tick().await;
        self.send_relays(socket).await?;
        // Taken, not kept for as long as the session lasts.
        if let Some(message) = begun.whole.take().and_then(|whole| self.whole_news(&whole)) {
            socket.send_encoded(message).await?;
        }
        // What was large is on its way; the next one may be told its map.
        drop(place);
        let mut relays_changed = self.services.relays.subscribe();
        let mut authorities = self.services.authorities.subscribe();
        if resume.trusts.as_ref() != Some(&authorities.borrow_and_update().trusted_pins()) {
            self.send_authorities(socket).await?;
        }
        self.send_keep(socket, None).await?;

        if begun.cloned.borrow().is_some() {
            self.send_cloned(socket, &mut begun).await?;
        }
        loop {
            tokio::select! {
                // In this order: a member is told of in the map before there is news of it.
                biased;
                () = self.services.draining.cancelled() => return Err(End::Drained),
                change = changes.recv() => {
                    let changes = with_all_that_wait(received(change)?, &mut changes)?;
                    self.send_changes(socket, &changes, reader).await?;
                }
                () = sleep_until(self.hold_by.unwrap_or_else(Instant::now)), if self.hold_by.is_some() => {
                    return Err(End::Drained);
                }
                seen = Demand::changed(&mut self.demand) => {
                    seen?;
                    self.send_seen(socket, &[], reader).await?;
                }
                () = sleep_until(self.head_at.unwrap_or_else(Instant::now)), if self.head_at.is_some() => {
                    self.head_at = None;
                    self.send_revision(socket).await?;
                    self.send_keep(socket, Some(&[])).await?;
                }
                // Behind the changes: a node that was removed hears why, not that it was replaced.
                _ = &mut begun.replaced => return Err(End::Replaced),
                news = begun.news.recv() => {
                    let news = with_all_that_wait(received(news)?, &mut begun.news)?;
                    if let Some(message) = self.news(&news) {
                        socket.send_encoded(message).await?;
                    }
                }
                changed = begun.cloned.changed() => {
                    changed.map_err(|_| End::Replaced)?;
                    self.send_cloned(socket, &mut begun).await?;
                }
                _ = relays.tick() => self.send_relays(socket).await?,
                Ok(()) = relays_changed.changed() => self.send_relays(socket).await?,
                Ok(()) = authorities.changed() => self.send_authorities(socket).await?,
                message = socket.next() => self.handle_message(socket, message?, reader).await?,
            }
        }
    }

    /// Tells the node whom it may know, and hears of all that changes from then on.
    async fn begin(
        &mut self,
        socket: &mut Socket,
        resume: &Resume,
    ) -> Result<(Receiver<Arc<Change>>, Reader), End> {
        // Listening begins before the state is read, so that no change is missed between the two.
        let network = self.services.registry.network(self.node.0).ok_or(ErrorCode::NotAMember)?;
        let changes = network.feed.subscribe();
        self.check_standing()?;
        self.offer_routes(resume).await;
        let reader = Reader { node: self.node.1, protocol: socket.protocol() };
        self.send_map(socket, (resume.revision, resume.holds.as_deref()), reader).await?;
        Ok((changes, reader))
    }

    /// Tells the node its map as it is now, which is returned. `has` is what the node has: a revision, and whom it holds.
    pub(super) async fn send_map(
        &mut self,
        socket: &mut Socket,
        has: (Option<Revision>, Option<&[NodeId]>),
        reader: Reader,
    ) -> Result<Arc<Network>, End> {
        let network = self.services.registry.network(self.node.0).ok_or(ErrorCode::NotAMember)?;
        let (revision, holds) = has;
        self.demand = Demand::begin(self.services, self.node, &network, holds).await?;
        let map = match &mut self.demand {
            Some(demand) => CoordinatorMessage::Snapshot(demand.snapshot(&network, reader)),
            None => view::catch_up(&network, revision, reader),
        };
        socket.send(&map).await?;
        self.told = network.revision;
        Ok(network)
    }

    /// Notes which local networks the node offers to forward to.
    async fn offer_routes(&self, resume: &Resume) {
        let lans = resume.routes.clone().unwrap_or_default();
        if let Err(error) = self.services.registry.offer_routes(self.node.0, self.node.1, lans).await {
            tracing::debug!(%error, node = %self.node.1, "what a node offers can't be noted at the moment");
        }
    }

    /// Tells of changes: all that have come together, in one message.
    async fn send_changes(
        &mut self,
        socket: &mut Socket,
        changes: &[Arc<Change>],
        reader: Reader,
    ) -> Result<(), End> {
        if changes.iter().any(|change| view::removes(change, self.node.1)) {
            self.check_standing()?;
            // It was put out and is back already: it begins anew.
            return Err(End::Replaced);
        }
        let so_far = self.demand.as_ref().map_or(self.told, Demand::so_far);
        let known = changes.iter().take_while(|change| change.set.from < so_far).count();
        let Some((news, last)) = changes.get(known..).and_then(|news| Some((news, news.last()?))) else {
            return Ok(());
        };
        let to = last.set.to;
        if self.demand.is_some() {
            self.send_seen(socket, news, reader).await?;
        } else {
            let network = self.services.registry.network(self.node.0).ok_or(ErrorCode::NotAMember)?;
            self.told = to;
            socket.send_encoded(view::changes(news, &network, reader)).await?;
        }
        self.follow_mode(socket, news, reader).await?;
        self.send_keep(socket, Some(news)).await
    }

    /// Whether the node may take part, as things are now.
    fn check_standing(&self) -> Result<(), ErrorCode> {
        let network = self.services.registry.network(self.node.0);
        match network.as_ref().and_then(|network| network.members.get(&self.node.1)) {
            None => Err(ErrorCode::NotAMember),
            Some(member) if member.disabled.is_some() => Err(ErrorCode::Disabled),
            Some(member) if member.is_login_due() => Err(ErrorCode::LoginDue),
            Some(_) => Ok(()),
        }
    }

    /// Whether another machine tries to use this node's identity.
    async fn send_cloned(&self, socket: &mut Socket, begun: &mut Begun) -> Result<(), End> {
        let cloned = begun.cloned.borrow_and_update().clone();
        let news = cloned.map_or(MembershipNews::NotCloned, MembershipNews::Cloned);
        Ok(socket.send(&CoordinatorMessage::Membership(news)).await?)
    }

    async fn send_relays(&self, socket: &mut Socket) -> Result<(), End> {
        let world = self.services.registry.world();
        let now = UnixTime::from(SystemTime::now());
        let relays = self.services.relays.issue(&world.relays, self.node, now);
        Ok(socket.send(&CoordinatorMessage::Relays(relays)).await?)
    }

    /// Whom the node shall trust from now on. One that speaks version 1 hears of it when it renews its certificate.
    async fn send_authorities(&self, socket: &mut Socket) -> Result<(), End> {
        let trusted = self.services.authorities.current().trusted();
        Ok(socket.send(&CoordinatorMessage::Authorities(trusted)).await?)
    }

    /// What the node shall keep: all of it at the beginning, later what changes have made. Where that is no more than that the
    /// audit log has got on, it may come a little later, and once for many changes.
    async fn send_keep(&mut self, socket: &mut Socket, changes: Option<&[Arc<Change>]>) -> Result<(), End> {
        if socket.protocol() < Protocol::V2 {
            return Ok(());
        }
        let world = self.services.registry.world();
        let network = world.networks.get(&self.node.0).ok_or(ErrorCode::NotAMember)?;
        // One that is gone by now hears of that with the next change.
        let Some(member) = network.members.get(&self.node.1) else { return Ok(()) };
        let witness = &self.services.witness;
        let keep = match changes {
            None => witness.keep_all(&world, network, member),
            Some(changes) => witness.keep_changes(&world, network, member, changes),
        };
        let says_more = keep.deed.is_some() || !keep.tombstones.is_empty();
        if changes.is_some_and(|changes| !changes.is_empty()) && !says_more {
            self.head_at.get_or_insert_with(|| Instant::now() + HEAD_AFTER);
            return Ok(());
        }
        Ok(socket.send(&CoordinatorMessage::Keep(keep)).await?)
    }

    async fn handle_message(
        &mut self,
        socket: &mut Socket,
        message: NodeMessage,
        reader: Reader,
    ) -> Result<(), End> {
        let hub = &self.services.hub;
        match message {
            NodeMessage::Ack(revision) if revision <= self.told => {
                hub.acked(self.node, self.id, revision).await.map_err(|_| End::Drained)
            }
            NodeMessage::Report(candidates) => {
                let usable = candidates.into_iter().filter(is_usable).take(MAX_CANDIDATES).collect();
                hub.report(self.node, self.id, usable).await.map_err(|_| End::Drained)
            }
            NodeMessage::Renew(csr) => self.renew(socket, &csr).await,
            NodeMessage::Rotate(request) => self.rotate(&request).await,
            NodeMessage::Links(news) => self.report_links(news).await,
            NodeMessage::Changed(change) => self.note(change).await,
            NodeMessage::Leave => self.leave().await,
            NodeMessage::Seek(sought) => self.seek(socket, sought).await,
            NodeMessage::Release(nodes) => self.release(nodes).await,
            NodeMessage::Hold(nodes) => self.hold(socket, nodes, reader).await,
            NodeMessage::Ack(_)
            | NodeMessage::Hello(_)
            | NodeMessage::Enrol(_)
            | NodeMessage::Resume(_)
            | NodeMessage::Testify(_) => Err(ErrorCode::BadMessage.into()),
        }
    }

    async fn renew(&self, socket: &mut Socket, csr: &[u8]) -> Result<(), End> {
        check_request(csr, self.peer.identity.tls_key())?;
        let certificate = self.services.certificate(self.node, csr)?;
        tracing::debug!(node = %self.node.1, "certificate renewed");
        Ok(socket.send(&CoordinatorMessage::Renewed(certificate)).await?)
    }

    /// The node is known by another WireGuard key from now on, which it hears with all others.
    async fn rotate(&mut self, request: &Rotate) -> Result<(), End> {
        let challenge = self.challenge.take().ok_or(ErrorCode::BadMessage)?;
        verify_rotation(request, challenge, &self.peer.exporter)?;
        let (network, node) = self.node;
        match self.services.registry.rotate_key(network, node, request.wg_key).await {
            Ok(()) => Ok(()),
            Err(RotateKeyError::NoNode) => Err(ErrorCode::NotAMember.into()),
            Err(RotateKeyError::Taken) => Err(ErrorCode::KeyTaken.into()),
            Err(RotateKeyError::Unavailable(error)) => {
                tracing::debug!(%error, "a key can't be rotated at the moment");
                Err(ErrorCode::Unavailable.into())
            }
        }
    }

    /// How the node reaches others. What it says of anybody who is no member is left out.
    async fn report_links(&self, mut news: LinkNews) -> Result<(), End> {
        let (network, node) = self.node;
        let network = self.services.registry.network(network).ok_or(ErrorCode::NotAMember)?;
        let member = network.members.get(&node).ok_or(ErrorCode::NotAMember)?;
        let personal = member.laptop.is_some();
        let is_member =
            |peer: &NodeId| network.members.contains_key(peer) || network.static_peers.contains_key(peer);
        news.links.retain(|link| is_member(&link.peer));
        let report = Report { node: self.node, session: self.id, news, personal };
        self.services.links.report(report).await.map_err(|_| End::Drained)
    }

    /// Somebody changed something on the node.
    async fn note(&mut self, change: LocalChange) -> Result<(), End> {
        let (network, node) = self.node;
        if change.deed == LocalDeed::Left {
            self.leaver = Some(Reported::of_change(&change));
            return Ok(());
        }
        if let Err(error) = self.services.registry.note_local_change(network, node, change).await {
            // What was done on the node is done; only the log lacks it.
            tracing::debug!(%error, %node, "what was changed on a node can't be noted");
        }
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), End> {
        let (network, node) = self.node;
        let actor = match self.leaver.take() {
            Some(reported) => Actor::NodeFor(node, reported),
            None => Actor::Node(node),
        };
        match self.services.registry.remove_node(network, node, actor).await {
            Ok(_) | Err(RemoveNodeError::NoNode | RemoveNodeError::Changed(_)) => {
                self.services.relays.revoke(node);
                let _ = self.services.hub.forget(self.node).await;
                let _ = self.services.links.forget(self.node).await;
                let _ = self.services.interests.forget(self.node).await;
                Err(End::Left)
            }
            Err(RemoveNodeError::Unavailable(error)) => Err(End::Refused(Refusal {
                code: ErrorCode::Unavailable,
                text: format!(
                    "the coordinator can't take this node out at the moment ({error}); try again later"
                ),
            })),
        }
    }
}

/// What was received, and all that has come since: the more there is to tell, the fewer messages it takes.
fn with_all_that_wait<T: Clone>(first: T, feed: &mut Receiver<T>) -> Result<Vec<T>, End> {
    let mut all = vec![first];
    while all.len() < TOGETHER {
        match feed.try_recv() {
            Ok(next) => all.push(next),
            Err(TryRecvError::Lagged(_)) => return Err(End::Lagged),
            // A feed that has ended says so when it is asked next.
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    Ok(all)
}

/// Being too far behind is the end; the node resumes by its revision.
fn received<T>(result: Result<T, RecvError>) -> Result<T, End> {
    result.map_err(|error| match error {
        RecvError::Lagged(_) => End::Lagged,
        RecvError::Closed => End::Drained,
    })
}

/// Nobody can be reached at such an address from elsewhere, or everybody would be.
fn is_usable(candidate: &Candidate) -> bool {
    let ip = candidate.address.ip();
    candidate.address.port() != 0 && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}
