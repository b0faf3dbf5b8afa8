//! Two ICE agents and a fuzzer between them, who also speaks as a peer that lies: it knows the passwords.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_protocol::map::CandidateKind;
use ring::hmac;

use super::{Unstructured, bytes, damage, pause};
use crate::ice::{Agent, Config, Credentials, Datagram, LocalCandidate, Message, answer};

const OWN: SocketAddr = address(1);
const RELAYED: SocketAddr = address(101);

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last)), 41_820)
}

fn credentials(of: &str) -> Credentials {
    Credentials { ufrag: of.repeat(4), password: of.repeat(12) }
}

/// An agent that is looked at from outside.
struct Watched {
    agent: Agent,
    now: Instant,
    /// What it sent to each address, and what came from there: requests and answers.
    checks: BTreeMap<SocketAddr, usize>,
    came: BTreeMap<SocketAddr, usize>,
    answered: BTreeMap<SocketAddr, usize>,
    flights: VecDeque<Datagram>,
}

impl Watched {
    fn new(controlling: bool) -> Self {
        let (local, remote) = (credentials("ab"), credentials("cd"));
        let mut agent = Agent::new(Config { local, remote, controlling, seed: [3; 32] });
        let now = Instant::now();
        let of = |kind, address, base| LocalCandidate { kind, address, base };
        let locals = [
            of(CandidateKind::Host, OWN, OWN),
            of(CandidateKind::ServerReflexive, address(51), OWN),
            of(CandidateKind::Relayed, RELAYED, RELAYED),
        ];
        agent.set_local_candidates(&locals, now);
        let (checks, came, answered) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { agent, now, checks, came, answered, flights: VecDeque::new() }
    }

    fn receive(&mut self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let Some(message) = Message::parse(datagram) else { return };
        *self.came.entry(from).or_default() += datagram.len();
        let _ = self.agent.handle_message(&message, datagram, (from, to), self.now);
        if let Some(reply) = answer(&message, datagram, &credentials("ab"), from) {
            assert!(reply.len() <= datagram.len(), "an answer is longer than the question");
        }
        self.collect();
    }

    fn collect(&mut self) {
        while let Some(datagram) = self.agent.poll_transmit() {
            let sent = if datagram.check.is_some() { &mut self.checks } else { &mut self.answered };
            *sent.entry(datagram.to).or_default() += datagram.bytes.len();
            self.flights.push_back(datagram);
            if self.flights.len() > 64 {
                self.flights.pop_front();
            }
        }
    }

    fn advance(&mut self, duration: Duration) {
        let until = self.now + duration.min(Duration::from_millis(500));
        let mut wakes = 0;
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.agent.handle_timeout(self.now);
            self.collect();
            wakes += 1;
            assert!(wakes < 100, "an agent turns in a circle");
        }
        self.now = until;
    }

    /// Nobody gets much that did not ask for it.
    fn check(&self, began: Instant) {
        assert!(self.checks.len() <= 20, "{} addresses were checked", self.checks.len());
        let paced = self.now.saturating_duration_since(began).as_millis() / 20 + 50;
        let sent: usize = self.checks.values().sum();
        assert!(sent as u128 <= paced * 200, "{sent} bytes of checks");
        for (to, sent) in &self.answered {
            assert!(self.came.get(to).is_some_and(|came| came >= sent), "{to} was sent more than it sent");
        }
    }
}

/// A message as a member could send it: any content, and authentic.
fn signed(class: u16, id: [u8; 12], attributes: &[u8], password: &str) -> Vec<u8> {
    let mut message = [&class.to_be_bytes()[..], &[0, 0, 0x21, 0x12, 0xa4, 0x42], &id, attributes].concat();
    let len = u16::try_from(message.len() - 20 + 24).unwrap_or(0);
    message[2..4].copy_from_slice(&len.to_be_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, &message);
    message.extend([0, 8, 0, 20]);
    message.extend(tag.as_ref());
    message
}

/// Attributes: a user name where it belongs, a priority, and what the input says.
fn attributes(class: u16, input: &mut Unstructured<'_>) -> Vec<u8> {
    let mut attributes = Vec::new();
    if class == 1 {
        attributes.extend([0, 6, 0, 17]);
        attributes.extend(b"abababab:cdcdcdcd\0\0\0");
        attributes.extend([0, 0x24, 0, 4, 0x6e, 0, 0, 1]);
    }
    for _ in 0..input.arbitrary::<u8>().unwrap_or(0) % 4 {
        let known = [0x0025u16, 0x8029, 0x802a, 0x0020, 0x0009, 0x8022, 0xc057, 0x0024, 0x0006];
        let which = usize::from(input.arbitrary::<u8>().unwrap_or(0));
        let kind = known.get(which).copied().unwrap_or_else(|| input.arbitrary().unwrap_or(0));
        let value = bytes(input);
        let value = value.get(..40).unwrap_or(value);
        attributes.extend(kind.to_be_bytes());
        attributes.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        attributes.extend(value);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    }
    attributes
}

/// Checks and answers: real ones late, repeated, damaged and from elsewhere; authentic ones with any content; and a peer
/// that announces any address.
pub fn ice_checks(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut watched = Watched::new(input.arbitrary().unwrap_or(false));
    let began = watched.now;
    for _ in 0..96 {
        let Ok(what) = input.arbitrary::<u8>() else { break };
        let from = address(input.arbitrary::<u8>().unwrap_or(2));
        let to = if what & 0x40 == 0 { OWN } else { RELAYED };
        let id = watched.flights.iter().rev().find_map(|flight| flight.check).unwrap_or([what; 12]);
        match what % 6 {
            0 => {
                let kinds = [CandidateKind::Host, CandidateKind::ServerReflexive, CandidateKind::Relayed];
                let kind = kinds[usize::from(what >> 4) % kinds.len()];
                watched.agent.add_remote_candidate(kind, from, watched.now);
                watched.collect();
            }
            1 => {
                let attributes = attributes(1, &mut input);
                watched.receive(from, to, &signed(1, [what; 12], &attributes, "abababababababababababab"));
            }
            2 => {
                let class = if what & 0x80 == 0 { 0x0101 } else { 0x0111 };
                let attributes = attributes(class, &mut input);
                let asked = watched.flights.iter().rev().find(|flight| flight.check.is_some());
                let from = asked.map_or(from, |flight| flight.to);
                watched.receive(from, to, &signed(class, id, &attributes, "cdcdcdcdcdcdcdcdcdcdcdcd"));
            }
            3 => {
                let Some(flight) = watched.flights.front() else { continue };
                let mut datagram = flight.bytes.clone();
                damage(&mut datagram, &mut input);
                watched.receive(from, to, &datagram);
            }
            4 => watched.receive(from, to, bytes(&mut input)),
            _ => watched.advance(pause(&mut input)),
        }
    }
    watched.check(began);
}
