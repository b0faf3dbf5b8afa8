//! Choice of overlay addresses: which are given to members, and which are never or not yet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;

use super::Network;

/// The address of a member that left is given to nobody else for this long, so that caches and configurations that
/// still name it do not reach a stranger.
pub const HOLD_BACK: Duration = Duration::from_secs(30 * 24 * 3600);

/// The first IPv4 address that a new member may have; `None` when there is none left. In the first epoch it is the
/// lowest one. Each later epoch begins at a place of its own: behind a restore from a backup it is not known which
/// addresses were given away since the backup, but that they follow each other from where the epoch before had begun.
pub fn next_v4(network: &Network, now: UnixTime) -> Option<Ipv4Addr> {
    let ipnet::IpNet::V4(net) = network.info.prefix_v4.to_net() else { return None };
    let members = network.members.values().map(|m| m.address_v4);
    let taken: std::collections::BTreeSet<Ipv4Addr> =
        members.chain(network.static_peers.values().map(|p| p.address_v4)).collect();
    let first = u64::from(u32::from(net.network()));
    let size = u64::from(u32::from(net.broadcast())).saturating_sub(first);
    // The first address stays free for what a network may need of its own one day; .0 and .255 are taken for
    // network and broadcast addresses by too much old equipment.
    let begin = beginning(size, network.epoch).max(2);
    let places = (begin..size).chain(2..begin.min(size));
    let mut addresses = places.filter_map(|place| u32::try_from(first + place).ok()).map(Ipv4Addr::from);
    addresses.find(|address| {
        !matches!(address.octets()[3], 0 | 255)
            && !taken.contains(address)
            && !is_held_back(network, (*address).into(), now)
    })
}

/// Where an epoch begins within `size` addresses: 0, 1/2, 1/4, 3/4, 1/8 … of them, as far apart as can be.
fn beginning(size: u64, epoch: u32) -> u64 {
    (size * u64::from(epoch.saturating_sub(1).reverse_bits())) >> 32
}

/// The IPv6 address of a member: the network's prefix and 64 bits derived from the two identities.
pub fn next_v6(network: &Network, node: NodeId, now: UnixTime) -> Option<Ipv6Addr> {
    (0..16).map(|attempt| derived_v6(&network.info.prefix_v6, network.info.id, node, attempt)).find(
        |address| {
            !network.members.values().any(|m| m.address_v6 == *address)
                && !network.static_peers.values().any(|p| p.address_v6 == *address)
                && !is_held_back(network, (*address).into(), now)
        },
    )
}

fn derived_v6(prefix: &Prefix, network: NetworkId, node: NodeId, attempt: u8) -> Ipv6Addr {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(b"ria node address v1\0");
    context.update(network.as_bytes());
    context.update(node.as_bytes());
    context.update(&[attempt]);
    let digest = context.finish();
    let mut octets = match prefix.address() {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
    };
    octets[8..].copy_from_slice(&digest.as_ref()[..8]);
    Ipv6Addr::from(octets)
}

fn is_held_back(network: &Network, address: IpAddr, now: UnixTime) -> bool {
    network.freed.get(&address).is_some_and(|freed| now < freed.plus(HOLD_BACK))
}

/// A prefix can't be a network's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("{0} is no IPv4 prefix; give one such as 10.214.0.0/16")]
    NotV4(Prefix),
    #[error("{0} has the wrong size; use a length from /8 to /28")]
    Size(Prefix),
    #[error("{0} can't be used on an interface (loopback, link-local, multicast or reserved)")]
    Special(Prefix),
    #[error(
        "{0} overlaps 100.64.0.0/10, which Tailscale drops on machines that run it; choose another prefix"
    )]
    Shared(Prefix),
    #[error("{prefix} overlaps the prefix of network {other}; choose another one")]
    Overlaps { prefix: Prefix, other: String },
    #[error("no default prefix is free; choose one with --prefix")]
    NoneFree,
}

/// Whether an IPv4 prefix may be a network's, beside the prefixes of the others.
pub fn check_v4<'a>(prefix: Prefix, others: impl Iterator<Item = &'a Network>) -> Result<(), PrefixError> {
    let IpAddr::V4(address) = prefix.address() else { return Err(PrefixError::NotV4(prefix)) };
    if !(8..=28).contains(&prefix.length()) {
        return Err(PrefixError::Size(prefix));
    }
    let special = address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || matches!(address.octets()[0], 0 | 240..=255);
    if special {
        return Err(PrefixError::Special(prefix));
    }
    let shared = Prefix::new(Ipv4Addr::new(100, 64, 0, 0).into(), 10).map_err(|_| PrefixError::NoneFree)?;
    if prefix.overlaps(&shared) {
        return Err(PrefixError::Shared(prefix));
    }
    match others.into_iter().find(|n| n.info.prefix_v4.overlaps(&prefix)) {
        Some(other) => Err(PrefixError::Overlaps { prefix, other: other.info.name.to_string() }),
        None => Ok(()),
    }
}

