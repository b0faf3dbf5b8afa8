//! The relay against Ria's own client, in virtual time.

mod foreign;
mod malformed;
mod world;

use std::time::Duration;

use ria_core::relay::{RelayEvent, RelayFailure};

use super::*;
use crate::relay::DropReason;
use world::*;

const SECOND: Duration = Duration::from_secs(1);

/// Two robots of one network that are connected.
fn pair(seed: u64) -> World {
    let mut world = World::new(seed);
    world.robot(1, 1);
    world.robot(1, 2);
    world.run(SECOND);
    world.join(0, 1);
    world.run(SECOND);
    world
}

fn lost(world: &World, robot: usize) -> Vec<RelayFailure> {
    let events = world.robots[robot].events.iter();
    events
        .filter_map(|(_, event)| if let RelayEvent::Lost(reason) = event { Some(*reason) } else { None })
        .collect()
}

fn failed(world: &World, robot: usize) -> Vec<RelayFailure> {
    let events = world.robots[robot].events.iter();
    let reason =
        |event: &RelayEvent| if let RelayEvent::Failed { reason, .. } = event { Some(*reason) } else { None };
    events.filter_map(|(_, event)| reason(event)).collect()
}

#[test]
fn an_allocation_takes_two_round_trips_and_tells_the_reflexive_address() {
    let mut world = World::new(1);
    let robot = world.robot(1, 1);
    world.run(SECOND);
    let (at, event) = world.robots[robot].events[0];
    let RelayEvent::Allocated { relayed, mapped } = event else { panic!("{event:?}") };
    assert_eq!(at, Duration::from_millis(40));
    assert_eq!(relayed.ip(), "198.51.100.1".parse::<IpAddr>().unwrap());
    assert_eq!(mapped, Some(world.robots[robot].address));
    assert_eq!(world.counters().allocations, 1);
}

#[test]
fn two_allocations_of_one_network_are_joined() {
    let mut world = pair(2);
    let (a, b) = (world.relayed(0), world.relayed(1));
    assert!(world.say(0, b, b"to b") && world.say(1, a, b"to a"));
    world.run(SECOND);
    assert_eq!(world.robots[1].received, [(a, b"to b".to_vec())]);
    assert_eq!(world.robots[0].received, [(b, b"to a".to_vec())]);
    let counters = world.counters();
    assert_eq!((counters.relayed_packets, counters.relayed_bytes), (2, 8));
    assert!(counters.drops.iter().all(|(_, count)| *count == 0), "{counters:?}");
}

#[test]
fn payload_gets_through_before_the_receiver_has_a_channel() {
    let mut world = World::new(3);
    for node in 1..=3 {
        world.robot(1, node);
    }
    world.run(SECOND);
    world.join(0, 1);
    world.run(SECOND);
    // The third robot wants the first, which has admitted the relay's address but knows nothing of the third.
    let (a, c) = (world.relayed(0), world.relayed(2));
    let now = world.now;
    world.robots[2].client.connect_peer(a, now).unwrap();
    assert_eq!(world.robots[2].client.wrap(a, 5, now), None, "not bound yet");
    assert!(world.robots[2].client.send_to(a, b"early", now));
    world.run(SECOND);
    assert_eq!(world.robots[0].received, [(c, b"early".to_vec())]);
    assert!(world.say(2, a, b"later"), "bound by now");
    world.run(SECOND);
    assert_eq!(world.robots[0].received[1], (c, b"later".to_vec()));
}

#[test]
fn three_percent_loss_delays_but_never_prevents() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        world.loss_percent = 3;
        world.robot(1, 1);
        world.robot(1, 2);
        world.run(8 * SECOND);
        world.join(0, 1);
        world.run(8 * SECOND);
        let (a, b) = (world.relayed(0), world.relayed(1));
        for round in 0..100u32 {
            assert!(
                world.say(0, b, &round.to_be_bytes()) && world.say(1, a, &round.to_be_bytes()),
                "seed {seed}"
            );
        }
        world.run(SECOND);
        let got = (world.robots[0].received.len(), world.robots[1].received.len());
        assert!(got.0 > 80 && got.1 > 80, "seed {seed}: {got:?}");
    }
}

