//! Has the default router open a port for the tunnel: by PCP (RFC 6887), NAT-PMP (RFC 6886) or UPnP IGD.
//!
//! ```text
//!  place (router, own address) ──► mapper ──► a few questions to the router, once per place
//!                                    │           no answer: silence until the place is another one
//!                                    │           mapped: renewed at half time, again when the router has begun anew
//!                                    └─────► loop: what is offered, and the outer address that is a candidate now
//! ```
//!
//! Only the default router is asked, by its address, and only from a private address. What it answers is believed as far
//! as an outer address goes: peers prove it by their own probes.

mod client;
mod epoch;
mod mapper;
mod nat_pmp;
mod pcp;
mod upnp;

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;

use std::net::{Ipv4Addr, SocketAddrV4};

pub use mapper::Mapper;

/// Where this machine is, as far as its router goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The default router.
    pub router: Ipv4Addr,
    /// This machine's address on the way there.
    pub own: Ipv4Addr,
}

impl Place {
    /// Whether a router there may have to translate: from a public address there is nothing to map.
    pub fn is_behind_nat(&self) -> bool {
        // RFC 6598: addresses behind a provider's NAT.
        let shared = |ip: Ipv4Addr| ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
        self.own.is_private() || shared(self.own)
    }
}

/// How a router is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// UPnP IGD.
    Upnp,
}

impl Protocol {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::Upnp => "upnp",
        }
    }
}

/// What is known of the router.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Whether it was asked.
    pub asked: bool,
    /// What it understands.
    pub offered: Vec<Protocol>,
    /// The outer address and port that it has opened, and by which protocol.
    pub mapped: Option<(Protocol, SocketAddrV4)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_asked_from_private_addresses_only() {
        let behind =
            |own: &str| Place { router: Ipv4Addr::LOCALHOST, own: own.parse().unwrap() }.is_behind_nat();
        assert!(behind("192.168.1.7") && behind("10.0.0.1") && behind("100.64.0.1") && behind("100.127.9.9"));
        assert!(!behind("198.51.100.7") && !behind("100.128.0.1") && !behind("169.254.1.1"));
    }
}