/// The first free one of 10.213.0.0/16, 10.214.0.0/16 and so on.
pub fn default_v4<'a>(others: impl Iterator<Item = &'a Network> + Clone) -> Result<Prefix, PrefixError> {
    (213..=254)
        .filter_map(|second| Prefix::new(Ipv4Addr::new(10, second, 0, 0).into(), 16).ok())
        .find(|prefix| check_v4(*prefix, others.clone()).is_ok())
        .ok_or(PrefixError::NoneFree)
}

/// A unique local /64 (RFC 4193) from random bits.
pub fn random_v6(random: [u8; 7]) -> Option<Prefix> {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&random);
    Prefix::new(Ipv6Addr::from(octets).into(), 64).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, network};
    use super::*;

    fn text(network: &Network, now: u64) -> Option<String> {
        next_v4(network, UnixTime(now)).map(|a| a.to_string())
    }

    #[test]
    fn first_network_and_broadcast_style_addresses_stay_free() {
        let mut network = network();
        assert_eq!(text(&network, 0).unwrap(), "10.213.0.2");
        for last in 2..=254 {
            let entry = member(last, &format!("robot-{last}"));
            network.members.insert(entry.node, entry);
        }
        assert_eq!(text(&network, 0).unwrap(), "10.213.1.1");
    }

    #[test]
    fn a_freed_address_is_held_back_and_then_comes_again() {
        let mut network = network();
        network.freed.insert("10.213.0.2".parse().unwrap(), UnixTime(1000));
        assert_eq!(text(&network, 1001).unwrap(), "10.213.0.3");
        let month_later = 1000 + HOLD_BACK.as_secs();
        assert_eq!(text(&network, month_later - 1).unwrap(), "10.213.0.3");
        assert_eq!(text(&network, month_later).unwrap(), "10.213.0.2");
    }

    #[test]
    fn each_epoch_gives_addresses_of_its_own() {
        let mut network = network();
        let first = |network: &mut Network, epoch| {
            network.epoch = epoch;
            text(network, 0).unwrap()
        };
        let places = [1, 2, 3, 4, 5].map(|epoch| first(&mut network, epoch));
        assert_eq!(places, ["10.213.0.2", "10.213.128.1", "10.213.64.1", "10.213.192.1", "10.213.32.1"]);
        // A small network has as many addresses in each epoch as in the first.
        network.info.prefix_v4 = "10.213.0.0/29".parse().unwrap();
        for epoch in 1..9 {
            network.epoch = epoch;
            network.members.clear();
            while let Some(address) = next_v4(&network, UnixTime(0)) {
                let entry = member(address.octets()[3], &format!("robot-{}", address.octets()[3]));
                network.members.insert(entry.node, entry);
            }
            assert_eq!(network.members.len(), 5, "epoch {epoch}");
        }
    }

    #[test]
    fn a_full_network_says_so() {
        let mut network = network();
        network.info.prefix_v4 = "10.213.0.0/29".parse().unwrap();
        for last in 2..=6 {
            let entry = member(last, &format!("robot-{last}"));
            network.members.insert(entry.node, entry);
        }
        assert_eq!(text(&network, 0), None);
    }

    #[test]
    fn ipv6_addresses_are_derived_and_lie_in_the_prefix() {
        let network = network();
        let node = NodeId::from_bytes([4; 10]);
        let address = next_v6(&network, node, UnixTime(0)).unwrap();
        assert!(network.info.prefix_v6.contains(address.into()));
        assert_eq!(next_v6(&network, node, UnixTime(9)), Some(address));
        assert_ne!(next_v6(&network, NodeId::from_bytes([5; 10]), UnixTime(0)), Some(address));
    }

    #[test]
    fn unusable_prefixes_are_refused_with_the_reason() {
        let lab = network();
        let check = |p: &str| check_v4(p.parse().unwrap(), std::iter::once(&lab)).map_err(|e| e.to_string());
        assert!(check("10.214.0.0/16").is_ok());
        for (prefix, word) in [
            ("10.213.7.0/24", "network lab"),
            ("10.0.0.0/8", "network lab"),
            ("127.0.0.0/8", "loopback"),
            ("100.100.0.0/16", "Tailscale"),
            ("10.214.0.0/30", "/28"),
            ("fd00::/64", "IPv4"),
            ("224.0.0.0/16", "multicast"),
        ] {
            let error = check(prefix).unwrap_err();
            assert!(error.contains(word), "{prefix}: {error}");
        }
        assert_eq!(default_v4(std::iter::once(&lab)).unwrap().to_string(), "10.214.0.0/16");
    }
}
