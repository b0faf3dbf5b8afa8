//! Probes: our own small datagrams that prove and measure a path.
//!
//! ```text
//!  0      1         9        21                          67        83
//!  | 0xd1 | pair tag | nonce | ChaCha20-Poly1305(body)   | AEAD tag |
//!
//!  body:  0      1      11       19      27                46
//!         | kind | boot | number | echo  | observed address |
//!
//!  observed address: family (0: none), 16 bytes, port; without one, in place of the port, how many DDS participants the
//!  sender has, and one more (0: not told), and in place of the first bytes of the address what the sender knows
//!  ([`Skills`]), whether it asks for the time or tells it ([`Clock`]), and the time: 8 bytes, nanoseconds since 1970
//!
//! What follows a probe only fills a datagram up to a size that is being tried.
//! ```
//!
//! They are apart from WireGuard's sessions, whose replay window would drop what comes late over another path, and they
//! work before there is a session. Keys belong to a pair of nodes and to a direction: HKDF-SHA256 (RFC 5869) over
//! X25519 of the two static keys, with the network's id and both public keys as context. All probes have one length,
//! so an answer is never larger than the question. `number` grows with each probe of a boot, and a receiver takes each
//! number of a boot once; a replayed ping of an older boot gets a pong and has no other effect.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ria_protocol::id::{BootId, NetworkId};
use ria_protocol::keys::WgPublicKey;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::ice::credentials::Root;
use crate::rng::Rng;

/// First byte of each probe.
pub(crate) const FIRST_BYTE: u8 = 0xd1;

/// Length of each probe.
pub(crate) const LEN: usize = BODY_AT + BODY_LEN + 16;

const TAG_LEN: usize = 8;
const NONCE_AT: usize = 1 + TAG_LEN;
const BODY_AT: usize = NONCE_AT + 12;
const BODY_LEN: usize = 1 + BootId::LEN + 8 + 8 + ADDRESS_LEN;
const ADDRESS_LEN: usize = 19;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    /// Please answer.
    Ping,
    /// The answer.
    Pong,
}

/// The content of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) kind: ProbeKind,
    /// The sender's run.
    pub(crate) boot: BootId,
    /// The sender's count of probes in this run.
    pub(crate) number: u64,
    /// Of a ping: random; of a pong: that of its ping.
    pub(crate) echo: u64,
    /// Of a pong: where its ping came from, as the answering end saw it.
    pub(crate) observed: Option<SocketAddr>,
    /// Without `observed`: how many DDS participants the sender has, as it counts them itself.
    pub(crate) participants: Option<u16>,
    /// Without `observed`: what the sender knows.
    pub(crate) skills: Option<Skills>,
    /// Without `observed`: a question for the time, or its answer.
    pub(crate) clock: Clock,
}

/// The time in a probe. Older ones know nothing of it, and answer as always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Clock {
    /// No word of it.
    #[default]
    Silent,
    /// Of a ping: it is this time here, in nanoseconds since 1970; say in the pong what time it is there, in place of where
    /// the ping came from.
    Asked(u64),
    /// Of a pong: the time.
    Told(u64),
}

/// What a node knows that not each one does. Older ones tell nothing, which is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Skills(pub(crate) u8);

impl Skills {
    /// It carries marks of congestion over to the packets inside (RFC 6040).
    pub(crate) const ECN: u8 = 1;

    /// It answers probes that are filled up.
    const SIZES: u8 = 2;

    /// Those of this version.
    pub(crate) const OWN: Self = Self(Self::ECN | Self::SIZES);

    pub(crate) fn carries_marks(self) -> bool {
        self.0 & Self::ECN != 0
    }

    pub(crate) fn answers_sizes(self) -> bool {
        self.0 & Self::SIZES != 0
    }
}

/// Names a pair's direction on the wire.
pub(crate) type PairTag = [u8; TAG_LEN];

/// The keys of a pair of nodes, as one of them uses them.
pub(crate) struct PairKeys {
    /// On probes that come in.
    pub(crate) tag_in: PairTag,
    tag_out: PairTag,
    open: LessSafeKey,
    seal: LessSafeKey,
    /// From which the pair's ICE credentials come.
    pub(crate) ice: Root,
}

struct KeyBlock;

impl hkdf::KeyType for KeyBlock {
    fn len(&self) -> usize {
        2 * (32 + TAG_LEN)
    }
}

