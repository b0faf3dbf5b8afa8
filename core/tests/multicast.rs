//! Multicast over the overlay: who gets a copy of what, and what discovery costs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::rtps::{DISCOVERY, announcement, farewell, guid, reader, to_all, to_one, udp};
use common::stock::{device_overlay, routed};
use common::{World, ms, network, node, overlay};
use ria_core::{Command, Domains, DropReason, MulticastPolicy, Unique};
use ria_protocol::map::{Patch, Revision, Snapshot, StockPeer};
use ria_protocol::message::LiveUpdate;
use ria_protocol::multicast::MulticastGroups;

/// Hosts that have reached each other.
fn connected(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed);
    (0..hosts).for_each(|_| {
        world.host(None);
    });
    world.introduce_all();
    world.run_till("all reach each other", ms(5000), |world| {
        (0..hosts).all(|a| (0..hosts).all(|b| a == b || world.is_up(a, b)))
    });
    world.run(ms(500));
    world
}

/// One more host.
fn join(world: &mut World) -> usize {
    let host = world.host(None);
    world.revision += 1;
    world.introduce_all();
    world.rejoin(host);
    host
}

/// How often a host got this packet.
fn count(world: &World, host: usize, packet: &[u8]) -> usize {
    world.hosts[host].received.iter().filter(|(_, received)| received == packet).count()
}

/// Sends a packet every 3 s, as Fast DDS does, and gives back how often it arrived at a host meanwhile.
fn repeat(world: &mut World, (from, to): (usize, usize), packet: &[u8], times: usize) -> usize {
    let before = count(world, to, packet);
    for _ in 0..times {
        world.send(from, packet);
        world.run(ms(3000));
    }
    count(world, to, packet) - before
}

fn set_policy(world: &mut World, host: usize, policy: MulticastPolicy) {
    world.command(host, Command::SetMulticast { network: network(), policy });
}

#[test]
fn every_peer_gets_one_copy_and_passes_none_on() {
    let mut world = connected(1, 4);
    let packet = to_all(0, 1, 1);
    world.send(0, &packet);
    world.run(ms(200));
    for host in 1..4 {
        assert_eq!(count(&world, host, &packet), 1);
        assert_eq!(world.peer(host, 0).participants_seen, 1);
        // The kernel of a peer that would give it back to the interface changes nothing.
        world.send(host, &packet);
        assert_eq!(world.drops(host, DropReason::MulticastSource), 1);
    }
    world.run(ms(200));
    assert!((0..4).all(|host| count(&world, host, &packet) == usize::from(host > 0)));
}

#[test]
fn what_is_not_carried_is_counted_by_reason() {
    let mut world = connected(2, 2);
    let own = overlay(0);
    let rtps = announcement(guid(0, 1), 1);
    let mut igmp = udp(own, [224, 0, 0, 22], 0, &[0; 8]);
    igmp[9] = 2;
    let mut fragment = udp(own, DISCOVERY, 7400, &rtps);
    fragment[6] = 0x20;
    let cases = [
        (igmp, DropReason::MulticastLinkLocal),
        (udp(own, [224, 0, 0, 251], 5353, &[0; 30]), DropReason::MulticastMdns),
        (udp(own, [224, 0, 0, 9], 520, &[0; 30]), DropReason::MulticastLinkLocal),
        (udp(own, [239, 255, 255, 250], 1900, b"M-SEARCH"), DropReason::Multicast),
        (udp(own, [255, 255, 255, 255], 67, &[0; 30]), DropReason::Multicast),
        (udp(own, DISCOVERY, 7401, &rtps), DropReason::MulticastData),
        (udp(own, DISCOVERY, 7402, &rtps), DropReason::Multicast),
        (udp(own, DISCOVERY, 7399, &rtps), DropReason::Multicast),
        (udp(own, DISCOVERY, 7400, b"RTPX and more than twenty bytes"), DropReason::MulticastMalformed),
        (fragment, DropReason::MulticastMalformed),
        (udp(overlay(1), DISCOVERY, 7400, &rtps), DropReason::MulticastSource),
    ];
    for (packet, reason) in cases {
        let before = world.drops(0, reason);
        world.send(0, &packet);
        assert_eq!(world.drops(0, reason), before + 1, "{reason}: {packet:02x?}");
    }
    world.run(ms(200));
    assert!(world.hosts[1].received.is_empty());
}

