//! The lab: the one owner of all nodes and cables. Builds them, changes links, moves hosts; its end is their end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::description::{Description, HostSpec, Nat, NetworkSpec, RouterSpec};
use crate::error::Error;
use crate::files;
use crate::host::Host;
use crate::link::{Direction, Link};
use crate::network::{Network, shape_interface};
use crate::node::{self, Node};
use crate::router::{self, DOWNLINK, UPLINK};

/// A host's interface.
const HOST_INTERFACE: &str = "eth0";

/// Hosts, routers and networks. Dropping it, or the death of the process that holds it, ends and removes all of them.
#[derive(Debug)]
pub struct Lab {
    name: String,
    networks: BTreeMap<String, Network>,
    nodes: BTreeMap<String, Node>,
    hosts: BTreeMap<String, Host>,
    links: BTreeMap<String, Cable>,
    cables: u32,
}

/// A cable between a node and a port of a network.
#[derive(Debug)]
struct Cable {
    network: String,
    port: String,
    interface: &'static str,
    link: Link,
}

impl Lab {
    /// An empty lab. Fails when not root or when `ip`, `tc` or `nft` is missing.
    pub fn new(name: &str) -> Result<Self, Error> {
        node::check_system()?;
        check_name(name)?;
        let name = name.to_owned();
        let (networks, nodes, hosts, links) = Default::default();
        Ok(Self { name, networks, nodes, hosts, links, cables: 0 })
    }