impl PairKeys {
    /// Keys between `own` and `peer`; `None` when the peer's key is a point of small order, which would make the result
    /// known to everybody.
    pub(crate) fn derive(network: NetworkId, own: &StaticSecret, peer: &WgPublicKey) -> Option<Self> {
        let own_public = PublicKey::from(own).to_bytes();
        let shared = own.diffie_hellman(&PublicKey::from(peer.0));
        if !shared.was_contributory() || own_public == peer.0 {
            return None;
        }
        let (first, second) =
            if own_public < peer.0 { (&own_public, &peer.0) } else { (&peer.0, &own_public) };
        let mut block = [0; 2 * (32 + TAG_LEN)];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"ria probe v1")
            .extract(shared.as_bytes())
            .expand(&[network.as_bytes(), first, second], KeyBlock)
            .and_then(|okm| okm.fill(&mut block))
            .ok()?;
        let (from_first, from_second) = block.split_at(32 + TAG_LEN);
        let (key_in, key_out) =
            if own_public < peer.0 { (from_second, from_first) } else { (from_first, from_second) };
        Some(Self {
            tag_in: tag(key_in)?,
            tag_out: tag(key_out)?,
            open: aead_key(key_in)?,
            seal: aead_key(key_out)?,
            ice: Root::derive(shared.as_bytes(), &[network.as_bytes(), first, second])?,
        })
    }

    /// The probe as a datagram.
    pub(crate) fn seal(&self, probe: &Probe, rng: &mut Rng) -> [u8; LEN] {
        let mut datagram = [0; LEN];
        let nonce: [u8; 12] = rng.bytes();
        let mut body = probe.encode();
        let (head, rest) = datagram.split_at_mut(BODY_AT);
        head[0] = FIRST_BYTE;
        head[1..NONCE_AT].copy_from_slice(&self.tag_out);
        head[NONCE_AT..].copy_from_slice(&nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(&head[..NONCE_AT]);
        // Sealing 46 bytes can't fail; if it did, the datagram would be one that nobody opens.
        if let Ok(mac) = self.seal.seal_in_place_separate_tag(nonce, aad, &mut body) {
            rest[..BODY_LEN].copy_from_slice(&body);
            rest[BODY_LEN..].copy_from_slice(mac.as_ref());
        }
        datagram
    }

    /// Reads a datagram; `None` when it is not authentic.
    pub(crate) fn open(&self, datagram: &[u8]) -> Option<Probe> {
        let datagram: &[u8; LEN] = datagram.first_chunk()?;
        let nonce = datagram.get(NONCE_AT..)?.first_chunk::<12>()?;
        let mut body = [0; BODY_LEN + 16];
        body.copy_from_slice(datagram.get(BODY_AT..)?);
        let aad = Aad::from(datagram.get(..NONCE_AT)?);
        let plain = self.open.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body).ok()?;
        Probe::decode(plain)
    }
}

fn tag(key: &[u8]) -> Option<PairTag> {
    key.get(32..)?.try_into().ok()
}

fn aead_key(key: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key.get(..32)?).ok().map(LessSafeKey::new)
}

/// The pair tag of a datagram, when it has a probe's shape.
pub(crate) fn pair_tag(datagram: &[u8]) -> Option<PairTag> {
    if datagram.len() < LEN || datagram.first() != Some(&FIRST_BYTE) {
        return None;
    }
    datagram.get(1..NONCE_AT)?.try_into().ok()
}

impl Probe {
    fn encode(&self) -> [u8; BODY_LEN] {
        let mut body = [0; BODY_LEN];
        body[0] = match self.kind {
            ProbeKind::Ping => 1,
            ProbeKind::Pong => 2,
        };
        body[1..11].copy_from_slice(self.boot.as_bytes());
        body[11..19].copy_from_slice(&self.number.to_be_bytes());
        body[19..27].copy_from_slice(&self.echo.to_be_bytes());
        if let Some(address) = self.observed {
            body[27] = if address.is_ipv4() { 4 } else { 6 };
            let octets = match address.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            body[28..44].copy_from_slice(&octets);
            body[44..].copy_from_slice(&address.port().to_be_bytes());
        } else {
            body[28] = self.skills.unwrap_or_default().0;
            let (word, time) = match self.clock {
                Clock::Silent => (0, 0),
                Clock::Asked(time) => (1, time),
                Clock::Told(time) => (2, time),
            };
            body[29] = word;
            body[30..38].copy_from_slice(&time.to_be_bytes());
            let count = self.participants.map_or(0, |count| count.saturating_add(1));
            body[44..].copy_from_slice(&count.to_be_bytes());
        }
        body
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let body: &[u8; BODY_LEN] = body.try_into().ok()?;
        let kind = match body[0] {
            1 => ProbeKind::Ping,
            2 => ProbeKind::Pong,
            _ => return None,
        };
        let number = |at: usize| Some(u64::from_be_bytes(*body.get(at..)?.first_chunk()?));
        let ip = IpAddr::from(Ipv6Addr::from(*body.get(28..)?.first_chunk::<16>()?));
        let port = u16::from_be_bytes(*body.get(44..)?.first_chunk()?);
        let observed = match body[27] {
            0 => None,
            4 => Some(SocketAddr::new(ip.to_canonical(), port)).filter(SocketAddr::is_ipv4),
            6 => Some(SocketAddr::new(ip, port)),
            _ => return None,
        };
        let boot = BootId::from_bytes(*body.get(1..)?.first_chunk()?);
        let participants = if body[27] == 0 { port.checked_sub(1) } else { None };
        let skills = (body[27] == 0).then_some(Skills(body[28]));
        let clock = match (body[27], body[29]) {
            (0, 1) => Clock::Asked(number(30)?),
            (0, 2) => Clock::Told(number(30)?),
            _ => Clock::Silent,
        };
        let (number, echo) = (number(11)?, number(19)?);
        Some(Self { kind, boot, number, echo, observed, participants, skills, clock })
    }
}

