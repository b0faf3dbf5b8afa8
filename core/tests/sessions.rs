//! Sessions between two engines: how they begin, survive restarts, and refuse what is not right.

mod common;

use std::time::Duration;

use common::nat::{Filtering, Mapping};
use common::{World, ms, network, node, overlay, packet, two_behind};
use ria_core::filter::{Filter, Verdict};
use ria_core::ip::IpPacket;
use ria_core::{Command, DropReason, Event, LinkState, PathKind, PingOutcome, PrivateKey};
use ria_protocol::id::NodeId;
use ria_protocol::map::{Patch, PatchSet};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Two hosts on the public network.
fn two(seed: u64) -> World {
    let mut world = World::new(seed);
    world.host(None);
    world.host(None);
    world.introduce_all();
    world
}

#[test]
fn simultaneous_starts_leave_no_hole() {
    for seed in 0..100 {
        let mut world = two(seed);
        world.jitter = ms(seed % 40);
        world.loss = if seed % 3 == 0 { 100 } else { 0 };
        world.signalling = Duration::from_micros(world.random(30_000));
        // Both have something to say from the first moment on.
        for number in 0..250 {
            world.send(0, &packet(0, 1, number, 100));
            world.send(1, &packet(1, 0, number, 100));
            world.run(ms(20));
        }
        let limit = if world.loss > 0 { ms(2000) } else { ms(500) };
        for host in 0..2 {
            let mut before = world.start;
            for (at, _) in &world.hosts[host].received {
                assert!(
                    *at - before < limit,
                    "seed {seed}: {:?} without traffic at host {host}",
                    *at - before
                );
                before = *at;
            }
            assert!(world.now - before < limit, "seed {seed}: host {host} went silent");
        }
    }
}

#[test]
fn first_packets_wait_for_the_link() {
    let mut world = two(1);
    world.send(0, &packet(0, 1, 1, 100));
    world.run(ms(500));
    let received: Vec<_> = world.hosts[1].received.iter().map(|(_, packet)| packet.clone()).collect();
    assert_eq!(received, [packet(0, 1, 1, 100)]);
}

#[test]
fn a_rekey_loses_nothing() {
    let mut world = two(1);
    world.run_till("up", ms(500), World::both_up);
    let mut sent = 0;
    while world.now < world.start + Duration::from_secs(400) {
        world.send(0, &packet(0, 1, sent, 100));
        sent += 1;
        world.run(ms(100));
    }
    assert_eq!(world.hosts[1].received.len(), sent as usize);
    let initiations = world.sent.get(&1).copied().unwrap_or(0);
    assert_eq!(initiations, 4, "one at the start and one every 110 s, from one end only");
}

#[test]
fn a_restarted_peer_is_back_at_once() {
    for seed in 0..20 {
        let mut world = two(seed);
        world.run_till("up", ms(1000), World::both_up);
        world.run(ms(1000 + seed * 61));
        world.restart(1);
        let gap = world.stream(ms(10), ms(3000));
        assert!(gap < ms(1000), "seed {seed}: {gap:?}");
        assert!(world.both_up());
    }
}

#[test]
fn a_peer_that_restarts_again_and_again_makes_no_bad_link() {
    let mut world = two(3);
    world.run_till("up", ms(1000), World::both_up);
    for round in 0..8 {
        // It is away until its pings are missed, and back before the path is given up.
        world.suspend(1);
        world.stream(ms(50), ms(350));
        world.resume(1);
        world.restart(1);
        world.stream(ms(50), ms(1500));
        let peer = world.peer(0, 1);
        assert!(
            peer.link_state == LinkState::Up && peer.loss.is_none_or(|loss| loss < 0.05),
            "round {round}: {peer:?}"
        );
    }
}

