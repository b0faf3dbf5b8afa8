//! Two engines that know each other, a relay's address, and a fuzzer between them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{
    Candidate, CandidateKind, Live, Member, MemberKind, NetworkInfo, Revision, Snapshot,
};
use ria_protocol::message::LiveUpdate;
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::record::{MemberRecord, SignedRecord};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{Unstructured, bytes, damage, pause};
use crate::ip::IpPacket;
use crate::{AddNetwork, Command, DatagramBatch, Engine, EngineConfig, PacketBatch, Received, RelayServer};

const ADDRESSES: [SocketAddr; 2] = [address(1), address(2)];
const RELAY: SocketAddr = address(9);
const STRANGER: SocketAddr = address(77);
const MTU: u16 = 1280;

const fn address(last: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last)), 41_820)
}

/// A datagram under way.
struct Flight {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// Two engines and what is between them.
struct Pair {
    engines: [Engine; 2],
    now: Instant,
    flights: VecDeque<Flight>,
    /// Inner packets that were handed to an engine, by its number.
    sent: [Vec<Vec<u8>>; 2],
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let engines = [1, 2].map(|seed| Engine::new(EngineConfig { seed: [seed; 32] }));
        let mut pair = Self { engines, now, flights: VecDeque::new(), sent: [Vec::new(), Vec::new()] };
        for side in 0..2 {
            for command in commands(side) {
                let done = pair.engines[side].handle_command(command, now);
                assert!(done.is_ok(), "{done:?}");
            }
            pair.flush(side);
        }
        pair
    }

    /// Both in touch, as far as datagrams get through.
    fn connected() -> Self {
        let mut pair = Self::new();
        for _ in 0..60 {
            pair.deliver_all();
            pair.advance(Duration::from_millis(10));
        }
        pair
    }

    fn flush(&mut self, side: usize) {
        let mut udp = DatagramBatch::default();
        self.engines[side].poll_transmit(self.now, &mut udp);
        self.collect(side, &udp);
        while self.engines[side].poll_event().is_some() {}
    }

    fn collect(&mut self, side: usize, udp: &DatagramBatch) {
        for transmit in udp.transmits() {
            for datagram in transmit.datagrams() {
                let (from, to, bytes) = (ADDRESSES[side], transmit.to, datagram.to_vec());
                self.flights.push_back(Flight { from, to, bytes });
            }
        }
        // What nobody lets through any more is forgotten.
        while self.flights.len() > 256 {
            self.flights.pop_front();
        }
    }

    fn receive(&mut self, side: usize, from: SocketAddr, datagram: &[u8]) {
        let (mut tun, mut udp) = (PacketBatch::default(), DatagramBatch::default());
        let received = Received { from, local: None, ecn: crate::Ecn::NotEct, data: datagram };
        self.engines[side].handle_udp([received], self.now, &mut tun, &mut udp);
        for (_, packets) in tun.networks_mut() {
            for packet in packets.iter() {
                // WireGuard cuts off what stands behind the length that a packet's header says.
                let known = self.sent[1 - side].iter().position(|sent| sent.starts_with(packet));
                let known = known.unwrap_or_else(|| panic!("a packet that nobody sent: {packet:02x?}"));
                // A peer that comes into reach again is told once more who is here.
                if !IpPacket::parse(packet).is_some_and(|packet| packet.is_multicast()) {
                    self.sent[1 - side].swap_remove(known);
                }
            }
        }
        self.collect(side, &udp);
        self.flush(side);
    }

    fn deliver(&mut self, flight: &Flight) {
        if let Some(side) = ADDRESSES.iter().position(|address| *address == flight.to) {
            self.receive(side, flight.from, &flight.bytes);
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..64 {
            let Some(flight) = self.flights.pop_front() else { return };
            self.deliver(&flight);
        }
    }

    fn advance(&mut self, duration: Duration) {
        let until = self.now + duration;
        for side in 0..2 {
            let mut wakes = 0;
            while let Some(at) = self.engines[side].poll_timeout().filter(|at| *at <= until) {
                self.now = self.now.max(at);
                self.engines[side].handle_timeout(self.now);
                self.flush(side);
                wakes += 1;
                assert!(wakes < 5000, "engine {side} turns in a circle");
            }
        }
        self.now = until;
    }

    fn send(&mut self, side: usize, packet: &[u8]) {
        let mut udp = DatagramBatch::default();
        self.sent[side].push(packet.to_vec());
        self.engines[side].handle_tun(network(), [packet], self.now, &mut udp);
        self.collect(side, &udp);
        self.flush(side);
    }
}

pub(super) fn network() -> NetworkId {
    NetworkId::from_bytes([1; 10])
}

fn node(side: usize) -> NodeId {
    NodeId::from_bytes([number(side) + 1; 10])
}

fn number(side: usize) -> u8 {
    side.to_le_bytes()[0]
}

fn key(side: usize) -> StaticSecret {
    StaticSecret::from([number(side) + 5; 32])
}

fn overlay(side: usize) -> [u8; 4] {
    [10, 213, 0, number(side) + 1]
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|_| Prefix::host(ADDRESSES[0].ip()))
}

