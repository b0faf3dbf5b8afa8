//! What peers want done: after each change of a peer the control part carries out its actions and sets its timer.

use std::time::Instant;

use super::control::{Control, ControlDatagram};
use super::event::Event;
use super::slots::PeerId;
use super::status::LinkState;
use crate::packet::SocketIndex;
use crate::path::Address;
use crate::peer::{Action, Peer};
use crate::shard::message::{Route, ShardCommand, Slot};

/// The bits of a traffic class.
const DSCP: u8 = 0xfc;
const ECN: u8 = 0x03;

/// A probe, filled up to a size.
fn filled(probe: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = probe.to_vec();
    bytes.resize(size.max(probe.len()), 0);
    bytes
}

impl Control {
    pub(super) fn with_peer(&mut self, peer_id: PeerId, now: Instant, change: impl FnOnce(&mut Peer)) {
        let network = self.networks.get_mut(&peer_id.0);
        if let Some(peer) = network.and_then(|network| network.peers.get_mut(&peer_id.1)) {
            change(peer);
            self.settle(peer_id, now);
        }
    }

    /// Carries out what a peer wants done, and sets its timer.
    pub(super) fn settle(&mut self, peer_id: PeerId, now: Instant) {
        loop {
            let network = self.networks.get_mut(&peer_id.0);
            let Some(peer) = network.and_then(|network| network.peers.get_mut(&peer_id.1)) else { return };
            let slot = peer.slot;
            match peer.poll_action() {
                Some(action) => self.handle_action(peer_id, slot, action, now),
                None => {
                    let deadline = peer.poll_timeout(now);
                    self.set_timer(peer_id, deadline);
                    return;
                }
            }
        }
    }

    fn set_timer(&mut self, peer_id: PeerId, deadline: Option<Instant>) {
        if let Some(old) = self.timer_of.remove(&peer_id) {
            self.timers.remove(&(old, peer_id));
        }
        if let Some(at) = deadline {
            self.timer_of.insert(peer_id, at);
            self.timers.insert((at, peer_id));
        }
    }

    pub(super) fn handle_action(
        &mut self,
        (network, peer): PeerId,
        slot: Slot,
        action: Action,
        now: Instant,
    ) {
        match action {
            Action::Send { address: Address::Direct(to), from, class, datagram, size } => {
                let (socket, bytes) = (SocketIndex::MAIN, filled(&datagram, size));
                self.outbox.push_back(ControlDatagram { to, from, socket, class, bytes });
            }
            Action::Send { address: Address::Relayed(transport, to), class, datagram, size, .. } => {
                self.send_relayed(network, (transport, to), (class, &filled(&datagram, size)), now);
            }
            Action::SendCheck(datagram) => self.send_check((network, peer), datagram, now),
            Action::NameIce { before, after } => {
                self.checks.rename((network, peer), before.as_deref(), after);
            }
            Action::SetRoute { address, from, rtt, ecn, fragments } => {
                let route = match address {
                    Some(Address::Direct(to)) => Some(Route::direct(to, from, rtt)),
                    Some(Address::Relayed(transport, to)) => {
                        self.relayed_route(network, (transport, to), rtt)
                    }
                    None => None,
                };
                let marks = (if self.copies_dscp { DSCP } else { 0 }) | (if ecn { ECN } else { 0 });
                let route = route.map(|route| Route { marks, fragments, ..route });
                self.to_shard.push_back(ShardCommand::SetRoute { slot, route });
            }
            Action::ReplaceSession { since } => {
                let session = self.networks.get(&network).and_then(|network| {
                    let member = network.map.member(peer)?;
                    Some(network.sessions.session(&member.record.wg_key, None, slot))
                });
                if let Some(session) = session {
                    self.to_shard.push_back(ShardCommand::ReplaceSession { slot, session, since });
                }
            }
            Action::PathChanged { before, after, endpoint, gap, reason } => {
                let event = Event::PathChanged { network, peer, before, after, endpoint, gap, reason };
                self.events.push_back(event);
                self.check_relay(network, before, after, now);
            }
            Action::LinkChanged { before, after, gap, paths: (path_before, path_after), reason } => {
                let event = Event::LinkStateChanged {
                    network,
                    peer,
                    before,
                    after,
                    gap,
                    path_before,
                    path_after,
                    reason,
                };
                self.events.push_back(event);
                if after == LinkState::Lost {
                    self.note_lost(network, now);
                }
            }
            Action::CheckRelays { patience } => self.check_relays(network, patience, now),
            Action::ForgetRelayed(address) => self.close_channels(network, address),
            Action::PingFinished { id, outcome } => {
                self.events.push_back(Event::PingFinished { id, network, peer, outcome });
            }
        }
    }
}
