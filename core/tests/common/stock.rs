//! A device with stock WireGuard: boringtun, with WireGuard's own rules of when a handshake is due, in virtual time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use ria_protocol::id::NodeId;
use ria_protocol::keys::{PresharedKey, WgPublicKey};
use ria_protocol::map::{Member, MemberKind, StockPeer};
use ria_protocol::prefix::Prefix;
use ria_protocol::record::{MemberRecord, SignedRecord};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{World, network, node};

/// An initiator renews its session, when it sends, after this time.
const REKEY_AFTER: Duration = Duration::from_secs(120);

/// Data is answered after this time, if only by a keepalive.
const PASSIVE_KEEPALIVE: Duration = Duration::from_secs(10);

/// A device.
pub struct Device {
    pub address: SocketAddr,
    /// Where it believes its one peer to be.
    pub endpoint: SocketAddr,
    pub key: [u8; 32],
    pub received: Vec<(Instant, Vec<u8>)>,
    /// Cookies that it was sent.
    pub cookies: u32,
    /// Handshakes that it began.
    pub began: u32,
    tunn: Tunn,
    /// When its session began, and whether it began it.
    session: Option<(Instant, bool)>,
    waiting: Vec<Vec<u8>>,
    /// Since when it owes an answer to data.
    owes: Option<Instant>,
}

impl Device {
    /// The datagrams of a handshake's beginning.
    pub fn begin(&mut self) -> Vec<u8> {
        let mut out = vec![0; 200];
        self.began += 1;
        let TunnResult::WriteToNetwork(bytes) = self.tunn.format_handshake_initiation(&mut out, true) else {
            panic!("nothing to send");
        };
        bytes.to_vec()
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        self.owes = None;
        let mut out = vec![0; packet.len() + 200];
        let TunnResult::WriteToNetwork(bytes) = self.tunn.encapsulate(packet, &mut out) else {
            panic!("nothing to send");
        };
        bytes.to_vec()
    }

    /// The datagrams that a packet becomes.
    pub fn send(&mut self, packet: &[u8], now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let due = self.session.is_none_or(|(at, own)| own && now - at >= REKEY_AFTER);
        if due {
            out.push(self.begin());
        }
        match self.session {
            Some(_) => out.push(self.seal(packet)),
            None => self.waiting.push(packet.to_vec()),
        }
        out
    }

    fn handle(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> Vec<Vec<u8>> {
        let mut room = vec![0; 2000];
        let kind = datagram[0];
        let mut out = Vec::new();
        match self.tunn.decapsulate(None, datagram, &mut room) {
            TunnResult::WriteToNetwork(bytes) => out.push(bytes.to_vec()),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                self.received.push((now, packet.to_vec()));
                // The passive keepalive; here with the next packet, not by a timer.
                if now - *self.owes.get_or_insert(now) >= PASSIVE_KEEPALIVE {
                    out.push(self.seal(&[]));
                }
            }
            TunnResult::Done => {}
            TunnResult::Err(_) => return out,
        }
        match kind {
            // Its own session is confirmed by the first data, which the other end sends at once.
            1 => {}
            2 => self.session = Some((now, true)),
            3 => self.cookies += 1,
            _ if self.session.is_none() => self.session = Some((now, false)),
            _ => {}
        }
        if kind != 3 {
            self.endpoint = from;
        }
        if self.session.is_some() {
            for packet in std::mem::take(&mut self.waiting) {
                out.push(self.seal(&packet));
            }
        }
        out
    }
}

/// The device's number in the overlay.
pub fn device_node(device: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(200 + device).unwrap(); 10])
}

pub fn device_overlay(device: usize) -> [u8; 4] {
    [10, 213, 1, u8::try_from(device + 1).unwrap()]
}

/// An IPv4 packet with a hop limit between any two.
pub fn routed(from: [u8; 4], to: [u8; 4], number: u32, hops: u8, len: usize) -> Vec<u8> {
    let mut packet = super::packet(0, 0, number, len);
    packet[8] = hops;
    packet[12..16].copy_from_slice(&from);
    packet[16..20].copy_from_slice(&to);
    packet
}

impl World {
    /// A device that talks to a host.
    pub fn device(&mut self, host: usize, psk: Option<&PresharedKey>) -> usize {
        let index = self.devices.len();
        let mut key = [0; 32];
        key.iter_mut().for_each(|byte| *byte = u8::try_from(self.random(256)).unwrap());
        let secret = StaticSecret::from(key);
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&secret), u64::MAX));
        let peer = PublicKey::from(self.hosts[host].public_key().0);
        let number = u8::try_from(index + 1).unwrap();
        let device = Device {
            address: SocketAddr::from(([192, 0, 2, number], 51_820)),
            endpoint: self.public(host),
            key,
            received: Vec::new(),
            cookies: 0,
            began: 0,
            tunn: Tunn::new(secret, peer, psk.map(|psk| psk.0), None, 7, Some(limiter)),
            session: None,
            waiting: Vec::new(),
            owes: None,
        };
        self.devices.push(device);
        index
    }

    /// A device as the map lists it.
    pub fn device_member(&self, device: usize, stock: StockPeer) -> Member {
        let public = PublicKey::from(&StaticSecret::from(self.devices[device].key));
        let record = MemberRecord {
            network: network(),
            node: device_node(device),
            wg_key: WgPublicKey(public.to_bytes()),
            prefixes: vec![Prefix::host(IpAddr::from(device_overlay(device)))],
            tags: vec![],
            expires: None,
        };
        Member {
            record: SignedRecord::unsigned(&record),
            name: format!("device-{device}").parse().unwrap(),
            kind: MemberKind::Static,
            stock: Some(stock),
            ros_domain: None,
            routes: None,
        }
    }

    /// A host as the map lists it when it forwards for devices.
    pub fn gateway_member(&self, host: usize, devices: &[usize]) -> Member {
        let member = self.member(host);
        let mut record = member.record.open(network(), &[]).unwrap();
        assert_eq!(record.node, node(host));
        record.prefixes.extend(devices.iter().map(|d| Prefix::host(IpAddr::from(device_overlay(*d)))));
        Member { record: SignedRecord::unsigned(&record), kind: MemberKind::Gateway, ..member }
    }

    pub fn deliver_to_device(&mut self, device: usize, from: SocketAddr, bytes: &[u8]) {
        let now = self.now;
        let answers = self.devices[device].handle(from, bytes, now);
        self.launch_from_device(device, answers);
    }

    /// A device sends a packet.
    pub fn send_from_device(&mut self, device: usize, packet: &[u8]) {
        let now = self.now;
        let datagrams = self.devices[device].send(packet, now);
        self.launch_from_device(device, datagrams);
    }

    pub fn launch_from_device(&mut self, device: usize, datagrams: Vec<Vec<u8>>) {
        let (from, to) = (self.devices[device].address, self.devices[device].endpoint);
        for bytes in datagrams {
            self.launch(from, to, bytes);
        }
    }
}