/// Its clock is far behind, so the other one refuses its handshakes until it knows that this is another run.
#[test]
fn a_peer_that_restarts_right_after_a_ping_with_an_older_clock_is_back_soon() {
    for pause in [1, 5, 20, 40, 49, 51, 80, 150, 400] {
        let mut world = two(pause);
        (world.latency, world.jitter) = (ms(1), ms(1));
        let relay = world.turn.address;
        world.cut = Some(Box::new(move |from, to| from == relay || to == relay));
        world.run_till("up", ms(1000), World::both_up);
        world.run(ms(3000));
        // The other one starts anew as well and finds the run that is about to end.
        world.restart(0);
        world.run_till("up", ms(1000), World::both_up);
        world.run(ms(pause));
        world.refused = Some((world.hosts[1].address, 1));
        world.restart(1);
        world.run_till("up again", ms(1500), World::both_up);
    }
}

/// A laptop that was closed: for it no time has passed, and the others have given its session up.
#[test]
fn a_suspended_peer_is_back_though_its_clock_stood_still() {
    for (seed, seconds) in [(1, 3), (2, 30), (3, 170), (4, 250), (5, 3600)] {
        for sender in [0, 1] {
            let mut world = two(seed);
            world.run_till("up", ms(1000), World::both_up);
            world.run(ms(1700));
            world.suspend(1);
            world.run(Duration::from_secs(seconds));
            assert!(seconds < 60 || !world.is_up(0, 1), "{seconds} s");
            world.resume(1);
            // As an agent does that notices; otherwise its own timers would bring it back within half a minute.
            let address = world.hosts[1].address;
            world.command(1, Command::SetHostCandidates(vec![address]));
            world.flush(1);
            let (before, began) = (world.hosts[1 - sender].received.len(), world.now);
            while world.hosts[1 - sender].received.len() == before {
                assert!(world.now - began < ms(2000), "after {seconds} s, from {sender}");
                world.send(sender, &packet(sender, 1 - sender, 9, 100));
                world.run(ms(20));
            }
            let gap = world.stream(ms(10), ms(2000));
            assert!(gap < ms(200), "after {seconds} s: {gap:?}");
            assert!(world.both_up());
        }
    }
}

#[test]
fn peers_come_and_go_by_patches_while_traffic_flows() {
    let mut world = two(1);
    let third = world.host(None);
    world.run_till("up", ms(1000), World::both_up);
    world.stream(ms(10), ms(200));
    let member = world.member(third);
    world.patch(&[0, 1], &Patch::MemberSet(member));
    world.introduce_all();
    for host in 0..3 {
        world.pass_on(host);
    }
    let gap = world.stream(ms(10), ms(1000));
    assert!(gap < ms(50), "{gap:?}");
    assert!(world.is_up(0, third) && world.is_up(third, 1));
    world.send(third, &packet(third, 0, 5, 60));
    world.run(ms(50));
    assert_eq!(world.hosts[0].received.last().unwrap().1, packet(third, 0, 5, 60));

    world.patch(&[0, 1], &Patch::MemberRemoved(node(third)));
    world.send(third, &packet(third, 0, 6, 60));
    world.send(0, &packet(0, third, 7, 60));
    let gap = world.stream(ms(10), ms(500));
    assert!(gap < ms(50), "{gap:?}");
    assert_eq!(
        world.hosts[0].received.last().unwrap().1,
        packet(third, 0, 5, 60),
        "a removed peer was heard"
    );
    assert!(world.drops(0, DropReason::NoRoute) > 0);
    assert!(world.drops(0, DropReason::NoSuchSession) > 0);
    let removed = Event::PeerRemoved { network: network(), peer: node(third) };
    assert!(world.hosts[0].events.iter().any(|(_, event)| *event == removed));
}

