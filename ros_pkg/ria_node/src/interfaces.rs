//! The machine's network interfaces, and whether a DDS participant made earlier can hear on an overlay's.
//!
//! A Fast DDS participant binds its sockets and joins its multicast groups once, when it is made. On an interface that
//! came later, or came back with another index or address, it stays deaf for good.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

/// The interfaces that are up and have a carrier, with index and addresses. The overlay's has none while no agent runs, and
/// a participant passes over such a one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces(BTreeMap<String, Interface>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Interface {
    index: u32,
    addresses: BTreeSet<IpAddr>,
}

/// What a participant made at one time is to an overlay's interface at a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// It was there, as it is now.
    Hears,
    /// It is new, or has another index or address.
    Deaf,
    /// The kernel has no such interface yet, or it has no address: nothing to be gained.
    NothingThere,
}

impl Interfaces {
    /// As they are now.
    pub fn now() -> nix::Result<Self> {
        let mut interfaces: BTreeMap<String, Interface> = BTreeMap::new();
        for entry in getifaddrs()? {
            if !entry.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING) {
                continue;
            }
            let address = entry.address.as_ref().and_then(|a| {
                let v4 = a.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
                v4.or_else(|| a.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
            });
            // Gone between the two calls: as if it had never been there.
            let Ok(index) = if_nametoindex(entry.interface_name.as_str()) else { continue };
            let interface = interfaces.entry(entry.interface_name).or_default();
            interface.index = index;
            interface.addresses.extend(address);
        }
        Ok(Self(interfaces))
    }

    /// How a participant made when the interfaces were `self` fares now, on the overlay's interface `name` with its
    /// `addresses` (with or without prefix length).
    pub fn hearing(&self, now: &Self, name: &str, addresses: &[String]) -> Hearing {
        let wanted = used_addresses(addresses);
        let Some(present) = now.0.get(name) else { return Hearing::NothingThere };
        if wanted.is_empty() || !wanted.is_subset(&present.addresses) {
            return Hearing::NothingThere;
        }
        match self.0.get(name) {
            Some(old) if old.index == present.index && wanted.is_subset(&old.addresses) => Hearing::Hears,
            _ => Hearing::Deaf,
        }
    }
}

/// DDS uses IPv4 where there is any; a machine without IPv6 never gets the other.
fn used_addresses(addresses: &[String]) -> BTreeSet<IpAddr> {
    let parse = |a: &String| a.split('/').next().and_then(|a| a.parse::<IpAddr>().ok());
    let all: BTreeSet<IpAddr> = addresses.iter().filter_map(parse).collect();
    let v4: BTreeSet<IpAddr> = all.iter().copied().filter(IpAddr::is_ipv4).collect();
    if v4.is_empty() { all } else { v4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(interfaces: &[(&str, u32, &[&str])]) -> Interfaces {
        let make = |&(name, index, addresses): &(&str, u32, &[&str])| {
            let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
            (name.to_owned(), Interface { index, addresses })
        };
        Interfaces(interfaces.iter().map(make).collect())
    }

    fn overlay() -> Vec<String> {
        vec!["10.213.0.7/16".into(), "fd12::7/64".into()]
    }

    #[test]
    fn an_interface_that_came_later_is_not_heard() {
        let now = with(&[("ria0", 5, &["10.213.0.7"])]);
        assert_eq!(with(&[]).hearing(&now, "ria0", &overlay()), Hearing::Deaf);
        assert_eq!(now.hearing(&now, "ria0", &overlay()), Hearing::Hears);
    }

    #[test]
    fn another_address_or_the_same_name_anew_is_not_heard() {
        let now = with(&[("ria0", 5, &["10.213.0.7"])]);
        let readdressed = with(&[("ria0", 5, &["10.213.0.9"])]);
        let recreated = with(&[("ria0", 4, &["10.213.0.7"])]);
        assert_eq!(readdressed.hearing(&now, "ria0", &overlay()), Hearing::Deaf);
        assert_eq!(recreated.hearing(&now, "ria0", &overlay()), Hearing::Deaf);
    }

    #[test]
    fn a_missing_or_unaddressed_interface_is_nothing_to_start_anew_for() {
        let old = with(&[]);
        assert_eq!(old.hearing(&with(&[]), "ria0", &overlay()), Hearing::NothingThere);
        assert_eq!(old.hearing(&with(&[("ria0", 5, &[])]), "ria0", &overlay()), Hearing::NothingThere);
        assert_eq!(old.hearing(&with(&[("ria0", 5, &["10.213.0.7"])]), "ria0", &[]), Hearing::NothingThere);
    }

    #[test]
    fn other_interfaces_and_further_addresses_do_not_matter() {
        let old = with(&[("ria0", 5, &["10.213.0.7"])]);
        let now = with(&[("ria0", 5, &["10.213.0.7", "fd12::7"]), ("eth1", 9, &["192.0.2.4"])]);
        assert_eq!(old.hearing(&now, "ria0", &overlay()), Hearing::Hears);
    }

    #[test]
    fn the_loopback_interface_is_seen() {
        let now = Interfaces::now().unwrap();
        assert_eq!(now.hearing(&now, "lo", &["127.0.0.1/8".into()]), Hearing::Hears);
    }
}
