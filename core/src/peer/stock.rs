//! Peers that run stock WireGuard: what a member is to this node, and the link to one that answers no probes.
//!
//! Where it is, the shard learns from its authentic datagrams. Its link is up while there is a session and it answers
//! what it is sent: WireGuard says something back within 10 s of receiving data, if only a keepalive.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_protocol::id::NodeId;
use ria_protocol::keys::PresharedKey;
use ria_protocol::map::{Live, MemberKind, StockPeer};

use super::link::Situation;
use super::{Action, Peer, kind};
use crate::engine::status::LinkState;
use crate::map::MapMember;
use crate::path::Address;
use crate::shard::message::Conduct;

pub(crate) const REASON_BEHIND: &str = "behind a gateway, which is reached this way";
pub(crate) const REASON_NO_GATEWAY: &str =
    "its gateway is no member; give it another: ria-coordinator node set-gateway";
const REASON_NEVER_HEARD: &str = "stock WireGuard; not heard of yet, and its address is not known";
const REASON_EXPECTED: &str = "stock WireGuard; tried where it was last, or where it should be";
const REASON_HEARD: &str = "stock WireGuard; where its last packet came from";

/// A peer that leaves data without answer for this long is lost: WireGuard's passive keepalive comes after 10 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// So many of its own keepalives may be missing.
const KEEPALIVES_MISSING: u32 = 3;

/// What a member is to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs an agent.
    Agent,
    /// A stock peer that this node talks to.
    Stock(StockPeer),
    /// A stock peer behind another member.
    Behind(NodeId),
}

impl Role {
    pub(crate) fn of(member: &MapMember, own: NodeId) -> Self {
        match member.kind {
            MemberKind::Node | MemberKind::Gateway => Self::Agent,
            MemberKind::Static => {
                let stock = member.stock.clone().unwrap_or_default();
                match stock.gateway {
                    Some(gateway) if gateway != own => Self::Behind(gateway),
                    Some(_) | None => Self::Stock(stock),
                }
            }
        }
    }

    /// How the shard deals with it; `None` when it has nothing to do with it.
    pub(crate) fn conduct(&self, leads: bool) -> Option<Conduct> {
        match self {
            Self::Agent => Some(Conduct::Agent { leads }),
            // Where it listens is known to others too, so it is this end that keeps the way open.
            Self::Stock(stock) => {
                let every = stock.keepalive.filter(|_| stock.endpoint.is_some());
                let keepalive =
                    every.filter(|every| *every > 0).map(|every| Duration::from_secs(every.into()));
                Some(Conduct::Stock { keepalive })
            }
            Self::Behind(_) => None,
        }
    }

    pub(crate) fn psk(&self) -> Option<&PresharedKey> {
        match self {
            Self::Stock(stock) => stock.psk.as_ref(),
            Self::Agent | Self::Behind(_) => None,
        }
    }
}

impl Peer {
    pub(crate) fn role(&self) -> &Role {
        &self.role
    }

    /// The member that stands before it.
    pub(crate) fn gateway(&self) -> Option<NodeId> {
        match self.role {
            Role::Behind(gateway) => Some(gateway),
            Role::Agent | Role::Stock(_) => None,
        }
    }

    /// The peer is in place: what the map says of where it listens can be used.
    pub(crate) fn handle_added(&mut self, now: Instant) {
        if let Role::Stock(StockPeer { endpoint: Some(endpoint), .. }) = self.role
            && self.active.is_none()
        {
            self.expect_at(endpoint, now);
        }
    }

    /// Where it was heard of in an earlier run; the coordinator has no news of stock peers.
    pub(super) fn handle_stock_live(
        &mut self,
        live: &Live,
        usable: impl Fn(SocketAddr) -> bool,
        now: Instant,
    ) {
        let before = live.candidates.iter().map(|candidate| candidate.address).find(|at| usable(*at));
        if let (Role::Stock(_), Some(address), None) = (&self.role, before, self.active) {
            self.expect_at(address, now);
        }
    }

    fn expect_at(&mut self, address: SocketAddr, now: Instant) {
        let (address_of, from, rtt) = (Some(Address::Direct(address)), None, Duration::ZERO);
        self.actions.push_back(Action::SetRoute {
            address: address_of,
            from,
            rtt,
            ecn: false,
            fragments: false,
        });
        self.reason = REASON_EXPECTED;
        self.note_address(address);
        self.update(now);
    }

    /// The shard heard it from another address and has changed over already.
    pub(crate) fn handle_roamed(&mut self, to: SocketAddr, now: Instant) {
        self.reason = REASON_HEARD;
        self.note_address(to);
        self.update(now);
    }

    fn note_address(&mut self, address: SocketAddr) {
        let before = kind(self.active);
        self.active = Some(Address::Direct(address));
        let (after, reason) = (kind(self.active), self.reason);
        let (endpoint, gap) = (Some(address), None);
        self.actions.push_back(Action::PathChanged { before, after, endpoint, gap, reason });
    }

    pub(super) fn update_stock(&mut self, now: Instant) {
        if !matches!(self.role, Role::Stock(_)) {
            return;
        }
        if self.active.is_none() {
            self.reason = REASON_NEVER_HEARD;
        }
        let silent = self.silent_from().is_some_and(|at| at <= now);
        let state = match (self.link.has_session(), self.traffic.unanswered.is_some()) {
            (true, _) if silent => LinkState::Lost,
            (true, _) => LinkState::Up,
            // Nobody has anything to say, or not for long enough to tell.
            (false, _) if self.link.was_up() && (silent || self.expects_keepalives()) => LinkState::Lost,
            (false, true) if !self.link.was_up() && self.active.is_some() => LinkState::Connecting,
            (false, _) => LinkState::Idle,
        };
        let (path, reason) = (kind(self.active), self.reason);
        let situation = Situation { known: true, quality: None, path, reason };
        self.link.set(state, situation, now, &mut self.actions);
    }

    fn expects_keepalives(&self) -> bool {
        matches!(&self.role, Role::Stock(stock) if stock.keepalive.is_some_and(|every| every > 0))
    }

    /// From when on its silence means that it is gone.
    fn silent_from(&self) -> Option<Instant> {
        let Role::Stock(stock) = &self.role else { return None };
        let answer = self.traffic.unanswered.map(|since| since + ANSWER_WITHIN);
        let missing = stock.keepalive.map(|every| Duration::from_secs(every.into()) * KEEPALIVES_MISSING);
        let missing = missing.filter(|span| !span.is_zero()).zip(self.link.heard).map(|(span, at)| at + span);
        answer.into_iter().chain(missing).min()
    }

    pub(super) fn stock_deadline(&self) -> Option<Instant> {
        self.silent_from().filter(|_| self.link.is_up())
    }
}
