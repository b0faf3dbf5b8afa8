//! Beacons: how members on one local network find each other when nobody else can tell them where they are.
//!
//! ```text
//!  0      1       13                        67         83
//!  | 0xd2 | nonce | ChaCha20-Poly1305(body) | AEAD tag |
//!
//!  body:  0      10     20       28        44     46        54
//!         | node | boot | number | address | port | zero    |
//! ```
//!
//! A beacon goes to everybody on a link, from the address that is in it. Its key is the same for all members: HKDF-SHA256
//! (RFC 5869) over what all of them know and never say on a wire in the clear together, the network's id and its random
//! IPv6 prefix. To others each beacon is random bytes. It is a hint and proves nothing: whoever hears one sends a probe to
//! that address, which the pair's own key protects, and only its answer makes a path. So a beacon is as long as a probe,
//! causes one at most, and counts only where it comes from the address that its sender had. When beacons are due is
//! [`schedule`]; sockets and interfaces are the caller's.

pub(crate) mod schedule;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ria_protocol::id::{BootId, NodeId};
use ria_protocol::map::NetworkInfo;
use ria_protocol::prefix::Prefix;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

use crate::path::probe;
use crate::rng::Rng;
use schedule::Schedule;

/// Length of each beacon: that of a probe, so that the answer is never larger than the question.
pub const LEN: usize = probe::LEN;

/// First byte of each beacon.
const FIRST_BYTE: u8 = 0xd2;

const NONCE_AT: usize = 1;
const BODY_AT: usize = NONCE_AT + 12;
const BODY_LEN: usize = LEN - BODY_AT - 16;

/// Beacons that are looked at in a second; strangers' cost a decryption per network.
const LOOKED_AT: u32 = 200;

/// What a beacon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beacon {
    /// Who sends it.
    pub(crate) node: NodeId,
    /// The sender's run.
    pub(crate) boot: BootId,
    /// The sender's count of beacons in this run.
    pub(crate) number: u64,
    /// The sender's address on this link, and the UDP port of its tunnels.
    pub(crate) address: SocketAddr,
}

/// The key to a network's beacons.
pub(crate) struct BeaconKey(LessSafeKey);

impl BeaconKey {
    pub(crate) fn derive(network: &NetworkInfo) -> Option<Self> {
        let IpAddr::V6(prefix) = network.prefix_v6.address() else { return None };
        let secret = [network.id.as_bytes(), &prefix.octets()[..]].concat();
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ria beacon v1").extract(&secret);
        let okm = extracted.expand(&[b"key"], &CHACHA20_POLY1305).ok()?;
        Some(Self(LessSafeKey::new(UnboundKey::from(okm))))
    }

    /// The beacon as a datagram.
    pub(crate) fn seal(&self, beacon: &Beacon, rng: &mut Rng) -> [u8; LEN] {
        let mut datagram = [0; LEN];
        let nonce: [u8; 12] = rng.bytes();
        let mut body = beacon.encode();
        let (head, rest) = datagram.split_at_mut(BODY_AT);
        head[0] = FIRST_BYTE;
        head[NONCE_AT..].copy_from_slice(&nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        // Sealing 54 bytes can't fail; if it did, the datagram would be one that nobody opens.
        if let Ok(mac) = self.0.seal_in_place_separate_tag(nonce, Aad::from(&head[..NONCE_AT]), &mut body) {
            rest[..BODY_LEN].copy_from_slice(&body);
            rest[BODY_LEN..].copy_from_slice(mac.as_ref());
        }
        datagram
    }

    /// Reads a datagram; `None` when no member of the network made it.
    pub(crate) fn open(&self, datagram: &[u8]) -> Option<Beacon> {
        let datagram: &[u8; LEN] = datagram.try_into().ok()?;
        let nonce = datagram.get(NONCE_AT..)?.first_chunk::<12>()?;
        let mut body = [0; BODY_LEN + 16];
        body.copy_from_slice(datagram.get(BODY_AT..)?);
        let aad = Aad::from(datagram.get(..NONCE_AT)?);
        let plain = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body).ok()?;
        Beacon::decode(plain)
    }
}

/// Whether a datagram has a beacon's shape.
pub(crate) fn has_shape(datagram: &[u8]) -> bool {
    datagram.len() == LEN && datagram.first() == Some(&FIRST_BYTE)
}

impl Beacon {
    fn encode(&self) -> [u8; BODY_LEN] {
        let mut body = [0; BODY_LEN];
        body[..10].copy_from_slice(self.node.as_bytes());
        body[10..20].copy_from_slice(self.boot.as_bytes());
        body[20..28].copy_from_slice(&self.number.to_be_bytes());
        let octets = match self.address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        body[28..44].copy_from_slice(&octets);
        body[44..46].copy_from_slice(&self.address.port().to_be_bytes());
        body
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let body: &[u8; BODY_LEN] = body.try_into().ok()?;
        let ip = IpAddr::from(Ipv6Addr::from(*body.get(28..)?.first_chunk::<16>()?)).to_canonical();
        let port = u16::from_be_bytes(*body.get(44..)?.first_chunk()?);
        Some(Self {
            node: NodeId::from_bytes(*body.first_chunk()?),
            boot: BootId::from_bytes(*body.get(10..)?.first_chunk()?),
            number: u64::from_be_bytes(*body.get(20..)?.first_chunk()?),
            address: SocketAddr::new(ip, port),
        })
    }
}

/// Where the sender of a beacon can be asked, when it came from where it says: as the receiver has to address it, which
/// for a link-local address names the link.
pub(crate) fn place(beacon: &Beacon, from: SocketAddr, overlays: &[Prefix]) -> Option<SocketAddr> {
    let ip = from.ip();
    let inside = overlays.iter().any(|prefix| prefix.contains(ip));
    let odd = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    if beacon.address.ip() != ip || beacon.address.port() == 0 || inside || odd {
        return None;
    }
    let mut place = from;
    place.set_port(beacon.address.port());
    Some(place)
}

