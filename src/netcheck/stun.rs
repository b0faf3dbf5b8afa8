//! The STUN messages of a measurement (RFC 8489, RFC 5780): Binding requests that may ask for an answer from elsewhere,
//! and what the answers say.

use std::net::{IpAddr, SocketAddr};

use ria_protocol::behaviour::{ALTERNATE_PORT, CHANGE_REQUEST, OTHER_ADDRESS};
use stun_types::attribute::{AttributeType, MappedSocketAddr, RawAttribute, XorMappedAddress};
use stun_types::message::{BINDING, MAGIC_COOKIE, Message, MessageClass, MessageType, MessageWriteVec};
use stun_types::prelude::{MessageWrite, MessageWriteExt};

/// Length of a STUN header, and of the shortest message.
pub const HEADER: usize = 20;

/// SOFTWARE: passed over by servers, and so good for filling a message up.
const FILLER: u16 = 0x8022;

/// Length of an attribute's header.
const ATTRIBUTE_HEADER: usize = 4;

/// What a server says in its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Which request it answers.
    pub id: u128,
    /// Where the request came from, as the server saw it.
    pub mapped: SocketAddr,
    /// The server's other address and port.
    pub other_address: Option<SocketAddr>,
    /// The server's other port at the same address.
    pub alternate_port: Option<u16>,
}

/// A Binding request, filled up to a length where one is given; `change` are the flags of CHANGE-REQUEST.
pub fn request(id: u128, change: Option<u32>, len: usize) -> Vec<u8> {
    let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
    let mut message = Message::builder(kind, id.into(), MessageWriteVec::with_capacity(len.max(HEADER)));
    let flags = change.map(u32::to_be_bytes);
    if let Some(flags) = &flags {
        // Only fails for a second one.
        let _ = message.add_attribute(&RawAttribute::new(AttributeType::new(CHANGE_REQUEST), flags));
    }
    let used = HEADER + if flags.is_some() { ATTRIBUTE_HEADER + 4 } else { 0 } + ATTRIBUTE_HEADER;
    let filler = vec![b'.'; len.saturating_sub(used)];
    if !filler.is_empty() {
        let _ = message.add_attribute(&RawAttribute::new(AttributeType::new(FILLER), &filler));
    }
    message.finish()
}

/// The messages in bytes where several may follow each other.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [_, _, c, d, ..] = bytes else { return None };
        let len = HEADER + usize::from(u16::from_be_bytes([*c, *d]));
        let (message, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        Some(message)
    })
}

/// Reads a success response.
pub fn reply(datagram: &[u8]) -> Option<Reply> {
    let message = parse(datagram)?;
    if message.class() != MessageClass::Success || message.method() != BINDING {
        return None;
    }
    let id = message.transaction_id();
    let mapped = canonical(message.attribute::<XorMappedAddress>().ok()?.addr(id));
    let raw = |kind| message.raw_attribute(AttributeType::new(kind));
    let other = raw(OTHER_ADDRESS).and_then(|raw| MappedSocketAddr::from_raw(&raw).ok());
    let port = raw(ALTERNATE_PORT).and_then(|raw| raw.value.first_chunk().copied().map(u16::from_be_bytes));
    Some(Reply {
        id: id.into(),
        mapped,
        other_address: other.map(|other| canonical(other.addr())).filter(|other| other.port() != 0),
        alternate_port: port.filter(|port| *port != 0),
    })
}

/// The number of a Binding request, such as one that comes back to its sender.
pub fn request_id(datagram: &[u8]) -> Option<u128> {
    let message = parse(datagram)?;
    let is_request = message.class() == MessageClass::Request && message.method() == BINDING;
    is_request.then(|| message.transaction_id().into())
}

/// IPv4 that is mapped into IPv6 is IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

fn parse(datagram: &[u8]) -> Option<Message<'_>> {
    // The form is checked first, because the codec logs a warning for each message that it refuses.
    let [a, _, c, d, rest @ ..] = datagram else { return None };
    let len = usize::from(u16::from_be_bytes([*c, *d]));
    let cookie = rest.first_chunk() == Some(&MAGIC_COOKIE.to_be_bytes());
    let formed = *a < 0x40 && cookie && len % 4 == 0 && datagram.len() == HEADER + len;
    formed.then(|| Message::from_bytes(datagram).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use ria_protocol::behaviour::{CHANGE_PORT, REQUEST_LEN};

    use super::*;

    #[test]
    fn requests_have_the_length_asked_for_and_their_number() {
        for len in [0, HEADER + 8, REQUEST_LEN, 1472] {
            let bytes = request(77, Some(CHANGE_PORT), len);
            assert_eq!(bytes.len(), len.max(HEADER + 8));
            assert_eq!(request_id(&bytes), Some(77));
            assert_eq!(reply(&bytes), None);
        }
        assert_eq!(request(1, None, 0).len(), HEADER);
    }

    #[test]
    fn answers_tell_of_the_other_places() {
        let kind = MessageType::from_class_method(MessageClass::Success, BINDING);
        let mut message = Message::builder(kind, 5u128.into(), MessageWriteVec::new());
        let mapped: SocketAddr = "198.51.100.7:41820".parse().unwrap();
        message.add_attribute(&XorMappedAddress::new(mapped, 5u128.into())).unwrap();
        let other = MappedSocketAddr::new("192.0.2.3:50001".parse().unwrap());
        message.add_attribute(&other.to_raw(AttributeType::new(OTHER_ADDRESS)).into_owned()).unwrap();
        let port = [0xc3, 0x51, 0, 0];
        message.add_attribute(&RawAttribute::new(AttributeType::new(ALTERNATE_PORT), &port)).unwrap();
        let read = reply(&message.finish()).unwrap();
        assert_eq!((read.id, read.mapped, read.alternate_port), (5, mapped, Some(50001)));
        assert_eq!(read.other_address, Some(other.addr()));
    }

    #[test]
    fn garbage_is_no_message() {
        let two = [request(1, None, 0), request(2, Some(0), 40)].concat();
        let ids: Vec<_> = messages(&two).map(request_id).collect();
        assert_eq!(ids, [Some(1), Some(2)]);
        for bytes in [&b""[..], b"ssh", &[0; 19], &[0; 20], &[0xff; 64]] {
            assert!(reply(bytes).is_none() && request_id(bytes).is_none());
        }
    }
}
