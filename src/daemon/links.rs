//! What the coordinator is told of this node's links, for people who look at the network as a whole: rarely, in batches, and
//! of changes only ([decision 38](../../../docs/decisions/0038-topology.md)).
//!
//! Owns what was told, and what has happened since. The more restless the links are, the more seldom it is told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ria_api::state::CoordinatorState;
use ria_core::{Event, LinkState, PathKind, PeerStatus};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::links::{
    Happened, LinkNews, LinkPath, LinkReport, MOST_HAPPENED, MOST_LINKS, PathChange, Uplink, What,
};
use ria_protocol::version::Protocol;
use tokio::time::Instant;

use super::control::Control;
use super::network::Network;
use crate::coordinator::session::Order;

/// What happens within this time is told together.
const GATHERED: Duration = Duration::from_secs(3);
/// Restless links double that each time, up to this.
const MOST_GATHERED: Duration = Duration::from_secs(48);
/// After this time without news they are at rest.
const REST: Duration = Duration::from_secs(60);
/// A connection has just begun; the paths that it was lost with may still be settling.
const SETTLED: Duration = Duration::from_secs(2);
/// How often round-trip times are looked at: they are told when they are quite other ones.
const LOOKED_AT: Duration = Duration::from_secs(60);
/// The same for a path whose time is not known yet.
const LOOKED_AT_SOON: Duration = Duration::from_secs(10);
/// How often they are told when they are somewhat other ones.
const AFRESH: Duration = Duration::from_secs(300);

/// A peer's link as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    path: LinkPath,
    rtt: Option<Duration>,
    relay: Option<String>,
}

/// Something that has happened; a later one has a greater number.
#[derive(Debug)]
struct Noted {
    number: u64,
    at: Instant,
    what: What,
}

/// What the coordinator knows of a network's links, and what it is still to be told.
#[derive(Debug, Default)]
pub struct Links {
    told: BTreeMap<NodeId, Known>,
    paths: BTreeMap<NodeId, LinkPath>,
    uplink: Option<Uplink>,
    happened: VecDeque<Noted>,
    numbers: u64,
    /// Whether the coordinator knows nothing yet.
    whole: bool,
    /// When it is told of what has changed.
    due: Option<Instant>,
    gathered: Duration,
    last_change: Option<Instant>,
    look_at: Option<Instant>,
    afresh_at: Option<Instant>,
}

impl Links {
    /// A connection has begun: all is told anew.
    pub fn handle_connected(&mut self, now: Instant) {
        (self.whole, self.due) = (true, Some(now + SETTLED));
    }

    /// Traffic to a peer takes this path now; `gap`: how long nothing came through.
    fn note_path(&mut self, change: PathChange, now: Instant) {
        let PathChange { peer, after, gap, .. } = change;
        let before = self.paths.insert(peer, after).unwrap_or(LinkPath::None);
        if before != after {
            return self.note(What::Path(PathChange { before, ..change }), now);
        }
        // The event before said that the path is another one, this one for how long there was none.
        let told = self.happened.iter_mut().rev().find_map(|noted| match &mut noted.what {
            What::Path(path) if path.peer == peer => Some(path),
            What::Path(_) | What::Uplink(_) => None,
        });
        if let Some(path) = told.filter(|path| path.after == after) {
            path.gap = path.gap.or(gap);
        }
    }

    /// This machine is connected by this now.
    fn note_uplink(&mut self, uplink: Uplink, now: Instant) {
        if self.uplink.as_ref() != Some(&uplink) {
            self.uplink = Some(uplink.clone());
            self.note(What::Uplink(uplink), now);
        }
    }

    fn note(&mut self, what: What, now: Instant) {
        self.numbers += 1;
        self.happened.push_back(Noted { number: self.numbers, at: now, what });
        if self.happened.len() > MOST_HAPPENED {
            self.happened.pop_front();
        }
        self.note_change(now);
    }

    fn note_change(&mut self, now: Instant) {
        if self.due.is_some() {
            return;
        }
        let at_rest = self.last_change.is_none_or(|last| now.saturating_duration_since(last) >= REST);
        self.gathered = if at_rest { GATHERED } else { (self.gathered * 2).clamp(GATHERED, MOST_GATHERED) };
        (self.due, self.last_change) = (Some(now + self.gathered), Some(now));
    }

    /// The coordinator was told of what had happened up to this number.
    fn forget(&mut self, number: u64) {
        self.happened.retain(|noted| noted.number > number);
    }

    fn is_due(&self, now: Instant) -> bool {
        let over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        over(self.due) || over(self.look_at)
    }

