//! The audit log's rows and the chain of hashes that ties them together.
//!
//! ```text
//! hash(n) = SHA-256( "ria audit row v1\0" || CBOR{ seq, time, actor, action, network, subject, detail, hash(n-1) } )
//! ```
//!
//! Changing, removing or inserting a row breaks the chain from there on; cutting off the end shows against the head
//! that the running coordinator holds. Storing rows is the store's business.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use minicbor::Encode;
use ria_protocol::id::{KeyId, NetworkId};
use ria_protocol::message::to_bytes;
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::person::{Person, Reported};
use crate::state::people::UserName;

const CONTEXT: &[u8] = b"ria audit row v1\0";

/// The hash of an audit row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct ChainHash(#[cbor(with = "minicbor::bytes")] [u8; 32]);

impl ChainHash {
    /// What the first row follows.
    pub const START: Self = Self([0; 32]);

    /// Its bytes.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl From<[u8; 32]> for ChainHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<ChainHash> for String {
    fn from(hash: ChainHash) -> Self {
        HEXLOWER.encode(&hash.0)
    }
}

impl TryFrom<String> for ChainHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "expected 64 hexadecimal digits";
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong)?;
        Ok(Self(bytes.try_into().map_err(|_| wrong)?))
    }
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The coordinator by itself.
    Coordinator,
    /// Somebody at the admin socket, by user id.
    Local(u32),
    /// The same, with the names that are known.
    Person(Person),
    /// Somebody who is logged in to the pages, or a program that acts for them with a token.
    User(UserName, Option<KeyId>),
    /// Somebody who is not known, from this address.
    Stranger(IpAddr),
    /// A node, about itself.
    Node(ria_protocol::id::NodeId),
    /// A node, about itself, and for whom it says that it did it.
    NodeFor(ria_protocol::id::NodeId, Reported),
}

impl Actor {
    /// The node that speaks of itself.
    pub fn node(&self) -> Option<ria_protocol::id::NodeId> {
        match self {
            Self::Node(node) | Self::NodeFor(node, _) => Some(*node),
            Self::Coordinator | Self::Local(_) | Self::Person(_) | Self::User(..) | Self::Stranger(_) => None,
        }
    }

    /// What is known beside its identity, as an entry of a row's detail: what the kernel says of a person, and what a
    /// node says.
    fn particulars(&self) -> Option<(&'static str, serde_json::Value)> {
        match self {
            Self::Person(person) => Some(("caller", person.particulars())),
            Self::NodeFor(_, reported) => Some(("reported_by_node", reported.particulars())),
            Self::User(_, Some(token)) => Some(("token", token.to_string().into())),
            Self::Coordinator | Self::Local(_) | Self::Node(_) | Self::User(_, None) | Self::Stranger(_) => {
                None
            }
        }
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coordinator"),
            Self::Local(uid) | Self::Person(Person { uid, .. }) => write!(f, "uid:{uid}"),
            Self::User(name, _) => write!(f, "user:{name}"),
            Self::Stranger(from) => write!(f, "address:{}", from.to_canonical()),
            Self::Node(node) | Self::NodeFor(node, _) => write!(f, "node:{node}"),
        }
    }
}

/// What happened, before it has its place in the chain.
#[derive(Debug, Clone)]
pub struct Event {
    pub time: UnixTime,
    pub actor: Actor,
    /// A stable word such as `node.joined`.
    pub action: &'static str,
    pub network: Option<NetworkId>,
    /// What it happened to, for people: a name or an identity.
    pub subject: String,
    /// A JSON object with the particulars.
    pub detail: serde_json::Value,
}

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub seq: u64,
    pub time: UnixTime,
    pub actor: String,
    pub action: String,
    pub network: Option<NetworkId>,
    pub subject: String,
    /// JSON text, kept as it was hashed.
    pub detail: String,
    pub prev_hash: ChainHash,
    pub hash: ChainHash,
}

#[derive(Encode)]
#[cbor(map)]
struct Hashed<'a> {
    #[n(0)]
    seq: u64,
    #[n(1)]
    time: UnixTime,
    #[n(2)]
    actor: &'a str,
    #[n(3)]
    action: &'a str,
    #[n(4)]
    network: Option<NetworkId>,
    #[n(5)]
    subject: &'a str,
    #[n(6)]
    detail: &'a str,
    #[n(7)]
    prev_hash: ChainHash,
}

impl Row {
    /// Whether nothing of it was changed since it was made.
    pub fn is_whole(&self) -> bool {
        self.hash == self.computed_hash()
    }

    fn computed_hash(&self) -> ChainHash {
        let content = to_bytes(&Hashed {
            seq: self.seq,
            time: self.time,
            actor: &self.actor,
            action: &self.action,
            network: self.network,
            subject: &self.subject,
            detail: &self.detail,
            prev_hash: self.prev_hash,
        });
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(CONTEXT);
        context.update(&content);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        ChainHash(hash)
    }
}

