//! What is known of links: a table for each node of what it told, what has happened on it, and what has changed lately.
//!
//! Bounds, whatever nodes say: [`MOST_LINKS`] links and [`MOST_KEPT`] things that happened for each node, with short texts
//! (together less than 100 KiB a node where all of it is used; some 10 in a network of ten); [`MOST_CHANGES`] changes for those
//! who listen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::links::{Happened, LinkPath, LinkReport, MOST_HAPPENED, MOST_LINKS, Uplink, What};
use ria_protocol::time::UnixTime;

use super::{Report, shown};
use crate::hub::{NodeKey, SessionId};

/// Things that happened on a node which are kept.
pub const MOST_KEPT: usize = 96;

/// Changes that are kept for those who listen; who missed more looks at everything.
const MOST_CHANGES: usize = 512;

/// The longest reason, and the longest of all other texts, in characters.
const LONGEST_REASON: usize = 120;
const LONGEST_NAME: usize = 32;

/// A link as one end tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub path: LinkPath,
    /// Microseconds.
    pub rtt: Option<u32>,
    pub relay: Option<Arc<str>>,
    /// Since when the path is the one in use, as far as that was told.
    pub since: UnixTime,
}

/// A link of which somebody tells: what `a` says of it, and what `b` does. `a` is less than `b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub a: NodeId,
    pub b: NodeId,
    pub from_a: Option<End>,
    pub from_b: Option<End>,
}

/// Something that has happened on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub at: UnixTime,
    pub what: Kept,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    Path {
        peer: NodeId,
        before: LinkPath,
        after: LinkPath,
        gap: Option<u32>,
        reason: Arc<str>,
    },
    /// What it is connected by now.
    Uplink(Uplink),
}

/// Something new to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A node's link to a peer.
    Link { network: NetworkId, node: NodeId, peer: NodeId, path: LinkPath, rtt: Option<u32> },
    /// What a node tells of its links is not known any more, or all is another one.
    Links { network: NetworkId, node: NodeId },
    /// A node is connected by something else.
    Uplink { network: NetworkId, node: NodeId },
}

impl Changed {
    /// Where.
    pub fn network(&self) -> NetworkId {
        match self {
            Self::Link { network, .. } | Self::Links { network, .. } | Self::Uplink { network, .. } => {
                *network
            }
        }
    }
}

#[derive(Debug)]
struct Node {
    session: SessionId,
    links: BTreeMap<NodeId, End>,
    happened: VecDeque<Entry>,
    uplink: Option<Uplink>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Board {
    nodes: BTreeMap<NodeKey, Node>,
    changes: VecDeque<Changed>,
    /// Number of the last change.
    last: u64,
}

impl Board {
    /// Number of the last change.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// A node tells something.
    pub fn handle_report(&mut self, report: Report, now: UnixTime) {
        let Report { node: key, session, news, personal } = report;
        let new = || Node { session, links: BTreeMap::new(), happened: VecDeque::new(), uplink: None };
        let node = self.nodes.entry(key).or_insert_with(new);
        if session < node.session {
            return;
        }
        let (network, id) = key;
        let mut changes = Vec::new();
        if session > node.session || news.whole {
            node.session = session;
            if std::mem::take(&mut node.links).len() > news.links.len() {
                changes.push(Changed::Links { network, node: id });
            }
        }
        for peer in news.gone {
            if node.links.remove(&peer).is_some() {
                changes.push(Changed::Links { network, node: id });
            }
        }
        for link in news.links.into_iter().filter(|link| link.peer != id) {
            if node.take(&link, now) {
                let LinkReport { peer, path, rtt, .. } = link;
                changes.push(Changed::Link { network, node: id, peer, path, rtt });
            }
        }
        for happened in news.happened.into_iter().take(MOST_HAPPENED) {
            if node.note(happened, now, personal) {
                changes.push(Changed::Uplink { network, node: id });
            }
        }
        // One that tells whole tables over and over is told of once each time.
        changes.dedup();
        self.tell(changes);
    }

    /// A session has ended.
    pub fn handle_end(&mut self, key: NodeKey, session: SessionId) {
        let Some(node) = self.nodes.get_mut(&key).filter(|node| node.session == session) else { return };
        if !std::mem::take(&mut node.links).is_empty() {
            self.tell([Changed::Links { network: key.0, node: key.1 }]);
        }
    }

    /// A node is no member any more.
    pub fn forget(&mut self, key: NodeKey) {
        self.nodes.remove(&key);
        for (_, node) in self.nodes.iter_mut().filter(|((network, _), _)| *network == key.0) {
            node.links.remove(&key.1);
        }
        self.tell([Changed::Links { network: key.0, node: key.1 }]);
    }

