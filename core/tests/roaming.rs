//! Hosts move, lose their network and get it back: what is noticed, what is told, and how soon traffic flows again.

mod common;

use std::time::Duration;

use common::nat::{Filtering, Mapping};
use common::{World, ms, two_behind};
use ria_core::{Command, Event, LinkState, PathKind};

use Filtering::AddressAndPortDependent as PortRestricted;
use Mapping::{AddressAndPortDependent as Symmetric, EndpointIndependent as Cone};

/// WireGuard's handshake initiation.
const INITIATION: u8 = 1;

/// A change of a link, as an event told it.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    before: LinkState,
    after: LinkState,
    gap: Option<Duration>,
    paths: (PathKind, PathKind),
    reason: &'static str,
    at: Duration,
}

/// What was told of the link from here on, with the time since then.
fn told(world: &World, host: usize, since: std::time::Instant) -> Vec<Told> {
    let events = world.hosts[host].events.iter().filter(|(at, _)| *at >= since);
    let links = events.filter_map(|(at, event)| {
        let Event::LinkStateChanged { before, after, gap, path_before, path_after, reason, .. } = event
        else {
            return None;
        };
        let paths = (*path_before, *path_after);
        Some(Told { before: *before, after: *after, gap: *gap, paths, reason, at: *at - since })
    });
    links.collect()
}

/// The coordinator is away: what hosts report reaches nobody.
fn silence_coordinator(world: &mut World) {
    world.signalling = Duration::from_secs(1_000_000);
}

fn no_network(world: &mut World, host: usize) {
    world.command(host, Command::SetHostCandidates(vec![]));
}

fn network_again(world: &mut World, host: usize) {
    let address = world.hosts[host].address;
    world.command(host, Command::SetHostCandidates(vec![address]));
}

#[test]
fn both_ends_tell_of_a_loss_within_a_second_and_of_its_end_with_gap_and_paths() {
    let mut world = two_behind(1, Cone, PortRestricted);
    world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
    world.stream(ms(10), ms(5000));
    let cut = world.now;
    world.cut = Some(Box::new(|_, _| true));
    world.stream(ms(10), ms(5000));
    for host in 0..2 {
        let told = told(&world, host, cut);
        let [lost] = &told[..] else { panic!("host {host}: {told:?}") };
        assert!(lost.at < ms(1000) && lost.after == LinkState::Lost, "{lost:?}");
        assert_eq!(lost.paths, (PathKind::Direct, PathKind::None));
        assert_eq!(lost.reason, "no path answers");
    }
    // When it is over, the direct way is not there any more.
    let (relay, mended) = (world.turn.address, world.now);
    world.cut = Some(Box::new(move |from, to| from != relay && to != relay));
    world.stream(ms(10), ms(3000));
    for host in 0..2 {
        let told = told(&world, host, mended);
        let [back] = &told[..] else { panic!("host {host}: {told:?}") };
        assert!(back.at < ms(1500) && back.after == LinkState::Up, "{back:?}");
        assert_eq!(back.paths, (PathKind::Direct, PathKind::RelayUdp));
        assert!(back.gap.is_some_and(|gap| (ms(4900)..ms(6600)).contains(&gap)), "{back:?}");
    }
}

#[test]
fn a_path_that_is_left_because_it_died_is_told_with_the_gap() {
    let mut world = two_behind(1, Cone, PortRestricted);
    world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
    world.stream(ms(10), ms(2000));
    let gaps = |world: &World| -> Vec<(PathKind, Option<Duration>)> {
        let events = world.hosts[0].events.iter();
        let paths = events.filter_map(|(_, event)| {
            let Event::PathChanged { after, gap, .. } = event else { return None };
            Some((*after, *gap))
        });
        paths.collect()
    };
    assert!(gaps(&world).iter().all(|(_, gap)| gap.is_none()), "{:?}", gaps(&world));
    let relay = world.turn.address;
    world.cut = Some(Box::new(move |from, to| from != relay && to != relay));
    world.stream(ms(10), ms(2000));
    let (after, gap) = *gaps(&world).last().unwrap();
    assert_eq!(after, PathKind::RelayUdp);
    assert!(gap.is_some_and(|gap| gap > ms(300) && gap < ms(1000)), "{gap:?}");
}

#[test]
fn without_any_network_all_links_are_lost_at_once_and_for_that_reason() {
    let mut world = two_behind(1, Symmetric, PortRestricted);
    world.run_till("up", ms(500), World::both_up);
    world.run(ms(40_000));
    let (cut, relayed, nat) = (world.now, world.peer(1, 0).endpoint, world.nats[0].public());
    world.cut = Some(Box::new(move |from, to| from.ip() == nat || to.ip() == nat));
    no_network(&mut world, 0);
    let told_at_once = told(&world, 0, cut);
    assert_eq!(told_at_once.len(), 1, "{told_at_once:?}");
    assert_eq!(told_at_once[0].reason, "this machine has no network");
    assert_eq!(world.peer(0, 1).path_reason, "this machine has no network");
    world.run(ms(20_000));
    world.cut = None;
    let back = world.now;
    network_again(&mut world, 0);
    world.run_till("up again", ms(400), World::both_up);
    assert!(told(&world, 0, back)[0].gap.is_some_and(|gap| gap > ms(19_000)));
    assert_eq!(world.peer(1, 0).endpoint, relayed, "its allocation was still there");
}

