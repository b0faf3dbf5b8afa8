//! The coordinator's side of a network in the agent's loop: what it sends is applied, stored and acknowledged.

use ria_api::state::{CoordinatorState, NetworkState, Severity};
use ria_core::Command;
use ria_protocol::enrol::{Authority, MembershipNews};
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::NetworkId;
use ria_protocol::map::{PatchSet, Relay, Snapshot};
use ria_protocol::message::LiveUpdate;
use tokio::time::Instant;

use super::control::Control;
use super::events::Draft;
use super::times::Look;
use crate::coordinator::session::{Order, SessionEvent};
use crate::state::{Part, map};

/// That the person whose laptop this is has to log in again.
const LOGIN_DUE: &str = "login-due";

/// The condition of a network that this machine is no member of any more.
pub const fn put_out_code(ended: bool) -> &'static str {
    if ended { "membership-ended" } else { "not-a-member" }
}

impl Control {
    /// A session tells something.
    pub(super) async fn handle_session_event(&mut self, id: NetworkId, event: SessionEvent) {
        if let SessionEvent::LinksTold(number) = event {
            return self.handle_links_told(id, number);
        }
        if let SessionEvent::Told(number) = event {
            // Also the last word of a session that was ended.
            return self.handle_told(id, number);
        }
        if self.networks.get(&id).is_none_or(|n| n.session.is_none()) {
            return;
        }
        self.changed = true;
        self.take_session_event(id, event).await;
        self.tell_reached(id).await;
    }

