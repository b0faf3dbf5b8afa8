//! The shard's part of on-demand networks: packets for members that are not held yet are kept, asked for and sent once
//! the member is there.

use std::net::IpAddr;
use std::time::Instant;

use ria_protocol::id::NetworkId;
use ria_protocol::prefix::Prefix;

use super::Shard;
use super::message::{ShardEvent, shard_of};
use crate::counters::DropReason;
use crate::packet::DatagramBatch;

impl Shard {
    /// Members of these prefixes are looked for.
    pub(super) fn set_wanted(&mut self, network: NetworkId, prefixes: Vec<Prefix>) {
        let Some(found) = self.networks.get_mut(&network) else { return };
        found.wanted.set_prefixes(prefixes);
        self.count_given_up(network);
    }

    /// Nobody has this address.
    pub(super) fn handle_absent(&mut self, network: NetworkId, address: IpAddr, now: Instant) {
        let Some(found) = self.networks.get_mut(&network) else { return };
        found.wanted.handle_absent(address, now);
        self.count_given_up(network);
    }

    /// A packet for an address that no peer has: somebody may turn out to have it.
    pub(super) fn keep_for_unheld(
        &mut self,
        network: NetworkId,
        to: IpAddr,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let found = self.networks.get_mut(&network).ok_or(DropReason::NoSuchNetwork)?;
        if found.own.contains(&to) {
            return Err(DropReason::NoRoute);
        }
        let ask = found.wanted.handle_packet(to, bytes, now).ok_or(DropReason::NoRoute)?;
        self.ask_for(ask, network, to);
        self.count_given_up(network);
        Ok(())
    }

    /// The same for a packet of a stock peer, which does not wait: its sender repeats it. Whether somebody may be there.
    pub(super) fn look_for_unheld(&mut self, network: NetworkId, to: IpAddr, now: Instant) -> bool {
        let Some(found) = self.networks.get_mut(&network) else { return false };
        let ask = found.wanted.look_for(to, now);
        self.ask_for(ask == Some(true), network, to);
        self.count_given_up(network);
        ask.is_some()
    }

    /// Sends what waits for those who have a route by now.
    pub(super) fn send_wanted(&mut self, id: NetworkId, now: Instant, out: &mut DatagramBatch) {
        let Some(network) = self.networks.get(&id) else { return };
        let there = |address: &IpAddr| network.routes.lookup(*address).is_some();
        let found: Vec<IpAddr> = network.wanted.addresses().into_iter().filter(there).collect();
        for address in found {
            let Some(network) = self.networks.get_mut(&id) else { return };
            let packets = network.wanted.take(address, now);
            if network.routes.lookup(address).is_some_and(|slot| shard_of(slot) != self.number) {
                self.astray.extend(packets.into_iter().map(|packet| (id, packet)));
                continue;
            }
            for packet in packets {
                if let Err(reason) = self.send_packet(id, &packet, now, out) {
                    self.drops.count(reason);
                }
            }
        }
        self.count_given_up(id);
        self.report_touched(now);
    }

    fn ask_for(&mut self, ask: bool, network: NetworkId, address: IpAddr) {
        self.events.extend(ask.then_some(ShardEvent::Wanted { network, address }));
    }

    fn count_given_up(&mut self, network: NetworkId) {
        let given_up = self.networks.get_mut(&network).map_or(0, |found| found.wanted.take_given_up());
        for _ in 0..given_up {
            self.drops.count(DropReason::NoRoute);
        }
    }
}
