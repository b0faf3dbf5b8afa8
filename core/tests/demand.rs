//! On-demand networks between engines with real sessions: first packets wait until their member is there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::net::IpAddr;

use common::{World, ms, network, node, overlay, packet};
use ria_core::{Command, DropReason, Event};
use ria_protocol::demand::PeerMode;
use ria_protocol::map::{NetworkInfo, Patch, Revision, Snapshot};

/// Hosts of which each knows itself alone.
fn strangers(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..hosts {
        world.host(None);
    }
    world.introduce_all();
    for host in 0..hosts {
        let info = NetworkInfo { peers: Some(PeerMode::OnDemand), ..World::info() };
        let members = vec![world.member(host)];
        let snapshot = Snapshot { revision: Revision(1), network: info, members, policy: None };
        world.command(host, Command::SetMap { network: network(), snapshot });
    }
    world.run(ms(500));
    world
}

fn wanted(world: &World, host: usize) -> Vec<IpAddr> {
    let events = world.hosts[host].events.iter();
    let wanted =
        events.filter_map(
            |(_, event)| {
                if let Event::PeerWanted { address, .. } = event { Some(*address) } else { None }
            },
        );
    wanted.collect()
}

#[test]
fn the_first_packets_bring_the_peer_and_arrive() {
    let mut world = strangers(1, 3);
    for number in 0..3 {
        world.send(0, &packet(0, 1, number, 100));
    }
    world.run(ms(50));
    assert_eq!(wanted(&world, 0), [IpAddr::from(overlay(1))], "asked once");
    // The coordinator tells both.
    for (host, peer) in [(0, 1), (1, 0)] {
        let member = world.member(peer);
        let patches = ria_protocol::map::PatchSet {
            from: Revision(1),
            to: Revision(1),
            patches: vec![Patch::MemberSet(member)],
        };
        world.command(host, Command::ApplyPatches { network: network(), patches });
    }
    world.run_till("the first packets", ms(3000), |world| world.hosts[1].received.len() == 3);
    assert!(world.hosts[0].engine.status(world.now).networks[0].peers[0].unused_for.is_some());
    let status = world.hosts[2].engine.status(world.now);
    assert!(status.networks[0].peers.is_empty(), "the third knows nobody");
    // It is taken away: what follows is asked for anew.
    let patches = ria_protocol::map::PatchSet {
        from: Revision(1),
        to: Revision(1),
        patches: vec![Patch::MemberRemoved(node(1))],
    };
    world.command(0, Command::ApplyPatches { network: network(), patches });
    world.send(0, &packet(0, 1, 9, 100));
    world.run(ms(50));
    assert_eq!(wanted(&world, 0).len(), 2);
}

#[test]
fn an_address_that_nobody_has_is_asked_for_again_after_a_while_only() {
    let mut world = strangers(2, 2);
    let address = IpAddr::from(overlay(1));
    world.send(0, &packet(0, 1, 1, 100));
    world.command(0, Command::SetAbsent { network: network(), address });
    for number in 0..20 {
        world.send(0, &packet(0, 1, number, 100));
        world.run(ms(100));
    }
    assert_eq!(wanted(&world, 0), [address]);
    assert_eq!(world.drops(0, DropReason::NoRoute), 21);
    world.run(ms(4000));
    world.send(0, &packet(0, 1, 1, 100));
    world.run(ms(50));
    assert_eq!(wanted(&world, 0), [address, address]);
    // Nobody asks who is not a member of anything, or for itself.
    world.send(0, &packet(0, 0, 1, 100));
    world.run(ms(50));
    assert_eq!(wanted(&world, 0).len(), 2);
}

#[test]
fn in_a_pushed_network_nobody_is_asked_for() {
    let mut world = World::new(3);
    world.host(None);
    world.host(None);
    world.introduce_all();
    world.run(ms(500));
    world.send(0, &packet(0, 7, 1, 100));
    world.run(ms(50));
    assert!(wanted(&world, 0).is_empty());
}
