//! The state machine of one allocation: what its owner asks of it and gets from it.

mod answers;
mod requests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use requests::{Purpose, Request};
use stun_types::message::TransactionId;

use super::channels::Channels;
use super::message::{self, Challenge, Signer};
use super::{RelayCredentials, RelayEvent, RelayInput, TooManyPeers, channel_header};
use crate::stun::{CHANNEL_HEADER, Form, Outgoing, Randomness, canonical, classify};

/// Longest time between two refreshes: NATs forget a UDP binding after 30 s at the earliest (RFC 4787, section 4.3,
/// asks for two minutes; campus routers don't all listen).
pub const KEEPALIVE: Duration = Duration::from_secs(20);

/// When data went out through the relay and nothing at all came back for so long, the allocation is checked.
pub const SILENCE: Duration = Duration::from_secs(2);

/// Lifetime to ask for in seconds: the protocol's default and minimum. A node that vanished is forgotten after it.
const LIFETIME: u32 = 600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Asks for an allocation, or for the end of a former one that is in the way.
    Allocating,
    /// Has ended a former allocation; a late copy of that request would end the next one, too.
    Clearing { until: Instant },
    /// Has one.
    Allocated { relayed: SocketAddr, refresh_at: Instant },
    /// Failed; tries again then.
    Waiting { until: Instant },
    /// Gives the allocation back.
    Releasing,
    /// Has none and wants none.
    Released,
}

/// How patiently requests are sent again, and attempts repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Over UDP, to a relay that is needed.
    Steady,
    /// Over UDP, while another way serves.
    Spared,
    /// Over a stream.
    Reliable,
}

/// A TURN client; see the [module](super).
#[derive(Debug)]
pub struct RelayClient {
    server: SocketAddr,
    pace: Pace,
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
    /// The relayed address of an allocation that nothing was heard of any more, and that the server may still hold.
    former: Option<SocketAddr>,
    /// A former allocation was released already during this attempt.
    released: bool,
    /// The request that this allocation was the answer to.
    granted: Option<(TransactionId, Signer)>,
    failures: u32,
    requests: Vec<Request>,
    channels: Channels,
    /// When the first datagram went out after which nothing came back.
    unheard_since: Option<Instant>,
    /// When the first request went out since which nothing came, over however many attempts.
    deaf_since: Option<Instant>,
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
        Self::with_pace(server, Pace::Steady, credentials, randomness, now)
    }

    /// The same over a stream that is open: nothing gets lost there, so nothing is sent twice (RFC 8489, section 6.2.2).
    pub fn over_stream(
        server: SocketAddr,
        credentials: RelayCredentials,
        randomness: Randomness,
        now: Instant,
    ) -> Self {
        Self::with_pace(server, Pace::Reliable, credentials, randomness, now)
    }

    fn with_pace(
        server: SocketAddr,
        pace: Pace,
        credentials: RelayCredentials,
        randomness: Randomness,
        now: Instant,
    ) -> Self {
        let mut client = Self {
            server: canonical(server),
            pace,
            credentials,
            next_credentials: None,
            challenge: None,
            signer: None,
            randomness,
            state: State::Allocating,
            mapped: None,
            v6: false,
            former: None,
            released: false,
            granted: None,
            failures: 0,
            requests: Vec::new(),
            channels: Channels::default(),
            unheard_since: None,
            deaf_since: None,
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
            State::Allocating
            | State::Clearing { .. }
            | State::Waiting { .. }
            | State::Releasing
            | State::Released => None,
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
            State::Allocating | State::Clearing { .. } | State::Waiting { .. } => self.allocate(now),
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
        if matches!(self.state, State::Releasing | State::Released) {
            return;
        }
        (self.challenge, self.former, self.granted) = (None, None, None);
        self.try_anew(now);
    }

    fn try_anew(&mut self, now: Instant) {
        self.failures = 0;
        self.deaf_since = None;
        self.allocate(now);
    }

    /// The network may be there again, or be another: asks at once whether the allocation is still known, or for one.
    pub fn prod(&mut self, now: Instant) {
        match self.state {
            State::Allocated { .. } => self.send(Purpose::Refresh, 0, now),
            State::Allocating | State::Clearing { .. } | State::Waiting { .. } => self.try_anew(now),
            State::Releasing | State::Released => {}
        }
    }

    /// Since when the server has left everything unanswered; refusals are answers too.
    pub fn deaf_since(&self) -> Option<Instant> {
        // An answer to what nobody asks any more is not looked at.
        let asks = |request: &Request| !request.heard;
        let allocated = self.relayed_address().is_some();
        self.deaf_since.filter(|_| !allocated || self.requests.iter().any(asks))
    }

    /// While another way serves, a server that does not answer is asked only now and then.
    pub fn set_spared(&mut self, spared: bool) {
        if self.pace != Pace::Reliable {
            self.pace = if spared { Pace::Spared } else { Pace::Steady };
        }
    }

    /// A path through the relay has died: finds out whether the server is still there.
    pub fn check(&mut self, now: Instant) {
        let refreshing = self.requests.iter().any(|request| request.purpose == Purpose::Refresh);
        if self.relayed_address().is_some() && !refreshing {
            self.send(Purpose::Refresh, 0, now);
        }
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

    /// Whether payload to and from this peer is wanted.
    pub fn wants(&self, peer: SocketAddr) -> bool {
        self.channels.wants(canonical(peer))
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
        self.deaf_since = None;
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

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.state {
            State::Allocating | State::Releasing | State::Released => None,
            State::Clearing { until } | State::Waiting { until } => Some(until),
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
            State::Clearing { until } => {
                if until <= now {
                    self.state = State::Allocating;
                    self.send(Purpose::Allocate, 0, now);
                }
            }
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

    /// What to send.
    pub fn poll_transmit(&mut self) -> Option<Outgoing> {
        self.outbox.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<RelayEvent> {
        self.events.pop_front()
    }
}
