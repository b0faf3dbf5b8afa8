//! ICE between two engines: what it finds, when it is silent, and what it takes from nobody.

mod common;

use common::nat::{Filtering, Mapping};
use common::{PORT, World, is_ice, ms, node, two_behind};
use ria_core::CandidateType::{Host, PeerReflexive, Relayed, ServerReflexive};
use ria_core::{CandidateType, Command, DropReason, PathKind};
use ria_protocol::id::BootId;
use ria_protocol::map::{Candidate, CandidateKind, Live};
use ria_protocol::message::LiveUpdate;

use Filtering::{AddressAndPortDependent as PortRestricted, AddressDependent as Restricted};
use Mapping::{AddressAndPortDependent as Symmetric, EndpointIndependent as Cone};

fn types(world: &World) -> [Option<(CandidateType, CandidateType)>; 2] {
    [world.peer(0, 1).candidates, world.peer(1, 0).candidates]
}

#[test]
fn both_ends_tell_the_same_of_the_path_and_why_it_is_used() {
    let mut world = World::new(1);
    let nat = world.nat(Symmetric, PortRestricted);
    world.host(Some(nat));
    world.host(Some(nat));
    world.introduce_all();
    world.run_till("direct", ms(1000), |w| w.both_on(PathKind::Direct));
    assert_eq!(types(&world), [Some((Host, Host)); 2]);
    assert!(world.peer(0, 1).path_reason.contains("addresses of their own"));

    let mut world = two_behind(2, Cone, PortRestricted);
    world.run_till("direct", ms(1000), |w| w.both_on(PathKind::Direct));
    assert_eq!(types(&world), [Some((ServerReflexive, ServerReflexive)); 2]);
    assert!(world.peer(1, 0).path_reason.contains("hole punched"));

    let mut world = World::new(3);
    let (symmetric, cone) = (world.nat(Symmetric, PortRestricted), world.nat(Cone, Restricted));
    world.host(Some(symmetric));
    world.host(Some(cone));
    world.introduce_all();
    world.run_till("direct", ms(2000), |w| w.both_on(PathKind::Direct));
    assert_eq!(
        types(&world),
        [Some((PeerReflexive, ServerReflexive)), Some((ServerReflexive, PeerReflexive))]
    );

    let mut world = two_behind(4, Symmetric, PortRestricted);
    world.run(ms(3000));
    assert!(world.both_on(PathKind::RelayUdp));
    assert_eq!(types(&world), [Some((Relayed, Relayed)); 2]);
}

#[test]
fn ice_is_silent_once_a_direct_path_is_in_use() {
    let mut world = two_behind(1, Cone, PortRestricted);
    world.run_till("direct", ms(1000), |w| w.both_on(PathKind::Direct));
    world.run(ms(5000));
    assert!((4..120).contains(&world.checks), "{}", world.checks);
    world.checks = 0;
    world.run(ms(600_000));
    assert_eq!(world.checks, 0);
    // Another network is another search.
    let nat = world.nat(Cone, PortRestricted);
    world.roam(0, nat);
    world.run_till("direct again", ms(3000), |w| w.both_on(PathKind::Direct));
    assert!(world.checks > 0);
}

#[test]
fn a_relayed_pair_is_searched_for_rarely() {
    let mut world = two_behind(1, Symmetric, PortRestricted);
    world.run(ms(10_000));
    world.checks = 0;
    world.run(ms(3_600_000));
    // Eleven searches in the first hour, at either end; each sends some checks to each of three addresses.
    assert!((20..11 * 2 * 60).contains(&world.checks), "{}", world.checks);
    assert!(world.both_on(PathKind::RelayUdp));
}

#[test]
fn a_peer_without_ice_is_found_by_probes_as_ever() {
    for without in [vec![0], vec![0, 1]] {
        let mut world = two_behind(1, Cone, PortRestricted);
        world.without_ice = without;
        world.run_till("direct", ms(1000), |w| w.both_on(PathKind::Direct));
    }
    let mut world = two_behind(1, Symmetric, PortRestricted);
    world.without_ice = vec![0, 1];
    world.run(ms(20_000));
    assert!(world.both_on(PathKind::RelayUdp));
    world.checks = 0;
    world.run(ms(1_800_000));
    assert_eq!(world.checks, 0, "who never answered a check gets no more of them");
}

#[test]
fn while_both_search_probes_go_where_checks_came_from() {
    let mut world = two_behind(1, Symmetric, PortRestricted);
    world.run(ms(4000));
    let pings = world.sent[&0xd1];
    // Each end has two addresses of the other that lead nowhere; a burst for each would be eight pings.
    assert!(pings < 2 * 2 * 8, "{pings}");
}

