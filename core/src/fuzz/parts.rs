//! Parts of the engine alone: the relay client, probes, and the wrapper of WireGuard's sessions.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ria_protocol::id::{BootId, NetworkId};
use ria_protocol::keys::WgPublicKey;
use stun_types::attribute::{ErrorCode, Nonce, Realm, XorMappedAddress};
use stun_types::message::{Message, MessageWriteVec};
use stun_types::prelude::{MessageWrite, MessageWriteExt};
use turn_types::attribute::{Lifetime, XorRelayedAddress};
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Unstructured, bytes, damage, pause};
use crate::path::probe::{Clock, PairKeys, Probe, ProbeKind, ReplayWindow, Skills};
use crate::relay::{RelayClient, RelayCredentials, RelayInput};
use crate::rng::Rng;
use crate::session::wireguard::WireGuard;
use crate::session::{HANDSHAKE_ROOM, Initiator, OVERHEAD, Session, SessionFactory};
use crate::stun::{BindingClient, Randomness};

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 3478);

/// An answer to a request: an error or a success with the usual attributes, signed where the input says so.
fn answer(request: &[u8], input: &mut Unstructured<'_>) -> Option<Vec<u8>> {
    let request = Message::from_bytes(request).ok()?;
    let id = request.transaction_id();
    let code =
        [401, 438, 437, 442, 486, 508, 300, 403][usize::from(input.arbitrary::<u8>().unwrap_or(0)) % 8];
    let way = input.arbitrary::<u8>().unwrap_or(0);
    let mut answer = if way & 1 == 0 {
        let mut error = Message::builder_error(&request, MessageWriteVec::new());
        error.add_attribute(&ErrorCode::new(code, "no").ok()?).ok()?;
        error
    } else {
        Message::builder_success(&request, MessageWriteVec::new())
    };
    let (realm, nonce) = (Realm::new("realm").ok()?, Nonce::new(&format!("nonce-{}", way >> 4)).ok()?);
    let (relayed, mapped) = (XorRelayedAddress::new(SERVER, id), XorMappedAddress::new(SERVER, id));
    let lifetime = Lifetime::new(u32::from(input.arbitrary::<u16>().unwrap_or(0)));
    if way & 2 != 0 {
        answer.add_attribute(&realm).ok()?;
        answer.add_attribute(&nonce).ok()?;
    }
    if way & 4 != 0 {
        answer.add_attribute(&relayed).ok()?;
        answer.add_attribute(&mapped).ok()?;
        answer.add_attribute(&lifetime).ok()?;
    }
    if way & 8 != 0 {
        let password = "password".to_owned();
        let credentials =
            stun_types::message::LongTermKeyCredentials::new("user".into(), password, "realm".into());
        let algorithm = stun_types::message::IntegrityAlgorithm::Sha1;
        answer.add_message_integrity_with_key(&credentials.make_key(algorithm), algorithm).ok()?;
    }
    Some(answer.finish())
}

/// A relay or STUN server that says anything at any time.
pub fn relay_client(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut now = Instant::now();
    let credentials = RelayCredentials { username: "user".into(), password: "password".into() };
    let mut client = RelayClient::new(SERVER, credentials, Randomness::new([1; 32]), now);
    let mut binding = BindingClient::new(SERVER, Randomness::new([2; 32]), now);
    let peer = SocketAddr::new(SERVER.ip(), 50_000);
    let mut requests: Vec<Vec<u8>> = Vec::new();
    for _ in 0..48 {
        let Ok(what) = input.arbitrary::<u8>() else { break };
        let which = usize::from(what >> 3) % requests.len().max(1);
        let datagram = match what % 8 {
            0 => {
                now += pause(&mut input);
                client.handle_timeout(now);
                binding.handle_timeout(now);
                None
            }
            1 => {
                let _ = client.connect_peer(peer, now);
                None
            }
            2 => {
                client.disconnect_peer(peer);
                None
            }
            3 => {
                client.restart(now);
                binding.restart(now);
                None
            }
            4 => Some(bytes(&mut input).to_vec()),
            5 | 6 => requests.get(which).and_then(|request| answer(request, &mut input)),
            _ => requests.get(which).and_then(|request| answer(request, &mut input)).map(|mut bytes| {
                damage(&mut bytes, &mut input);
                bytes
            }),
        };
        if let Some(datagram) = datagram {
            if let RelayInput::FromPeer { payload, .. } = client.handle_datagram(SERVER, &datagram, now) {
                assert!(payload.len() <= datagram.len());
            }
            binding.handle_datagram(SERVER, &datagram);
        }
        requests.extend(std::iter::from_fn(|| client.poll_transmit()).map(|outgoing| outgoing.payload));
        requests.extend(std::iter::from_fn(|| binding.poll_transmit()).map(|outgoing| outgoing.payload));
        requests.drain(..requests.len().saturating_sub(16));
        while client.poll_event().is_some() {}
        while binding.poll_event().is_some() {}
        settles(&mut client, now);
    }
}

/// What is due is done at once and does not come back at the same moment.
fn settles(client: &mut RelayClient, now: Instant) {
    for _ in 0..32 {
        if client.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        client.handle_timeout(now);
    }
    panic!("the relay client turns in a circle");
}

