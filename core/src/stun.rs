//! STUN (RFC 8489): telling its datagrams from others, transaction ids, retransmission, and the client of one Binding
//! request, with which a node learns its reflexive address where no TURN server gives it one.
//!
//! ```text
//!  first byte        what arrives at the agent's UDP port (RFC 7983, section 7)
//!  0x00 .. 0x03      STUN: magic cookie at byte 4, and a length that fits   (WireGuard's 1..4 fail both)
//!  0x40 .. 0x4f      TURN ChannelData (RFC 8656, section 12.4)
//! ```
//!
//! The codec is `stun-types`. TURN is in [`crate::relay`].

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun_types::attribute::{ErrorCode, XorMappedAddress};
use stun_types::message::{
    BINDING, MAGIC_COOKIE, Message, MessageClass, MessageType, MessageWriteVec, TransactionId,
};
use stun_types::prelude::MessageWrite;

/// Length of a STUN header, and of the shortest STUN message.
const STUN_HEADER: usize = 20;

/// Length of the header that precedes the payload in a ChannelData message.
pub const CHANNEL_HEADER: usize = 4;

/// A datagram to be sent, made by a control protocol (never on the data path).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub to: SocketAddr,
    /// Payload.
    pub payload: Vec<u8>,
}

/// What a datagram is by its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A STUN or TURN message.
    Message,
    /// A ChannelData message of this channel; `len` bytes of payload follow the header.
    ChannelData {
        /// Channel number.
        channel: u16,
        /// Length of the payload.
        len: usize,
    },
}

/// Tells STUN and TURN from everything else by form alone; who sent it is not looked at.
pub fn classify(datagram: &[u8]) -> Option<Form> {
    let [a, b, c, d, rest @ ..] = datagram else { return None };
    let len = usize::from(u16::from_be_bytes([*c, *d]));
    match a {
        0x00..=0x03 => {
            let cookie = rest.get(..4)? == MAGIC_COOKIE.to_be_bytes();
            (cookie && len % 4 == 0 && datagram.len() == STUN_HEADER + len).then_some(Form::Message)
        }
        0x40..=0x4f => {
            // Over UDP the sender may pad to four bytes (RFC 8656, section 12.5).
            (rest.len() >= len && rest.len() - len < 4)
                .then_some(Form::ChannelData { channel: u16::from_be_bytes([*a, *b]), len })
        }
        _ => None,
    }
}

/// Whether a datagram has the form of STUN or of TURN's ChannelData.
pub fn is_stun_or_channel(datagram: &[u8]) -> bool {
    classify(datagram).is_some()
}

/// Parses a STUN message of sound form.
pub(crate) fn parse(datagram: &[u8]) -> Option<Message<'_>> {
    // The form is checked first, because the codec logs a warning for each message that it refuses.
    (classify(datagram) == Some(Form::Message)).then(|| Message::from_bytes(datagram).ok()).flatten()
}

/// An address as it is compared and reported: IPv4 that is mapped into IPv6 becomes IPv4 again.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// Unpredictable transaction ids and jitter from a seed that the caller drew: SHA-256 of seed and counter.
#[derive(Clone)]
pub struct Randomness {
    seed: [u8; 32],
    counter: u64,
}

impl std::fmt::Debug for Randomness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Randomness")
    }
}

impl Randomness {
    /// A sequence of its own for each seed.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    fn next(&mut self) -> u128 {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(&self.seed);
        hash.update(&self.counter.to_be_bytes());
        self.counter += 1;
        let mut word = [0; 16];
        for (to, from) in word.iter_mut().zip(hash.finish().as_ref()) {
            *to = *from;
        }
        u128::from_be_bytes(word)
    }

    /// A fresh transaction id (96 bits, RFC 8489 section 5).
    pub fn transaction_id(&mut self) -> TransactionId {
        self.next().into()
    }

    /// A duration between three quarters and five quarters of this one, so that nodes don't act in step.
    pub fn jitter(&mut self, duration: Duration) -> Duration {
        let eighth = (self.next() % 1024) as u32;
        duration * 3 / 4 + duration / 2 * eighth / 1024
    }
}

/// How often a request is sent again before its sender gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Wait after the first transmission; doubles with each further one.
    pub(crate) initial: Duration,
    /// Longest wait between transmissions.
    pub(crate) longest: Duration,
    /// Number of transmissions.
    pub(crate) sends: u32,
    /// Wait after the last one.
    pub(crate) last: Duration,
}