/// A network's part in it.
#[derive(Default)]
pub(crate) struct Beacons {
    key: Option<BeaconKey>,
    pub(crate) schedule: Schedule,
    number: u64,
    /// Whether the coordinator is there, which then tells where members are.
    pub(crate) reached: bool,
}

impl Beacons {
    /// Takes the key from what the map says of the network. Returns whether it is the first one.
    pub(crate) fn follow(&mut self, network: Option<&NetworkInfo>) -> bool {
        let first = self.key.is_none();
        self.key = network.and_then(BeaconKey::derive);
        first && self.key.is_some()
    }

    /// This node's next beacon, to be sent from this address.
    pub(crate) fn seal(
        &mut self,
        (node, boot): (NodeId, BootId),
        address: SocketAddr,
        rng: &mut Rng,
    ) -> Option<[u8; LEN]> {
        self.number += 1;
        let beacon = Beacon { node, boot, number: self.number, address };
        self.key.as_ref().map(|key| key.seal(&beacon, rng))
    }

    pub(crate) fn open(&self, datagram: &[u8]) -> Option<Beacon> {
        self.key.as_ref()?.open(datagram)
    }
}

/// How many beacons are looked at.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    since: Option<Instant>,
    taken: u32,
}

impl Attention {
    /// Whether one more may be looked at.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let over = |since: Instant| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(over) {
            (self.since, self.taken) = (Some(now), 0);
        }
        self.taken = self.taken.saturating_add(1);
        self.taken <= LOOKED_AT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ria_protocol::id::NetworkId;

    use super::*;
    use crate::rng::Rng;

    fn info(id: u8, prefix: &str) -> NetworkInfo {
        NetworkInfo {
            id: NetworkId::from_bytes([id; 10]),
            name: "lab".parse().unwrap(),
            prefix_v4: "10.213.0.0/16".parse().unwrap(),
            prefix_v6: prefix.parse().unwrap(),
            mtu: 1280,
            lock_keys: vec![],
            urls: vec![],
            ros_domains: None,
            multicast: None,
            peers: None,
        }
    }

    fn beacon(address: &str) -> Beacon {
        Beacon {
            node: NodeId::from_bytes([1; 10]),
            boot: BootId::from_bytes([2; 10]),
            number: 3,
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn members_read_a_beacon_and_nobody_else() {
        let key = BeaconKey::derive(&info(1, "fd5a::/64")).unwrap();
        let mut rng = Rng::new(&[7; 32]);
        let said = beacon("192.168.8.20:41820");
        let (first, second) = (key.seal(&said, &mut rng), key.seal(&said, &mut rng));
        assert!(has_shape(&first));
        assert_eq!(BeaconKey::derive(&info(1, "fd5a::/64")).unwrap().open(&first), Some(said));
        // Who knows the network's id alone, or its addresses alone, knows nothing.
        for other in [info(2, "fd5a::/64"), info(1, "fd5b::/64")] {
            assert_eq!(BeaconKey::derive(&other).unwrap().open(&first), None);
        }
        // Two beacons of one sender have nothing in common but the first byte.
        let alike = first.iter().zip(&second).skip(1).filter(|(a, b)| a == b).count();
        assert!(alike < 8, "{alike}");
    }

    #[test]
    fn a_beacon_counts_only_where_its_sender_is() {
        let overlays = ["10.213.0.0/16".parse().unwrap()];
        let place = |said: &str, from: &str| {
            place(&beacon(said), from.parse().unwrap(), &overlays).map(|place| place.to_string())
        };
        let good = Some("192.168.8.20:41820".into());
        assert_eq!(place("192.168.8.20:41820", "192.168.8.20:50000"), good);
        assert_eq!(place("169.254.7.7:9", "169.254.7.7:1"), Some("169.254.7.7:9".into()));
        // The link is the receiver's to name.
        assert_eq!(place("[fe80::7]:9", "[fe80::7%3]:1"), Some("[fe80::7%3]:9".into()));
        for (said, from) in [
            ("192.168.8.20:41820", "192.168.8.66:50000"),
            ("192.168.8.20:0", "192.168.8.20:50000"),
            ("127.0.0.1:41820", "127.0.0.1:5"),
            ("10.213.0.7:41820", "10.213.0.7:5"),
        ] {
            assert_eq!(place(said, from), None, "{said} from {from}");
        }
    }

    #[test]
    fn a_flood_is_not_looked_at() {
        #[allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
        let now = Instant::now();
        let mut attention = Attention::default();
        let taken = (0..1000).filter(|_| attention.take(now)).count();
        assert_eq!(taken, LOOKED_AT as usize);
        assert!(attention.take(now + Duration::from_secs(1)));
    }

    proptest! {
        #[test]
        fn a_changed_beacon_is_refused(at in 0..LEN, change in 1..=255u8) {
            let key = BeaconKey::derive(&info(1, "fd5a::/64")).unwrap();
            let mut datagram = key.seal(&beacon("192.168.8.20:41820"), &mut Rng::new(&[0; 32]));
            datagram[at] ^= change;
            prop_assert_eq!(key.open(&datagram), None);
        }

        #[test]
        fn content_survives(number: u64, v6: bool, port: u16) {
            let ip: IpAddr = if v6 { "fe80::1".parse().unwrap() } else { [10, 0, 0, 1].into() };
            let said = Beacon { number, address: SocketAddr::new(ip, port), ..beacon("1.2.3.4:5") };
            prop_assert_eq!(Beacon::decode(&said.encode()), Some(said));
        }
    }
}
