//! Sessions without cryptography that behave in time as boringtun's `Tunn` does, on a clock that the simulation sets.
//!
//! What counts for the engine is kept: message lengths and indices, the ring of eight sessions of which old ones still
//! open, confirmation by the initiator's first data, the replay window, the timestamp of initiations that must grow,
//! the end of keys after 180 s, renewal by the initiator after 120 s, retransmission after 5 s, surrender after 90 s and
//! the passive keepalive after 10 s. Who does not hold the keys can forge nothing: each message bears a keyed hash.
//!
//! ```text
//!  initiation   type sender ephemeral:8 initiator:32 responder:32 timestamp:8 hash:8 0...   148 bytes
//!  response     type sender receiver ephemeral:8 hash:8 0...                                 92 bytes
//!  data         type receiver counter:8 packet hash:8 0:8                                    32 bytes and the packet
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ria_core::DropReason;
use ria_core::session::{HANDSHAKE_ROOM, Initiator, NetworkSessions, OVERHEAD, Session, SessionFactory};
use ria_protocol::keys::{PresharedKey, WgPublicKey};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::random::{hash, mix};

const SECOND: u64 = 1_000_000;
const REKEY_AFTER: u64 = 120 * SECOND;
const REJECT_AFTER: u64 = 180 * SECOND;
const ATTEMPT_FOR: u64 = 90 * SECOND;
const RETRANSMIT_AFTER: u64 = 5 * SECOND;
const KEEPALIVE_AFTER: u64 = 10 * SECOND;
const RESPONSE_LEN: usize = 92;
const SESSIONS: u32 = 8;

/// The clocks of a host, in microseconds: one that only goes forward, and the one on its wall.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    now: Arc<AtomicU64>,
    wall: Arc<AtomicU64>,
}

impl Clock {
    /// A clock of another host in the same time.
    pub fn neighbour(&self, wall: u64) -> Self {
        Self { now: Arc::clone(&self.now), wall: Arc::new(AtomicU64::new(wall)) }
    }

    /// Sets the time of all hosts.
    pub fn set(&self, micros: u64) {
        self.now.store(micros, Ordering::Relaxed);
    }

