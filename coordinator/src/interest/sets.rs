//! Who of an on-demand network has to do with whom, as a value.
//!
//! A *tie* joins two nodes, of which each is told of the other. Either end holds on to it until it lets go; when none
//! does, the tie is gone.

use std::collections::{BTreeMap, BTreeSet};

use ria_protocol::id::NodeId;

/// Most ties of one node: what it is told and has to keep is bounded, whatever is asked for.
pub const MOST_TIES: usize = 4096;

/// Who is told something else than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    Everybody,
    These(BTreeSet<NodeId>),
}

/// The ties of one network.
#[derive(Debug, Default)]
pub struct Sets {
    /// To whom each node has ties, and whether it holds on to them itself.
    ties: BTreeMap<NodeId, BTreeMap<NodeId, bool>>,
    /// Nodes that know no on-demand mode: they are told of everybody, and everybody of them.
    open: BTreeSet<NodeId>,
}

impl Sets {
    /// Of whom a node is told.
    pub fn seen_by(&self, node: NodeId) -> BTreeSet<NodeId> {
        let ties = self.ties.get(&node).into_iter().flat_map(BTreeMap::keys);
        ties.chain(&self.open).copied().filter(|other| *other != node).collect()
    }

    /// A node holds on to another from now on; a new tie is held by both. `false`: one of the two has too many.
    pub fn hold(&mut self, node: NodeId, peer: NodeId) -> bool {
        let full = |of: NodeId, other: NodeId| {
            self.ties.get(&of).is_some_and(|ties| ties.len() >= MOST_TIES && !ties.contains_key(&other))
        };
        if node == peer || full(node, peer) || full(peer, node) {
            return false;
        }
        self.ties.entry(node).or_default().insert(peer, true);
        self.ties.entry(peer).or_default().entry(node).or_insert(true);
        true
    }

    /// A node lets go of another. The tie ends when the other has let go, or is not `here` to do so. Returns whether it
    /// has ended.
    pub fn release(&mut self, node: NodeId, peer: NodeId, here: bool) -> bool {
        let Some(held) = self.ties.get_mut(&node).and_then(|ties| ties.get_mut(&peer)) else { return false };
        *held = false;
        let other = self.ties.get(&peer).and_then(|ties| ties.get(&node));
        if here && other == Some(&true) {
            return false;
        }
        self.cut(node, peer);
        true
    }

    /// A node comes, and says whom it holds; absent: it knows no on-demand mode. Returns who is told something else.
    pub fn resume(&mut self, node: NodeId, holds: Option<&[NodeId]>) -> Touched {
        let Some(holds) = holds else {
            self.open.insert(node);
            return Touched::Everybody;
        };
        let was_open = self.open.remove(&node);
        let touched = self.resume_holding(node, holds);
        if was_open { Touched::Everybody } else { Touched::These(touched) }
    }

    fn resume_holding(&mut self, node: NodeId, holds: &[NodeId]) -> BTreeSet<NodeId> {
        let mut touched: BTreeSet<NodeId> = [node].into();
        // What neither end holds on to any more; the rest it is told of now, and holds like anything new.
        let ties = self.ties.get(&node).into_iter().flatten();
        let known: Vec<NodeId> = ties.map(|(peer, _)| *peer).collect();
        for peer in known {
            let other_holds = self.ties.get(&peer).and_then(|ties| ties.get(&node)) == Some(&true);
            if other_holds {
                self.ties.entry(node).or_default().insert(peer, true);
            } else if !holds.contains(&peer) {
                self.cut(node, peer);
                touched.insert(peer);
            }
        }
        touched.extend(holds.iter().copied().filter(|peer| self.hold(node, *peer)));
        touched
    }

    /// A node is no member any more, or none that others have to do with. Returns who is told something else.
    pub fn forget(&mut self, node: NodeId) -> Touched {
        let peers: BTreeSet<NodeId> =
            self.ties.get(&node).into_iter().flat_map(BTreeMap::keys).copied().collect();
        peers.iter().for_each(|peer| self.cut(node, *peer));
        if self.open.remove(&node) { Touched::Everybody } else { Touched::These(peers) }
    }

    /// Who holds on to whom.
    pub fn holds(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        let all = self
            .ties
            .iter()
            .flat_map(|(node, ties)| ties.iter().map(move |(peer, held)| (*node, *peer, *held)));
        all.filter(|(_, _, held)| *held).map(|(node, peer, _)| (node, peer))
    }

