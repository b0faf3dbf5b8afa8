//! The rules of a router: forwarding and address translation.

use crate::description::Nat;
use crate::error::Error;
use crate::node::Node;

/// Interface towards the internet.
pub const UPLINK: &str = "up0";
/// Interface towards its own network.
pub const DOWNLINK: &str = "lan0";

/// Turns a node with both interfaces into a router.
///
/// What comes in uninvited is dropped before connection tracking confirms it. An entry of its own would take the port
/// that a host behind the router is about to send from, and hole punching would fail as on no real router.
pub fn configure(node: &Node, nat: Nat, udp_timeout: Option<u32>) -> Result<(), Error> {
    node.sysctl(&[("net.ipv4.ip_forward", "1")])?;
    let masquerade = match nat {
        Nat::None => return Ok(()),
        Nat::PortPreserving => "masquerade",
        Nat::Symmetric => "masquerade fully-random",
    };
    node.nft(&format!(
        "table ip nat {{
 chain postrouting {{
  type nat hook postrouting priority 100; policy accept;
  oifname \"{UPLINK}\" {masquerade}
 }}
}}
table inet firewall {{
 chain input {{
  type filter hook input priority 0; policy accept;
  ct state established,related accept
  ip protocol icmp icmp type echo-request accept
  iifname \"{UPLINK}\" drop
 }}
 chain forward {{
  type filter hook forward priority 0; policy accept;
  ct state established,related accept
  iifname \"{UPLINK}\" drop
 }}
}}
"
    ))?;
    if let Some(seconds) = udp_timeout {
        let seconds = seconds.to_string();
        node.sysctl(&[
            ("net.netfilter.nf_conntrack_udp_timeout", &seconds),
            ("net.netfilter.nf_conntrack_udp_timeout_stream", &seconds),
        ])?;
    }
    Ok(())
}