#[test]
fn the_policy_says_what_is_carried_in_both_directions() {
    let mut world = connected(3, 2);
    let domain_7 = udp(overlay(0), DISCOVERY, 7400 + 7 * 250, &announcement(guid(0, 1), 1));
    let domain_0 = to_all(0, 2, 1);
    let mdns = udp(overlay(0), [224, 0, 0, 251], 5353, &[1; 40]);
    let policy = MulticastPolicy {
        domains: Domains::Only(BTreeSet::from([7])),
        groups: "mdns".parse::<MulticastGroups>().unwrap().iter().collect(),
        ..MulticastPolicy::default()
    };
    set_policy(&mut world, 0, policy.clone());
    for packet in [&domain_7, &domain_0, &mdns] {
        world.send(0, packet);
    }
    world.run(ms(200));
    assert_eq!((count(&world, 1, &domain_7), count(&world, 1, &domain_0)), (1, 0));
    assert_eq!(world.drops(0, DropReason::MulticastDomain), 1);
    // The other end did not ask for this group.
    assert_eq!((count(&world, 1, &mdns), world.drops(1, DropReason::MulticastMdns)), (0, 1));
    set_policy(&mut world, 1, policy);
    world.send(0, &mdns);
    world.run(ms(200));
    assert_eq!(count(&world, 1, &mdns), 1);
    set_policy(&mut world, 0, MulticastPolicy { replicate: false, ..MulticastPolicy::default() });
    world.send(0, &domain_7);
    assert_eq!(world.drops(0, DropReason::Multicast), 1);
}

#[test]
fn a_static_peer_neither_gets_nor_gives_multicast() {
    let mut world = World::new(4);
    world.host(None);
    world.introduce_all();
    let device = world.device(0, None);
    let member = world.device_member(device, StockPeer::default());
    world.patch(&[0], &Patch::MemberSet(member));
    world.send_from_device(device, &routed(device_overlay(device), overlay(0), 1, 64, 100));
    world.run(ms(500));
    world.send(0, &to_all(0, 1, 1));
    world.run(ms(200));
    assert!(world.devices[device].received.is_empty());
    let rtps = announcement(guid(9, 1), 1);
    for (source, reason) in
        [(device_overlay(device), DropReason::Multicast), (overlay(0), DropReason::WrongSource)]
    {
        world.send_from_device(device, &udp(source, DISCOVERY, 7400, &rtps));
        world.run(ms(200));
        assert_eq!(world.drops(0, reason), 1, "{reason}");
    }
    assert_eq!(world.hosts[0].received.len(), 1);
}

#[test]
fn repeats_to_the_group_are_thinned_out_and_news_pass_at_once() {
    let mut world = connected(5, 2);
    // 20 in a minute: three at once, then every third.
    assert_eq!(repeat(&mut world, (0, 1), &to_all(0, 1, 1), 20), 3 + 17 / 3);
    assert_eq!(repeat(&mut world, (0, 1), &to_all(0, 1, 2), 1), 1, "another content");
    assert_eq!(repeat(&mut world, (0, 1), &to_all(0, 2, 2), 1), 1, "another participant");
    let bye = udp(overlay(0), DISCOVERY, 7400, &farewell(guid(0, 1)));
    assert_eq!(world.peer(1, 0).participants_seen, 2);
    world.run_till("probes tell how many it has", ms(30_000), |world| {
        world.peer(1, 0).participants_expected == Some(2)
    });
    assert_eq!(repeat(&mut world, (0, 1), &bye, 1), 1);
    assert_eq!(world.peer(1, 0).participants_seen, 1);
    let policy = MulticastPolicy { damping: false, ..MulticastPolicy::default() };
    set_policy(&mut world, 0, policy);
    assert_eq!(repeat(&mut world, (0, 1), &to_all(0, 2, 2), 20), 20, "damping is off");
    // A participant that is not heard any more is not counted for ever.
    world.run(Duration::from_secs(60));
    assert_eq!(world.peer(1, 0).participants_seen, 0);
}

