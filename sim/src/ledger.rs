//! The inner packets under way: each is known, so what comes out of an engine can be held against what went into one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ria_protocol::id::NodeId;
use ria_protocol::map::Snapshot;

use crate::agent::records;
use crate::internet::HostId;
use crate::random::hash;

/// The longest that a packet may take: it waits for a path for 3 s at most, and the worst weather is slow.
const LONGEST: Duration = Duration::from_secs(8);

/// Something came out that must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong(pub String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A packet that was sent.
#[derive(Debug)]
struct Sent {
    at: Instant,
    sender: Party,
    to: HostId,
    hash: u64,
    /// Whether the sender's map listed the receiver, and its policy let it begin something with it.
    allowed: bool,
    arrived: bool,
}

/// Who a host was when it sent. Its key is not held against the receiver's map: while it changes, both are good.
#[derive(Debug, Clone, Copy)]
pub struct Party {
    /// Which host.
    pub host: HostId,
    /// Which node.
    pub node: NodeId,
}

/// All packets of the recent past.
#[derive(Debug, Default)]
pub struct Ledger {
    packets: BTreeMap<u64, Sent>,
    next: u64,
    /// Packets that arrived.
    pub arrived: u64,
}

impl Ledger {
    /// A packet that `sender` sends now; the number is how it is asked for later.
    pub fn send(
        &mut self,
        sender: Party,
        map: &Snapshot,
        (from, to, host): (IpAddr, IpAddr, HostId),
        now: Instant,
    ) -> (u64, Vec<u8>) {
        self.next += 1;
        let number = self.next;
        let len = 60 + usize::try_from(number * 37 % 1200).unwrap_or_default();
        let bytes = packet(from, to, number, len);
        let receiver = owner(map, to);
        let allowed = receiver.is_some_and(|receiver| may_begin(map, sender.node, receiver));
        let sent = Sent { at: now, sender, to: host, hash: hash(0, &bytes), allowed, arrived: false };
        self.packets.insert(number, sent);
        while let Some(entry) = self.packets.first_entry()
            && now.saturating_duration_since(entry.get().at) > 2 * LONGEST
        {
            entry.remove();
        }
        (number, bytes)
    }

    /// A packet came out at a host with this map.
    pub fn arrive(
        &mut self,
        host: HostId,
        map: Option<&Snapshot>,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), Wrong> {
        let wrong = |what: &str| Err(Wrong(format!("host {host} was handed a packet {what}")));
        let Some((number, source, target)) = read(bytes) else { return wrong("that nobody made") };
        let Some(sent) = self.packets.get_mut(&number) else { return wrong("that nobody sent lately") };
        if sent.hash != hash(0, bytes) {
            return wrong("that was changed on the way");
        }
        if sent.to != host {
            return wrong("for another host");
        }
        if sent.arrived {
            return wrong("a second time");
        }
        if now.saturating_duration_since(sent.at) > LONGEST {
            return wrong("long after it was sent");
        }
        if !sent.allowed {
            return wrong("whose sender knew that it was no member, or might not send it");
        }
        let Some(map) = map else { return wrong("without being a member itself") };
        let Some(node) = owner(map, source) else { return wrong("of somebody who is no member") };
        if node != sent.sender.node {
            return wrong(&format!("under the address of {node} from host {}", sent.sender.host));
        }
        if owner(map, target).is_some_and(|own| !may_begin(map, node, own)) {
            return wrong("that its policy denies");
        }
        sent.arrived = true;
        self.arrived += 1;
        Ok(())
    }

    /// Whether a packet has arrived.
    pub fn has_arrived(&self, number: u64) -> bool {
        self.packets.get(&number).is_some_and(|sent| sent.arrived)
    }
}

/// The member that an address belongs to.
fn owner(map: &Snapshot, address: IpAddr) -> Option<NodeId> {
    let mut all = records(map);
    let it = all.find(|record| record.prefixes.iter().any(|prefix| prefix.contains(address)));
    it.map(|record| record.node)
}

/// Whether one member may begin something with another, as a member knows. Each packet here is the first of its flow.
fn may_begin(map: &Snapshot, from: NodeId, to: NodeId) -> bool {
    let rules = map.policy.as_ref().and_then(|policy| policy.rules.as_ref());
    rules.is_none_or(|rules| {
        rules.iter().any(|rule| rule.from.contains(from, &[]) && rule.to.contains(to, &[]))
    })
}

/// A UDP datagram with a number in it, and content that follows from the number. Its ports are of no other packet, nor of
/// an answer to one.
fn packet(from: IpAddr, to: IpAddr, number: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..len).map(|at| number.to_le_bytes()[0].wrapping_add(at.to_le_bytes()[0])).collect();
    let mut put = |at: usize, part: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + part.len()) {
            place.copy_from_slice(part);
        }
    };
    let total = u16::try_from(len).unwrap_or(u16::MAX);
    let port = u16::try_from(1024 + number % 60_000).unwrap_or(u16::MAX);
    let mut udp = |at: usize, length: u16| {
        put(at, &port.to_be_bytes());
        put(at + 2, &7_u16.to_be_bytes());
        put(at + 4, &length.to_be_bytes());
        put(at + 8, &number.to_be_bytes());
    };
    match from {
        IpAddr::V4(_) => udp(20, total.saturating_sub(20)),
        IpAddr::V6(_) => udp(40, total.saturating_sub(40)),
    }
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            put(0, &[0x45, 0]);
            put(2, &total.to_be_bytes());
            put(4, &[0, 0, 0, 0, 64, 17]);
            put(12, &from.octets());
            put(16, &to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            put(0, &[0x60, 0, 0, 0]);
            put(4, &total.saturating_sub(40).to_be_bytes());
            put(6, &[17, 64]);
            put(8, &from.octets());
            put(24, &to.octets());
        }
        _ => {}
    }
    bytes
}

