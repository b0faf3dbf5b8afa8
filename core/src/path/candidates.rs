//! Which transport addresses are worth a try.

use std::net::{IpAddr, SocketAddr};

use ria_protocol::prefix::Prefix;

/// Most direct candidates of one peer that are tried; a host with more addresses lists its best first.
pub(crate) const MAX_DIRECT: usize = 12;

/// Whether an address can be a way between two nodes: not loopback, link-local, multicast or without a port, and not
/// itself inside an overlay, which would send the tunnel through the tunnel.
pub(crate) fn usable(address: SocketAddr, overlays: &[Prefix]) -> bool {
    if address.port() == 0 || overlays.iter().any(|prefix| prefix.contains(address.ip())) {
        return false;
    }
    match address.ip() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.to_ipv4_mapped().is_some())
        }
    }
}

/// Whether an address means something on one link only.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_lead_to_a_peer_are_usable() {
        let overlays = ["10.213.0.0/16".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        for good in ["192.168.1.7:41820", "203.0.113.9:1", "[2001:db8::1]:41820", "[fd00:2::1]:9"] {
            assert!(usable(good.parse().unwrap(), &overlays), "{good}");
        }
        for bad in [
            "10.213.0.7:41820",
            "[fd00:1::7]:41820",
            "127.0.0.1:41820",
            "169.254.3.4:41820",
            "[fe80::1]:41820",
            "[::1]:1",
            "0.0.0.0:41820",
            "224.0.0.1:5",
            "192.168.1.7:0",
            "[::ffff:192.168.1.7]:41820",
        ] {
            assert!(!usable(bad.parse().unwrap(), &overlays), "{bad}");
        }
    }
}
