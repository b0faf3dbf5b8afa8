//! Several networks on one engine and one port.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::net::SocketAddr;
use std::time::Instant;

use common::turn::{self, TurnServer};
use common::{World, ms, network_id};
use ria_core::{
    AddNetwork, Command, CommandError, DatagramBatch, Engine, EngineConfig, Event, LinkState, PacketBatch,
    PathKind, Received, RelayServer, Sinks, SocketIndex, Warning,
};
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{
    Candidate, CandidateKind, Live, Member, MemberKind, NetworkInfo, Revision, Snapshot,
};
use ria_protocol::message::LiveUpdate;
use ria_protocol::record::{MemberRecord, SignedRecord};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const A: &str = "192.0.2.1:41820";
const B: &str = "192.0.2.2:41820";
const RELAY: &str = "198.51.100.1:3478";

struct Side {
    engine: Engine,
    address: SocketAddr,
    keys: [[u8; 32]; 2],
}

fn side(number: u8, address: &str) -> Side {
    let engine = Engine::new(EngineConfig { seed: [number; 32] });
    Side { engine, address: address.parse().unwrap(), keys: [[number * 2 + 1; 32], [number * 2 + 2; 32]] }
}

fn node(side: u8) -> NodeId {
    NodeId::from_bytes([side; 10])
}

fn member(network: NetworkId, number: u8, key: [u8; 32]) -> Member {
    let record = MemberRecord {
        network,
        node: node(number),
        wg_key: WgPublicKey(PublicKey::from(&StaticSecret::from(key)).to_bytes()),
        // Both networks use the same addresses: only the network tells them apart.
        prefixes: vec![format!("10.213.0.{number}/32").parse().unwrap()],
        tags: vec![],
        expires: None,
    };
    let name = format!("robot-{number}").parse().unwrap();
    Member {
        record: SignedRecord::unsigned(&record),
        name,
        kind: MemberKind::Node,
        stock: None,
        ros_domain: None,
        routes: None,
    }
}

fn snapshot(network: NetworkId, keys: [[u8; 32]; 2]) -> Snapshot {
    let info = NetworkInfo { id: network, ..World::info() };
    let members = vec![member(network, 1, keys[0]), member(network, 2, keys[1])];
    Snapshot { revision: Revision(1), network: info, members, policy: None }
}

/// Makes both sides members of both networks.
fn joined(now: Instant) -> [Side; 2] {
    let mut sides = [side(1, A), side(2, B)];
    let keys = [sides[0].keys, sides[1].keys];
    let addresses = [sides[0].address, sides[1].address];
    for (index, side) in sides.iter_mut().enumerate() {
        let number = u8::try_from(index + 1).unwrap();
        let mut command = |command| side.engine.handle_command(command, now).unwrap();
        for (which, id) in [network_id(1), network_id(2)].into_iter().enumerate() {
            command(Command::AddNetwork(AddNetwork {
                id,
                private_key: Zeroizing::new(keys[index][which]),
                node: node(number),
                boot: BootId::from_bytes([number; 10]),
                mtu: 1280,
            }));
            command(Command::SetMap {
                network: id,
                snapshot: snapshot(id, [keys[0][which], keys[1][which]]),
            });
            let live = Live {
                node: node(3 - number),
                online: true,
                boot: None,
                candidates: vec![Candidate { kind: CandidateKind::Host, address: addresses[1 - index] }],
            };
            command(Command::ApplyLive {
                network: id,
                update: LiveUpdate { whole: true, members: vec![live] },
            });
        }
        command(Command::SetHostCandidates(vec![addresses[index]]));
    }
    sides
}

/// Carries datagrams between the two for a while; returns inner packets that came out, with side and network.
fn run(
    sides: &mut [Side; 2],
    from: Instant,
    steps: u32,
    queue: &mut Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
) -> Vec<(usize, NetworkId, Vec<u8>)> {
    let mut received = Vec::new();
    for step in 0..steps {
        let now = from + ms(5) * step;
        for (index, side) in sides.iter_mut().enumerate() {
            let (mut tun, mut udp) = (PacketBatch::default(), DatagramBatch::default());
            let (mine, rest): (Vec<_>, Vec<_>) =
                queue.drain(..).partition(|(_, to, _)| to.ip() == side.address.ip());
            *queue = rest;
            for (from, to, data) in &mine {
                let socket = SocketIndex::new(u8::try_from(to.port() - side.address.port()).unwrap());
                let received = Received { from: *from, local: None, ecn: ria_core::Ecn::NotEct, data };
                let sinks = Sinks { tun: &mut tun, udp: &mut udp };
                side.engine.handle_udp_at(socket, [received], now, sinks);
            }
            if side.engine.poll_timeout().is_some_and(|at| at <= now) {
                side.engine.handle_timeout(now);
            }
            side.engine.poll_transmit(now, &mut udp);
            queue.extend(sent(side.address, &udp));
            for (network, packets) in tun.networks_mut() {
                received.extend(packets.iter().map(|packet| (index, network, packet.to_vec())));
            }
        }
    }
    received
}

