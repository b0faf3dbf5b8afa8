//! STUN and TURN messages, one function each.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun_types::attribute::{
    AttributeType, ErrorCode, MessageIntegrity, MessageIntegritySha256, Nonce, Realm, Userhash, Username,
    XorMappedAddress,
};
use stun_types::message::{BINDING, Message, MessageClass, Method};
use stun_types::prelude::{AttributeStaticType, AttributeWrite};
use turn_types::AddressFamily;
use turn_types::attribute::{
    ChannelNumber, Data, DontFragment, EvenPort, Lifetime, RequestedAddressFamily, RequestedTransport,
    XorPeerAddress, XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH, SEND};

use super::auth::{REALM, Verified};
use super::table::{Allocation, Hop};
use super::{Action, Clock, DropReason, Server, Tuple, behaviour, reply};

/// Default and least lifetime of an allocation, and the most that is granted, in seconds (RFC 8656, section 7.2).
const LIFETIME: std::ops::RangeInclusive<u32> = 600..=3600;

/// First port of relayed addresses; up to 65 535 (RFC 8656, section 7.2).
const FIRST_PORT: u16 = 49_152;

/// Error code of RFC 8656, section 19.
const PEER_ADDRESS_FAMILY_MISMATCH: u16 = 443;

/// Ports that are tried before the relay says that it is full.
const PORT_TRIES: usize = 64;

/// Attributes that are understood, or may be passed over: without a socket of its own nothing is ever fragmented.
const KNOWN: [AttributeType; 14] = [
    Username::TYPE,
    Userhash::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    MessageIntegrity::TYPE,
    MessageIntegritySha256::TYPE,
    ChannelNumber::TYPE,
    Lifetime::TYPE,
    XorPeerAddress::TYPE,
    RequestedAddressFamily::TYPE,
    RequestedTransport::TYPE,
    DontFragment::TYPE,
    EvenPort::TYPE,
    XorMappedAddress::TYPE,
];

/// A request of somebody with valid credentials.
struct Request<'a> {
    from: Tuple,
    message: &'a Message<'a>,
    verified: Verified,
    now: Instant,
}

/// An answer with attributes, or the STUN error code to answer with.
type Answer = Result<Vec<Box<dyn AttributeWrite>>, u16>;

/// Handles a STUN message.
pub(super) fn handle(
    server: &mut Server,
    from: Tuple,
    message: &Message<'_>,
    clock: Clock,
) -> Result<Action, DropReason> {
    match (message.class(), message.method()) {
        (MessageClass::Request, BINDING) => {
            server.counters.request();
            admit_stranger(server, &from, clock.now)?;
            behaviour::handle_binding(server, from, message)
        }
        _ if server.alternates.is_one(from.via) => Err(DropReason::Unexpected),
        (MessageClass::Request, ALLOCATE | REFRESH | CREATE_PERMISSION | CHANNEL_BIND) => {
            server.counters.request();
            handle_request(server, from, message, clock)
        }
        (MessageClass::Indication, SEND) => handle_send(server, from, message, clock.now),
        // A client's keepalive.
        (MessageClass::Indication, BINDING) => Ok(Action::Drop),
        (MessageClass::Request | MessageClass::Indication, _) => Err(DropReason::Unexpected),
        (MessageClass::Success | MessageClass::Error, _) => Err(DropReason::Unexpected),
    }
}

fn admit_stranger(server: &mut Server, from: &Tuple, now: Instant) -> Result<(), DropReason> {
    server.strangers.admit(from.remote.ip(), now).then_some(()).ok_or(DropReason::RateLimited)
}

fn answer(server: &mut Server, to: Tuple, written: Option<Vec<u8>>) -> Result<Action, DropReason> {
    server.output = written.ok_or(DropReason::Malformed)?;
    Ok(Action::Send(to))
}

