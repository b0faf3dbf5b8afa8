//! What a lab consists of, as values and as TOML. Owns the form, not the building.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::link::Link;

/// A whole lab.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The lab's name, by which the `netlab` command finds it.
    pub name: String,
    /// Switched networks.
    #[serde(rename = "network", default)]
    pub networks: BTreeMap<String, NetworkSpec>,
    /// Routers between them.
    #[serde(rename = "router", default)]
    pub routers: BTreeMap<String, RouterSpec>,
    /// Hosts on them.
    #[serde(rename = "host", default)]
    pub hosts: BTreeMap<String, HostSpec>,
}

impl Description {
    /// Reads TOML; unknown keys are refused.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Description(error.to_string()))
    }
}

/// One switched network: a bridge in a namespace of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkSpec {
    /// Its addresses; the first is the gateway's, hosts are counted from the tenth.
    pub prefix: Ipv4Net,
    /// The network is "the internet": it routes, and answers "network unreachable" for what no router announced.
    #[serde(default)]
    pub internet: bool,
    /// Hosts reach routers but not each other, as on campus Wi-Fi.
    #[serde(default)]
    pub isolate_clients: bool,
    /// Frames to groups (multicast and broadcast) are dropped, but for ARP and IPv6 neighbour discovery.
    #[serde(default)]
    pub drop_multicast: bool,
    /// MTU of every interface on it; 1500 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

impl NetworkSpec {
    /// A plain switch.
    pub fn new(prefix: Ipv4Net) -> Self {
        Self { prefix, internet: false, isolate_clients: false, drop_multicast: false, mtu: None }
    }

    /// The public internet, where servers sit.
    pub fn internet(prefix: Ipv4Net) -> Self {
        Self { internet: true, ..Self::new(prefix) }
    }

    /// Campus Wi-Fi: clients isolated, no multicast.
    pub fn campus_wifi(prefix: Ipv4Net) -> Self {
        Self { isolate_clients: true, drop_multicast: true, ..Self::new(prefix) }
    }
}

/// How a router translates addresses, in the words of RFC 4787.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nat {
    /// Not at all; the network above gets a route. Nothing is filtered.
    None,
    /// Keeps the port as long as it is free, so that the mapping is the same to every destination; address- and
    /// port-dependent filtering. The usual home and campus router.
    #[default]
    PortPreserving,
    /// A random port per destination: address- and port-dependent mapping and filtering.
    Symmetric,
}

/// A router: default gateway of its downlink, host on its uplink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RouterSpec {
    /// The network above, towards the internet.
    pub uplink: String,
    /// The network it is the gateway of.
    pub downlink: String,
    /// Address translation.
    #[serde(default)]
    pub nat: Nat,
    /// Its address on the uplink; the next free one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Seconds after which an idle UDP mapping is forgotten; the kernel's 30 (120 for a busy one) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_timeout: Option<u32>,
    /// Quality of the uplink.
    #[serde(default)]
    pub link: Link,
}

impl RouterSpec {
    /// A router with the given translation.
    pub fn new(uplink: &str, downlink: &str, nat: Nat) -> Self {
        let (uplink, downlink) = (uplink.to_owned(), downlink.to_owned());
        Self { uplink, downlink, nat, address: None, udp_timeout: None, link: Link::default() }
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostSpec {
    /// The network it is on.
    pub network: String,
    /// Its address; the next free one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// More directories, existing ones, that are empty at first and the host's own (`/tmp`, `/root/.ros`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<PathBuf>,
    /// Quality of its link.
    #[serde(default)]
    pub link: Link,
}

impl HostSpec {
    /// A host on a network, with the next free address.
    pub fn on(network: &str) -> Self {
        Self { network: network.to_owned(), address: None, private: Vec::new(), link: Link::default() }
    }

    /// With a fixed address.
    pub fn at(mut self, address: Ipv4Addr) -> Self {
        self.address = Some(address);
        self
    }
}
