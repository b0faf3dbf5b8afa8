//! The control part's beacons: when they go from which address, and what becomes of those of others.

use std::net::SocketAddr;
use std::time::Instant;

use ria_protocol::id::NetworkId;

use super::control::Control;
use super::event::Event;
use super::network::Network;
use crate::beacon::{has_shape, place, schedule};
use crate::counters::DropReason;
use crate::peer::Peer;
use crate::stun::canonical;

/// Most addresses that beacons go from.
const MAX_PLACES: usize = 16;

impl Control {
    /// This host is on these links now.
    pub(super) fn set_beacon_places(&mut self, mut places: Vec<SocketAddr>, now: Instant) {
        places.truncate(MAX_PLACES);
        if places != self.places {
            self.places = places;
            self.seek_by_beacon(now);
        }
    }

    /// This may be another place.
    pub(super) fn seek_by_beacon(&mut self, now: Instant) {
        self.networks.values_mut().for_each(|network| network.beacons.schedule.restart(now));
    }

    /// The map may tell of the network for the first time.
    pub(super) fn follow_beacon_key(&mut self, id: NetworkId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.beacons.follow(network.map.info()) {
            network.beacons.schedule.restart(now);
        }
    }

    /// Whether the coordinator is there: if not, nobody tells any more where members are.
    pub(super) fn note_reached(&mut self, id: NetworkId, reached: bool, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        if std::mem::replace(&mut network.beacons.reached, reached) && !reached {
            network.beacons.schedule.begin(now);
        }
    }

    /// A peer is lost: it may be looking for this node, too.
    pub(super) fn note_lost(&mut self, id: NetworkId, now: Instant) {
        if let Some(network) = self.networks.get_mut(&id) {
            network.beacons.schedule.begin(now);
        }
    }

    pub(super) fn beacon_deadline(&self) -> Option<Instant> {
        let networks = self.networks.values().filter(|_| !self.places.is_empty());
        networks.filter_map(|network| network.beacons.schedule.deadline()).min()
    }

    /// Sends what is due, one beacon from each address.
    pub(super) fn handle_beacon_timeouts(&mut self, now: Instant) {
        if self.beacon_deadline().is_none_or(|at| at > now) {
            return;
        }
        for network in self.networks.values_mut().filter(|network| network.beacons.schedule.is_due(now)) {
            let jitter = schedule::JITTER.mul_f64((self.rng.u64() % 1000) as f64 / 1000.0);
            network.beacons.schedule.advance(jitter, now);
            if !network.seeks() {
                continue;
            }
            for from in &self.places {
                let own = (network.node, network.boot);
                let sealed = network.beacons.seal(own, *from, &mut self.rng);
                let event = sealed.map(|datagram| Event::BeaconDue {
                    network: network.id,
                    from: *from,
                    datagram: datagram.to_vec(),
                });
                self.events.extend(event);
            }
        }
    }

    /// Takes a beacon of somebody.
    pub(super) fn handle_beacon(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        if !has_shape(datagram) {
            return Err(DropReason::Malformed);
        }
        if !self.attention.take(now) {
            return Err(DropReason::RateLimited);
        }
        let opened = self.networks.values().find_map(|network| {
            let beacon = network.beacons.open(datagram)?;
            Some((network.id, network.node, beacon))
        });
        let (id, own, beacon) = opened.ok_or(DropReason::Stranger)?;
        if beacon.node == own {
            // What goes to all comes back.
            return Ok(());
        }
        let to = place(&beacon, canonical(from), &self.all_overlays()).ok_or(DropReason::Unauthentic)?;
        let network = self.networks.get_mut(&id).ok_or(DropReason::NoSuchNetwork)?;
        let peer = network.peers.get_mut(&beacon.node).ok_or(DropReason::Stranger)?;
        let result = peer.handle_beacon(&beacon, to, now);
        self.settle((id, beacon.node), now);
        result
    }
}

impl Network {
    /// Whether there is somebody whom a beacon may find: not while the coordinator tells where members are, and not once
    /// all are reached directly.
    fn seeks(&self) -> bool {
        !self.beacons.reached && !self.peers.values().all(Peer::is_found)
    }
}
