//! Stock WireGuard devices as static peers: sessions from either side, rekeys, roaming, pre-shared keys, and a gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::net::IpAddr;
use std::time::Duration;

use common::nat::{Filtering, Mapping};
use common::stock::{device_node, device_overlay, routed};
use common::{World, ms, network, node, overlay, packet};
use ria_core::filter::{Filter, Verdict};
use ria_core::ip::IpPacket;
use ria_core::{DropReason, LinkState, PathKind, PeerStatus, PingOutcome};
use ria_protocol::id::NodeId;
use ria_protocol::keys::PresharedKey;
use ria_protocol::map::{Patch, StockPeer};
use ria_protocol::policy::{NodePolicy, Permit, PermitKind, Rule, Selector};

fn psk() -> PresharedKey {
    PresharedKey([42; 32])
}

/// A host and a device that talk to each other without a gateway.
fn host_and_device(seed: u64, stock: StockPeer, device_psk: Option<&PresharedKey>) -> World {
    let mut world = World::new(seed);
    world.host(None);
    world.introduce_all();
    let device = world.device(0, device_psk);
    let member = world.device_member(device, stock);
    world.patch(&[0], &Patch::MemberSet(member));
    world
}

fn device_status(world: &World, host: usize) -> PeerStatus {
    let status = world.hosts[host].engine.status(world.now);
    let peers = &status.networks[0].peers;
    peers.iter().find(|peer| peer.node == device_node(0)).cloned().expect("the device is a peer")
}

fn to_device(number: u32) -> Vec<u8> {
    routed(overlay(0), device_overlay(0), number, 64, 100)
}

fn to_host(number: u32) -> Vec<u8> {
    routed(device_overlay(0), overlay(0), number, 64, 100)
}

fn packets<T: Clone>(received: &[(T, Vec<u8>)]) -> Vec<Vec<u8>> {
    received.iter().map(|(_, packet)| packet.clone()).collect()
}

#[test]
fn either_side_starts_with_and_without_a_preshared_key() {
    for psk in [None, Some(psk())] {
        // The device starts; the host learns where it is and answers.
        let stock = StockPeer { psk: psk.clone(), ..StockPeer::default() };
        let mut world = host_and_device(1, stock, psk.as_ref());
        assert_eq!(device_status(&world, 0).link_state, LinkState::Idle);
        world.send_from_device(0, &to_host(1));
        world.run(ms(100));
        assert_eq!(packets(&world.hosts[0].received), [to_host(1)]);
        world.send(0, &to_device(2));
        world.run(ms(100));
        assert_eq!(packets(&world.devices[0].received), [to_device(2)]);
        let status = device_status(&world, 0);
        assert_eq!((status.link_state, status.path), (LinkState::Up, PathKind::Direct));
        assert_eq!(status.endpoint, Some(world.devices[0].address));
        assert!(status.handshake_age.unwrap() < ms(300), "{status:?}");
        assert_eq!((status.rx_packets, status.tx_packets), (1, 1));

        // The host starts, for the map says where the device listens.
        let endpoint = Some("192.0.2.1:51820".parse().unwrap());
        let stock = StockPeer { psk: psk.clone(), endpoint, ..StockPeer::default() };
        let mut world = host_and_device(2, stock, psk.as_ref());
        world.send(0, &to_device(1));
        world.run(ms(200));
        assert_eq!(packets(&world.devices[0].received), [to_device(1)]);
        world.send_from_device(0, &to_host(2));
        world.run(ms(100));
        assert_eq!(packets(&world.hosts[0].received), [to_host(2)]);
        assert_eq!(world.devices[0].began, 0, "the host began");
        assert_eq!(world.ping_device(), PingOutcome::NoAgent);
    }
}

impl World {
    fn ping_device(&mut self) -> PingOutcome {
        use ria_core::{Command, Event, PingId};
        let (id, peer) = (PingId(7), device_node(0));
        self.command(0, Command::StartPing { network: network(), peer, id, timeout: ms(1000) });
        let ended = self.hosts[0].events.iter().rev().find_map(|(_, event)| {
            let Event::PingFinished { outcome, .. } = event else { return None };
            Some(*outcome)
        });
        ended.expect("a ping to a stock peer ends at once")
    }
}