    /// While the coordinator is there, a relay that says nothing over UDP is sooner asked over TLS.
    async fn tell_reached(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id).filter(|network| network.in_engine) else { return };
        let reached = network.coordinator.state == CoordinatorState::Connected;
        if std::mem::replace(&mut network.reached_told, reached) != reached {
            self.engine(Command::SetCoordinatorReached { network: id, reached }).await;
        }
    }

    async fn take_session_event(&mut self, id: NetworkId, event: SessionEvent) {
        match event {
            SessionEvent::Connected { url, address, version, time, protocol } => {
                let Some(network) = self.networks.get_mut(&id) else { return };
                network.coordinator.url.clone_from(&url);
                network.coordinator.version = version;
                network.coordinator.protocol = Some(protocol);
                tracing::debug!(%protocol, "connected with the coordinator");
                network.clock = Some(time);
                network.links.handle_connected(Instant::now());
                network.tell_untold();
                network.demand.handle_connected();
                let contact = &mut network.membership.contact;
                let moved = std::mem::replace(&mut contact.address, address) != address || address.is_none();
                let (resolve, in_engine) = (moved && network.in_engine, network.in_engine);
                let look = Look::now();
                let time = network.coordinator_time(&look);
                self.note_reached(id, &url);
                if in_engine {
                    self.engine(Command::SetTime { network: id, time, latest: time }).await;
                }
                self.store_time(id, &look);
                self.check_times_of(id, &look);
                self.note_uplinks();
                if resolve {
                    self.resolve_relays(id);
                }
            }
            SessionEvent::Lost(reason) => self.handle_lost(id, &reason),
            SessionEvent::Refused(refusal) => self.handle_refusal(id, &refusal).await,
            SessionEvent::Snapshot(snapshot) => self.handle_snapshot(id, snapshot).await,
            SessionEvent::Patches(patches) => self.handle_patches(id, patches).await,
            SessionEvent::Membership(news) => self.handle_membership_news(id, news),
            SessionEvent::Live(update) => self.handle_live(id, update).await,
            SessionEvent::Relays(relays) => self.handle_relays(id, relays),
            SessionEvent::Renewed(certificate) => {
                let Some(network) = self.networks.get_mut(&id) else { return };
                tracing::info!(network = %network.membership.identity.network_name, "certificate renewed");
                network.membership.certificate = certificate;
                self.saver.put(id, Part::Certificate, &network.membership.certificate, 0);
            }
            SessionEvent::Kept(kept) => {
                let Some(network) = self.networks.get_mut(&id) else { return };
                network.membership.kept = *kept;
                self.saver.put(id, Part::Kept, &network.membership.kept, 0);
            }
            SessionEvent::Told(number) => self.handle_told(id, number),
            SessionEvent::LinksTold(number) => self.handle_links_told(id, number),
            SessionEvent::Absent(sought) => self.handle_absent(id, sought).await,
            SessionEvent::Authorities(authorities) => self.handle_authorities(id, authorities),
        }
    }

    fn handle_authorities(&mut self, id: NetworkId, authorities: Vec<Authority>) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        tracing::info!(
            network = %network.membership.identity.network_name,
            authorities = authorities.len(),
            "the coordinator has told whom to trust from now on"
        );
        network.membership.certificate.authorities = authorities;
        self.saver.put(id, Part::Certificate, &network.membership.certificate, 0);
    }

    fn handle_lost(&mut self, id: NetworkId, reason: &str) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let text =
            format!("no contact with the coordinator: {reason} (the overlay works on from what is known)");
        network.conditions.set("coordinator-unreachable", Severity::Warning, text);
        self.set_coordinator(id, CoordinatorState::Unreachable);
    }

    async fn handle_refusal(&mut self, id: NetworkId, refusal: &Refusal) {
        if refusal.code == ErrorCode::KeyTaken {
            self.drop_next_key(id);
        }
        let Some(network) = self.networks.get_mut(&id) else { return };
        let text = format!("{}: {}", refusal.code.name(), refusal.text);
        if matches!(refusal.code, ErrorCode::Disabled | ErrorCode::LoginDue) {
            let condition = if refusal.code == ErrorCode::LoginDue { LOGIN_DUE } else { "disabled" };
            self.suspend(id, (condition, &refusal.text)).await;
        } else if refusal.code == ErrorCode::Cloned {
            network.conditions.clear("coordinator-unreachable");
            network.conditions.set("cloned", Severity::Error, refusal.text.clone());
            network.answer_waiting(Err(refusal.text.clone()));
            network.kept_out = true;
            // Two machines with one key would take each other's packets.
            self.take_off(id, NetworkState::Refused).await;
        } else if matches!(refusal.code, ErrorCode::NotAMember | ErrorCode::MembershipEnded) {
            network.conditions.clear("coordinator-unreachable");
            let ended = refusal.code == ErrorCode::MembershipEnded;
            network.membership.identity.ended = Some(ended);
            network.conditions.set(put_out_code(ended), Severity::Error, refusal.text.clone());
            network.membership.identity.refused = Some(refusal.text.clone());
            self.saver.put(id, Part::Identity, &network.membership.identity, 0);
            self.take_down(id, NetworkState::Refused).await;
        } else {
            let severity = if refusal.code.is_temporary() { Severity::Warning } else { Severity::Error };
            network.conditions.set("coordinator-refused", severity, text);
        }
        self.set_coordinator(id, CoordinatorState::Refused);
    }

    /// An administrator has disabled this node, or its person has to log in again: nobody has to do with it until then, so
    /// it goes off too.
    async fn suspend(&mut self, id: NetworkId, (condition, text): (&'static str, &str)) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.conditions.clear("coordinator-unreachable");
        network.conditions.set(condition, Severity::Error, text);
        network.answer_waiting(Err(text.to_owned()));
        let identity = &mut network.membership.identity;
        if identity.suspended.as_deref() != Some(text) {
            identity.suspended = Some(text.to_owned());
            self.saver.put(id, Part::Identity, &network.membership.identity, 0);
        }
        self.take_off(id, NetworkState::Refused).await;
    }

    fn handle_membership_news(&mut self, id: NetworkId, news: MembershipNews) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        match news {
            MembershipNews::Cloned(cloned) => {
                let text = format!(
                    "another machine, at {}, has the same keys as this one and is kept out by the coordinator; was its \
                     card copied from this one? Ask the administrator (ria-coordinator node show {})",
                    cloned.other, network.membership.identity.name
                );
                network.conditions.set("cloned", Severity::Error, text);
            }
            MembershipNews::NotCloned => _ = network.conditions.clear("cloned"),
            MembershipNews::Waiting(place) => {
                let print = network.membership.keys.fingerprint().unwrap_or_default();
                let text = format!(
                    "this machine was away for so long that an administrator of {} has to let it in again: \
                     ria-coordinator node approve {print}",
                    place.network_name
                );
                network.conditions.clear("coordinator-unreachable");
                network.conditions.set("waiting-for-approval", Severity::Warning, text);
                self.set_coordinator(id, CoordinatorState::Refused);
            }
        }
    }

    /// The coordinator serves this node again.
    pub(super) fn resume(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.conditions.clear("waiting-for-approval");
        if std::mem::take(&mut network.kept_out) {
            network.conditions.clear("cloned");
            self.set_state(id, NetworkState::Joining);
        }
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.membership.identity.suspended.take().is_some() {
            network.conditions.clear("disabled");
            network.conditions.clear(LOGIN_DUE);
            self.saver.put(id, Part::Identity, &network.membership.identity, 0);
            self.set_state(id, NetworkState::Joining);
        }
    }

    async fn handle_snapshot(&mut self, id: NetworkId, snapshot: Snapshot) {
        self.is_connected(id);
        self.resume(id);
        let Some(network) = self.networks.get_mut(&id) else { return };
        map::keep_listed(&mut network.membership.live, &snapshot);
        network.demand.handle_snapshot();
        network.membership.map = Some(snapshot.clone());
        self.follow_key(id).await;
        let Some(network) = self.networks.get_mut(&id) else { return };
        self.saver.put(id, Part::Map, &snapshot, snapshot.revision.0);
        if network.in_engine {
            self.engine(Command::SetMap { network: id, snapshot }).await;
        } else {
            self.start_engine(id).await;
        }
        self.follow_map(id).await;
    }

    async fn handle_patches(&mut self, id: NetworkId, patches: PatchSet) {
        self.is_connected(id);
        self.resume(id);
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(map) = &mut network.membership.map else { return network.order(Order::Resynchronise) };
        if let Err(gap) = map::apply_patches(map, &patches) {
            tracing::debug!(%gap, "asking for a whole map");
            return network.order(Order::Resynchronise);
        }
        map::keep_listed(&mut network.membership.live, map);
        self.follow_key(id).await;
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(map) = &network.membership.map else { return };
        self.saver.put(id, Part::Map, map, map.revision.0);
        if !network.in_engine {
            self.start_engine(id).await;
        } else if !self.engine(Command::ApplyPatches { network: id, patches }).await
            && let Some(network) = self.networks.get(&id)
        {
            network.order(Order::Resynchronise);
        }
        self.follow_map(id).await;
    }

    /// Name and interface follow the map.
    async fn follow_map(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(map) = &network.membership.map else { return };
        let identity = &mut network.membership.identity;
        let own = map::member(map, identity.node).map(|(member, _)| member.name.clone());
        let name = own.unwrap_or_else(|| identity.name.clone());
        if identity.network_name != map.network.name || identity.name != name {
            identity.network_name = map.network.name.clone();
            identity.name = name;
            self.saver.put(id, Part::Identity, &network.membership.identity, 0);
        }
        self.follow_urls(id);
        self.follow_domains(id).await;
        self.follow_demand(id).await;
        self.fit_interface(id).await;
        self.follow_routes(id).await;
        self.follow_gateway().await;
    }

    async fn handle_live(&mut self, id: NetworkId, update: LiveUpdate) {
        self.is_connected(id);
        let Some(network) = self.networks.get_mut(&id) else { return };
        map::apply_live(&mut network.membership.live, &update);
        network.live_unsaved.get_or_insert(Instant::now());
        self.engine(Command::ApplyLive { network: id, update }).await;
    }

    fn handle_relays(&mut self, id: NetworkId, relays: Vec<Relay>) {
        self.is_connected(id);
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.membership.contact.relays = relays;
        self.saver.put(id, Part::Contact, &network.membership.contact, 0);
        self.resolve_relays(id);
    }

    fn is_connected(&mut self, id: NetworkId) {
        if let Some(network) = self.networks.get_mut(&id) {
            network.conditions.clear("coordinator-unreachable");
            network.conditions.clear("coordinator-refused");
        }
        self.set_coordinator(id, CoordinatorState::Connected);
    }

    fn set_coordinator(&mut self, id: NetworkId, state: CoordinatorState) {
        let Some(network) = self.networks.get_mut(&id).filter(|n| n.coordinator.state != state) else {
            return;
        };
        let before = std::mem::replace(&mut network.coordinator.state, state);
        let severity = if state == CoordinatorState::Connected { Severity::Info } else { Severity::Warning };
        let draft = Draft {
            severity,
            kind: "coordinator",
            before: before.to_string(),
            after: state.to_string(),
            text: format!("coordinator: {before} -> {state}"),
            ..Draft::default()
        };
        self.events.tell(id, draft);
    }
}
