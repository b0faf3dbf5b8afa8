//! The port that the router has opened, as the loop sees it: where to ask, and what peers are told.

use std::net::{IpAddr, SocketAddr};

use ria_api::state::{Answer, NetworkReport};
use ria_core::Command;
use tokio::sync::mpsc;

use super::control::{Control, Input};
use crate::netdev::host::Host;
use crate::portmap::{Mapper, Place, State};

/// The task that asks the router, and what it has told.
pub struct PortMapping {
    mapper: Option<Mapper>,
    told: Option<Place>,
    pub(super) state: State,
}

impl PortMapping {
    /// Asks for this UDP port, if that is wanted.
    pub fn start(wanted: bool, port: u16, inputs: &mpsc::UnboundedSender<Input>) -> Self {
        let inputs = inputs.clone();
        // Only fails while the agent stops.
        let tell = move |state| _ = inputs.send(Input::PortMapped(state));
        let mapper = wanted.then(|| Mapper::start(port, tell));
        Self { mapper, told: None, state: State::default() }
    }

    /// Gives the port back; does not take long.
    pub async fn give_back(&self) {
        if let Some(mapper) = &self.mapper {
            mapper.give_back().await;
        }
    }

    /// Puts what is known into a report.
    pub fn show(&self, report: &mut NetworkReport) {
        let State { asked, offered, mapped } = &self.state;
        report.port_mapping = match (mapped, asked) {
            (Some(_), _) => Answer::Yes,
            (None, true) => Answer::No,
            (None, false) => Answer::Unknown,
        };
        report.port_mapping_protocols = offered.iter().map(|protocol| protocol.name().to_owned()).collect();
        report.port_mapping_address = mapped.map(|(_, address)| address.to_string()).unwrap_or_default();
    }
}

impl Control {
    /// The router is asked where a network is up, and again where the router or the own address is another one.
    pub(super) fn follow_router(&mut self) {
        let place = if self.networks.values().any(|n| n.in_engine) { place(&self.host) } else { None };
        let PortMapping { mapper: Some(mapper), told, .. } = &mut self.port_mapping else { return };
        if *told != place {
            *told = place;
            mapper.set_place(place);
        }
    }

    /// The router has opened a port, or another, or none any more.
    pub(super) async fn handle_port_mapped(&mut self, state: State) {
        let before = std::mem::replace(&mut self.port_mapping.state, state);
        let mapped = self.port_mapping.state.mapped;
        if before.mapped != mapped {
            if let Some((protocol, address)) = mapped {
                tracing::info!(protocol = protocol.name(), "the router has opened a port");
                tracing::debug!(%address, "outer address");
            }
            let address = mapped.map(|(_, address)| SocketAddr::V4(address));
            self.engine(Command::SetMappedAddress(address)).await;
        }
        self.changed = true;
    }
}

/// The default router and the own address on the way to it; by a network that it shares with this machine, if possible.
fn place(host: &Host) -> Option<Place> {
    let routers = host.gateways();
    let mut places = routers.iter().filter_map(|(interface, router)| {
        let IpAddr::V4(router) = *router else { return None };
        let own = host.addresses.iter().filter(|(index, _)| index == interface);
        let own = own.filter_map(|(_, net)| match net.addr() {
            IpAddr::V4(own) => Some((net.contains(&IpAddr::V4(router)), own)),
            IpAddr::V6(_) => None,
        });
        own.max_by_key(|(shared, _)| *shared).map(|(_, own)| Place { router, own })
    });
    places.next()
}
