//! Whatever arrives, nothing panics, nothing gets in, and the link stays up.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::fake::Fake;
use common::nat::{Filtering, Mapping};
use common::{World, ms, packet, two_behind};
use ria_core::{DropReason, Engine, EngineConfig};

#[test]
fn mutated_and_random_datagrams_harm_nobody() {
    let mut world = two_behind(7, Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    world.record = true;
    world.run_till("up", ms(500), World::both_up);
    world.stream(ms(10), ms(2000));
    let target = world.public(1);
    let corpus: Vec<_> = world
        .recorded
        .iter()
        .filter(|(_, to, _)| *to == target)
        .map(|(from, _, bytes)| (*from, bytes.clone()))
        .collect();
    world.record = false;
    assert!([1, 2, 4, 0xd1].iter().any(|kind| corpus.iter().any(|(_, bytes)| bytes[0] == *kind)));
    let received = world.hosts[1].received.len();
    for round in 0..20_000u64 {
        let pick = usize::try_from(world.random(corpus.len() as u64)).unwrap();
        let (from, mut bytes) = corpus[pick].clone();
        match round % 4 {
            0 => {
                let len = usize::try_from(world.random(160)).unwrap();
                bytes = (0..len).map(|_| u8::try_from(world.random(256)).unwrap()).collect();
            }
            1 => bytes.truncate(usize::try_from(world.random(bytes.len() as u64)).unwrap()),
            2 => {
                let at = usize::try_from(world.random(bytes.len() as u64)).unwrap();
                bytes[at] ^= u8::try_from(world.random(255) + 1).unwrap();
            }
            _ => bytes.extend([0; 7]),
        }
        world.inject(1, from, &bytes);
    }
    assert_eq!(world.hosts[1].received.len(), received, "something forged got in");
    let gap = world.stream(ms(10), ms(3000));
    assert!(gap < ms(500) && world.both_up(), "{gap:?}");
}

#[test]
fn a_peer_whose_clock_went_back_to_1970_is_not_locked_out() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.host(None);
        world.host(None);
        let clocks = [1_800_000_000u64, 1_800_000_000].map(|at| Arc::new(AtomicU64::new(at)));
        let with_clock = |world: &mut World, host: usize, clock: &Arc<AtomicU64>, seed: u8| {
            let engine =
                Engine::with_sessions(EngineConfig { seed: [seed; 32] }, Box::new(Fake(Arc::clone(clock))));
            world.replace(host, engine);
        };
        with_clock(&mut world, 0, &clocks[0], 1);
        with_clock(&mut world, 1, &clocks[1], 2);
        world.introduce_all();
        for host in 0..2 {
            world.pass_on(host);
        }
        world.run_till("up", ms(1000), World::both_up);
        world.stream(ms(10), ms(500 + seed * 13));
        // Either end may be the one that leads handshakes, so each has its turn.
        let victim = usize::try_from(seed % 2).unwrap();
        clocks[victim].store(100, Ordering::Relaxed);
        with_clock(&mut world, victim, &clocks[victim], 3);
        world.rejoin(victim);
        let gap = world.stream(ms(10), ms(3000));
        assert!(gap < ms(1000), "seed {seed}: {gap:?}");
    }
}

#[test]
fn a_replayed_probe_of_an_earlier_run_resets_nothing() {
    let mut world = World::new(1);
    world.host(None);
    world.host(None);
    world.introduce_all();
    world.record = true;
    world.run_till("up", ms(1000), World::both_up);
    world.stream(ms(10), ms(2000));
    let to = world.hosts[0].address;
    let from = world.hosts[1].address;
    let old: Vec<_> = world
        .recorded
        .iter()
        .filter(|(_, target, bytes)| *target == to && bytes[0] == 0xd1)
        .cloned()
        .collect();
    assert!(old.len() > 2);
    world.restart(1);
    world.run_till("up again", ms(2000), World::both_up);
    world.run(ms(1000));
    let age = world.peer(0, 1).handshake_age;
    let handshakes = world.sent.get(&1).copied();
    for (_, _, bytes) in &old {
        world.inject(0, from, bytes);
        world.run(ms(10));
    }
    assert!(world.drops(0, DropReason::Replayed) + world.drops(0, DropReason::Unexpected) > 0);
    assert!(world.peer(0, 1).handshake_age >= age && world.both_up());
    assert_eq!(world.sent.get(&1).copied(), handshakes, "a replay brought a new handshake about");
    world.send(0, &packet(0, 1, 3, 100));
    world.run(ms(50));
    assert_eq!(world.hosts[1].received.last().unwrap().1, packet(0, 1, 3, 100));
}

/// One random misfortune.
fn disturb(world: &mut World) {
    let host = usize::from(world.random(2) == 1);
    let relay = world.turn.address;
    match world.random(8) {
        0 => world.cut = Some(Box::new(move |from, to| from != relay && to != relay)),
        1 => world.cut = Some(Box::new(move |from, to| from == relay || to == relay)),
        2 => world.cut = Some(Box::new(|_, _| true)),
        3 => world.loss = world.random(300),
        4 => world.restart(host),
        5 => world.turn.restart(),
        6 => {
            let mapping = [Mapping::EndpointIndependent, Mapping::AddressAndPortDependent];
            let mapping = mapping[usize::from(world.random(2) == 1)];
            let nat = world.nat(mapping, Filtering::AddressAndPortDependent);
            world.roam(host, nat);
        }
        _ => world.latency = ms(1 + world.random(150)),
    }
}

#[test]
fn after_any_misfortunes_the_link_comes_back() {
    // The last ones: a late copy of what ended an allocation ended the next one, too.
    for seed in (0..60).chain([2138, 4353]) {
        let mut world = two_behind(seed, Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
        world.jitter = ms(seed % 20);
        for _ in 0..15 {
            disturb(&mut world);
            let duration = ms(world.random(8000));
            world.stream(ms(50), duration);
            if world.random(2) == 0 {
                world.cut = None;
            }
        }
        world.cut = None;
        (world.loss, world.latency) = (0, ms(10));
        // A relay that failed for long is asked again within half a minute.
        world.stream(ms(50), ms(32_000));
        let received = world.hosts[1].received.len();
        let gap = world.stream(ms(50), ms(2000));
        let state = [world.peer(0, 1), world.peer(1, 0)].map(|peer| (peer.link_state, peer.path));
        assert!(world.both_up() && gap < ms(300), "seed {seed}: {gap:?}, {state:?}");
        assert!(world.hosts[1].received.len() - received >= 38, "seed {seed}");
    }
}
