//! Many light peers in one process: an engine and a UDP socket each, with real handshakes, and no interface. They are
//! members that a real agent enrolled, and know one other member, to which they send pings through the tunnel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use minicbor::Decode;
use netlab::Host;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ria_core::{AddNetwork, Command, DatagramBatch, Engine, EngineConfig, PacketBatch, Received};
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::map::{Candidate, CandidateKind, Live, Snapshot};
use ria_protocol::message::{LiveUpdate, from_bytes};
use ria_protocol::record::MemberRecord;
use std::os::fd::AsFd;
use zeroize::Zeroizing;

/// Before the content of a file of the agent's state: name and version, then the digest.
const STATE_HEADER: usize = b"ria-state-1\n".len() + 32;

/// The part of the agent's stored identity that is of interest here.
#[derive(Decode)]
#[cbor(map)]
struct StoredIdentity {
    #[n(0)]
    network: NetworkId,
    #[n(2)]
    node: NodeId,
}

#[derive(Decode)]
#[cbor(map)]
struct StoredKeys {
    #[cbor(n(0), with = "minicbor::bytes")]
    wg: [u8; 32],
}

/// A member, as an agent's state directory tells.
pub struct Identity {
    network: NetworkId,
    /// The member.
    pub node: NodeId,
    key: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// Reads it from a state directory; `None` while the agent has not stored a map.
    pub fn read(state: &Path) -> Option<(Self, Snapshot)> {
        let network = std::fs::read_dir(state.join("networks")).ok()?.flatten().map(|entry| entry.path());
        let dir = network.into_iter().find(|path| path.join("map").exists())?;
        let identity: StoredIdentity = read_part(&dir.join("identity"))?;
        let keys: StoredKeys = read_part(&dir.join("keys"))?;
        let map = read_part(&dir.join("map"))?;
        let key = Zeroizing::new(keys.wg);
        Some((Self { network: identity.network, node: identity.node, key }, map))
    }
}

fn read_part<T: for<'b> Decode<'b, ()>>(path: &Path) -> Option<T> {
    from_bytes(std::fs::read(path).ok()?.get(STATE_HEADER..)?).ok()
}

struct LightPeer {
    engine: Engine,
    socket: UdpSocket,
    network: NetworkId,
    ping: Vec<u8>,
    answers: u64,
}

/// All of them, on one host.
pub struct Crowd {
    peers: Vec<LightPeer>,
    udp: DatagramBatch,
    tun: PacketBatch,
}

impl Crowd {
    /// Makes the peers, each of which knows the member `to` at `place`.
    pub fn new(
        host: &Host,
        members: Vec<Identity>,
        map: &Snapshot,
        to: NodeId,
        place: SocketAddr,
    ) -> Result<Self> {
        let mut peers = Vec::new();
        for member in members {
            let socket = host.enter(|| UdpSocket::bind((host.address(), 0)))?;
            socket.set_nonblocking(true)?;
            peers.push(LightPeer::new(member, socket, map, to, place)?);
        }
        Ok(Self { peers, udp: DatagramBatch::default(), tun: PacketBatch::default() })
    }

    /// Has every peer ping every `interval` for so long.
    pub fn run(&mut self, interval: Duration, length: Duration) -> Result<()> {
        let end = Instant::now() + length;
        let mut ping_at = Instant::now();
        while Instant::now() < end {
            if Instant::now() >= ping_at {
                ping_at += interval;
                self.peers.iter_mut().for_each(|peer| peer.send_ping(&mut self.udp));
            }
            let due = self.peers.iter().filter_map(|peer| peer.engine.poll_timeout()).min();
            let wake = due.map_or(ping_at, |due| due.min(ping_at)).min(end);
            let wait = wake.saturating_duration_since(Instant::now());
            let mut fds: Vec<PollFd<'_>> =
                self.peers.iter().map(|peer| PollFd::new(peer.socket.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut fds, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX))?;
            for peer in &mut self.peers {
                peer.turn(&mut self.tun, &mut self.udp);
            }
        }
        Ok(())
    }

    /// How many peers got how many answers at least.
    pub fn answered(&self, at_least: u64) -> usize {
        self.peers.iter().filter(|peer| peer.answers >= at_least).count()
    }
}

