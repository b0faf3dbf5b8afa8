//! One ICE agent: the state machine of `is`, behind bounds.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol, Sha1HmacProvider};
use ria_protocol::map::CandidateKind;
use ring::hmac;

use super::credentials::Credentials;
use super::message::{Class, Message, TransactionId};
use crate::counters::DropReason;
use crate::rng::Rng;

/// Time between two checks (Ta, RFC 8445 section 14.2: 50 ms unless told otherwise, never below 5 ms).
const PACE: Duration = Duration::from_millis(20);

/// Wait before a check is repeated; doubles each time.
const FIRST_REPEAT: Duration = Duration::from_millis(100);

/// A pair is given up after so many checks.
const MAX_CHECKS: usize = 7;

/// Most pairs (RFC 8445, section 6.1.2.5), most candidates of either end, and most addresses that checks came from
/// although nobody had announced them: what is replayed from invented addresses makes this node check no more of them.
const MAX_PAIRS: usize = 100;
const MAX_LOCAL: usize = 8;
const MAX_REMOTE: usize = 16;
const MAX_UNANNOUNCED: usize = 4;

/// Checks that are remembered until they are answered.
const MAX_UNANSWERED: usize = 128;

/// An address of this node, and the one that datagrams leave from that are seen there: its own for host and relayed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalCandidate {
    /// How it was learnt.
    pub kind: CandidateKind,
    /// Where others see this node.
    pub address: SocketAddr,
    /// What this node sends from.
    pub base: SocketAddr,
}

/// What an agent is made of.
#[derive(Debug)]
pub struct Config {
    /// This end's credentials.
    pub local: Credentials,
    /// The other end's.
    pub remote: Credentials,
    /// Whether this end nominates. When both or neither do, they settle it.
    pub controlling: bool,
    /// Seed of its randomness; unpredictable to others.
    pub seed: [u8; 32],
}

/// A datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// This node's host address, or its relayed one: then it goes through the relay.
    pub from: SocketAddr,
    /// The other end's.
    pub to: SocketAddr,
    /// Content.
    pub bytes: Vec<u8>,
    /// Of a check: its answer will bear this.
    pub check: Option<TransactionId>,
}

/// What an authentic message told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// This node's end, a host or relayed address.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// Whether it answers a check of this end, so that both directions work.
    pub answered: bool,
    /// Whether it is the first from there.
    pub first: bool,
}

/// HMAC-SHA1 by the one provider of cryptography that there is.
#[derive(Debug)]
struct Sha1;

impl Sha1HmacProvider for Sha1 {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let mut context = hmac::Context::with_key(&key);
        payloads.iter().for_each(|payload| context.update(payload));
        let mut tag = [0; 20];
        for (to, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        tag
    }
}

/// An agent for one peer.
pub struct Agent {
    ice: IceAgent,
    rng: Rng,
    /// Both ends' user name fragments and this end's password, to let in only what is meant for it.
    local: Credentials,
    remote: Credentials,
    locals: Vec<LocalCandidate>,
    /// What the other end has announced.
    announced: Vec<(CandidateKind, SocketAddr)>,
    unannounced: Vec<SocketAddr>,
    /// From where something authentic came.
    heard: Vec<SocketAddr>,
    unanswered: VecDeque<Unanswered>,
    nominated: Option<(SocketAddr, SocketAddr)>,
    outbox: VecDeque<Datagram>,
}

struct Unanswered {
    id: TransactionId,
    from: SocketAddr,
    to: SocketAddr,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent without candidates.
    pub fn new(config: Config) -> Self {
        let mut rng = Rng::new(&config.seed);
        give_randomness(&mut rng);
        let mut ice = IceAgent::with_hmac(creds(&config.local), &Sha1);
        ice.set_remote_credentials(creds(&config.remote));
        ice.set_controlling(config.controlling);
        ice.set_control_tie_breaker(rng.u64());
        ice.set_max_candidate_pairs(MAX_PAIRS);
        ice.set_timing_advance(PACE);
        ice.set_initial_stun_rto(FIRST_REPEAT);
        ice.set_max_stun_retransmits(MAX_CHECKS);
        Self {
            ice,
            rng,
            local: config.local,
            remote: config.remote,
            locals: Vec::new(),
            announced: Vec::new(),
            unannounced: Vec::new(),
            heard: Vec::new(),
            unanswered: VecDeque::new(),
            nominated: None,
            outbox: VecDeque::new(),
        }
    }

