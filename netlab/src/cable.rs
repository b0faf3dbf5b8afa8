//! A cable between a node and a port of a network, and what makes its quality: the kernel, or an emulator spliced in.
//!
//! ```text
//! node ── eth0 ══ port7 ── br0                                   the kernel: nftables and tbf on port7 and eth0
//! node ── eth0 ══ port7 ── emulator ── wire7 ══ slot7 ── br0     nftables on slot7 for cuts and blocked UDP
//! ```
//! What arrives at `port7` and `wire7` is for the emulator alone: rules drop it after the emulator has its copy.

use std::time::{Duration, Instant};

use nix::sched::CloneFlags;

use crate::emulator::Emulator;
use crate::emulator::port::Port;
use crate::emulator::wire::Wire;
use crate::error::Error;
use crate::link::lane::Counters;
use crate::link::{Direction, Link, Making};
use crate::network::{Network, shape_interface};
use crate::node::Node;

/// A cable that is plugged in.
#[derive(Debug)]
pub struct Cable {
    /// The network at its other end.
    pub network: String,
    /// The interface at the node's end.
    pub interface: &'static str,
    port: String,
    is_client: bool,
    /// Frames leave the network one by one whatever the quality, since whoever is there takes no batches.
    is_single: bool,
    making: Making,
    splice: Option<Splice>,
    black_until: Option<Instant>,
}

impl Cable {
    /// A perfect cable in a port that is in service.
    pub fn new(network: &str, port: String, interface: &'static str, is_client: bool) -> Self {
        let (making, network) = (Making::default(), network.to_owned());
        Self {
            network,
            interface,
            port,
            is_client,
            is_single: false,
            making,
            splice: None,
            black_until: None,
        }
    }

    /// The network's end.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Its quality.
    pub fn link(&self) -> &Link {
        &self.making.link
    }

    /// What became of the frames that an emulator carried, up and down.
    pub fn counters(&self) -> Option<(Counters, Counters)> {
        let splice = self.splice.as_ref()?;
        splice.emulator.ask(|wire, _| wire.counters()).ok()
    }

    /// Makes frames leave the network one by one from now on.
    pub fn make_single(&mut self, network: &Network) -> Result<(), Error> {
        self.is_single = true;
        network.node.ip(&format!("link set {} gso_max_segs 1", self.port))
    }

    /// Makes the quality as wanted.
    pub fn set(&mut self, link: Link, network: &Network, node: &Node) -> Result<(), Error> {
        let is_black = self.black_until.is_some_and(|until| until > Instant::now());
        let emulated = link.is_emulated() || is_black;
        self.make(Making { link, emulated }, network, node)
    }

    /// Lets nothing pass for a while, both ways or one; it ends by itself.
    pub fn black_out(
        &mut self,
        (direction, time): (Option<Direction>, Duration),
        network: &Network,
        node: &Node,
    ) -> Result<(), Error> {
        self.make(Making { emulated: true, ..self.making.clone() }, network, node)?;
        // One of the two ways may be dark for longer than the last one that was told.
        let until = Instant::now() + time;
        self.black_until = Some(self.black_until.map_or(until, |other| other.max(until)));
        self.tell(move |wire, now| wire.black_out(direction, time, now))
    }

