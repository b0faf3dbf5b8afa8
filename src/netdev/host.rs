//! A picture of this host's interfaces, addresses and routes, and what follows from it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ria_protocol::prefix::Prefix;

/// Interfaces of containers, virtual machines and other overlays: what is reachable there is not the robot, or is
/// reachable only through another tunnel.
const FOREIGN: &[&str] = &[
    "docker",
    "br-",
    "veth",
    "virbr",
    "vnet",
    "lxc",
    "lxdbr",
    "podman",
    "cni",
    "flannel",
    "cali",
    "tun",
    "tap",
    "wg",
    "tailscale",
    "zt",
    "nebula",
    "ppp",
    "ria",
];

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Kernel's number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through which interface.
    pub interface: Option<u32>,
    /// Through which router.
    pub gateway: Option<IpAddr>,
}

/// All of it at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// Addresses with prefix length, and their interface.
    pub addresses: Vec<(u32, IpNet)>,
    /// Routes.
    pub routes: Vec<Route>,
}

/// An overlay prefix that can't be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the overlay's addresses {overlay} collide with {local} on {interface}; give that network other addresses, or ask \
     the administrator for a network with another prefix (ria-coordinator network create --prefix)"
)]
pub struct Collision {
    overlay: Prefix,
    local: IpNet,
    interface: String,
}

impl Host {
    /// Where peers on the same local network, or anywhere without NAT, may reach this host.
    pub fn candidates(&self, port: u16) -> Vec<SocketAddr> {
        let mut found: Vec<SocketAddr> = self
            .addresses
            .iter()
            .filter(|(index, _)| self.interface(*index).is_some_and(is_underlay))
            .map(|(_, net)| net.addr())
            .filter(is_usable)
            .map(|ip| SocketAddr::new(ip, port))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The routes that lead out, to notice a change of network that leaves the addresses as they are.
    pub fn default_routes(&self) -> Vec<Route> {
        let leads_out = |route: &&Route| {
            route.destination.prefix_len() == 0
                && route.interface.and_then(|i| self.interface(i)).is_some_and(is_underlay)
        };
        self.routes.iter().filter(leads_out).cloned().collect()
    }

    /// Whether a local address or route would take the overlay's packets away; `own` are Ria's interfaces. A wider
    /// route (such as 10.0.0.0/8) does no harm: the overlay's is more specific.
    pub fn collision(&self, overlay: Prefix, own: &[u32]) -> Option<Collision> {
        let addresses = self.addresses.iter().map(|(index, net)| (Some(*index), *net));
        let routes = self.routes.iter().map(|route| (route.interface, route.destination));
        addresses
            .chain(routes)
            .filter(|(index, _)| !index.is_some_and(|i| own.contains(&i)))
            .find(|(_, local)| overlay.to_net().contains(&local.trunc()) || overlay.contains(local.addr()))
            .map(|(index, local)| Collision {
                overlay,
                local,
                interface: index
                    .and_then(|i| self.interface(i))
                    .map_or_else(|| "another interface".into(), |i| i.name.clone()),
            })
    }

    /// Whether an interface has this name.
    pub fn has_interface(&self, name: &str) -> bool {
        self.interfaces.iter().any(|i| i.name == name)
    }

    fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.index == index)
    }
}

fn is_underlay(interface: &Interface) -> bool {
    interface.up && !interface.loopback && !FOREIGN.iter().any(|prefix| interface.name.starts_with(prefix))
}

fn is_usable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(interfaces: &[(&str, &str)]) -> Host {
        let mut host = Host::default();
        for (index, (name, address)) in (1..).zip(interfaces) {
            host.interfaces.push(Interface {
                index,
                name: (*name).to_owned(),
                up: !name.ends_with("down"),
                loopback: *name == "lo",
            });
            host.addresses.push((index, address.parse().unwrap()));
        }
        host
    }

    #[test]
    fn only_addresses_of_the_real_network_are_candidates() {
        let host = host(&[
            ("lo", "127.0.0.1/8"),
            ("eth0", "192.0.2.7/24"),
            ("wlan0", "2001:db8::7/64"),
            ("eth1down", "192.0.2.99/24"),
            ("eth2", "169.254.3.4/16"),
            ("eth2", "fe80::1/64"),
            ("docker0", "172.17.0.1/16"),
            ("tailscale0", "100.64.0.1/32"),
            ("ria0", "10.213.0.7/16"),
        ]);
        let found: Vec<String> = host.candidates(41820).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.7:41820", "[2001:db8::7]:41820"]);
    }

    #[test]
    fn a_prefix_that_is_in_use_here_collides_and_a_wider_route_does_not() {
        let overlay: Prefix = "10.213.0.0/16".parse().unwrap();
        let collides = |address: &str| host(&[("eth0", address)]).collision(overlay, &[]);
        assert!(collides("10.213.0.1/16").is_some());
        assert!(collides("10.213.5.1/24").is_some());
        assert!(collides("10.213.5.1/8").is_some(), "the address itself lies in the overlay");
        assert!(collides("10.1.0.1/8").is_none());
        let text = collides("10.213.0.1/16").unwrap().to_string();
        assert!(
            text.contains("10.213.0.0/16") && text.contains("eth0") && text.contains("--prefix"),
            "{text}"
        );
        let mut own = host(&[("ria0", "10.213.0.1/16")]);
        assert!(own.collision(overlay, &[1]).is_none(), "our own interface");
        own.routes.push(Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            interface: Some(9),
            gateway: None,
        });
        assert!(own.collision(overlay, &[1]).is_none(), "a default route");
        own.routes.push(Route {
            destination: "10.213.9.0/24".parse().unwrap(),
            interface: Some(9),
            gateway: None,
        });
        assert!(own.collision(overlay, &[1]).is_some(), "a route into the overlay");
    }
}
