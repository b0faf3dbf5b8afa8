//! A switched network: a bridge in a namespace of its own, its ports and its addresses. Knows neither hosts nor routers.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::description::NetworkSpec;
use crate::error::Error;
use crate::link::{Direction, Making};
use crate::node::Node;

/// The first host gets this address of the prefix.
const FIRST_HOST: usize = 10;

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
    gateway: Option<Ipv4Addr>,
}

impl Network {
    pub(crate) fn start(lab: &str, name: &str, spec: NetworkSpec) -> Result<Self, Error> {
        let node = Node::start(lab, name)?;
        node.ip("link add br0 type bridge stp_state 0 mcast_snooping 0\nlink set br0 up")?;
        if spec.drop_multicast {
            node.nft(DROP_MULTICAST)?;
        }
        let mut network = Self { node, spec, taken: BTreeSet::new(), gateway: None };
        if network.spec.internet {
            let address = network.become_gateway()?;
            network.node.ip(&format!("addr add {address}/{} dev br0", network.spec.prefix.prefix_len()))?;
            network.node.sysctl(&[
                ("net.ipv4.ip_forward", "1"),
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

    /// The address that default routes point to, if there is a way out.
    pub(crate) fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    /// Gives away the gateway's address.
    pub(crate) fn become_gateway(&mut self) -> Result<Ipv4Addr, Error> {
        if self.gateway.is_some() {
            return Err(Error::SecondGateway(self.node.name().to_owned()));
        }
        let address = self.first_address()?;
        self.gateway = Some(address);
        Ok(address)
    }

    fn first_address(&self) -> Result<Ipv4Addr, Error> {
        self.spec.prefix.hosts().next().ok_or_else(|| self.full())
    }

    fn full(&self) -> Error {
        Error::Full { network: self.node.name().to_owned(), prefix: self.spec.prefix }
    }

    /// Gives away the address asked for, or the next free one.
    pub(crate) fn allocate(&mut self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        let address = match wanted {
            Some(address) => {
                let usable = self.spec.prefix.hosts().skip(1).any(|host| host == address);
                if !usable || self.taken.contains(&address) {
                    let network = self.node.name().to_owned();
                    return Err(Error::Address { address, network, prefix: self.spec.prefix });
                }
                address
            }
            None => self
                .spec
                .prefix
                .hosts()
                .skip(FIRST_HOST - 1)
                .find(|address| !self.taken.contains(address))
                .ok_or_else(|| self.full())?,
        };
        self.taken.insert(address);
        Ok(address)
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
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
