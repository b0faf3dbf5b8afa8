//! A TURN server that is just enough for engines in a simulation: one process, virtual relayed addresses, allocations
//! joined inside. Ria's real one is in the coordinator and has tests of its own against the same client.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use stun_types::attribute::{ErrorCode, Nonce, Realm, Username, XorMappedAddress};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass,
    MessageWriteVec, TransactionId,
};
use stun_types::prelude::{MessageWrite, MessageWriteExt};
use turn_types::attribute::{ChannelNumber, Lifetime, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, REFRESH};

/// Password of all users.
pub const PASSWORD: &str = "secret";
const REALM: &str = "sim";
const NONCE: &str = "nonce";

struct Allocation {
    /// Of the request that made it: a retransmission gets the same answer.
    request: TransactionId,
    relayed: SocketAddr,
    channels: BTreeMap<u16, SocketAddr>,
}

/// The server.
pub struct TurnServer {
    pub address: SocketAddr,
    allocations: BTreeMap<SocketAddr, Allocation>,
    next_port: u16,
}

impl TurnServer {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, allocations: BTreeMap::new(), next_port: 50_000 }
    }

    /// Forgets everything, as a restart does.
    pub fn restart(&mut self) {
        self.allocations.clear();
    }

    /// What goes out for a datagram that came in.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        match datagram.first()? {
            0x40..=0x4f => self.forward(from, datagram),
            _ => self.answer(from, &Message::from_bytes(datagram).ok()?).map(|answer| (from, answer)),
        }
    }

    fn forward(&self, from: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let source = self.allocations.get(&from)?;
        let to = source.channels.get(&u16::from_be_bytes([datagram[0], datagram[1]]))?;
        let (client, target) = self.allocations.iter().find(|(_, target)| target.relayed == *to)?;
        let back = target.channels.iter().find(|(_, peer)| **peer == source.relayed)?.0;
        let mut forwarded = datagram.to_vec();
        forwarded[..2].copy_from_slice(&back.to_be_bytes());
        Some((*client, forwarded))
    }

    fn answer(&mut self, from: SocketAddr, message: &Message<'_>) -> Option<Vec<u8>> {
        if message.class() != MessageClass::Request {
            return None;
        }
        let id = message.transaction_id();
        let writer = MessageWriteVec::new();
        if message.method() == BINDING {
            let mut answer = Message::builder_success(message, writer);
            answer.add_attribute(&XorMappedAddress::new(from, id)).unwrap();
            return Some(answer.finish());
        }
        let Ok(user) = message.attribute::<Username>() else {
            let mut answer = Message::builder_error(message, writer);
            answer.add_attribute(&ErrorCode::new(401, "who is it").unwrap()).unwrap();
            answer.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
            answer.add_attribute(&Nonce::new(NONCE).unwrap()).unwrap();
            return Some(answer.finish());
        };
        let key = key(user.username());
        message.validate_integrity_with_key(&key).ok()?;
        let mut answer = match message.method() {
            ALLOCATE => {
                if self.allocations.get(&from).is_some_and(|old| old.request != id) {
                    return Some(mismatch(message, &key));
                }
                let fresh = SocketAddr::new(self.address.ip(), self.next_port);
                self.next_port += 1;
                let allocation = self.allocations.entry(from).or_insert(Allocation {
                    request: id,
                    relayed: fresh,
                    channels: BTreeMap::new(),
                });
                let relayed = allocation.relayed;
                let mut answer = Message::builder_success(message, writer);
                answer.add_attribute(&XorRelayedAddress::new(relayed, id)).unwrap();
                answer.add_attribute(&XorMappedAddress::new(from, id)).unwrap();
                answer.add_attribute(&Lifetime::new(600)).unwrap();
                answer
            }
            method => match self.allocations.get_mut(&from) {
                None => return Some(mismatch(message, &key)),
                Some(_) if method == REFRESH => {
                    if message.attribute::<Lifetime>().is_ok_and(|lifetime| lifetime.seconds() == 0) {
                        self.allocations.remove(&from);
                    }
                    let mut answer = Message::builder_success(message, writer);
                    answer.add_attribute(&Lifetime::new(600)).unwrap();
                    answer
                }
                Some(allocation) if method == CHANNEL_BIND => {
                    let channel = message.attribute::<ChannelNumber>().ok()?.channel();
                    let peer = message.attribute::<XorPeerAddress>().ok()?.addr(id);
                    allocation.channels.insert(channel, peer);
                    Message::builder_success(message, writer)
                }
                Some(_) => return None,
            },
        };
        answer.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1).unwrap();
        Some(answer.finish())
    }
}

fn mismatch(message: &Message<'_>, key: &IntegrityKey) -> Vec<u8> {
    let mut answer = Message::builder_error(message, MessageWriteVec::new());
    answer.add_attribute(&ErrorCode::new(437, "allocation mismatch").unwrap()).unwrap();
    answer.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1).unwrap();
    answer.finish()
}

fn key(user: &str) -> IntegrityKey {
    let credentials = LongTermKeyCredentials::new(user.to_owned(), PASSWORD.to_owned(), REALM.to_owned());
    credentials.make_key(IntegrityAlgorithm::Sha1)
}