/// Which numbers of a boot have been seen: the newest 64.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplayWindow {
    newest: u64,
    /// Bit `n` stands for `newest - n`.
    seen: u64,
}

impl ReplayWindow {
    /// Whether a number is new; it is not any more afterwards.
    pub(crate) fn take(&mut self, number: u64) -> bool {
        if number > self.newest || self.seen == 0 {
            let ahead = number.saturating_sub(self.newest);
            self.seen = self.seen.checked_shl(u32::try_from(ahead).unwrap_or(64)).unwrap_or(0) | 1;
            self.newest = number;
            return true;
        }
        let behind = self.newest - number;
        if behind >= 64 || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn keys() -> (PairKeys, PairKeys) {
        let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
        let public = |secret: &StaticSecret| WgPublicKey(PublicKey::from(secret).to_bytes());
        let network = NetworkId::from_bytes([9; 10]);
        (
            PairKeys::derive(network, &a, &public(&b)).unwrap(),
            PairKeys::derive(network, &b, &public(&a)).unwrap(),
        )
    }

    fn ping() -> Probe {
        let observed = Some("192.0.2.7:41820".parse().unwrap());
        Probe {
            kind: ProbeKind::Pong,
            boot: BootId::from_bytes([3; 10]),
            number: 7,
            echo: 8,
            observed,
            participants: None,
            skills: None,
            clock: Clock::Silent,
        }
    }

    #[test]
    fn only_the_other_end_opens_a_probe() {
        let (a, b) = keys();
        let datagram = a.seal(&ping(), &mut Rng::new(&[0; 32]));
        assert_eq!(pair_tag(&datagram), Some(b.tag_in));
        assert_eq!(b.open(&datagram), Some(ping()));
        assert_eq!(a.open(&datagram), None, "a reflected probe was taken");
    }

    #[test]
    fn keys_of_another_network_or_a_weak_key_are_no_use() {
        let own = StaticSecret::from([2; 32]);
        let peer = WgPublicKey(PublicKey::from(&StaticSecret::from([1; 32])).to_bytes());
        let elsewhere = PairKeys::derive(NetworkId::from_bytes([8; 10]), &own, &peer).unwrap();
        let (a, _) = keys();
        assert_eq!(elsewhere.open(&a.seal(&ping(), &mut Rng::new(&[0; 32]))), None);
        assert!(PairKeys::derive(NetworkId::from_bytes([8; 10]), &own, &WgPublicKey([0; 32])).is_none());
    }

    #[test]
    fn what_fills_a_probe_up_says_nothing() {
        let (a, b) = keys();
        let mut datagram = a.seal(&ping(), &mut Rng::new(&[0; 32])).to_vec();
        datagram.resize(1312, 7);
        assert_eq!((pair_tag(&datagram), b.open(&datagram)), (Some(b.tag_in), Some(ping())));
        datagram.truncate(LEN - 1);
        assert_eq!((pair_tag(&datagram), b.open(&datagram)), (None, None));
    }

    #[test]
    fn a_number_is_taken_once() {
        let mut window = ReplayWindow::default();
        for (number, new) in
            [(0, true), (0, false), (5, true), (3, true), (3, false), (200, true), (136, false)]
        {
            assert_eq!(window.take(number), new, "number {number}");
        }
        assert!(window.take(137));
    }

    proptest! {
        #[test]
        fn a_changed_probe_is_refused(at in 0..LEN, change in 1..=255u8) {
            let (a, b) = keys();
            let mut datagram = a.seal(&ping(), &mut Rng::new(&[0; 32]));
            datagram[at] ^= change;
            prop_assert_eq!(b.open(&datagram), None);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (a, _) = keys();
            prop_assert_eq!(a.open(&bytes), None);
            let _ = pair_tag(&bytes);
            if let Some(probe) = bytes.get(..BODY_LEN).and_then(Probe::decode) {
                prop_assert_eq!(Probe::decode(&probe.encode()), Some(probe));
            }
        }

        #[test]
        fn content_survives(number: u64, echo: u64, v6: bool, port: u16) {
            let ip: IpAddr = if v6 { "fd00::1".parse().unwrap() } else { [10, 0, 0, 1].into() };
            let probe = Probe { number, echo, observed: Some(SocketAddr::new(ip, port)), ..ping() };
            prop_assert_eq!(Probe::decode(&probe.encode()), Some(probe));
            let count = Some(port).filter(|count| *count < u16::MAX);
            let skills = Some(Skills(port as u8));
            for clock in [Clock::Silent, Clock::Asked(echo), Clock::Told(echo)] {
                let probe = Probe { observed: None, participants: count, skills, clock, ..probe };
                prop_assert_eq!(Probe::decode(&probe.encode()), Some(probe));
            }
        }
    }
}
