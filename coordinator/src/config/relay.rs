//! Settings of relays.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::sources::Sources;
use crate::relay::DEFAULT_CREDENTIALS;

const SECTION: Option<&str> = Some("relay");
const DEFAULT_PORT: u16 = 3478;

/// Settings of a relay: the one in the coordinator, or one that runs by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// Whether there is one in the coordinator.
    pub enabled: bool,
    pub listen: Vec<SocketAddr>,
    /// Addresses that relayed addresses show, where they are not those that the relay is bound to; at most one of
    /// each family.
    pub external: Vec<IpAddr>,
    /// How long credentials live; nodes are given new ones when half of it has passed.
    pub credentials: Duration,
    /// Ports of relayed addresses that can be reached from outside of the relay.
    pub outside_ports: Option<RangeInclusive<u16>>,
    /// Private networks of this machine in which peers may be all the same.
    pub outside_allow: Vec<IpNet>,
    /// Bound for what one node may have relayed.
    pub node_bytes_per_second: Option<u64>,
    /// Most allocations of one node.
    pub node_allocations: Option<usize>,
}

impl RelaySettings {
    /// Of the relay in the coordinator.
    pub(super) fn of_coordinator(sources: &mut Sources<'_>) -> Self {
        let enabled = sources.find(None, "RIA_RELAY_ENABLED", SECTION, "enabled");
        let credentials = sources.find(None, "RIA_RELAY_CREDENTIALS", SECTION, "credentials");
        Self {
            enabled: sources.flag(enabled).unwrap_or(true),
            credentials: sources.lifetime(credentials, DEFAULT_CREDENTIALS),
            ..Self::of_any(sources)
        }
    }

    /// What any relay has.
    pub(super) fn of_any(sources: &mut Sources<'_>) -> Self {
        let section = SECTION;
        let listen = sources.find(None, "RIA_RELAY_LISTEN", section, "listen");
        let listen = sources.parsed_list(listen, |text| {
            text.parse::<SocketAddr>()
                .map_err(|_| format!("{text:?} is not an address with a port, such as [::]:3478"))
        });
        let external = sources.find(None, "RIA_RELAY_EXTERNAL", section, "external");
        let external = sources.parsed_list(external, |text| {
            text.parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IP address"))
        });
        let external = external.unwrap_or_default();
        let outside_ports = sources.find(None, "RIA_RELAY_OUTSIDE_PORTS", section, "outside_ports");
        let outside_ports = sources.text(outside_ports).and_then(|(text, place)| match port_range(&text) {
            Some(ports) if !external.is_empty() => Some(ports),
            Some(_) => sources.wrong(
                &place,
                "relay.external has to say at which address these ports are reached from outside",
            ),
            None => sources.wrong(
                &place,
                format!(
                    "{text:?} is no range of at most {MOST_OUTSIDE_PORTS} ports above 1023, such as 50000-50100"
                ),
            ),
        });
        let outside_allow = sources.find(None, "RIA_RELAY_OUTSIDE_ALLOW", section, "outside_allow");
        let outside_allow = sources.parsed_list(outside_allow, |text| {
            text.parse::<IpNet>().map_err(|_| format!("{text:?} is no prefix, such as 192.168.7.0/24"))
        });
        let rate = sources.find(None, "RIA_RELAY_NODE_BYTES_PER_SECOND", section, "node_bytes_per_second");
        let node_bytes_per_second = sources.number(rate);
        let node_allocations = sources.find(None, "RIA_RELAY_NODE_ALLOCATIONS", section, "node_allocations");
        let node_allocations =
            sources.number(node_allocations).map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        if external.iter().filter(|ip| ip.is_ipv4()).count() > 1
            || external.iter().filter(|ip| ip.is_ipv6()).count() > 1
        {
            sources.mistakes.push("relay.external: give at most one IPv4 and one IPv6 address".to_owned());
        }
        Self {
            enabled: true,
            listen: listen
                .unwrap_or_else(|| vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), DEFAULT_PORT)]),
            external,
            credentials: DEFAULT_CREDENTIALS,
            outside_ports,
            outside_allow: outside_allow.unwrap_or_default(),
            node_bytes_per_second,
            node_allocations,
        }
    }
}

/// Sockets are looked at one by one, so there is a bound.
const MOST_OUTSIDE_PORTS: u16 = 1024;

/// `50000-50100`.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let count = last.checked_sub(first)?;
    (first > 1023 && count < MOST_OUTSIDE_PORTS).then_some(first..=last)
}
