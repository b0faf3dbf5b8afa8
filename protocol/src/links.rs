//! What a node tells of its links to other members, and of what it is connected by: for people who look at the network as a
//! whole. Nothing depends on it; a coordinator keeps it in memory, and forgets it when it stops.
//!
//! Told rarely and of changes only: all links once in the beginning, then those that take another path, or whose round-trip
//! time has become quite another one.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// Links that one node tells of; a network with more members is too large to be looked at link by link.
pub const MOST_LINKS: usize = 256;

/// What has happened, in one message.
pub const MOST_HAPPENED: usize = 64;

/// The way that packets to a peer take.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum LinkPath {
    /// There is none, although both are there.
    #[n(0)]
    None,
    /// To the peer itself.
    #[n(1)]
    Direct,
    /// Over a relay that is reached by UDP.
    #[n(2)]
    RelayUdp,
    /// Over a relay that is reached by TLS.
    #[n(3)]
    RelayTls,
}

impl LinkPath {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Direct => "direct",
            Self::RelayUdp => "relay_udp",
            Self::RelayTls => "relay_tls",
        }
    }
}

impl std::fmt::Display for LinkPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A node's link to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LinkReport {
    /// The peer.
    #[n(0)]
    pub peer: NodeId,
    /// The path in use.
    #[n(1)]
    pub path: LinkPath,
    /// Its smoothed round-trip time in microseconds, once that is known.
    #[n(2)]
    pub rtt: Option<u32>,
    /// Name of the relay, for a relayed path.
    #[n(3)]
    pub relay: Option<String>,
}

/// What a node is connected by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Uplink {
    /// The interface; empty while there is none.
    #[n(0)]
    pub interface: String,
    /// `wifi`, `ethernet`, `mobile`, `other`, or `unknown`.
    #[n(1)]
    pub kind: String,
    /// Name of the Wi-Fi network.
    #[n(2)]
    pub ssid: Option<String>,
    /// Hardware address of the access point.
    #[n(3)]
    pub access_point: Option<String>,
}

/// What has happened on a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// Traffic to a peer takes another path.
    #[n(0)]
    Path(#[n(0)] PathChange),
    /// The node is connected by something else than before.
    #[n(1)]
    Uplink(#[n(0)] Uplink),
}

/// Another path to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PathChange {
    /// The peer.
    #[n(0)]
    pub peer: NodeId,
    /// Path before.
    #[n(1)]
    pub before: LinkPath,
    /// Path now.
    #[n(2)]
    pub after: LinkPath,
    /// For how many milliseconds nothing came through; absent where the one before worked on.
    #[n(3)]
    pub gap: Option<u32>,
    /// Why, for people.
    #[n(4)]
    pub reason: String,
}

/// Something that has happened, and when.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Happened {
    /// How many milliseconds ago.
    #[n(0)]
    pub ago: u32,
    /// What.
    #[n(1)]
    pub what: What,
}

/// News of a node's links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LinkNews {
    /// Whether `links` are all there are, or those that have changed.
    #[n(0)]
    pub whole: bool,
    /// Links; at most [`MOST_LINKS`].
    #[n(1)]
    pub links: Vec<LinkReport>,
    /// Peers to whom there is no link any more.
    #[n(2)]
    pub gone: Vec<NodeId>,
    /// What has happened, oldest first; at most [`MOST_HAPPENED`].
    #[n(3)]
    pub happened: Vec<Happened>,
}

impl LinkNews {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        !self.whole && self.links.is_empty() && self.gone.is_empty() && self.happened.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeMessage, from_bytes, to_bytes};

    #[test]
    fn byte_form_of_news_is_fixed() {
        let peer = NodeId::from_bytes([2; 10]);
        let change = PathChange {
            peer,
            before: LinkPath::RelayUdp,
            after: LinkPath::Direct,
            gap: None,
            reason: "a".into(),
        };
        let uplink =
            Uplink { interface: "w".into(), kind: "wifi".into(), ssid: Some("l".into()), access_point: None };
        let news = LinkNews {
            whole: true,
            links: vec![LinkReport { peer, path: LinkPath::Direct, rtt: Some(300), relay: None }],
            gone: vec![peer],
            happened: vec![
                Happened { ago: 5, what: What::Path(change) },
                Happened { ago: 0, what: What::Uplink(uplink) },
            ],
        };
        let message = NodeMessage::Links(news);
        let bytes = to_bytes(&message);
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let id = format!("4a{}", "02".repeat(10));
        let link = format!("a300{id}01010219012c");
        let path = format!("820081a400{id}01020201046161");
        let uplink = "820181a3006177016477696669 02616c".replace(' ', "");
        assert_eq!(text, format!("82181e81a400f50181{link}0281{id}0382a2000501{path}a2000001{uplink}"));
        assert_eq!(from_bytes(&bytes), Ok(message));
    }
}