fn packet(len: u8) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(len)];
    bytes[0] = 0x45;
    bytes[3] = len;
    bytes[12..16].copy_from_slice(&[10, 213, 0, 1]);
    bytes[16..20].copy_from_slice(&[10, 213, 0, 2]);
    bytes
}

#[allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
fn start() -> Instant {
    Instant::now()
}

/// An inner packet of 60 bytes in the first network, and one of 80 in the second.
fn send_one_each(side: &mut Side, now: Instant, queue: &mut Vec<(SocketAddr, SocketAddr, Vec<u8>)>) {
    let mut udp = DatagramBatch::default();
    side.engine.handle_tun(network_id(1), [&packet(60)[..]], now, &mut udp);
    side.engine.handle_tun(network_id(2), [&packet(80)[..]], now, &mut udp);
    queue.extend(sent(side.address, &udp));
}

/// The datagrams of a batch; the second socket has the port behind the first one's.
fn sent(main: SocketAddr, udp: &DatagramBatch) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    for transmit in udp.transmits() {
        let port = main.port() + u16::try_from(transmit.socket.number()).unwrap();
        let from = SocketAddr::new(main.ip(), port);
        all.extend(transmit.datagrams().map(|data| (from, transmit.to, data.to_vec())));
    }
    all
}

#[test]
fn two_networks_share_a_port_and_nothing_else() {
    let now = start();
    let (mut sides, mut queue) = (joined(now), Vec::new());
    run(&mut sides, now, 100, &mut queue);
    let now = now + ms(500);
    for status in sides[0].engine.status(now).networks {
        assert_eq!(status.peers[0].link_state, LinkState::Up, "{:?}", status.id);
    }
    send_one_each(&mut sides[0], now, &mut queue);
    let received = run(&mut sides, now, 10, &mut queue);
    assert_eq!(received, [(1, network_id(1), packet(60)), (1, network_id(2), packet(80))]);

    // One of them goes; the other does not notice.
    sides[1].engine.handle_command(Command::RemoveNetwork(network_id(1)), now).unwrap();
    send_one_each(&mut sides[0], now, &mut queue);
    let received = run(&mut sides, now, 10, &mut queue);
    assert_eq!(received, [(1, network_id(2), packet(80))]);
}

#[test]
fn commands_for_networks_that_are_not_there_are_refused() {
    let now = start();
    let mut engine = Engine::new(EngineConfig { seed: [1; 32] });
    let id = network_id(7);
    let missing = Err(CommandError::NoSuchNetwork(id));
    assert_eq!(engine.handle_command(Command::RemoveNetwork(id), now), missing);
    let update = LiveUpdate { whole: true, members: vec![] };
    assert_eq!(engine.handle_command(Command::ApplyLive { network: id, update }, now), missing);
    let map = snapshot(network_id(8), [[1; 32], [2; 32]]);
    let add = |key: [u8; 32]| {
        Command::AddNetwork(AddNetwork {
            id,
            private_key: Zeroizing::new(key),
            node: node(1),
            boot: BootId::from_bytes([1; 10]),
            mtu: 1280,
        })
    };
    assert_eq!(engine.handle_command(add([1; 32]), now), Ok(()));
    assert_eq!(engine.handle_command(add([1; 32]), now), Err(CommandError::NetworkExists(id)));
    let other = Err(CommandError::OtherNetwork(network_id(8)));
    assert_eq!(engine.handle_command(Command::SetMap { network: id, snapshot: map }, now), other);
}

#[test]
fn odd_maps_raise_a_warning_and_do_no_harm() {
    let now = start();
    let [mut side, _] = joined(now);
    while side.engine.poll_event().is_some() {}
    let id = network_id(1);
    let mut map = snapshot(id, [[3; 32], [5; 32]]);
    // This node is listed with another key, and two members claim one prefix.
    map.members[0] = member(id, 1, [99; 32]);
    let mut greedy = member(id, 3, [98; 32]);
    greedy.record = SignedRecord::unsigned(&MemberRecord {
        prefixes: vec!["10.213.0.2/32".parse().unwrap()],
        ..greedy.record.open(id, &[]).unwrap()
    });
    map.members.push(greedy);
    side.engine.handle_command(Command::SetMap { network: id, snapshot: map }, now).unwrap();
    let mut warnings = Vec::new();
    while let Some(event) = side.engine.poll_event() {
        if let Event::Warned { warning, .. } = event {
            warnings.push(warning);
        }
    }
    let conflict = Warning::PrefixConflict(node(2), node(3), "10.213.0.2/32".parse().unwrap());
    assert_eq!(warnings, [conflict, Warning::NotListed]);
}

