//! ROS domains of a network as its map gives them: this machine's, its peers', and what of the multicast is carried.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ria_core::{Domains, MulticastPolicy};
use ria_protocol::domains::{MAX_DOMAIN, RosDomains};
use ria_protocol::id::NodeId;
use ria_protocol::map::{Member, Snapshot};
use ria_protocol::multicast::{MulticastGroup, MulticastGroups};
use ria_protocol::policy::PermitKind;

use crate::state::map;

/// Each packet to a group is looked up in all of them.
const MAX_GROUPS: usize = 64;

/// What of the multicast is carried, where the agent's own settings are these.
pub fn policy(map: &Snapshot, settings: &MulticastPolicy) -> MulticastPolicy {
    MulticastPolicy { domains: carried(map), groups: groups(map), ..settings.clone() }
}

/// Whose discovery is carried. What a coordinator sends that no domain can be made of lets nothing through, rather than
/// everything.
pub fn carried(map: &Snapshot) -> Domains {
    match &map.network.ros_domains {
        None => Domains::All,
        Some(RosDomains::Listed(domains)) => Domains::Only(usable(domains.iter().copied()).collect()),
        Some(RosDomains::PerRobot) => {
            Domains::Only(usable(map.members.iter().filter_map(|member| member.ros_domain)).collect())
        }
    }
}

/// Multicast groups that are carried beside discovery: those of the network, and those that its policy names, which says
/// who may send to them.
pub fn groups(map: &Snapshot) -> BTreeSet<MulticastGroup> {
    let rules = map.policy.iter().filter_map(|policy| policy.rules.as_ref()).flatten();
    let permits = rules.flat_map(|rule| &rule.permits).filter(|permit| permit.kind == PermitKind::MULTICAST);
    let named = permits.filter_map(|permit| {
        let group = permit.group.filter(IpAddr::is_multicast)?;
        Some(MulticastGroup { group, first: permit.first, last: permit.last })
    });
    let own = map.network.multicast.iter().flat_map(MulticastGroups::iter);
    own.chain(named).take(MAX_GROUPS).collect()
}

/// The domain that this machine's processes are given.
pub fn own(map: &Snapshot, node: NodeId) -> Option<u8> {
    let (member, _) = map::member(map, node)?;
    of(map, member).first().copied()
}

/// Whether this machine should have a domain of its own and has none.
pub fn lacks_own(map: &Snapshot, node: NodeId) -> bool {
    map.network.ros_domains == Some(RosDomains::PerRobot) && own(map, node).is_none()
}

/// The domains of a member, the usual one first; none where they are everybody's own choice.
pub fn of(map: &Snapshot, member: &Member) -> Vec<u8> {
    match &map.network.ros_domains {
        None => Vec::new(),
        Some(RosDomains::Listed(domains)) => usable(domains.iter().copied()).collect(),
        Some(RosDomains::PerRobot) => usable(member.ros_domain.into_iter()).collect(),
    }
}

fn usable(domains: impl Iterator<Item = u8>) -> impl Iterator<Item = u8> {
    domains.filter(|domain| *domain <= MAX_DOMAIN)
}

#[cfg(test)]
mod tests {
    use ria_protocol::map::{MemberKind, NetworkInfo, Revision};
    use ria_protocol::policy::{NodePolicy, Permit, Rule, Selector};
    use ria_protocol::record::{MemberRecord, SignedRecord};
    use ria_protocol::{id::NetworkId, keys::WgPublicKey};

    use super::*;

    fn snapshot(ros_domains: Option<RosDomains>, own: [Option<u8>; 2]) -> Snapshot {
        let network = NetworkId::from_bytes([1; 10]);
        let member = |number: u8, ros_domain| Member {
            record: SignedRecord::unsigned(&MemberRecord {
                network,
                node: NodeId::from_bytes([number; 10]),
                wg_key: WgPublicKey([number; 32]),
                prefixes: vec![],
                tags: vec![],
                expires: None,
            }),
            name: format!("robot-{number}").parse().unwrap(),
            kind: MemberKind::Node,
            stock: None,
            ros_domain,
            routes: None,
        };
        Snapshot {
            revision: Revision(1),
            network: NetworkInfo {
                id: network,
                name: "lab".parse().unwrap(),
                prefix_v4: "10.213.0.0/16".parse().unwrap(),
                prefix_v6: "fd12::/64".parse().unwrap(),
                mtu: 1280,
                lock_keys: vec![],
                urls: vec![],
                ros_domains,
                multicast: None,
                peers: None,
            },
            members: vec![member(1, own[0]), member(2, own[1])],
            policy: None,
        }
    }

    fn node() -> NodeId {
        NodeId::from_bytes([1; 10])
    }

    fn only(domains: &[u8]) -> Domains {
        Domains::Only(domains.iter().copied().collect())
    }

    #[test]
    fn without_a_choice_of_the_network_all_are_carried_and_none_given() {
        let map = snapshot(None, [Some(4), None]);
        assert_eq!((carried(&map), own(&map, node()), lacks_own(&map, node())), (Domains::All, None, false));
    }

    #[test]
    fn a_list_is_common_and_its_first_is_given() {
        let map = snapshot(Some(RosDomains::Listed(vec![9, 2])), [None, None]);
        assert_eq!((carried(&map), own(&map, node())), (only(&[2, 9]), Some(9)));
        assert_eq!(of(&map, &map.members[1]), [9, 2]);
    }

    #[test]
    fn each_robot_has_its_own_and_hears_of_all() {
        let map = snapshot(Some(RosDomains::PerRobot), [Some(1), Some(2)]);
        assert_eq!((carried(&map), own(&map, node())), (only(&[1, 2]), Some(1)));
        assert_eq!(of(&map, &map.members[1]), [2]);
        assert!(lacks_own(&snapshot(Some(RosDomains::PerRobot), [None, Some(2)]), node()));
    }

    #[test]
    fn groups_of_the_network_and_of_its_policy_are_carried() {
        let mut map = snapshot(None, [None, None]);
        assert!(groups(&map).is_empty());
        map.network.multicast = Some("239.1.2.3:5000".parse().unwrap());
        let rule = |permits| Rule {
            number: 1,
            from: Selector { all: true, ..Selector::default() },
            to: Selector { all: true, ..Selector::default() },
            permits,
            not_before: None,
            until: None,
        };
        let mdns = Permit::group([224, 0, 0, 251].into(), 5353, 5353);
        let rules = vec![rule(vec![Permit::plain(PermitKind::ANY), mdns])];
        map.policy = Some(NodePolicy { version: 1, rules: Some(rules) });
        let shown: Vec<String> = groups(&map).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["224.0.0.251:5353", "239.1.2.3:5000"]);
    }

    #[test]
    fn what_is_no_domain_opens_nothing() {
        let map = snapshot(Some(RosDomains::Listed(vec![200])), [None, None]);
        assert_eq!((carried(&map), own(&map, node())), (only(&[]), None));
    }
}