    /// What there is to tell, with the number of the last thing that happened.
    fn news(&mut self, peers: &[PeerStatus], now: Instant) -> Option<(LinkNews, u64)> {
        let afresh = self.afresh_at.is_none_or(|at| at <= now);
        if afresh {
            self.afresh_at = Some(now + AFRESH);
        }
        let links: BTreeMap<NodeId, Known> =
            peers.iter().filter_map(|peer| Some((peer.node, known(peer)?))).take(MOST_LINKS).collect();
        self.paths.retain(|peer, _| links.contains_key(peer));
        let unknown = |link: &Known| link.path != LinkPath::None && link.rtt.is_none();
        let look_after = if links.values().any(unknown) { LOOKED_AT_SOON } else { LOOKED_AT };
        (self.due, self.look_at) = (None, Some(now + look_after));
        let whole = std::mem::take(&mut self.whole);
        let is_news = |peer: &NodeId, link: &Known| {
            whole || self.told.get(peer).is_none_or(|told| is_another(told, link, afresh))
        };
        let changed: BTreeMap<NodeId, Known> =
            links.iter().filter(|(peer, link)| is_news(peer, link)).map(|(p, l)| (*p, l.clone())).collect();
        let gone: Vec<NodeId> = self.told.keys().filter(|peer| !links.contains_key(*peer)).copied().collect();
        self.told.retain(|peer, _| links.contains_key(peer));
        let news = LinkNews {
            whole,
            links: changed.iter().map(|(peer, link)| report(*peer, link)).collect(),
            gone: if whole { Vec::new() } else { gone },
            happened: self.happened.iter().map(|noted| noted.told(now)).collect(),
        };
        self.told.extend(changed);
        (!news.is_empty()).then_some((news, self.numbers))
    }
}