/// The end of the chain: what the next row follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub seq: u64,
    pub hash: ChainHash,
}

impl Head {
    /// The head of an empty log.
    pub const START: Self = Self { seq: 0, hash: ChainHash::START };

    /// The row that records `event` behind this head.
    pub fn follow(self, event: &Event) -> Row {
        let mut detail = event.detail.clone();
        if let (Some((key, value)), Some(object)) = (event.actor.particulars(), detail.as_object_mut()) {
            object.insert(key.to_owned(), value);
        }
        let mut row = Row {
            seq: self.seq + 1,
            time: event.time,
            actor: event.actor.to_string(),
            action: event.action.to_owned(),
            network: event.network,
            subject: event.subject.clone(),
            detail: detail.to_string(),
            prev_hash: self.hash,
            hash: ChainHash::START,
        };
        row.hash = row.computed_hash();
        row
    }
}

impl From<&Row> for Head {
    fn from(row: &Row) -> Self {
        Self { seq: row.seq, hash: row.hash }
    }
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("row {seq} was changed after it was written")]
    Changed { seq: u64 },
    #[error("row {expected} is missing or was replaced")]
    Missing { expected: u64 },
    #[error("row {seq} does not follow the row before it")]
    Unlinked { seq: u64 },
    #[error("the log ends at row {found}, but row {expected} was the last one written")]
    CutOff { found: u64, expected: u64 },
}

/// Checks rows one after the other, from the first.
#[derive(Debug)]
pub struct Verifier {
    head: Head,
}

impl Verifier {
    /// Begins before the first row.
    pub fn new() -> Self {
        Self { head: Head::START }
    }

    /// Begins behind a row that was verified before.
    pub fn behind(head: Head) -> Self {
        Self { head }
    }

    /// Takes the next row.
    pub fn handle_row(&mut self, row: &Row) -> Result<(), Broken> {
        if row.seq != self.head.seq + 1 {
            return Err(Broken::Missing { expected: self.head.seq + 1 });
        }
        if row.prev_hash != self.head.hash {
            return Err(Broken::Unlinked { seq: row.seq });
        }
        if row.hash != row.computed_hash() {
            return Err(Broken::Changed { seq: row.seq });
        }
        self.head = Head::from(row);
        Ok(())
    }

    /// No more rows: is this the end that was written last?
    pub fn finish(self, expected: Head) -> Result<Head, Broken> {
        if self.head == expected {
            Ok(self.head)
        } else {
            Err(Broken::CutOff { found: self.head.seq, expected: expected.seq })
        }
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u64) -> Vec<Row> {
        let mut head = Head::START;
        (0..count)
            .map(|n| {
                let row = head.follow(&Event {
                    time: UnixTime(1000 + n),
                    actor: Actor::Local(0),
                    action: "node.removed",
                    network: Some(NetworkId::from_bytes([1; 10])),
                    subject: format!("robot-{n}"),
                    detail: serde_json::json!({ "n": n }),
                });
                head = Head::from(&row);
                row
            })
            .collect()
    }

    fn verify(rows: &[Row], head: Head) -> Result<Head, Broken> {
        let mut verifier = Verifier::new();
        rows.iter().try_for_each(|row| verifier.handle_row(row))?;
        verifier.finish(head)
    }

    #[test]
    fn an_untouched_log_verifies() {
        let rows = rows(4);
        assert_eq!(verify(&rows, Head::from(&rows[3])), Ok(Head::from(&rows[3])));
        assert_eq!(verify(&[], Head::START), Ok(Head::START));
    }

    #[test]
    fn each_field_is_covered() {
        let good = rows(3);
        let head = Head::from(&good[2]);
        let tamper: [fn(&mut Row); 6] = [
            |r| r.time = UnixTime(1),
            |r| r.actor = "uid:1".into(),
            |r| r.action = "node.joined".into(),
            |r| r.network = None,
            |r| r.subject = "robot-9".into(),
            |r| r.detail = "{}".into(),
        ];
        for change in tamper {
            let mut bad = good.clone();
            change(&mut bad[1]);
            assert_eq!(verify(&bad, head), Err(Broken::Changed { seq: 2 }));
        }
    }

    #[test]
    fn removed_rewritten_and_cut_off_rows_show() {
        let good = rows(4);
        let head = Head::from(&good[3]);
        let mut without = good.clone();
        without.remove(1);
        assert_eq!(verify(&without, head), Err(Broken::Missing { expected: 2 }));
        assert_eq!(verify(&good[..2], head), Err(Broken::CutOff { found: 2, expected: 4 }));
        // A row rewritten together with its own hash no longer fits the row after it.
        let mut rewritten = good.clone();
        rewritten[1].subject = "robot-9".into();
        rewritten[1].hash = rewritten[1].computed_hash();
        assert_eq!(verify(&rewritten, head), Err(Broken::Unlinked { seq: 3 }));
    }
}
