//! Local networks behind nodes: what nodes offer, what is approved, and under which prefix others reach it.

use std::net::{IpAddr, Ipv4Addr};

use ria_protocol::id::NodeId;
use ria_protocol::map::SubnetRoute;
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;

use super::Network;

/// Local networks that one node may offer; more are left out.
pub const MOST_OFFERED: usize = 16;

/// Where a prefix is taken from when an administrator leaves the choice to the coordinator: 10.64.0.0/12.
const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 64, 0, 0), 12);

/// From so wide to so narrow may a network behind a node be. A single address would be taken for the node's own.
const LENGTHS: std::ops::RangeInclusive<u8> = 8..=30;

/// A local network behind a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// What it is there.
    pub lan: Prefix,
    /// Whether the node offered it when it connected last.
    pub offered: bool,
    /// Since when it is known.
    pub since: UnixTime,
    /// When it was approved, and how others reach it.
    pub approved: Option<(UnixTime, Prefix)>,
}

impl RouteEntry {
    /// How others reach it, if they do.
    pub fn in_force(&self) -> Option<SubnetRoute> {
        let (_, prefix) = self.approved.filter(|_| self.offered)?;
        Some(SubnetRoute { prefix, lan: self.lan })
    }
}

/// A network can't be reached through a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    #[error("{0} is IPv6, which is not routed; offer the network's IPv4 prefix")]
    Family(Prefix),
    #[error("{0} is the way to everywhere; only networks of /8 to /30 are routed")]
    Everywhere(Prefix),
    #[error("{0} has the wrong size; networks of /8 to /30 are routed")]
    Size(Prefix),
    #[error("{0} is loopback, link-local, multicast or reserved, which is not routed")]
    Special(Prefix),
    #[error("{prefix} overlaps the addresses {overlay} of network {name}; {hint}")]
    Overlay { prefix: Prefix, overlay: Prefix, name: String, hint: &'static str },
    #[error("{prefix} overlaps {other}, under which a network behind {node} is reached; {hint}")]
    Taken { prefix: Prefix, other: Prefix, node: String, hint: &'static str },
    #[error("{lan} overlaps {other}, another network of {node} that is approved; withdraw that one first")]
    Ambiguous { lan: Prefix, other: Prefix, node: String },
    #[error("{prefix} and {lan} differ in size; each address keeps its place, so map it to a prefix of /{}", lan.length())]
    Lengths { prefix: Prefix, lan: Prefix },
    #[error("no prefix of /{0} is free in 10.64.0.0/12; name one with --map")]
    NoneFree(u8),
}

const MAP_IT: &str = "map it to another prefix (--map auto, or --map PREFIX)";
const CHOOSE: &str = "choose another one";

/// Whether a prefix can be routed at all.
fn check_kind(prefix: Prefix) -> Result<(), RouteRefusal> {
    let IpAddr::V4(address) = prefix.address() else { return Err(RouteRefusal::Family(prefix)) };
    if prefix.length() == 0 {
        return Err(RouteRefusal::Everywhere(prefix));
    }
    if !LENGTHS.contains(&prefix.length()) {
        return Err(RouteRefusal::Size(prefix));
    }
    let first = address.octets()[0];
    let special = address.is_loopback() || address.is_link_local() || address.is_multicast();
    // A prefix of /8 or longer is within one of these, or apart from it; but for the link-local one.
    let around_link_local = prefix.contains(Ipv4Addr::new(169, 254, 0, 0).into());
    if special || around_link_local || matches!(first, 0 | 240..=255) {
        return Err(RouteRefusal::Special(prefix));
    }
    Ok(())
}

impl Network {
    /// The local networks behind a node.
    pub fn routes_of(&self, node: NodeId) -> impl Iterator<Item = &RouteEntry> {
        self.routes.range((node, None)..).take_while(move |((of, _), _)| *of == node).map(|(_, entry)| entry)
    }

    /// What is in force behind a node.
    pub fn routed_by(&self, node: NodeId) -> impl Iterator<Item = SubnetRoute> {
        self.routes_of(node).filter_map(RouteEntry::in_force)
    }

    /// All that is approved, with the names of those behind which it is. Of a node that is gone, nothing is.
    fn approved_routes(&self) -> impl Iterator<Item = (NodeId, String, Prefix, Prefix)> {
        self.routes.iter().filter_map(|((node, _), entry)| {
            let member = self.members.get(node)?;
            Some((*node, member.name.to_string(), entry.lan, entry.approved?.1))
        })
    }
}

/// Whether others may reach a local network of `node` in `network` under this prefix.
pub fn check<'a>(
    network: &Network,
    all: impl Iterator<Item = &'a Network>,
    node: NodeId,
    SubnetRoute { prefix, lan }: SubnetRoute,
) -> Result<(), RouteRefusal> {
    check_kind(lan)?;
    check_kind(prefix)?;
    if prefix.length() != lan.length() {
        return Err(RouteRefusal::Lengths { prefix, lan });
    }
    let hint = if prefix == lan { MAP_IT } else { CHOOSE };
    for other in all {
        let overlay = other.info.prefix_v4;
        let name = || other.info.name.to_string();
        if overlay.overlaps(&prefix) {
            return Err(RouteRefusal::Overlay { prefix, overlay, name: name(), hint });
        }
        if other.info.id == network.info.id && overlay.overlaps(&lan) {
            let hint = "a robot whose own network has them can't take part in this one";
            return Err(RouteRefusal::Overlay { prefix: lan, overlay, name: name(), hint });
        }
    }
    for (of, name, known, other) in network.approved_routes() {
        if of == node && known == lan {
            continue;
        }
        if other.overlaps(&prefix) {
            return Err(RouteRefusal::Taken { prefix, other, node: name, hint });
        }
        if of == node && known.overlaps(&lan) {
            return Err(RouteRefusal::Ambiguous { lan, other: known, node: name });
        }
    }
    Ok(())
}