fn handle_request(
    server: &mut Server,
    from: Tuple,
    message: &Message<'_>,
    clock: Clock,
) -> Result<Action, DropReason> {
    let verified = match server.authority.verify(&from, message, clock) {
        Ok(verified) => verified,
        Err(code) => {
            admit_stranger(server, &from, clock.now)?;
            let written = if code == ErrorCode::BAD_REQUEST {
                reply::error(message, code, None)
            } else {
                reply::challenge(message, code, REALM, &server.authority.nonce(&from, clock.now))
            };
            return answer(server, from, written);
        }
    };
    let unknown: Vec<_> = message
        .iter_attributes()
        .map(|(_, attribute)| attribute.header.get_type())
        .filter(|kind| kind.comprehension_required() && !KNOWN.contains(kind))
        .collect();
    if !unknown.is_empty() {
        server.counters.refusal();
        return answer(server, from, reply::unknown_attributes(message, &unknown, Some(&verified.key)));
    }
    let request = Request { from, message, verified, now: clock.now };
    let written = match dispatch(server, &request, message.method()) {
        Ok(attributes) => {
            let attributes: Vec<&dyn AttributeWrite> = attributes.iter().map(AsRef::as_ref).collect();
            reply::success(message, &attributes, Some(&request.verified.key))
        }
        Err(code) => {
            server.counters.refusal();
            reply::error(message, code, Some(&request.verified.key))
        }
    };
    answer(server, from, written)
}

fn dispatch(server: &mut Server, request: &Request<'_>, method: Method) -> Answer {
    match method {
        ALLOCATE => handle_allocate(server, request),
        REFRESH => handle_refresh(server, request),
        CREATE_PERMISSION => handle_create_permission(server, request),
        CHANNEL_BIND => handle_channel_bind(server, request),
        _ => Err(ErrorCode::BAD_REQUEST),
    }
}

fn handle_allocate(server: &mut Server, request: &Request<'_>) -> Answer {
    let transport = request.message.attribute::<RequestedTransport>().map_err(|_| ErrorCode::BAD_REQUEST)?;
    if transport.protocol() != RequestedTransport::UDP {
        return Err(ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL);
    }
    let id = request.message.transaction_id();
    let owner = request.verified.user.owner;
    let former = server.table.of_client(&request.from);
    let former = former.map(|old| (old.owner, old.relayed, old.transaction == id, request.now < old.expires));
    let mut kept = None;
    if let Some((other, relayed, repeated, live)) = former {
        if live && repeated && other == owner {
            return Ok(allocated(server, request, relayed));
        }
        // The agent was started anew on the same port: it keeps its address, and knows nothing of its channels.
        // Another owner has joined anew there, or was given the port by a NAT: who proves to get answers at an address
        // has it, for a former owner gets none.
        kept = (live && other == owner).then_some(relayed);
        server.table.remove(relayed);
    }
    let even = request.message.attribute::<EvenPort>().ok();
    if even.as_ref().is_some_and(EvenPort::requested) {
        // A second port, kept for later, is not to be had here.
        return Err(ErrorCode::INSUFFICIENT_CAPACITY);
    }
    let address = relayed_ip(server, request)?;
    let relayed = match kept.filter(|kept| kept.ip() == address) {
        Some(kept) => kept,
        None => {
            // The same again for the same client, so that its peers still find it after a restart of this server.
            let wanted = server.authority.number_of(owner, &request.from);
            free_address(server, address, even.is_some(), wanted).ok_or(ErrorCode::INSUFFICIENT_CAPACITY)?
        }
    };
    make_room(server, request)?;
    let expires = request.now + Duration::from_secs(lifetime(request.message).into());
    let mut allocation = Allocation::new(request.from, owner, relayed, id, expires);
    allocation.active = request.now;
    allocation.outside = is_outside(server, relayed);
    server.table.insert(allocation);
    server.counters.set_allocations(server.table.len());
    Ok(allocated(server, request, relayed))
}

fn make_room(server: &mut Server, request: &Request<'_>) -> Result<(), u16> {
    let node = request.verified.user.owner.node;
    let (limits, terms) = (server.config.limits, &server.config.terms);
    if server.table.count(node) >= terms.allocations_per_node.max(1) {
        server.table.remove_idlest(node);
    }
    if server.table.len() >= limits.allocations {
        return Err(ErrorCode::INSUFFICIENT_CAPACITY);
    }
    Ok(())
}

