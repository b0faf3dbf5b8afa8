//! How far peers' clocks are apart, as both ends tell it: over direct and relayed paths, while clocks are set, after a sleep.

mod common;

use std::time::Duration;

use common::nat::{Filtering, Mapping};
use common::{World, ms, packet, two_behind};
use ria_core::{ClockOffset, PathKind};

const YEAR_2026: Duration = Duration::from_secs(1_770_000_000);

/// Runs on while each host reads its own clock, which is so many seconds off.
fn run(world: &mut World, off: &[f64], duration: Duration) {
    let end = world.now + duration;
    while world.now < end {
        for (host, off) in off.iter().enumerate() {
            let shown = (YEAR_2026 + (world.now - world.start)).as_secs_f64() + off;
            let now = world.clock(host);
            world.hosts[host].engine.set_wall_clock(Duration::from_secs_f64(shown.max(0.0)), now);
        }
        world.run(ms(100));
    }
}

fn offset(world: &World, host: usize, other: usize) -> ClockOffset {
    world
        .peer(host, other)
        .clock_offset
        .unwrap_or_else(|| panic!("host {host} knows nothing of {other}'s clock"))
}

fn assert_told(world: &World, off: [f64; 2]) {
    for (host, other) in [(0, 1), (1, 0)] {
        let told = offset(world, host, other);
        let truth = off[other] - off[host];
        // Reading a clock as floating-point seconds costs a microsecond.
        assert!((told.seconds - truth).abs() <= told.error + 1e-5, "{told:?} instead of {truth}");
        assert!(told.error < 0.1, "{told:?}");
    }
}

fn two(seed: u64) -> World {
    let mut world = World::new(seed);
    world.host(None);
    world.host(None);
    world.introduce_all();
    world
}

#[test]
fn both_ends_tell_how_far_their_clocks_are_apart_also_over_a_crooked_way() {
    for seed in 0..10 {
        let mut world = two(seed);
        world.jitter = ms(40);
        world.loss = 50;
        let off = [0.0, [0.3, -0.3, 86_400.0, -1e9][usize::try_from(seed % 4).unwrap()]];
        run(&mut world, &off, ms(500));
        world.send(0, &packet(0, 1, 1, 100));
        run(&mut world, &off, ms(30_000));
        assert_told(&world, off);
        // Where a direct path is seen from is told all the same.
        assert!(world.peer(0, 1).candidates.is_some());
    }
}

#[test]
fn a_relayed_path_brings_the_time_too() {
    let mut world = two_behind(3, Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
    let off = [2.0, -2.0];
    run(&mut world, &off, ms(500));
    world.send(0, &packet(0, 1, 1, 100));
    run(&mut world, &off, ms(20_000));
    assert!(world.both_on(PathKind::RelayUdp));
    assert_told(&world, off);
}

#[test]
fn clocks_that_are_set_are_told_as_they_are_soon_afterwards() {
    let mut world = two(1);
    run(&mut world, &[0.0, 0.0], ms(500));
    world.send(0, &packet(0, 1, 1, 100));
    for off in [[0.0, 0.0], [0.0, 5.0], [-1e9, 5.0], [0.0, 0.0], [0.02, 0.0]] {
        run(&mut world, &off, ms(35_000));
        assert_told(&world, off);
    }
}

#[test]
fn an_own_clock_that_was_set_is_never_told_as_it_was_before() {
    let mut world = two(2);
    run(&mut world, &[0.0, 0.0], ms(500));
    world.send(0, &packet(0, 1, 1, 100));
    run(&mut world, &[0.0, 0.0], ms(10_000));
    run(&mut world, &[60.0, 0.0], ms(100));
    let told = world.peer(0, 1).clock_offset;
    assert!(told.is_none_or(|told| (told.seconds + 60.0).abs() < 0.1), "{told:?}");
    run(&mut world, &[60.0, 0.0], ms(2000));
    assert!((offset(&world, 0, 1).seconds + 60.0).abs() < 0.1, "it asks again at once");
}

#[test]
fn after_a_sleep_what_was_known_before_is_not_told() {
    let mut world = two(3);
    let off = [0.0, 0.1];
    run(&mut world, &off, ms(500));
    world.send(0, &packet(0, 1, 1, 100));
    run(&mut world, &off, ms(20_000));
    world.suspend(1);
    run(&mut world, &off[..1], ms(600_000));
    world.resume(1);
    run(&mut world, &off, ms(200));
    let told = world.peer(1, 0).clock_offset;
    assert!(told.is_none_or(|told| (told.seconds + 0.1).abs() <= told.error + 1e-5), "{told:?}");
    run(&mut world, &off, ms(60_000));
    assert_told(&world, off);
}

#[test]
fn hours_without_traffic_leave_both_ends_with_a_useful_figure() {
    let mut world = two(4);
    let off = [0.0, 0.25];
    run(&mut world, &off, ms(500));
    world.send(0, &packet(0, 1, 1, 100));
    run(&mut world, &off, Duration::from_secs(3600));
    assert_told(&world, off);
    for (host, other) in [(0, 1), (1, 0)] {
        assert!(offset(&world, host, other).error < 0.04, "{:?}", offset(&world, host, other));
    }
}

#[test]
fn without_a_clock_nothing_is_told_of_any() {
    let mut world = two(5);
    world.send(0, &packet(0, 1, 1, 100));
    world.run(ms(20_000));
    assert_eq!(world.peer(0, 1).clock_offset, None);
    // A peer that does not know the time, such as an older one, answers as always.
    run(&mut world, &[0.0], ms(20_000));
    assert_eq!(world.peer(0, 1).clock_offset, None);
    assert!(world.peer(0, 1).rtt.is_some() && world.peer(0, 1).candidates.is_some());
}