    /// Sets how far this host's wall clock is ahead of the time.
    pub fn set_wall(&self, ahead: u64) {
        self.wall.store(ahead, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn wall(&self) -> u64 {
        self.wall.load(Ordering::Relaxed)
    }
}

/// Makes the sessions of one run of a host's agent.
pub struct SimSessions {
    clock: Clock,
    seed: u64,
}

impl SimSessions {
    /// With the host's clock, and a seed that no other run has.
    pub fn new(clock: Clock, seed: u64) -> Self {
        Self { clock, seed }
    }
}

impl SessionFactory for SimSessions {
    fn network(&self, private_key: &[u8; 32]) -> Box<dyn NetworkSessions> {
        let public = WgPublicKey(PublicKey::from(&StaticSecret::from(*private_key)).to_bytes());
        Box::new(SimNetwork { public, clock: self.clock.clone(), seed: self.seed })
    }
}

struct SimNetwork {
    public: WgPublicKey,
    clock: Clock,
    seed: u64,
}

impl NetworkSessions for SimNetwork {
    fn public_key(&self) -> WgPublicKey {
        self.public
    }

    fn identify(&mut self, datagram: &[u8], _source: IpAddr, _now: Instant, _reply: &mut [u8]) -> Initiator {
        let Some(initiation) = Initiation::read(datagram) else {
            return Initiator::Drop(DropReason::Malformed);
        };
        if initiation.responder != self.public.0 {
            return Initiator::NotForUs;
        }
        if !initiation.is_authentic {
            return Initiator::Drop(DropReason::Unauthentic);
        }
        Initiator::Peer(WgPublicKey(initiation.initiator))
    }

    fn session(&self, peer: &WgPublicKey, _psk: Option<&PresharedKey>, index: u32) -> Box<dyn Session> {
        let now = self.clock.now();
        Box::new(SimSession {
            own: self.public,
            peer: *peer,
            // Tunn reads the wall clock once and counts on from there.
            wall: self.clock.wall(),
            clock: self.clock.clone(),
            seed: mix(self.seed ^ now ^ u64::from(index) << 32),
            next_index: index << 8,
            sent: None,
            sent_before: None,
            newest: 0,
            rings: Default::default(),
            current: 0,
            ready: false,
            is_initiator: false,
            times: Times::begin(now),
        })
    }
}

struct Initiation {
    sender: u32,
    ephemeral: u64,
    initiator: [u8; 32],
    responder: [u8; 32],
    timestamp: u64,
    is_authentic: bool,
}

impl Initiation {
    fn read(datagram: &[u8]) -> Option<Self> {
        if datagram.len() != HANDSHAKE_ROOM {
            return None;
        }
        let (initiator, responder) =
            (*datagram.get(16..)?.first_chunk()?, *datagram.get(48..)?.first_chunk()?);
        let key = pair_key(&initiator, &responder);
        let is_authentic = hash(key, datagram.get(..88)?) == number(datagram, 88)?;
        Some(Self {
            sender: index(datagram, 4)?,
            ephemeral: number(datagram, 8)?,
            initiator,
            responder,
            timestamp: number(datagram, 80)?,
            is_authentic,
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    index: u32,
    ephemeral: u64,
    at: u64,
}

/// Keys that a handshake gave.
struct Keys {
    local: u32,
    remote: u32,
    secret: u64,
    is_initiator: bool,
    counter: u64,
    window: Window,
    since: u64,
}

/// What `Tunn` remembers the time of. All are of its last look at the clock.
struct Times {
    looked: u64,
    established: u64,
    handshake_started: u64,
    received: u64,
    sent: u64,
    data_received: u64,
    data_sent: u64,
    wants_keepalive: bool,
    wants_handshake: bool,
}

impl Times {
    fn begin(now: u64) -> Self {
        Self {
            looked: now,
            established: now,
            handshake_started: now,
            received: now,
            sent: now,
            data_received: now,
            data_sent: now,
            wants_keepalive: false,
            wants_handshake: false,
        }
    }

    fn note_received(&mut self) {
        self.received = self.looked;
        self.wants_keepalive = true;
        self.wants_handshake = false;
    }

    fn note_sent(&mut self) {
        self.sent = self.looked;
        self.wants_handshake = true;
        self.wants_keepalive = false;
    }
}

struct SimSession {
    own: WgPublicKey,
    peer: WgPublicKey,
    wall: u64,
    clock: Clock,
    seed: u64,
    next_index: u32,
    sent: Option<Sent>,
    sent_before: Option<Sent>,
    newest: u64,
    rings: [Option<Keys>; SESSIONS as usize],
    current: u32,
    ready: bool,
    is_initiator: bool,
    times: Times,
}

impl SimSession {
    fn draw(&mut self) -> u64 {
        self.seed = mix(self.seed.wrapping_add(1));
        self.seed
    }

    fn draw_index(&mut self) -> u32 {
        let count = self.next_index.to_le_bytes()[0].wrapping_add(1);
        self.next_index = (self.next_index & !0xff) | u32::from(count);
        self.next_index
    }

    fn keys(&mut self, local: u32) -> Option<&mut Keys> {
        self.rings.get_mut((local % SESSIONS) as usize)?.as_mut()
    }

    fn establish(&mut self, keys: Keys) {
        let local = keys.local;
        self.is_initiator = keys.is_initiator;
        self.times.established = self.times.looked;
        if let Some(place) = self.rings.get_mut((local % SESSIONS) as usize) {
            *place = Some(keys);
        }
    }

    fn make_current(&mut self, local: u32) {
        if local == self.current {
            return;
        }
        let since = |keys: Option<&mut Keys>| keys.map(|keys| keys.since);
        let (new, old) = (since(self.keys(local)), since(self.keys(self.current)));
        if old.is_none() || new >= old {
            self.current = local;
        }
    }

    fn look(&mut self) {
        self.ready = self.keys(self.current).is_some();
    }

    fn clear(&mut self) {
        self.rings = Default::default();
        self.times = Times::begin(self.times.looked);
        (self.sent, self.sent_before) = (None, None);
    }

    fn handle_initiation(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        let initiation = Initiation::read(datagram).ok_or(DropReason::Malformed)?;
        let for_us = initiation.responder == self.own.0 && initiation.initiator == self.peer.0;
        if !for_us || !initiation.is_authentic {
            return Err(DropReason::Unauthentic);
        }
        if initiation.timestamp <= self.newest {
            return Err(DropReason::Unexpected);
        }
        self.newest = initiation.timestamp;
        self.sent_before = self.sent.take();
        let (local, ephemeral) = (self.draw_index(), self.draw());
        let secret = self.secret(initiation.ephemeral, ephemeral);
        let room = out.get_mut(..RESPONSE_LEN).ok_or(DropReason::BatchFull)?;
        room.fill(0);
        put(room, 0, &[2]);
        put(room, 4, &local.to_le_bytes());
        put(room, 8, &initiation.sender.to_le_bytes());
        put(room, 12, &ephemeral.to_le_bytes());
        let tag = hash(secret, room.get(..20).unwrap_or_default());
        put(room, 20, &tag.to_le_bytes());
        let since = self.times.looked;
        self.times.note_received();
        self.times.note_sent();
        self.establish(Keys {
            local,
            remote: initiation.sender,
            secret,
            is_initiator: false,
            counter: 0,
            window: Window::default(),
            since,
        });
        Ok(Some(RESPONSE_LEN))
    }

    fn handle_response(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        let (Some(remote), Some(local)) = (index(datagram, 4), index(datagram, 8)) else {
            return Err(DropReason::Malformed);
        };
        let is_it = |sent: &Option<Sent>| sent.filter(|sent| sent.index == local);
        let (sent, is_latest) = match (is_it(&self.sent), is_it(&self.sent_before)) {
            (Some(sent), _) => (sent, true),
            (None, Some(sent)) => (sent, false),
            (None, None) => return Err(DropReason::Unexpected),
        };
        let ephemeral = number(datagram, 12).ok_or(DropReason::Malformed)?;
        let secret = self.secret(sent.ephemeral, ephemeral);
        if number(datagram, 20) != Some(hash(secret, datagram.get(..20).unwrap_or_default())) {
            return Err(DropReason::Unauthentic);
        }
        if is_latest {
            self.sent = None;
        } else {
            self.sent_before = None;
        }
        let since = self.times.looked;
        self.times.note_received();
        self.establish(Keys {
            local,
            remote,
            secret,
            is_initiator: true,
            counter: 0,
            window: Window::default(),
            since,
        });
        self.make_current(local);
        // A keepalive confirms the keys to the other end, whatever is current here.
        let keepalive = self.keys(local).and_then(|keys| keys.seal(&[], out));
        Ok(keepalive)
    }

    fn secret(&self, initiator: u64, responder: u64) -> u64 {
        hash(mix(initiator) ^ responder, &pair_key(&self.own.0, &self.peer.0).to_le_bytes())
    }

    /// What `Tunn`'s timers ask for: `Some(true)` a handshake, `Some(false)` a keepalive.
    fn due(&mut self, now: u64) -> Option<bool> {
        let since = |at: u64| now.saturating_sub(at);
        if since(self.times.established) >= 3 * REJECT_AFTER {
            self.clear();
            return None;
        }
        if let Some(sent) = self.sent {
            if since(self.times.handshake_started) >= ATTEMPT_FOR {
                self.clear();
                return None;
            }
            return (since(sent.at) >= RETRANSMIT_AFTER).then_some(true);
        }
        let times = &mut self.times;
        let age = since(times.established);
        let renew = self.is_initiator
            && (times.established < times.data_sent && age >= REKEY_AFTER
                || times.established < times.data_received
                    && age >= REJECT_AFTER - KEEPALIVE_AFTER - RETRANSMIT_AFTER);
        let unheard = times.data_sent > times.received
            && since(times.received) >= KEEPALIVE_AFTER + RETRANSMIT_AFTER
            && std::mem::take(&mut times.wants_handshake);
        if renew || unheard {
            return Some(true);
        }
        let owed = times.data_received > times.sent
            && since(times.sent) >= KEEPALIVE_AFTER
            && std::mem::take(&mut times.wants_keepalive);
        owed.then_some(false)
    }
}

impl Keys {
    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let room = out.get_mut(..OVERHEAD + packet.len())?;
        room.fill(0);
        put(room, 0, &[4]);
        put(room, 4, &self.remote.to_le_bytes());
        put(room, 8, &self.counter.to_le_bytes());
        put(room, 16, packet);
        self.counter += 1;
        let end = 16 + packet.len();
        let tag = hash(self.secret ^ u64::from(self.is_initiator), room.get(..end)?);
        put(room, end, &tag.to_le_bytes());
        Some(room.len())
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        let end = datagram.len().checked_sub(16).ok_or(DropReason::Malformed)?;
        let (Some(packet), Some(counter)) = (datagram.get(16..end), number(datagram, 8)) else {
            return Err(DropReason::Malformed);
        };
        if index(datagram, 4) != Some(self.local) {
            return Err(DropReason::NoSuchSession);
        }
        let tag = hash(self.secret ^ u64::from(!self.is_initiator), datagram.get(..end).unwrap_or_default());
        let mut sealed = [0; 16];
        put(&mut sealed, 0, &tag.to_le_bytes());
        if datagram.get(end..) != Some(&sealed) {
            return Err(DropReason::Unauthentic);
        }
        if !self.window.take(counter) {
            return Err(DropReason::Replayed);
        }
        put(out, 0, packet);
        Ok(packet.len())
    }
}

impl Session for SimSession {
    fn is_ready(&self) -> bool {
        self.ready
    }

    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if !self.ready {
            return None;
        }
        let len = self.keys(self.current)?.seal(packet, out)?;
        self.times.note_sent();
        if !packet.is_empty() {
            self.times.data_sent = self.times.looked;
        }
        Some(len)
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        let local = index(datagram, 4).ok_or(DropReason::Malformed)?;
        let len = self.keys(local).ok_or(DropReason::NoSuchSession)?.open(datagram, out)?;
        self.make_current(local);
        self.times.note_received();
        if len > 0 {
            self.times.data_received = self.times.looked;
        }
        self.ready = true;
        Ok(len)
    }

    fn handle_handshake(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        let result = match datagram.first() {
            Some(1) => self.handle_initiation(datagram, out),
            Some(2) => self.handle_response(datagram, out),
            // Nobody here is under load, so nobody sends cookies.
            _ => Err(DropReason::Unexpected),
        };
        self.look();
        result
    }

    fn initiate(&mut self, out: &mut [u8]) -> Option<usize> {
        let now = self.clock.now();
        let (index, ephemeral) = (self.draw_index(), self.draw());
        let room = out.get_mut(..HANDSHAKE_ROOM)?;
        room.fill(0);
        put(room, 0, &[1]);
        put(room, 4, &index.to_le_bytes());
        put(room, 8, &ephemeral.to_le_bytes());
        put(room, 16, &self.own.0);
        put(room, 48, &self.peer.0);
        put(room, 80, &(self.wall.saturating_add(now)).to_le_bytes());
        let tag = hash(pair_key(&self.own.0, &self.peer.0), room.get(..88)?);
        put(room, 88, &tag.to_le_bytes());
        if self.sent.is_none() {
            self.times.handshake_started = self.times.looked;
        }
        self.sent_before = self.sent.replace(Sent { index, ephemeral, at: now });
        self.times.note_sent();
        Some(HANDSHAKE_ROOM)
    }

    fn tick(&mut self, out: &mut [u8]) -> Option<usize> {
        let now = self.clock.now();
        self.times.looked = now;
        for place in &mut self.rings {
            place.take_if(|keys| now.saturating_sub(keys.since) > REJECT_AFTER);
        }
        let due = self.due(now);
        self.look();
        match due {
            Some(true) => self.initiate(out),
            Some(false) => self.seal(&[], out),
            None => None,
        }
    }
}

/// A key that two hosts share. Nobody in the simulation computes what is not theirs.
fn pair_key(a: &[u8; 32], b: &[u8; 32]) -> u64 {
    let (first, second) = if a < b { (a, b) } else { (b, a) };
    hash(hash(1, first), second)
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = to.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn index(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Which counters came: the newest 1024, as in boringtun.
#[derive(Debug, Default)]
struct Window {
    next: u64,
    seen: [u64; 16],
}

impl Window {
    const LEN: u64 = 1024;

    fn bit(&mut self, counter: u64) -> (&mut u64, u64) {
        let place = counter % Self::LEN;
        (&mut self.seen[(place / 64) as usize], 1 << (place % 64))
    }

    fn take(&mut self, counter: u64) -> bool {
        if counter + Self::LEN < self.next {
            return false;
        }
        for skipped in self.next.max(counter.saturating_sub(Self::LEN))..=counter {
            let (word, bit) = self.bit(skipped);
            *word &= !bit;
        }
        self.next = self.next.max(counter + 1);
        let (word, bit) = self.bit(counter);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_takes_each_counter_once() {
        let mut window = Window::default();
        assert!(window.take(0) && window.take(5) && window.take(3));
        assert!(!window.take(5) && !window.take(0) && window.take(4));
        assert!(window.take(5000) && !window.take(5) && window.take(4500) && !window.take(4500));
    }
}
