//! A policy put together with the members of a network: which pairs of addresses may begin what, at one time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ria_protocol::id::NodeId;
use ria_protocol::policy::{NodePolicy, Permit, Rule, Selector, Traffic};
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;

use crate::map::MapMember;

/// Number of a member in these rules.
type Place = u32;

/// Devices that rules speak of alike: a local network behind a member, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Devices {
    prefix: Prefix,
    /// The member that forwards to them.
    gateway: Place,
}

/// Who may begin what with whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Sorted.
    addresses: Vec<(IpAddr, Place)>,
    /// Sorted; the place of each is its position.
    nodes: Vec<NodeId>,
    /// Devices behind members, the longest prefixes first; their places follow those of the members.
    devices: Vec<Devices>,
    /// From whom to whom what may be begun.
    pairs: BTreeMap<(Place, Place), Vec<Permit>>,
}

impl Rules {
    /// Of a policy, for these members, at this time (if it is known, between these two). `None` when everything is allowed.
    pub(crate) fn build<'a>(
        policy: &NodePolicy,
        members: impl Iterator<Item = (NodeId, &'a MapMember)>,
        time: Option<(UnixTime, UnixTime)>,
    ) -> Option<Self> {
        let rules = policy.rules.as_ref()?;
        let members: Vec<(NodeId, &MapMember)> = members.collect();
        let mut made = Self::default();
        for (place, (node, member)) in (0..).zip(&members) {
            made.nodes.push(*node);
            let own = member.record.own_prefixes();
            made.addresses.extend(own.map(|prefix| (prefix.address(), place)));
        }
        made.addresses.sort_unstable();
        // One address, two members: the first has it, as it has the route.
        made.addresses.dedup_by_key(|(address, _)| *address);
        made.find_devices(rules, &members);
        rules.iter().filter(|rule| rule.holds(time)).for_each(|rule| made.add(rule, &members));
        for permits in made.pairs.values_mut() {
            permits.sort_unstable();
            permits.dedup();
        }
        Some(made)
    }

    /// The local networks behind members, and those parts of them that rules name.
    fn find_devices(&mut self, rules: &[Rule], members: &[(NodeId, &MapMember)]) {
        let behind = (0..).zip(members).flat_map(|(gateway, (_, member))| {
            let own: Vec<Prefix> = member.record.own_prefixes().collect();
            let others = member.record.prefixes.iter().filter(move |prefix| !own.contains(prefix));
            others.map(move |prefix| Devices { prefix: *prefix, gateway })
        });
        // A static peer behind a member is a member itself.
        let is_member = |prefix: &Prefix| {
            *prefix == Prefix::host(prefix.address()) && self.own(prefix.address()).is_some()
        };
        let whole: Vec<Devices> = behind.filter(|devices| !is_member(&devices.prefix)).collect();
        let named = rules.iter().flat_map(|rule| rule.from.devices().iter().chain(rule.to.devices()));
        let parts = named.filter_map(|prefix| {
            let around = whole.iter().find(|devices| devices.prefix.covers(prefix))?;
            Some(Devices { prefix: *prefix, ..*around })
        });
        let mut all: Vec<Devices> = parts.collect();
        all.extend(whole);
        all.sort_unstable_by_key(|devices| (std::cmp::Reverse(devices.prefix.length()), *devices));
        // One prefix, two members: the first has it, as it has the route.
        all.dedup_by_key(|devices| devices.prefix);
        self.devices = all;
    }

    /// The place of some devices.
    fn device_place(&self, number: usize) -> Option<Place> {
        Place::try_from(self.nodes.len() + number).ok()
    }

    fn chosen(&self, selector: &Selector, members: &[(NodeId, &MapMember)]) -> Vec<Place> {
        let all = (0..).zip(members);
        let chosen = all.filter(|(_, (node, member))| selector.contains(*node, &member.record.tags));
        let devices = self.devices.iter().enumerate();
        let devices =
            devices.filter(|(_, devices)| selector.devices().iter().any(|wide| wide.covers(&devices.prefix)));
        let devices = devices.filter_map(|(number, _)| self.device_place(number));
        chosen.map(|(place, _)| place).chain(devices).collect()
    }

    fn add(&mut self, rule: &Rule, members: &[(NodeId, &MapMember)]) {
        let (from, to) = (self.chosen(&rule.from, members), self.chosen(&rule.to, members));
        for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))) {
            if from == to {
                continue;
            }
            for permit in &rule.permits {
                self.pairs.entry((from, to)).or_default().push(*permit);
                if permit.is_mutual() {
                    self.pairs.entry((to, from)).or_default().push(*permit);
                }
            }
        }
    }

    /// Members between whom and anybody else something may pass.
    pub(crate) fn involved(&self) -> BTreeSet<NodeId> {
        let places = self.pairs.keys().flat_map(|(from, to)| [*from, *to]);
        places.filter_map(|place| self.nodes.get(self.member_of(place) as usize).copied()).collect()
    }

    fn permits(&self, from: Option<Place>, to: Option<Place>) -> &[Permit] {
        let found = from.zip(to).and_then(|pair| self.pairs.get(&pair));
        found.map_or(&[], Vec::as_slice)
    }

    /// The member itself, or the one behind which these devices are.
    fn member_of(&self, place: Place) -> Place {
        let devices =
            (place as usize).checked_sub(self.nodes.len()).and_then(|number| self.devices.get(number));
        devices.map_or(place, |devices| devices.gateway)
    }

    /// The member that has this address itself.
    fn own(&self, address: IpAddr) -> Option<Place> {
        let found = self.addresses.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        self.addresses.get(found).map(|(_, place)| *place)
    }

    fn at(&self, address: IpAddr) -> Option<Place> {
        self.own(address).or_else(|| {
            let number = self.devices.iter().position(|devices| devices.prefix.contains(address))?;
            self.device_place(number)
        })
    }

    fn place(&self, node: NodeId) -> Option<Place> {
        self.nodes.binary_search(&node).ok().and_then(|place| Place::try_from(place).ok())
    }

    /// Whether `from` may begin this with `to`.
    pub(super) fn allow(&self, from: IpAddr, to: IpAddr, traffic: Traffic) -> bool {
        self.permits(self.at(from), self.at(to)).iter().any(|permit| permit.allows(traffic))
    }

    /// Whether anything may pass between the two, whoever begins.
    pub(super) fn connect(&self, one: IpAddr, other: IpAddr) -> bool {
        let (one, other) = (self.at(one), self.at(other));
        !self.permits(one, other).is_empty() || !self.permits(other, one).is_empty()
    }

    /// Whether `from` may send to a group, for a member or for anybody here.
    pub(super) fn allow_group(
        &self,
        from: IpAddr,
        to: Option<NodeId>,
        group: SocketAddr,
        discovery: bool,
    ) -> bool {
        let allows = |permits: &[Permit]| permits.iter().any(|permit| permit.allows_group(group, discovery));
        let Some(from) = self.at(from) else { return false };
        match to {
            Some(to) => allows(self.permits(Some(from), self.place(to))),
            None => self.pairs.range((from, 0)..=(from, Place::MAX)).any(|(_, permits)| allows(permits)),
        }
    }
}