fn allocated(
    server: &mut Server,
    request: &Request<'_>,
    relayed: SocketAddr,
) -> Vec<Box<dyn AttributeWrite>> {
    let id = request.message.transaction_id();
    let expires = server.table.of_client(&request.from).map_or(request.now, |allocation| allocation.expires);
    let left = expires.saturating_duration_since(request.now).as_secs();
    vec![
        Box::new(XorRelayedAddress::new(relayed, id)),
        Box::new(Lifetime::new(u32::try_from(left).unwrap_or(u32::MAX))),
        Box::new(XorMappedAddress::new(request.from.remote, id)),
    ]
}

/// The address to show: the operator's, else the one at which the request arrived.
fn relayed_ip(server: &Server, request: &Request<'_>) -> Result<IpAddr, u16> {
    let family = request.message.attribute::<RequestedAddressFamily>();
    let v6 = family.is_ok_and(|family| family.family() == AddressFamily::IPV6);
    let candidates = server.config.external.iter().copied().chain([request.from.local]);
    let mut fitting = candidates.filter(|ip| ip.is_ipv6() == v6 && !ip.is_unspecified());
    fitting.next().ok_or(ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED)
}

/// Whether a relayed address can be reached from outside.
fn is_outside(server: &Server, relayed: SocketAddr) -> bool {
    let ports = server.config.outside.as_ref().map(|outside| &outside.ports);
    ports.is_some_and(|ports| ports.contains(&relayed.port()))
        && server.config.external.contains(&relayed.ip())
}

/// An address that nobody has: one that can be reached from outside, as long as there are any. Which is looked at first,
/// says `wanted`.
fn free_address(server: &mut Server, address: IpAddr, even: bool, wanted: u32) -> Option<SocketAddr> {
    let outside = server.config.outside.as_ref().map(|outside| outside.ports.clone());
    let outside = outside.filter(|_| server.config.external.contains(&address));
    if let Some(ports) = outside {
        let start = u16::try_from(wanted % u32::from(u16::MAX)).ok()?;
        let count = ports.end().saturating_sub(*ports.start()).saturating_add(1);
        let port = |offset: u16| ports.start() + (offset.wrapping_add(start)) % count.max(1);
        let fits = |relayed: &SocketAddr| !even || relayed.port().is_multiple_of(2);
        let mut free = (0..count).map(|offset| SocketAddr::new(address, port(offset))).filter(fits);
        if let Some(relayed) = free.find(|relayed| !server.table.has_relayed(*relayed)) {
            return Some(relayed);
        }
    }
    let mut number = wanted;
    for _ in 0..PORT_TRIES {
        let ports = u32::from(u16::MAX - FIRST_PORT) + 1;
        let offset = u16::try_from(number % ports).ok()?;
        let port = FIRST_PORT + offset;
        let relayed = SocketAddr::new(address, if even { port & !1 } else { port });
        if !server.table.has_relayed(relayed) && !is_outside(server, relayed) {
            return Some(relayed);
        }
        number = server.random.next_u32();
    }
    None
}

fn lifetime(message: &Message<'_>) -> u32 {
    let asked = message.attribute::<Lifetime>().map_or(*LIFETIME.start(), |lifetime| lifetime.seconds());
    asked.clamp(*LIFETIME.start(), *LIFETIME.end())
}

/// The client's allocation, if it is alive and its own.
fn own<'s>(server: &'s mut Server, request: &Request<'_>) -> Result<&'s mut Allocation, u16> {
    let allocation =
        server.table.of_client(&request.from).filter(|allocation| request.now < allocation.expires);
    let allocation = allocation.ok_or(ErrorCode::ALLOCATION_MISMATCH)?;
    if allocation.owner != request.verified.user.owner {
        return Err(ErrorCode::WRONG_CREDENTIALS);
    }
    allocation.active = request.now;
    Ok(allocation)
}

fn handle_refresh(server: &mut Server, request: &Request<'_>) -> Answer {
    let allocation = own(server, request)?;
    let asked = request.message.attribute::<Lifetime>().ok().map(|lifetime| lifetime.seconds());
    let granted = if asked == Some(0) { 0 } else { lifetime(request.message) };
    if granted == 0 {
        let relayed = allocation.relayed;
        server.table.remove(relayed);
        server.counters.set_allocations(server.table.len());
    } else {
        allocation.expires = request.now + Duration::from_secs(granted.into());
    }
    Ok(vec![Box::new(Lifetime::new(granted))])
}

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inside,
    Outside,
}