/// The first free prefix for a local network.
pub fn free_prefix<'a>(
    network: &Network,
    all: impl Iterator<Item = &'a Network> + Clone,
    node: NodeId,
    lan: Prefix,
) -> Result<Prefix, RouteRefusal> {
    check_kind(lan)?;
    let none = RouteRefusal::NoneFree(lan.length());
    let (first, length) = POOL;
    let places = match lan.length().checked_sub(length) {
        Some(bits) => 1u32 << bits,
        None => return Err(none),
    };
    let size = 1u32.checked_shl(32 - u32::from(lan.length())).unwrap_or(1);
    let candidates = (0..places).filter_map(|place| {
        let address = u32::from(first).checked_add(place.checked_mul(size)?)?;
        Prefix::new(Ipv4Addr::from(address).into(), lan.length()).ok()
    });
    for prefix in candidates {
        match check(network, all.clone(), node, SubnetRoute { prefix, lan }) {
            Ok(()) => return Ok(prefix),
            Err(RouteRefusal::Taken { .. }) => {}
            Err(RouteRefusal::Overlay { prefix: wrong, .. }) if wrong == prefix => {}
            Err(other) => return Err(other),
        }
    }
    Err(none)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::{member, network};
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    /// A lab with two robots that both have 192.168.10.0/24, which is approved of the first under another prefix.
    pub(crate) fn lab() -> Network {
        let mut lab = network();
        for (n, name) in [(2, "robot-1"), (3, "robot-2"), (5, "laptop")] {
            let entry = member(n, name);
            lab.members.insert(entry.node, entry);
        }
        for n in [2, 3] {
            let lan = prefix("192.168.10.0/24");
            let approved = (n == 2).then(|| (UnixTime(5), prefix("10.66.1.0/24")));
            let entry = RouteEntry { lan, offered: true, since: UnixTime(4), approved };
            lab.routes.insert((NodeId::from_bytes([n; 10]), Some(lan)), entry);
        }
        lab
    }

    fn refusal(node: u8, seen: &str, lan: &str) -> Option<String> {
        let lab = lab();
        let route = SubnetRoute { prefix: prefix(seen), lan: prefix(lan) };
        let checked = check(&lab, std::iter::once(&lab), NodeId::from_bytes([node; 10]), route);
        checked.err().map(|error| error.to_string())
    }

    #[test]
    fn what_can_not_be_routed_is_refused_with_what_to_do() {
        assert_eq!(refusal(3, "10.66.2.0/24", "192.168.10.0/24"), None);
        assert_eq!(refusal(2, "10.66.1.0/24", "192.168.10.0/24"), None, "as it is already");
        assert_eq!(refusal(3, "192.168.10.0/24", "192.168.10.0/24"), None, "nobody else is reached there");
        for (node, seen, lan, words) in [
            (3, "10.66.1.0/24", "192.168.10.0/24", "behind robot-1"),
            (3, "10.66.1.128/25", "192.168.20.0/25", "behind robot-1"),
            (3, "10.213.7.0/24", "192.168.10.0/24", "network lab"),
            (3, "10.213.7.0/24", "10.213.7.0/24", "network lab"),
            (3, "10.66.9.0/24", "10.213.7.0/24", "can't take part"),
            (2, "10.66.9.0/25", "192.168.10.0/25", "withdraw"),
            (3, "10.66.2.0/25", "192.168.10.0/24", "prefix of /24"),
            (3, "127.0.0.0/8", "127.0.0.0/8", "loopback"),
            (3, "169.254.0.0/16", "169.254.0.0/16", "link-local"),
            (3, "169.0.0.0/8", "169.0.0.0/8", "link-local"),
            (3, "224.0.0.0/8", "192.0.0.0/8", "multicast"),
            (3, "0.0.0.0/0", "0.0.0.0/0", "everywhere"),
            (3, "192.168.10.7/32", "192.168.10.7/32", "/8 to /30"),
            (3, "fd00::/64", "fd00::/64", "IPv4"),
        ] {
            let told = refusal(node, seen, lan).unwrap_or_else(|| panic!("{seen} is taken"));
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_free_prefix_is_beside_all_others() {
        let mut lab = lab();
        let robot = NodeId::from_bytes([3; 10]);
        let lan = prefix("192.168.10.0/24");
        let free = |lab: &Network, lan: Prefix| free_prefix(lab, std::iter::once(lab), robot, lan);
        assert_eq!(free(&lab, lan), Ok(prefix("10.64.0.0/24")));
        lab.info.prefix_v4 = prefix("10.64.0.0/16");
        assert_eq!(free(&lab, lan), Ok(prefix("10.65.0.0/24")));
        let (one, taken) = (NodeId::from_bytes([2; 10]), prefix("10.65.0.0/16"));
        lab.routes.get_mut(&(one, Some(lan))).unwrap().approved = Some((UnixTime(5), taken));
        assert_eq!(free(&lab, lan), Ok(prefix("10.66.0.0/24")));
        assert_eq!(free(&lab, prefix("10.0.0.0/8")), Err(RouteRefusal::NoneFree(8)));
        assert!(matches!(free(&lab, prefix("fd00::/64")), Err(RouteRefusal::Family(_))));
    }

    #[test]
    fn only_what_is_offered_and_approved_is_in_a_record() {
        let mut lab = lab();
        let [one, two] = [2, 3].map(|n| NodeId::from_bytes([n; 10]));
        assert_eq!((lab.routed_by(one).count(), lab.routed_by(two).count()), (1, 0));
        let listed = lab.listed(&lab.members[&one]);
        let record = listed.record.open(lab.info.id, &[]).unwrap();
        assert_eq!(record.prefixes.last(), Some(&prefix("10.66.1.0/24")));
        assert_eq!(listed.kind, ria_protocol::map::MemberKind::Gateway);
        assert_eq!(listed.routes.unwrap()[0].lan, prefix("192.168.10.0/24"));
        lab.routes.get_mut(&(one, Some(prefix("192.168.10.0/24")))).unwrap().offered = false;
        let listed = lab.listed(&lab.members[&one]);
        assert!(listed.routes.is_none() && listed.kind == ria_protocol::map::MemberKind::Node);
    }
}
