//! Body of the fuzz target for the relay's server side: members that sign well and do anything, and strangers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use rand_core::{Error, RngCore};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::time::UnixTime;
use stun_types::attribute::{Nonce, Realm, Username, XorMappedAddress};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageType, MessageWriteVec,
    Method,
};
use stun_types::prelude::{MessageWrite, MessageWriteExt};
use turn_types::attribute::{
    ChannelNumber, Data, Lifetime, RequestedTransport, XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

use super::server::{Action, Clock, Outside, PeerPolicy, Server, ServerConfig, Tuple, Via};
use super::streams::framing;
use super::{Limits, RelayCredentials, Terms};

const SECRET: [u8; 32] = [7; 32];
const START: UnixTime = UnixTime(1_800_000_000);
const METHODS: [Method; 6] = [BINDING, ALLOCATE, REFRESH, CHANNEL_BIND, CREATE_PERMISSION, SEND];

const RELAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// Peers outside, of which the last one is nobody's business.
const OUTSIDERS: [SocketAddr; 3] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)), 9),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 6)), 9),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 22),
];

/// Counts instead of drawing: an input means the same each time.
struct Counter(u64);

impl RngCore for Counter {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(*self.next_u64().to_le_bytes().first_chunk().unwrap_or(&[0; 4]))
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0 ^ (self.0 >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next_u64().to_le_bytes()[0]);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// Instead of a relayed address, for a client that has none.
const NOWHERE: SocketAddr = SocketAddr::new(RELAY, 49_152);

struct Client {
    tuple: Tuple,
    credentials: RelayCredentials,
    nonce: String,
    relayed: SocketAddr,
}

fn client(number: u8) -> Client {
    // The last two are of another network.
    let (network, node) = (NetworkId::from_bytes([1 + number / 3; 10]), NodeId::from_bytes([number; 10]));
    let remote = SocketAddr::from(([10, 0, 0, number + 1], 41_820));
    Client {
        tuple: Tuple { via: Via::Socket(0), local: IpAddr::from([198, 51, 100, 1]), remote },
        credentials: RelayCredentials::issue(&SECRET, network, node, START.plus(Duration::from_secs(3600))),
        nonce: String::new(),
        relayed: NOWHERE,
    }
}

impl Client {
    /// A message of this client, signed when it knows a nonce.
    fn message(&self, peer: SocketAddr, input: &mut Unstructured<'_>) -> Option<Vec<u8>> {
        let (what, with) = (input.arbitrary::<u8>().ok()?, input.arbitrary::<u8>().ok()?);
        let method = METHODS[usize::from(what) % METHODS.len()];
        let class = if method == SEND { MessageClass::Indication } else { MessageClass::Request };
        let id = u128::from(what).into();
        let kind = MessageType::from_class_method(class, method);
        let mut message = Message::builder(kind, id, MessageWriteVec::new());
        if with & 1 != 0 {
            message.add_attribute(&RequestedTransport::new(RequestedTransport::UDP)).ok()?;
        }
        if with & 2 != 0 {
            message.add_attribute(&Lifetime::new(u32::from(input.arbitrary::<u16>().ok()?))).ok()?;
        }
        if with & 4 != 0 {
            message.add_attribute(&ChannelNumber::new(0x4000 + u16::from(what >> 4))).ok()?;
        }
        if with & 8 != 0 {
            message.add_attribute(&XorPeerAddress::new(peer, id)).ok()?;
        }
        if with & 16 != 0 {
            message.add_attribute(&Data::new(&[what; 20])).ok()?;
        }
        if with & 32 == 0 && !self.nonce.is_empty() && class == MessageClass::Request {
            let (user, password) = (self.credentials.username.clone(), self.credentials.password.clone());
            message.add_attribute(&Username::new(&user).ok()?).ok()?;
            message.add_attribute(&Realm::new("ria").ok()?).ok()?;
            message.add_attribute(&Nonce::new(&self.nonce).ok()?).ok()?;
            let key = LongTermKeyCredentials::new(user, password, "ria".to_owned());
            let key = key.make_key(IntegrityAlgorithm::Sha1);
            message.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1).ok()?;
        }
        Some(message.finish())
    }

    fn learn(&mut self, answer: &[u8]) {
        let Ok(answer) = Message::from_bytes(answer) else { return };
        if let Ok(nonce) = answer.attribute::<Nonce>() {
            self.nonce = nonce.nonce().to_owned();
        }
        if let Ok(relayed) = answer.attribute::<XorRelayedAddress>() {
            self.relayed = relayed.addr(answer.transaction_id());
        }
        if let Ok(mapped) = answer.attribute::<XorMappedAddress>() {
            assert_eq!(mapped.addr(answer.transaction_id()), self.tuple.remote);
        }
    }
}