    /// All links of a network.
    pub fn pairs(&self, network: NetworkId) -> Vec<Pair> {
        let first = (network, NodeId::from_bytes([0; NodeId::LEN]));
        let last = (network, NodeId::from_bytes([0xff; NodeId::LEN]));
        let mut pairs: BTreeMap<(NodeId, NodeId), Pair> = BTreeMap::new();
        for ((_, node), told) in self.nodes.range(first..=last) {
            for (peer, end) in &told.links {
                let (a, b) = (*node.min(peer), *node.max(peer));
                let pair = pairs.entry((a, b)).or_insert(Pair { a, b, from_a: None, from_b: None });
                let side = if *node == a { &mut pair.from_a } else { &mut pair.from_b };
                *side = Some(end.clone());
            }
        }
        pairs.into_values().collect()
    }

    /// What has happened on a node, oldest first.
    pub fn history(&self, key: NodeKey) -> Vec<Entry> {
        self.nodes.get(&key).map(|node| node.happened.iter().cloned().collect()).unwrap_or_default()
    }

    /// What has changed after this change, as far as it is kept.
    pub fn since(&self, number: u64) -> (u64, Vec<Changed>) {
        let wanted = usize::try_from(self.last.saturating_sub(number)).unwrap_or(usize::MAX);
        let known = self.changes.len().saturating_sub(wanted);
        (self.last, self.changes.iter().skip(known).cloned().collect())
    }

    fn tell(&mut self, changes: impl IntoIterator<Item = Changed>) {
        for change in changes {
            self.last += 1;
            self.changes.push_back(change);
            if self.changes.len() > MOST_CHANGES {
                self.changes.pop_front();
            }
        }
    }
}

impl Node {
    /// Takes what is told of a link; says whether that is anything new.
    fn take(&mut self, link: &LinkReport, now: UnixTime) -> bool {
        let before = self.links.get(&link.peer);
        if before.is_none() && self.links.len() >= MOST_LINKS {
            return false;
        }
        let since = before.filter(|end| end.path == link.path).map_or(now, |end| end.since);
        let relay = link.relay.as_deref().map(|relay| shown(relay, LONGEST_NAME));
        let end = End { path: link.path, rtt: link.rtt, relay, since };
        let is_new = before != Some(&end);
        self.links.insert(link.peer, end);
        is_new
    }

