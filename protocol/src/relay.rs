//! A stand-alone relay and its coordinator: the key by which it becomes one, and what the two say to each other, one CBOR
//! item per binary WebSocket message at [`RELAY_PATH`](crate::RELAY_PATH).
//!
//! ```text
//! relay                                  coordinator
//!  Hello ------------------------------->
//!  <------------------------------------- Terms | Refused
//!  Load (now and then) ------------------>
//!  <------------------------------------- Deny, Admit (at once); Terms (when they change); Drain, Refused (last)
//! ```
//!
//! The relay proves by its client certificate, which it signs itself, that it holds a TLS key. The secret of its key ties
//! this TLS key to its name the first time; from then on the TLS key is what counts.

use std::fmt;

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::enrol::Authority;
use crate::id::{NetworkId, NodeId};
use crate::join_key::JoinSecret;
use crate::key_text::{self, Unreadable};
use crate::keys::SpkiHash;
use crate::name::Name;
use crate::time::UnixTime;

const PREFIX: &str = "riarelay1_";

/// Newest version of this conversation that this build speaks; it is also the oldest.
pub const RELAY_PROTOCOL: u16 = 1;

/// The name in the certificate that the coordinator issues to the relay of this name.
pub fn tls_name(relay: &Name) -> String {
    format!("{relay}.relay.ria.internal")
}

/// All that a relay needs to find, verify and be taken by its coordinator, as one line of text. It is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayKey {
    /// Where the coordinator answers, best first: `https://host[:port]`.
    #[n(0)]
    pub urls: Vec<String>,
    /// SHA-256 of the public key of the coordinator's certification authority.
    #[n(1)]
    pub ca_pin: SpkiHash,
    /// The name of the relay.
    #[n(2)]
    pub name: Name,
    /// What proves that the bearer may be that relay.
    #[n(3)]
    pub secret: JoinSecret,
}

/// A text is no key of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseRelayKeyError {
    /// Nothing there.
    #[error("the relay's key is empty; paste the whole line that begins with {PREFIX}")]
    Empty,
    /// It begins otherwise.
    #[error(
        "this is no key of a relay: it must begin with {PREFIX} (`ria-coordinator relay add NAME` on the coordinator makes one)"
    )]
    NotARelayKey,
    /// A newer format.
    #[error("this key has a newer format than this version reads; update ria-coordinator on this machine")]
    NewerFormat,
    /// Characters are missing or altered.
    #[error(
        "the relay's key is damaged (its checksum does not match); copy the whole line again, without spaces"
    )]
    Damaged,
    /// The checksum is right and the content is not, so whoever made it is at fault.
    #[error("the relay's key names no usable coordinator address; make a new one")]
    NoUrl,
}

impl RelayKey {
    /// The text form. Treat it as a password.
    pub fn to_text(&self) -> String {
        key_text::write(PREFIX, &crate::message::to_bytes(self))
    }

    /// Reads the text form; surrounding white space, letter case and an editor's byte order mark do not matter.
    pub fn parse(text: &str) -> Result<Self, ParseRelayKeyError> {
        use ParseRelayKeyError::{Damaged, Empty, NewerFormat, NoUrl, NotARelayKey};
        let content = key_text::read(PREFIX, text).map_err(|error| match error {
            Unreadable::Empty => Empty,
            Unreadable::Foreign => NotARelayKey,
            Unreadable::Newer => NewerFormat,
            Unreadable::Damaged => Damaged,
        })?;
        let key: Self = crate::message::from_bytes(&content).map_err(|_| Damaged)?;
        if key.urls.is_empty() || key.urls.iter().any(|url| !url.starts_with("https://")) {
            return Err(NoUrl);
        }
        Ok(key)
    }
}

