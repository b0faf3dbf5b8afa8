//! A TURN server that is just enough for engines in a simulation: one process, virtual relayed addresses, allocations
//! joined inside. Ria's real one is in the coordinator and has tests of its own against the same client.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use stun_types::attribute::{AttributeWrite, ErrorCode, Nonce, Realm, Username, XorMappedAddress};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageType,
    MessageWriteVec, TransactionId,
};
use stun_types::prelude::{MessageWrite, MessageWriteExt};
use turn_types::attribute::{ChannelNumber, Data, Lifetime, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, DATA, REFRESH, SEND};

/// Password of all users.
pub const PASSWORD: &str = "secret";
const REALM: &str = "sim";

/// Seconds that an allocation lasts, as the server says. It never ends one by itself.
const LIFETIME: u32 = 600;

struct Allocation {
    /// Of the request that made it: a retransmission gets the same answer.
    request: TransactionId,
    relayed: SocketAddr,
    channels: BTreeMap<u16, SocketAddr>,
}

/// The server.
pub struct TurnServer {
    /// Where it answers.
    pub address: SocketAddr,
    allocations: BTreeMap<SocketAddr, Allocation>,
    next_port: u16,
    /// Counts restarts: nonces of an earlier run are stale.
    run: u32,
}

impl TurnServer {
    /// A server without allocations.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, allocations: BTreeMap::new(), next_port: 50_000, run: 0 }
    }

    /// How many allocations there are.
    pub fn len(&self) -> usize {
        self.allocations.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.allocations.is_empty()
    }

    /// Forgets everything, as a restart does.
    pub fn restart(&mut self) {
        self.allocations.clear();
        self.run += 1;
    }

    fn challenge(&self, message: &Message<'_>, code: u16) -> Option<Vec<u8>> {
        let code = ErrorCode::new(code, "sign with this nonce").ok()?;
        error(message, None, &[&code, &Realm::new(REALM).ok()?, &Nonce::new(&self.nonce()).ok()?])
    }

    fn nonce(&self) -> String {
        format!("nonce-{}", self.run)
    }

    /// What goes out for a datagram that came in.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        match datagram.first()? {
            0x40..=0x4f => self.forward_channel(from, datagram),
            _ => {
                let message = Message::from_bytes(datagram).ok()?;
                if message.class() == MessageClass::Indication && message.method() == SEND {
                    let to = message.attribute::<XorPeerAddress>().ok()?.addr(message.transaction_id());
                    return self.forward(from, to, message.attribute::<Data<'_>>().ok()?.data());
                }
                self.answer(from, &message).map(|answer| (from, answer))
            }
        }
    }

    fn forward_channel(&self, from: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let channel = u16::from_be_bytes(*datagram.first_chunk()?);
        let to = self.allocations.get(&from)?.channels.get(&channel)?;
        let len = u16::from_be_bytes(*datagram.get(2..)?.first_chunk()?);
        self.forward(from, *to, datagram.get(4..4 + usize::from(len))?)
    }

    /// Permissions are for addresses without ports (RFC 8656, section 9), so a target that has a channel to any
    /// allocation of this relay hears all of them.
    fn forward(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let source = self.allocations.get(&from)?.relayed;
        let (client, target) = self.allocations.iter().find(|(_, target)| target.relayed == to)?;
        if let Some((channel, _)) = target.channels.iter().find(|(_, peer)| **peer == source) {
            let len = u16::try_from(payload.len()).ok()?;
            return Some((*client, [&channel.to_be_bytes()[..], &len.to_be_bytes(), payload].concat()));
        }
        if target.channels.values().all(|peer| peer.ip() != source.ip()) {
            return None;
        }
        let id = TransactionId::from(u128::from(target.relayed.port()));
        let kind = MessageType::from_class_method(MessageClass::Indication, DATA);
        let indication = Message::builder(kind, id, MessageWriteVec::new());
        finish(indication, None, &[&XorPeerAddress::new(source, id), &Data::new(payload)])
            .map(|bytes| (*client, bytes))
    }

    fn answer(&mut self, from: SocketAddr, message: &Message<'_>) -> Option<Vec<u8>> {
        if message.class() != MessageClass::Request {
            return None;
        }
        let id = message.transaction_id();
        if message.method() == BINDING {
            return success(message, None, &[&XorMappedAddress::new(from, id)]);
        }
        let (Ok(user), Ok(nonce)) = (message.attribute::<Username>(), message.attribute::<Nonce>()) else {
            return self.challenge(message, 401);
        };
        if nonce.nonce() != self.nonce() {
            return self.challenge(message, 438);
        }
        let key = key(user.username());
        message.validate_integrity_with_key(&key).ok()?;
        if message.method() == ALLOCATE {
            return self.allocate(from, message, &key);
        }
        let Some(allocation) = self.allocations.get_mut(&from) else { return mismatch(message, &key) };
        match message.method() {
            REFRESH => {
                if message.attribute::<Lifetime>().is_ok_and(|lifetime| lifetime.seconds() == 0) {
                    self.allocations.remove(&from);
                }
                success(message, Some(&key), &[&Lifetime::new(LIFETIME)])
            }
            CHANNEL_BIND => {
                let channel = message.attribute::<ChannelNumber>().ok()?.channel();
                let peer = message.attribute::<XorPeerAddress>().ok()?.addr(id);
                allocation.channels.insert(channel, peer);
                success(message, Some(&key), &[])
            }
            _ => None,
        }
    }

    fn allocate(&mut self, from: SocketAddr, message: &Message<'_>, key: &IntegrityKey) -> Option<Vec<u8>> {
        let id = message.transaction_id();
        if self.allocations.get(&from).is_some_and(|old| old.request != id) {
            return mismatch(message, key);
        }
        let fresh = SocketAddr::new(self.address.ip(), self.next_port);
        self.next_port = self.next_port.checked_add(1).unwrap_or(20_000);
        let channels = BTreeMap::new();
        let allocation =
            self.allocations.entry(from).or_insert(Allocation { request: id, relayed: fresh, channels });
        let relayed = XorRelayedAddress::new(allocation.relayed, id);
        let mapped = XorMappedAddress::new(from, id);
        success(message, Some(key), &[&relayed, &mapped, &Lifetime::new(LIFETIME)])
    }
}

fn success(
    request: &Message<'_>,
    key: Option<&IntegrityKey>,
    attributes: &[&dyn AttributeWrite],
) -> Option<Vec<u8>> {
    finish(Message::builder_success(request, MessageWriteVec::new()), key, attributes)
}

fn error(
    request: &Message<'_>,
    key: Option<&IntegrityKey>,
    attributes: &[&dyn AttributeWrite],
) -> Option<Vec<u8>> {
    finish(Message::builder_error(request, MessageWriteVec::new()), key, attributes)
}

fn finish(
    mut answer: MessageWriteVec,
    key: Option<&IntegrityKey>,
    attributes: &[&dyn AttributeWrite],
) -> Option<Vec<u8>> {
    for attribute in attributes {
        answer.add_attribute(*attribute).ok()?;
    }
    if let Some(key) = key {
        answer.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1).ok()?;
    }
    Some(answer.finish())
}

fn mismatch(message: &Message<'_>, key: &IntegrityKey) -> Option<Vec<u8>> {
    error(message, Some(key), &[&ErrorCode::new(437, "allocation mismatch").ok()?])
}

fn key(user: &str) -> IntegrityKey {
    let credentials = LongTermKeyCredentials::new(user.to_owned(), PASSWORD.to_owned(), REALM.to_owned());
    credentials.make_key(IntegrityAlgorithm::Sha1)
}
