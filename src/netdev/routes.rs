//! Kernel routes to local networks behind peers: which this machine can have, and those that Ria has made.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use ria_protocol::prefix::Prefix;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};

use super::host::Host;
use super::netlink::{Netlink, NetlinkError, of_main_table, request};

/// Marks routes as Ria's (rtm_protocol; numbers from 5 on are free for programs).
const RIA: RouteProtocol = RouteProtocol::Other(213);

impl Host {
    /// What of this machine's own is in the way of a route through interface `own`: a local network that shares addresses with it, or
    /// a route that would take packets away. A wider route does no harm.
    pub fn in_the_way(&self, wanted: Prefix, own: u32) -> Option<(IpNet, String)> {
        let elsewhere = |index: Option<u32>| index != Some(own);
        let addresses = self.addresses.iter().map(|(index, net)| (Some(*index), *net));
        let addresses = addresses.filter(|(_, net)| wanted.overlaps(&Prefix::from(*net)));
        let routes = self.routes.iter().map(|route| (route.interface, route.destination));
        let routes = routes.filter(|(_, net)| wanted.covers(&Prefix::from(*net)));
        let (index, net) = addresses.chain(routes).find(|(index, _)| elsewhere(*index))?;
        let interface = self.interfaces.iter().find(|interface| Some(interface.index) == index);
        Some((net.trunc(), interface.map_or_else(|| "another interface".into(), |i| i.name.clone())))
    }

    /// The interface on which a local network is.
    pub fn interface_of(&self, lan: Prefix) -> Option<&str> {
        let mut here = self.addresses.iter().filter(|(_, net)| Prefix::from(*net).overlaps(&lan));
        let (index, _) = here.next()?;
        self.interfaces
            .iter()
            .find(|interface| interface.index == *index && interface.up)
            .map(|i| i.name.as_str())
    }
}

impl Netlink {
    /// The routes through an interface that Ria has made, also in earlier runs.
    pub async fn own_routes(&self, index: u32) -> Result<Vec<Prefix>, NetlinkError> {
        let query = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let mut messages = self.handle().route().get(query).execute();
        let mut found = Vec::new();
        while let Some(message) = messages.try_next().await.map_err(request("list routes"))? {
            let route = of_main_table(&message).filter(|route| route.interface == Some(index));
            found.extend(
                route.filter(|_| message.header.protocol == RIA).map(|route| Prefix::from(route.destination)),
            );
        }
        Ok(found)
    }

    /// Makes a route; one that is there already stays, and this fails.
    pub async fn add_route(&self, index: u32, to: Prefix, source: IpAddr) -> Result<(), NetlinkError> {
        let Some(message) = message(index, to, Some(source)) else { return Ok(()) };
        let failed = request(format!("add the route to {to}"));
        self.handle().route().add(message).execute().await.map_err(failed)
    }

    /// Removes a route that was made.
    pub async fn delete_route(&self, index: u32, to: Prefix) -> Result<(), NetlinkError> {
        let Some(message) = message(index, to, None) else { return Ok(()) };
        let failed = request(format!("remove the route to {to}"));
        self.handle().route().del(message).execute().await.map_err(failed)
    }
}

/// Only IPv4 is routed.
fn message(index: u32, to: Prefix, source: Option<IpAddr>) -> Option<RouteMessage> {
    let IpAddr::V4(address) = to.address() else { return None };
    let builder = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .destination_prefix(address, to.length())
        .output_interface(index)
        .scope(RouteScope::Link)
        .protocol(RIA);
    Some(match source {
        Some(IpAddr::V4(source)) => builder.pref_source(source).build(),
        Some(IpAddr::V6(_)) | None => builder.build(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::host::{Interface, Route};
    use super::*;

    fn host() -> Host {
        let mut host = Host::default();
        for (index, name, address) in
            [(1, "lo", "127.0.0.1/8"), (2, "eth0", "192.168.10.9/24"), (3, "ria0", "10.213.0.5/16")]
        {
            host.interfaces.push(Interface { index, name: name.into(), up: true, ..Interface::default() });
            host.addresses.push((index, address.parse().unwrap()));
        }
        for (destination, interface) in
            [("0.0.0.0/0", 2), ("10.0.0.0/8", 2), ("10.66.4.128/25", 2), ("10.66.5.0/24", 3)]
        {
            let destination = destination.parse().unwrap();
            host.routes.push(Route { destination, interface: Some(interface), gateway: None });
        }
        host
    }

    #[test]
    fn what_this_machine_has_itself_is_not_taken_away() {
        let host = host();
        let way = |wanted: &str| {
            host.in_the_way(wanted.parse().unwrap(), 3)
                .map(|(net, interface)| format!("{net} on {interface}"))
        };
        assert_eq!(way("192.168.10.0/24").as_deref(), Some("192.168.10.0/24 on eth0"));
        assert_eq!(way("192.168.10.0/25").as_deref(), Some("192.168.10.0/24 on eth0"), "a part of it");
        assert_eq!(way("192.168.0.0/16").as_deref(), Some("192.168.10.0/24 on eth0"));
        assert_eq!(way("10.66.4.0/24").as_deref(), Some("10.66.4.128/25 on eth0"));
        assert_eq!(way("10.66.3.0/24"), None, "a wider route stands behind it");
        assert_eq!(way("10.66.5.0/24"), None, "that is Ria's own");
    }

    #[test]
    fn a_local_network_is_where_its_addresses_are() {
        let host = host();
        assert_eq!(host.interface_of("192.168.10.0/24".parse().unwrap()), Some("eth0"));
        assert_eq!(host.interface_of("192.168.20.0/24".parse().unwrap()), None);
    }
}