/// RFC 8489 section 6.2.1: 500 ms doubling, seven transmissions, at last 16 times the first wait; 39.5 s in all.
const BINDING_SCHEDULE: Schedule = Schedule {
    initial: Duration::from_millis(500),
    longest: Duration::from_secs(16),
    sends: 7,
    last: Duration::from_secs(8),
};

/// What is due for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// Send it once more.
    Resend,
    /// No answer came.
    GiveUp,
}

/// Retransmission state of one request that was just sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retransmission {
    schedule: Schedule,
    wait: Duration,
    first: Instant,
    sent: u32,
    next: Instant,
}

impl Retransmission {
    pub(crate) fn sent(schedule: Schedule, now: Instant) -> Self {
        Self { schedule, wait: schedule.initial, first: now, sent: 1, next: now + schedule.initial }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.next
    }

    /// An answer has come: until when copies of the request may still arrive at the server. `None` when there are none.
    pub(crate) fn copies_until(&self, now: Instant) -> Option<Instant> {
        // The way there takes no longer than the exchange has.
        (self.sent > 1).then(|| now + now.saturating_duration_since(self.first))
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Due {
        if now < self.next {
            return Due::Nothing;
        }
        if self.sent >= self.schedule.sends {
            return Due::GiveUp;
        }
        self.sent += 1;
        self.wait = (self.wait * 2).min(self.schedule.longest);
        let wait = if self.sent == self.schedule.sends { self.schedule.last } else { self.wait };
        self.next = now + wait;
        Due::Resend
    }
}

/// What a [`BindingClient`] found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingEvent {
    /// The server sees this node at this address (XOR-MAPPED-ADDRESS).
    Mapped(SocketAddr),
    /// The server answered with this error code.
    Refused(u16),
    /// The server did not answer within 39.5 s.
    NoAnswer,
}

#[derive(Debug)]
struct Query {
    id: TransactionId,
    bytes: Vec<u8>,
    timer: Retransmission,
}

/// Asks one STUN server, once, at which address it sees this node.
#[derive(Debug)]
pub struct BindingClient {
    server: SocketAddr,
    randomness: Randomness,
    query: Option<Query>,
    mapped: Option<SocketAddr>,
    outbox: VecDeque<Outgoing>,
    events: VecDeque<BindingEvent>,
}

impl BindingClient {
    /// Asks at once.
    pub fn new(server: SocketAddr, randomness: Randomness, now: Instant) -> Self {
        let mut client = Self {
            server: canonical(server),
            randomness,
            query: None,
            mapped: None,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        };
        client.restart(now);
        client
    }

    /// Asks again, as after a change of network. What was learnt before stays until there is an answer.
    pub fn restart(&mut self, now: Instant) {
        let id = self.randomness.transaction_id();
        let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
        let bytes = Message::builder(kind, id, MessageWriteVec::new()).finish();
        self.outbox.clear();
        self.outbox.push_back(Outgoing { to: self.server, payload: bytes.clone() });
        self.query = Some(Query { id, bytes, timer: Retransmission::sent(BINDING_SCHEDULE, now) });
    }

    /// The address that the server saw last.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// Takes a datagram; returns whether it was the answer waited for.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let Some(query) = self.query.as_ref().filter(|_| canonical(from) == self.server) else {
            return false;
        };
        let Some(message) = parse(datagram) else { return false };
        if message.transaction_id() != query.id || message.method() != BINDING {
            return false;
        }
        let event = match message.class() {
            MessageClass::Success => {
                let Ok(mapped) = message.attribute::<XorMappedAddress>() else { return false };
                let mapped = canonical(mapped.addr(message.transaction_id()));
                self.mapped = Some(mapped);
                BindingEvent::Mapped(mapped)
            }
            MessageClass::Error => {
                BindingEvent::Refused(message.attribute::<ErrorCode>().map_or(0, |error| error.code()))
            }
            MessageClass::Request | MessageClass::Indication => return false,
        };
        self.query = None;
        self.events.push_back(event);
        true
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.query.as_ref().map(|query| query.timer.deadline())
    }

    /// Sends the request again, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(query) = &mut self.query else { return };
        match query.timer.handle_timeout(now) {
            Due::Nothing => {}
            Due::Resend => self.outbox.push_back(Outgoing { to: self.server, payload: query.bytes.clone() }),
            Due::GiveUp => {
                self.query = None;
                self.events.push_back(BindingEvent::NoAnswer);
            }
        }
    }

    /// What to send.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.outbox.pop_front()
    }

    /// What was found out.
    pub fn poll_event(&mut self) -> Option<BindingEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests;
