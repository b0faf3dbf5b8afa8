//! Relays as the loop sees them: what people are told of them, and the streams that the engine wants to them.

use std::net::SocketAddr;

use ria_api::state::{CoordinatorState, Severity};
use ria_core::SocketIndex;
use ria_core::relay::Transport;
use ria_protocol::id::NetworkId;
use ria_protocol::map::RelayHost;

use super::control::Control;
use super::network::Network;
use crate::coordinator::dial::parse_url;
use crate::coordinator::session::Order;
use crate::coordinator::tls;
use crate::relay::StreamPlan;

impl Control {
    pub(super) fn relay_up(&mut self, id: NetworkId, relay: &str, transport: Transport) {
        tracing::debug!(network = %id, relay, ?transport, "relay bound");
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.conditions.clear("relay-down");
        match transport {
            Transport::Udp => _ = network.conditions.clear("udp-blocked"),
            Transport::Tls => {
                let text = format!(
                    "relay {relay} does not answer over UDP, so it is used over TLS, which is slower and stumbles when \
                     packets get lost; let UDP to the coordinator's relay port (3478, as a rule) out of this network"
                );
                network.conditions.set("udp-blocked", Severity::Info, text);
            }
        }
        // The relay is the coordinator's, as a rule: where it is back, the coordinator is.
        if network.coordinator.state == CoordinatorState::Unreachable {
            network.order(Order::Reconnect);
        }
    }

    pub(super) fn relay_down(&mut self, id: NetworkId, relay: &str, reason: &str) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.conditions.clear("udp-blocked");
        let text = format!(
            "relay {relay} can't be used ({reason}); peers that have no direct path are not reached; is UDP to the \
             coordinator's relay port allowed here?"
        );
        network.conditions.set("relay-down", Severity::Warning, text);
    }

    /// The engine wants a stream to a relay, because it does not answer over UDP.
    pub(super) fn start_relay_stream(
        &mut self,
        id: NetworkId,
        socket: SocketIndex,
        relay: &str,
        address: SocketAddr,
    ) {
        let Some(network) = self.networks.get(&id) else { return };
        let listed = network.membership.contact.relays.iter().find(|listed| listed.name == relay);
        let shown = listed.and_then(|listed| listed.tls.clone());
        let must_name = shown.as_ref().is_none_or(|tls| tls.authorities.is_none());
        let tls = match tls::turn_config(network.membership.certificate.authorities.clone(), shown) {
            Ok(tls) => tls,
            Err(error) => return tracing::error!(%error, "no stream to the relay"),
        };
        let (host, port) = (relay_host(network, relay, address), address.port());
        let plan = StreamPlan {
            network: id,
            socket,
            address,
            host,
            port,
            reach: self.reach.clone(),
            tls,
            must_name,
        };
        match self.relay_streams.start(plan, self.packets.stream_door()) {
            // Only fails while the agent stops.
            Ok(queue) => _ = self.packets.attach_stream(socket, queue),
            Err(error) => tracing::error!(%error, "no stream to the relay"),
        }
    }

    pub(super) fn end_relay_stream(&mut self, id: NetworkId, socket: SocketIndex) {
        self.relay_streams.end(id, socket);
        self.packets.end_stream(socket);
    }
}

/// Name or address of a relay, as a proxy has to be told it.
fn relay_host(network: &Network, relay: &str, address: SocketAddr) -> String {
    let listed = network.membership.contact.relays.iter().find(|listed| listed.name == relay);
    match listed.map(|listed| &listed.host) {
        Some(RelayHost::Name(name)) => name.clone(),
        Some(RelayHost::Coordinator) | None => {
            let reached = network.membership.contact.reached.as_deref().and_then(parse_url);
            reached.map_or_else(|| address.ip().to_string(), |(host, _)| host)
        }
    }
}
