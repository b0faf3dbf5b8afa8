//! The protocol: a state machine that takes datagrams and says where they go. No sockets, no clock, no randomness of
//! its own.
//!
//! Data comes as ChannelData nearly always; [`Table::route`] finds its way with one look-up, and the two bytes of the
//! channel number are all that changes. Requests go to [`requests`].

mod auth;
mod behaviour;
mod outside;
mod rates;
mod reply;
mod requests;
mod strangers;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::RngCore;
use ria_protocol::id::NodeId;
use ria_protocol::time::UnixTime;
use stun_types::message::{MAGIC_COOKIE, Message};

use super::counters::{Counters, DropReason};
use super::credentials::Owner;
use super::{Limits, Terms};
use auth::Authority;
pub use behaviour::Alternates;
pub use outside::{Outside, PeerPolicy, SocketOrder};
use rates::Rates;
use strangers::Strangers;
use table::{Hop, Table};

/// How often lapsed allocations are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Length of the header before a channel's payload.
pub const CHANNEL_HEADER: usize = 4;

/// Over what a client speaks to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// By datagrams, to the socket of this index.
    Socket(usize),
    /// By the stream of this number; none has the same as another one.
    Stream(u64),
    /// No client, but somebody outside: by the socket of the relayed address of this port.
    Outside(u16),
}

/// Between whom datagrams travel: over what, at which of the relay's addresses, and the other end. IPv4 is never written
/// as mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Over what.
    pub via: Via,
    /// The relay's address.
    pub local: IpAddr,
    /// The client's address.
    pub remote: SocketAddr,
}

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// For durations.
    pub now: Instant,
    /// For the expiry of credentials.
    pub unix: UnixTime,
}

/// What to do with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing; counted already.
    Drop,
    /// Send the datagram, which was changed in place.
    Forward(Tuple),
    /// Send [`Server::output`].
    Send(Tuple),
    /// Send what stands behind the header of ChannelData, without padding.
    Unwrap(Tuple),
    /// Send the datagram with this header before it.
    Wrap(Tuple, [u8; CHANNEL_HEADER]),
}

/// Settings of a [`Server`].
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// See [`super::RelayConfig::terms`].
    pub terms: Terms,
    /// See [`super::RelayConfig::external`].
    pub external: Vec<IpAddr>,
    /// See [`super::RelayConfig::outside`].
    pub outside: Option<Outside>,
    /// Bounds.
    pub limits: Limits,
}

/// The relay's state.
pub struct Server {
    config: ServerConfig,
    authority: Authority,
    strangers: Strangers,
    table: Table,
    alternates: Alternates,
    rates: Option<Rates>,
    random: Box<dyn RngCore + Send>,
    counters: Arc<Counters>,
    output: Vec<u8>,
    sweep_at: Option<Instant>,
}

impl Server {
    /// A relay without allocations.
    pub fn new(config: ServerConfig, mut random: Box<dyn RngCore + Send>, now: Instant) -> Self {
        let authority = Authority::new(&config.terms, random.as_mut(), now);
        Self {
            strangers: Strangers::new(config.limits.strangers_per_second),
            rates: config.terms.bytes_per_second_of_node.map(Rates::new),
            config,
            authority,
            table: Table::default(),
            alternates: Alternates::default(),
            random,
            counters: Arc::new(Counters::default()),
            output: Vec::new(),
            sweep_at: None,
        }
    }

    /// There are other ports to answer from, for those who ask how their NAT behaves.
    pub fn set_alternates(&mut self, alternates: Alternates) {
        self.alternates = alternates;
    }

    /// The counters, to be read from anywhere.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Takes a datagram.
    pub fn handle(&mut self, from: Tuple, datagram: &mut [u8], clock: Clock) -> Action {
        let handled = match datagram.first() {
            Some(0x40..=0x7f) => self.handle_channel_data(from, datagram, clock.now),
            Some(0x00..=0x03) => self.handle_message(from, datagram, clock),
            _ => Err(DropReason::Malformed),
        };
        handled.unwrap_or_else(|reason| {
            self.counters.dropped(reason, 1);
            Action::Drop
        })
    }