#[test]
fn a_source_that_is_not_the_peers_is_dropped_and_counted() {
    let mut world = two(1);
    world.run_till("up", ms(1000), World::both_up);
    let mut forged = packet(0, 1, 1, 100);
    forged[12..16].copy_from_slice(&[10, 213, 0, 77]);
    world.send(0, &forged);
    world.send(0, &packet(0, 1, 2, 100));
    world.run(ms(100));
    let received: Vec<_> = world.hosts[1].received.iter().map(|(_, packet)| packet.clone()).collect();
    assert_eq!(received, [packet(0, 1, 2, 100)]);
    assert_eq!(world.drops(1, DropReason::WrongSource), 1);
}

#[test]
fn replayed_data_and_probes_are_dropped_and_counted() {
    let mut world = two(1);
    world.run_till("up", ms(1000), World::both_up);
    world.record = true;
    world.send(0, &packet(0, 1, 1, 100));
    world.run(ms(6000));
    let from = world.hosts[0].address;
    let to = world.hosts[1].address;
    let datagrams: Vec<_> = world
        .recorded
        .iter()
        .filter(|(source, target, bytes)| (*source, *target) == (from, to) && !common::is_ice(bytes))
        .cloned()
        .collect();
    let data = datagrams.iter().filter(|(_, _, bytes)| bytes[0] == 4).count() as u64;
    assert!(data > 0 && datagrams.iter().any(|(_, _, bytes)| bytes[0] == 0xd1));
    let before = world.drops(1, DropReason::Replayed);
    for (_, _, bytes) in &datagrams {
        world.inject(1, from, bytes);
    }
    assert_eq!(world.drops(1, DropReason::Replayed) - before, datagrams.len() as u64);
    assert_eq!(world.hosts[1].received.len(), 1);
}

#[test]
fn no_path_runs_through_the_tunnel_itself() {
    let mut world = two(1);
    world.record = true;
    world.run_till("up", ms(1000), World::both_up);
    let (from, to) = (world.hosts[0].address, world.hosts[1].address);
    let probe = world
        .recorded
        .iter()
        .find(|(source, target, bytes)| (*source, *target) == (from, to) && bytes.first() == Some(&0xd1));
    let (_, _, probe) = probe.expect("they probe each other").clone();
    let before = world.drops(1, DropReason::Unexpected);
    world.inject(1, (overlay(0), 41820).into(), &probe);
    assert_eq!(world.drops(1, DropReason::Unexpected) - before, 1);
    assert_eq!(world.peer(1, 0).endpoint, Some(from));
}

#[test]
fn a_stranger_gets_silence() {
    let mut world = two(1);
    let stranger = world.host(None);
    let members: Vec<_> = [0, 1, stranger].iter().map(|host| world.member(*host)).collect();
    // The stranger knows the others; they don't know it.
    let snapshot = ria_protocol::map::Snapshot {
        revision: ria_protocol::map::Revision(9),
        network: World::info(),
        members,
        policy: None,
    };
    world.command(stranger, ria_core::Command::SetMap { network: network(), snapshot });
    for host in 0..2 {
        world.pass_on(host);
    }
    world.record = true;
    world.run(ms(5000));
    let address = world.hosts[stranger].address;
    assert!(world.recorded.iter().any(|(from, ..)| *from == address));
    assert!(!world.recorded.iter().any(|(_, to, _)| *to == address), "a stranger was answered");
    assert!(world.drops(0, DropReason::Stranger) > 0);
    assert_eq!(world.peer(stranger, 0).link_state, LinkState::Connecting);
}

#[test]
fn a_handshake_of_an_unknown_key_gets_silence() {
    use ria_core::session::{HANDSHAKE_ROOM, SessionFactory, wireguard::WireGuard};
    let mut world = two(1);
    let own = WireGuard.network(&[77; 32]);
    let mut out = [0; HANDSHAKE_ROOM];
    let mut session = own.session(&world.hosts[0].public_key(), None, 5);
    let len = session.initiate(&mut out).unwrap();
    world.record = true;
    let from = "198.51.100.200:9".parse().unwrap();
    world.inject(0, from, &out[..len]);
    world.run(ms(500));
    assert_eq!(world.drops(0, DropReason::Stranger), 1);
    assert!(!world.recorded.iter().any(|(_, to, _)| *to == from));
    // One for another key than ours can't even be read.
    let other = ria_protocol::keys::WgPublicKey(PublicKey::from(&StaticSecret::from([9; 32])).to_bytes());
    let len = own.session(&other, None, 5).initiate(&mut out).unwrap();
    world.inject(0, from, &out[..len]);
    assert_eq!(world.drops(0, DropReason::Stranger), 2);
}

