//! Peers spread over several shards: nobody can tell, and what is handed over keeps its order and is bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;

use common::rtps::to_all;
use common::stock::{device_overlay, routed};
use common::{World, ms, network, node, overlay, packet};
use proptest::prelude::*;
use ria_core::{Command, DatagramBatch, DropReason, Event, LinkState, ShardWorker};
use ria_protocol::demand::PeerMode;
use ria_protocol::map::{NetworkInfo, Patch, PatchSet, Revision, Snapshot, StockPeer};

/// Hosts that have reached each other, each with its peers in so many shards.
fn connected(seed: u64, shards: usize, hosts: usize) -> World {
    let mut world = World::new(seed);
    world.shards = shards;
    (0..hosts).for_each(|_| {
        world.host(None);
    });
    world.introduce_all();
    world.run_till("all reach each other", ms(5000), |world| all_up(world, hosts));
    world.run(ms(500));
    world
}

fn all_up(world: &World, hosts: usize) -> bool {
    (0..hosts).all(|a| (0..hosts).all(|b| a == b || world.is_up(a, b)))
}

/// Where a packet of the tests has its number: in the place of the ports, so that each is a flow, ...
const AT: usize = 20;

/// ... or behind them, so that all are one.
const OF_ONE_FLOW: usize = 28;

/// The numbers of packets from one host that another one got, in the order in which it did.
fn got(world: &World, from: usize, to: usize) -> Vec<u32> {
    got_at(AT, world, from, to)
}

fn got_at(at: usize, world: &World, from: usize, to: usize) -> Vec<u32> {
    let received = world.hosts[to].received.iter().map(|(_, packet)| packet);
    let received = received.filter(|packet| packet[12..16] == overlay(from));
    received.map(|packet| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())).collect()
}

/// The shards that a host's peers name in their data messages to it.
fn shards_named(world: &World, host: usize) -> BTreeSet<u8> {
    let address = world.hosts[host].address;
    let data = world.recorded.iter().filter(|(_, to, bytes)| *to == address && bytes[0] == 4);
    data.map(|(.., bytes)| bytes[7] >> 4).collect()
}

/// Carries parcels there and back until there are none; how many packets came out for interfaces.
fn carry(world: &mut World, host: usize, workers: &mut [ShardWorker]) -> usize {
    let (now, mut packets) = (world.clock(host), 0);
    while let Some((worker, mut parcel)) = world.hosts[host].engine.poll_parcel() {
        workers[worker].handle(&mut parcel, now);
        world.hosts[host].engine.handle_parcel(worker, &mut parcel, now);
        packets += parcel.tun.networks_mut().map(|(_, packets)| packets.len()).sum::<usize>();
        world.transmit(host, &parcel.udp);
        world.hosts[host].engine.recycle(worker, parcel);
        world.flush(host);
    }
    packets
}

/// Hands a run of packets to the engine, as an interface does.
fn hand_in(world: &mut World, (from, to): (usize, usize), numbers: std::ops::Range<u32>) {
    let of_one_flow = |number: u32| {
        let mut packet = packet(from, to, 7, 1200);
        packet[OF_ONE_FLOW..OF_ONE_FLOW + 4].copy_from_slice(&number.to_be_bytes());
        packet
    };
    let packets: Vec<Vec<u8>> = numbers.map(of_one_flow).collect();
    let (now, mut udp) = (world.clock(from), DatagramBatch::default());
    let batch = packets.iter().map(Vec::as_slice);
    world.hosts[from].engine.handle_tun(network(), batch, now, &mut udp);
    world.transmit(from, &udp);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_number_of_shards_delivers_the_same_packets_in_the_same_order(
        seed in 1u64..1000,
        sends in proptest::collection::vec((0usize..5, 0usize..5, 24usize..1200, 0u64..40), 20..120),
    ) {
        let outcome = |shards: usize| {
            let mut world = connected(seed, shards, 5);
            for (number, (from, to, len, pause)) in sends.iter().enumerate() {
                if from != to {
                    world.send(*from, &packet(*from, *to, number as u32, *len));
                }
                world.run(ms(*pause));
            }
            world.run(ms(500));
            let pairs = (0..5).flat_map(|from| (0..5).map(move |to| (from, to)));
            pairs.map(|(from, to)| got(&world, from, to)).collect::<Vec<_>>()
        };
        let (one, four) = (outcome(1), outcome(4));
        prop_assert_eq!(&one, &four);
        prop_assert!(one.iter().all(|numbers| numbers.is_sorted()));
        let sent = sends.iter().filter(|(from, to, ..)| from != to).count();
        prop_assert_eq!(one.iter().map(Vec::len).sum::<usize>(), sent);
    }
}