#[test]
fn forged_checks_get_silence_and_are_counted() {
    let mut world = two_behind(5, Cone, PortRestricted);
    world.record = true;
    world.run_till("direct", ms(1000), |w| w.both_on(PathKind::Direct));
    world.run(ms(2000));
    let target = world.public(1);
    let mut checks = world.recorded.clone();
    checks.retain(|(_, to, bytes)| *to == target && is_ice(bytes) && bytes[..2] == [0, 1]);
    assert!(!checks.is_empty());
    world.record = false;
    let before =
        (world.checks, world.drops(1, DropReason::Unauthentic), world.drops(1, DropReason::Stranger));
    for (from, _, bytes) in &checks {
        let mut forged = bytes.clone();
        let tag = forged.len() - 20;
        forged[tag] ^= 1;
        world.inject(1, *from, &forged);
        let mut foreign = bytes.clone();
        foreign[25] ^= 1;
        world.inject(1, *from, &foreign);
    }
    let count = checks.len() as u64;
    assert_eq!(world.checks, before.0, "a forged check was answered");
    assert_eq!(world.drops(1, DropReason::Unauthentic), before.1 + count);
    assert_eq!(world.drops(1, DropReason::Stranger), before.2 + count);
}

#[test]
fn replayed_checks_from_invented_addresses_bring_few_datagrams() {
    // The relay alone carries, so a check finds somebody who would like a direct path.
    let mut world = two_behind(5, Symmetric, PortRestricted);
    world.record = true;
    world.run(ms(10_000));
    let target = world.hosts[1].address;
    let mut checks = world.recorded.clone();
    // What one end sent to the other's own address got lost; somebody on the way may have seen it.
    checks.retain(|(_, to, bytes)| *to == target && is_ice(bytes) && bytes[..2] == [0, 1]);
    assert!(!checks.is_empty());
    world.recorded.clear();
    for number in 1..=200u8 {
        let invented = std::net::SocketAddr::from(([192, 0, 2, number], 9999));
        world.inject(1, invented, &checks[usize::from(number) % checks.len()].2);
        world.run(ms(20));
    }
    world.run(ms(10_000));
    let sent = world.recorded.iter().filter(|(_, to, _)| to.ip().to_string().starts_with("192.0.2."));
    let mut towards: std::collections::BTreeMap<_, usize> = std::collections::BTreeMap::new();
    for (_, to, bytes) in sent {
        *towards.entry(*to).or_default() += bytes.len();
    }
    assert!(towards.len() <= 12, "{} addresses got something", towards.len());
    assert!(towards.values().all(|bytes| *bytes < 3000), "{towards:?}");
}

#[test]
fn a_peer_that_lies_about_where_it_is_brings_few_checks() {
    let mut world = World::new(6);
    world.host(None);
    world.host(None);
    world.introduce_all();
    world.run_till("direct", ms(1000), |w| w.both_on(PathKind::Direct));
    world.cut = Some(Box::new(|_, _| true));
    world.run(ms(5000));
    world.record = true;
    let of = |ip: [u8; 4]| Candidate { kind: CandidateKind::Host, address: (ip, PORT).into() };
    for round in 0..250u8 {
        let never = [[127, 0, 0, 1], [224, 0, 0, 1], [10, 213, 0, 9], [0, 0, 0, 0], [255, 255, 255, 255]];
        let mut candidates: Vec<Candidate> = never.into_iter().map(of).collect();
        candidates.extend((0..40).map(|last| of([203, 0, 113, last])));
        candidates.push(of([192, 0, 2, round]));
        let boot = Some(BootId::from_bytes([2; 10]));
        let live = Live { node: node(1), online: true, boot, candidates };
        let update = LiveUpdate { whole: false, members: vec![live] };
        world.command(0, Command::ApplyLive { network: common::network(), update });
        world.run(ms(20));
    }
    for (_, to, _) in &world.recorded {
        let ip = to.ip();
        assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified(), "sent to {to}");
        assert!(!ip.to_string().starts_with("10.213."), "sent to {to}");
    }
    let checks = world.recorded.iter().filter(|(_, _, bytes)| is_ice(bytes)).count();
    assert!(checks <= 5 * 50 + 10, "{checks} checks in five seconds");
}

#[test]
fn dead_addresses_of_either_family_beside_the_one_that_works_delay_nobody() {
    for seed in 0..10 {
        let mut world = two_behind(seed, Cone, PortRestricted);
        for host in 0..2 {
            let number = u8::try_from(host).unwrap();
            let (v4, v6) = ([10, 9, 8, number], [0x2001, 0xdb8, 9, 8, 0, 0, 0, number.into()]);
            let mut addresses = vec![world.hosts[host].address];
            for dead in [std::net::IpAddr::from(v4), std::net::IpAddr::from(v6)] {
                world.dead.push(dead);
                addresses.push((dead, PORT).into());
            }
            world.command(host, Command::SetHostCandidates(addresses));
        }
        let took = world.run_till("direct", ms(1500), |w| w.both_on(PathKind::Direct));
        let gap = world.stream(ms(10), ms(3000));
        assert!(gap < ms(60), "seed {seed}: {took:?}, {gap:?}");
        // An interface that works goes; what is left leads nowhere, until it is back.
        let [alive, dead] = [world.hosts[0].address, (world.dead[0], PORT).into()];
        world.dead.push(alive.ip());
        world.command(0, Command::SetHostCandidates(vec![dead]));
        world.run(ms(1500));
        world.dead.pop();
        world.command(0, Command::SetHostCandidates(vec![dead, alive]));
        world.run_till("direct again", ms(3000), |w| w.both_on(PathKind::Direct));
    }
}
