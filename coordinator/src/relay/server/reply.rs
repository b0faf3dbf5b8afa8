//! Writing the server's messages.

use std::net::SocketAddr;

use stun_types::attribute::{AttributeType, ErrorCode, Nonce, Realm, UnknownAttributes, XorMappedAddress};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, Message, MessageClass, MessageType, MessageWriteVec, StunWriteError,
    TransactionId,
};
use stun_types::prelude::{AttributeWrite, MessageWrite, MessageWriteExt};
use turn_types::attribute::{Data, XorPeerAddress};
use turn_types::message::DATA;

/// Largest payload of an indication: the largest UDP payload over IPv4 less header and attributes.
const MAX_INDICATION: usize = 65_507 - 64;

fn begin(class: MessageClass, request: &Message<'_>) -> MessageWriteVec {
    let kind = MessageType::from_class_method(class, request.method());
    Message::builder(kind, request.transaction_id(), MessageWriteVec::with_capacity(128))
}

fn finish(mut message: MessageWriteVec, key: Option<&IntegrityKey>) -> Result<Vec<u8>, StunWriteError> {
    if let Some(key) = key {
        message.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1)?;
    }
    Ok(message.finish())
}

/// A success response; signed where there is a key.
pub(super) fn success(
    request: &Message<'_>,
    attributes: &[&dyn AttributeWrite],
    key: Option<&IntegrityKey>,
) -> Option<Vec<u8>> {
    let mut message = begin(MessageClass::Success, request);
    for attribute in attributes {
        message.add_attribute(*attribute).ok()?;
    }
    finish(message, key).ok()
}

/// An error response to somebody who has shown credentials.
pub(super) fn error(request: &Message<'_>, code: u16, key: Option<&IntegrityKey>) -> Option<Vec<u8>> {
    let mut message = begin(MessageClass::Error, request);
    message.add_attribute(&reason(code)?).ok()?;
    finish(message, key).ok()
}

/// 420 with the attributes that were not understood.
pub(super) fn unknown_attributes(
    request: &Message<'_>,
    unknown: &[AttributeType],
    key: Option<&IntegrityKey>,
) -> Option<Vec<u8>> {
    let mut message = begin(MessageClass::Error, request);
    message.add_attribute(&reason(ErrorCode::UNKNOWN_ATTRIBUTE)?).ok()?;
    message.add_attribute(&UnknownAttributes::new(unknown)).ok()?;
    finish(message, key).ok()
}

/// 401 or 438 with realm and nonce, unsigned.
pub(super) fn challenge(request: &Message<'_>, code: u16, realm: &str, nonce: &str) -> Option<Vec<u8>> {
    let mut message = begin(MessageClass::Error, request);
    message.add_attribute(&reason(code)?).ok()?;
    message.add_attribute(&Realm::new(realm).ok()?).ok()?;
    message.add_attribute(&Nonce::new(nonce).ok()?).ok()?;
    finish(message, None).ok()
}

/// The reason phrase stays empty: the code says it all, and a short answer can't amplify.
fn reason(code: u16) -> Option<ErrorCode> {
    ErrorCode::new(code, "").ok()
}

/// The answer to a Binding request.
pub(super) fn binding(request: &Message<'_>, client: SocketAddr) -> Option<Vec<u8>> {
    success(request, &[&XorMappedAddress::new(client, request.transaction_id())], None)
}

/// A Data indication; `None` when the payload is too long.
pub(super) fn data_indication(source: SocketAddr, payload: &[u8], id: TransactionId) -> Option<Vec<u8>> {
    if payload.len() > MAX_INDICATION {
        return None;
    }
    let kind = MessageType::from_class_method(MessageClass::Indication, DATA);
    let mut message = Message::builder(kind, id, MessageWriteVec::with_capacity(payload.len() + 64));
    message.add_attribute(&XorPeerAddress::new(source, id)).ok()?;
    message.add_attribute(&Data::new(payload)).ok()?;
    Some(message.finish())
}