#[test]
fn peers_are_spread_and_stay_where_they_are_when_keys_are_renewed() {
    let mut world = connected(1, 3, 6);
    world.record = true;
    for round in 0..70 {
        for host in 1..6 {
            world.send(host, &packet(host, 0, round, 200));
            world.send(0, &packet(0, host, round, 200));
        }
        world.run(ms(5000));
    }
    assert_eq!(shards_named(&world, 0), BTreeSet::from([0, 1, 2]), "in the receiver index");
    for host in 1..6 {
        // Every key was renewed twice meanwhile.
        assert_eq!(got(&world, host, 0), (0..70).collect::<Vec<_>>());
        assert_eq!(got(&world, 0, host), (0..70).collect::<Vec<_>>());
        assert!(world.peer(0, host).handshake_age.is_some_and(|age| age < ms(130_000)));
    }
}

#[test]
fn what_is_for_all_gets_to_the_peers_of_every_shard_once() {
    let mut world = connected(2, 4, 6);
    let announced = to_all(0, 1, 1);
    world.send(0, &announced);
    world.run(ms(200));
    for host in 1..6 {
        let copies = world.hosts[host].received.iter().filter(|(_, packet)| *packet == announced);
        assert_eq!(copies.count(), 1, "host {host}");
        assert_eq!(world.peer(host, 0).participants_seen, 1);
    }
    // What nobody carries is counted once and not by each shard.
    let mut stray = to_all(0, 1, 1);
    stray[12..16].copy_from_slice(&[192, 0, 2, 9]);
    world.send(0, &stray);
    assert_eq!(world.drops(0, DropReason::MulticastSource), 1);
    // One that comes into reach later is told by whichever shard it is in.
    let late = world.host(None);
    world.revision += 1;
    world.introduce_all();
    world.rejoin(late);
    world.run_till("it is told", ms(5000), |world| {
        world.hosts[late].received.iter().any(|(_, packet)| *packet == announced)
    });
}

#[test]
fn a_member_that_goes_takes_nothing_with_it_and_its_place_is_used_again() {
    let mut world = connected(3, 3, 5);
    for round in 0..40 {
        let gone = 1 + round % 4;
        let others: Vec<usize> = (0..5).filter(|host| *host != gone).collect();
        world.patch(&others, &Patch::MemberRemoved(node(gone)));
        world.send(0, &packet(0, gone, 1000, 100));
        let member = world.member(gone);
        world.patch(&others, &Patch::MemberSet(member));
        world.restart(gone);
        world.run_till("it is back", ms(10_000), |world| all_up(world, 5));
        for host in 1..5 {
            world.send(0, &packet(0, host, round as u32, 100));
        }
        world.run(ms(100));
    }
    for host in 1..5 {
        let numbers = got(&world, 0, host);
        assert_eq!(numbers.iter().filter(|number| **number < 1000).count(), 40, "host {host}");
    }
}

#[test]
fn with_a_stock_peer_all_come_together_and_packets_pass_between_them() {
    let mut world = connected(4, 4, 5);
    world.record = true;
    let device = world.device(0, None);
    let stock = StockPeer { gateway: Some(node(0)), ..StockPeer::default() };
    let member = world.device_member(device, stock);
    world.patch(&[0, 1, 2, 3, 4], &Patch::MemberSet(member));
    let gateway = world.gateway_member(0, &[device]);
    world.patch(&[0, 1, 2, 3, 4], &Patch::MemberSet(gateway));
    world.run_till("all are up again", ms(10_000), |world| all_up(world, 5));
    world.send_from_device(device, &routed(device_overlay(device), overlay(0), 1, 64, 100));
    world.run(ms(500));
    world.recorded.clear();
    for host in 1..5 {
        world.send_from_device(device, &routed(device_overlay(device), overlay(host), 2, 64, 100));
        world.send(host, &packet(host, 0, 3, 100));
        world.run(ms(200));
        let from_device = |packet: &[u8]| packet[12..16] == device_overlay(device);
        assert!(world.hosts[host].received.iter().any(|(_, packet)| from_device(packet)), "host {host}");
    }
    assert_eq!(shards_named(&world, 0), BTreeSet::from([0]));
    assert_eq!(world.engine_status(0).forwarded, 4);
}

