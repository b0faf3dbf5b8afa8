//! Whom relays must refuse: nodes that were removed or disabled, for as long as credentials of theirs may look good.

use std::collections::BTreeMap;

use ria_protocol::id::NodeId;
use ria_protocol::relay::Denied;
use ria_protocol::time::UnixTime;
use tokio::sync::watch;

/// Nodes, and until when each is refused.
pub type DenyList = BTreeMap<NodeId, UnixTime>;

/// The list as it is now, for whoever wants to hear of its changes.
#[derive(Debug, Default)]
pub struct Denials {
    list: watch::Sender<DenyList>,
}

impl Denials {
    /// A node is refused from now on.
    pub fn deny(&self, node: NodeId, until: UnixTime, now: UnixTime) {
        self.list.send_modify(|list| {
            list.retain(|_, until| now <= *until);
            list.insert(node, until);
        });
    }

    /// It is not any more.
    pub fn admit(&self, node: NodeId) {
        self.list.send_if_modified(|list| list.remove(&node).is_some());
    }

    /// Hears of changes.
    pub fn subscribe(&self) -> watch::Receiver<DenyList> {
        self.list.subscribe()
    }
}

/// What leads from one list to another: whom to refuse now, and whom no more. What has ended by itself is not told.
pub fn difference(before: &DenyList, after: &DenyList, now: UnixTime) -> (Vec<Denied>, Vec<NodeId>) {
    let denied = after.iter().filter(|(node, until)| before.get(node) != Some(until));
    let admitted = before.iter().filter(|(node, until)| now <= **until && !after.contains_key(node));
    (
        denied.map(|(node, until)| Denied { node: *node, until: *until }).collect(),
        admitted.map(|(node, _)| *node).collect(),
    )
}

/// The whole list.
pub fn whole(list: &DenyList) -> Vec<Denied> {
    difference(&DenyList::new(), list, UnixTime(0)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_is_told_and_what_has_ended_is_forgotten() {
        let denials = Denials::default();
        let heard = denials.subscribe();
        let [a, b, c] = [1, 2, 3].map(|n| NodeId::from_bytes([n; 10]));
        denials.deny(a, UnixTime(100), UnixTime(0));
        denials.deny(b, UnixTime(200), UnixTime(0));
        let first = heard.borrow().clone();
        assert_eq!(whole(&first).len(), 2);
        denials.admit(b);
        denials.deny(c, UnixTime(300), UnixTime(150));
        let second = heard.borrow().clone();
        let (denied, admitted) = difference(&first, &second, UnixTime(150));
        assert_eq!(denied, [Denied { node: c, until: UnixTime(300) }]);
        assert_eq!(admitted, [b], "the first one's time is over by itself");
        denials.deny(c, UnixTime(400), UnixTime(150));
        let (denied, admitted) = difference(&second, &heard.borrow(), UnixTime(150));
        assert_eq!((denied.len(), admitted.len()), (1, 0), "a longer time is told");
    }
}
