//! A gateway's work: packets between this node's stock peers and the other members, or among stock peers.
//!
//! ```text
//! stock peer --session--> source, filter in --> hop limit --> filter out --session--> member
//! ```
//!
//! It happens in the engine, packet by packet: the kernel sees none of it and needs no forwarding switched on. One of
//! the two ends has to be a stock peer of this node; for others a member never forwards. What can't go on is
//! answered as a router would (RFC 1812, RFC 4443), and counted.

use std::net::IpAddr;
use std::time::Instant;

use super::message::{Slot, place};
use super::slot::PeerSlot;
use super::{Shard, ShardNetwork, lower, touch};
use crate::budget::Limit;
use crate::counters::DropReason;
use crate::filter::Verdict;
use crate::icmp;
use crate::ip::{IpPacket, decrement_hop_limit};
use crate::packet::DatagramBatch;

pub(super) use crate::icmp::Refused;

/// ICMP errors of a network (RFC 4443 section 2.4 (f) asks for a limit).
const ICMP: Limit = Limit { per_second: 100, at_once: 20 };

impl ShardNetwork {
    /// Whether a packet ends at this node: it has the address, or it is for everybody.
    pub(super) fn is_for_us(&self, packet: &IpPacket<'_>) -> bool {
        packet.is_multicast() || self.own.contains(&packet.destination)
    }

    /// Tells the sender of a packet that it does not go on, over the session that it came by.
    pub(super) fn refuse(
        &mut self,
        packet: &IpPacket<'_>,
        why: Refused,
        sender: &mut PeerSlot,
        now: Instant,
        out: &mut DatagramBatch,
    ) {
        let same_family = |own: &&IpAddr| own.is_ipv4() == packet.source.is_ipv4();
        let Some(own) = self.own.iter().find(same_family).copied() else { return };
        let mut buffer = [0; icmp::MAX_LEN];
        let Some(len) = icmp::error(packet, own, why, self.mtu, &mut buffer) else { return };
        let Some(answer) = buffer.get(..len).and_then(IpPacket::parse) else { return };
        // Its own packet is what it is told of, whatever the policy lets it send.
        if self.icmp.take(1, ICMP, now) {
            sender.seal(answer.bytes, now, out);
        }
    }
}

impl Shard {
    /// Sends a packet on that came from the peer in slot `from` and is for another one. Source, size and the filter's
    /// verdict on its way in have been checked.
    pub(super) fn forward(
        &mut self,
        from: Slot,
        bytes: &mut [u8],
        now: Instant,
        out: &mut DatagramBatch,
    ) -> Result<(), DropReason> {
        match self.pass_on(from, bytes, now, out) {
            Ok(to) => {
                self.forwarded += 1;
                touch(&mut self.touched, to);
                Ok(())
            }
            Err((reason, answer)) => {
                if let (Some(why), Some(Some(sender))) =
                    (answer, self.slots.get_mut(place(self.number, from)))
                    && let Some(network) = self.networks.get_mut(&sender.network)
                    && let Some(packet) = IpPacket::parse(bytes)
                {
                    network.refuse(&packet, why, sender, now, out);
                }
                Err(reason)
            }
        }
    }

    fn pass_on(
        &mut self,
        from: Slot,
        bytes: &mut [u8],
        now: Instant,
        out: &mut DatagramBatch,
    ) -> Result<Slot, (DropReason, Option<Refused>)> {
        let silent = |reason| (reason, None);
        let sender = self.slots.get(place(self.number, from)).and_then(Option::as_ref);
        let sender = sender.ok_or(silent(DropReason::NoSuchSession))?;
        let network = self.networks.get_mut(&sender.network).ok_or(silent(DropReason::NoSuchNetwork))?;
        let packet = IpPacket::parse(bytes).ok_or(silent(DropReason::Malformed))?;
        let from_stock = sender.is_stock();
        // Only a stock peer relies on this node as its router; a member is told by the map where to send.
        let answer = |why| Some(why).filter(|_| from_stock);
        let Some(to) = network.routes.lookup(packet.destination) else {
            let (id, destination) = (sender.network, packet.destination);
            let comes = from_stock && self.look_for_unheld(id, destination, now);
            return Err((DropReason::NoRoute, answer(Refused::NoRoute).filter(|_| !comes)));
        };
        if to == from {
            return Err(silent(DropReason::Hairpin));
        }
        let target = self.slots.get_mut(place(self.number, to)).and_then(Option::as_mut);
        let target = target.ok_or((DropReason::NoRoute, answer(Refused::NoRoute)))?;
        if !from_stock && !target.is_stock() {
            return Err(silent(DropReason::NoRoute));
        }
        if network.filter.outbound(&packet, target.node, now) == Verdict::Deny {
            return Err(silent(DropReason::FilteredOut));
        }
        if !decrement_hop_limit(bytes) {
            return Err((DropReason::HopLimit, Some(Refused::HopLimit)));
        }
        target.catch_up(now, out);
        if target.session.is_ready() && target.route.is_some() {
            return if target.seal(bytes, now, out) { Ok(to) } else { Err(silent(DropReason::BatchFull)) };
        }
        if target.is_stock() && target.route.is_none() {
            // Nobody knows where it is, and nobody but itself can tell.
            return Err((DropReason::NoPath, Some(Refused::Unreachable)));
        }
        for _ in 0..target.pending.push(bytes, now) {
            self.drops.count(DropReason::NoPath);
        }
        if target.is_stock() {
            target.want_session(now);
        }
        lower(&mut self.wake_at, target.deadline());
        Ok(to)
    }
}
