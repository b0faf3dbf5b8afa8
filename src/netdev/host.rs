//! A picture of this host's interfaces, addresses and routes, and what follows from it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use ipnet::IpNet;
use ria_protocol::prefix::Prefix;

use super::exclusions::Exclusions;
use super::keep::Label;

/// Interfaces of other overlays, by name and by what the kernel calls their kind: whatever goes there goes through
/// another tunnel.
const TUNNELS: &[&str] = &["tun", "tap", "wg", "tailscale", "zt", "nebula", "flannel", "ppp", "ria"];
const TUNNEL_KINDS: &[&str] = &[
    "tun",
    "wireguard",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "ipip",
    "sit",
    "ip6tnl",
    "vti",
    "vti6",
    "xfrm",
    "vxlan",
    "geneve",
    "ovpn",
    "amt",
    "gtp",
    "bareudp",
];

/// Interfaces of containers and virtual machines on this host, and kinds that lead nowhere by themselves. Within a
/// container an interface may be called so, too, but then it leads out.
const CONTAINERS: &[&str] =
    &["docker", "br-", "veth", "virbr", "vnet", "lxc", "lxdbr", "podman", "cni", "cali"];
const CONTAINER_KINDS: &[&str] = &["dummy", "ifb", "nlmon", "vcan", "can", "vxcan", "netdevsim", "vrf"];

/// Kinds of which a bridge may consist without being more than a switch for containers.
const INNER_KINDS: &[&str] = &["veth", "tun", "netkit"];

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Kernel's number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Whether it has a carrier: a cable, or an access point.
    pub carrier: bool,
    /// How often the carrier came or went; also tells of one that was away only for a moment.
    pub carrier_changes: u32,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// What the kernel calls its kind, such as `wireguard`; empty for hardware.
    pub kind: String,
    /// The bridge or bond that it is a part of.
    pub controller: Option<u32>,
    /// Whether paths are to leave it alone: see [`Host::judge`].
    pub foreign: bool,
    /// Whether what is for all can be sent on it; not on a modem's.
    pub broadcast: bool,
    /// What somebody has written on it.
    pub alias: String,
}

/// An address from which everybody on a link can be spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Kernel's number of the interface.
    pub index: u32,
    /// Its name.
    pub interface: String,
    /// This machine's address there.
    pub address: IpAddr,
    /// The link's address for all, in IPv4.
    pub broadcast: Option<Ipv4Addr>,
}

impl Place {
    /// The number of the link, where the address means something on that link only.
    pub fn scope(&self) -> u32 {
        let local = matches!(self.address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if local { self.index } else { 0 }
    }

    /// The address with a port.
    pub fn socket_address(&self, port: u16) -> SocketAddr {
        match self.address {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.scope()).into(),
        }
    }
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

/// What is known of a neighbour's hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It is known.
    Known,
    /// It is looked for.
    Sought,
    /// There was no answer.
    Failed,
}

/// A neighbour as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// On which interface.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
    /// Whether it can be reached.
    pub resolution: Resolution,
}

/// All of it at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// Addresses with prefix length, and their interface.
    pub addresses: Vec<(u32, IpNet)>,
    /// Those of them that are no candidates: about to go, not usable yet, or excluded by the user.
    pub unfit: Vec<IpAddr>,
    /// Routes.
    pub routes: Vec<Route>,
}

/// What has changed in how a host is connected; nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UplinkChange {
    /// It was, and is not any more.
    pub gone: bool,
    /// It was not, and is again.
    pub back: bool,
    /// It has other addresses.
    pub readdressed: bool,
    /// It has lost some of them.
    pub left: bool,
    /// IPv4 and IPv6 packets leave it another way.
    pub rerouted: (bool, bool),
    /// A carrier was away, if only for a moment; the same addresses may belong to another network now.
    pub interrupted: bool,
}

impl UplinkChange {
    /// Whether packets of either family leave another way.
    pub const fn rerouted(&self) -> bool {
        self.rerouted.0 || self.rerouted.1
    }

    /// Whether others see this host elsewhere now, as a rule.
    pub const fn is_elsewhere(&self) -> bool {
        self.left || self.rerouted()
    }
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
    /// Decides which interfaces and addresses paths are to use, once all is known.
    pub fn judge(&mut self, exclusions: &Exclusions) {
        let foreign: Vec<bool> = self.interfaces.iter().map(|i| self.is_foreign(i, exclusions)).collect();
        for (interface, foreign) in self.interfaces.iter_mut().zip(foreign) {
            interface.foreign = foreign;
        }
        let excluded = self.addresses.iter().map(|(_, net)| net.addr()).filter(|ip| exclusions.cover(*ip));
        self.unfit.extend(excluded.collect::<Vec<_>>());
    }