fn read(bytes: &[u8]) -> Option<(u64, IpAddr, IpAddr)> {
    let number = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    match bytes.first()? >> 4 {
        4 => {
            let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<4>()?));
            Some((number(28)?, address(12)?, address(16)?))
        }
        6 => {
            let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<16>()?));
            Some((number(48)?, address(8)?, address(24)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ria_protocol::keys::WgPublicKey;
    use ria_protocol::map::{Member, MemberKind, Revision};
    use ria_protocol::policy::{NodePolicy, Permit, PermitKind, Rule, Selector};
    use ria_protocol::record::{MemberRecord, SignedRecord};

    use super::*;
    use crate::coordinator::network;
    use crate::world::info;

    fn address(host: u8) -> IpAddr {
        IpAddr::from([10, 213, 0, host])
    }

    fn party(host: u8) -> Party {
        Party { host: host.into(), node: NodeId::from_bytes([host; 10]) }
    }

    fn map(hosts: &[u8]) -> Snapshot {
        let member = |host: &u8| {
            let party = party(*host);
            let record = MemberRecord {
                network: network(),
                node: party.node,
                wg_key: WgPublicKey([*host; 32]),
                prefixes: vec![ria_protocol::prefix::Prefix::host(address(*host))],
                tags: vec![],
                expires: None,
            };
            let record = SignedRecord::unsigned(&record);
            let name = format!("robot-{host}").parse().unwrap();
            Member { record, name, kind: MemberKind::Node, stock: None, ros_domain: None, routes: None }
        };
        Snapshot {
            revision: Revision(1),
            network: info("lab"),
            members: hosts.iter().map(member).collect(),
            policy: None,
        }
    }

    /// A packet from host 1 to host 2, and what is said when it arrives in this way.
    fn said(
        sender_map: &Snapshot,
        arrive: impl FnOnce(&mut Ledger, Vec<u8>, Instant) -> Result<(), Wrong>,
    ) -> String {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let (_, bytes) = ledger.send(party(1), sender_map, (address(1), address(2), 2), now);
        arrive(&mut ledger, bytes, now).map_or_else(|wrong| wrong.0, |()| "well".to_owned())
    }

    #[test]
    fn what_must_not_come_out_is_noticed() {
        let all = map(&[1, 2]);
        let at = |host, map: &Snapshot| {
            let map = map.clone();
            move |ledger: &mut Ledger, bytes: Vec<u8>, now| ledger.arrive(host, Some(&map), &bytes, now)
        };
        assert_eq!(said(&all, at(2, &all)), "well");
        assert!(said(&all, at(3, &all)).contains("for another host"));
        assert!(said(&all, at(2, &map(&[2]))).contains("no member"));
        assert!(said(&map(&[1]), at(2, &all)).contains("knew that it was no member"));
        assert!(said(&all, |l, b, now| l.arrive(2, None, &b, now)).contains("without being a member"));
        assert!(
            said(&all, |l, b, now| l.arrive(2, Some(&all), &b, now + 2 * LONGEST)).contains("long after")
        );
        let twice = |l: &mut Ledger, b: Vec<u8>, now| {
            l.arrive(2, Some(&all), &b, now).and_then(|()| l.arrive(2, Some(&all), &b, now))
        };
        assert!(said(&all, twice).contains("a second time"));
        let changed = |l: &mut Ledger, mut b: Vec<u8>, now| {
            b[40] ^= 1;
            l.arrive(2, Some(&all), &b, now)
        };
        assert!(said(&all, changed).contains("changed on the way"));
        let ruled = |from: u8, to: u8| {
            let policy = |host: u8| Selector::of(vec![party(host).node]);
            let permits = vec![Permit::plain(PermitKind::ANY)];
            let rule = Rule {
                number: 1,
                from: policy(from),
                to: policy(to),
                permits,
                not_before: None,
                until: None,
            };
            Snapshot { policy: Some(NodePolicy { version: 1, rules: Some(vec![rule]) }), ..map(&[1, 2]) }
        };
        assert_eq!(said(&ruled(1, 2), at(2, &ruled(1, 2))), "well");
        assert!(said(&all, at(2, &ruled(2, 1))).contains("that its policy denies"));
        assert!(said(&ruled(2, 1), at(2, &all)).contains("might not send it"));
        let mut other_owner = map(&[1, 2]);
        let stolen =
            MemberRecord { node: NodeId::from_bytes([9; 10]), ..records(&other_owner).next().unwrap() };
        other_owner.members[0].record = SignedRecord::unsigned(&stolen);
        assert!(said(&all, at(2, &other_owner)).contains("under the address of"));
    }
}
