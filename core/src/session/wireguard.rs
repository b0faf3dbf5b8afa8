//! The real session: boringtun's `Tunn`.
//!
//! `Tunn` reads the clock and the operating system's randomness itself, which is the named exception to core's rule. Of
//! its timers we use the expiry of keys and the passive keepalive; retransmission and rekeying are the shard's, since
//! `Tunn` retransmits after 5 s only, and two ends that rekey at once leave a hole.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use ria_protocol::keys::{PresharedKey, WgPublicKey};
use x25519_dalek::{PublicKey, StaticSecret};

use super::flood::FloodGuard;
use super::{Initiator, NetworkSessions, Session, SessionFactory};
use crate::counters::DropReason;

/// Handshake initiations per second and network that are answered without proof of address. One costs about 100 us, so
/// this bounds a flood to a twentieth of a core, and a hub of hundreds of robots that all come back at once is served.
const HANDSHAKES_PER_SECOND: u64 = 500;

/// Makes sessions of boringtun.
#[derive(Debug, Clone, Copy, Default)]
pub struct WireGuard;

impl SessionFactory for WireGuard {
    fn network(&self, private_key: &[u8; 32]) -> Box<dyn NetworkSessions> {
        let private = StaticSecret::from(*private_key);
        let public = PublicKey::from(&private);
        Box::new(WireGuardNetwork {
            limiter: RateLimiter::new(&public, HANDSHAKES_PER_SECOND),
            // Messages have passed the limiter above before a `Tunn` sees them; counting them twice would halve it.
            unlimited: Arc::new(RateLimiter::new(&public, u64::MAX)),
            guard: FloodGuard::new(HANDSHAKES_PER_SECOND),
            private,
            public,
        })
    }
}

struct WireGuardNetwork {
    private: StaticSecret,
    public: PublicKey,
    limiter: RateLimiter,
    unlimited: Arc<RateLimiter>,
    guard: FloodGuard,
}

impl NetworkSessions for WireGuardNetwork {
    fn public_key(&self) -> WgPublicKey {
        WgPublicKey(self.public.to_bytes())
    }

    fn identify(&mut self, datagram: &[u8], source: IpAddr, now: Instant, reply: &mut [u8]) -> Initiator {
        self.limiter.reset_count();
        let initiation = match self.limiter.verify_packet(Some(source), datagram, reply) {
            // Under load, this one has proved its address; an address that is real may flood all the same.
            Ok(Packet::HandshakeInit(_)) if !self.guard.admits(source, now) => {
                return Initiator::Drop(DropReason::RateLimited);
            }
            Ok(Packet::HandshakeInit(initiation)) => initiation,
            Ok(_) => return Initiator::Drop(DropReason::Malformed),
            Err(TunnResult::WriteToNetwork(cookie)) => {
                self.guard.note_challenged(now);
                return Initiator::Cookie(cookie.len());
            }
            // The first MAC is keyed with the receiver's public key.
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => return Initiator::NotForUs,
            Err(_) => return Initiator::Drop(DropReason::RateLimited),
        };
        match parse_handshake_anon(&self.private, &self.public, &initiation) {
            Ok(half) => Initiator::Peer(WgPublicKey(half.peer_static_public)),
            Err(_) => Initiator::Drop(DropReason::Unauthentic),
        }
    }

    fn session(&self, peer: &WgPublicKey, psk: Option<&PresharedKey>, index: u32) -> Box<dyn Session> {
        let tunn = Tunn::new(
            self.private.clone(),
            PublicKey::from(peer.0),
            psk.map(|psk| psk.0),
            None,
            index,
            Some(Arc::clone(&self.unlimited)),
        );
        Box::new(TunnSession { tunn, ready: false })
    }
}

struct TunnSession {
    tunn: Tunn,
    /// Whether `Tunn` has a session to send with. Kept here because asking it costs a clock reading per packet, and
    /// because sealing without one would put the packet into its own queue, which knows no age.
    ready: bool,
}

impl TunnSession {
    fn look(&mut self) {
        self.ready = self.tunn.time_since_last_handshake().is_some();
    }
}

impl Session for TunnSession {
    fn is_ready(&self) -> bool {
        self.ready
    }

    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if !self.ready {
            return None;
        }
        written(self.tunn.encapsulate(packet, out))
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        let len = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => packet.len(),
            TunnResult::Done => 0,
            TunnResult::Err(error) => return Err(reason(&error)),
            TunnResult::WriteToNetwork(_) => return Err(DropReason::Malformed),
        };
        // Data that opens proves that the other end has the keys: from now on we may use them too.
        self.ready = true;
        Ok(len)
    }

    fn handle_handshake(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        let result = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToNetwork(reply) => Ok(Some(reply.len())),
            TunnResult::Done => Ok(None),
            TunnResult::Err(error) => Err(reason(&error)),
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => Err(DropReason::Malformed),
        };
        self.look();
        result
    }

    fn initiate(&mut self, out: &mut [u8]) -> Option<usize> {
        written(self.tunn.format_handshake_initiation(out, true))
    }

    fn tick(&mut self, out: &mut [u8]) -> Option<usize> {
        let due = written(self.tunn.update_timers(out));
        self.look();
        due
    }
}

fn written(result: TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Some(datagram.len()),
        TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => None,
    }
}

fn reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => DropReason::Replayed,
        WireGuardError::WrongIndex | WireGuardError::NoCurrentSession => DropReason::NoSuchSession,
        WireGuardError::InvalidMac | WireGuardError::InvalidAeadTag | WireGuardError::WrongKey => {
            DropReason::Unauthentic
        }
        WireGuardError::UnexpectedPacket
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::ConnectionExpired => DropReason::Unexpected,
        WireGuardError::UnderLoad | WireGuardError::LockFailed => DropReason::RateLimited,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::WrongPacketType
        | WireGuardError::InvalidPacket => DropReason::Malformed,
    }
}
