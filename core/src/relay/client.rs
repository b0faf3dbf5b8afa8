//! The state machine of one allocation.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use stun_types::attribute::ErrorCode;
use stun_types::message::{Message, MessageClass, StunWriteError, TransactionId};

use super::channels::Channels;
use super::message::{self, Ask, Challenge, Signer};
use super::{RelayCredentials, RelayEvent, RelayFailure, RelayInput, TooManyPeers, channel_header};
use crate::stun::{
    CHANNEL_HEADER, Due, Form, Outgoing, Randomness, Retransmission, Schedule, canonical, classify, parse,
};

/// Longest time between two refreshes: NATs forget a UDP binding after 30 s at the earliest (RFC 4787, section 4.3,
/// asks for two minutes; campus routers don't all listen).
pub const KEEPALIVE: Duration = Duration::from_secs(20);

/// When data went out through the relay and nothing at all came back for so long, the allocation is checked.
pub const SILENCE: Duration = Duration::from_secs(2);

/// Lifetime to ask for in seconds: the protocol's default and minimum. A node that vanished is forgotten after it.
const LIFETIME: u32 = 600;

/// Six transmissions within 7.75 s. A relay is near, or its path lossy, and a robot waits for it: so it starts faster
/// than the 500 ms that RFC 8489 has for the general case.
const SCHEDULE: Schedule = Schedule {
    initial: Duration::from_millis(250),
    longest: Duration::from_secs(2),
    sends: 6,
    last: Duration::from_secs(2),
};

/// First and longest wait after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A nonce may go stale again between challenge and answer; a server that does it more often is not for us.
const MAX_CHALLENGES: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Asks for an allocation, or for the end of a former one that is in the way.
    Allocating,
    /// Has one.
    Allocated { relayed: SocketAddr, refresh_at: Instant },
    /// Failed; tries again then.
    Waiting { until: Instant },
    /// Gives the allocation back.
    Releasing,
    /// Has none and wants none.
    Released,
}

/// Why a request was sent; there is at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Allocate,
    Refresh,
    /// A refresh signed with the new credentials: the server may let them take over the allocation.
    Adopt,
    /// Ends the allocation, or one that an earlier run of this agent left behind on the same port.
    Release,
    Bind {
        channel: u16,
        peer: SocketAddr,
    },
}

#[derive(Debug)]
struct Request {
    id: TransactionId,
    purpose: Purpose,
    bytes: Vec<u8>,
    signer: Option<Signer>,
    challenges: u8,
    timer: Retransmission,
    /// Whether anything came from the server since it was sent.
    heard: bool,
}

/// A TURN client; see the [module](super).
#[derive(Debug)]
pub struct RelayClient {
    server: SocketAddr,
    credentials: RelayCredentials,
    /// Newer credentials that the current allocation does not know.
    next_credentials: Option<RelayCredentials>,
    challenge: Option<Challenge>,
    signer: Option<Signer>,
    randomness: Randomness,
    state: State,
    mapped: Option<SocketAddr>,
    /// Ask for an IPv6 relayed address, because the server has no IPv4.
    v6: bool,
    /// A former allocation was released already during this attempt.
    released: bool,
    failures: u32,
    requests: Vec<Request>,
    channels: Channels,
    /// When the first datagram went out after which nothing came back.
    unheard_since: Option<Instant>,
    outbox: VecDeque<Outgoing>,
    events: VecDeque<RelayEvent>,
}

impl RelayClient {
    /// Starts to allocate at once.
    pub fn new(
        server: SocketAddr,
        credentials: RelayCredentials,
        randomness: Randomness,
        now: Instant,
    ) -> Self {
        let mut client = Self {
            server: canonical(server),
            credentials,
            next_credentials: None,
            challenge: None,
            signer: None,
            randomness,
            state: State::Allocating,
            mapped: None,
            v6: false,
            released: false,
            failures: 0,
            requests: Vec::new(),
            channels: Channels::default(),
            unheard_since: None,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        };
        client.allocate(now);
        client
    }

    /// The server's address: datagrams from it are for [`Self::handle_datagram`].
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The address at which others reach this node through the relay.
    pub fn relayed_address(&self) -> Option<SocketAddr> {
        match self.state {
            State::Allocated { relayed, .. } => Some(relayed),
            State::Allocating | State::Waiting { .. } | State::Releasing | State::Released => None,
        }
    }