    /// Whether this end nominates at the moment.
    pub fn is_controlling(&self) -> bool {
        self.ice.controlling()
    }

    /// The pair that was nominated last: what this end sends from, and to.
    pub fn nominated(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.nominated
    }

    /// This node's candidates are these from now on; those that are gone are given up with their pairs.
    pub fn set_local_candidates(&mut self, locals: &[LocalCandidate], now: Instant) {
        let locals = locals.get(..MAX_LOCAL).unwrap_or(locals);
        give_randomness(&mut self.rng);
        for gone in self.locals.iter().filter(|known| !locals.contains(known)) {
            if let Some(candidate) = candidate(gone) {
                self.ice.invalidate_candidate(&candidate);
            }
        }
        for new in locals.iter().filter(|local| !self.locals.contains(local)) {
            if let Some(candidate) = candidate(new) {
                self.ice.add_local_candidate(candidate);
            }
        }
        self.locals = locals.to_vec();
        self.begin(now);
    }

    /// The other end has announced a candidate. The caller has seen to it that the address may be sent to.
    pub fn add_remote_candidate(&mut self, kind: CandidateKind, address: SocketAddr, now: Instant) {
        let known = self.announced.iter().any(|(_, other)| *other == address);
        if known || self.announced.len() >= MAX_REMOTE {
            return;
        }
        self.announced.push((kind, address));
        give_randomness(&mut self.rng);
        // What it sends from is its own matter.
        if let Some(candidate) = candidate(&LocalCandidate { kind, address, base: address }) {
            self.ice.add_remote_candidate(candidate);
        }
        self.begin(now);
    }

    /// The first check goes at once.
    fn begin(&mut self, now: Instant) {
        if !self.locals.is_empty() && !self.announced.is_empty() {
            self.handle_timeout(now);
        }
    }

    /// Takes a message that came `from` somewhere `to` one of this node's host or relayed addresses.
    pub fn handle_message(
        &mut self,
        message: &Message<'_>,
        bytes: &[u8],
        (from, to): (SocketAddr, SocketAddr),
        now: Instant,
    ) -> Result<Heard, DropReason> {
        let (local, answered) = match message.class {
            Class::Request => (self.admit(message, from, to)?, false),
            Class::Success | Class::Error => {
                if !message.is_by(&self.remote.password) {
                    return Err(DropReason::Unauthentic);
                }
                // Both directions of a pair must work between the same two addresses (RFC 8445, section 7.2.5.2.1).
                let asked = |sent: &Unanswered| sent.id == message.id && sent.to == from;
                let index = self.unanswered.iter().position(asked).ok_or(DropReason::Unexpected)?;
                let asked = self.unanswered.remove(index).ok_or(DropReason::Unexpected)?;
                (asked.from, message.class == Class::Success)
            }
        };
        let message = StunMessage::parse(bytes).map_err(|_| DropReason::Malformed)?;
        give_randomness(&mut self.rng);
        let packet = StunPacket { proto: Protocol::Udp, source: from, destination: local, message };
        if !self.ice.handle_packet(now, packet) {
            return Err(DropReason::Unexpected);
        }
        self.collect();
        let first = !self.heard.contains(&from);
        if first && self.heard.len() < MAX_REMOTE + MAX_UNANNOUNCED {
            self.heard.push(from);
        }
        Ok(Heard { local, remote: from, answered, first })
    }

