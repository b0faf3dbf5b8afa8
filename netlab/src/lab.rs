//! The lab: the one owner of all nodes and cables. Builds them, changes links, moves hosts; its end is their end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::cable::Cable;
use crate::description::{Description, HostSpec, Nat, NetworkSpec, RouterSpec};
use crate::emulator::Emulator;
use crate::emulator::router::Router;
use crate::error::Error;
use crate::files;
use crate::gateway::Gateway;
use crate::host::Host;
use crate::link::lane::Counters;
use crate::link::{Direction, Link};
use crate::nat::{Behaviour, NatReport};
use crate::network::{Addresses, Network};
use crate::node::{self, Node};
use crate::router::{self, DOWNLINK, UPLINK};

/// A host's interface.
const HOST_INTERFACE: &str = "eth0";

/// Longest black-out.
const BLACK_OUT_MAX: Duration = Duration::from_secs(3600);

/// Hosts, routers and networks. Dropping it, or the death of the process that holds it, ends and removes all of them.
#[derive(Debug)]
pub struct Lab {
    name: String,
    networks: BTreeMap<String, Network>,
    nodes: BTreeMap<String, Node>,
    hosts: BTreeMap<String, Host>,
    links: BTreeMap<String, Cable>,
    routers: BTreeMap<String, Emulated>,
    cables: u32,
}

/// A router that is an emulator.
#[derive(Debug)]
struct Emulated {
    emulator: Emulator<Router>,
    /// Outside.
    address: Ipv4Addr,
}

impl Lab {
    /// An empty lab. Fails when not root or when `ip`, `tc` or `nft` is missing.
    pub fn new(name: &str) -> Result<Self, Error> {
        node::check_system()?;
        check_name(name)?;
        let name = name.to_owned();
        let (networks, nodes, hosts, links, routers) = Default::default();
        Ok(Self { name, networks, nodes, hosts, links, routers, cables: 0 })
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
        let both_v6 = [&spec.uplink, &spec.downlink].map(|name| self.network(name).map(|n| n.spec.prefix6));
        let [up6, down6] = both_v6;
        let is_emulated = matches!(spec.nat, Nat::Emulated(_));
        if is_emulated && up6?.is_some() && down6?.is_some() {
            return Err(Error::NoIpv6(name.to_owned()));
        }
        let inner = self.network_mut(&spec.downlink)?.become_gateway()?;
        let uplink = self.network_mut(&spec.uplink)?;
        let outer = match is_emulated {
            true => Addresses { v4: Some(uplink.allocate_v4(spec.address)?), v6: None },
            false => uplink.allocate(spec.address)?,
        };

        let router = Node::start(&self.name, name)?;
        let mut down = self.connect(&router, &spec.downlink, DOWNLINK, false)?;
        let mut up = self.connect(&router, &spec.uplink, UPLINK, false)?;
        if let Nat::Emulated(behaviour) = spec.nat {
            let udp_timeout = spec.udp_timeout.unwrap_or(behaviour.udp_timeout);
            let behaviour = Behaviour { udp_timeout, ..behaviour };
            let (inside, outside) = (self.network(&spec.downlink)?, self.network(&spec.uplink)?);
            down.make_single(inside)?;
            up.make_single(outside)?;
            let no_ipv4 = || Error::NoIpv4(spec.downlink.clone());
            let (inner, outer) = (inner.v4.ok_or_else(no_ipv4)?, outer.v4.ok_or_else(no_ipv4)?);
            let ways = [(inside, &down, inner), (outside, &up, outer)];
            let emulator = router::emulate(&router, behaviour, ways)?;
            self.routers.insert(name.to_owned(), Emulated { emulator, address: outer });
        } else {
            self.set_address(&router, &down, inner)?;
            self.set_address(&router, &up, outer)?;
            router::configure(&router, &spec)?;
            self.announce(&spec, outer)?;
        }
        self.nodes.insert(name.to_owned(), router);
        self.links.insert(name.to_owned(), up);
        self.set_link(name, spec.link)
    }

