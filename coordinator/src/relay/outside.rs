//! Sockets of relayed addresses that have peers outside, and what this machine has of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use tracing::warn;

use super::server::{Outside, PeerPolicy, SocketOrder};
use super::socket::Listener;

/// Bytes that each of these sockets may hold in each direction: a burst of one node.
const BUFFER: usize = 1 << 20;

impl Outside {
    /// Ports for allocations, and this machine's own addresses and private networks refused as peers, but for those in
    /// `allowed`.
    pub fn of_this_machine(
        ports: RangeInclusive<u16>,
        external: &[IpAddr],
        allowed: Vec<IpNet>,
    ) -> io::Result<Self> {
        let mut peers = PeerPolicy { own: external.to_vec(), private: Vec::new(), allowed };
        for interface in getifaddrs()? {
            let ip = |storage: nix::sys::socket::SockaddrStorage| {
                let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
                v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
            };
            let Some(address) = interface.address.and_then(ip) else { continue };
            peers.own.push(address);
            let prefix = interface.netmask.and_then(ip).and_then(|mask| ipnet::ip_mask_to_prefix(mask).ok());
            let network = prefix.and_then(|prefix| IpNet::new(address, prefix).ok());
            peers.private.extend(network.filter(|_| is_private(address)));
        }
        Ok(Self { ports, peers })
    }
}

/// RFC 1918, RFC 6598 and RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// The sockets that are open.
pub(super) struct OutsideSockets {
    open: Vec<(SocketAddr, Listener)>,
    own: Vec<IpAddr>,
}

impl OutsideSockets {
    pub(super) fn new(outside: Option<&Outside>) -> Self {
        let own = outside.map(|outside| outside.peers.own.clone()).unwrap_or_default();
        Self { open: Vec::new(), own }
    }

    pub(super) fn obey(&mut self, order: SocketOrder) {
        match order {
            SocketOrder::Open(relayed) => match Listener::open_exactly(self.bind_address(relayed), BUFFER) {
                Ok(listener) => self.open.push((relayed, listener)),
                Err(error) => {
                    warn!(%error, port = relayed.port(), "a relayed address can't be reached from outside; is its port taken?");
                }
            },
            SocketOrder::Close(relayed) => self.open.retain(|(other, _)| *other != relayed),
        }
    }

    /// The address itself where this machine has it; behind a translator it has another one.
    fn bind_address(&self, relayed: SocketAddr) -> SocketAddr {
        let has = relayed.ip();
        // The first ones are those that are shown, whether this machine has them or not.
        let held = self.own.iter().filter(|own| **own == has).count() > 1;
        let any = match has {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(if held { has } else { any }, relayed.port())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Listener> {
        self.open.iter().map(|(_, listener)| listener)
    }

    /// The relayed address of the socket at this place in [`Self::all`].
    pub(super) fn at(&self, index: usize) -> Option<(SocketAddr, &Listener)> {
        self.open.get(index).map(|(relayed, listener)| (*relayed, listener))
    }

    /// The socket of a relayed address.
    pub(super) fn of(&self, port: u16, v6: bool) -> Option<&Listener> {
        let found = self.open.iter().find(|(relayed, _)| relayed.port() == port && relayed.is_ipv6() == v6);
        found.map(|(_, listener)| listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_no_peer() {
        let external: IpAddr = "203.0.113.9".parse().unwrap();
        let outside = Outside::of_this_machine(50_000..=50_010, &[external], Vec::new()).unwrap();
        for own in [external, [127, 0, 0, 1].into()] {
            assert!(outside.peers.own.contains(&own) && !outside.peers.admits(own), "{own}");
        }
    }
}