/// Peers are this relay's own allocations; whether one of them is there now, or of which network, is not told. Others are
/// admitted where this relay reaches out, and the client's own address does.
fn check_peer(server: &mut Server, request: &Request<'_>, peer: IpAddr) -> Result<Place, u16> {
    let ours = server.table.has_address(peer) || server.config.external.contains(&peer);
    if ours || peer == request.from.local {
        return Ok(Place::Inside);
    }
    let relayed = own(server, request)?;
    let (relayed, outside) = (relayed.relayed, relayed.outside);
    let policy = server.config.outside.as_ref().filter(|_| outside);
    if !policy.is_some_and(|policy| policy.peers.admits(peer)) {
        return Err(ErrorCode::FORBIDDEN);
    }
    if relayed.is_ipv6() != peer.is_ipv6() {
        return Err(PEER_ADDRESS_FAMILY_MISMATCH);
    }
    Ok(Place::Outside)
}

/// A client has a peer outside.
fn reach_out(server: &mut Server, request: &Request<'_>) -> Result<(), u16> {
    let relayed = own(server, request)?.relayed;
    server.table.open_socket(relayed);
    Ok(())
}

fn handle_create_permission(server: &mut Server, request: &Request<'_>) -> Answer {
    own(server, request)?;
    let id = request.message.transaction_id();
    let (mut peers, mut outside) = (Vec::new(), false);
    while let Ok(peer) = request.message.nth_attribute::<XorPeerAddress>(peers.len()) {
        let peer = peer.addr(id).ip().to_canonical();
        outside |= check_peer(server, request, peer)? == Place::Outside;
        peers.push(peer);
    }
    if peers.is_empty() {
        return Err(ErrorCode::BAD_REQUEST);
    }
    let allocation = own(server, request)?;
    let enough = peers.into_iter().all(|peer| allocation.permit(peer, request.now));
    if outside {
        reach_out(server, request)?;
    }
    if enough { Ok(Vec::new()) } else { Err(ErrorCode::INSUFFICIENT_CAPACITY) }
}

fn handle_channel_bind(server: &mut Server, request: &Request<'_>) -> Answer {
    own(server, request)?;
    let number = request.message.attribute::<ChannelNumber>().map_err(|_| ErrorCode::BAD_REQUEST)?;
    let peer = request.message.attribute::<XorPeerAddress>().map_err(|_| ErrorCode::BAD_REQUEST)?;
    let peer = canonical(peer.addr(request.message.transaction_id()));
    let place = check_peer(server, request, peer.ip())?;
    let allocation = own(server, request)?;
    let new = allocation.bind(number.channel(), peer, request.now).ok_or(ErrorCode::BAD_REQUEST)?;
    let permitted = allocation.permit(peer.ip(), request.now);
    if new {
        server.table.forget_routes();
    }
    if place == Place::Outside {
        reach_out(server, request)?;
    }
    if permitted { Ok(Vec::new()) } else { Err(ErrorCode::INSUFFICIENT_CAPACITY) }
}

fn handle_send(
    server: &mut Server,
    from: Tuple,
    message: &Message<'_>,
    now: Instant,
) -> Result<Action, DropReason> {
    let peer = message.attribute::<XorPeerAddress>().map_err(|_| DropReason::Malformed)?;
    let peer = canonical(peer.addr(message.transaction_id()));
    let payload = message.raw_attribute(Data::TYPE).ok_or(DropReason::Malformed)?;
    let payload: &[u8] = &payload.value;
    let route = server.table.route_by_name(&from, peer, now)?;
    server.admit_relayed(route.owner, payload.len(), now)?;
    match route.hop {
        Hop::Outside => {
            server.output.clear();
            server.output.extend_from_slice(payload);
        }
        Hop::Channel(channel) => {
            let len = u16::try_from(payload.len()).map_err(|_| DropReason::Malformed)?;
            server.output.clear();
            server.output.extend_from_slice(&channel.to_be_bytes());
            server.output.extend_from_slice(&len.to_be_bytes());
            server.output.extend_from_slice(payload);
        }
        Hop::Indication => server.write_indication(route.source, payload)?,
    }
    Ok(Action::Send(route.to))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
