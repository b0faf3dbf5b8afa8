//! TURN messages as the client makes and reads them (RFC 8656 section 18, RFC 8489 section 9.2).

use std::net::SocketAddr;

use stun_types::attribute::{ErrorCode, Nonce, Realm, Username, XorMappedAddress};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message, MessageClass, MessageType,
    MessageWriteVec, Method, StunWriteError, TransactionId,
};
use stun_types::prelude::{AttributeStaticType, AttributeWrite, MessageWrite, MessageWriteExt};
use turn_types::AddressFamily;
use turn_types::attribute::{
    ChannelNumber, Data, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress,
    XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, DATA, REFRESH, SEND};

use super::{RelayCredentials, RelayFailure};
use crate::stun::canonical;

/// Realm and nonce that the server asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) realm: String,
    pub(super) nonce: String,
}

/// Everything with which a request is signed. The key takes two hash runs, so it is kept.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    username: String,
    realm: String,
    nonce: String,
    key: IntegrityKey,
}

impl Signer {
    pub(super) fn new(credentials: &RelayCredentials, challenge: &Challenge) -> Self {
        let long_term = LongTermKeyCredentials::new(
            credentials.username.clone(),
            credentials.password.clone(),
            challenge.realm.clone(),
        );
        Self {
            username: credentials.username.clone(),
            realm: challenge.realm.clone(),
            nonce: challenge.nonce.clone(),
            key: long_term.make_key(IntegrityAlgorithm::Sha1),
        }
    }

    pub(super) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Whether the server signed this message with the shared key.
    pub(super) fn verify(&self, message: &Message<'_>) -> bool {
        message.validate_integrity_with_key(&self.key).is_ok()
    }

    fn sign(&self, message: &mut MessageWriteVec) -> Result<(), StunWriteError> {
        message.add_attribute(&Username::new(&self.username)?)?;
        message.add_attribute(&Realm::new(&self.realm)?)?;
        message.add_attribute(&Nonce::new(&self.nonce)?)?;
        message.add_message_integrity_with_key(&self.key, IntegrityAlgorithm::Sha1)
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// An allocation, of the server's default family (IPv4) or of IPv6.
    Allocate { v6: bool },
    /// That the allocation lives on for so many seconds; 0 ends it.
    Refresh { lifetime: u32 },
    /// A channel to a peer.
    Bind { channel: u16, peer: SocketAddr },
}

impl Ask {
    pub(super) const fn method(&self) -> Method {
        match self {
            Self::Allocate { .. } => ALLOCATE,
            Self::Refresh { .. } => REFRESH,
            Self::Bind { .. } => CHANNEL_BIND,
        }
    }
}

/// Writes a request.
pub(super) fn request(
    ask: Ask,
    id: TransactionId,
    signer: Option<&Signer>,
) -> Result<Vec<u8>, StunWriteError> {
    let kind = MessageType::from_class_method(MessageClass::Request, ask.method());
    let mut message = Message::builder(kind, id, MessageWriteVec::with_capacity(256));
    match ask {
        Ask::Allocate { v6 } => {
            message.add_attribute(&RequestedTransport::new(RequestedTransport::UDP))?;
            if v6 {
                message.add_attribute(&RequestedAddressFamily::new(AddressFamily::IPV6))?;
            }
        }
        Ask::Refresh { lifetime } => message.add_attribute(&Lifetime::new(lifetime))?,
        Ask::Bind { channel, peer } => {
            message.add_attribute(&ChannelNumber::new(channel))?;
            message.add_attribute(&XorPeerAddress::new(peer, id))?;
        }
    }
    if let Some(signer) = signer {
        signer.sign(&mut message)?;
    }
    Ok(message.finish())
}

/// Writes a Send indication behind what `out` holds; fails for payloads that don't fit a datagram.
pub(super) fn send_indication(
    peer: SocketAddr,
    payload: &[u8],
    id: TransactionId,
) -> Result<Vec<u8>, StunWriteError> {
    if payload.len() > MAX_INDICATION {
        return Err(StunWriteError::TooLarge { expected: MAX_INDICATION, actual: payload.len() });
    }
    let kind = MessageType::from_class_method(MessageClass::Indication, SEND);
    let write = MessageWriteVec::with_capacity(payload.len() + 64);
    let mut message = Message::builder(kind, id, write);
    let attributes: [&dyn AttributeWrite; 2] = [&XorPeerAddress::new(peer, id), &Data::new(payload)];
    for attribute in attributes {
        message.add_attribute(attribute)?;
    }
    Ok(message.finish())
}

/// Largest payload of an indication: the largest UDP payload over IPv4 less header and attributes.
const MAX_INDICATION: usize = 65_507 - 64;

/// The peer and the payload of a Data indication, borrowed from the datagram.
pub(super) fn data_indication<'a>(
    message: &Message<'_>,
    datagram: &'a [u8],
) -> Option<(SocketAddr, &'a [u8])> {
    if message.class() != MessageClass::Indication || message.method() != DATA {
        return None;
    }
    let peer = message.attribute::<XorPeerAddress>().ok()?.addr(message.transaction_id());
    let (offset, attribute) = message.raw_attribute_and_offset(Data::TYPE)?;
    let start = offset + 4;
    let payload = datagram.get(start..start + usize::from(attribute.header.length()))?;
    Some((canonical(peer), payload))
}

/// What an Allocate was answered with.
pub(super) struct Granted {
    pub(super) relayed: SocketAddr,
    pub(super) mapped: Option<SocketAddr>,
}

/// Reads the addresses of a successful Allocate response.
pub(super) fn granted(message: &Message<'_>) -> Option<Granted> {
    let id = message.transaction_id();
    let relayed = canonical(message.attribute::<XorRelayedAddress>().ok()?.addr(id));
    let mapped = message.attribute::<XorMappedAddress>().ok().map(|mapped| canonical(mapped.addr(id)));
    Some(Granted { relayed, mapped })
}

/// The lifetime in seconds that the server granted.
pub(super) fn lifetime(message: &Message<'_>) -> Option<u32> {
    message.attribute::<Lifetime>().ok().map(|lifetime| lifetime.seconds())
}

/// The error code of an error response; 0 when it has none.
pub(super) fn error_code(message: &Message<'_>) -> u16 {
    message.attribute::<ErrorCode>().map_or(0, |error| error.code())
}

/// Realm and nonce of a 401 or 438.
pub(super) fn challenge(message: &Message<'_>) -> Option<Challenge> {
    let realm = message.attribute::<Realm>().ok()?.realm().to_owned();
    let nonce = message.attribute::<Nonce>().ok()?.nonce().to_owned();
    Some(Challenge { realm, nonce })
}

impl RelayFailure {
    pub(super) fn from_code(code: u16) -> Self {
        match code {
            ErrorCode::UNAUTHORIZED | ErrorCode::WRONG_CREDENTIALS => Self::Unauthorized,
            ErrorCode::FORBIDDEN => Self::Forbidden,
            ErrorCode::ALLOCATION_MISMATCH => Self::Mismatch,
            ErrorCode::ALLOCATION_QUOTA_REACHED => Self::QuotaReached,
            ErrorCode::INSUFFICIENT_CAPACITY => Self::NoCapacity,
            other => Self::Refused(other),
        }
    }
}