struct Only(NodeId);

impl Filter for Only {
    fn outbound(&mut self, packet: &IpPacket<'_>, peer: NodeId) -> Verdict {
        if peer == self.0 && packet.protocol == 17 { Verdict::Allow } else { Verdict::Deny }
    }

    fn inbound(&mut self, packet: &IpPacket<'_>, _peer: NodeId) -> Verdict {
        if packet.bytes.len() < 500 { Verdict::Allow } else { Verdict::Deny }
    }
}

#[test]
fn the_filter_has_the_last_word_in_both_directions() {
    let mut world = two(1);
    world.run_till("up", ms(1000), World::both_up);
    world.hosts[0].engine.set_filter(network(), || Box::new(Only(node(1)))).unwrap();
    world.flush(0);
    let mut icmp = packet(0, 1, 1, 100);
    icmp[9] = 1;
    world.send(0, &icmp);
    world.send(0, &packet(0, 1, 2, 100));
    world.send(1, &packet(1, 0, 3, 600));
    world.send(1, &packet(1, 0, 4, 100));
    world.run(ms(100));
    assert_eq!((world.hosts[0].received.len(), world.hosts[1].received.len()), (1, 1));
    assert_eq!(world.drops(0, DropReason::FilteredOut), 1);
    assert_eq!(world.drops(0, DropReason::FilteredIn), 1);
}

#[test]
fn packets_that_fit_nowhere_are_counted_by_reason() {
    let mut world = two(1);
    world.run_till("up", ms(1000), World::both_up);
    let mut multicast = packet(0, 1, 1, 100);
    multicast[16..20].copy_from_slice(&[239, 255, 0, 2]);
    let mut elsewhere = packet(0, 1, 1, 100);
    elsewhere[16..20].copy_from_slice(&[192, 0, 2, 1]);
    for bytes in [&multicast[..], &elsewhere, &packet(0, 1, 1, 1281), &[0x45; 12], &[]] {
        world.send(0, bytes);
    }
    let reasons = [DropReason::Multicast, DropReason::NoRoute, DropReason::TooLarge, DropReason::Malformed];
    assert_eq!(reasons.map(|reason| world.drops(0, reason)), [1, 1, 1, 2]);
    let from = "192.0.2.9:9".parse().unwrap();
    for bytes in [&[][..], &[0xff; 60], &[0xd1; 20], &[4; 40], &[4, 0, 0, 0]] {
        world.inject(0, from, bytes);
    }
    assert_eq!(world.drops(0, DropReason::Unknown), 4);
}

#[test]
fn the_largest_packet_passes_both_ways_over_both_kinds_of_path() {
    for mapping in [Mapping::EndpointIndependent, Mapping::AddressAndPortDependent] {
        let mut world = two_behind(2, mapping, Filtering::AddressAndPortDependent);
        world.run(ms(2000));
        let kind = world.path(0, 1);
        assert_eq!(kind == PathKind::Direct, mapping == Mapping::EndpointIndependent);
        world.send(0, &packet(0, 1, 1, 1280));
        world.send(1, &packet(1, 0, 2, 1280));
        world.run(ms(100));
        assert_eq!(world.hosts[1].received.last().unwrap().1, packet(0, 1, 1, 1280));
        assert_eq!(world.hosts[0].received.last().unwrap().1, packet(1, 0, 2, 1280));
        assert_eq!(world.peer(0, 1).tx_bytes, 1280);
        assert_eq!(world.peer(1, 0).rx_bytes, 1280);
    }
}