/// From a relay to its coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromRelay {
    /// Always first.
    #[n(0)]
    Hello(#[n(0)] RelayHello),
    /// What it has to do.
    #[n(1)]
    Load(#[n(0)] RelayLoad),
}

/// A relay's first words.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayHello {
    /// Oldest version of this conversation that it speaks.
    #[n(0)]
    pub protocol_min: u16,
    /// Newest version of this conversation that it speaks.
    #[n(1)]
    pub protocol_max: u16,
    /// Version of the program, for people.
    #[n(2)]
    pub version: String,
    /// Which relay it is.
    #[n(3)]
    pub name: Name,
    /// The secret of its key, until the coordinator knows its TLS key.
    #[n(4)]
    pub secret: Option<JoinSecret>,
    /// A certificate, please: PKCS #10 request (DER) for the TLS key of this connection.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub csr: Vec<u8>,
    /// Where nodes find it.
    #[n(6)]
    pub place: RelayPlace,
}

/// Where a relay is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayPlace {
    /// Name or address; absent for the address that the coordinator sees.
    #[n(0)]
    pub host: Option<String>,
    /// UDP port of STUN and TURN.
    #[n(1)]
    pub udp_port: u16,
    /// TCP port of TURN over TLS.
    #[n(2)]
    pub tls_port: Option<u16>,
}

/// What a relay has to do. All but the first two count from its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayLoad {
    /// Allocations now.
    #[n(0)]
    pub allocations: u64,
    /// Clients over TCP now.
    #[n(1)]
    pub streams: u64,
    /// Datagrams relayed.
    #[n(2)]
    pub packets: u64,
    /// Their payload.
    #[n(3)]
    pub bytes: u64,
    /// Datagrams that went nowhere, by reason.
    #[n(4)]
    pub drops: Vec<RelayDrops>,
}

/// Datagrams that went nowhere for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayDrops {
    /// Why.
    #[n(0)]
    pub reason: String,
    /// How many.
    #[n(1)]
    pub count: u64,
}

/// From a coordinator to a relay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToRelay {
    /// All that the relay has to know; replaces what was said before.
    #[n(0)]
    Terms(#[n(0)] RelayTerms),
    /// These nodes are served no more.
    #[n(1)]
    Deny(#[n(0)] Vec<Denied>),
    /// These nodes are served again.
    #[n(2)]
    Admit(#[n(0)] Vec<NodeId>),
    /// No; the connection is closed after it.
    #[n(3)]
    Refused(#[n(0)] RelayRefusal),
    /// The coordinator is about to stop: reconnect after this many milliseconds.
    #[n(4)]
    Drain(#[n(0)] u32),
}

/// The key that credentials of a relay are made and verified with.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(transparent)]
pub struct CredentialKey(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialKey(hidden)")
    }
}

/// All that a relay has to know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayTerms {
    /// How it verifies the credentials of nodes.
    #[n(0)]
    pub key: CredentialKey,
    /// The networks that it serves; absent for all of this coordinator.
    #[n(1)]
    pub networks: Option<Vec<NetworkId>>,
    /// Nodes that are not served, though they may have credentials that look good.
    #[n(2)]
    pub denied: Vec<Denied>,
    /// Its certificate (DER), in the name [`tls_name`].
    #[cbor(n(3), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// What it shows behind its certificate.
    #[n(4)]
    pub chain: Vec<Authority>,
    /// Public keys of the authorities by which it knows its coordinator.
    #[n(5)]
    pub trusts: Vec<SpkiHash>,
    /// Where the coordinator answers, best first.
    #[n(6)]
    pub urls: Vec<String>,
    /// The coordinator's clock.
    #[n(7)]
    pub time: UnixTime,
    /// Bytes per second that one node may have relayed.
    #[n(8)]
    pub node_bytes_per_second: Option<u64>,
    /// Allocations of one node.
    #[n(9)]
    pub node_allocations: Option<u64>,
}

/// A node that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Denied {
    /// Which.
    #[n(0)]
    pub node: NodeId,
    /// Until then; its credentials have ended by that time.
    #[n(1)]
    pub until: UnixTime,
}

/// Why a coordinator refuses a relay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayRefusal {
    /// Why.
    #[n(0)]
    pub code: RelayRefusalCode,
    /// For people.
    #[n(1)]
    pub text: String,
}