/// Probes: only what the pair's other end sealed opens, and to the same content; the replay window takes each once.
pub fn path_probe(data: &[u8]) {
    let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
    let public = |secret: &StaticSecret| WgPublicKey(PublicKey::from(secret).to_bytes());
    let network = NetworkId::from_bytes([9; 10]);
    let pair = (PairKeys::derive(network, &a, &public(&b)), PairKeys::derive(network, &b, &public(&a)));
    let (Some(ours), Some(theirs)) = pair else { return };
    assert!(ours.open(data).is_none(), "a probe that nobody sealed");
    let mut input = Unstructured::new(data);
    let port = input.arbitrary::<u16>().unwrap_or(0);
    let observed = input.arbitrary::<Option<[u8; 16]>>().unwrap_or(None).map(|ip| {
        let ip = IpAddr::from(ip).to_canonical();
        SocketAddr::new(ip, port)
    });
    let probe = Probe {
        kind: if port.is_multiple_of(2) { ProbeKind::Ping } else { ProbeKind::Pong },
        boot: BootId::from_bytes(input.arbitrary().unwrap_or_default()),
        number: input.arbitrary().unwrap_or(0),
        echo: input.arbitrary().unwrap_or(0),
        observed,
        participants: observed.is_none().then(|| port.saturating_sub(1)),
        skills: observed.is_none().then_some(Skills(port as u8)),
        clock: match (observed, port % 3) {
            (None, 1) => Clock::Asked(u64::from(port) << 40),
            (None, 2) => Clock::Told(u64::from(port) << 40),
            _ => Clock::Silent,
        },
    };
    let sealed = theirs.seal(&probe, &mut Rng::new(&[3; 32]));
    assert_eq!(ours.open(&sealed), Some(probe));
    assert!(theirs.open(&sealed).is_none(), "a probe that came back to its sender");
    let mut damaged = sealed.to_vec();
    damage(&mut damaged, &mut input);
    // What is appended fills a datagram up.
    assert!(damaged.starts_with(&sealed) || ours.open(&damaged).is_none(), "a damaged probe opened");
    let mut window = ReplayWindow::default();
    let mut taken = std::collections::BTreeSet::new();
    while let Ok(number) = input.arbitrary::<u8>() {
        let number = u64::from(number);
        assert!(!window.take(number) || taken.insert(number), "number {number} was taken twice");
        if input.is_empty() {
            break;
        }
    }
}

/// The wrapper of WireGuard: handshakes that go wrong in every way, and data that only opens once.
pub fn session(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut networks = [[1; 32], [2; 32]].map(|key| WireGuard.network(&key));
    let keys = [networks[0].public_key(), networks[1].public_key()];
    let mut sessions = [networks[0].session(&keys[1], None, 1), networks[1].session(&keys[0], None, 2)];
    let mut messages: Vec<(usize, Vec<u8>)> = Vec::new();
    let now = Instant::now();
    for _ in 0..32 {
        let Ok(what) = input.arbitrary::<u8>() else { break };
        let side = usize::from(what >> 7);
        let mut room = vec![0; 2048];
        match what % 4 {
            0 => {
                let len = sessions[side].initiate(&mut room[..HANDSHAKE_ROOM]);
                messages.extend(len.map(|len| (1 - side, room[..len].to_vec())));
            }
            1 => {
                let content = bytes(&mut input);
                if let Some(len) = sessions[side].seal(content, &mut room) {
                    assert_eq!(len, content.len() + OVERHEAD);
                    messages.push((1 - side, room[..len].to_vec()));
                }
            }
            2 => {
                let _ = sessions[side].tick(&mut room[..HANDSHAKE_ROOM]);
            }
            _ => {
                let which = usize::from(what >> 2 & 0x1f) % messages.len().max(1);
                let Some((to, message)) = messages.get(which) else { continue };
                let (to, mut message) = (*to, message.clone());
                if what & 0x40 != 0 {
                    damage(&mut message, &mut input);
                }
                let mut reply = [0; HANDSHAKE_ROOM];
                let source = IpAddr::from([192, 0, 2, 1]);
                if let Initiator::Peer(key) = networks[to].identify(&message, source, now, &mut reply) {
                    assert_eq!(key, keys[1 - to], "an initiation by nobody");
                }
                let answer = take(sessions[to].as_mut(), &message, &mut room);
                messages.extend(answer.map(|answer| (1 - to, answer)));
            }
        }
        messages.drain(..messages.len().saturating_sub(24));
    }
}

fn take(session: &mut dyn Session, message: &[u8], room: &mut [u8]) -> Option<Vec<u8>> {
    if message.len() > room.len() || message.len() < 4 {
        return None;
    }
    if message.first() == Some(&4) {
        if session.open(message, room).is_ok() {
            assert!(session.open(message, room).is_err(), "data that opened twice");
        }
        return None;
    }
    let len = session.handle_handshake(message, room.get_mut(..HANDSHAKE_ROOM)?).ok()??;
    room.get(..len).map(<[u8]>::to_vec)
}
