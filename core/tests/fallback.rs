//! Where UDP does not get through, the relay is used over a stream; and over UDP again when it opens.

mod common;

use std::net::SocketAddr;

use common::nat::{Filtering, Mapping};
use common::{World, ms, network, packet, two_behind};
use ria_core::relay::Transport;
use ria_core::{Command, Event, PathKind, PingOutcome};

/// Two hosts that only a relay can bring together, which speaks TLS as well.
fn relayed(seed: u64) -> World {
    let mut world = two_behind(seed, Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
    offer_tls(&mut world);
    world
}

fn offer_tls(world: &mut World) {
    world.tls_port = Some(443);
    (0..2).for_each(|host| world.give_relay(host));
}

fn block_udp(world: &mut World) {
    world.cut = Some(Box::new(|_, _| true));
}

fn reach_coordinator(world: &mut World) {
    for host in 0..2 {
        world.command(host, Command::SetCoordinatorReached { network: network(), reached: true });
    }
}

/// Kinds of path and reasons, as events told them at a host.
fn told(world: &World, host: usize) -> Vec<(PathKind, PathKind, &'static str)> {
    let events = world.hosts[host].events.iter();
    let paths = events.filter_map(|(_, event)| {
        let Event::PathChanged { before, after, reason, .. } = event else { return None };
        Some((*before, *after, *reason))
    });
    paths.collect()
}

#[test]
fn blocked_from_the_beginning_two_find_each_other_over_streams() {
    for (reached, limit) in [(false, ms(4000)), (true, ms(2500))] {
        let mut world = relayed(1);
        block_udp(&mut world);
        if reached {
            reach_coordinator(&mut world);
        }
        let took = world.run_till("up over streams", limit, |w| w.both_on(PathKind::RelayTls));
        assert!(took >= ms(1000), "UDP is given a chance: {took:?}");
        world.send(0, &packet(0, 1, 7, 101));
        world.run(ms(100));
        assert_eq!(world.hosts[1].received.last().unwrap().1, packet(0, 1, 7, 101));
        let gap = world.stream(ms(10), ms(5000));
        assert!(gap < ms(60), "{gap:?}");
        let status = world.hosts[0].engine.status(world.now);
        assert_eq!(status.networks[0].relay.as_ref().map(|relay| relay.transport), Some(Transport::Tls));
        assert!(matches!(world.ping(0, 1), PingOutcome::Answered { path: PathKind::RelayTls, .. }));
        let (_, after, reason) = told(&world, 0)[0];
        assert_eq!(after, PathKind::RelayTls);
        assert!(reason.contains("UDP does not get through"), "{reason}");
        let down = |event: &Event| matches!(event, Event::RelayDown { .. });
        assert!(!world.hosts[0].events.iter().any(|(_, event)| down(event)), "the relay is in use");
    }
}

#[test]
fn udp_that_opens_takes_over_without_a_gap_and_the_stream_ends() {
    for seed in 0..5 {
        let mut world = relayed(seed);
        block_udp(&mut world);
        world.run_till("up over streams", ms(4000), |w| w.both_on(PathKind::RelayTls));
        world.stream(ms(10), ms(1000 + seed * 777));
        world.cut = None;
        let gap = world.stream(ms(10), ms(12_000));
        assert!(gap < ms(100), "seed {seed}: {gap:?}");
        assert!(
            world.both_on(PathKind::RelayUdp),
            "seed {seed}: {:?} {:?}",
            told(&world, 0),
            told(&world, 1)
        );
        let upgrade = |(before, after, _): &(PathKind, PathKind, &str)| {
            before != after && *before == PathKind::RelayTls
        };
        let upgrade = told(&world, 0).into_iter().find(upgrade);
        assert!(upgrade.is_some_and(|(.., reason)| reason.contains("over UDP again")), "{upgrade:?}");
        let gap = world.stream(ms(10), ms(40_000));
        assert!(gap < ms(100), "seed {seed}: also when the stream ends: {gap:?}");
        assert_eq!(world.streams.open(), 0, "no stream is kept that nobody needs");
        world.streams.sent = 0;
        world.run(ms(60_000));
        assert_eq!(world.streams.sent, 0);
    }
}

#[test]
fn udp_that_closes_under_way_is_left_within_a_second_and_a_half() {
    for (seed, pause) in [(1, 5_000), (2, 60_000)] {
        let mut world = relayed(seed);
        reach_coordinator(&mut world);
        world.run_till("up over UDP", ms(1000), |w| w.both_on(PathKind::RelayUdp));
        world.stream(ms(10), ms(3000));
        assert_eq!(world.streams.sent, 0, "UDP answers, so nothing else is asked");
        block_udp(&mut world);
        let gap = world.stream(ms(10), ms(8000));
        assert!(gap < ms(1500), "seed {seed}: {gap:?}");
        assert!(world.both_on(PathKind::RelayTls));
        // It opens for a while, and closes again: within the stream's last half minute, and after it.
        world.cut = None;
        world.stream(ms(10), ms(12_000 + pause));
        assert!(world.both_on(PathKind::RelayUdp));
        let stays = world.streams.open() > 0;
        assert_eq!(stays, pause < 20_000);
        block_udp(&mut world);
        let gap = world.stream(ms(10), ms(8000));
        assert!(gap < if stays { ms(1200) } else { ms(1500) }, "seed {seed}: {gap:?}");
        assert!(world.both_on(PathKind::RelayTls));
    }
}

#[test]
fn one_blocked_end_is_enough_and_costs_the_other_nothing() {
    let mut world = relayed(3);
    let blocked = world.public(0).ip();
    world.cut =
        Some(Box::new(move |from: SocketAddr, to: SocketAddr| from.ip() == blocked || to.ip() == blocked));
    world.run_till("up", ms(5000), World::both_up);
    world.run(ms(1000));
    assert_eq!((world.path(0, 1), world.path(1, 0)), (PathKind::RelayTls, PathKind::RelayUdp));
    assert_eq!(world.streams.open(), 1);
    world.cut = None;
    let gap = world.stream(ms(10), ms(12_000));
    assert!(gap < ms(100), "{gap:?}");
    assert!(world.both_on(PathKind::RelayUdp));
}

#[test]
fn a_stream_that_breaks_is_noticed_and_its_successor_taken() {
    let mut world = relayed(4);
    block_udp(&mut world);
    world.run_till("up over streams", ms(4000), |w| w.both_on(PathKind::RelayTls));
    world.stream(ms(10), ms(2000));
    world.break_streams();
    assert!(!world.both_up(), "at once, not by silence");
    let gap = world.stream(ms(10), ms(3000));
    assert!(gap < ms(1500), "{gap:?}");
    assert!(world.both_on(PathKind::RelayTls));
    // Nothing gets through at all for a while, and is told.
    world.streams.blocked = true;
    world.break_streams();
    world.run(ms(5000));
    let reason = world.hosts[0].events.iter().rev().find_map(|(_, event)| {
        let Event::RelayDown { reason, .. } = event else { return None };
        Some(reason.clone())
    });
    assert!(reason.as_ref().is_some_and(|reason| reason.contains("not over TLS: ")), "{reason:?}");
    world.streams.blocked = false;
    world.run_till("back", ms(3000), |w| w.both_on(PathKind::RelayTls));
}

#[test]
fn another_network_begins_with_udp_again() {
    let mut world = relayed(5);
    block_udp(&mut world);
    world.run_till("up over streams", ms(4000), |w| w.both_on(PathKind::RelayTls));
    world.stream(ms(10), ms(500));
    let nat = world.nat(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
    let site = world.nats[nat].public();
    // Host 1 stays behind; what host 0 finds at the new place is open.
    let relay = world.turn.address;
    world.cut = Some(Box::new(move |from: SocketAddr, to: SocketAddr| {
        !(from.ip() == site && to == relay || from == relay && to.ip() == site)
    }));
    let before = world.streams.open();
    world.roam(0, nat);
    assert_eq!(world.streams.open(), before - 1, "the stream of the former place is closed at once");
    let gap = world.stream(ms(10), ms(4000));
    assert!(gap < ms(1000), "{gap:?}");
    assert_eq!((world.path(0, 1), world.path(1, 0)), (PathKind::RelayUdp, PathKind::RelayTls));
}

#[test]
fn a_relay_without_tls_is_never_asked_for_it() {
    let mut world = two_behind(6, Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
    block_udp(&mut world);
    world.run(ms(20_000));
    let (mut wanted, mut down) = (false, false);
    for (_, event) in &world.hosts[0].events {
        wanted |= matches!(event, Event::RelayStreamWanted { .. });
        down |= matches!(event, Event::RelayDown { .. });
    }
    assert!(!wanted && down);
}

#[test]
fn a_direct_path_takes_over_from_a_stream_too() {
    let mut world = two_behind(7, Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    offer_tls(&mut world);
    block_udp(&mut world);
    world.run_till("up over streams", ms(5000), |w| w.both_on(PathKind::RelayTls));
    world.cut = None;
    let gap = world.stream(ms(10), ms(12_000));
    assert!(gap < ms(100), "{gap:?}");
    assert!(world.both_on(PathKind::Direct));
}

#[test]
fn udp_that_closes_under_a_direct_path_is_left_within_a_second_and_a_half() {
    for seed in 0..10 {
        let mut world = two_behind(seed, Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
        offer_tls(&mut world);
        reach_coordinator(&mut world);
        world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
        world.stream(ms(10), ms(3000 + 37 * seed));
        // At one host only, as where it has come into another room.
        let closed = world.nats[0].public();
        world.cut = Some(Box::new(move |from, to| from.ip() == closed || to.ip() == closed));
        let gap = world.stream(ms(10), ms(5000));
        assert!(gap < ms(1500), "seed {seed}: {gap:?}");
        assert_eq!((world.path(0, 1), world.path(1, 0)), (PathKind::RelayTls, PathKind::RelayUdp));
    }
}

#[test]
fn a_peer_that_falls_silent_costs_no_stream_to_a_relay_that_answers() {
    let mut world = relayed(1);
    reach_coordinator(&mut world);
    world.run_till("up over UDP", ms(1000), |w| w.both_on(PathKind::RelayUdp));
    world.stream(ms(10), ms(1000));
    world.suspend(1);
    world.streams.sent = 0;
    world.stream(ms(10), ms(5000));
    assert!(!world.both_up());
    assert_eq!((world.streams.open(), world.streams.sent), (0, 0), "the relay of host 0 answers");
}