    fn is_foreign(&self, interface: &Interface, exclusions: &Exclusions) -> bool {
        let Interface { index, name, kind, .. } = interface;
        let named = |list: &[&str]| list.iter().any(|prefix| name.starts_with(prefix));
        if exclusions.name(name) || TUNNEL_KINDS.contains(&kind.as_str()) || named(TUNNELS) {
            return true;
        }
        let leads_out =
            self.routes.iter().any(|r| r.destination.prefix_len() == 0 && r.interface == Some(*index));
        // A part of a bridge has no say of its own; a bridge is as real as its most real part.
        let inner = |part: &Interface| INNER_KINDS.contains(&part.kind.as_str());
        let mut parts = self.interfaces.iter().filter(|part| part.controller == Some(*index));
        let only_inner = kind == "bridge" && parts.all(inner);
        let of_containers = named(CONTAINERS) || CONTAINER_KINDS.contains(&kind.as_str()) || only_inner;
        of_containers && !leads_out
    }

    /// Prefixes of this machine's own networks, which no path shall enter: those that the user names, and those of the
    /// interfaces that the user names.
    pub fn avoided(&self, exclusions: &Exclusions) -> Vec<Prefix> {
        let of_interfaces = self.addresses.iter().filter(|(index, net)| {
            let excluded = self.interface(*index).is_some_and(|interface| exclusions.name(&interface.name));
            excluded && is_usable(&net.addr())
        });
        let nets = of_interfaces.map(|(_, net)| net).chain(&exclusions.exclude_prefixes);
        let mut prefixes: Vec<Prefix> =
            nets.filter_map(|net| Prefix::new(net.network(), net.prefix_len()).ok()).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }

    /// Where peers on the same local network, or anywhere without NAT, may reach this host.
    pub fn candidates(&self, port: u16) -> Vec<SocketAddr> {
        let mut found: Vec<SocketAddr> = self
            .addresses
            .iter()
            .filter(|(index, _)| self.interface(*index).is_some_and(is_underlay))
            .map(|(_, net)| net.addr())
            .filter(|ip| !self.unfit.contains(ip))
            .filter(is_usable)
            .map(|ip| SocketAddr::new(ip, port))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// From where everybody on each of this host's real links can be spoken to: by each IPv4 address, link-local ones too,
    /// and by one IPv6 address, the link-local one where there is one.
    pub fn places(&self) -> Vec<Place> {
        let links = self.interfaces.iter().filter(|interface| is_underlay(interface) && interface.broadcast);
        links.flat_map(|interface| self.places_on(interface)).collect()
    }

    fn places_on(&self, interface: &Interface) -> impl Iterator<Item = Place> {
        let own = self.addresses.iter().filter(|(index, _)| *index == interface.index).map(|(_, net)| net);
        let own = own.filter(|net| !self.unfit.contains(&net.addr()));
        let v6 = own.clone().map(IpNet::addr).filter(IpAddr::is_ipv6);
        let v6 = v6.min_by_key(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
        let v4 = own.filter_map(|net| match net {
            IpNet::V4(net) => Some((net.addr(), Some(net.broadcast()).filter(|_| net.prefix_len() < 31))),
            IpNet::V6(_) => None,
        });
        let mut places: Vec<(IpAddr, Option<Ipv4Addr>)> =
            v4.map(|(address, broadcast)| (address.into(), broadcast)).collect();
        places.extend(v6.map(|address| (address, None)));
        let (index, name) = (interface.index, interface.name.clone());
        places.into_iter().map(move |(address, broadcast)| Place {
            index,
            interface: name.clone(),
            address,
            broadcast,
        })
    }

    /// The routes of one family that lead out, to notice a change of network that leaves the addresses as they are.
    fn default_routes(&self, ipv4: bool) -> Vec<&Route> {
        let leads_out = |route: &&Route| {
            route.destination.prefix_len() == 0
                && route.destination.addr().is_ipv4() == ipv4
                && route.interface.and_then(|i| self.interface(i)).is_some_and(is_underlay)
        };
        self.routes.iter().filter(leads_out).collect()
    }

    /// What has changed in how this host is connected, since it was before.
    pub fn uplink_change(&self, before: &Self, port: u16) -> UplinkChange {
        let (old, new) = (before.candidates(port), self.candidates(port));
        let rerouted = |ipv4| before.default_routes(ipv4) != self.default_routes(ipv4);
        let carriers = |host: &Self| -> Vec<(u32, u32)> {
            let interfaces = host.interfaces.iter().filter(|interface| is_underlay(interface));
            interfaces.map(|interface| (interface.index, interface.carrier_changes)).collect()
        };
        let now = carriers(self);
        let moved = |(index, changes): &(u32, u32)| now.iter().any(|(i, c)| i == index && c != changes);
        UplinkChange {
            gone: false,
            back: false,
            readdressed: old != new,
            left: old.iter().any(|address| !new.contains(address)),
            rerouted: (rerouted(true), rerouted(false)),
            interrupted: carriers(before).iter().any(moved),
        }
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

    /// The routers that lead out of the networks that this host is really in, and on which interface each is.
    pub fn gateways(&self) -> Vec<(u32, IpAddr)> {
        let out = self.routes.iter().filter(|route| route.destination.prefix_len() == 0);
        let gateways = out.filter_map(|route| Some((route.interface?, route.gateway?)));
        gateways.filter(|(index, _)| self.interface(*index).is_some_and(is_underlay)).collect()
    }

    /// The interface that most packets leave by: of a default route, by IPv4 first.
    pub fn uplink_interface(&self) -> Option<&str> {
        let route = [true, false].into_iter().find_map(|ipv4| self.default_routes(ipv4).first().copied())?;
        self.interface(route.interface?).map(|interface| interface.name.as_str())
    }

    /// Whether any route leads out, by a router or without one, as a modem's does.
    pub fn leads_out(&self) -> bool {
        let out = self.routes.iter().filter(|route| route.destination.prefix_len() == 0);
        out.filter_map(|route| self.interface(route.interface?)).any(is_underlay)
    }

    /// Addresses of an interface.
    pub fn addresses_of(&self, index: u32) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter(move |(of, _)| *of == index).map(|(_, net)| net.addr())
    }

    /// Interfaces that agents have labelled, there now or left by one that is gone.
    pub fn labelled(&self) -> impl Iterator<Item = (&Interface, Label)> {
        self.interfaces.iter().filter_map(|interface| Some((interface, interface.alias.parse().ok()?)))
    }

    /// Whether there is an interface of this name.
    pub fn has_interface(&self, name: &str) -> bool {
        self.interfaces.iter().any(|i| i.name == name)
    }

    fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.index == index)
    }
}

