//! The policy of a network as one node has to enforce it: who may begin what with whom.
//!
//! A rule names who it is about by identity and by tag, never by address: where members are reached, and who comes and
//! goes, changes no policy. It says who may *begin*; answers to what was allowed pass by themselves. What no rule allows is
//! denied. Kinds of permits that a node does not know allow nothing there.

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Encode};

use crate::domains::domain_of_port;
use crate::id::NodeId;
use crate::prefix::Prefix;
use crate::time::UnixTime;

/// IP protocol numbers (RFC 791, RFC 8200).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// What one node has to enforce.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodePolicy {
    /// Version of the network's policy that it was made from.
    #[n(0)]
    pub version: u64,
    /// What is allowed, as far as it is about this node; absent while everything is.
    #[n(1)]
    pub rules: Option<Vec<Rule>>,
}

/// Who may begin what with whom.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Rule {
    /// Its number in the policy, from 1.
    #[n(0)]
    pub number: u32,
    /// Who begins.
    #[n(1)]
    pub from: Selector,
    /// With whom.
    #[n(2)]
    pub to: Selector,
    /// What.
    #[n(3)]
    pub permits: Vec<Permit>,
    /// It holds from then on; absent: always.
    #[n(4)]
    pub not_before: Option<UnixTime>,
    /// It holds until then; absent: for ever.
    #[n(5)]
    pub until: Option<UnixTime>,
}

impl Rule {
    /// Whether it holds now, which is somewhere between these two. Where the time is not known, one with a period does not.
    pub fn holds(&self, now: Option<(UnixTime, UnixTime)>) -> bool {
        match (self.not_before, self.until, now) {
            (None, None, _) => true,
            (_, _, None) => false,
            (from, until, Some((earliest, latest))) => {
                from.is_none_or(|from| from <= earliest) && until.is_none_or(|until| latest < until)
            }
        }
    }
}

/// A set of members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Selector {
    /// All of them.
    #[n(0)]
    pub all: bool,
    /// These.
    #[n(1)]
    pub nodes: Vec<NodeId>,
    /// Those with one of these tags.
    #[n(2)]
    pub tags: Vec<String>,
    /// Devices with these addresses, on local networks behind members; nothing else above means them.
    #[n(10)]
    pub prefixes: Option<Vec<Prefix>>,
}

impl Selector {
    /// These members and no others.
    pub fn of(nodes: Vec<NodeId>) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Whether a member is in it.
    pub fn contains(&self, node: NodeId, tags: &[String]) -> bool {
        self.all || self.nodes.contains(&node) || tags.iter().any(|tag| self.tags.contains(tag))
    }

    /// Whether nobody can be in it.
    pub fn is_empty(&self) -> bool {
        !self.all && self.nodes.is_empty() && self.tags.is_empty() && self.devices().is_empty()
    }

    /// The prefixes of devices that it means.
    pub fn devices(&self) -> &[Prefix] {
        self.prefixes.as_deref().unwrap_or_default()
    }
}

/// The kind of a [`Permit`]. A newer coordinator may know more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct PermitKind(pub u8);

impl PermitKind {
    /// Everything.
    pub const ANY: Self = Self(0);
    /// TCP to these ports.
    pub const TCP: Self = Self(1);
    /// UDP to these ports.
    pub const UDP: Self = Self(2);
    /// ICMP: pings; errors about what is allowed need no permit.
    pub const ICMP: Self = Self(3);
    /// ROS domains: the UDP ports of DDS and its discovery by multicast, always in both directions.
    pub const ROS: Self = Self(4);
    /// A multicast group.
    pub const MULTICAST: Self = Self(5);
}

/// Something that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Permit {
    /// Of which kind.
    #[n(0)]
    pub kind: PermitKind,
    /// First port or domain.
    #[n(1)]
    pub first: u16,
    /// Last port or domain.
    #[n(2)]
    pub last: u16,
    /// The multicast group.
    #[n(3)]
    pub group: Option<IpAddr>,
}

/// What a packet to one member is, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// IP protocol.
    pub protocol: u8,
    /// Port that it goes to, where there is one.
    pub port: Option<u16>,
}

impl Permit {
    /// Of a kind, without ports.
    pub fn plain(kind: PermitKind) -> Self {
        Self { kind, first: 0, last: u16::MAX, group: None }
    }

    /// Ports or domains of a kind.
    pub fn range(kind: PermitKind, first: u16, last: u16) -> Self {
        Self { kind, first, last, group: None }
    }

    /// A multicast group at these ports.
    pub fn group(group: IpAddr, first: u16, last: u16) -> Self {
        Self { kind: PermitKind::MULTICAST, first, last, group: Some(group) }
    }

    /// Whether it allows both ends to begin.
    pub fn is_mutual(&self) -> bool {
        self.kind == PermitKind::ROS
    }