    /// Takes what has happened; says whether it is connected by something else now.
    fn note(&mut self, happened: Happened, now: UnixTime, personal: bool) -> bool {
        let at = UnixTime(now.0.saturating_sub(Duration::from_millis(happened.ago.into()).as_secs()));
        let what = match happened.what {
            What::Path(path) => {
                let reason = shown(&path.reason, LONGEST_REASON);
                if let Some(end) = self.links.get_mut(&path.peer).filter(|end| end.path == path.after) {
                    end.since = at;
                }
                Kept::Path { peer: path.peer, before: path.before, after: path.after, gap: path.gap, reason }
            }
            What::Uplink(uplink) => {
                let after = decent(&uplink, personal);
                if self.uplink.as_ref() == Some(&after) {
                    return false;
                }
                self.uplink = Some(after.clone());
                Kept::Uplink(after)
            }
        };
        let is_uplink = matches!(what, Kept::Uplink(_));
        self.happened.push_back(Entry { at, what });
        if self.happened.len() > MOST_KEPT {
            self.happened.pop_front();
        }
        is_uplink
    }
}

/// What an uplink may be.
const KINDS: [&str; 4] = ["wifi", "ethernet", "mobile", "other"];

/// What a node is connected by, as it may be kept and shown.
fn decent(uplink: &Uplink, personal: bool) -> Uplink {
    let text = |text: &str| shown(text, LONGEST_NAME).to_string();
    let place = |name: &Option<String>| name.as_deref().filter(|_| !personal).map(text);
    Uplink {
        interface: text(&uplink.interface),
        kind: KINDS.into_iter().find(|kind| *kind == uplink.kind).unwrap_or("unknown").to_owned(),
        ssid: place(&uplink.ssid),
        access_point: place(&uplink.access_point),
    }
}

#[cfg(test)]
mod tests {
    use ria_protocol::links::{LinkNews, PathChange};

    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([9; 10]);
    const NOW: UnixTime = UnixTime(1000);

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 10])
    }

    fn link(peer: u8, path: LinkPath) -> LinkReport {
        LinkReport { peer: node(peer), path, rtt: Some(1500), relay: None }
    }

    fn whole(links: Vec<LinkReport>) -> LinkNews {
        LinkNews { whole: true, links, ..LinkNews::default() }
    }

    fn report(board: &mut Board, n: u8, session: u64, news: LinkNews) {
        let session = SessionId(session);
        board.handle_report(Report { node: (NETWORK, node(n)), session, news, personal: false }, NOW);
    }

    fn seen(board: &Board) -> Vec<(u8, u8, Option<LinkPath>, Option<LinkPath>)> {
        let path = |end: &Option<End>| end.as_ref().map(|end| end.path);
        let first = |id: NodeId| id.as_bytes()[0];
        board
            .pairs(NETWORK)
            .iter()
            .map(|p| (first(p.a), first(p.b), path(&p.from_a), path(&p.from_b)))
            .collect()
    }

    #[test]
    fn what_both_ends_tell_is_one_link() {
        let mut board = Board::default();
        report(&mut board, 2, 1, whole(vec![link(1, LinkPath::Direct), link(3, LinkPath::RelayUdp)]));
        report(&mut board, 1, 2, whole(vec![link(2, LinkPath::RelayTls)]));
        assert_eq!(
            seen(&board),
            [
                (1, 2, Some(LinkPath::RelayTls), Some(LinkPath::Direct)),
                (2, 3, Some(LinkPath::RelayUdp), None)
            ]
        );
        let (last, changes) = board.since(0);
        assert_eq!((last, changes.len()), (3, 3));
        report(&mut board, 2, 1, LinkNews { gone: vec![node(3)], ..LinkNews::default() });
        assert_eq!(board.since(last).1, [Changed::Links { network: NETWORK, node: node(2) }]);
        board.forget((NETWORK, node(1)));
        assert_eq!(seen(&board), []);
    }

    #[test]
    fn a_session_that_was_replaced_says_nothing_any_more() {
        let mut board = Board::default();
        report(&mut board, 1, 5, whole(vec![link(2, LinkPath::Direct)]));
        report(&mut board, 1, 7, LinkNews { links: vec![link(3, LinkPath::Direct)], ..LinkNews::default() });
        assert_eq!(
            seen(&board),
            [(1, 3, Some(LinkPath::Direct), None)],
            "the other link is the older session's"
        );
        report(&mut board, 1, 5, whole(vec![link(2, LinkPath::Direct)]));
        board.handle_end((NETWORK, node(1)), SessionId(5));
        assert_eq!(seen(&board).len(), 1);
        board.handle_end((NETWORK, node(1)), SessionId(7));
        assert_eq!(seen(&board), []);
    }

    #[test]
    fn what_is_kept_of_a_node_is_bounded_whatever_it_says() {
        let mut board = Board::default();
        let all = (0..=255u8).flat_map(|a| {
            [0, 1].map(|b| {
                let mut bytes = [b; 10];
                bytes[0] = a;
                LinkReport {
                    peer: NodeId::from_bytes(bytes),
                    relay: Some("r".repeat(9000)),
                    ..link(1, LinkPath::RelayUdp)
                }
            })
        });
        report(&mut board, 77, 1, whole(all.collect()));
        assert_eq!(board.pairs(NETWORK).len(), MOST_LINKS);
        let change = PathChange {
            peer: node(2),
            before: LinkPath::None,
            after: LinkPath::Direct,
            gap: None,
            reason: format!("\u{1b}[2J{}", "x".repeat(9000)),
        };
        for ago in 0..10 {
            let happened = Happened { ago: ago * 1000, what: What::Path(change.clone()) };
            report(&mut board, 77, 1, LinkNews { happened: vec![happened; 100], ..LinkNews::default() });
        }
        let history = board.history((NETWORK, node(77)));
        assert_eq!((history.len(), history.last().unwrap().at), (MOST_KEPT, UnixTime(991)));
        let Kept::Path { reason, .. } = &history[0].what else { panic!("{history:?}") };
        assert!(reason.starts_with("[2Jx") && reason.len() == LONGEST_REASON, "{reason}");
        assert!(board.changes.len() <= MOST_CHANGES);
    }

    #[test]
    fn where_somebodys_own_machine_is_is_not_kept() {
        let uplink = Uplink {
            interface: "wlan0".into(),
            kind: "wifi".into(),
            ssid: Some("home".into()),
            access_point: Some("02:00:00:00:00:01".into()),
        };
        for personal in [false, true] {
            let mut board = Board::default();
            let happened = vec![Happened { ago: 0, what: What::Uplink(uplink.clone()) }];
            let news = LinkNews { happened, ..LinkNews::default() };
            let (session, key) = (SessionId(1), (NETWORK, node(1)));
            board.handle_report(Report { node: key, session, news, personal }, NOW);
            let Kept::Uplink(after) = &board.history(key)[0].what else { panic!() };
            assert_eq!((after.ssid.is_none(), after.kind.as_str()), (personal, "wifi"));
        }
    }
}