fn is_underlay(interface: &Interface) -> bool {
    interface.up && interface.carrier && !interface.loopback && !interface.foreign
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
                carrier: !name.ends_with("unplugged"),
                carrier_changes: 1,
                loopback: *name == "lo",
                broadcast: !name.starts_with("wwan"),
                ..Interface::default()
            });
            host.addresses.push((index, address.parse().unwrap()));
        }
        host.judge(&Exclusions::default());
        host
    }

    fn judged(links: &[(&str, &str, Option<u32>)], leads_out: u32, exclusions: &Exclusions) -> Vec<String> {
        let mut host = Host::default();
        for (index, (name, kind, controller)) in (1..).zip(links) {
            let (name, kind, controller) = ((*name).to_owned(), (*kind).to_owned(), *controller);
            let link = Interface { index, name, kind, controller, ..Interface::default() };
            host.interfaces.push(Interface { up: true, carrier: true, ..link });
            host.addresses.push((index, format!("192.0.2.{index}/24").parse().unwrap()));
        }
        let (destination, interface) = ("0.0.0.0/0".parse().unwrap(), Some(leads_out));
        host.routes.push(Route { destination, interface, gateway: None });
        host.judge(exclusions);
        let candidates = host.candidates(1);
        let names = host.addresses.iter().zip(&host.interfaces);
        names
            .filter(|((_, net), _)| candidates.iter().any(|c| c.ip() == net.addr()))
            .map(|(_, interface)| interface.name.clone())
            .collect()
    }

    #[test]
    fn tunnels_and_containers_are_told_by_their_kind_too() {
        let links = [
            ("eth0", "", None),
            ("office", "wireguard", None),
            ("vpn", "tun", None),
            ("pods", "bridge", None),
            ("nic2", "veth", Some(4)),
            ("robot-lan", "bridge", None),
            ("eth1", "", Some(6)),
            ("eth2.7", "vlan", None),
            ("test0", "dummy", None),
        ];
        assert_eq!(
            judged(&links, 1, &Exclusions::default()),
            ["eth0", "nic2", "robot-lan", "eth1", "eth2.7"]
        );
    }

    #[test]
    fn what_leads_out_is_real_unless_it_is_a_tunnel() {
        let none = Exclusions::default();
        assert_eq!(judged(&[("br-lan", "bridge", None), ("veth1", "veth", Some(1))], 1, &none), ["br-lan"]);
        assert_eq!(judged(&[("veth0", "veth", None), ("docker0", "bridge", None)], 1, &none), ["veth0"]);
        assert!(judged(&[("wg0", "wireguard", None)], 1, &none).is_empty());
    }

    #[test]
    fn the_robots_own_networks_are_left_alone() {
        let exclusions = Exclusions {
            exclude_interfaces: vec!["eth1".into(), "can*".into()],
            exclude_prefixes: vec!["192.0.2.4/32".parse().unwrap()],
        };
        let links = [("eth0", "", None), ("eth1", "", None), ("can0", "", None), ("eth2", "", None)];
        assert_eq!(judged(&links, 1, &exclusions), ["eth0"]);
        let host = host(&[("eth1", "192.168.1.1/24"), ("eth0", "10.0.0.7/24"), ("eth1", "fe80::1/64")]);
        let shown: Vec<String> = host.avoided(&exclusions).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.4/32", "192.168.1.0/24"]);
    }

    #[test]
    fn only_addresses_of_the_real_network_are_candidates() {
        let host = host(&[
            ("lo", "127.0.0.1/8"),
            ("eth0", "192.0.2.7/24"),
            ("wlan0", "2001:db8::7/64"),
            ("eth1down", "192.0.2.99/24"),
            ("eth3unplugged", "192.0.2.98/24"),
            ("eth2", "169.254.3.4/16"),
            ("eth2", "fe80::1/64"),
            ("docker0", "172.17.0.1/16"),
            ("tailscale0", "100.64.0.1/32"),
            ("ria0", "10.213.0.7/16"),
        ]);
        let found: Vec<String> = host.candidates(41820).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.7:41820", "[2001:db8::7]:41820"]);
    }

    fn with_route(mut host: Host, gateway: &str) -> Host {
        let gateway: IpAddr = gateway.parse().unwrap();
        let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        host.routes.push(Route {
            destination: all.parse().unwrap(),
            interface: Some(1),
            gateway: Some(gateway),
        });
        host
    }

    #[test]
    fn a_change_of_network_is_told_apart_from_what_changes_nothing() {
        let home =
            with_route(host(&[("wlan0", "192.168.1.7/24"), ("docker0", "172.17.0.1/16")]), "192.168.1.1");
        let change = |now: &Host| now.uplink_change(&home, 41820);
        assert_eq!(change(&home), UplinkChange::default());

        let mut with_container = home.clone();
        with_container.interfaces[1].carrier_changes = 9;
        assert_eq!(change(&with_container), UplinkChange::default());

        let away = with_route(host(&[("wlan0", "10.1.2.3/16")]), "10.1.0.1");
        let moved = change(&away);
        assert!(moved.left && moved.readdressed && moved.is_elsewhere() && !moved.gone && !moved.interrupted);
        assert_eq!(moved.rerouted, (true, false));

        let same_addresses = with_route(host(&[("wlan0", "192.168.1.7/24")]), "192.168.1.254");
        let rerouted = UplinkChange { rerouted: (true, false), ..UplinkChange::default() };
        assert_eq!(change(&same_addresses), rerouted);

        let mut reassociated = home.clone();
        reassociated.interfaces[0].carrier_changes = 3;
        assert_eq!(change(&reassociated), UplinkChange { interrupted: true, ..UplinkChange::default() });

        let mut no_carrier = home.clone();
        no_carrier.interfaces[0].carrier = false;
        assert!(change(&no_carrier).left && no_carrier.candidates(41820).is_empty());

        let with_v6 = with_route(home.clone(), "fe80::1");
        assert_eq!(change(&with_v6).rerouted, (false, true), "the way of IPv4 is the same");
    }

    #[test]
    fn an_address_that_is_about_to_go_is_no_candidate() {
        let mut host = host(&[("eth0", "2001:db8::7/64"), ("eth0", "2001:db8::8/64")]);
        host.unfit = vec!["2001:db8::7".parse().unwrap()];
        assert_eq!(host.candidates(1), ["[2001:db8::8]:1".parse().unwrap()]);
    }

    #[test]
    fn each_real_link_is_spoken_to_by_its_own_addresses() {
        let host = host(&[
            ("lo", "127.0.0.1/8"),
            ("eth0", "192.168.8.7/24"),
            ("eth1", "169.254.3.4/16"),
            ("wlan0", "fe80::1/64"),
            ("wwan0", "100.70.0.1/30"),
            ("docker0", "172.17.0.1/16"),
            ("ria0", "10.213.0.7/16"),
        ]);
        let places = host.places();
        let found: Vec<_> = places
            .iter()
            .map(|p| (p.socket_address(9).to_string(), p.broadcast.map(|b| b.to_string())))
            .collect();
        let wanted = [
            ("192.168.8.7:9", Some("192.168.8.255")),
            ("169.254.3.4:9", Some("169.254.255.255")),
            ("[fe80::1%4]:9", None),
        ];
        assert_eq!(found, wanted.map(|(address, all)| (address.to_owned(), all.map(str::to_owned))));
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
