//! Addresses outside of the relay: which of them may be peers, and the ports at which they reach allocations.
//!
//! Off unless the operator gives ports. Whoever may relay to an address makes this server send there, so what only
//! this server can reach is refused: itself, its links, and the services that clouds have for their machines alone.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// Services that answer to the machine itself, beyond those at link-local addresses.
const METADATA: [&str; 3] = ["100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::254/128"];

/// Prefixes that lead to IPv4 addresses, which would not be looked at: NAT64 (RFC 6052, 8215), 6to4 and Teredo.
const TRANSLATED: [&str; 4] = ["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"];

/// Settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Ports for relayed addresses that can be reached from outside.
    pub ports: RangeInclusive<u16>,
    /// Who may be a peer.
    pub peers: PeerPolicy,
}

/// Which addresses may be peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    /// This server's own addresses.
    pub own: Vec<IpAddr>,
    /// Private networks that this server is on.
    pub private: Vec<IpNet>,
    /// Parts of those that are allowed all the same.
    pub allowed: Vec<IpNet>,
}

/// What is to be done about the socket of a relayed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOrder {
    /// From now on something from outside may come to it, or leave from it.
    Open(SocketAddr),
    /// No more.
    Close(SocketAddr),
}

impl PeerPolicy {
    /// Whether an address may be a peer.
    pub fn admits(&self, peer: IpAddr) -> bool {
        if self.own.contains(&peer) || is_special(peer) {
            return false;
        }
        let within = |prefixes: &[IpNet]| prefixes.iter().any(|prefix| prefix.contains(&peer));
        within(&self.allowed) || !within(&self.private)
    }
}

/// Addresses at which no peer can be, or only what nobody else shall reach.
fn is_special(peer: IpAddr) -> bool {
    let listed = |prefixes: &[&str]| {
        let mut prefixes = prefixes.iter().filter_map(|prefix| prefix.parse::<IpNet>().ok());
        prefixes.any(|prefix| prefix.contains(&peer))
    };
    let kind = match peer {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 0
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.octets()[0] >= 240
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || is_compatible(ip)
        }
    };
    kind || listed(&METADATA) || listed(&TRANSLATED)
}

/// IPv4 within IPv6, mapped or in the form that was before it.
fn is_compatible(ip: Ipv6Addr) -> bool {
    ip.segments().iter().take(5).all(|part| *part == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> PeerPolicy {
        PeerPolicy {
            own: vec!["198.51.100.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
            private: vec!["192.168.7.0/24".parse().unwrap(), "fd12::/64".parse().unwrap()],
            allowed: vec!["192.168.7.9/32".parse().unwrap()],
        }
    }

    #[test]
    fn ordinary_addresses_are_admitted() {
        for good in ["203.0.113.7", "198.51.100.3", "192.168.8.1", "192.168.7.9", "2001:db8::3", "fd13::1"] {
            assert!(policy().admits(good.parse().unwrap()), "{good}");
        }
    }

    #[test]
    fn what_only_this_server_reaches_is_refused() {
        for bad in [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.1.1",
            "224.0.0.251",
            "239.1.2.3",
            "255.255.255.255",
            "240.0.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "198.51.100.2",
            "192.168.7.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::fb",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::2",
            "fd12::5",
        ] {
            assert!(!policy().admits(bad.parse().unwrap()), "{bad}");
        }
    }
}