    /// Whether a check is taken, and at which of this node's addresses.
    fn admit(
        &mut self,
        message: &Message<'_>,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        if message.ufrags != Some((&self.local.ufrag, &self.remote.ufrag)) {
            return Err(DropReason::Stranger);
        }
        if !message.is_by(&self.local.password) {
            return Err(DropReason::Unauthentic);
        }
        let base = |local: &&LocalCandidate| local.base == to;
        let local = self.locals.iter().find(base).ok_or(DropReason::Unexpected)?.base;
        let announced = self.announced.iter().any(|(_, address)| *address == from);
        if !announced && !self.unannounced.contains(&from) {
            if self.unannounced.len() >= MAX_UNANNOUNCED {
                return Err(DropReason::RateLimited);
            }
            self.unannounced.push(from);
        }
        Ok(local)
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.ice.poll_timeout()
    }

    /// Does what is due: a check at a time.
    pub fn handle_timeout(&mut self, now: Instant) {
        give_randomness(&mut self.rng);
        self.ice.handle_timeout(now);
        self.collect();
    }

    /// What to send.
    pub fn poll_transmit(&mut self) -> Option<Datagram> {
        self.outbox.pop_front()
    }

    fn collect(&mut self) {
        while let Some(event) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                self.nominated = Some((source, destination));
            }
        }
        while let Some(transmit) = self.ice.poll_transmit() {
            let (from, to) = (transmit.source, transmit.destination);
            let bytes = Vec::from(transmit.contents);
            let check = Message::parse(&bytes).filter(|m| m.class == Class::Request).map(|m| m.id);
            // Relays speak to relays: the channel between the two is there anyway, and to addresses behind a relay that joins
            // its clients within itself there is no other way.
            let relayed = (self.is_relayed(from), self.announced.contains(&(CandidateKind::Relayed, to)));
            if check.is_some() && relayed.0 != relayed.1 {
                continue;
            }
            if let Some(id) = check {
                if self.unanswered.len() >= MAX_UNANSWERED {
                    self.unanswered.pop_front();
                }
                self.unanswered.push_back(Unanswered { id, from, to });
            }
            self.outbox.push_back(Datagram { from, to, bytes, check });
        }
    }

    fn is_relayed(&self, base: SocketAddr) -> bool {
        self.locals.iter().any(|local| local.kind == CandidateKind::Relayed && local.base == base)
    }

    /// How an end of a pair was learnt.
    pub fn remote_kind(&self, address: SocketAddr) -> Option<CandidateKind> {
        self.announced.iter().find(|(_, known)| *known == address).map(|(kind, _)| *kind)
    }
}

/// The answer to an authentic check, by an end that has no agent because it looks for no way. `None` when the check is not
/// authentic.
pub fn answer(message: &Message<'_>, bytes: &[u8], local: &Credentials, from: SocketAddr) -> Option<Vec<u8>> {
    if message.class != Class::Request || !message.is_by(&local.password) {
        return None;
    }
    let asked = StunMessage::parse(bytes).ok()?;
    let mut reply = vec![0; 128];
    let hmac = |key: &[u8], payloads: &[&[u8]]| Sha1.sha1_hmac(key, payloads);
    let reply_to = StunMessage::binding_reply(asked.trans_id(), from);
    let len = reply_to.to_bytes(Some(local.password.as_bytes()), &mut reply, hmac).ok()?;
    reply.truncate(len);
    Some(reply)
}

fn creds(credentials: &Credentials) -> IceCreds {
    IceCreds { ufrag: credentials.ufrag.clone(), pass: credentials.password.clone() }
}

fn candidate(local: &LocalCandidate) -> Option<Candidate> {
    let LocalCandidate { kind, address, base } = *local;
    match kind {
        CandidateKind::Host => Candidate::host(address, Protocol::Udp),
        CandidateKind::ServerReflexive => Candidate::server_reflexive(address, base, Protocol::Udp),
        CandidateKind::Relayed => Candidate::relayed(address, base, Protocol::Udp),
    }
    .ok()
}

/// `is` draws its transaction ids from the thread's generator, which is seeded from the agent's own before each step: so
/// what it draws is as good as the agent's seed, and one seed gives one run.
fn give_randomness(rng: &mut Rng) {
    fastrand::seed(rng.u64());
}