impl Noted {
    fn told(&self, now: Instant) -> Happened {
        Happened { ago: millis(now.saturating_duration_since(self.at)), what: self.what.clone() }
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// A link that there is something to tell of: a path, or none to a peer that should be reached.
fn known(peer: &PeerStatus) -> Option<Known> {
    let path = path(peer.path);
    let is_missed = peer.online && matches!(peer.link_state, LinkState::Connecting | LinkState::Lost);
    if path == LinkPath::None && !is_missed {
        return None;
    }
    Some(Known { path, rtt: peer.rtt.filter(|_| path != LinkPath::None), relay: peer.relay.clone() })
}

fn report(peer: NodeId, link: &Known) -> LinkReport {
    let micros = |rtt: Duration| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
    LinkReport { peer, path: link.path, rtt: link.rtt.map(micros), relay: link.relay.clone() }
}

/// Whether a link is worth telling of once more; `afresh`: it was not told for a while.
fn is_another(told: &Known, now: &Known, afresh: bool) -> bool {
    if (told.path, &told.relay) != (now.path, &now.relay) {
        return true;
    }
    let (Some(before), Some(after)) = (told.rtt, now.rtt) else {
        return told.rtt.is_none() && now.rtt.is_some();
    };
    let (less, more) = (before.min(after), before.max(after));
    let quite = more > less * 2 && more - less > Duration::from_millis(5);
    let somewhat = more > less + less / 4 && more - less > Duration::from_millis(1);
    quite || (afresh && somewhat)
}

const fn path(kind: PathKind) -> LinkPath {
    match kind {
        PathKind::None => LinkPath::None,
        PathKind::Direct => LinkPath::Direct,
        PathKind::RelayUdp => LinkPath::RelayUdp,
        PathKind::RelayTls => LinkPath::RelayTls,
    }
}

impl Network {
    fn may_tell_links(&self) -> bool {
        self.in_engine
            && self.coordinator.state == CoordinatorState::Connected
            && self.coordinator.protocol >= Some(Protocol::V2)
    }
}

impl Control {
    /// The engine tells something; what it says of links is told to the coordinator, too.
    #[allow(clippy::wildcard_enum_match_arm, reason = "a few among many that have nothing to do with links")]
    pub(super) fn note_link(&mut self, event: &Event) {
        let now = Instant::now();
        let (network, peer, after, gap, reason) = match event {
            Event::LinkStateChanged { network, peer, path_after, gap, reason, .. } => {
                (network, peer, path_after, gap, reason)
            }
            Event::PathChanged { network, peer, after, gap, reason, .. } => {
                (network, peer, after, gap, reason)
            }
            Event::PeerAdded { network, .. } | Event::PeerRemoved { network, .. } => {
                if let Some(network) = self.networks.get_mut(network) {
                    network.links.note_change(now);
                }
                return;
            }
            _ => return,
        };
        let Some(network) = self.networks.get_mut(network) else { return };
        let change = PathChange {
            peer: *peer,
            before: LinkPath::None,
            after: path(*after),
            gap: gap.map(millis),
            reason: (*reason).to_owned(),
        };
        network.links.note_path(change, now);
    }

    /// What this machine is connected by may be something else.
    pub(super) fn note_uplinks(&mut self) {
        let (uplink, now) = (self.uplink(), Instant::now());
        let uplink = Uplink {
            interface: uplink.interface,
            kind: uplink.kind.to_string(),
            ssid: uplink.ssid,
            access_point: uplink.access_point,
        };
        for network in self.networks.values_mut() {
            network.links.note_uplink(uplink.clone(), now);
        }
    }

    /// Has the coordinators told what is due.
    pub(super) async fn tell_links(&mut self) {
        let now = Instant::now();
        let is_due = |network: &Network| network.may_tell_links() && network.links.is_due(now);
        if !self.networks.values().any(is_due) {
            return;
        }
        let Ok(packets) = self.packets.status().await else { return };
        for network in self.networks.values_mut().filter(|network| is_due(network)) {
            let id = network.id();
            let Some(engine) = packets.engine.networks.iter().find(|engine| engine.id == id) else {
                continue;
            };
            if let Some((news, number)) = network.links.news(&engine.peers, now) {
                network.order(Order::Links(news, number));
            }
        }
    }

    /// The coordinator was told of what had happened up to this number.
    pub(super) fn handle_links_told(&mut self, id: NetworkId, number: u64) {
        if let Some(network) = self.networks.get_mut(&id) {
            network.links.forget(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::from_bytes([1; 10]);

    fn known(path: LinkPath, rtt: u64) -> Known {
        Known { path, rtt: Some(Duration::from_millis(rtt)), relay: None }
    }

    fn change(after: LinkPath, gap: Option<u32>) -> PathChange {
        PathChange { peer: A, before: LinkPath::None, after, gap, reason: "why".into() }
    }

    fn told(links: &Links, now: Instant) -> Vec<(u32, LinkPath, LinkPath, Option<u32>)> {
        let path = |happened: Happened| match happened.what {
            What::Path(path) => Some((happened.ago, path.before, path.after, path.gap)),
            What::Uplink(_) => None,
        };
        links.happened.iter().filter_map(|noted| path(noted.told(now))).collect()
    }

    #[test]
    fn only_quite_another_time_is_told_at_once() {
        let direct = |rtt| known(LinkPath::Direct, rtt);
        assert!(is_another(&direct(10), &known(LinkPath::RelayUdp, 10), false));
        assert!(!is_another(&direct(10), &direct(19), false));
        assert!(is_another(&direct(10), &direct(21), false) && is_another(&direct(21), &direct(10), false));
        assert!(!is_another(&direct(1), &direct(5), false), "a few milliseconds are nothing to people");
        assert!(is_another(&direct(10), &direct(13), true) && !is_another(&direct(10), &direct(12), true));
    }

    #[test]
    fn a_pause_that_is_told_later_belongs_to_the_change_before() {
        let (mut links, now) = (Links::default(), Instant::now());
        links.note_path(change(LinkPath::RelayUdp, None), now);
        links.note_path(change(LinkPath::Direct, None), now);
        links.note_path(change(LinkPath::Direct, Some(700)), now);
        let later = now + Duration::from_secs(2);
        let wanted = [
            (2000, LinkPath::None, LinkPath::RelayUdp, None),
            (2000, LinkPath::RelayUdp, LinkPath::Direct, Some(700)),
        ];
        assert_eq!(told(&links, later), wanted);
        links.forget(1);
        assert_eq!(told(&links, later), wanted[1..]);
    }

    #[test]
    fn restless_links_are_told_of_more_and_more_seldom() {
        let (mut links, begin) = (Links::default(), Instant::now());
        let mut now = begin;
        let mut told = 0;
        let mut direct = false;
        // Ten minutes in which the path is another one each second.
        while now < begin + Duration::from_secs(600) {
            direct = !direct;
            let after = if direct { LinkPath::Direct } else { LinkPath::RelayUdp };
            links.note_path(change(after, None), now);
            if links.is_due(now) {
                let (news, number) = links.news(&[], now).unwrap();
                assert!(news.happened.len() <= MOST_HAPPENED);
                links.forget(number);
                told += 1;
            }
            now += Duration::from_secs(1);
        }
        assert!((10..=20).contains(&told), "{told}");
        // At rest again, it is told soon.
        now += REST;
        links.note_path(change(LinkPath::None, None), now);
        assert!(links.is_due(now + GATHERED));
    }

    #[test]
    fn an_uplink_is_told_when_it_is_another_one() {
        let (mut links, now) = (Links::default(), Instant::now());
        let at = |point: &str| Uplink { access_point: Some(point.into()), ..Uplink::default() };
        for point in ["a", "a", "b"] {
            links.note_uplink(at(point), now);
        }
        assert_eq!(links.happened.len(), 2);
        links.handle_connected(now);
        assert!(!links.is_due(now) && links.is_due(now + SETTLED));
        let (news, number) = links.news(&[], now + SETTLED).unwrap();
        assert_eq!((news.whole, news.happened.len(), number), (true, 2, 2));
        links.forget(number);
        assert_eq!(links.news(&[], now + SETTLED), None, "there is nothing more to tell");
    }
}