#[test]
fn without_the_right_preshared_key_nothing_passes() {
    let other = PresharedKey([1; 32]);
    for device_psk in [None, Some(&other)] {
        let stock = StockPeer { psk: Some(psk()), ..StockPeer::default() };
        let mut world = host_and_device(3, stock, device_psk);
        world.send_from_device(0, &to_host(1));
        world.send(0, &to_device(2));
        world.run(ms(8000));
        assert!(world.hosts[0].received.is_empty() && world.devices[0].received.is_empty());
        assert_ne!(device_status(&world, 0).link_state, LinkState::Up);
    }
}

#[test]
fn rekeys_lose_nothing_whoever_began_and_whoever_sends() {
    for (host_starts, host_sends, device_sends) in [
        (false, true, true),
        (false, true, false),
        (false, false, true),
        (true, true, true),
        (true, true, false),
        (true, false, true),
    ] {
        let endpoint = host_starts.then(|| "192.0.2.1:51820".parse().unwrap());
        let stock = StockPeer { endpoint, psk: Some(psk()), ..StockPeer::default() };
        let mut world = host_and_device(4, stock, Some(&psk()));
        if !host_starts {
            world.send_from_device(0, &to_host(0));
        }
        world.run(ms(500));
        let before = (world.hosts[0].received.len(), world.devices[0].received.len());
        let mut sent = 0;
        while world.now < world.start + Duration::from_secs(700) {
            if host_sends {
                world.send(0, &to_device(sent));
            }
            if device_sends {
                world.send_from_device(0, &to_host(sent));
            }
            sent += 1;
            world.run(ms(500));
        }
        let case = (host_starts, host_sends, device_sends);
        let all = |sends: bool| if sends { sent as usize } else { 0 };
        assert_eq!(world.devices[0].received.len() - before.1, all(host_sends), "{case:?}");
        assert_eq!(world.hosts[0].received.len() - before.0, all(device_sends), "{case:?}");
        let initiations = world.recent_handshakes();
        // One every 110 to 150 s, from one end at a time.
        assert!((4..=7).contains(&initiations), "{case:?}: {initiations}");
        assert_eq!(device_status(&world, 0).link_state, LinkState::Up);
    }
}

impl World {
    /// Handshakes begun by both ends together.
    fn recent_handshakes(&self) -> u64 {
        self.sent.get(&1).copied().unwrap_or(0) + u64::from(self.devices[0].began)
    }
}

#[test]
fn an_unused_session_is_not_renewed_and_a_silent_device_is_not_pestered() {
    let mut world = host_and_device(5, StockPeer::default(), None);
    world.send_from_device(0, &to_host(1));
    world.run(ms(500));
    let begun = world.recent_handshakes();
    world.run(Duration::from_secs(600));
    assert_eq!(world.recent_handshakes(), begun);
    // It went away: what is sent asks for it for a while, and then there is peace.
    world.cut = Some(Box::new(|_, _| true));
    world.send(0, &to_device(1));
    world.run(Duration::from_secs(30));
    assert_eq!(device_status(&world, 0).link_state, LinkState::Lost);
    let begun = world.recent_handshakes();
    world.run(Duration::from_secs(300));
    assert!(world.recent_handshakes() <= begun + 1);
    world.cut = None;
    world.send_from_device(0, &to_host(2));
    world.run(ms(500));
    assert_eq!(device_status(&world, 0).link_state, LinkState::Up);
}

