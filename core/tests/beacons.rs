//! Members on one network find each other although nobody tells them where they are.

mod common;

use std::net::SocketAddr;
use std::time::Instant;

use common::nat::{Filtering, Mapping};
use common::{World, ms, network, packet};
use ria_core::{Command, DropReason, Event, PathKind};

/// First byte of a probe.
const PROBE: u8 = 0xd1;

/// So many hosts on one network without a way out, which have nothing but the map.
fn field(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed);
    let nat = world.nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    (0..hosts).for_each(|_| _ = world.host(Some(nat)));
    world.introduce_by_map();
    world
}

fn switch_on(world: &mut World, host: usize) {
    let places = vec![world.hosts[host].address];
    world.command(host, Command::SetBeaconPlaces(places));
}

fn beacons(world: &World, host: usize) -> Vec<(Instant, SocketAddr, Vec<u8>)> {
    let sent = world.hosts[host].events.iter().filter_map(|(at, event)| {
        let Event::BeaconDue { from, datagram, .. } = event else { return None };
        Some((*at, *from, datagram.clone()))
    });
    sent.collect()
}

fn probes(world: &World) -> u64 {
    world.sent.get(&PROBE).copied().unwrap_or(0)
}

#[test]
fn members_that_know_nothing_but_the_map_find_each_other_and_are_silent_then() {
    let mut world = field(1, 3);
    world.run(ms(60_000));
    assert!(!world.is_up(0, 1), "nobody has said where anybody is");
    (0..3).for_each(|host| switch_on(&mut world, host));
    let found = |world: &World| {
        [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
            .iter()
            .all(|(a, b)| world.is_up(*a, *b) && world.path(*a, *b) == PathKind::Direct)
    };
    world.run_till("all are found", ms(500), found);
    world.send(0, &packet(0, 1, 7, 100));
    world.run(ms(50));
    assert_eq!(world.hosts[1].received.last().unwrap().1, packet(0, 1, 7, 100));
    let before = beacons(&world, 0).len();
    world.run(ms(120_000));
    assert_eq!(beacons(&world, 0).len(), before, "all are reached directly");
}

#[test]
fn one_that_comes_later_and_one_that_starts_anew_are_found_at_once() {
    let mut world = field(2, 2);
    switch_on(&mut world, 0);
    world.run(ms(600_000));
    switch_on(&mut world, 1);
    world.run_till("found", ms(200), |w| w.both_on(PathKind::Direct));
    world.restart(1);
    switch_on(&mut world, 1);
    world.run_till("found again", ms(2000), |w| w.both_on(PathKind::Direct));
    world.send(1, &packet(1, 0, 7, 100));
    world.run(ms(50));
    assert_eq!(world.hosts[0].received.last().unwrap().1, packet(1, 0, 7, 100));
}

#[test]
fn after_a_total_loss_the_link_is_back_in_a_second_without_any_beacon() {
    let mut world = field(3, 2);
    (0..2).for_each(|host| switch_on(&mut world, host));
    world.run_till("found", ms(500), |w| w.both_on(PathKind::Direct));
    for seconds in [5, 30, 120] {
        world.cut = Some(Box::new(|_, _| true));
        world.run(ms(seconds * 1000));
        assert!(!world.both_up());
        world.cut = None;
        (0..2).for_each(|host| world.command(host, Command::SetBeaconPlaces(Vec::new())));
        world.run_till("back", ms(1500), |w| w.both_on(PathKind::Direct));
        (0..2).for_each(|host| switch_on(&mut world, host));
    }
}

#[test]
fn no_beacon_goes_while_the_coordinator_tells_where_members_are() {
    let mut world = field(4, 2);
    // Nobody is found, so beacons go on.
    world.cut = Some(Box::new(|_, _| true));
    let reached = |reached| Command::SetCoordinatorReached { network: network(), reached };
    world.command(0, reached(true));
    switch_on(&mut world, 0);
    world.run(ms(100_000));
    assert_eq!(beacons(&world, 0).len(), 0);
    world.command(0, reached(false));
    world.run(ms(10_000));
    let burst = beacons(&world, 0).len();
    assert!((5..10).contains(&burst), "{burst}");
    world.run(ms(600_000));
    let rarely = beacons(&world, 0).len() - burst;
    assert!((14..21).contains(&rarely), "{rarely} in ten minutes");
}

#[test]
fn a_beacon_that_is_repeated_moved_or_invented_costs_a_probe_at_most() {
    let mut world = field(5, 2);
    // Nothing of host 1 arrives anywhere, and what host 0 says is only heard where the test plays it.
    world.cut = Some(Box::new(|_, _| true));
    switch_on(&mut world, 0);
    world.run(ms(100));
    let (_, from, beacon) = beacons(&world, 0).pop().unwrap();
    let stranger: SocketAddr = "192.168.1.66:5000".parse().unwrap();

    let begin = probes(&world);
    for _ in 0..50 {
        world.inject_beacon(1, stranger, &beacon);
    }
    world.run(ms(2000));
    assert_eq!(probes(&world), begin, "it comes from where its sender is not");
    assert_eq!(world.drops(1, DropReason::Unauthentic), 50);

    for _ in 0..10 {
        world.inject_beacon(1, from, &beacon);
        world.run(ms(2000));
    }
    assert_eq!(probes(&world), begin + 1, "one that was heard before says nothing");
    assert_eq!(world.drops(1, DropReason::Replayed), 9);

    let mut invented = beacon.clone();
    for number in 0..400_u16 {
        invented[20..22].copy_from_slice(&number.to_be_bytes());
        world.inject_beacon(1, from, &invented);
    }
    world.inject_beacon(1, from, &beacon[1..]);
    assert_eq!(probes(&world), begin + 1);
    assert_eq!(world.drops(1, DropReason::Malformed), 1);
    assert!(world.drops(1, DropReason::Stranger) >= 190);
    assert!(world.drops(1, DropReason::RateLimited) >= 100, "a flood is not even looked at");

    // Its own beacon that comes back moves nobody either, and all this has not kept the two apart.
    world.inject_beacon(0, from, &beacon);
    world.cut = None;
    world.run(ms(1000));
    world.command(0, Command::SetBeaconPlaces(Vec::new()));
    switch_on(&mut world, 0);
    world.run_till("found", ms(1000), |w| w.both_on(PathKind::Direct));
}

#[test]
fn a_network_on_which_nothing_is_for_all_breaks_nothing() {
    let mut world = field(6, 2);
    world.cut = Some(Box::new(|_, _| true));
    (0..2).for_each(|host| switch_on(&mut world, host));
    let begin = probes(&world);
    world.run(ms(300_000));
    assert_eq!(probes(&world), begin, "nobody was heard, so nobody is tried");
    assert!(beacons(&world, 0).len() < 20);
}