#[test]
fn three_hours_pass_without_a_gap() {
    let mut world = pair(5);
    let (a, b) = (world.relayed(0), world.relayed(1));
    for round in 0..1080u32 {
        assert!(world.say(0, b, &round.to_be_bytes()), "round {round}");
        assert!(world.say(1, a, &round.to_be_bytes()), "round {round}");
        world.run(10 * SECOND);
    }
    assert_eq!((world.robots[0].received.len(), world.robots[1].received.len()), (1080, 1080));
    assert_eq!((world.relayed(0), world.relayed(1)), (a, b));
    assert!(lost(&world, 0).is_empty());
}

#[test]
fn a_restarted_server_is_noticed_within_seconds_of_use() {
    for seed in 0..20 {
        let mut world = pair(seed);
        let old = world.relayed(1);
        world.restart_server();
        for _ in 0..25 {
            if let Some(to) = world.robots[0].client.channel(old).map(|_| old) {
                world.say(0, to, b"anybody there?");
            }
            world.run(Duration::from_millis(100));
        }
        assert_eq!(lost(&world, 0), [RelayFailure::Mismatch], "seed {seed}");
        assert!(world.robots[0].client.relayed_address().is_some(), "seed {seed}: has a new one already");
        // The other one is idle and finds out with its next refresh.
        world.run(ria_core::relay::KEEPALIVE);
        world.join(0, 1);
        world.run(SECOND);
        let b = world.relayed(1);
        assert_eq!(b, old, "others need not be told of another address");
        assert!(world.say(0, b, b"again"));
        world.run(SECOND);
        assert_eq!(
            world.robots[1].received.last().map(|(_, payload)| payload.as_slice()),
            Some(&b"again"[..])
        );
    }
}

#[test]
fn an_absent_server_is_asked_again_with_growing_pauses() {
    let mut world = World::new(6);
    world.up = false;
    let robot = world.robot(1, 1);
    world.run(600 * SECOND);
    let failures = failed(&world, robot);
    assert!(failures.len() > 10 && failures.iter().all(|reason| *reason == RelayFailure::NoAnswer));
    // A network that comes back within minutes is to be noticed at once; later there is no such hurry.
    let at_first = world.to_server;
    assert!(at_first < 900, "{at_first} datagrams in the first ten minutes");
    world.run(300 * SECOND);
    let settled = world.to_server;
    world.run(600 * SECOND);
    let later = world.to_server - settled;
    assert!(later < 200, "{later} datagrams in ten later minutes");
    world.up = true;
    world.run(40 * SECOND);
    assert!(world.robots[robot].client.relayed_address().is_some());
}

#[test]
fn wrong_and_expired_credentials_are_refused_and_not_hammered() {
    let mut world = World::new(7);
    let mut wrong = credentials(1, 1, START);
    wrong.password.push('x');
    let wrong = world.robot_at("10.0.0.1:41820".parse().unwrap(), wrong);
    let expired = credentials(1, 2, UnixTime(START.0 - 49 * 3600));
    let expired = world.robot_at("10.0.0.2:41820".parse().unwrap(), expired);
    world.run(120 * SECOND);
    for robot in [wrong, expired] {
        let failures = failed(&world, robot);
        assert!(!failures.is_empty() && failures.iter().all(|reason| *reason == RelayFailure::Unauthorized));
    }
    assert!(world.to_server < 60, "{} requests in two minutes", world.to_server);
    assert_eq!(world.counters().allocations, 0);
    // Good ones help at once, whatever the pause.
    let (now, renewed) = (world.now, credentials(1, 1, START));
    world.robots[wrong].client.set_credentials(renewed, now);
    world.run(SECOND);
    assert!(world.robots[wrong].client.relayed_address().is_some());
}

#[test]
fn credentials_are_renewed_under_a_running_allocation() {
    let mut world = pair(8);
    let (a, b) = (world.relayed(0), world.relayed(1));
    for day in 0..3 {
        world.run(24 * 3600 * SECOND);
        let (now, unix) = (world.now, world.clock().unix);
        for robot in 0..2 {
            world.robots[robot].client.set_credentials(credentials(1, robot as u8 + 1, unix), now);
        }
        world.run(SECOND);
        assert!(world.say(0, b, b"day") && world.say(1, a, b"day"), "day {day}");
        world.run(SECOND);
    }
    assert_eq!(
        (world.relayed(0), world.relayed(1)),
        (a, b),
        "the same for three days, with 48 h credentials"
    );
    assert_eq!((world.robots[0].received.len(), world.robots[1].received.len()), (3, 3));
}

