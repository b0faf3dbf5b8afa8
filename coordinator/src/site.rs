//! Whom an address stands for where attempts and answers are counted.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address itself, however it is written; the /64 of an IPv6 address, for who has one of it has them all.
pub fn whole_site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}