#[test]
fn a_thread_that_is_late_loses_packets_of_its_own_peers_alone_and_no_command() {
    let mut world = connected(5, 2, 3);
    // The first peer is in the first shard, the second in the other.
    let mut workers = world.hosts[0].engine.take_workers();
    assert_eq!(workers.len(), 1);
    for batch in 0..40 {
        hand_in(&mut world, (0, 2), batch * 64..(batch + 1) * 64);
        hand_in(&mut world, (0, 1), batch * 64..(batch + 1) * 64);
    }
    world.run(ms(100));
    assert_eq!(got_at(OF_ONE_FLOW, &world, 0, 1), (0..40 * 64).collect::<Vec<_>>());
    assert!(got(&world, 0, 2).is_empty());
    let lost = world.drops(0, DropReason::ThreadBusy) as usize;
    assert!((1..40 * 64).contains(&lost), "{lost}");
    // All parcels are full; what is said now comes nevertheless.
    world.patch(&[0], &Patch::MemberRemoved(node(2)));
    carry(&mut world, 0, &mut workers);
    world.run(ms(100));
    let numbers = got_at(OF_ONE_FLOW, &world, 0, 2);
    assert_eq!((numbers.len(), numbers.is_sorted()), (40 * 64 - lost, true));
    hand_in(&mut world, (0, 2), 0..1);
    carry(&mut world, 0, &mut workers);
    assert_eq!(world.drops(0, DropReason::NoRoute), 1);
}

#[test]
fn what_a_thread_says_late_of_a_peer_that_is_gone_is_not_said_of_another() {
    let mut world = connected(6, 2, 3);
    let mut workers = world.hosts[0].engine.take_workers();
    // A packet from the peer is with the worker when the map drops it, and another takes its place in the map.
    let before = world.peer(0, 2).rx_packets;
    world.send(2, &packet(2, 0, 1, 100));
    world.run(ms(50));
    world.patch(&[0], &Patch::MemberRemoved(node(2)));
    let member = world.member(2);
    world.patch(&[0], &Patch::MemberSet(member));
    assert_eq!(world.peer(0, 2).link_state, LinkState::Idle);
    assert_eq!(carry(&mut world, 0, &mut workers), 1, "it came before");
    assert_eq!((world.peer(0, 2).link_state, world.peer(0, 2).rx_packets), (LinkState::Idle, 0));
    assert!(before < 10);
    let events = world.hosts[0].events.iter().map(|(_, event)| event);
    let removed = events.filter(|event| matches!(event, Event::PeerRemoved { .. }));
    assert_eq!(removed.count(), 1);
}

#[test]
fn the_status_has_what_workers_have_told() {
    let mut world = connected(7, 2, 3);
    let mut workers = world.hosts[0].engine.take_workers();
    // A source that is none of the peer's.
    hand_in(&mut world, (0, 2), 0..3);
    carry(&mut world, 0, &mut workers);
    let mut wrong = packet(0, 2, 1, 1200);
    wrong.resize(1400, 0);
    wrong[2..4].copy_from_slice(&1400u16.to_be_bytes());
    let (now, mut udp) = (world.clock(0), DatagramBatch::default());
    world.hosts[0].engine.handle_tun(network(), [wrong.as_slice()], now, &mut udp);
    carry(&mut world, 0, &mut workers);
    assert_eq!(world.drops(0, DropReason::TooLarge), 0, "only the worker knows");
    world.hosts[0].engine.ask_workers();
    assert!(!world.hosts[0].engine.have_workers_told());
    carry(&mut world, 0, &mut workers);
    assert!(world.hosts[0].engine.have_workers_told());
    assert_eq!(world.drops(0, DropReason::TooLarge), 1);
}

#[test]
fn a_datagram_for_a_shard_that_is_not_there_is_dropped_and_counted() {
    let mut world = connected(8, 2, 2);
    let mut data = vec![0; 64];
    data[0] = 4;
    data[7] = 0xf0;
    let from = world.public(1);
    world.inject(0, from, &data);
    assert_eq!(world.drops(0, DropReason::NoSuchSession), 1);
}

#[test]
fn what_waits_for_a_member_on_demand_gets_to_whichever_shard_it_comes_to() {
    let mut world = World::new(9);
    world.shards = 3;
    (0..4).for_each(|_| {
        world.host(None);
    });
    world.introduce_all();
    for host in 0..4 {
        let info = NetworkInfo { peers: Some(PeerMode::OnDemand), ..World::info() };
        let members = vec![world.member(host)];
        let snapshot = Snapshot { revision: Revision(1), network: info, members, policy: None };
        world.command(host, Command::SetMap { network: network(), snapshot });
    }
    world.run(ms(500));
    world.record = true;
    for other in 1..4 {
        for number in 0..3 {
            world.send(0, &packet(0, other, number, 100));
        }
        for (host, peer) in [(0, other), (other, 0)] {
            let patches = vec![Patch::MemberSet(world.member(peer))];
            let patches = PatchSet { from: Revision(1), to: Revision(1), patches };
            world.command(host, Command::ApplyPatches { network: network(), patches });
        }
        world.send(0, &packet(0, other, 3, 100));
        world.run_till("all have come", ms(3000), |world| got(world, 0, other).len() == 4);
        assert_eq!(got(&world, 0, other), [0, 1, 2, 3]);
        world.send(other, &packet(other, 0, 4, 100));
        world.run(ms(100));
    }
    assert_eq!(shards_named(&world, 0), BTreeSet::from([0, 1, 2]));
}