/// Two hosts that reach each other through a relay only, the same one in both networks.
struct Relayed {
    sides: [Side; 2],
    server: TurnServer,
    queue: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    now: Instant,
}

impl Relayed {
    fn new() -> Self {
        let now = start();
        let (mut sides, server) = (joined(now), TurnServer::new(RELAY.parse().unwrap()));
        for (n, side) in sides.iter_mut().enumerate() {
            for network in [network_id(1), network_id(2)] {
                let user = format!("{n}-{network}");
                let relays = vec![RelayServer {
                    name: "relay".into(),
                    tls_port: None,
                    address: server.address,
                    username: user,
                    password: turn::PASSWORD.into(),
                }];
                side.engine.handle_command(Command::SetRelays { network, relays }, now).unwrap();
            }
        }
        Self { sides, server, queue: Vec::new(), now }
    }

    /// Lets 5 ms pass so many times, with the relay at work, and tells each side where the other may be reached.
    fn run(&mut self, steps: u32) -> Vec<(usize, NetworkId, Vec<u8>)> {
        let mut received = Vec::new();
        for _ in 0..steps {
            received.extend(run(&mut self.sides, self.now, 1, &mut self.queue));
            self.now += ms(5);
            let (to_relay, rest): (Vec<_>, Vec<_>) =
                self.queue.drain(..).partition(|(_, to, _)| *to == self.server.address);
            // Straight from host to host nothing gets through.
            let (from_relay, _): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|(from, _, _)| *from == self.server.address);
            self.queue = from_relay;
            for (from, _, data) in to_relay {
                let answer = self.server.handle(from, &data);
                self.queue.extend(answer.map(|(to, data)| (self.server.address, to, data)));
            }
            self.pass_on_candidates();
        }
        received
    }

    fn pass_on_candidates(&mut self) {
        for from in 0..2 {
            while let Some(event) = self.sides[from].engine.poll_event() {
                let Event::CandidatesChanged { network, candidates } = event else { continue };
                let node = node(u8::try_from(from + 1).unwrap());
                let live = Live { node, online: true, boot: None, candidates };
                let update = LiveUpdate { whole: false, members: vec![live] };
                let command = Command::ApplyLive { network, update };
                // The other one may not be in this network any more.
                let _ = self.sides[1 - from].engine.handle_command(command, self.now);
            }
        }
    }
}

#[test]
fn two_networks_are_relayed_by_one_relay_at_once() {
    let mut relayed = Relayed::new();
    relayed.run(600);
    for status in relayed.sides[0].engine.status(relayed.now).networks {
        let peer = &status.peers[0];
        assert_eq!((peer.link_state, peer.path), (LinkState::Up, PathKind::RelayUdp), "{status:?}");
        // Both report the address of the port that peers may use, and neither that of a socket beside it.
        assert_eq!(status.reflexive, [A.parse().unwrap()], "{status:?}");
    }
    let now = relayed.now;
    send_one_each(&mut relayed.sides[0], now, &mut relayed.queue);
    let received = relayed.run(10);
    assert_eq!(received, [(1, network_id(1), packet(60)), (1, network_id(2), packet(80))]);
    assert_eq!(relayed.server.len(), 4);
}

#[test]
fn a_removed_network_gives_its_relay_back_and_the_other_keeps_its_own() {
    let mut relayed = Relayed::new();
    relayed.run(600);
    let now = relayed.now;
    let side = &mut relayed.sides[0];
    side.engine.handle_command(Command::RemoveNetwork(network_id(1)), now).unwrap();
    relayed.run(100);
    assert_eq!(relayed.server.len(), 3);
    let now = relayed.now;
    let mut udp = DatagramBatch::default();
    let side = &mut relayed.sides[0];
    side.engine.handle_tun(network_id(2), [&packet(80)[..]], now, &mut udp);
    relayed.queue.extend(sent(side.address, &udp));
    assert_eq!(relayed.run(10), [(1, network_id(2), packet(80))]);
    // Long after: the network that is left has kept the NAT open for its direct candidate by itself.
    relayed.run(12_000);
    let status = relayed.sides[0].engine.status(relayed.now);
    assert_eq!(status.networks[0].reflexive, [A.parse().unwrap()]);
    assert_eq!(relayed.server.len(), 3);
}