    /// The address at which the server sees this node: its reflexive candidate.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// Takes renewed credentials. A running allocation changes over where the server allows it, else with its end.
    pub fn set_credentials(&mut self, credentials: RelayCredentials, now: Instant) {
        if credentials == self.credentials {
            self.next_credentials = None;
            return;
        }
        self.next_credentials = Some(credentials);
        match self.state {
            State::Allocated { .. } => self.send(Purpose::Adopt, 0, now),
            State::Allocating | State::Waiting { .. } => self.allocate(now),
            State::Releasing | State::Released => {}
        }
    }

    /// Gives the allocation back, for good: peers get nothing through it any more, and the server forgets it when it
    /// hears of that. Go on with this client until [`Self::is_released`].
    pub fn release(&mut self, now: Instant) {
        self.requests.clear();
        self.outbox.clear();
        self.channels = Channels::default();
        self.unheard_since = None;
        if self.challenge.is_none() {
            // It never came as far as to be given one.
            self.state = State::Released;
            return;
        }
        self.state = State::Releasing;
        self.send(Purpose::Release, 0, now);
    }

    /// Whether the server has heard of [`Self::release`], or will not any more.
    pub fn is_released(&self) -> bool {
        self.state == State::Released
    }

    /// Starts over at once, as after a change of the node's own network.
    pub fn restart(&mut self, now: Instant) {
        self.failures = 0;
        self.challenge = None;
        self.allocate(now);
    }

    /// Wants payload to and from this peer (its relayed address) until [`Self::disconnect_peer`].
    pub fn connect_peer(&mut self, peer: SocketAddr, now: Instant) -> Result<(), TooManyPeers> {
        self.channels.connect(canonical(peer), now)?;
        self.bind_due(now);
        Ok(())
    }

    /// Wants nothing more from this peer.
    pub fn disconnect_peer(&mut self, peer: SocketAddr) {
        let peer = canonical(peer);
        self.channels.disconnect(peer);
        self.requests
            .retain(|request| !matches!(request.purpose, Purpose::Bind { peer: other, .. } if other == peer));
    }

    /// The channel bound to a peer, for a data path that makes its headers itself ([`channel_header`]).
    pub fn channel(&self, peer: SocketAddr) -> Option<u16> {
        self.channels.number(canonical(peer)).filter(|_| self.relayed_address().is_some())
    }

    /// The header to put directly before `payload_len` bytes of payload, which then go to [`Self::server`]. `None`
    /// while no channel is bound: [`Self::send_to`] may get through already.
    pub fn wrap(
        &mut self,
        peer: SocketAddr,
        payload_len: usize,
        now: Instant,
    ) -> Option<[u8; CHANNEL_HEADER]> {
        let header = channel_header(self.channel(peer)?, payload_len)?;
        self.note_sent(now);
        Some(header)
    }

    /// Queues payload to a peer as a Send indication, for the moments before its channel is bound. It copies. The
    /// server drops it unless the peer's address is admitted, so it may be lost as any datagram. Returns whether there
    /// is an allocation and the peer is wanted.
    pub fn send_to(&mut self, peer: SocketAddr, payload: &[u8], now: Instant) -> bool {
        let peer = canonical(peer);
        if self.relayed_address().is_none() || !self.channels.wants(peer) {
            return false;
        }
        let id = self.randomness.transaction_id();
        let Ok(bytes) = message::send_indication(peer, payload, id) else { return false };
        self.outbox.push_back(Outgoing { to: self.server, payload: bytes });
        self.note_sent(now);
        true
    }

    /// Tells that data went to the server by [`Self::channel`], so that a silent server is noticed.
    pub fn note_sent(&mut self, now: Instant) {
        self.unheard_since.get_or_insert(now);
    }

    /// Tells that data of a channel came from the server, where the data path reads ChannelData itself.
    pub fn note_received(&mut self) {
        self.unheard_since = None;
        self.requests.iter_mut().for_each(|request| request.heard = true);
    }

    /// The peer behind a channel number, for a data path that reads ChannelData itself.
    pub fn channel_peer(&self, channel: u16) -> Option<SocketAddr> {
        self.channels.peer(channel).filter(|_| self.relayed_address().is_some())
    }