#[test]
fn repeats_to_one_participant_end_while_the_group_hears_it() {
    let mut world = connected(6, 2);
    let unicast = to_one(0, 1, (1, 7410));
    // As long as nobody speaks to the group, nothing else renews the lease.
    assert_eq!(repeat(&mut world, (0, 1), &unicast, 10), 10);
    let both = |world: &mut World, times: usize| {
        let before = count(world, 1, &unicast);
        for _ in 0..times {
            world.send(0, &to_all(0, 1, 1));
            world.send(1, &to_all(1, 1, 1));
            world.run(ms(100));
            world.send(0, &unicast);
            world.run(ms(2900));
        }
        count(world, 1, &unicast) - before
    };
    // The peer's first words make it new, so that three more pass.
    assert_eq!(both(&mut world, 20), 3);
    assert_eq!(repeat(&mut world, (0, 1), &to_one(0, 1, (1, 7412)), 2), 2, "another participant of the peer");
    // A process of the peer that starts again at the same port is told by unicast again.
    world.send(1, &to_all(1, 9, 1));
    world.run(ms(100));
    assert_eq!(both(&mut world, 10), 3);
    // The group falls silent at both ends.
    world.run(Duration::from_secs(50));
    assert_eq!(repeat(&mut world, (0, 1), &unicast, 5), 5);
}

#[test]
fn a_peer_that_comes_into_reach_is_told_who_is_here() {
    let mut world = connected(7, 2);
    let packet = to_all(0, 1, 1);
    repeat(&mut world, (0, 1), &packet, 4);
    // A late joiner hears it before it is said again.
    let late = join(&mut world);
    world.run_till("the late joiner is told", ms(2000), |world| count(world, late, &packet) == 1);
    assert_eq!(world.peer(late, 0).participants_seen, 1);
    // So does one whose link was gone.
    let before = count(&world, 1, &packet);
    world.cut = Some(Box::new(|_, _| true));
    for _ in 0..10 {
        world.send(0, &packet);
        world.run(ms(3000));
    }
    assert_eq!(count(&world, 1, &packet), before);
    world.cut = None;
    world.run_till("it is told again", ms(3000), |world| count(world, 1, &packet) > before);
    // Nobody is told of who has gone.
    world.send(0, &udp(overlay(0), DISCOVERY, 7400, &farewell(guid(0, 1))));
    let later = join(&mut world);
    world.run_till("it is up", ms(3000), |world| world.is_up(later, 0) && world.is_up(0, later));
    world.run(ms(500));
    assert_eq!(count(&world, later, &packet), 0);
}

#[test]
fn a_flood_of_participants_stays_within_the_budgets() {
    let mut world = connected(8, 2);
    for number in 0..20_000u32 {
        let mut guid = guid(0, 1);
        guid[4..8].copy_from_slice(&number.to_be_bytes());
        world.send(0, &udp(overlay(0), DISCOVERY, 7400, &announcement(guid, 1)));
        if number % 20 == 0 {
            world.run(ms(1));
        }
    }
    world.run(ms(1000));
    // 600 at once and 100 a second, for one second.
    let passed = world.hosts[1].received.len();
    assert!((250..=700).contains(&passed), "{passed} passed");
    assert_eq!(world.drops(0, DropReason::MulticastBudget), 20_000 - passed as u64);
    assert_eq!(world.peer(1, 0).participants_seen, 256, "no more are told apart");
    // Other traffic is not in its way.
    world.send(0, &common::packet(0, 1, 1, 100));
    world.run(ms(100));
    assert_eq!(count(&world, 1, &common::packet(0, 1, 1, 100)), 1);
}

const ROBOTS: usize = 50;
const PARTICIPANTS: u8 = 20;

/// One robot of fifty: it has a session with each of the others, which have none among each other.
fn hub() -> World {
    let mut world = World::new(9);
    (0..ROBOTS).for_each(|_| {
        world.host(None);
    });
    let members = |world: &World, hosts: &[usize]| {
        let members = hosts.iter().map(|host| world.member(*host)).collect();
        let snapshot = Snapshot { revision: Revision(1), network: World::info(), members, policy: None };
        Command::SetMap { network: network(), snapshot }
    };
    for host in 0..ROBOTS {
        let known: Vec<usize> = if host == 0 { (0..ROBOTS).collect() } else { vec![0, host] };
        let map = members(&world, &known);
        world.command(host, map);
        world.give_relay(host);
    }
    let lives: Vec<_> = (0..ROBOTS).map(|host| world.live(host)).collect();
    for host in 0..ROBOTS {
        let members = lives.iter().filter(|live| live.node != node(host)).cloned().collect();
        let update = LiveUpdate { whole: true, members };
        world.command(host, Command::ApplyLive { network: network(), update });
    }
    let reached = |world: &World| (1..ROBOTS).all(|other| world.is_up(0, other) && world.is_up(other, 0));
    world.run_till("the robot reaches all others", Duration::from_secs(20), reached);
    world
}

