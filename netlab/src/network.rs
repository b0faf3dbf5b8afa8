//! A switched network: a bridge in a namespace of its own, its ports and its addresses. Knows neither hosts nor routers.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::description::NetworkSpec;
use crate::error::Error;
use crate::link::{Direction, Making};
use crate::node::Node;

/// The first host gets this address of the prefix.
const FIRST_HOST: u16 = 10;

/// The addresses of a node on a network, as many as the network has families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Addresses {
    /// In IPv4.
    pub v4: Option<Ipv4Addr>,
    /// In IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Frames to groups die here, but for what keeps addresses resolvable (ARP, RFC 4861).
const DROP_MULTICAST: &str = "table bridge switch {
 chain forward {
  type filter hook forward priority 0; policy accept;
  ether type arp accept
  icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
  ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop
 }
}
";

/// A network that runs.
#[derive(Debug)]
pub struct Network {
    pub(crate) node: Node,
    pub(crate) spec: NetworkSpec,
    taken: BTreeSet<Ipv4Addr>,
    taken6: BTreeSet<Ipv6Addr>,
    gateway: Option<Addresses>,
}

impl Network {
    pub(crate) fn start(lab: &str, name: &str, spec: NetworkSpec) -> Result<Self, Error> {
        if spec.prefix.is_none() && spec.prefix6.is_none() {
            return Err(Error::NoPrefix(name.to_owned()));
        }
        let node = Node::start(lab, name)?;
        node.ip("link add br0 type bridge stp_state 0 mcast_snooping 0\nlink set br0 up")?;
        if spec.drop_multicast {
            node.nft(DROP_MULTICAST)?;
        }
        let (taken, taken6) = Default::default();
        let mut network = Self { node, spec, taken, taken6, gateway: None };
        if network.spec.internet {
            let addresses = network.become_gateway()?;
            network.node.ip(&network.address_lines("br0", addresses))?;
            network.node.sysctl(&[
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv6.conf.all.forwarding", "1"),
                ("net.ipv4.conf.all.send_redirects", "0"),
                ("net.ipv4.conf.br0.send_redirects", "0"),
            ])?;
        }
        Ok(network)
    }

    /// Largest packet on it.
    pub(crate) fn mtu(&self) -> u16 {
        self.spec.mtu.unwrap_or(1500)
    }

    /// The addresses that default routes point to, if there is a way out.
    pub(crate) fn gateway(&self) -> Addresses {
        self.gateway.unwrap_or_default()
    }

    /// Gives away the gateway's addresses.
    pub(crate) fn become_gateway(&mut self) -> Result<Addresses, Error> {
        if self.gateway.is_some() {
            return Err(Error::SecondGateway(self.node.name().to_owned()));
        }
        let first = |prefix: Ipv4Net| prefix.hosts().next().ok_or_else(|| self.full(prefix.into()));
        let v4 = self.spec.prefix.map(first).transpose()?;
        let addresses = Addresses { v4, v6: self.spec.prefix6.map(|prefix| nth(prefix, 1)) };
        self.gateway = Some(addresses);
        Ok(addresses)
    }

    fn full(&self, prefix: IpNet) -> Error {
        Error::Full { network: self.node.name().to_owned(), prefix }
    }

    /// Gives away addresses: the IPv4 one asked for, or the next free one, and the next free IPv6 one.
    pub(crate) fn allocate(&mut self, wanted: Option<Ipv4Addr>) -> Result<Addresses, Error> {
        let v4 = match self.spec.prefix {
            None if wanted.is_none() => None,
            Some(_) | None => Some(self.allocate_v4(wanted)?),
        };
        let v6 = self.spec.prefix6.map(|prefix| self.allocate_v6(prefix)).transpose()?;
        Ok(Addresses { v4, v6 })
    }

    /// Gives away an IPv4 address only.
    pub(crate) fn allocate_v4(&mut self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        let name = || self.node.name().to_owned();
        let Some(prefix) = self.spec.prefix else { return Err(Error::NoIpv4(name())) };
        let address = match wanted {
            Some(address) => {
                let usable = prefix.hosts().skip(1).any(|host| host == address);
                if !usable || self.taken.contains(&address) {
                    return Err(Error::Address { address, network: name(), prefix });
                }
                address
            }
            None => prefix
                .hosts()
                .skip(usize::from(FIRST_HOST) - 1)
                .find(|address| !self.taken.contains(address))
                .ok_or_else(|| self.full(prefix.into()))?,
        };
        self.taken.insert(address);
        Ok(address)
    }

