//! This machine's own network: it is gone, is there again, or is another one now.
//!
//! What has changed decides how much is begun anew. An address or a default route that is another means that relay and
//! coordinator see this machine elsewhere; a carrier that was away for a moment, or a sleep, means only that they may.

use ria_api::state::{CoordinatorState, Severity};
use ria_core::Command;
use ria_protocol::id::NetworkId;

use super::control::Control;
use super::events::Draft;
use crate::coordinator::session::Order;
use crate::netdev::host::UplinkChange;

impl Control {
    /// The host's interfaces, addresses or routes have changed.
    pub(super) async fn handle_host_change(&mut self) {
        let Ok(host) = self.netlink.host().await else { return };
        let had = !std::mem::replace(&mut self.host, host).candidates(self.udp_port).is_empty();
        self.follow_places().await;
        let has = !self.host.candidates(self.udp_port).is_empty();
        // What it comes back to may be the very network that it has lost.
        let change = match (had, has) {
            (false, false) => UplinkChange::default(),
            (true, false) => UplinkChange { gone: true, readdressed: true, ..UplinkChange::default() },
            (_, true) => {
                UplinkChange { back: !had, ..self.host.uplink_change(&self.connected_host, self.udp_port) }
            }
        };
        if has {
            self.connected_host.clone_from(&self.host);
        }
        if change != UplinkChange::default() {
            self.follow_uplink(&change).await;
            self.reconnect_pending();
        }
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            let Some(network) = self.networks.get(&id) else { continue };
            let connected = network.coordinator.state == CoordinatorState::Connected;
            // A stream over an address that is gone would be noticed by its silence only, much later.
            let moved = change.is_elsewhere() || change.interrupted || change.back;
            if moved || (!connected && change.readdressed && !change.gone) {
                network.order(Order::Reconnect);
            }
            let index = network.interface.as_ref().map(|i| i.index);
            if index.is_some_and(|index| !self.host.interfaces.iter().any(|i| i.index == index)) {
                tracing::warn!("somebody removed the overlay interface; it is made anew");
                self.stop_interface(id).await;
                self.start_interface(id).await;
            } else {
                self.retry_interface(id).await;
                self.follow_routes(id).await;
            }
        }
        self.follow_gateway().await;
    }

    async fn follow_uplink(&mut self, change: &UplinkChange) {
        tracing::info!(
            gone = change.gone,
            back = change.back,
            readdressed = change.readdressed,
            rerouted = change.rerouted(),
            interrupted = change.interrupted,
            "this machine's network has changed"
        );
        self.changed = true;
        self.netchecks.network_changed();
        // Before the engine tells of the peers that are lost with it.
        self.tell_uplink(change);
        self.note_uplinks();
        self.tell_host_candidates().await;
        if change.rerouted() {
            let (ipv4, ipv6) = change.rerouted;
            self.engine(Command::Rerouted { ipv4, ipv6 }).await;
        }
    }

    fn tell_uplink(&mut self, change: &UplinkChange) {
        let (before, after) = match change {
            UplinkChange { gone: true, .. } => ("up", "down"),
            UplinkChange { back: true, .. } => ("down", "up"),
            other if other.is_elsewhere() || other.interrupted => ("up", "up"),
            UplinkChange { .. } => return,
        };
        let text = match (before, after) {
            (_, "down") => "this machine has no network: no interface has both an address and a carrier",
            ("down", _) => "this machine has a network again",
            _ => "this machine's network has changed",
        };
        let severity = if after == "down" { Severity::Warning } else { Severity::Info };
        let running: Vec<NetworkId> =
            self.networks.values().filter(|network| network.in_engine).map(|network| network.id()).collect();
        for id in running {
            let (before, after) = (before.to_owned(), after.to_owned());
            let draft =
                Draft { severity, kind: "uplink", before, after, text: text.into(), ..Draft::default() };
            self.events.tell(id, draft);
        }
    }

    /// The machine was suspended: whatever others kept of it is old, and they may have given it up.
    pub(super) async fn handle_resume(&mut self) {
        self.networks.values().for_each(|network| network.order(Order::Reconnect));
        self.tell_host_candidates().await;
    }

    /// The links on which members can find each other.
    pub(super) async fn follow_places(&mut self) {
        if self.beacons.follow(self.host.places()) {
            let places = self.beacons.addresses(self.udp_port);
            self.engine(Command::SetBeaconPlaces(places)).await;
        }
    }

    pub(super) async fn tell_host_candidates(&mut self) {
        let candidates = self.host.candidates(self.udp_port);
        self.tell_avoided().await;
        self.engine(Command::SetHostCandidates(candidates)).await;
    }

    /// Where no path is to lead: the robot's own networks, and what is reached through tunnels itself.
    pub(super) async fn tell_avoided(&mut self) {
        let mut avoided = self.host.avoided(self.netlink.exclusions());
        avoided.extend(self.networks.values().flat_map(|network| &network.routed));
        self.engine(Command::SetAvoided(avoided)).await;
    }
}