    /// What [`Action::Send`] sends.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    fn handle_channel_data(
        &mut self,
        from: Tuple,
        datagram: &mut [u8],
        now: Instant,
    ) -> Result<Action, DropReason> {
        let (header, body) = datagram.split_at_mut_checked(CHANNEL_HEADER).ok_or(DropReason::Malformed)?;
        let &mut [a, b, c, d] = header else { return Err(DropReason::Malformed) };
        let len = usize::from(u16::from_be_bytes([c, d]));
        // Over UDP the sender may pad to four bytes (RFC 8656, section 12.5).
        if body.len() < len || body.len() - len >= 4 {
            return Err(DropReason::Malformed);
        }
        let route = self.table.route(from, u16::from_be_bytes([a, b]), now)?;
        self.admit_relayed(route.owner, len, now)?;
        match route.hop {
            Hop::Outside => Ok(Action::Unwrap(route.to)),
            Hop::Channel(channel) => {
                if let Some(number) = header.first_chunk_mut() {
                    *number = channel.to_be_bytes();
                }
                Ok(Action::Forward(route.to))
            }
            Hop::Indication => {
                let payload = body.get(..len).ok_or(DropReason::Malformed)?;
                self.write_indication(route.source, payload)?;
                Ok(Action::Send(route.to))
            }
        }
    }

    /// Takes a datagram that came to the socket of a relayed address, from outside.
    pub fn handle_outside(
        &mut self,
        relayed: SocketAddr,
        from: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> Action {
        self.relay_in(relayed, from, payload, now).unwrap_or_else(|reason| {
            self.counters.dropped(reason, 1);
            Action::Drop
        })
    }

    fn relay_in(
        &mut self,
        relayed: SocketAddr,
        from: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> Result<Action, DropReason> {
        let route = self.table.route_from_outside(relayed, from, now)?;
        self.admit_relayed(route.owner, payload.len(), now)?;
        match route.hop {
            Hop::Channel(channel) => {
                let [a, b] = channel.to_be_bytes();
                let len = u16::try_from(payload.len()).map_err(|_| DropReason::Malformed)?;
                let [c, d] = len.to_be_bytes();
                Ok(Action::Wrap(route.to, [a, b, c, d]))
            }
            Hop::Indication | Hop::Outside => {
                self.write_indication(from, payload)?;
                Ok(Action::Send(route.to))
            }
        }
    }

    /// Counts what is relayed for a node, unless it is more than it may.
    fn admit_relayed(&mut self, node: NodeId, bytes: usize, now: Instant) -> Result<(), DropReason> {
        if self.rates.as_mut().is_some_and(|rates| !rates.admit(node, bytes, now)) {
            return Err(DropReason::NodeRate);
        }
        self.counters.relayed(1, bytes as u64);
        Ok(())
    }

    /// Which sockets of relayed addresses are to be opened or closed, in order.
    pub fn poll_socket(&mut self) -> Option<SocketOrder> {
        self.table.poll_socket()
    }

    fn write_indication(&mut self, source: SocketAddr, payload: &[u8]) -> Result<(), DropReason> {
        let id = u128::from(self.random.next_u64()) << 64 | u128::from(self.random.next_u64());
        self.output = reply::data_indication(source, payload, id.into()).ok_or(DropReason::Malformed)?;
        Ok(())
    }

    fn handle_message(&mut self, from: Tuple, datagram: &[u8], clock: Clock) -> Result<Action, DropReason> {
        // The form is checked first, because the codec logs a warning for each message that it refuses.
        let message = well_formed(datagram).then(|| Message::from_bytes(datagram).ok()).flatten();
        let message = message.ok_or(DropReason::Malformed)?;
        self.sweep_at.get_or_insert(clock.now + SWEEP);
        requests::handle(self, from, &message, clock)
    }

    /// Ends a node's allocations and refuses it from now on, until `until` (when its newest credentials end).
    pub fn revoke(&mut self, node: NodeId, until: UnixTime) {
        self.authority.deny(node, until);
        self.table.remove_node(node);
        self.counters.set_allocations(self.table.len());
    }

    /// From now on it serves others, or otherwise. Allocations of those that it would not serve any more end.
    pub fn set_terms(&mut self, terms: Terms) {
        let before = &self.config.terms;
        if terms.secret != before.secret {
            self.table.retain(|_| false);
        } else if let Some(networks) = &terms.networks {
            self.table.retain(|owner| networks.contains(&owner.network));
        }
        if terms.bytes_per_second_of_node != before.bytes_per_second_of_node {
            self.rates = terms.bytes_per_second_of_node.map(Rates::new);
        }
        self.authority.set_terms(&terms);
        self.config.terms = terms;
        self.counters.set_allocations(self.table.len());
    }

    /// A client's stream has ended, and with it its allocation (RFC 8656, section 3.1).
    pub fn remove_client(&mut self, client: &Tuple) {
        if let Some(relayed) = self.table.of_client(client).map(|allocation| allocation.relayed) {
            self.table.remove(relayed);
            self.counters.set_allocations(self.table.len());
        }
    }

    /// Whether a client has an allocation.
    pub fn has_allocation(&self, client: &Tuple) -> bool {
        self.table.has_client(client)
    }

    /// Serves a node again that was revoked.
    pub fn readmit(&mut self, node: NodeId) {
        self.authority.allow(node);
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Forgets what has lapsed.
    pub fn handle_timeout(&mut self, clock: Clock) {
        if self.sweep_at.is_none_or(|at| clock.now < at) {
            return;
        }
        self.table.sweep(clock.now);
        self.authority.sweep(clock.unix);
        if let Some(rates) = &mut self.rates {
            rates.sweep(clock.now);
        }
        self.counters.set_allocations(self.table.len());
        self.sweep_at = (self.table.len() > 0).then(|| clock.now + SWEEP);
    }
}

/// Whether a datagram has a STUN header with a length that fits.
fn well_formed(datagram: &[u8]) -> bool {
    let [_, _, c, d, rest @ ..] = datagram else { return false };
    let len = usize::from(u16::from_be_bytes([*c, *d]));
    len % 4 == 0 && datagram.len() == 20 + len && rest.first_chunk() == Some(&MAGIC_COOKIE.to_be_bytes())
}

#[cfg(test)]
mod tests;