/// What one robot's participants say every three seconds: to the group, and to each participant that they know.
fn announce(world: &mut World) {
    for number in 0..PARTICIPANTS {
        for host in 0..ROBOTS {
            world.send(host, &to_all(host, number, 1));
        }
        for other in 1..ROBOTS {
            for port in 0..u16::from(PARTICIPANTS) {
                world.send(0, &to_one(0, number, (other, 7410 + 2 * port)));
            }
        }
        world.run(ms(3000 / u64::from(PARTICIPANTS)));
    }
}

#[test]
fn fifty_robots_with_twenty_participants_each_stay_below_70_kb_per_second() {
    let mut world = hub();
    (0..5).for_each(|_| announce(&mut world));
    let bytes = |world: &World| {
        let peers = (1..ROBOTS).map(|other| world.peer(0, other));
        peers.fold((0, 0), |(tx, rx), peer| (tx + peer.tx_bytes, rx + peer.rx_bytes))
    };
    let (begin, before) = (world.now, bytes(&world));
    (0..6).for_each(|_| announce(&mut world));
    let (after, seconds) = (bytes(&world), (world.now - begin).as_secs());
    let (tx, rx) = ((after.0 - before.0) / seconds, (after.1 - before.1) / seconds);
    assert!((20_000..=70_000).contains(&tx), "{tx} bytes/s out");
    assert!((20_000..=70_000).contains(&rx), "{rx} bytes/s in");
    let seen: BTreeSet<usize> = (1..ROBOTS)
        .flat_map(|other| [world.peer(0, other), world.peer(other, 0)])
        .map(|p| p.participants_seen)
        .collect();
    assert_eq!(seen, BTreeSet::from([usize::from(PARTICIPANTS)]));
}

#[test]
fn what_two_robots_have_and_only_one_should_is_found() {
    let mut world = connected(20, 3);
    let tell = |world: &mut World, from: usize, to: usize, number: u8, topic: Option<&str>| {
        let packet = udp(overlay(from), overlay(to), 7410, &reader(guid(from, 1), number, topic));
        world.send(from, &packet);
        world.run(ms(200));
    };
    let found = |world: &World, host: usize| -> Vec<(Unique, String, usize)> {
        let status = world.engine_status(host);
        let clashes = status.networks[0].clashes.iter();
        clashes.map(|c| (c.what, c.name.clone(), c.peers.len())).collect()
    };
    for host in 0..3 {
        world.send(host, &to_all(host, 1, 1));
    }
    world.run(ms(200));
    for (host, other) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        tell(&mut world, host, other, 1, Some("rt/cmd_vel"));
        tell(&mut world, host, other, 2, Some(&format!("rq/robot_{host}/base/get_parametersRequest")));
    }
    // In its namespace each is alone; what obeys /cmd_vel is not. Who was told nothing by a third knows nothing of it.
    assert_eq!(found(&world, 0), [(Unique::CommandReader, "/cmd_vel".into(), 1)]);
    assert_eq!(found(&world, 1), [(Unique::CommandReader, "/cmd_vel".into(), 2)]);
    for (host, other) in [(0, 1), (1, 0)] {
        tell(&mut world, host, other, 3, Some("rq/talker/get_parametersRequest"));
    }
    assert_eq!(found(&world, 0).first(), Some(&(Unique::Node, "/talker".into(), 1)));
    // An endpoint that goes, a participant that goes, and one that dies.
    tell(&mut world, 0, 1, 3, None);
    assert_eq!(found(&world, 1), [(Unique::CommandReader, "/cmd_vel".into(), 2)]);
    world.send(0, &udp(overlay(0), DISCOVERY, 7400, &farewell(guid(0, 1))));
    world.run(ms(200));
    assert_eq!(found(&world, 1), [(Unique::CommandReader, "/cmd_vel".into(), 1)]);
    assert!(found(&world, 0).is_empty());
    world.run(Duration::from_secs(60));
    assert!((0..3).all(|host| found(&world, host).is_empty()));
    // In another domain it is somebody else's.
    for host in 0..2 {
        world.send(host, &to_all(host, 2, 2));
    }
    world.run(ms(200));
    for (host, port) in [(0, 7410), (1, 7660)] {
        let packet =
            udp(overlay(host), overlay(1 - host), port, &reader(guid(host, 2), 9, Some("rt/cmd_vel")));
        world.send(host, &packet);
    }
    world.run(ms(200));
    assert!(found(&world, 0).is_empty() && found(&world, 1).is_empty());
}

