//! Several relays: all are kept ready, the quickest carries, and another one takes over when it dies.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;

use common::nat::{Filtering, Mapping};
use common::turn::TurnServer;
use common::{World, ms};
use ria_core::relay::{RelayClient, RelayCredentials};
use ria_core::stun::Randomness;
use ria_core::{Event, LinkState, PathKind};
use ria_protocol::map::CandidateKind;
use stun_types::message::Message;
use turn_types::attribute::XorRelayedAddress;

const SECOND: &str = "198.51.100.77:3478";

fn second() -> SocketAddr {
    SECOND.parse().unwrap()
}

/// Two hosts behind NATs that let no direct path come about, and two relays.
fn two_relays(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..2 {
        let nat = world.nat(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
        world.host(Some(nat));
    }
    world.other_turns.push(TurnServer::new(second()));
    world.introduce_all();
    world
}

fn relay(world: &World) -> [Option<String>; 2] {
    [world.peer(0, 1).relay, world.peer(1, 0).relay]
}

fn both_by(world: &World, name: &str) -> bool {
    relay(world) == [Some(name.to_owned()), Some(name.to_owned())]
}

#[test]
fn all_relays_are_ready_and_the_first_is_told_first() {
    let mut world = two_relays(1);
    let up = world.run_till("up", ms(500), |w| w.both_on(PathKind::RelayUdp));
    assert!(up <= ms(200), "{up:?}");
    world.run(ms(1000));
    assert_eq!((world.turn.len(), world.other_turns[0].len()), (2, 2));
    let status = world.hosts[0].engine.status(world.now);
    let candidates = &status.networks[0].candidates;
    let relayed: Vec<_> = candidates.iter().filter(|c| c.kind == CandidateKind::Relayed).collect();
    let ips = [world.turn.address.ip(), second().ip()];
    assert_eq!(relayed.iter().map(|candidate| candidate.address.ip()).collect::<Vec<_>>(), ips);
}

#[test]
fn the_quicker_relay_carries_and_equal_ones_do_not_alternate() {
    let mut world = two_relays(2);
    world.slow = Some((world.turn.address, ms(30)));
    world.run_till("up", ms(1000), World::both_up);
    world.stream(ms(20), ms(10_000));
    assert!(both_by(&world, "relay-2"), "{:?}", relay(&world));
    // The other one becomes as quick: no reason to leave.
    world.slow = None;
    let before = world.hosts[0].events.len();
    world.stream(ms(20), ms(60_000));
    assert!(both_by(&world, "relay-2"), "{:?}", relay(&world));
    let changes = |event: &Event| matches!(event, Event::PathChanged { .. });
    let changed = world.hosts[0].events[before..].iter().filter(|(_, event)| changes(event)).count();
    assert_eq!(changed, 0);
}

#[test]
fn a_relay_that_dies_under_traffic_is_left_within_a_second() {
    for seed in 0..10 {
        let mut world = two_relays(seed);
        world.run_till("up", ms(500), World::both_up);
        world.stream(ms(10), ms(1500 + seed * 37));
        assert!(both_by(&world, "relay"), "{:?}", relay(&world));
        let dead = world.turn.address;
        world.cut = Some(Box::new(move |from, to| from == dead || to == dead));
        let gap = world.stream(ms(10), ms(4000));
        assert!(gap < ms(1000), "seed {seed}: {gap:?}");
        assert!(both_by(&world, "relay-2"), "{:?}", relay(&world));
        let other = |event: &Event| matches!(event, Event::PathChanged { reason, .. } if reason.contains("another one does"));
        assert!(world.hosts[0].events.iter().any(|(_, event)| other(event)));
        let lost = |event: &Event| matches!(event, Event::LinkStateChanged { after: LinkState::Lost, .. });
        assert!(!world.hosts[0].events.iter().any(|(_, event)| lost(event)), "the link was never lost");
        // It comes back, as a new server that knows nobody.
        world.turn.restart();
        world.cut = None;
        world.run_till("both have it again", ms(60_000), |w| w.turn.len() == 2);
        world.stream(ms(20), ms(3000));
        world.cut = Some(Box::new(|from, to| from == second() || to == second()));
        let gap = world.stream(ms(10), ms(4000));
        assert!(gap < ms(1000), "seed {seed}, back again: {gap:?}");
        assert!(both_by(&world, "relay"), "{:?}", relay(&world));
    }
}

/// It answers for itself, so its allocations stay; what it should carry disappears.
#[test]
fn a_relay_that_swallows_what_it_should_carry_is_left_within_a_second() {
    for seed in 0..10 {
        let mut world = two_relays(seed);
        world.run_till("up", ms(500), World::both_up);
        world.stream(ms(10), ms(1500 + seed * 37));
        assert!(both_by(&world, "relay"), "{:?}", relay(&world));
        // ChannelData, that is (RFC 8656 section 12).
        world.refused = Some((world.turn.address, 0x40));
        let gap = world.stream(ms(10), ms(4000));
        assert!(gap < ms(1000), "seed {seed}: {gap:?}");
        assert!(both_by(&world, "relay-2"), "{:?}", relay(&world));
        world.stream(ms(10), ms(60_000));
        assert!(both_by(&world, "relay-2"), "its answers are no reason to go back: {:?}", relay(&world));
        assert_eq!(world.turn.len(), 2, "the allocations there are kept all the while");
    }
}

#[test]
fn a_relay_that_is_taken_off_the_list_is_left_at_once() {
    let mut world = two_relays(3);
    world.run_till("up", ms(500), World::both_up);
    world.run(ms(2000));
    let gone = world.other_turns.pop().unwrap();
    world.other_turns = vec![TurnServer::new(gone.address)];
    // The list is the second one alone: first in it now.
    std::mem::swap(&mut world.turn.address, &mut world.other_turns[0].address);
    let kept = world.turn.address;
    world.turn = gone;
    assert_eq!(world.turn.address, kept);
    let former = world.other_turns.pop().unwrap();
    for host in 0..2 {
        world.give_relay(host);
    }
    let gap = world.stream(ms(10), ms(3000));
    assert!(gap < ms(500), "{gap:?}");
    assert!(world.both_on(PathKind::RelayUdp));
    let endpoint = world.peer(0, 1).endpoint.unwrap();
    assert_eq!(endpoint.ip(), second().ip());
    drop(former);
}

/// A client and the server, without latency; all that the client has sent is kept.
struct Exchange {
    server: TurnServer,
    client: RelayClient,
    sent: Vec<Vec<u8>>,
    now: std::time::Instant,
}

impl Exchange {
    fn begin(server: TurnServer, run: u8) -> Self {
        let now = World::new(1).now;
        let credentials =
            RelayCredentials { username: "user-1".into(), password: common::turn::PASSWORD.into() };
        let client = RelayClient::new(server.address, credentials, Randomness::new([run; 32]), now);
        let mut exchange = Self { server, client, sent: Vec::new(), now };
        exchange.settle();
        exchange
    }

    fn settle(&mut self) {
        while let Some(outgoing) = self.client.poll_transmit() {
            self.sent.push(outgoing.payload.clone());
            self.deliver(&outgoing.payload);
        }
    }

    /// A datagram of the client's comes to the server, and the answer back; it is also returned.
    fn deliver(&mut self, datagram: &[u8]) -> Vec<u8> {
        let from = "203.0.113.9:41820".parse().unwrap();
        let (_, answer) = self.server.handle(from, datagram).unwrap();
        self.client.handle_datagram(self.server.address, &answer, self.now);
        answer
    }

    /// The last request of this method.
    fn last(&self, method: [u8; 2]) -> Vec<u8> {
        self.sent.iter().rfind(|datagram| datagram[..2] == method).unwrap().clone()
    }
}

#[test]
fn an_allocation_that_a_late_copy_of_a_release_has_ended_is_given_up_for_a_new_one() {
    const ALLOCATE: [u8; 2] = [0, 3];
    const REFRESH: [u8; 2] = [0, 4];
    // The second run of an agent ends the allocation of the first, and gets one of its own.
    let first = Exchange::begin(TurnServer::new(second()), 1);
    let mut exchange = Exchange::begin(first.server, 2);
    let before = exchange.client.relayed_address().unwrap();
    let (release, allocate) = (exchange.last(REFRESH), exchange.last(ALLOCATE));
    exchange.deliver(&allocate);
    assert_eq!(exchange.client.relayed_address(), Some(before), "an answer that came twice changes nothing");
    // What was sent twice comes once more, in the order that a network may make of it.
    exchange.deliver(&release);
    exchange.deliver(&allocate);
    assert_eq!(exchange.client.relayed_address(), None);
    exchange.settle();
    let believed = exchange.client.relayed_address().unwrap();
    let answer = exchange.deliver(&exchange.last(ALLOCATE));
    let answer = Message::from_bytes(&answer).unwrap();
    let granted = answer.attribute::<XorRelayedAddress>().unwrap().addr(answer.transaction_id());
    assert_eq!(believed, granted);
    assert_ne!(believed, before);
}
