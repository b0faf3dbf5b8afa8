//! What a lab consists of, as values and as TOML. Owns the form, not the building.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::link::Link;
use crate::nat::{Behaviour, Dependence};

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
    /// Its IPv4 addresses; the first is the gateway's, hosts are counted from the tenth. Without one it is an IPv6 network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Ipv4Net>,
    /// Its IPv6 addresses, counted in the same way; link-local ones are there in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix6: Option<Ipv6Net>,
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
        let (prefix, prefix6) = (Some(prefix), None);
        Self { prefix, prefix6, internet: false, isolate_clients: false, drop_multicast: false, mtu: None }
    }

    /// A plain switch without IPv4.
    pub fn ipv6_only(prefix6: Ipv6Net) -> Self {
        Self { prefix: None, ..Self::new(Ipv4Net::default()) }.with_ipv6(prefix6)
    }

    /// With IPv6 addresses, too.
    pub fn with_ipv6(mut self, prefix6: Ipv6Net) -> Self {
        self.prefix6 = Some(prefix6);
        self
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

/// How a router translates addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Nat {
    /// Not at all; the network above gets a route. Nothing is filtered unless the router is to be a firewall.
    None,
    /// The kernel's: keeps the port as long as it is free, so that the mapping is the same to every destination; address-
    /// and port-dependent filtering. The usual home and campus router.
    #[default]
    PortPreserving,
    /// The kernel's: a random port per destination: address- and port-dependent mapping and filtering.
    Symmetric,
    /// An emulator's, in the words of RFC 4787.
    Emulated(Behaviour),
}

impl Nat {
    /// Emulated: endpoint-independent mapping and filtering ("full cone").
    pub const ENDPOINT_INDEPENDENT: Self = Self::Emulated(Behaviour::all(Dependence::EndpointIndependent));
    /// Emulated: endpoint-independent mapping, address- and port-dependent filtering, as most home routers.
    pub const PORT_RESTRICTED: Self = Self::Emulated(Behaviour::PORT_RESTRICTED);
    /// Emulated: address-dependent mapping and filtering.
    pub const ADDRESS_DEPENDENT: Self = Self::Emulated(Behaviour::all(Dependence::AddressDependent));
    /// Emulated: address- and port-dependent mapping and filtering ("symmetric").
    pub const ADDRESS_AND_PORT_DEPENDENT: Self =
        Self::Emulated(Behaviour::all(Dependence::AddressAndPortDependent));

    const NAMES: [(&str, Self); 7] = [
        ("none", Self::None),
        ("port-preserving", Self::PortPreserving),
        ("symmetric", Self::Symmetric),
        ("endpoint-independent", Self::ENDPOINT_INDEPENDENT),
        ("port-restricted", Self::PORT_RESTRICTED),
        ("address-dependent", Self::ADDRESS_DEPENDENT),
        ("address-and-port-dependent", Self::ADDRESS_AND_PORT_DEPENDENT),
    ];
}

impl Serialize for Nat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (Self::NAMES.iter().find(|(_, nat)| nat == self), self) {
            (Some((name, _)), _) => serializer.serialize_str(name),
            (None, Self::Emulated(behaviour)) => behaviour.serialize(serializer),
            (None, Self::None | Self::PortPreserving | Self::Symmetric) => {
                Err(serde::ser::Error::custom("a kind without a name"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Nat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NatVisitor)
    }
}

/// Reads a name or a table.
struct NatVisitor;

impl<'de> Visitor<'de> for NatVisitor {
    type Value = Nat;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table (mapping, filtering, …) or one of {}", Nat::NAMES.map(|(name, _)| name).join(", "))
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Nat, E> {
        let known = Nat::NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, nat)| *nat).ok_or_else(|| E::invalid_value(Unexpected::Str(name), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Nat, A::Error> {
        Behaviour::deserialize(MapAccessDeserializer::new(map)).map(Nat::Emulated)
    }
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
    /// Refuse what nobody inside has asked for. Always so where the kernel translates.
    #[serde(default)]
    pub firewall: bool,
    /// Seconds after which an idle UDP mapping is forgotten. When absent: the kernel's 30 (120 for a
    /// busy one), the behaviour's own if it is emulated.
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
        let link = Link::default();
        Self { uplink, downlink, nat, address: None, firewall: false, udp_timeout: None, link }
    }

    /// With a stateful firewall.
    pub fn with_firewall(mut self) -> Self {
        self.firewall = true;
        self
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