impl LightPeer {
    fn new(
        member: Identity,
        socket: UdpSocket,
        map: &Snapshot,
        to: NodeId,
        place: SocketAddr,
    ) -> Result<Self> {
        let now = Instant::now();
        let network = member.network;
        let mut seed = [0; 32];
        seed.copy_from_slice(&member.key[..]);
        let mut engine = Engine::new(EngineConfig { seed });
        let boot = BootId::from_bytes(*b"light peer");
        let add = AddNetwork {
            id: network,
            private_key: member.key,
            node: member.node,
            boot,
            mtu: map.network.mtu,
        };
        engine.handle_command(Command::AddNetwork(add), now)?;
        let mut snapshot = map.clone();
        snapshot.members.retain(|m| record(m).is_some_and(|r| r.node == to || r.node == member.node));
        let address = |node| {
            snapshot.members.iter().filter_map(record).find(|r| r.node == node).and_then(|r| own_v4(&r))
        };
        let (from, at) = (address(member.node), address(to));
        let ping = echo_request(from.context("the peer's address")?, at.context("the agent's address")?);
        engine.handle_command(Command::SetMap { network, snapshot }, now)?;
        engine.handle_command(Command::SetHostCandidates(vec![socket.local_addr()?]), now)?;
        let candidates = vec![Candidate { kind: CandidateKind::Host, address: place }];
        let live = Live { node: to, online: true, boot: None, candidates };
        let update = LiveUpdate { whole: true, members: vec![live] };
        engine.handle_command(Command::ApplyLive { network, update }, now)?;
        Ok(Self { engine, socket, network, ping, answers: 0 })
    }

    fn send_ping(&mut self, udp: &mut DatagramBatch) {
        self.engine.handle_tun(self.network, [self.ping.as_slice()], Instant::now(), udp);
        self.transmit(udp);
    }

    fn turn(&mut self, tun: &mut PacketBatch, udp: &mut DatagramBatch) {
        let local = self.socket.local_addr().ok().map(|address| address.ip());
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            let data = buffer.get(..len).unwrap_or_default();
            self.engine.handle_udp(
                [Received { from, local, ecn: ria_core::Ecn::NotEct, data }],
                Instant::now(),
                tun,
                udp,
            );
        }
        // Echo replies: ICMP type 0 behind an IPv4 header without options.
        let answers =
            tun.networks_mut().flat_map(|(_, packets)| packets.iter()).filter(|p| p.get(20) == Some(&0));
        self.answers += answers.count() as u64;
        tun.clear();
        if self.engine.poll_timeout().is_some_and(|due| due <= Instant::now()) {
            self.engine.handle_timeout(Instant::now());
        }
        self.transmit(udp);
    }

    fn transmit(&mut self, udp: &mut DatagramBatch) {
        self.engine.poll_transmit(Instant::now(), udp);
        for transmit in udp.transmits() {
            for datagram in transmit.datagrams() {
                // What the kernel refuses is lost, as on any network.
                let _ = self.socket.send_to(datagram, transmit.to);
            }
        }
        udp.clear();
        while self.engine.poll_event().is_some() {}
    }
}

fn record(member: &ria_protocol::map::Member) -> Option<MemberRecord> {
    from_bytes(&member.record.bytes).ok()
}

fn own_v4(record: &MemberRecord) -> Option<Ipv4Addr> {
    record.prefixes.iter().find_map(|prefix| match prefix.address() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

/// An ICMP echo request in an IPv4 packet, which the other side's kernel answers.
fn echo_request(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 84, 0, 1, 0, 0, 64, 1, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let header = checksum(&packet);
    packet.splice(10..12, header);
    let mut message = vec![8, 0, 0, 0, 0, 1, 0, 1];
    message.resize(64, 0x55);
    let sum = checksum(&message);
    message.splice(2..4, sum);
    packet.extend(message);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[allow(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    (!(sum as u16)).to_be_bytes()
}

/// Enrols members with a real agent, one after the other in a few at a time, and reads who they are.
pub fn enrol(site: &crate::support::Site, host: &str, count: usize) -> Result<Vec<Identity>> {
    const AT_ONCE: usize = 4;
    let key = site.key()?;
    let machine = site.lab.host(host)?;
    let mut members = Vec::new();
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(AT_ONCE) {
        let mut agents = Vec::new();
        for n in some {
            // Each with a state of its own; that they get in each other's way later does not matter.
            let (state, run) = (format!("/run/crowd/{n}"), format!("/run/crowd-run/{n}"));
            let arguments = ["--join-file", &key, "--state-dir", &state, "--run-dir", &run];
            agents.push((site.agent(host, &arguments)?, machine.path(&state)));
        }
        for (agent, state) in &agents {
            let mut found = None;
            crate::support::until("a light peer is a member", || {
                found = Identity::read(state);
                Ok(found.is_some())
            })?;
            ensure!(agent.process.id() != 0, "the agent has ended");
            members.extend(found.map(|(identity, _)| identity));
        }
    }
    Ok(members)
}
