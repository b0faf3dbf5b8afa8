//! Two engines find their way to each other through NATs and relays, and keep it.

mod common;

use common::nat::{Filtering, Mapping};
use common::{World, ms, packet, two_behind};
use ria_core::{Event, LinkState, PathKind, PingOutcome};

use Filtering::{AddressAndPortDependent as PortRestricted, AddressDependent as Restricted};
use Mapping::{AddressAndPortDependent as Symmetric, EndpointIndependent as Cone};

#[test]
fn relayed_at_once_then_direct_behind_port_preserving_nats() {
    for filtering in [Restricted, PortRestricted] {
        let mut world = two_behind(1, Cone, filtering);
        let up = world.run_till("up", ms(500), World::both_up);
        let direct = world.run_till("direct", ms(1000), |w| w.both_on(PathKind::Direct));
        assert!(up + direct < ms(1000), "{up:?} + {direct:?}");
        world.send(0, &packet(0, 1, 7, 100));
        world.run(ms(50));
        assert_eq!(world.hosts[1].received.last().unwrap().1, packet(0, 1, 7, 100));
    }
}

#[test]
fn the_relay_carries_traffic_while_direct_ways_are_sought() {
    let mut world = two_behind(1, Cone, PortRestricted);
    let relay = world.turn.address;
    let opens = world.start + ms(3000);
    // The NATs let each other's datagrams in only after three seconds.
    world.cut = Some(Box::new(move |from, to| from != relay && to != relay));
    let up = world.run_till("up", ms(500), |w| w.both_on(PathKind::RelayUdp));
    assert!(up <= ms(200), "{up:?}");
    world.stream(ms(10), opens - world.now);
    world.cut = None;
    let gap = world.stream(ms(10), ms(6000));
    assert!(gap <= ms(60), "{gap:?}");
    assert!(world.both_on(PathKind::Direct), "short bursts find the way soon after it opened");
    let before = Some(PathKind::RelayUdp);
    let upgrade = world.hosts[0].events.iter().find_map(|(_, event)| {
        let Event::PathChanged { before, after: PathKind::Direct, .. } = event else { return None };
        Some(*before)
    });
    assert_eq!(upgrade, before);
}

#[test]
fn stays_relayed_behind_symmetric_nats_and_carries_traffic() {
    let mut world = two_behind(1, Symmetric, PortRestricted);
    world.run_till("up", ms(500), World::both_up);
    let gap = world.stream(ms(20), ms(20_000));
    assert!(gap < ms(100), "{gap:?}");
    assert!(world.both_on(PathKind::RelayUdp));
    assert_eq!(world.peer(0, 1).relay.as_deref(), Some("relay"));
    let outcome = world.ping(0, 1);
    assert!(matches!(outcome, PingOutcome::Answered { path: PathKind::RelayUdp, rtt, .. } if rtt == ms(20)));
}

#[test]
fn one_symmetric_nat_and_an_address_restricted_one_become_direct() {
    let mut world = World::new(3);
    let (symmetric, cone) = (world.nat(Symmetric, PortRestricted), world.nat(Cone, Restricted));
    world.host(Some(symmetric));
    world.host(Some(cone));
    world.introduce_all();
    world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
}

#[test]
fn neighbours_behind_one_nat_use_their_own_network() {
    let mut world = World::new(4);
    let nat = world.nat(Symmetric, PortRestricted);
    world.host(Some(nat));
    world.host(Some(nat));
    world.introduce_all();
    world.run_till("direct", ms(1000), |w| w.both_on(PathKind::Direct));
    assert_eq!(world.peer(0, 1).endpoint, Some(world.hosts[1].address));
}

#[test]
fn a_cut_direct_path_is_left_within_a_second() {
    for seed in 0..20 {
        let mut world = two_behind(seed, Cone, PortRestricted);
        world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
        world.stream(ms(10), ms(500 + seed * 37));
        let relay = world.turn.address;
        world.cut = Some(Box::new(move |from, to| from != relay && to != relay));
        let gap = world.stream(ms(10), ms(3000));
        assert!(gap < ms(1000), "seed {seed}: {gap:?}");
        assert_eq!(world.path(0, 1), PathKind::RelayUdp);
        let lost = |event: &Event| matches!(event, Event::LinkStateChanged { after: LinkState::Lost, .. });
        assert!(
            !world.hosts[0].events.iter().any(|(_, event)| lost(event)),
            "the link itself was never lost"
        );
        world.cut = None;
        world.stream(ms(10), ms(4000));
        world.run_till("direct again", ms(35_000), |w| w.both_on(PathKind::Direct));
    }
}

#[test]
fn a_way_that_dies_in_one_direction_is_left_within_a_second_though_data_comes_by_it() {
    for seed in 0..20 {
        let mut world = two_behind(seed, Cone, PortRestricted);
        world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
        world.stream_both_ways(50 + 4 * u32::try_from(seed).unwrap());
        let (relay, from) = (world.turn.address, world.nats[0].public());
        world.cut = Some(Box::new(move |source, to| source.ip() == from && to != relay));
        let [back, there] = world.stream_both_ways(300);
        assert!(there < ms(1000) && back < ms(1000), "seed {seed}: {there:?}, {back:?}");
        assert!(world.both_on(PathKind::RelayUdp), "seed {seed}");
    }
}