    fn cut(&mut self, node: NodeId, peer: NodeId) {
        for (one, other) in [(node, peer), (peer, node)] {
            if let Some(ties) = self.ties.get_mut(&one) {
                ties.remove(&other);
                if ties.is_empty() {
                    self.ties.remove(&one);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 10])
    }

    fn these(nodes: &[u8]) -> Touched {
        Touched::These(nodes.iter().map(|n| node(*n)).collect())
    }

    fn seen(sets: &Sets, n: u8) -> Vec<NodeId> {
        sets.seen_by(node(n)).into_iter().collect()
    }

    #[test]
    fn both_ends_are_told_and_nobody_else_until_both_have_let_go() {
        let mut sets = Sets::default();
        assert!(sets.hold(node(1), node(2)));
        assert_eq!((seen(&sets, 1), seen(&sets, 2), seen(&sets, 3)), (vec![node(2)], vec![node(1)], vec![]));
        assert!(!sets.release(node(2), node(1), true));
        assert_eq!(seen(&sets, 2), [node(1)], "the other end still holds on");
        // It has something to say again, and lets go again.
        assert!(sets.hold(node(2), node(1)));
        assert!(!sets.release(node(1), node(2), true) && sets.release(node(2), node(1), true));
        assert!(seen(&sets, 1).is_empty() && seen(&sets, 2).is_empty());
        assert!(!sets.release(node(1), node(2), true), "nothing is left to let go of");
        assert!(!sets.hold(node(1), node(1)), "nobody is told of itself");
    }

    #[test]
    fn a_tie_to_one_that_is_away_ends_with_the_other_end() {
        let mut sets = Sets::default();
        sets.hold(node(1), node(2));
        assert!(sets.release(node(2), node(1), false));
        assert!(seen(&sets, 1).is_empty());
    }

    #[test]
    fn who_comes_back_says_whom_it_holds_and_hears_who_holds_it() {
        let mut sets = Sets::default();
        // The coordinator has begun anew, and knows nothing.
        assert_eq!(sets.resume(node(1), Some(&[node(2)])), these(&[1, 2]));
        assert_eq!(seen(&sets, 2), [node(1)]);
        // Another has asked for it while it was away.
        sets.hold(node(3), node(1));
        sets.resume(node(1), Some(&[node(2)]));
        assert_eq!(seen(&sets, 1), [node(2), node(3)]);
        // It has let go of one while it was away, and that one has, too.
        sets.release(node(2), node(1), true);
        assert_eq!(sets.resume(node(1), Some(&[])), these(&[1, 2]));
        assert_eq!(seen(&sets, 1), [node(3)]);
    }

    #[test]
    fn an_older_agent_is_told_of_by_all() {
        let mut sets = Sets::default();
        sets.hold(node(1), node(2));
        assert_eq!(sets.resume(node(9), None), Touched::Everybody);
        assert_eq!(seen(&sets, 1), [node(2), node(9)]);
        // It has been updated.
        sets.resume(node(9), Some(&[]));
        assert_eq!(seen(&sets, 1), [node(2)]);
        sets.resume(node(9), None);
        assert_eq!(sets.forget(node(9)), Touched::Everybody);
        assert_eq!(sets.forget(node(1)), these(&[2]));
        assert!(seen(&sets, 2).is_empty());
    }

    #[test]
    fn ties_are_bounded() {
        let mut sets = Sets::default();
        let other = |n: usize| {
            let mut bytes = [9; 10];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            NodeId::from_bytes(bytes)
        };
        assert!((0..MOST_TIES).all(|n| sets.hold(node(1), other(n))));
        assert!(!sets.hold(node(1), node(2)) && !sets.hold(node(2), node(1)));
        assert!(sets.hold(node(1), other(0)), "one that it has is not one more");
        assert!(sets.release(node(1), other(0), false) && sets.hold(node(2), node(1)));
    }

    proptest! {
        /// Whatever happens, each end of a tie is told of the other, and who lets go of all is told of those alone who do not.
        #[test]
        fn ties_have_two_ends(steps in proptest::collection::vec((0_u8..4, 1_u8..6, 1_u8..6), 0..60)) {
            let mut sets = Sets::default();
            for (what, a, b) in steps {
                match what {
                    0 => _ = sets.hold(node(a), node(b)),
                    1 => _ = sets.release(node(a), node(b), true),
                    2 => _ = sets.resume(node(a), Some(&[node(b)])),
                    _ => _ = sets.forget(node(a)),
                }
                for (one, other) in (1..6).flat_map(|a| (1..6).map(move |b| (a, b))) {
                    let told = sets.seen_by(node(one)).contains(&node(other));
                    prop_assert_eq!(told, sets.seen_by(node(other)).contains(&node(one)));
                    prop_assert!(!told || one != other);
                    let held = sets.holds().any(|(x, y)| (x, y) == (node(one), node(other)) || (y, x) == (node(one), node(other)));
                    prop_assert_eq!(told, held, "a tie is held by somebody");
                }
            }
        }
    }
}