/// The relay stays, the coordinator does not, so that only the probes themselves tell where the host is now.
#[test]
fn a_host_that_moves_is_found_again_without_the_coordinator() {
    for (seed, mapping, path) in [(1, Cone, PathKind::Direct), (2, Symmetric, PathKind::RelayUdp)] {
        let mut world = two_behind(seed, mapping, PortRestricted);
        world.run_till("settled", ms(3000), |w| w.both_on(path));
        world.stream(ms(10), ms(1000));
        silence_coordinator(&mut world);
        let (nat, before) = (world.nat(mapping, PortRestricted), world.sent.get(&INITIATION).copied());
        world.roam(0, nat);
        let gap = world.stream(ms(10), ms(3000));
        assert!(gap < ms(700), "{mapping:?}: {gap:?}");
        assert!(world.both_on(path), "{mapping:?}: {:?} {:?}", world.peer(0, 1), world.peer(1, 0));
        assert_eq!(world.sent.get(&INITIATION).copied(), before, "a session does not know addresses");
    }
}

#[test]
fn hosts_that_move_at_once_find_each_other_by_the_coordinator() {
    for seed in 0..5 {
        let mut world = two_behind(seed, Cone, PortRestricted);
        world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
        world.stream(ms(10), ms(1000));
        let before = world.sent.get(&INITIATION).copied();
        for host in 0..2 {
            let nat = world.nat(Cone, PortRestricted);
            world.roam(host, nat);
        }
        let gap = world.stream(ms(10), ms(3000));
        assert!(gap < ms(700), "seed {seed}: {gap:?}");
        world.run_till("direct again", ms(3000), |w| w.both_on(PathKind::Direct));
        assert_eq!(world.sent.get(&INITIATION).copied(), before);
    }
}

#[test]
fn a_nat_that_forgets_costs_less_than_a_second_and_a_half_also_without_the_coordinator() {
    for (seed, mapping, path) in [(1, Cone, PathKind::Direct), (2, Symmetric, PathKind::RelayUdp)] {
        let mut world = two_behind(seed, mapping, PortRestricted);
        world.run_till("settled", ms(3000), |w| w.both_on(path));
        world.stream(ms(10), ms(1000));
        silence_coordinator(&mut world);
        world.nats[0].rebind();
        let gap = world.stream(ms(10), ms(6000));
        assert!(gap < ms(1500), "{mapping:?}: {gap:?}");
        assert!(world.both_on(path), "{mapping:?}: {:?} {:?}", world.peer(0, 1), world.peer(1, 0));
    }
}

/// Both have only the relay, nobody tells them anything, and sessions have ended meanwhile.
#[test]
fn after_minutes_without_anything_relayed_links_are_back_within_two_seconds() {
    for outage in [5, 30, 300] {
        for idle in [false, true] {
            let mut world = two_behind(outage, Symmetric, PortRestricted);
            world.run_till("up", ms(500), World::both_up);
            world.stream(ms(20), ms(2000));
            silence_coordinator(&mut world);
            world.cut = Some(Box::new(|_, _| true));
            if idle {
                world.run(Duration::from_secs(outage));
            } else {
                world.stream(ms(50), Duration::from_secs(outage));
            }
            world.cut = None;
            let (first, begin) = (world.hosts[1].received.len(), world.now);
            world.sent.clear();
            world.stream(ms(20), ms(2500));
            let back = world.hosts[1].received.get(first).expect("no traffic after the outage").0 - begin;
            assert!(back < ms(2000), "after {outage} s, idle {idle}: {back:?}");
            let handshakes = world.sent.get(&INITIATION).copied().unwrap_or_default();
            assert!(handshakes <= 2, "{handshakes} handshakes after {outage} s");
        }
    }
}

#[test]
fn another_way_out_under_the_same_addresses_is_another_allocation_and_no_loss() {
    let mut world = two_behind(1, Symmetric, PortRestricted);
    world.run_till("up", ms(500), World::both_up);
    world.stream(ms(10), ms(1000));
    // The same private address, but another router.
    world.nats[0].rebind();
    world.command(0, Command::Rerouted { ipv4: true, ipv6: false });
    let gap = world.stream(ms(10), ms(2000));
    assert!(gap < ms(400), "{gap:?}");
    let allocations = world.turn.len();
    world.command(0, Command::Rerouted { ipv4: false, ipv6: true });
    let gap = world.stream(ms(10), ms(1000));
    assert!(gap < ms(30), "the relay is not reached over IPv6: {gap:?}");
    assert_eq!(world.turn.len(), allocations);
}

#[test]
fn whoever_stays_follows_the_one_that_moves_at_once() {
    for seed in 0..30 {
        let mut world = two_behind(seed, Cone, PortRestricted);
        world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
        world.stream_both_ways(100 + u32::try_from(seed).unwrap() * 7);
        let nat = world.nat(Cone, PortRestricted);
        world.roam(0, nat);
        let [to_the_one_that_moved, from_it] = world.stream_both_ways(200);
        assert!(to_the_one_that_moved < ms(450), "seed {seed}: {to_the_one_that_moved:?}");
        assert!(from_it < ms(450), "seed {seed}: {from_it:?}");
    }
}
