//! Which addresses a node gives as its own, and which of its peers' it leaves alone.

mod common;

use std::net::SocketAddr;

use common::{World, ms};
use ria_core::{Command, PathKind};
use ria_protocol::map::CandidateKind;
use ria_protocol::prefix::Prefix;

fn two() -> World {
    let mut world = World::new(1);
    world.host(None);
    world.host(None);
    world
}

#[test]
fn an_address_that_the_router_opened_is_given_like_one_that_a_server_saw() {
    let mut world = two();
    world.introduce_all();
    let mapped: SocketAddr = "45.79.1.7:50000".parse().unwrap();
    let is_given = |world: &World| {
        let status = world.hosts[0].engine.status(world.now);
        let mut candidates = status.networks[0].candidates.iter();
        candidates.any(|own| own.kind == CandidateKind::ServerReflexive && own.address == mapped)
    };
    assert!(!is_given(&world));
    world.command(0, Command::SetMappedAddress(Some(mapped)));
    assert!(is_given(&world));
    world.command(0, Command::SetMappedAddress(None));
    assert!(!is_given(&world));
}

#[test]
fn no_path_leads_into_an_avoided_prefix_whatever_peers_report() {
    for avoid in [false, true] {
        let mut world = two();
        let addresses = [0, 1].map(|host| world.public(host).ip());
        for (host, other) in [(0, addresses[1]), (1, addresses[0])] {
            let avoided = if avoid { vec![Prefix::new(other, 32).unwrap()] } else { Vec::new() };
            world.command(host, Command::SetAvoided(avoided));
        }
        world.introduce_all();
        world.run(ms(3000));
        assert!(world.both_up(), "by the relay at least");
        assert_eq!([world.path(0, 1), world.path(1, 0)].contains(&PathKind::Direct), !avoid);
    }
}
