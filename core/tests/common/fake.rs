//! Sessions without cryptography, for what WireGuard's own clock does not let a simulation do: handshakes carry a
//! timestamp of a clock that a test sets, and, as WireGuard's, are refused when it does not grow.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ria_core::DropReason;
use ria_core::session::{HANDSHAKE_ROOM, Initiator, NetworkSessions, OVERHEAD, Session, SessionFactory};
use ria_protocol::keys::{PresharedKey, WgPublicKey};
use x25519_dalek::{PublicKey, StaticSecret};

/// Makes fake sessions; their clock is what a test sets, and it ticks with each reading.
pub struct Fake(pub Arc<AtomicU64>);

impl SessionFactory for Fake {
    fn network(&self, private_key: &[u8; 32]) -> Box<dyn NetworkSessions> {
        let public = WgPublicKey(PublicKey::from(&StaticSecret::from(*private_key)).to_bytes());
        Box::new(FakeNetwork { public, clock: Arc::clone(&self.0) })
    }
}

struct FakeNetwork {
    public: WgPublicKey,
    clock: Arc<AtomicU64>,
}

impl NetworkSessions for FakeNetwork {
    fn public_key(&self) -> WgPublicKey {
        self.public
    }

    fn identify(&mut self, datagram: &[u8], _source: IpAddr, _now: Instant, _reply: &mut [u8]) -> Initiator {
        if datagram[48..80] != self.public.0 {
            return Initiator::NotForUs;
        }
        Initiator::Peer(WgPublicKey(datagram[16..48].try_into().unwrap()))
    }

    fn session(&self, peer: &WgPublicKey, _psk: Option<&PresharedKey>, index: u32) -> Box<dyn Session> {
        let (own, peer, clock) = (self.public, *peer, Arc::clone(&self.clock));
        Box::new(FakeSession { own, peer, clock, index, newest: 0, remote: None, ready: false })
    }
}

struct FakeSession {
    own: WgPublicKey,
    peer: WgPublicKey,
    clock: Arc<AtomicU64>,
    index: u32,
    newest: u64,
    remote: Option<u32>,
    ready: bool,
}

impl FakeSession {
    fn write(&self, kind: u8, len: usize, out: &mut [u8]) -> Option<usize> {
        out[..len].fill(0);
        out[0] = kind;
        out[4..8].copy_from_slice(&(self.index << 8).to_le_bytes());
        Some(len)
    }
}

impl Session for FakeSession {
    fn is_ready(&self) -> bool {
        self.ready
    }

    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let remote = self.remote.filter(|_| self.ready)?;
        out[..OVERHEAD].fill(0);
        out[0] = 4;
        out[4..8].copy_from_slice(&remote.to_le_bytes());
        out[16..16 + packet.len()].copy_from_slice(packet);
        out[16 + packet.len()..OVERHEAD + packet.len()].fill(0);
        Some(OVERHEAD + packet.len())
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        if self.remote.is_none() {
            return Err(DropReason::NoSuchSession);
        }
        self.ready = true;
        let packet = &datagram[16..datagram.len() - 16];
        out[..packet.len()].copy_from_slice(packet);
        Ok(packet.len())
    }

    fn handle_handshake(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        let remote = u32::from_le_bytes(datagram[4..8].try_into().unwrap());
        if datagram[0] == 2 {
            (self.remote, self.ready) = (Some(remote), true);
            return Ok(self.seal(&[], out));
        }
        let stamp = u64::from_le_bytes(datagram[8..16].try_into().unwrap());
        if stamp <= self.newest {
            return Err(DropReason::Unexpected);
        }
        (self.newest, self.remote) = (stamp, Some(remote));
        self.write(2, 92, out);
        out[8..12].copy_from_slice(&remote.to_le_bytes());
        Ok(Some(92))
    }

    fn initiate(&mut self, out: &mut [u8]) -> Option<usize> {
        self.write(1, HANDSHAKE_ROOM, out);
        out[8..16].copy_from_slice(&self.clock.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        out[16..48].copy_from_slice(&self.own.0);
        out[48..80].copy_from_slice(&self.peer.0);
        Some(HANDSHAKE_ROOM)
    }

    fn tick(&mut self, _out: &mut [u8]) -> Option<usize> {
        None
    }
}