    fn covers(&self, number: u16) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// Whether it allows to begin this.
    pub fn allows(&self, traffic: Traffic) -> bool {
        let is_port =
            |protocol| traffic.protocol == protocol && traffic.port.is_some_and(|port| self.covers(port));
        match self.kind {
            PermitKind::ANY => true,
            PermitKind::TCP => is_port(protocol::TCP),
            PermitKind::UDP => is_port(protocol::UDP),
            PermitKind::ICMP => matches!(traffic.protocol, protocol::ICMP | protocol::ICMPV6),
            PermitKind::ROS => {
                let domain = traffic.port.and_then(domain_of_port);
                traffic.protocol == protocol::UDP && domain.is_some_and(|(domain, _)| self.covers(domain))
            }
            _ => false,
        }
    }

    /// Whether it allows datagrams to a group. `discovery`: the group is one in which DDS participants announce themselves.
    pub fn allows_group(&self, to: SocketAddr, discovery: bool) -> bool {
        match self.kind {
            PermitKind::ANY => true,
            PermitKind::ROS if discovery => {
                domain_of_port(to.port()).is_some_and(|(domain, at)| at == 0 && self.covers(domain))
            }
            PermitKind::MULTICAST => self.group == Some(to.ip()) && self.covers(to.port()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{from_bytes, to_bytes};

    fn udp(port: u16) -> Traffic {
        Traffic { protocol: protocol::UDP, port: Some(port) }
    }

    #[test]
    fn a_domain_is_its_ports_and_its_discovery() {
        let seven = Permit::range(PermitKind::ROS, 7, 7);
        for (port, allowed) in
            [(9149, false), (9150, true), (9161, true), (9399, true), (9400, false), (7, false)]
        {
            assert_eq!(seven.allows(udp(port)), allowed, "{port}");
        }
        assert!(!seven.allows(Traffic { protocol: protocol::TCP, port: Some(9161) }));
        let group = |port| SocketAddr::new([239, 255, 0, 1].into(), port);
        assert!(seven.allows_group(group(9150), true));
        assert!(!seven.allows_group(group(9151), true) && !seven.allows_group(group(9150), false));
        assert!(!seven.allows_group(group(7400), true));
        let all = Permit::range(PermitKind::ROS, 0, u16::MAX);
        assert!(all.allows(udp(7400)) && all.allows(udp(65_535)) && !all.allows(udp(7399)));
    }

    #[test]
    fn ports_protocols_and_groups_are_told_apart() {
        let ssh = Permit::range(PermitKind::TCP, 22, 22);
        let tcp = |port| Traffic { protocol: protocol::TCP, port: Some(port) };
        assert!(ssh.allows(tcp(22)) && !ssh.allows(tcp(23)) && !ssh.allows(udp(22)));
        assert!(!Permit::plain(PermitKind::TCP).allows(Traffic { protocol: protocol::TCP, port: None }));
        let ping = Permit::plain(PermitKind::ICMP);
        assert!(ping.allows(Traffic { protocol: protocol::ICMPV6, port: None }) && !ping.allows(udp(1)));
        let camera = Permit::group([239, 1, 2, 3].into(), 5000, 5001);
        let to = |port| SocketAddr::new([239, 1, 2, 3].into(), port);
        assert!(camera.allows_group(to(5001), false) && !camera.allows_group(to(5002), false));
        assert!(!camera.allows(udp(5000)));
        let unknown = Permit::plain(PermitKind(77));
        assert!(!unknown.allows(udp(1)) && !unknown.allows_group(to(5000), true), "it allows nothing");
    }

    #[test]
    fn a_rule_with_a_period_needs_a_clock() {
        let rule = |not_before: Option<u64>, until: Option<u64>| Rule {
            number: 1,
            from: Selector::default(),
            to: Selector::default(),
            permits: Vec::new(),
            not_before: not_before.map(UnixTime),
            until: until.map(UnixTime),
        };
        assert!(rule(None, None).holds(None));
        let booked = rule(Some(100), Some(200));
        let between = |earliest, latest| booked.holds(Some((UnixTime(earliest), UnixTime(latest))));
        let at = |time| between(time, time);
        assert_eq!(
            (at(99), at(100), at(199), at(200), booked.holds(None)),
            (false, true, true, false, false)
        );
        assert!(!rule(None, Some(200)).holds(None));
        assert!(between(100, 199) && !between(99, 150) && !between(150, 200), "in doubt it does not");
    }

    #[test]
    fn its_form_on_the_wire_is_fixed() {
        let policy = NodePolicy {
            version: 3,
            rules: Some(vec![Rule {
                number: 2,
                from: Selector {
                    all: false,
                    nodes: vec![NodeId::from_bytes([1; 10])],
                    tags: vec!["arm".into()],
                    prefixes: None,
                },
                to: Selector { all: true, ..Selector::default() },
                permits: vec![Permit::range(PermitKind::TCP, 22, 22)],
                not_before: None,
                until: Some(UnixTime(9)),
            }]),
        };
        let bytes = to_bytes(&policy);
        assert_eq!(from_bytes::<NodePolicy>(&bytes).unwrap(), policy);
        let golden = "a200030181a5000201a300f401814a010101010101010101010281636172\
                      6d02a300f5018002800381a30001011602160509";
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.replace([' ', '\n'], ""));
    }
}