fn member(side: usize, name: &Name) -> Member {
    let record = MemberRecord {
        network: network(),
        node: node(side),
        wg_key: WgPublicKey(PublicKey::from(&key(side)).to_bytes()),
        prefixes: vec![
            Prefix::host(overlay(side).into()),
            prefix(if side == 0 { "fd5a::1/128" } else { "fd5a::2/128" }),
        ],
        tags: vec![],
        expires: None,
    };
    Member {
        record: SignedRecord::unsigned(&record),
        name: name.clone(),
        kind: MemberKind::Node,
        stock: None,
        ros_domain: None,
        routes: None,
    }
}

/// The network of both.
pub(super) fn snapshot() -> Option<Snapshot> {
    let (a, b): (Name, Name) = ("robot-a".parse().ok()?, "robot-b".parse().ok()?);
    let network = NetworkInfo {
        id: network(),
        name: "lab".parse().ok()?,
        prefix_v4: prefix("10.213.0.0/16"),
        prefix_v6: prefix("fd5a::/64"),
        mtu: MTU,
        lock_keys: vec![],
        urls: vec![],
        ros_domains: None,
        multicast: None,
        peers: None,
    };
    Some(Snapshot {
        revision: Revision(1),
        network,
        members: vec![member(0, &a), member(1, &b)],
        policy: None,
    })
}

pub(super) fn commands(side: usize) -> Vec<Command> {
    let network = network();
    let add = AddNetwork {
        id: network,
        private_key: Zeroizing::new(key(side).to_bytes()),
        node: node(side),
        boot: BootId::from_bytes([number(side); 10]),
        mtu: MTU,
    };
    let candidates = vec![Candidate { kind: CandidateKind::Host, address: ADDRESSES[1 - side] }];
    let live = Live { node: node(1 - side), online: true, boot: None, candidates };
    let relay = RelayServer {
        name: "relay".into(),
        address: RELAY,
        tls_port: None,
        username: "user".into(),
        password: "password".into(),
    };
    let mut commands = vec![Command::SetHostCandidates(vec![ADDRESSES[side]]), Command::AddNetwork(add)];
    commands.extend(snapshot().map(|snapshot| Command::SetMap { network, snapshot }));
    commands.push(Command::ApplyLive { network, update: LiveUpdate { whole: true, members: vec![live] } });
    commands.push(Command::SetRelays { network, relays: vec![relay] });
    commands
}

/// An IPv4 packet from one side to the other with this content.
fn packet(side: usize, content: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20 + content.len()];
    let len = u16::try_from(packet.len()).unwrap_or(u16::MAX).to_be_bytes();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&len);
    packet[12..16].copy_from_slice(&overlay(side));
    packet[16..20].copy_from_slice(&overlay(1 - side));
    packet[20..].copy_from_slice(content);
    packet
}

/// Datagrams: real ones in any order, late, twice, damaged, and such as were never real, from anywhere.
pub fn datagrams(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut pair = if input.arbitrary::<bool>().unwrap_or(false) { Pair::connected() } else { Pair::new() };
    for _ in 0..64 {
        let Ok(what) = input.arbitrary::<u8>() else { break };
        let side = usize::from(what >> 7);
        match what % 8 {
            0 | 1 => {
                if let Some(flight) = pair.flights.pop_front() {
                    pair.deliver(&flight);
                }
            }
            2 => pair.deliver_all(),
            3 => {
                let which = usize::from(input.arbitrary::<u8>().unwrap_or(0));
                let Some(flight) = pair.flights.get(which % pair.flights.len().max(1)) else { continue };
                let (from, to, mut bytes) = (flight.from, flight.to, flight.bytes.clone());
                damage(&mut bytes, &mut input);
                pair.deliver(&Flight { from, to, bytes });
            }
            4 => {
                let from = [ADDRESSES[1 - side], RELAY, STRANGER];
                let from = from[usize::from(input.arbitrary::<u8>().unwrap_or(0)) % from.len()];
                pair.receive(side, from, bytes(&mut input));
            }
            5 => pair.advance(pause(&mut input)),
            6 => pair.send(side, &packet(side, bytes(&mut input))),
            _ => {
                // The same datagram once more, and it stays on its way.
                let copy = pair.flights.front().map(|flight| flight.bytes.clone());
                if let (Some(bytes), Some(flight)) = (copy, pair.flights.front()) {
                    let again = Flight { from: flight.from, to: flight.to, bytes };
                    pair.deliver(&again);
                }
            }
        }
    }
}

/// Packets from the interface: whatever they are, the other end gets what was sent, or nothing.
pub fn tun_packets(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut pair = Pair::connected();
    for _ in 0..32 {
        let Ok(what) = input.arbitrary::<u8>() else { break };
        let mut bytes = bytes(&mut input).to_vec();
        match what % 3 {
            // Anything at all, ...
            0 => {}
            // ... content between the right addresses, ...
            1 => bytes = packet(0, &bytes),
            // ... and a packet that is nearly right.
            _ => {
                bytes = packet(0, &bytes);
                damage(&mut bytes, &mut input);
            }
        }
        if what & 0x40 != 0 {
            bytes.resize(bytes.len() + 1200, what);
        }
        pair.send(0, &bytes);
        pair.deliver_all();
    }
}