/// Why a coordinator refuses a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RelayRefusalCode {
    /// No version in common.
    #[n(0)]
    ProtocolVersion,
    /// What it said can't be read, or does not belong there.
    #[n(1)]
    BadMessage,
    /// There is no relay of this name with this key.
    #[n(2)]
    KeyUnknown,
    /// The key was not used in time.
    #[n(3)]
    KeyExpired,
    /// The key belongs to another machine.
    #[n(4)]
    KeyUsed,
    /// An administrator has removed the relay.
    #[n(5)]
    Removed,
    /// The same relay has connected anew.
    #[n(6)]
    Replaced,
    /// The coordinator can't write, for example.
    #[n(7)]
    Unavailable,
}

impl RelayRefusalCode {
    /// Whether trying again later may help without anybody doing anything.
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::Unavailable | Self::Replaced | Self::BadMessage)
    }

    /// What happened and what to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ProtocolVersion => "relay and coordinator share no protocol version; update the older one",
            Self::BadMessage => "the coordinator did not understand this relay; update the older of the two",
            Self::KeyUnknown => {
                "the coordinator knows no relay with this key; make one there: ria-coordinator relay add NAME"
            }
            Self::KeyExpired => {
                "the relay's key was not used in time; on the coordinator: ria-coordinator relay remove NAME, then relay add \
                 NAME for a new one"
            }
            Self::KeyUsed => {
                "the relay's key was used by another machine, or this one has lost its data directory; on the coordinator: \
                 ria-coordinator relay remove NAME, then relay add NAME for a new one"
            }
            Self::Removed => "an administrator has removed this relay; it serves nobody any more",
            Self::Replaced => "this relay has connected once more, by another process",
            Self::Unavailable => "the coordinator can't take this relay at the moment; try again later",
        }
    }
}

impl From<RelayRefusalCode> for RelayRefusal {
    fn from(code: RelayRefusalCode) -> Self {
        Self { code, text: code.advice().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join_key::{JoinKey, ParseJoinKeyError};
    use crate::message::{from_bytes, to_bytes};

    fn key() -> RelayKey {
        RelayKey {
            urls: vec!["https://ria.lab.example".into()],
            ca_pin: SpkiHash([3; 32]),
            name: "vps".parse().unwrap(),
            secret: JoinSecret::from_bytes([9; 16]),
        }
    }

    #[test]
    fn a_key_reads_back_and_is_no_join_key() {
        let text = key().to_text();
        assert_eq!(RelayKey::parse(&format!(" {}\n", text.to_uppercase())), Ok(key()));
        assert_eq!(JoinKey::parse(&text), Err(ParseJoinKeyError::NotAJoinKey));
        assert_eq!(RelayKey::parse("ria1_abc"), Err(ParseRelayKeyError::NotARelayKey));
        assert_eq!(RelayKey::parse("riarelay2_abc"), Err(ParseRelayKeyError::NewerFormat));
        assert_eq!(RelayKey::parse(&text[..text.len() - 1]), Err(ParseRelayKeyError::Damaged));
        assert_eq!(RelayKey::parse(" "), Err(ParseRelayKeyError::Empty));
        let no_url = RelayKey { urls: Vec::new(), ..key() };
        assert_eq!(RelayKey::parse(&no_url.to_text()), Err(ParseRelayKeyError::NoUrl));
        assert!(!format!("{:?}", key()).contains("[9"));
    }

    #[test]
    fn byte_form_of_the_messages_is_fixed() {
        let node = NodeId::from_bytes([2; 10]);
        let deny = ToRelay::Deny(vec![Denied { node, until: UnixTime(1000) }]);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&to_bytes(&deny)), format!("82018181a2004a{}011903e8", "02".repeat(10)));
        let load = FromRelay::Load(RelayLoad { allocations: 1, ..RelayLoad::default() });
        assert_eq!(hex(&to_bytes(&load)), "820181a500010100020003000480");
        let hello = FromRelay::Hello(RelayHello {
            protocol_min: 1,
            protocol_max: 1,
            version: "0.1".into(),
            name: "vps".parse().unwrap(),
            secret: None,
            csr: vec![7],
            place: RelayPlace { host: None, udp_port: 3478, tls_port: Some(443) },
        });
        let bytes = to_bytes(&hello);
        assert_eq!(hex(&bytes), "820081a6000101010263302e31036376707305410706a201190d96021901bb");
        assert_eq!(from_bytes(&bytes), Ok(hello));
    }
}