#[test]
fn credentials_that_are_not_renewed_end() {
    let mut world = pair(9);
    world.run(49 * 3600 * SECOND);
    assert_eq!(world.robots[0].client.relayed_address(), None);
    assert_eq!(world.counters().allocations, 0);
}

#[test]
fn a_revoked_node_is_cut_off_at_once_and_stays_out() {
    let mut world = pair(10);
    let (a, b) = (world.relayed(0), world.relayed(1));
    let until = world.clock().unix.plus(crate::relay::DEFAULT_CREDENTIALS);
    world.server.revoke(node(1), until);
    assert_eq!(world.counters().allocations, 1);
    assert!(world.say(0, b, b"still here") && world.say(1, a, b"hello?"));
    world.run(120 * SECOND);
    assert!(world.robots[0].received.is_empty() && world.robots[1].received.is_empty());
    assert_eq!(world.robots[0].client.relayed_address(), None);
    assert!(failed(&world, 0).iter().all(|reason| *reason == RelayFailure::Unauthorized));
    assert_eq!(world.relayed(1), b, "the other one is not touched");
    let drops = world.counters();
    assert_eq!((drops.dropped(DropReason::NoAllocation), drops.dropped(DropReason::PeerGone)), (1, 1));
    // Taken back: it finds its way in by itself, with the credentials that it has.
    world.server.readmit(node(1));
    world.run(60 * SECOND);
    assert!(world.robots[0].client.relayed_address().is_some());
}

#[test]
fn terms_that_change_end_what_they_do_not_allow_and_nothing_else() {
    let mut world = pair(11);
    let terms = config().terms;
    let networks = |numbers: &[u8]| {
        Some(numbers.iter().map(|n| ria_protocol::id::NetworkId::from_bytes([*n; 10])).collect())
    };
    world.server.set_terms(Terms { networks: networks(&[1, 2]), ..terms.clone() });
    assert_eq!(world.counters().allocations, 2, "theirs is still served");
    world.server.set_terms(Terms { networks: networks(&[2]), ..terms.clone() });
    assert_eq!(world.counters().allocations, 0);
    world.run(120 * SECOND);
    assert_eq!(world.robots[0].client.relayed_address(), None, "it is not let in again");
    assert!(failed(&world, 0).iter().all(|reason| *reason == RelayFailure::Unauthorized));
    world.server.set_terms(terms.clone());
    world.run(60 * SECOND);
    assert_eq!(world.counters().allocations, 2);
    world.server.set_terms(Terms::new([99; 32]));
    assert_eq!(world.counters().allocations, 0, "credentials of another key");
}

#[test]
fn networks_are_not_joined() {
    let mut world = World::new(11);
    world.robot(1, 1);
    world.robot(2, 2);
    world.run(SECOND);
    world.join(0, 1);
    world.run(SECOND);
    let b = world.relayed(1);
    assert!(world.say(0, b, b"psst"), "whether there is somebody is not told");
    let now = world.now;
    assert!(world.robots[0].client.send_to(b, b"psst", now));
    world.run(SECOND);
    assert!(world.robots[1].received.is_empty());
    assert_eq!(world.counters().dropped(DropReason::ForeignNetwork), 2);
}

#[test]
fn addresses_outside_of_the_relay_are_refused() {
    let mut world = World::new(12);
    let robot = world.robot(1, 1);
    world.run(SECOND);
    for outside in ["192.168.0.1:22", "127.0.0.1:80", "169.254.169.254:80", "10.0.0.1:41820"] {
        let (now, peer) = (world.now, outside.parse().unwrap());
        world.robots[robot].client.connect_peer(peer, now).unwrap();
        world.run(SECOND);
        let refused = RelayEvent::ChannelFailed { peer, reason: RelayFailure::Forbidden };
        assert!(world.robots[robot].events.iter().any(|(_, event)| *event == refused), "{outside}");
        world.robots[robot].client.disconnect_peer(peer);
    }
}

