//! Copies of this host's multicast, to each peer of the network that runs an agent and is in reach. Who is to get one is
//! decided in [`crate::multicast`].

use std::time::Instant;

use ria_protocol::id::NetworkId;

use super::slot::PeerSlot;
use super::{Shard, ShardNetwork, touch};
use crate::counters::DropReason;
use crate::filter::Verdict;
use crate::ip::IpPacket;
use crate::multicast::{Audience, Clash, Class};
use crate::packet::DatagramBatch;
use crate::rtps::locators;

impl ShardNetwork {
    /// Sends a copy to one peer; whether one went out.
    fn copy(
        &mut self,
        packet: &IpPacket<'_>,
        (audience, class): (Audience, Class),
        peer: &mut PeerSlot,
        now: Instant,
        out: &mut DatagramBatch,
    ) -> Result<bool, DropReason> {
        peer.catch_up(now, out);
        if peer.is_stock()
            || !peer.is_reached()
            || !peer.multicast.admit(audience, class, packet.bytes.len(), now)?
        {
            return Ok(false);
        }
        if self.filter.outbound(packet, peer.node, now) == Verdict::Deny {
            return Err(DropReason::FilteredOut);
        }
        if peer.seal(packet.bytes, now, out) { Ok(true) } else { Err(DropReason::BatchFull) }
    }

    /// After a change of a peer's session or route: one that comes into reach is told who is here.
    pub(super) fn introduce(&mut self, peer: &mut PeerSlot, now: Instant, out: &mut DatagramBatch) {
        if peer.is_stock() || !self.multicast.note_reached(peer.is_reached(), &mut peer.multicast, now) {
            return;
        }
        for bytes in self.multicast.last_words(now) {
            let Some(packet) = IpPacket::parse(bytes).filter(|p| self.own.contains(&p.source)) else {
                continue;
            };
            let is_allowed = self.filter.outbound(&packet, peer.node, now) == Verdict::Allow;
            if is_allowed
                && peer.multicast.admit(Audience::All, Class::Discovery, bytes.len(), now) == Ok(true)
            {
                peer.seal(bytes, now, out);
            }
        }
    }
}

impl Shard {
    /// A multicast packet from a network's interface. That no peer is there for it is no drop.
    pub(super) fn replicate(
        &mut self,
        id: NetworkId,
        packet: &IpPacket<'_>,
        now: Instant,
        out: &mut DatagramBatch,
    ) -> Result<(), DropReason> {
        let network = self.networks.get(&id).ok_or(DropReason::NoSuchNetwork)?;
        let mut room = [0; locators::ROOM];
        let hidden = network.multicast.as_it_leaves(packet, &network.own, |bytes| {
            let copy = room.get_mut(..bytes.len())?;
            copy.copy_from_slice(bytes);
            Some(bytes.len())
        });
        let packet = hidden.and_then(|len| IpPacket::parse(room.get(..len)?)).ok_or(DropReason::TooLarge)?;
        self.copy_to_all(id, &packet, now, out)
    }

    fn copy_to_all(
        &mut self,
        id: NetworkId,
        packet: &IpPacket<'_>,
        now: Instant,
        out: &mut DatagramBatch,
    ) -> Result<(), DropReason> {
        let network = self.networks.get_mut(&id).ok_or(DropReason::NoSuchNetwork)?;
        let (audience, class) = network.multicast.admit(packet, &network.own, now)?;
        let mut copies = 0;
        for peer in &mut self.slots {
            let Some(peer) = peer.as_mut().filter(|peer| peer.network == id) else { continue };
            match network.copy(packet, (audience, class), peer, now, out) {
                Ok(true) => {
                    copies += 1;
                    touch(&mut self.touched, peer.slot());
                }
                Ok(false) => {}
                Err(reason) => self.drops.count(reason),
            }
        }
        if copies == 0 && audience != Audience::All { Err(DropReason::Damped) } else { Ok(()) }
    }

    /// How many DDS participants this host has on a network's interface.
    pub(crate) fn own_participants(&self, id: NetworkId, now: Instant) -> u16 {
        self.networks.get(&id).map_or(0, |network| network.multicast.own_participants(now))
    }

    /// What this host and peers of a network have and only one should.
    pub(super) fn clashes(&self, id: NetworkId, now: Instant) -> Vec<Clash> {
        let peers = self.slots.iter().flatten().filter(|peer| peer.network == id);
        let peers = peers.map(|peer| (peer.node, &peer.multicast));
        self.networks.get(&id).map(|network| network.multicast.clashes(peers, now)).unwrap_or_default()
    }
}