/// Whatever clients do: no panic, and nothing passes between networks or to those who have no allocation.
pub fn relay_server(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let now = Instant::now();
    let limits = Limits { allocations: 3, ..Limits::default() };
    let terms = Terms { allocations_per_node: 2, ..Terms::new(SECRET) };
    let policy = PeerPolicy { own: vec![RELAY], ..PeerPolicy::default() };
    let outside = Some(Outside { ports: 50_000..=50_001, peers: policy.clone() });
    let config = ServerConfig { terms, external: vec![RELAY], outside, limits };
    let mut server = Server::new(config, Box::new(Counter(1)), now);
    let mut clock = Clock { now, unix: START };
    let mut clients: Vec<Client> = (0..5).map(client).collect();
    for _ in 0..64 {
        let Ok(what) = input.arbitrary::<u8>() else { break };
        let (who, whom) = (usize::from(what >> 2) % clients.len(), usize::from(what >> 5) % clients.len());
        let outsider = OUTSIDERS[usize::from(what >> 3) % OUTSIDERS.len()];
        let peer = if what & 0x84 == 0x84 { outsider } else { clients[whom].relayed };
        let came = server.handle_outside(clients[whom].relayed, outsider, &[what], clock.now);
        if let Action::Wrap(to, _) | Action::Send(to) = came {
            assert_eq!(to, clients[whom].tuple, "what comes from outside is for its client alone");
            assert!(policy.admits(outsider.ip()));
        }
        while server.poll_socket().is_some() {}
        let mut datagram = match what % 4 {
            0 => {
                let step = Duration::from_secs(1 << (input.arbitrary::<u8>().unwrap_or(0) % 11));
                clock = Clock { now: clock.now + step, unix: clock.unix.plus(step) };
                server.handle_timeout(clock);
                continue;
            }
            1 => {
                let len = usize::from(input.arbitrary::<u8>().unwrap_or(0)).min(input.len());
                input.bytes(len).unwrap_or_default().to_vec()
            }
            2 => vec![0x40, what >> 4, 0, 4, 1, 2, 3, 4],
            _ => clients[who].message(peer, &mut input).unwrap_or_default(),
        };
        let len = datagram.len();
        match server.handle(clients[who].tuple, &mut datagram, clock) {
            Action::Drop => {}
            Action::Forward(to) => assert_eq!(network_of(to), network_of(clients[who].tuple)),
            Action::Send(to) if to == clients[who].tuple => {
                let answer = server.output().to_vec();
                assert!(answer.len() <= len + 128, "{} bytes for {len}", answer.len());
                let before = clients[who].relayed;
                clients[who].learn(&answer);
                if clients[who].relayed != before {
                    forget_others(&mut clients, who);
                }
            }
            Action::Send(to) if matches!(to.via, Via::Outside(_)) => check_outside(to, &policy),
            Action::Unwrap(to) => check_outside(to, &policy),
            Action::Send(to) => assert_eq!(network_of(to), network_of(clients[who].tuple)),
            Action::Wrap(..) => panic!("nothing came from outside"),
        }
        assert!(server.counters().read().allocations <= 3);
    }
}

/// An address that came free goes to the next client that asks: whoever had it before has none.
fn forget_others(clients: &mut [Client], who: usize) {
    let relayed = clients[who].relayed;
    let had = |(other, client): &(usize, &mut Client)| *other != who && client.relayed == relayed;
    clients.iter_mut().enumerate().filter(had).for_each(|(_, client)| client.relayed = NOWHERE);
}

/// What leaves goes to whom the policy admits.
fn check_outside(to: Tuple, policy: &PeerPolicy) {
    assert!(policy.admits(to.remote.ip()), "{to:?}");
}

/// Which network a client of [`client`] is in.
fn network_of(tuple: Tuple) -> u8 {
    match tuple.remote.ip() {
        IpAddr::V4(ip) => (ip.octets()[3] - 1) / 3,
        IpAddr::V6(_) => u8::MAX,
    }
}

/// A client's stream: whatever comes is cut into messages that are whole, or ends the stream.
pub fn relay_stream(data: &[u8]) {
    for has_allocation in [false, true] {
        let Ok(whole) = framing::whole(data, has_allocation) else { continue };
        let (mut at, mut again) = (0, Vec::new());
        while at < whole {
            let Ok(Some(frame)) = framing::head(&data[at..]) else { panic!("no message at {at}") };
            assert!(frame.len <= frame.padded && at + frame.padded <= whole);
            framing::push(&data[at..at + frame.len], &mut again);
            at += frame.padded;
        }
        assert_eq!((at, again.len()), (whole, whole));
        assert_eq!(framing::whole(&again, has_allocation), Ok(whole), "what is written reads the same");
    }
}