#[test]
fn a_full_queue_that_eats_one_ping_in_three_moves_next_to_nothing_while_data_comes() {
    let mut disturbed = 0;
    for seed in 0..10 {
        let mut world = two_behind(seed, Cone, PortRestricted);
        world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
        world.loss = 180;
        let since = world.now;
        world.stream_both_ways(6000);
        let moved = world.hosts[0].events.iter().filter(|(at, event)| {
            *at >= since
                && matches!(
                    event,
                    Event::PathChanged { .. } | Event::LinkStateChanged { after: LinkState::Lost, .. }
                )
        });
        disturbed += u32::from(moved.count() > 0);
    }
    assert_eq!(disturbed, 0, "of ten minutes");
}

#[test]
fn a_total_loss_is_reported_and_over_within_two_seconds_of_its_end() {
    for outage in [5_000, 60_000, 290_000] {
        let mut world = two_behind(outage, Cone, PortRestricted);
        world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
        world.stream(ms(20), ms(1000));
        world.cut = Some(Box::new(|_, _| true));
        world.stream(ms(20), ms(outage));
        assert_eq!(world.peer(0, 1).link_state, LinkState::Lost);
        world.cut = None;
        let first = world.hosts[1].received.len();
        let begin = world.now;
        world.stream(ms(20), ms(2500));
        let back = world.hosts[1].received.get(first).expect("no traffic after the outage").0 - begin;
        assert!(back < ms(2000), "after {outage} ms: {back:?}");
        let gap = world.hosts[0].events.iter().rev().find_map(|(_, event)| {
            let Event::LinkStateChanged { before: LinkState::Lost, gap, .. } = event else { return None };
            *gap
        });
        assert!(gap.is_some_and(|gap| gap >= ms(outage)), "{gap:?}");
    }
}

#[test]
fn three_percent_loss_moves_nothing() {
    for seed in 0..5 {
        let mut world = two_behind(seed, Cone, PortRestricted);
        world.loss = 30;
        world.run_till("direct", ms(5000), |w| w.both_on(PathKind::Direct));
        let before = world.hosts[0].events.len();
        world.stream(ms(20), ms(120_000));
        let moved = world.hosts[0].events[before..]
            .iter()
            .filter(|(_, event)| matches!(event, Event::PathChanged { .. }))
            .count();
        assert_eq!(moved, 0, "seed {seed}");
        let loss = world.peer(0, 1).loss.unwrap();
        assert!(loss > 0.0 && loss < 0.3, "{loss}");
    }
}

#[test]
fn an_idle_engine_rests() {
    let mut world = two_behind(1, Cone, PortRestricted);
    world.run(ms(60_000));
    world.sent.clear();
    (world.wakes, world.sent_bytes) = (0, 0);
    world.run(ms(600_000));
    assert!(world.sent_bytes < 2 * 600 * 31, "{} bytes/s of both: {:?}", world.sent_bytes / 600, world.sent);
    assert!(world.wakes < 2 * 600 / 3, "{} times in 600 s at two ends", world.wakes);
    let total: u64 = world.sent.values().sum();
    // Two ends, two paths each: a ping and a pong every 20 s, the relay's refreshes, and a handshake every 110 s.
    assert!(total < 600, "{:?}", world.sent);
    assert!(world.both_on(PathKind::Direct));
    for (host, other) in [(0, 1), (1, 0)] {
        let age = world.peer(host, other).handshake_age;
        assert!(age.is_some_and(|age| age < ms(111_000)), "keys are renewed without traffic too: {age:?}");
    }
}

#[test]
fn a_host_that_moves_to_another_network_is_back_within_a_second() {
    for (seed, mapping) in [(1, Cone), (2, Symmetric)] {
        let mut world = two_behind(seed, mapping, PortRestricted);
        world.run(ms(3000));
        world.stream(ms(10), ms(1000));
        let nat = world.nat(mapping, PortRestricted);
        world.roam(0, nat);
        let gap = world.stream(ms(10), ms(4000));
        assert!(gap < ms(1000), "{mapping:?}: {gap:?}");
        world.run_till("back on the best path", ms(5000), |w| {
            w.both_on(if mapping == Cone { PathKind::Direct } else { PathKind::RelayUdp })
        });
    }
}

#[test]
fn sparse_traffic_brings_no_more_probes_than_packets() {
    let mut world = two_behind(1, Cone, PortRestricted);
    world.run(ms(3000));
    world.sent.clear();
    world.stream(ms(3000), ms(300_000));
    let probes = world.sent[&0xd1];
    // 100 packets: a ping and its pong for each, at either end, and the relay kept warm every 20 s.
    assert!(probes <= 100 * 4 + 15 * 4 + 20, "{probes}");
}

#[test]
fn heavy_loss_shows_as_degraded_and_its_end_as_up() {
    let mut world = two_behind(3, Symmetric, PortRestricted);
    world.run_till("up", ms(500), World::both_up);
    world.loss = 60;
    world.stream(ms(50), ms(60_000));
    let degraded =
        |event: &Event| matches!(event, Event::LinkStateChanged { after: LinkState::Degraded, .. });
    assert!(world.hosts[0].events.iter().any(|(_, event)| degraded(event)));
    assert!(world.peer(0, 1).loss.is_some_and(|loss| loss > 0.05));
    world.loss = 0;
    world.stream(ms(50), ms(60_000));
    assert_eq!(world.peer(0, 1).link_state, LinkState::Up);
    assert!(world.peer(0, 1).loss.is_some_and(|loss| loss < 0.05));
}