#[test]
fn a_restarted_agent_takes_over_its_own_allocation() {
    let mut world = pair(13);
    let (a, b, address) = (world.relayed(0), world.relayed(1), world.robots[0].address);
    let renewed = credentials(1, 1, world.clock().unix.plus(SECOND));
    world.robots[0].client = world.client(address, renewed);
    world.robots[0].events.clear();
    let began = world.now - world.start;
    world.run(SECOND);
    assert_eq!(world.robots[0].events[0].0 - began, Duration::from_millis(40), "at once");
    assert_eq!(world.relayed(0), a, "others need not learn a new address");
    assert_eq!(world.counters().allocations, 1 + 1);
    let now = world.now;
    world.robots[0].client.connect_peer(b, now).unwrap();
    world.run(SECOND);
    assert!(world.say(0, b, b"back") && world.say(1, a, b"fine"));
    world.run(SECOND);
    assert_eq!((world.robots[0].received.len(), world.robots[1].received.len()), (1, 1));
}

#[test]
fn an_address_belongs_to_who_gets_answers_there_now() {
    // A robot joined anew as another node and kept its port, or a NAT gave the port to somebody else.
    let mut world = World::new(14);
    let first = world.robot(1, 1);
    world.run(SECOND);
    let (address, former) = (world.robots[first].address, world.relayed(first));
    world.robots[first].client = world.client(address, credentials(1, 9, START));
    world.run(SECOND);
    assert!(failed(&world, first).is_empty(), "it waits for nothing to lapse");
    assert_ne!(world.relayed(first), former, "others may still send to the former node there");
    assert_eq!(world.counters().allocations, 1);
}

#[test]
fn a_robot_that_roams_is_not_locked_out_by_what_it_left_behind() {
    let mut world = World::new(15);
    let most = config().terms.allocations_per_node;
    for port in 0..most as u16 + 4 {
        let address = SocketAddr::from(([10, 0, 0, 1], 1000 + port));
        let robot = world.robot_at(address, credentials(1, 1, START));
        world.run(SECOND);
        assert!(world.robots[robot].client.relayed_address().is_some());
        world.robots.clear();
    }
    assert_eq!(world.counters().allocations, most as u64);
    world.run(700 * SECOND);
    assert_eq!(world.counters().allocations, 0, "forgotten after ten minutes");
    assert_eq!(world.server.poll_timeout(), None, "nothing left to look after");
}

#[test]
fn a_full_relay_says_so() {
    let limits = Limits { allocations: 1, ..Limits::default() };
    let mut world = World::with_config(16, ServerConfig { limits, ..config() });
    world.robot(1, 1);
    world.run(SECOND);
    let second = world.robot(1, 2);
    world.run(SECOND);
    assert_eq!(failed(&world, second)[0], RelayFailure::NoCapacity);
}

#[test]
fn ipv4_and_ipv6_clients_are_joined() {
    let mut world = World::new(17);
    world.robot(1, 1);
    world.robot_at("[2001:db8::2]:41820".parse().unwrap(), credentials(1, 2, START));
    world.run(SECOND);
    let (a, b) = (world.relayed(0), world.relayed(1));
    assert!(a.is_ipv4() && b.is_ipv6());
    world.join(0, 1);
    world.run(SECOND);
    assert!(world.say(0, b, b"four to six") && world.say(1, a, b"six to four"));
    world.run(SECOND);
    assert_eq!(world.robots[1].received, [(a, b"four to six".to_vec())]);
    assert_eq!(world.robots[0].received, [(b, b"six to four".to_vec())]);
}

#[test]
fn the_operators_address_is_shown_to_all() {
    let external = vec!["203.0.113.9".parse().unwrap()];
    let mut world = World::with_config(18, ServerConfig { external, ..config() });
    world.robot(1, 1);
    world.robot(1, 2);
    world.run(SECOND);
    assert_eq!(world.relayed(0).ip(), "203.0.113.9".parse::<IpAddr>().unwrap());
    world.join(0, 1);
    world.run(SECOND);
    let b = world.relayed(1);
    assert!(world.say(0, b, b"hello"));
    world.run(SECOND);
    assert_eq!(world.robots[1].received.len(), 1);
}

#[test]
fn a_moved_robot_gets_a_new_allocation_and_its_old_channels_end() {
    let mut world = pair(19);
    let b = world.relayed(1);
    // Its NAT gave it another port: the relay does not know it under that address.
    world.robots[0].address.set_port(50_000);
    assert!(world.say(0, b, b"who am I?"));
    world.run(4 * SECOND);
    assert_eq!(lost(&world, 0), [RelayFailure::Mismatch]);
    assert_eq!(world.robots[0].client.mapped_address(), Some(world.robots[0].address));
}