    /// The internet gets routes to what is behind a router and not translated.
    fn announce(&self, spec: &RouterSpec, outer: Addresses) -> Result<(), Error> {
        let (up, down) = (self.network(&spec.uplink)?, self.network(&spec.downlink)?);
        let v4 = down.spec.prefix.zip(outer.v4).filter(|_| spec.nat == Nat::None);
        let v6 = down.spec.prefix6.zip(outer.v6);
        let v4 = v4.map(|(prefix, via)| format!("route add {prefix} via {via}\n"));
        let v6 = v6.map(|(prefix, via)| format!("route add {prefix} via {via} dev br0\n"));
        let lines: String = v4.into_iter().chain(v6).collect();
        if up.spec.internet { up.node.ip(&lines) } else { Ok(()) }
    }

    /// Adds a host.
    pub fn add_host(&mut self, name: &str, spec: HostSpec) -> Result<Host, Error> {
        self.check_new(name)?;
        let addresses = self.network_mut(&spec.network)?.allocate(spec.address)?;
        let node = Node::start(&self.name, name)?;
        files::furnish(&node, &spec.private)?;
        let cable = self.connect(&node, &spec.network, HOST_INTERFACE, true)?;
        self.set_address(&node, &cable, addresses)?;
        let host = Host::new(name, node.namespaces().clone(), &spec.network, addresses);
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

    /// A router as a place to run programs in, such as a daemon that opens ports; not one that is emulated, whose kernel
    /// does nothing.
    pub fn router(&self, name: &str) -> Result<Host, Error> {
        let node = self
            .nodes
            .get(name)
            .filter(|_| !self.routers.contains_key(name) && !self.hosts.contains_key(name));
        let node = node.ok_or_else(|| unknown("router with a kernel", name, &self.links))?;
        Ok(Host::new(name, node.namespaces().clone(), name, Addresses::default()))
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// The quality of the link of a host, or of a router's uplink.
    pub fn link(&self, name: &str) -> Result<&Link, Error> {
        self.cable(name).map(Cable::link)
    }

    /// Changes the quality of the link of a host, or of a router's uplink.
    pub fn set_link(&mut self, name: &str, link: Link) -> Result<(), Error> {
        self.with_cable(name, |cable, network, node| cable.set(link, network, node))
    }

    /// Cuts a link (nothing passes) or restores it.
    pub fn cut(&mut self, name: &str, cut: bool) -> Result<(), Error> {
        let link = Link { cut, ..self.link(name)?.clone() };
        self.set_link(name, link)
    }

    /// Lets nothing pass a link for a while, both ways or one; it ends by itself. It takes the place of one that
    /// runs that way already, so that zero ends it.
    pub fn black_out(
        &mut self,
        name: &str,
        direction: Option<Direction>,
        time: Duration,
    ) -> Result<(), Error> {
        if time > BLACK_OUT_MAX {
            return Err(Error::BlackOut);
        }
        self.with_cable(name, |cable, network, node| cable.black_out((direction, time), network, node))
    }

    /// What became of the frames that a link's emulator carried, up and down; none where the kernel makes the link.
    pub fn link_counters(&self, name: &str) -> Result<Option<(Counters, Counters)>, Error> {
        self.cable(name).map(Cable::counters)
    }

    /// Has an emulated translator forget all mappings, as when the router lost its power.
    pub fn reboot_nat(&mut self, router: &str) -> Result<(), Error> {
        self.ask_router(router, |gateway, _| gateway.nat().reboot())
    }

    /// Gives an emulated translator another address outside, the one wanted or the next free one. That ends all mappings.
    pub fn readdress_nat(&mut self, router: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
        let old = self.emulated(router)?.address;
        let uplink = self.cable(router)?.network.clone();
        let address = self.network_mut(&uplink)?.allocate_v4(wanted)?;
        self.ask_router(router, move |gateway, _| gateway.set_external(address))?;
        self.network_mut(&uplink)?.release(Addresses { v4: Some(old), v6: None });
        if let Some(emulated) = self.routers.get_mut(router) {
            emulated.address = address;
        }
        Ok(address)
    }

    /// What an emulated translator holds and has dropped.
    pub fn nat_report(&self, router: &str) -> Result<NatReport, Error> {
        self.ask_router(router, |gateway, now| gateway.nat().report(now))
    }

    /// Plugs a running host into another network: the same interface, with another address and default route.
    /// The quality of its link moves with it.
    pub fn move_host(&mut self, name: &str, network: &str) -> Result<Ipv4Addr, Error> {
        let host = self.host(name)?;
        let old_addresses = host.addresses();
        let addresses = self.network_mut(network)?.allocate(None)?;
        let old_network = self.cable(name)?.network.clone();
        let to = self.networks.get(network).ok_or_else(|| unknown("network", network, &self.networks))?;
        if let (Some(cable), Some(from)) = (self.links.get_mut(name), self.networks.get(&old_network)) {
            cable.move_to(from, to, network)?;
        }
        self.node(name)?.ip(&format!("addr flush dev {HOST_INTERFACE} scope global"))?;
        self.node(name)?.forget_default6(HOST_INTERFACE)?;
        self.set_address(self.node(name)?, self.cable(name)?, addresses)?;
        self.network_mut(&old_network)?.release(old_addresses);
        host.moved(network, addresses);
        Ok(host.address())
    }

    /// Does something with the cable of a host, or of a router's uplink, and what is at its ends.
    fn with_cable(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Cable, &Network, &Node) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let known: Vec<String> = self.links.keys().cloned().collect();
        let found = self.links.get_mut(name).and_then(|cable| {
            let network = self.networks.get(&cable.network)?;
            Some((cable, network, self.nodes.get(name)?))
        });
        let Some((cable, network, node)) = found else {
            return Err(Error::Unknown { kind: "link", name: name.to_owned(), known: known.join(", ") });
        };
        work(cable, network, node)
    }

    fn emulated(&self, router: &str) -> Result<&Emulated, Error> {
        match self.routers.get(router) {
            Some(emulated) => Ok(emulated),
            None if self.nodes.contains_key(router) && !self.hosts.contains_key(router) => {
                Err(Error::KernelNat(router.to_owned()))
            }
            None => Err(unknown("router with an emulated nat", router, &self.routers)),
        }
    }

    fn ask_router<T: Send + 'static>(
        &self,
        router: &str,
        question: impl FnOnce(&mut Gateway, Instant) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let emulator = &self.emulated(router)?.emulator;
        emulator
            .ask(|work, now| question(work.gateway(), now))
            .map_err(Error::io(format!("{router}: emulator")))
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
        Ok(Cable::new(network, port, interface, is_client))
    }

    /// Gives a node's end of a cable its addresses and, except on a gateway itself, default routes.
    fn set_address(&self, node: &Node, cable: &Cable, addresses: Addresses) -> Result<(), Error> {
        let network = self.network(&cable.network)?;
        let (interface, gateway) = (cable.interface, network.gateway());
        let mut lines = format!("link set {interface} mtu {} up\n", network.mtu());
        lines += &network.address_lines(interface, addresses);
        if gateway != addresses {
            for (all, gateway) in
                [("0.0.0.0/0", gateway.v4.map(IpAddr::from)), ("::/0", gateway.v6.map(IpAddr::from))]
            {
                let line = gateway.map(|via| format!("route replace {all} via {via} dev {interface}\n"));
                lines += &line.unwrap_or_default();
            }
        }
        node.ip(&lines)?;
        network.node.await_up(cable.port())?;
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
        // Before the interfaces that they work on.
        self.routers.clear();
        self.links.clear();
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