    /// Takes a datagram that arrived at the agent's socket.
    pub fn handle_datagram<'a>(
        &mut self,
        from: SocketAddr,
        datagram: &'a [u8],
        now: Instant,
    ) -> RelayInput<'a> {
        if canonical(from) != self.server {
            return RelayInput::NotOurs;
        }
        match classify(datagram) {
            None => RelayInput::NotOurs,
            Some(Form::ChannelData { channel, len }) => {
                let payload = datagram.get(CHANNEL_HEADER..CHANNEL_HEADER + len);
                match (self.channel_peer(channel), payload) {
                    (Some(peer), Some(payload)) => {
                        self.note_received();
                        RelayInput::FromPeer { peer, payload }
                    }
                    // After a restart of this agent the server may still use an old channel: no sign of life.
                    _ => RelayInput::Consumed,
                }
            }
            Some(Form::Message) => self.handle_message(datagram, now),
        }
    }

    fn handle_message<'a>(&mut self, datagram: &'a [u8], now: Instant) -> RelayInput<'a> {
        let Some(message) = parse(datagram) else { return RelayInput::Consumed };
        if let Some((peer, payload)) = message::data_indication(&message, datagram) {
            self.note_received();
            return RelayInput::FromPeer { peer, payload };
        }
        let id = message.transaction_id();
        let answers = |request: &Request| request.id == id && request.purpose.method() == message.method();
        if let Some(index) = self.requests.iter().position(answers) {
            match message.class() {
                MessageClass::Success => self.handle_success(index, &message, now),
                MessageClass::Error => self.handle_error(index, &message, now),
                MessageClass::Request | MessageClass::Indication => {}
            }
            self.bind_due(now);
        }
        RelayInput::Consumed
    }

    fn handle_success(&mut self, index: usize, message: &Message<'_>, now: Instant) {
        let signed = self.requests.get(index).and_then(|request| request.signer.as_ref());
        if !signed.is_some_and(|signer| signer.verify(message)) {
            return;
        }
        let request = self.requests.swap_remove(index);
        self.note_received();
        match request.purpose {
            Purpose::Allocate => self.handle_allocated(message, now),
            Purpose::Refresh => self.handle_refreshed(message, now),
            Purpose::Adopt => {
                if let Some(credentials) = self.next_credentials.take() {
                    self.credentials = credentials;
                    self.signer = request.signer;
                }
                self.handle_refreshed(message, now);
            }
            Purpose::Release if self.state == State::Releasing => self.state = State::Released,
            Purpose::Release => self.send(Purpose::Allocate, 0, now),
            Purpose::Bind { peer, .. } => {
                if self.channels.handle_bound(peer, now) {
                    self.events.push_back(RelayEvent::ChannelBound { peer });
                }
            }
        }
    }

    fn handle_error(&mut self, index: usize, message: &Message<'_>, now: Instant) {
        let code = message::error_code(message);
        let challenged = matches!(code, ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE);
        let Some(request) = self.requests.get(index) else { return };
        if challenged && let Some(challenge) = message::challenge(message) {
            let request = self.requests.swap_remove(index);
            self.note_received();
            self.handle_challenge(&request, code, challenge, now);
            return;
        }
        // Everything but a challenge is believed only with the server's signature (RFC 8489, section 9.2.5).
        if !request.signer.as_ref().is_some_and(|signer| signer.verify(message)) {
            return;
        }
        let request = self.requests.swap_remove(index);
        self.note_received();
        if request.purpose == Purpose::Allocate && code == ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED && !self.v6
        {
            self.v6 = true;
            self.send(Purpose::Allocate, 0, now);
            return;
        }
        self.handle_failure(request.purpose, RelayFailure::from_code(code), now);
    }

    fn handle_challenge(&mut self, request: &Request, code: u16, challenge: Challenge, now: Instant) {
        let used = request.signer.as_ref().map(Signer::nonce);
        let refused = code == ErrorCode::UNAUTHORIZED && used == Some(challenge.nonce.as_str());
        // With a wrong password some servers hand out a fresh nonce for ever.
        let tired = request.challenges >= MAX_CHALLENGES
            || (code == ErrorCode::UNAUTHORIZED && request.challenges > 1);
        if self.challenge.as_ref() != Some(&challenge) {
            self.signer = None;
            self.challenge = Some(challenge);
        }
        if refused || tired {
            self.handle_failure(request.purpose, RelayFailure::Unauthorized, now);
        } else {
            self.send(request.purpose, request.challenges + 1, now);
        }
    }

    fn handle_allocated(&mut self, message: &Message<'_>, now: Instant) {
        let Some(granted) = message::granted(message) else {
            self.handle_failure(Purpose::Allocate, RelayFailure::Refused(0), now);
            return;
        };
        self.failures = 0;
        self.mapped = granted.mapped.or(self.mapped);
        let refresh_at = self.refresh_time(message, now);
        self.state = State::Allocated { relayed: granted.relayed, refresh_at };
        self.channels.start_over(now);
        self.unheard_since = None;
        self.events.push_back(RelayEvent::Allocated { relayed: granted.relayed, mapped: self.mapped });
        if self.next_credentials.is_some() {
            self.send(Purpose::Adopt, 0, now);
        }
    }

    fn handle_refreshed(&mut self, message: &Message<'_>, now: Instant) {
        let next = self.refresh_time(message, now);
        if let State::Allocated { refresh_at, .. } = &mut self.state {
            *refresh_at = next;
        }
    }

    fn refresh_time(&mut self, message: &Message<'_>, now: Instant) -> Instant {
        let lifetime = Duration::from_secs(message::lifetime(message).unwrap_or(LIFETIME).into());
        let longest = self.randomness.jitter(KEEPALIVE * 4 / 5);
        now + longest.min(lifetime / 2).max(Duration::from_secs(1))
    }

    fn handle_failure(&mut self, purpose: Purpose, reason: RelayFailure, now: Instant) {
        if self.state == State::Releasing {
            // There is none any more, or it ends with its lifetime.
            self.state = State::Released;
            return;
        }
        match purpose {
            Purpose::Allocate if reason == RelayFailure::Mismatch && !self.released => {
                self.released = true;
                self.send(Purpose::Release, 0, now);
            }
            // There was nothing to release after all.
            Purpose::Release if reason == RelayFailure::Mismatch => self.send(Purpose::Allocate, 0, now),
            Purpose::Allocate | Purpose::Release => self.wait(reason, now),
            // The old credentials serve on until the allocation ends.
            Purpose::Adopt => {}
            Purpose::Refresh => self.lose(reason, now),
            Purpose::Bind { .. } if matches!(reason, RelayFailure::Mismatch | RelayFailure::Unauthorized) => {
                self.lose(reason, now);
            }
            Purpose::Bind { peer, .. } => {
                let randomness = &mut self.randomness;
                self.channels.handle_failed(peer, now, |failures| back_off(randomness, failures));
                self.events.push_back(RelayEvent::ChannelFailed { peer, reason });
            }
        }
    }

    fn wait(&mut self, reason: RelayFailure, now: Instant) {
        let until = now + back_off(&mut self.randomness, self.failures);
        self.failures += 1;
        self.requests.clear();
        self.state = State::Waiting { until };
        self.events.push_back(RelayEvent::Failed { reason, retry_at: until });
    }

    fn lose(&mut self, reason: RelayFailure, now: Instant) {
        if self.relayed_address().is_some() {
            self.events.push_back(RelayEvent::Lost(reason));
        }
        self.allocate(now);
    }

    fn allocate(&mut self, now: Instant) {
        if let Some(credentials) = self.next_credentials.take() {
            self.credentials = credentials;
            self.signer = None;
        }
        self.requests.clear();
        self.outbox.clear();
        self.released = false;
        self.unheard_since = None;
        self.state = State::Allocating;
        self.channels.start_over(now);
        self.send(Purpose::Allocate, 0, now);
    }

    fn bind_due(&mut self, now: Instant) {
        while self.relayed_address().is_some()
            && let Some((channel, peer)) = self.channels.poll_due(now)
        {
            self.send(Purpose::Bind { channel, peer }, 0, now);
        }
    }

    fn signer_for(&mut self, purpose: Purpose) -> Option<Signer> {
        let challenge = self.challenge.as_ref()?;
        if purpose == Purpose::Adopt {
            return self.next_credentials.as_ref().map(|credentials| Signer::new(credentials, challenge));
        }
        if self.signer.is_none() {
            self.signer = Some(Signer::new(&self.credentials, challenge));
        }
        self.signer.clone()
    }

    fn send(&mut self, purpose: Purpose, challenges: u8, now: Instant) {
        let id = self.randomness.transaction_id();
        let signer = self.signer_for(purpose);
        let written: Result<_, StunWriteError> = message::request(purpose.ask(self.v6), id, signer.as_ref());
        let Ok(bytes) = written else {
            self.handle_unusable(purpose, now);
            return;
        };
        self.requests.retain(|request| request.purpose != purpose);
        self.outbox.push_back(Outgoing { to: self.server, payload: bytes.clone() });
        let timer = Retransmission::sent(SCHEDULE, now);
        self.requests.push(Request { id, purpose, bytes, signer, challenges, timer, heard: false });
    }

    /// A user name, realm or nonce too long for STUN: without a signature no request can be made.
    fn handle_unusable(&mut self, purpose: Purpose, now: Instant) {
        if self.state == State::Releasing {
            self.state = State::Released;
            return;
        }
        match purpose {
            Purpose::Adopt => self.next_credentials = None,
            Purpose::Allocate | Purpose::Refresh | Purpose::Release | Purpose::Bind { .. } => {
                self.challenge = None;
                self.signer = None;
                self.wait(RelayFailure::Unusable, now);
            }
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.state {
            State::Allocating | State::Releasing | State::Released => None,
            State::Waiting { until } => Some(until),
            State::Allocated { refresh_at, .. } => {
                let silence = self.unheard_since.map(|since| since + SILENCE);
                [Some(refresh_at), silence, self.channels.deadline()].into_iter().flatten().min()
            }
        };
        self.requests.iter().map(|request| request.timer.deadline()).chain(own).min()
    }

    /// Sends again, refreshes, gives up, tries anew: whatever is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_request_timers(now);
        match self.state {
            State::Allocating | State::Releasing | State::Released => {}
            State::Waiting { until } => {
                if until <= now {
                    self.allocate(now);
                }
            }
            State::Allocated { relayed, refresh_at } => {
                let silent = self.unheard_since.is_some_and(|since| since + SILENCE <= now);
                if silent {
                    self.unheard_since = Some(now);
                }
                if silent || refresh_at <= now {
                    let refreshing = self.requests.iter().any(|request| request.purpose == Purpose::Refresh);
                    if !refreshing {
                        self.send(Purpose::Refresh, 0, now);
                    }
                    // The answer, or its absence, decides what comes next.
                    self.state = State::Allocated { relayed, refresh_at: now + KEEPALIVE };
                }
                self.bind_due(now);
            }
        }
    }

    fn handle_request_timers(&mut self, now: Instant) {
        let mut unanswered = Vec::new();
        let (outbox, server) = (&mut self.outbox, self.server);
        self.requests.retain_mut(|request| match request.timer.handle_timeout(now) {
            Due::Nothing => true,
            Due::Resend => {
                outbox.push_back(Outgoing { to: server, payload: request.bytes.clone() });
                true
            }
            Due::GiveUp => {
                unanswered.push((request.purpose, request.heard));
                false
            }
        });
        for (purpose, heard) in unanswered {
            if heard && purpose == Purpose::Refresh {
                // It was lost on the way, but the server is there: after an outage data may be back before the answer.
                self.send(purpose, 0, now);
            } else {
                self.handle_failure(purpose, RelayFailure::NoAnswer, now);
            }
        }
    }

    /// What to send.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.outbox.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<RelayEvent> {
        self.events.pop_front()
    }
}

impl Purpose {
    const fn ask(self, v6: bool) -> Ask {
        match self {
            Self::Allocate => Ask::Allocate { v6 },
            Self::Refresh | Self::Adopt => Ask::Refresh { lifetime: LIFETIME },
            Self::Release => Ask::Refresh { lifetime: 0 },
            Self::Bind { channel, peer } => Ask::Bind { channel, peer },
        }
    }

    const fn method(self) -> stun_types::message::Method {
        self.ask(false).method()
    }
}

/// Doubles with each failure in a row, with jitter.
fn back_off(randomness: &mut Randomness, failures: u32) -> Duration {
    let (first, longest) = BACK_OFF;
    randomness.jitter(first.saturating_mul(1 << failures.min(10)).min(longest))
}