    fn allocate_v6(&mut self, prefix: Ipv6Net) -> Result<Ipv6Addr, Error> {
        let mut all = (FIRST_HOST..=u16::MAX).map(|number| nth(prefix, number));
        let address = all.find(|address| prefix.contains(address) && !self.taken6.contains(address));
        let address = address.ok_or_else(|| self.full(prefix.into()))?;
        self.taken6.insert(address);
        Ok(address)
    }

    pub(crate) fn release(&mut self, addresses: Addresses) {
        addresses.v4.map(|address| self.taken.remove(&address));
        addresses.v6.map(|address| self.taken6.remove(&address));
    }

    /// Lines of `ip` that give an interface its addresses here.
    pub(crate) fn address_lines(&self, interface: &str, addresses: Addresses) -> String {
        let mut lines = String::new();
        if let (Some(address), Some(prefix)) = (addresses.v4, self.spec.prefix) {
            let (length, all) = (prefix.prefix_len(), prefix.broadcast());
            lines += &format!("addr add {address}/{length} broadcast {all} dev {interface}\n");
        }
        if let (Some(address), Some(prefix)) = (addresses.v6, self.spec.prefix6) {
            lines += &format!("addr add {address}/{} dev {interface} nodad\n", prefix.prefix_len());
        }
        lines
    }

    /// Makes a port with a cable: an interface here, interface `end` in the other node.
    ///
    /// The port's index is far from any other end's: where both have the same (in two namespaces), the kernel takes
    /// a second to notice that the cable is in.
    pub(crate) fn add_cable(&self, number: u32, other: &Node, end: &str) -> Result<String, Error> {
        let (port, index) = (format!("port{number}"), 1000 + number);
        self.node
            .ip(&format!("link add {port} index {index} type veth peer name {end} netns {}", other.init()))?;
        Ok(port)
    }

    /// Hands a port's end of its cable to another network, or to this one again.
    ///
    /// Its rules go first: a kernel may bind what stays here to the port again, should it come back.
    pub(crate) fn give_cable(&self, port: &str, to: &Self) -> Result<(), Error> {
        self.node.nft(&format!("table netdev {port}\ndelete table netdev {port}"))?;
        self.node.ip(&format!("link set {port} netns {}", to.node.init()))
    }

    /// Takes a cable that lies in this namespace into service.
    pub(crate) fn plug(&self, port: &str, is_client: bool) -> Result<(), Error> {
        let mtu = self.mtu();
        let isolated = if is_client && self.spec.isolate_clients { "on" } else { "off" };
        self.node.ip(&format!(
            "link set {port} mtu {mtu} master br0\nlink set {port} type bridge_slave isolated {isolated}\nlink set {port} up"
        ))
    }

    /// Makes the link of a port as good or bad as wanted: the half that is done in this namespace.
    pub(crate) fn shape(&self, port: &str, old: &Making, new: &Making) -> Result<(), Error> {
        self.node.nft(&new.rules(port))?;
        shape_interface(&self.node, port, (old, new), Direction::Down)
    }
}

/// An address of a prefix by its number.
fn nth(prefix: Ipv6Net, number: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(prefix.network().to_bits() | u128::from(number))
}

/// Sets the rate of what leaves an interface, and whether it leaves in single frames.
pub(crate) fn shape_interface(
    node: &Node,
    interface: &str,
    (old, new): (&Making, &Making),
    direction: Direction,
) -> Result<(), Error> {
    let segments = if new.is_impaired() { 1 } else { 65_535 };
    node.ip(&format!("link set {interface} gso_max_segs {segments}"))?;
    match (old.kernel_rate(direction), new.kernel_rate(direction)) {
        (_, Some(rate)) => node.tc(&format!("qdisc replace dev {interface} root {}", rate.tbf())),
        (Some(_), None) => node.tc(&format!("qdisc del dev {interface} root")),
        (None, None) => Ok(()),
    }
}