    /// A lab as described.
    pub fn build(description: &Description) -> Result<Self, Error> {
        let mut lab = Self::new(&description.name)?;
        for (name, spec) in &description.networks {
            lab.add_network(name, spec.clone())?;
        }
        for (name, spec) in &description.routers {
            lab.add_router(name, spec.clone())?;
        }
        for (name, spec) in &description.hosts {
            lab.add_host(name, spec.clone())?;
        }
        Ok(lab)
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a network.
    pub fn add_network(&mut self, name: &str, spec: NetworkSpec) -> Result<(), Error> {
        self.check_new(name)?;
        let network = Network::start(&self.name, name, spec)?;
        self.networks.insert(name.to_owned(), network);
        Ok(())
    }

    /// Adds a router between two networks; its downlink's hosts, added later, use it as their default gateway.
    pub fn add_router(&mut self, name: &str, spec: RouterSpec) -> Result<(), Error> {
        self.check_new(name)?;
        self.network(&spec.uplink)?;
        let inner = self.network_mut(&spec.downlink)?.become_gateway()?;
        let inner_prefix = self.network(&spec.downlink)?.spec.prefix;
        let outer = self.network_mut(&spec.uplink)?.allocate(spec.address)?;

        let router = Node::start(&self.name, name)?;
        let down = self.connect(&router, &spec.downlink, DOWNLINK, false)?;
        self.set_address(&router, &down, inner)?;
        let up = self.connect(&router, &spec.uplink, UPLINK, false)?;
        self.set_address(&router, &up, outer)?;
        router::configure(&router, spec.nat, spec.udp_timeout)?;
        if spec.nat == Nat::None && self.network(&spec.uplink)?.spec.internet {
            self.network(&spec.uplink)?.node.ip(&format!("route add {inner_prefix} via {outer}"))?;
        }
        self.nodes.insert(name.to_owned(), router);
        self.links.insert(name.to_owned(), up);
        self.set_link(name, spec.link)
    }

    /// Adds a host.
    pub fn add_host(&mut self, name: &str, spec: HostSpec) -> Result<Host, Error> {
        self.check_new(name)?;
        let address = self.network_mut(&spec.network)?.allocate(spec.address)?;
        let node = Node::start(&self.name, name)?;
        files::furnish(&node, &spec.private)?;
        let cable = self.connect(&node, &spec.network, HOST_INTERFACE, true)?;
        self.set_address(&node, &cable, address)?;
        let host = Host::new(name, node.namespaces().clone(), &spec.network, address);
        self.nodes.insert(name.to_owned(), node);
        self.links.insert(name.to_owned(), cable);
        self.hosts.insert(name.to_owned(), host.clone());
        self.set_link(name, spec.link)?;
        Ok(host)
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Result<Host, Error> {
        self.hosts.get(name).cloned().ok_or_else(|| unknown("host", name, &self.hosts))
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// The quality of the link of a host, or of a router's uplink.
    pub fn link(&self, name: &str) -> Result<&Link, Error> {
        self.cable(name).map(|cable| &cable.link)
    }

    /// Changes the quality of the link of a host, or of a router's uplink.
    pub fn set_link(&mut self, name: &str, link: Link) -> Result<(), Error> {
        let cable = self.cable(name)?;
        if link.is_emulated() {
            return Err(Error::NotEmulated);
        }
        if cable.link != link {
            let network = self.network(&cable.network)?;
            network.shape(&cable.port, &cable.link, &link)?;
            shape_interface(self.node(name)?, cable.interface, (&cable.link, &link), Direction::Up)?;
        }
        if let Some(cable) = self.links.get_mut(name) {
            cable.link = link;
        }
        Ok(())
    }

    /// Cuts a link (nothing passes) or restores it.
    pub fn cut(&mut self, name: &str, cut: bool) -> Result<(), Error> {
        let link = Link { cut, ..self.link(name)?.clone() };
        self.set_link(name, link)
    }

    /// Plugs a running host into another network: the same interface, with another address and default route.
    /// The quality of its link moves with it.
    pub fn move_host(&mut self, name: &str, network: &str) -> Result<Ipv4Addr, Error> {
        let host = self.host(name)?;
        let old_address = host.address();
        let address = self.network_mut(network)?.allocate(None)?;
        let cable = self.cable(name)?;
        let (from, to) = (self.network(&cable.network)?, self.network(network)?);
        let old_network = cable.network.clone();
        from.give_cable(&cable.port, to)?;
        to.plug(&cable.port, true)?;
        if cable.link.is_impaired() {
            to.shape(&cable.port, &Link::default(), &cable.link)?;
        }
        self.node(name)?.ip(&format!("addr flush dev {HOST_INTERFACE} scope global"))?;
        if let Some(cable) = self.links.get_mut(name) {
            cable.network = network.to_owned();
        }
        self.set_address(self.node(name)?, self.cable(name)?, address)?;
        self.network_mut(&old_network)?.release(old_address);
        host.moved(network, address);
        Ok(address)
    }

    fn connect(
        &mut self,
        node: &Node,
        network: &str,
        interface: &'static str,
        is_client: bool,
    ) -> Result<Cable, Error> {
        self.cables += 1;
        let switch = self.network(network)?;
        let port = switch.add_cable(self.cables, node, interface)?;
        switch.plug(&port, is_client)?;
        Ok(Cable { network: network.to_owned(), port, interface, link: Link::default() })
    }

    /// Gives a node's end of a cable an address and, except on a gateway itself, the default route.
    fn set_address(&self, node: &Node, cable: &Cable, address: Ipv4Addr) -> Result<(), Error> {
        let network = self.network(&cable.network)?;
        let (interface, prefix) = (cable.interface, network.spec.prefix);
        let mtu = network.spec.mtu.unwrap_or(1500);
        let broadcast = prefix.broadcast();
        let mut lines = format!(
            "link set {interface} mtu {mtu} up\naddr add {address}/{} broadcast {broadcast} dev {interface}\n",
            prefix.prefix_len()
        );
        if let Some(gateway) = network.gateway().filter(|gateway| *gateway != address) {
            lines += &format!("route replace default via {gateway} dev {interface}\n");
        }
        node.ip(&lines)?;
        network.node.await_up(&cable.port)?;
        node.await_up(interface)
    }

    fn network(&self, name: &str) -> Result<&Network, Error> {
        self.networks.get(name).ok_or_else(|| unknown("network", name, &self.networks))
    }

    fn network_mut(&mut self, name: &str) -> Result<&mut Network, Error> {
        if !self.networks.contains_key(name) {
            return Err(unknown("network", name, &self.networks));
        }
        self.networks.get_mut(name).ok_or_else(|| Error::BadName(name.to_owned()))
    }

    fn cable(&self, name: &str) -> Result<&Cable, Error> {
        self.links.get(name).ok_or_else(|| unknown("link", name, &self.links))
    }

    fn node(&self, name: &str) -> Result<&Node, Error> {
        self.nodes.get(name).ok_or_else(|| unknown("host or router", name, &self.nodes))
    }

    fn check_new(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        if self.networks.contains_key(name) || self.nodes.contains_key(name) {
            return Err(Error::Duplicate(name.to_owned()));
        }
        Ok(())
    }
}

impl Drop for Lab {
    /// Kills all nodes at once; their own drop then waits for one after the other.
    fn drop(&mut self) {
        let switches = self.networks.values_mut().map(|network| &mut network.node);
        switches.chain(self.nodes.values_mut()).for_each(Node::kill);
    }
}

fn unknown<T>(kind: &'static str, name: &str, known: &BTreeMap<String, T>) -> Error {
    let known = known.keys().cloned().collect::<Vec<_>>().join(", ");
    Error::Unknown { kind, name: name.to_owned(), known }
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    let usable = name.len() <= 40
        && name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit() || byte == b'-');
    if usable { Ok(()) } else { Err(Error::BadName(name.to_owned())) }
}