/// An announcement that names the host's address on the overlay, and one beside it.
fn with_addresses(host: usize) -> Vec<u8> {
    let mut message = announcement(guid(host, 1), 1);
    let [a, b, c, d] = overlay(host);
    // In place of its filling: two locators of UDP by IPv4 (PID_METATRAFFIC_UNICAST_LOCATOR), and padding behind them.
    let at = message.windows(4).position(|window| window == [0x2c, 0, 0x6c, 1]).unwrap();
    let mut list = Vec::new();
    for address in [[a, b, c, d], [192, 168, 7, 1]] {
        list.extend([0x32, 0, 24, 0, 1, 0, 0, 0, 0xf2, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        list.extend(address);
    }
    let rest = u16::try_from(364 - list.len()).unwrap().to_le_bytes();
    list.extend([0x2c, 0, rest[0], rest[1]]);
    message[at..at + list.len()].copy_from_slice(&list);
    message
}

#[test]
fn peers_hear_of_no_address_beside_the_overlay() {
    let mut world = connected(31, 2);
    let names = |packet: &[u8], address: [u8; 4]| {
        packet.windows(28).any(|window| window[..4] == [0x32, 0, 24, 0] && window[24..] == address)
    };
    let message = with_addresses(0);
    let sent = [udp(overlay(0), DISCOVERY, 7400, &message), udp(overlay(0), overlay(1), 7410, &message)];
    for packet in &sent {
        assert!(names(packet, overlay(0)) && names(packet, [192, 168, 7, 1]), "the test is wrong");
        world.send(0, packet);
        world.run(ms(200));
        let (_, received) = world.hosts[1].received.last().unwrap();
        assert_eq!(received.len(), packet.len());
        assert!(names(received, overlay(0)) && !names(received, [192, 168, 7, 1]));
    }
    assert_eq!(world.peer(1, 0).participants_seen, 1);
    // Who comes later hears no more of it.
    let late = join(&mut world);
    world.run(ms(5000));
    let heard: Vec<_> =
        world.hosts[late].received.iter().filter(|(_, packet)| names(packet, overlay(0))).collect();
    assert!(!heard.is_empty() && heard.iter().all(|(_, packet)| !names(packet, [192, 168, 7, 1])));
    set_policy(&mut world, 0, MulticastPolicy { hide_addresses: false, ..MulticastPolicy::default() });
    world.send(0, &sent[1]);
    world.run(ms(200));
    assert!(names(&world.hosts[1].received.last().unwrap().1, [192, 168, 7, 1]));
}

#[test]
fn named_groups_have_budgets_of_their_own() {
    let mut world = connected(32, 2);
    let groups: MulticastGroups = "239.1.2.3:5000-5010".parse().unwrap();
    let policy = MulticastPolicy { groups: groups.iter().collect(), ..MulticastPolicy::default() };
    (0..2).for_each(|host| set_policy(&mut world, host, policy.clone()));
    let data = udp(overlay(0), [239, 1, 2, 3], 5007, &[7; 600]);
    for _ in 0..1000 {
        world.send(0, &data);
    }
    let discovery = to_all(0, 1, 1);
    world.send(0, &discovery);
    world.run(ms(500));
    let (got, dropped) = (count(&world, 1, &data), world.drops(0, DropReason::MulticastBudget));
    assert!(
        (400..500).contains(&got) && got as u64 + dropped == 1000,
        "{got} of 1000 arrived, {dropped} were dropped"
    );
    assert_eq!(count(&world, 1, &discovery), 1);
    world.send(0, &udp(overlay(0), [239, 1, 2, 3], 5011, &[7; 600]));
    assert_eq!(world.drops(0, DropReason::Multicast), 1);
}
