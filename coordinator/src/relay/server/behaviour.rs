//! What the relay answers to those who want to know how the NATs before them behave (RFC 5780): Binding requests with
//! CHANGE-REQUEST are answered from another port, or another address where the relay listens at two.
//!
//! The other ports are any that are free, and need not be published: only what leaves by them matters. They take
//! Binding requests and nothing else. An answer goes to whoever asked and is never longer than the question was.

use std::net::{IpAddr, SocketAddr};

use ria_protocol::behaviour::{
    ALTERNATE_PORT, CHANGE_IP, CHANGE_PORT, CHANGE_REQUEST, OTHER_ADDRESS, RESPONSE_ORIGIN,
};
use stun_types::attribute::{AttributeType, MappedSocketAddr, RawAttribute, XorMappedAddress};
use stun_types::message::Message;
use stun_types::prelude::AttributeWrite;

use super::{Action, DropReason, Server, Tuple, Via, reply};

/// The relay's sockets as far as they matter here: the published ones, then as many others, each at the address of the
/// published one of the same rank.
#[derive(Debug, Default)]
pub struct Alternates {
    sockets: Vec<SocketAddr>,
}

impl Alternates {
    /// The addresses that all sockets are bound to; none where there are no other ports.
    pub fn new(sockets: Vec<SocketAddr>) -> Self {
        Self { sockets }
    }

    fn published(&self) -> usize {
        self.sockets.len() / 2
    }

    /// Whether a socket is one of the others.
    pub(super) fn is_one(&self, via: Via) -> bool {
        matches!(via, Via::Socket(index) if !self.sockets.is_empty() && index >= self.published())
    }

    /// The same address by the other port.
    fn other_port(&self, from: Tuple) -> Option<Tuple> {
        let count = self.published();
        let index = socket(from.via)?;
        let other = if index < count { index + count } else { index.checked_sub(count)? };
        self.sockets.get(other)?;
        Some(Tuple { via: Via::Socket(other), ..from })
    }

    /// Another address by the same port, where the relay was told to listen at two of one family.
    fn other_ip(&self, from: Tuple) -> Option<Tuple> {
        let usable =
            |ip: IpAddr| !ip.is_unspecified() && ip.is_ipv6() == from.local.is_ipv6() && ip != from.local;
        let half = self.published();
        let index = socket(from.via)?;
        let rank = index.checked_rem(half)?;
        let own = self.sockets.get(rank)?.ip();
        if own.is_unspecified() {
            return None;
        }
        let others = self.sockets.iter().take(half).map(|socket| socket.ip());
        let (other, local) = others.enumerate().find(|(_, ip)| usable(*ip))?;
        let via = Via::Socket(if index < half { other } else { other + half });
        Some(Tuple { via, local, ..from })
    }

    fn address(&self, at: Tuple) -> Option<SocketAddr> {
        Some(SocketAddr::new(at.local, self.sockets.get(socket(at.via)?)?.port()))
    }
}

/// Over a stream there is nothing to find out about a NAT's filtering.
fn socket(via: Via) -> Option<usize> {
    match via {
        Via::Socket(index) => Some(index),
        Via::Stream(_) | Via::Outside(_) => None,
    }
}

/// What a CHANGE-REQUEST asks for; `None` without one, or with a damaged one.
fn change(message: &Message<'_>) -> Option<u32> {
    let raw = message.raw_attribute(AttributeType::new(CHANGE_REQUEST))?;
    let value: &[u8] = &raw.value;
    value.try_into().map(u32::from_be_bytes).ok()
}

/// The answer to a Binding request.
pub(super) fn handle_binding(
    server: &mut Server,
    from: Tuple,
    message: &Message<'_>,
) -> Result<Action, DropReason> {
    let (to, written) = match change(message) {
        None => (from, reply::binding(message, from.remote)),
        Some(flags) => {
            let to = origin(&server.alternates, from, flags).ok_or(DropReason::Unexpected)?;
            (to, full(&server.alternates, from, to, message))
        }
    };
    server.output = written.ok_or(DropReason::Malformed)?;
    Ok(Action::Send(to))
}

