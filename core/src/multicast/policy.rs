//! Which groups are carried over an overlay: discovery of ROS domains, and what else is named.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ria_protocol::domains::domain_of_port;
use ria_protocol::multicast::MulticastGroup;

use crate::counters::DropReason;
use crate::ip::{IpPacket, UdpDatagram};
use crate::rtps;

/// Where DDS participants announce themselves (RTPS section 9.6.2.4.1); the same in Fast DDS and Cyclone for IPv6.
const DISCOVERY: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(239, 255, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0xffff, 0xefff)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0xffff, 0xefff, 1)),
];

/// Which of a domain's ports is for user data by multicast (RTPS section 9.6.2.3: d2).
const USER_DATA: u16 = 1;

const MDNS_PORT: u16 = 5353;

/// What of the multicast on an overlay's interface is copied to peers, and taken from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MulticastPolicy {
    /// Whether anything is.
    pub replicate: bool,
    /// Whose discovery.
    pub domains: Domains,
    /// Further groups with their UDP ports; link-local ones too, when they are named here.
    pub groups: BTreeSet<MulticastGroup>,
    /// Whether announcements that peers need not hear again are left out.
    pub damping: bool,
    /// Whether participants are announced to peers by their addresses on the overlay alone.
    pub hide_addresses: bool,
}

/// What a packet is that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Participants of DDS announce themselves.
    Discovery,
    /// Of a group that was named. It must not take the room of discovery.
    Group,
}

/// ROS domains (`ROS_DOMAIN_ID`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domains {
    /// Every one.
    All,
    /// These.
    Only(BTreeSet<u8>),
}

impl Default for MulticastPolicy {
    /// Discovery of all domains, damped.
    fn default() -> Self {
        Self {
            replicate: true,
            domains: Domains::All,
            groups: BTreeSet::new(),
            damping: true,
            hide_addresses: true,
        }
    }
}

impl Domains {
    fn contains(&self, domain: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(domains) => u8::try_from(domain).is_ok_and(|domain| domains.contains(&domain)),
        }
    }
}

impl MulticastPolicy {
    /// The datagram in a multicast packet that may pass; else why it may not.
    pub(super) fn judge<'a>(&self, packet: &IpPacket<'a>) -> Result<(UdpDatagram<'a>, Class), DropReason> {
        if !self.replicate {
            return Err(DropReason::Multicast);
        }
        let group = packet.destination;
        let is_discovery = DISCOVERY.contains(&group);
        let Some(udp) = packet.udp() else {
            let known = is_discovery || self.groups.iter().any(|named| named.group == group);
            return Err(if known { DropReason::MulticastMalformed } else { other(group) });
        };
        let port = udp.destination_port;
        if self.groups.iter().any(|named| named.has(group, port)) {
            return Ok((udp, Class::Group));
        }
        if !is_discovery {
            return Err(if port == MDNS_PORT { DropReason::MulticastMdns } else { other(group) });
        }
        match domain_of_port(port).ok_or(DropReason::Multicast)? {
            (domain, 0) if self.domains.contains(domain) => match rtps::sender(udp.payload) {
                Some(_) => Ok((udp, Class::Discovery)),
                None => Err(DropReason::MulticastMalformed),
            },
            (_, 0) => Err(DropReason::MulticastDomain),
            (_, USER_DATA) => Err(DropReason::MulticastData),
            _ => Err(DropReason::Multicast),
        }
    }
}

/// Whether a group is one in which DDS participants announce themselves.
pub(crate) fn is_discovery(group: IpAddr) -> bool {
    DISCOVERY.contains(&group)
}

/// Why a group that nobody named is not carried.
fn other(group: IpAddr) -> DropReason {
    let is_link_local = match group {
        IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
        // Scopes 1 and 2 of RFC 4291, section 2.7.
        IpAddr::V6(v6) => v6.is_multicast() && v6.segments()[0] & 0x0f <= 2,
    };
    if is_link_local { DropReason::MulticastLinkLocal } else { DropReason::Multicast }
}