#[test]
fn either_end_roams_and_a_replayed_packet_moves_nobody() {
    let mut world = World::new(6);
    let nat = world.nat(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    world.host(None);
    world.introduce_all();
    let device = world.device(0, None);
    let member = world.device_member(device, StockPeer::default());
    world.patch(&[0], &Patch::MemberSet(member));
    world.send_from_device(0, &to_host(1));
    world.run(ms(200));

    // The device is on another network now.
    world.record = true;
    world.devices[0].address = "203.0.113.77:9999".parse().unwrap();
    world.send_from_device(0, &to_host(2));
    world.run(ms(100));
    world.send(0, &to_device(3));
    world.run(ms(100));
    assert_eq!(packets(&world.devices[0].received), [to_device(3)]);
    assert_eq!(device_status(&world, 0).endpoint, Some(world.devices[0].address));

    // An eavesdropper sends the same datagram again from elsewhere, and something forged.
    let datagram = world.recorded.iter().find(|(_, _, bytes)| bytes[0] == 4).unwrap().2.clone();
    world.record = false;
    let mut forged = datagram.clone();
    forged[20] ^= 1;
    let elsewhere = "203.0.113.9:1".parse().unwrap();
    world.inject(0, elsewhere, &datagram);
    world.inject(0, elsewhere, &forged);
    assert_eq!(device_status(&world, 0).endpoint, Some(world.devices[0].address));
    assert_eq!(world.drops(0, DropReason::Replayed) + world.drops(0, DropReason::Unauthentic), 2);
    assert!(world.drops(0, DropReason::Replayed) >= 1);
    assert_eq!(world.hosts[0].received.len(), 2);

    // The host roams: it says so at once, and the device follows without having sent anything.
    world.roam(0, nat);
    world.run(ms(200));
    let public = world.public(0);
    assert_eq!(world.devices[0].endpoint, public);
    world.send_from_device(0, &to_host(4));
    world.run(ms(100));
    assert_eq!(world.hosts[0].received.last().unwrap().1, to_host(4));
}

/// A gateway (0), a member on the public network (1), one that only the relay reaches (2), and a device behind the gateway.
fn with_gateway(seed: u64) -> World {
    let mut world = World::new(seed);
    world.host(None);
    world.host(None);
    let nat = world.nat(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
    world.host(Some(nat));
    world.introduce_all();
    let device = world.device(0, Some(&psk()));
    let stock = StockPeer { gateway: Some(node(0)), ..StockPeer::default() };
    let shown = world.device_member(device, stock.clone());
    let whole = world.device_member(device, StockPeer { psk: Some(psk()), ..stock });
    let gateway = world.gateway_member(0, &[device]);
    for (host, member) in [(0, &whole), (1, &shown)] {
        let revision = world.revision;
        world.patch(&[host], &Patch::MemberSet(member.clone()));
        world.patch(&[host], &Patch::MemberSet(gateway.clone()));
        world.revision = revision;
    }
    // An older agent hears of the gateway's prefixes only.
    world.patch(&[2], &Patch::NetworkChanged(World::info()));
    world.patch(&[2], &Patch::MemberSet(gateway));
    world.run_till("all up", ms(5000), |world| {
        [(0, 1), (0, 2), (1, 0), (2, 0)].iter().all(|(a, b)| world.is_up(*a, *b))
    });
    world.send_from_device(0, &to_host(0));
    world.run(ms(200));
    assert_eq!(packets(&world.hosts[0].received), [to_host(0)], "the gateway itself is reached too");
    world
}

fn hop(mut packet: Vec<u8>) -> Vec<u8> {
    packet[8] -= 1;
    // The sums of these packets are left 0 by their maker; the gateway updates what it finds.
    packet[10..12].copy_from_slice(&[0x01, 0x00]);
    packet
}

#[test]
fn a_gateway_passes_packets_between_a_device_and_every_member() {
    let mut world = with_gateway(7);
    for member in [1, 2] {
        let out = routed(device_overlay(0), overlay(member), 5, 64, 300);
        world.send_from_device(0, &out);
        world.run(ms(200));
        assert_eq!(packets(&world.hosts[member].received), [hop(out)], "member {member}");
        let back = routed(overlay(member), device_overlay(0), 6, 64, 1280);
        world.send(member, &back);
        world.run(ms(200));
        assert_eq!(world.devices[0].received.last().unwrap().1, hop(back), "member {member}");
    }
    assert_eq!(world.hosts[0].received.len(), 1, "what is passed on does not reach the gateway's interface");
    assert_eq!(world.hosts[0].engine.status(world.now).forwarded, 4);
    // A member of the present version sees the device, and how it is reached.
    let seen = device_status(&world, 1);
    assert_eq!((seen.link_state, seen.gateway.unwrap().as_str()), (LinkState::Up, "robot-0"));
    assert_eq!(seen.prefixes, [ria_protocol::prefix::Prefix::host(IpAddr::from(device_overlay(0)))]);
    let gateway = world.peer(1, 0);
    assert_eq!(gateway.prefixes.len(), 1, "a gateway's own addresses are its own only");
}

#[test]
fn a_device_that_nobody_asked_first_is_found_through_its_gateway() {
    let mut world = with_gateway(8);
    // Both sides of the session forget each other but for where the device is.
    world.restart(0);
    let member = world
        .device_member(0, StockPeer { gateway: Some(node(0)), psk: Some(psk()), ..StockPeer::default() });
    let gateway = world.gateway_member(0, &[0]);
    world.patch(&[0], &Patch::MemberSet(member));
    world.patch(&[0], &Patch::MemberSet(gateway));
    let known = ria_protocol::map::Live {
        node: device_node(0),
        online: false,
        boot: None,
        candidates: vec![ria_protocol::map::Candidate {
            kind: ria_protocol::map::CandidateKind::Host,
            address: world.devices[0].address,
        }],
    };
    let update = ria_protocol::message::LiveUpdate { whole: false, members: vec![known] };
    world.command(0, ria_core::Command::ApplyLive { network: network(), update });
    world.run(ms(500));
    assert_eq!(
        device_status(&world, 0).link_state,
        LinkState::Up,
        "the gateway begins where it knew the device"
    );
    world.run_till("the member is back", ms(5000), |world| world.is_up(1, 0) && world.is_up(0, 1));
    let back = routed(overlay(1), device_overlay(0), 6, 64, 100);
    world.send(1, &back);
    world.run(ms(300));
    assert_eq!(world.devices[0].received.last().unwrap().1, hop(back));
}

#[test]
fn a_gateway_drops_what_is_not_right_and_says_why_as_a_router() {
    let mut world = with_gateway(9);
    let device = device_overlay(0);
    let drops = |world: &World, reason| world.drops(0, reason);
    // Somebody else's address.
    world.send_from_device(0, &routed(overlay(2), overlay(1), 1, 64, 100));
    world.send_from_device(0, &routed([192, 0, 2, 9], overlay(1), 1, 64, 100));
    world.run(ms(100));
    assert_eq!((drops(&world, DropReason::WrongSource), world.hosts[1].received.len()), (2, 0));
    // To itself, and to nobody.
    world.send_from_device(0, &routed(device, device, 1, 64, 100));
    world.run(ms(100));
    assert_eq!(drops(&world, DropReason::Hairpin), 1);
    let error = |world: &mut World, packet: &[u8]| {
        world.devices[0].received.clear();
        world.send_from_device(0, packet);
        world.run(ms(100));
        let answers = packets(&world.devices[0].received);
        assert_eq!(answers.len(), 1);
        assert_eq!((&answers[0][12..16], &answers[0][16..20]), (&overlay(0)[..], &device[..]));
        (answers[0][20], answers[0][21])
    };
    assert_eq!(error(&mut world, &routed(device, [10, 213, 9, 9], 1, 64, 100)), (3, 0));
    assert_eq!(drops(&world, DropReason::NoRoute), 1);
    assert_eq!(error(&mut world, &routed(device, overlay(1), 1, 1, 100)), (11, 0));
    assert_eq!(drops(&world, DropReason::HopLimit), 1);
    assert_eq!(error(&mut world, &routed(device, overlay(1), 1, 64, 1400)), (3, 4));
    assert_eq!(drops(&world, DropReason::TooLarge), 1);
    // A traceroute of a member sees the gateway as well.
    world.send(1, &routed(overlay(1), device, 1, 1, 100));
    world.run(ms(100));
    assert_eq!(world.hosts[1].received.last().unwrap().1[20], 11);
    // Members are not forwarded for each other, whatever they try.
    let received = world.hosts[2].received.len();
    world.divert(1, 2);
    world.run(ms(200));
    assert_eq!(world.hosts[2].received.len(), received);
}

impl World {
    /// A member of a changed program sends what is for another member to the gateway.
    fn divert(&mut self, from: usize, to: usize) {
        let mut liar = self.gateway_member(0, &[]);
        let mut record = liar.record.open(network(), &[]).unwrap();
        record.prefixes.push("10.213.0.0/16".parse().unwrap());
        liar.record = ria_protocol::record::SignedRecord::unsigned(&record);
        self.patch(&[from], &Patch::MemberRemoved(node(to)));
        self.patch(&[from], &Patch::MemberSet(liar));
        let before = self.drops(0, DropReason::NoRoute);
        self.send(from, &packet(from, to, 1, 100));
        self.run(ms(100));
        assert_eq!(self.drops(0, DropReason::NoRoute), before + 1);
    }
}

/// Lets only some through: in from the device to one member, out only to it.
struct OnlyTo(NodeId);

impl Filter for OnlyTo {
    fn outbound(&mut self, _packet: &IpPacket<'_>, peer: NodeId) -> Verdict {
        if peer == self.0 { Verdict::Allow } else { Verdict::Deny }
    }

    fn inbound(&mut self, packet: &IpPacket<'_>, _peer: NodeId) -> Verdict {
        if packet.bytes.len() < 500 { Verdict::Allow } else { Verdict::Deny }
    }
}

#[test]
fn the_filter_judges_both_hops_of_what_a_gateway_passes_on() {
    let mut world = with_gateway(10);
    world.hosts[0].engine.set_filter(network(), || Box::new(OnlyTo(node(1)))).unwrap();
    world.flush(0);
    for (to, len) in [(1, 100), (1, 600), (2, 100)] {
        world.send_from_device(0, &routed(device_overlay(0), overlay(to), 1, 64, len));
    }
    world.run(ms(200));
    assert_eq!((world.hosts[1].received.len(), world.hosts[2].received.len()), (1, 0));
    assert_eq!(world.drops(0, DropReason::FilteredIn), 1);
    assert_eq!(world.drops(0, DropReason::FilteredOut), 1);
}

#[test]
fn a_gateway_enforces_the_policy_for_its_devices() {
    let mut world = with_gateway(12);
    let rule = Rule {
        number: 1,
        from: Selector::of(vec![device_node(0)]),
        to: Selector::of(vec![node(1)]),
        permits: vec![Permit::range(PermitKind::UDP, 7, 7)],
        not_before: None,
        until: None,
    };
    world.patch(&[0], &Patch::PolicySet(NodePolicy { version: 1, rules: Some(vec![rule]) }));
    world.flush(0);
    for (to, port) in [(1, 7), (1, 8), (2, 7)] {
        world.send_from_device(0, &routed(device_overlay(0), overlay(to), port, 64, 100));
    }
    world.send(1, &routed(overlay(1), device_overlay(0), 7, 64, 100));
    world.run(ms(500));
    assert_eq!((world.hosts[1].received.len(), world.hosts[2].received.len()), (1, 0));
    assert!(world.devices[0].received.is_empty(), "it may begin, and the other may not");
    assert_eq!(world.drops(0, DropReason::FilteredIn), 3);
    // Nothing was said of the gateway itself.
    world.send(0, &packet(0, 1, 7, 100));
    world.run(ms(200));
    assert_eq!((world.hosts[1].received.len(), world.drops(0, DropReason::FilteredOut)), (1, 1));
}

#[test]
fn a_removed_device_is_cut_off_at_once() {
    let mut world = with_gateway(11);
    let received = world.hosts[1].received.len();
    world.patch(&[0, 1], &Patch::MemberRemoved(device_node(0)));
    world.record = true;
    world.send_from_device(0, &routed(device_overlay(0), overlay(1), 1, 64, 100));
    let begin = world.devices[0].begin();
    world.launch_from_device(0, vec![begin]);
    world.run(ms(500));
    assert_eq!(world.hosts[1].received.len(), received);
    assert!(world.drops(0, DropReason::Stranger) >= 1 && world.drops(0, DropReason::NoSuchSession) >= 1);
    let to = world.devices[0].address;
    assert!(!world.recorded.iter().any(|(_, target, _)| *target == to), "it gets no answer at all");
}

#[test]
fn a_device_behind_a_gateway_is_a_stranger_to_the_others() {
    let mut world = with_gateway(12);
    let stray = world.device(1, None);
    world.devices[stray].key = world.devices[0].key;
    // The same key, but its file names another member.
    let twin = world.twin(0, 1);
    world.record = true;
    let before = world.drops(1, DropReason::Stranger);
    world.inject(1, "192.0.2.50:1".parse().unwrap(), &twin);
    world.run(ms(200));
    assert_eq!(world.drops(1, DropReason::Stranger), before + 1);
    assert!(!world.recorded.iter().any(|(_, to, _)| *to == "192.0.2.50:1".parse().unwrap()));
}

impl World {
    /// The beginning of a handshake of a device with another host than its own.
    fn twin(&mut self, device: usize, host: usize) -> Vec<u8> {
        use ria_core::session::{HANDSHAKE_ROOM, SessionFactory, wireguard::WireGuard};
        let own = WireGuard.network(&self.devices[device].key);
        let mut out = [0; HANDSHAKE_ROOM];
        let len = own.session(&self.hosts[host].public_key(), None, 5).initiate(&mut out).unwrap();
        out[..len].to_vec()
    }
}

#[allow(clippy::disallowed_methods, reason = "WireGuard's limiter counts by the real clock")]
fn real_clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[test]
fn a_flood_of_handshakes_is_answered_by_cookies_and_who_shows_one_gets_in() {
    let mut world = with_gateway(13);
    let began = real_clock();
    // One forged source address for each; the content is right, as whoever knows the public key can make it.
    let flood: Vec<Vec<u8>> = (0..1200).map(|_| world.twin(0, 0)).collect();
    world.record = true;
    for (number, bytes) in flood.iter().enumerate() {
        let [.., high, low] = u32::try_from(number).unwrap().to_be_bytes();
        world.inject(0, (IpAddr::from([100, 65, high, low]), 7).into(), bytes);
    }
    let is_flood = |address: &std::net::SocketAddr| address.ip().to_string().starts_with("100.65.");
    let answers = |kind: u8| {
        let to_flood = world.recorded.iter().filter(|(_, to, bytes)| is_flood(to) && bytes[0] == kind);
        to_flood.map(|(_, _, bytes)| bytes.len()).collect::<Vec<_>>()
    };
    let (cookies, responses) = (answers(3), answers(2));
    // 500 a second are looked at, however long this machine takes.
    let looked_at = 1200 - cookies.len();
    let seconds = usize::try_from((real_clock() - began).as_secs()).unwrap();
    assert!(looked_at <= 500 * (seconds + 1), "{looked_at} in {seconds} s");
    assert!(cookies.iter().all(|len| *len == 64), "an answer is shorter than the question");
    assert!(responses.len() <= looked_at);
    world.record = false;
    if cookies.is_empty() {
        // So slow a machine is never flooded.
        return;
    }
    // The device is asked for proof like all others, gives it, and is served.
    let before = world.devices[0].cookies;
    for _ in 0..3 {
        let begin = world.devices[0].begin();
        world.launch_from_device(0, vec![begin]);
        world.run(ms(300));
    }
    let challenged = world.devices[0].cookies - before;
    world.send_from_device(0, &routed(device_overlay(0), overlay(1), 9, 64, 100));
    world.run(ms(300));
    assert!(challenged <= 1, "with the cookie it is admitted");
    assert_eq!(world.hosts[1].received.last().unwrap().1[20..24], 9u32.to_be_bytes());
}

#[test]
fn garbage_and_wrong_macs_get_silence() {
    let mut world = with_gateway(14);
    let from = "192.0.2.66:6".parse().unwrap();
    world.record = true;
    let mut wrong_mac = world.twin(0, 0);
    wrong_mac[120] ^= 1;
    let mut short = world.twin(0, 0);
    short.truncate(147);
    let response = [&[2, 0, 0, 0][..], &[7; 88]].concat();
    let cookie = [&[3, 0, 0, 0][..], &[7; 60]].concat();
    let data = [&[4, 0, 0, 0][..], &[0; 44]].concat();
    for bytes in [&wrong_mac, &short, &response, &cookie, &data, &vec![1, 0, 0, 0], &vec![0; 148]] {
        world.inject(0, from, bytes);
    }
    world.run(ms(1000));
    assert!(!world.recorded.iter().any(|(_, to, _)| *to == from));
}
