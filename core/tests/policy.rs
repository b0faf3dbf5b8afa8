//! Policies between engines with real sessions: who is a peer at all, what passes, and when that ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::{World, ms, network, node, packet};
use ria_core::{Command, DropReason, LinkState};
use ria_protocol::map::Patch;
use ria_protocol::policy::{NodePolicy, Permit, PermitKind, Rule, Selector};
use ria_protocol::time::UnixTime;

fn three(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..3 {
        world.host(None);
    }
    world.introduce_all();
    world.run_till("all links up", ms(5000), |world| {
        let is_up =
            |host: usize| (0..3).all(|peer| peer == host || state(world, host, peer) == LinkState::Up);
        (0..3).all(is_up)
    });
    world
}

fn state(world: &World, host: usize, peer: usize) -> LinkState {
    let status = world.hosts[host].engine.status(world.now);
    let found = status.networks[0].peers.iter().find(|status| status.node == node(peer));
    found.map_or(LinkState::Idle, |status| status.link_state)
}

fn rule(from: usize, to: usize, permit: Permit) -> Rule {
    let (from, to) = (Selector::of(vec![node(from)]), Selector::of(vec![node(to)]));
    Rule { number: 1, from, to, permits: vec![permit], not_before: None, until: None }
}

fn udp(port: u16) -> Permit {
    Permit::range(PermitKind::UDP, port, port)
}

/// Only the first host has a policy: the other end does not help.
fn set(world: &mut World, rules: Option<Vec<Rule>>) {
    world.patch(&[0], &Patch::PolicySet(NodePolicy { version: 1, rules }));
}

#[test]
fn members_between_which_nothing_is_allowed_have_nothing_to_do_with_each_other() {
    let mut world = three(1);
    set(&mut world, Some(vec![rule(0, 1, udp(7))]));
    world.run(ms(500));
    assert_eq!((state(&world, 0, 1), state(&world, 0, 2)), (LinkState::Up, LinkState::Denied));
    // It can't be sent to, and what it sends is a stranger's.
    world.send(0, &packet(0, 2, 7, 100));
    world.send(2, &packet(2, 0, 7, 100));
    world.run(ms(3000));
    assert!(world.hosts[0].received.is_empty() && world.hosts[2].received.is_empty());
    assert!(world.drops(0, DropReason::NoRoute) >= 1 && world.drops(0, DropReason::NoSuchSession) >= 1);
    // To the other one what is allowed passes, with its answers, and nothing else.
    for number in [7, 8] {
        world.send(0, &packet(0, 1, number, 100));
        world.send(1, &packet(1, 0, number, 100));
    }
    let mut answer = packet(1, 0, 0, 100);
    answer[20..24].copy_from_slice(&[0, 7, 0, 0]);
    world.send(1, &answer);
    world.run(ms(500));
    assert_eq!((world.hosts[1].received.len(), world.hosts[0].received.len()), (1, 1));
    assert_eq!((world.drops(0, DropReason::FilteredOut), world.drops(0, DropReason::FilteredIn)), (1, 2));
    // No policy any more: all is as before.
    set(&mut world, None);
    world.run_till("the link is back", ms(5000), |world| state(world, 0, 2) == LinkState::Up);
}

#[test]
fn what_is_allowed_for_a_time_ends_by_the_later_clock_and_begins_by_the_earlier() {
    let mut world = three(2);
    let tell = |world: &mut World, time: u64, latest: u64| {
        let (time, latest) = (UnixTime(time), UnixTime(latest));
        world.command(0, Command::SetTime { network: network(), time, latest });
    };
    tell(&mut world, 1000, 1000);
    let booked = Rule { not_before: Some(UnixTime(1010)), until: Some(UnixTime(1030)), ..rule(0, 1, udp(7)) };
    set(&mut world, Some(vec![booked]));
    let passes = |world: &mut World| {
        let before = world.hosts[1].received.len();
        world.send(0, &packet(0, 1, 7, 100));
        world.run(ms(2000));
        world.hosts[1].received.len() > before
    };
    assert!(!passes(&mut world));
    assert_eq!(state(&world, 0, 1), LinkState::Denied);
    world.run(Duration::from_secs(12));
    assert!(passes(&mut world));
    world.run(Duration::from_secs(20));
    assert!(!passes(&mut world), "and nobody had to say so");
    // After a restart without the coordinator the time is known to be between these two.
    tell(&mut world, 1005, 1020);
    assert!(!passes(&mut world), "it may not have begun");
    tell(&mut world, 1012, 1022);
    assert!(passes(&mut world));
    world.run(Duration::from_secs(8));
    assert!(!passes(&mut world), "it may have ended");
}