/// From where the answer is to come; `None` when the relay has no such place, for an answer from elsewhere would be a
/// wrong one.
fn origin(alternates: &Alternates, from: Tuple, flags: u32) -> Option<Tuple> {
    let moved = if flags & CHANGE_IP == 0 { Some(from) } else { alternates.other_ip(from) };
    if flags & CHANGE_PORT == 0 { moved } else { alternates.other_port(moved?) }
}

/// An answer that tells of the other places, as far as the question was long enough.
fn full(alternates: &Alternates, from: Tuple, to: Tuple, message: &Message<'_>) -> Option<Vec<u8>> {
    let other_port = alternates.other_port(from);
    let other_address = alternates.other_ip(from).and_then(|at| alternates.other_port(at));
    let address = |at: Option<Tuple>, kind: u16| {
        let address = MappedSocketAddr::new(alternates.address(at?)?);
        Some(address.to_raw(AttributeType::new(kind)).into_owned())
    };
    let port = other_port.and_then(|at| alternates.address(at)).map(|at| at.port().to_be_bytes());
    let port = port.map(|[a, b]| [a, b, 0, 0]);
    let more: Vec<RawAttribute<'_>> = [
        address(Some(to), RESPONSE_ORIGIN),
        address(other_address, OTHER_ADDRESS),
        port.as_ref().map(|port| RawAttribute::new(AttributeType::new(ALTERNATE_PORT), port)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mapped = XorMappedAddress::new(from.remote, message.transaction_id());
    let mut attributes: Vec<&dyn AttributeWrite> = vec![&mapped];
    attributes.extend(more.iter().map(|attribute| attribute as &dyn AttributeWrite));
    let written = reply::success(message, &attributes, None)?;
    if written.len() > message.as_bytes().len() {
        reply::binding(message, from.remote)
    } else {
        Some(written)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rand_core::OsRng;
    use ria_protocol::behaviour::REQUEST_LEN;
    use ria_protocol::time::UnixTime;
    use stun_types::attribute::Software;
    use stun_types::message::{BINDING, MessageClass, MessageType, MessageWriteVec};
    use stun_types::prelude::{MessageWrite, MessageWriteExt};

    use super::super::{Clock, ServerConfig};
    use super::*;
    use crate::relay::{Limits, Terms};

    fn server(sockets: &[&str]) -> Server {
        let limits = Limits { strangers_per_second: 5, ..Limits::default() };
        let config = ServerConfig { terms: Terms::new([1; 32]), external: Vec::new(), outside: None, limits };
        let mut server = Server::new(config, Box::new(OsRng), Instant::now());
        server.alternates = Alternates::new(sockets.iter().map(|s| s.parse().unwrap()).collect());
        server
    }

    fn request(flags: Option<u32>, long: bool) -> Vec<u8> {
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let mut message = Message::builder(kind, 7u128.into(), MessageWriteVec::new());
        if let Some(flags) = flags {
            let flags = flags.to_be_bytes();
            let attribute = RawAttribute::new(AttributeType::new(CHANGE_REQUEST), &flags);
            message.add_attribute(&attribute).unwrap();
        }
        if long {
            message.add_attribute(&Software::new(&".".repeat(REQUEST_LEN - 32)).unwrap()).unwrap();
        }
        message.finish()
    }

    fn at(listener: usize) -> Tuple {
        let local = "198.51.100.2".parse().unwrap();
        Tuple { via: Via::Socket(listener), local, remote: "192.0.2.9:5000".parse().unwrap() }
    }

    fn ask(server: &mut Server, from: Tuple, mut datagram: Vec<u8>) -> Option<(Tuple, Vec<u8>)> {
        let clock = Clock { now: Instant::now(), unix: UnixTime(1) };
        match server.handle(from, &mut datagram, clock) {
            Action::Send(to) => {
                assert_eq!(to.remote, from.remote, "never to anybody else");
                // A challenge is longer than a bare Allocate; how many there are is bounded elsewhere.
                assert!(server.output().len() <= datagram.len().max(80), "no amplification");
                Some((to, server.output().to_vec()))
            }
            Action::Drop => None,
            Action::Forward(_) | Action::Wrap(..) | Action::Unwrap(_) => panic!("nothing to forward"),
        }
    }

    fn raw(answer: &[u8], kind: u16) -> Option<Vec<u8>> {
        let message = Message::from_bytes(answer).unwrap();
        message.raw_attribute(AttributeType::new(kind)).map(|raw| raw.value.to_vec())
    }

    #[test]
    fn a_relay_with_one_address_answers_from_its_other_port_and_names_it() {
        let mut server = server(&["[::]:3478", "[::]:50001"]);
        let (to, answer) = ask(&mut server, at(0), request(Some(0), true)).unwrap();
        assert_eq!((to.via, to.local), (Via::Socket(0), at(0).local));
        assert_eq!(raw(&answer, ALTERNATE_PORT).unwrap()[..2], 50001u16.to_be_bytes());
        assert_eq!(raw(&answer, OTHER_ADDRESS), None, "RFC 5780: only with a second address");
        let (to, _) = ask(&mut server, at(0), request(Some(CHANGE_PORT), true)).unwrap();
        assert_eq!(to.via, Via::Socket(1));
        assert_eq!(ask(&mut server, at(0), request(Some(CHANGE_IP), true)), None);
        assert_eq!(ask(&mut server, at(1), request(Some(CHANGE_PORT), true)).unwrap().0.via, Via::Socket(0));
    }

    #[test]
    fn a_relay_at_two_addresses_answers_from_each_place() {
        let sockets = ["198.51.100.2:3478", "198.51.100.3:3478", "198.51.100.2:50001", "198.51.100.3:50002"];
        let mut server = server(&sockets);
        let places = [(CHANGE_IP, 1), (CHANGE_PORT, 2), (CHANGE_IP | CHANGE_PORT, 3)];
        for (flags, listener) in places {
            let (to, answer) = ask(&mut server, at(0), request(Some(flags), true)).unwrap();
            assert_eq!(to.via, Via::Socket(listener));
            let other = raw(&answer, OTHER_ADDRESS).unwrap();
            assert_eq!(other, [0, 1, 0xc3, 0x52, 198, 51, 100, 3]);
        }
    }

    #[test]
    fn short_questions_get_short_answers_and_many_get_none() {
        let mut server = server(&["[::]:3478", "[::]:50001"]);
        let (_, answer) = ask(&mut server, at(0), request(Some(0), false)).unwrap();
        assert_eq!((answer.len(), raw(&answer, ALTERNATE_PORT)), (32, None));
        let (_, plain) = ask(&mut server, at(0), request(None, false)).unwrap();
        assert_eq!(plain.len(), 32);
        let more = (0..20).filter(|_| ask(&mut server, at(0), request(Some(CHANGE_PORT), true)).is_some());
        assert!(more.count() <= 5, "bounded per address and second");
    }

    #[test]
    fn the_other_ports_serve_nothing_but_binding_requests() {
        let mut server = server(&["[::]:3478", "[::]:50001"]);
        let kind = MessageType::from_class_method(MessageClass::Request, turn_types::message::ALLOCATE);
        let allocate = Message::builder(kind, 9u128.into(), MessageWriteVec::new()).finish();
        let clock = Clock { now: Instant::now(), unix: UnixTime(1) };
        let is_answered = |server: &mut Server, listener| {
            matches!(server.handle(at(listener), &mut allocate.clone(), clock), Action::Send(_))
        };
        assert!(is_answered(&mut server, 0), "challenged");
        assert!(!is_answered(&mut server, 1));
        assert!(ask(&mut server, at(1), request(None, false)).is_some());
    }
}
