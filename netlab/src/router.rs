//! The rules of a router: forwarding and address translation, by the kernel or by an emulator that is all there is.

use std::net::Ipv4Addr;

use nix::sched::CloneFlags;

use crate::cable::Cable;
use crate::description::{Nat, RouterSpec};
use crate::emulator::Emulator;
use crate::emulator::port::Port;
use crate::emulator::router::Router;
use crate::error::Error;
use crate::gateway::{Attachment, Gateway};
use crate::nat::{Behaviour, Translator};
use crate::network::Network;
use crate::node::Node;

/// Interface towards the internet.
pub const UPLINK: &str = "up0";
/// Interface towards its own network.
pub const DOWNLINK: &str = "lan0";

/// What nobody inside has asked for is dropped; neighbours are found all the same (RFC 4861).
const FIREWALL: &str = "table inet firewall {
 chain input {
  type filter hook input priority 0; policy accept;
  ct state established,related accept
  ip protocol icmp icmp type echo-request accept
  icmpv6 type { echo-request, nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
  iifname \"up0\" drop
 }
 chain forward {
  type filter hook forward priority 0; policy accept;
  ct state established,related accept
  iifname \"up0\" drop
 }
}
";

/// Turns a node with both interfaces into a router. IPv6 is forwarded as it is.
///
/// What comes in uninvited is dropped before connection tracking confirms it. An entry of its own would take the port
/// that a host behind the router is about to send from, and hole punching would fail as on no real router.
pub fn configure(node: &Node, spec: &RouterSpec) -> Result<(), Error> {
    node.sysctl(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    let masquerade = match spec.nat {
        Nat::None if spec.firewall => return node.nft(FIREWALL),
        Nat::None => return Ok(()),
        Nat::PortPreserving => "masquerade",
        Nat::Symmetric => "masquerade fully-random",
        // An emulator does everything; see [`emulate`].
        Nat::Emulated(_) => return Ok(()),
    };
    node.nft(&format!(
        "table ip nat {{
 chain postrouting {{
  type nat hook postrouting priority 100; policy accept;
  oifname \"{UPLINK}\" {masquerade}
 }}
}}
{FIREWALL}"
    ))?;
    if let Some(seconds) = spec.udp_timeout {
        let seconds = seconds.to_string();
        node.sysctl(&[
            ("net.netfilter.nf_conntrack_udp_timeout", &seconds),
            ("net.netfilter.nf_conntrack_udp_timeout_stream", &seconds),
        ])?;
    }
    Ok(())
}

/// Makes a node a router with an emulated translator, between its cables inside and outside. The kernel knows none of
/// the addresses, so that it does nothing with what arrives.
pub fn emulate(
    node: &Node,
    behaviour: Behaviour,
    [inside, outside]: [(&Network, &Cable, Ipv4Addr); 2],
) -> Result<Emulator<Router>, Error> {
    node.sysctl(&[("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")])?;
    let attach = |(network, cable, address): (&Network, &Cable, Ipv4Addr)| {
        let (interface, mtu) = (cable.interface, network.mtu());
        let prefix = network.spec.prefix.unwrap_or_default();
        node.ip(&format!("link set {interface} mtu {mtu} up"))?;
        network.node.await_up(cable.port())?;
        node.await_up(interface)?;
        let gateway = network.gateway().v4.filter(|gateway| *gateway != address);
        Ok::<_, Error>(Attachment { mac: node.mac(interface)?, address, prefix, mtu, gateway })
    };
    let external = outside.2;
    let (inside, outside) = (attach(inside)?, attach(outside)?);
    // Routers of one lab differ in their random ports, and a lab is the same every time.
    let seed = node
        .name()
        .bytes()
        .fold(u64::from(u32::from(external)), |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
    let router = Router::new(Gateway::new(inside, outside, Translator::new(behaviour, external, seed)));
    let open = || Ok([Port::open(DOWNLINK)?, Port::open(UPLINK)?]);
    node.namespaces()
        .enter(CloneFlags::CLONE_NEWNET, open)
        .and_then(|ports| Emulator::start(node.name(), ports, router))
        .map_err(Error::io(format!("{}: emulator", node.name())))
}