    /// Plugs it into another network, with its quality. A black-out goes on, both ways.
    pub fn move_to(&mut self, from: &Network, to: &Network, name: &str) -> Result<(), Error> {
        if let Some(splice) = self.splice.take() {
            splice.remove(from, &self.port)?;
        }
        from.give_cable(&self.port, to)?;
        if self.making.emulated {
            self.splice = Some(Splice::insert(to, &self.port, self.is_client, &self.making.link)?);
            let left = self.black_until.map(|until| until.saturating_duration_since(Instant::now()));
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                self.tell(move |wire, now| wire.black_out(None, left, now))?;
            }
        } else {
            to.plug(&self.port, self.is_client)?;
        }
        if self.making.is_impaired() {
            self.shape(to, &Making::default(), &self.making)?;
        }
        name.clone_into(&mut self.network);
        Ok(())
    }

    fn make(&mut self, new: Making, network: &Network, node: &Node) -> Result<(), Error> {
        if new == self.making {
            return Ok(());
        }
        if self.splice.is_some() == new.emulated {
            let link = new.link.clone();
            if self.splice.is_some() {
                self.tell(move |wire, _| wire.set(&link))?;
            }
            self.shape(network, &self.making, &new)?;
        } else {
            self.shape(network, &self.making, &Making::default())?;
            if let Some(splice) = self.splice.take() {
                splice.remove(network, &self.port)?;
                network.plug(&self.port, self.is_client)?;
            } else {
                self.splice = Some(Splice::insert(network, &self.port, self.is_client, &new.link)?);
            }
            self.shape(network, &Making::default(), &new)?;
        }
        shape_interface(node, self.interface, (&self.making, &new), Direction::Up)?;
        if self.is_single {
            network.node.ip(&format!("link set {} gso_max_segs 1", self.port))?;
        }
        self.making = new;
        Ok(())
    }

    /// The half of the quality that is made at the network's end, there where the network begins.
    fn shape(&self, network: &Network, old: &Making, new: &Making) -> Result<(), Error> {
        let port = self.splice.as_ref().map_or(&self.port, |splice| &splice.slot);
        network.shape(port, old, new)
    }

    fn tell(&self, question: impl FnOnce(&mut Wire, Instant) + Send + 'static) -> Result<(), Error> {
        let Some(splice) = &self.splice else { return Ok(()) };
        splice.emulator.ask(question).map_err(Error::io(format!("{}: emulator", splice.slot)))
    }
}

/// An emulator in a cable.
#[derive(Debug)]
struct Splice {
    emulator: Emulator<Wire>,
    /// The port of the network that takes the place of the cable's own.
    slot: String,
    wire: String,
}

impl Splice {
    /// Takes a port out of its bridge, and puts an emulator and another port there.
    fn insert(network: &Network, port: &str, is_client: bool, link: &Link) -> Result<Self, Error> {
        let node = &network.node;
        let number = port.trim_start_matches("port");
        let (slot, wire) = (format!("slot{number}"), format!("wire{number}"));
        let mtu = network.mtu();
        node.ip(&format!("link add {slot} type veth peer name {wire}"))?;
        for interface in [port, &wire] {
            node.sysctl(&[(&format!("net.ipv6.conf.{interface}.disable_ipv6"), "1")])?;
            node.nft(&swallow(interface))?;
        }
        // Without ARP: the network's own address is answered for by its bridge alone.
        node.ip(&format!(
            "link set {port} nomaster\nlink set {port} mtu {mtu} arp off up\nlink set {wire} mtu {mtu} arp off up"
        ))?;
        network.plug(&slot, is_client)?;
        for interface in [port, &slot, &wire] {
            node.await_up(interface)?;
        }
        let open = || Ok([Port::open(port)?, Port::open(&wire)?]);
        let emulator = node
            .namespaces()
            .enter(CloneFlags::CLONE_NEWNET, open)
            .and_then(|ports| Emulator::start(&slot, ports, Wire::new(link)))
            .map_err(Error::io(format!("{}: emulator of {port}", node.name())))?;
        Ok(Self { emulator, slot, wire })
    }

    /// Takes everything out again; the port is in no bridge then. What was under way is lost.
    fn remove(self, network: &Network, port: &str) -> Result<(), Error> {
        let Self { emulator, slot, wire } = self;
        drop(emulator);
        for interface in [port, &slot, &wire] {
            network.node.nft(&format!("table netdev {interface}\ndelete table netdev {interface}"))?;
        }
        network.node.ip(&format!("link del {wire}\nlink set {port} arp on"))
    }
}

/// Rules that drop all that comes in.
fn swallow(interface: &str) -> String {
    let table = format!("table netdev {interface}");
    format!(
        "{table}\ndelete {table}\n{table} {{
 chain up {{
  type filter hook ingress device \"{interface}\" priority 0; policy drop;
 }}
}}
"
    )
}