#[test]
fn pings_end_in_one_of_four_ways() {
    let mut world = two(1);
    assert!(
        matches!(world.ping(0, 1), PingOutcome::Answered { path: PathKind::Direct, rtt, .. } if rtt == ms(10))
    );
    assert_eq!(world.ping(0, 5), PingOutcome::UnknownPeer);
    world.cut = Some(Box::new(|_, _| true));
    assert_eq!(world.ping(0, 1), PingOutcome::NoAnswer);
    world.run(ms(5000));
    assert_eq!(world.ping(0, 1), PingOutcome::NoPath);
}

#[test]
fn a_restarted_relay_server_is_noticed_and_used_again() {
    let mut world = two_behind(5, Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
    world.run_till("up", ms(500), World::both_up);
    world.stream(ms(20), ms(1000));
    world.turn.restart();
    let gap = world.stream(ms(20), ms(15_000));
    assert!(gap < ms(6000), "{gap:?}");
    let down = world.hosts[0].events.iter().any(|(_, event)| matches!(event, Event::RelayDown { .. }));
    assert!(down && world.both_on(PathKind::RelayUdp));
}

/// One end has another key, which the two ends hear of at different times; traffic flows both ways meanwhile.
#[test]
fn a_rotated_key_loses_nothing() {
    for seed in 0..20 {
        let mut world = two(seed);
        world.run_till("up", ms(1000), World::both_up);
        world.run(ms(500));
        let rotated = (seed % 2) as usize;
        let (first, lag) = if seed % 4 < 2 { (rotated, ms(40)) } else { (1 - rotated, ms(90)) };
        let mut sent = 0;
        let mut talk = |world: &mut World, duration: Duration| {
            let end = world.now + duration;
            while world.now < end {
                world.send(0, &packet(0, 1, sent, 200));
                world.send(1, &packet(1, 0, sent, 200));
                sent += 1;
                world.run(ms(10));
            }
        };
        talk(&mut world, ms(300));
        world.hosts[rotated].key = [77 + u8::try_from(seed).unwrap(); 32];
        let patch = Patch::MemberSet(world.member(rotated));
        let tell = |world: &mut World, host: usize| {
            let from = world.hosts[host].engine.status(world.now).networks[0].revision.unwrap();
            let patches = PatchSet { from, to: from.next(), patches: vec![patch.clone()] };
            if host == rotated {
                let private_key = PrivateKey(Zeroizing::new(world.hosts[host].key));
                world.command(host, Command::SetPrivateKey { network: network(), private_key });
            }
            world.command(host, Command::ApplyPatches { network: network(), patches });
        };
        tell(&mut world, first);
        talk(&mut world, lag);
        tell(&mut world, 1 - first);
        talk(&mut world, Duration::from_secs(8));
        world.run(ms(300));
        for host in 0..2 {
            let received = world.hosts[host].received.len();
            assert_eq!(received, sent as usize, "seed {seed}: packets were lost on the way to {host}");
            assert!(world.is_up(host, 1 - host));
            let events = world.hosts[host].events.iter();
            let lost =
                events.filter(|(_, e)| matches!(e, Event::LinkStateChanged { after: LinkState::Lost, .. }));
            assert_eq!(lost.count(), 0, "seed {seed}");
            let network = &world.hosts[host].engine.status(world.now).networks[0];
            assert_eq!(network.public_key, world.hosts[host].public_key());
            // Later handshakes are under the new keys as well.
            assert!(world.peer(host, 1 - host).handshake_age.unwrap() < Duration::from_secs(9));
        }
        world.run(Duration::from_secs(130));
        assert!(world.stream(ms(10), ms(500)) < ms(50), "after the next renewal");
    }
}
