//! Allocations, their permissions and channels, and the routes that follow from them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ria_protocol::id::NodeId;
use stun_types::message::TransactionId;

use super::{Owner, SocketOrder, Tuple, Via};
use crate::relay::counters::DropReason;

/// Lifetime of a permission (RFC 8656, section 9).
const PERMISSION: Duration = Duration::from_secs(300);

/// Lifetime of a channel (RFC 8656, section 12).
const CHANNEL: Duration = Duration::from_secs(600);

/// First and last channel number. RFC 8656 (section 12) ends them at 0x4fff; older clients go by RFC 5766.
const NUMBERS: std::ops::RangeInclusive<u16> = 0x4000..=0x7ffe;

/// Permissions are for this relay's own addresses, of which there are few.
const MOST_PERMISSIONS: usize = 64;

/// How a datagram goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hop {
    /// On this channel of the receiver.
    Channel(u16),
    /// As a Data indication, because the receiver has no channel to the sender.
    Indication,
    /// As it is, to an address outside.
    Outside,
}

/// Where data of one client's channel goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) to: Tuple,
    pub(super) hop: Hop,
    /// The sender's relayed address.
    pub(super) source: SocketAddr,
    /// The client's node: whose traffic it is.
    pub(super) owner: NodeId,
    /// Until then it holds, unless the table changes.
    until: Instant,
}

#[derive(Debug)]
struct Channel {
    peer: SocketAddr,
    expires: Instant,
}

/// One client's allocation.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) client: Tuple,
    pub(super) owner: Owner,
    pub(super) relayed: SocketAddr,
    /// Whether its address can be reached from outside.
    pub(super) outside: bool,
    /// Of the Allocate request that made it: the same again is a retransmission.
    pub(super) transaction: TransactionId,
    pub(super) expires: Instant,
    /// Last request.
    pub(super) active: Instant,
    permissions: Vec<(IpAddr, Instant)>,
    channels: HashMap<u16, Channel>,
    numbers: HashMap<SocketAddr, u16>,
}

impl Allocation {
    pub(super) fn new(
        client: Tuple,
        owner: Owner,
        relayed: SocketAddr,
        transaction: TransactionId,
        expires: Instant,
    ) -> Self {
        Self {
            client,
            owner,
            relayed,
            outside: false,
            transaction,
            expires,
            active: expires,
            permissions: Vec::new(),
            channels: HashMap::new(),
            numbers: HashMap::new(),
        }
    }

    /// Admits an address for five minutes; `false` when there are too many.
    pub(super) fn permit(&mut self, address: IpAddr, now: Instant) -> bool {
        self.permissions.retain(|(other, expires)| *other != address && now < *expires);
        if self.permissions.len() >= MOST_PERMISSIONS {
            return false;
        }
        self.permissions.push((address, now + PERMISSION));
        true
    }

    fn permitted(&self, address: IpAddr, now: Instant) -> Option<Instant> {
        let of =
            |(other, expires): &(IpAddr, Instant)| (*other == address && now < *expires).then_some(*expires);
        self.permissions.iter().find_map(of)
    }

    /// Binds a channel; `None` when number or peer belong to another binding, else whether it is new.
    pub(super) fn bind(&mut self, number: u16, peer: SocketAddr, now: Instant) -> Option<bool> {
        if !NUMBERS.contains(&number) {
            return None;
        }
        self.drop_lapsed_channels(now);
        let same_peer = self.channels.get(&number).is_none_or(|channel| channel.peer == peer);
        let same_number = self.numbers.get(&peer).is_none_or(|other| *other == number);
        if !(same_peer && same_number) {
            return None;
        }
        let new = self.channels.insert(number, Channel { peer, expires: now + CHANNEL }).is_none();
        self.numbers.insert(peer, number);
        Some(new)
    }

    fn drop_lapsed_channels(&mut self, now: Instant) {
        let numbers = &mut self.numbers;
        self.channels.retain(|_, channel| {
            let keep = now < channel.expires;
            if !keep {
                numbers.remove(&channel.peer);
            }
            keep
        });
    }

    fn channel(&self, number: u16, now: Instant) -> Option<(SocketAddr, Instant)> {
        let channel = self.channels.get(&number).filter(|channel| now < channel.expires)?;
        Some((channel.peer, channel.expires))
    }
}

/// All allocations.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_relayed: HashMap<SocketAddr, Allocation>,
    by_client: HashMap<Tuple, SocketAddr>,
    by_node: HashMap<NodeId, Vec<SocketAddr>>,
    /// How many allocations each of the relay's addresses has.
    addresses: HashMap<IpAddr, usize>,
    /// Found before, by client and channel. Emptied by each change that could make one of them wrong.
    routes: HashMap<(Tuple, u16), Route>,
    /// Relayed addresses that have a socket.
    sockets: HashSet<SocketAddr>,
    socket_orders: VecDeque<SocketOrder>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_relayed.len()
    }

    /// Whether an address is one that allocations have.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    pub(super) fn has_relayed(&self, relayed: SocketAddr) -> bool {
        self.by_relayed.contains_key(&relayed)
    }

    /// A client's allocation, lapsed or not.
    pub(super) fn of_client(&mut self, client: &Tuple) -> Option<&mut Allocation> {
        self.by_relayed.get_mut(self.by_client.get(client)?)
    }

    /// Whether a client has an allocation, lapsed or not.
    pub(super) fn has_client(&self, client: &Tuple) -> bool {
        self.by_client.contains_key(client)
    }

    /// How many allocations a node has.
    pub(super) fn count(&self, node: NodeId) -> usize {
        self.by_node.get(&node).map_or(0, Vec::len)
    }

    pub(super) fn insert(&mut self, allocation: Allocation) {
        let relayed = allocation.relayed;
        self.by_client.insert(allocation.client, relayed);
        self.by_node.entry(allocation.owner.node).or_default().push(relayed);
        *self.addresses.entry(relayed.ip()).or_insert(0) += 1;
        self.by_relayed.insert(relayed, allocation);
        self.routes.clear();
    }

    /// An allocation has a peer outside, so its address needs a socket.
    pub(super) fn open_socket(&mut self, relayed: SocketAddr) {
        if self.sockets.insert(relayed) {
            self.socket_orders.push_back(SocketOrder::Open(relayed));
        }
    }

    pub(super) fn poll_socket(&mut self) -> Option<SocketOrder> {
        self.socket_orders.pop_front()
    }

    pub(super) fn remove(&mut self, relayed: SocketAddr) {
        let Some(allocation) = self.by_relayed.remove(&relayed) else { return };
        if self.sockets.remove(&relayed) {
            self.socket_orders.push_back(SocketOrder::Close(relayed));
        }
        self.by_client.remove(&allocation.client);
        let node = allocation.owner.node;
        if let Some(own) = self.by_node.get_mut(&node) {
            own.retain(|other| *other != relayed);
            if own.is_empty() {
                self.by_node.remove(&node);
            }
        }
        if let Some(count) = self.addresses.get_mut(&relayed.ip()) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&relayed.ip());
            }
        }
        self.routes.clear();
    }

    /// Ends the allocations of all others.
    pub(super) fn retain(&mut self, keep: impl Fn(&Owner) -> bool) {
        let others = self.by_relayed.values().filter(|allocation| !keep(&allocation.owner));
        for relayed in others.map(|allocation| allocation.relayed).collect::<Vec<_>>() {
            self.remove(relayed);
        }
    }

    /// Ends all allocations of a node.
    pub(super) fn remove_node(&mut self, node: NodeId) {
        for relayed in self.by_node.get(&node).cloned().unwrap_or_default() {
            self.remove(relayed);
        }
    }

    /// Ends the allocation of a node that has been without a request for longest.
    pub(super) fn remove_idlest(&mut self, node: NodeId) {
        let own = self.by_node.get(&node).into_iter().flatten();
        let active = |relayed: &&SocketAddr| self.by_relayed.get(relayed).map(|allocation| allocation.active);
        if let Some(idlest) = own.min_by_key(active).copied() {
            self.remove(idlest);
        }
    }

    /// Ends what has lapsed.
    pub(super) fn sweep(&mut self, now: Instant) {
        let lapsed = self.by_relayed.values().filter(|allocation| allocation.expires <= now);
        let lapsed: Vec<_> = lapsed.map(|allocation| allocation.relayed).collect();
        for relayed in lapsed {
            self.remove(relayed);
        }
        for allocation in self.by_relayed.values_mut() {
            allocation.drop_lapsed_channels(now);
        }
    }

    /// Forgets the routes found so far, because a channel was bound that one of them may take.
    pub(super) fn forget_routes(&mut self) {
        self.routes.clear();
    }

    /// Where data goes that a client sends on a channel.
    pub(super) fn route(&mut self, client: Tuple, channel: u16, now: Instant) -> Result<Route, DropReason> {
        if let Some(route) = self.routes.get(&(client, channel)).filter(|route| now < route.until) {
            return Ok(*route);
        }
        let source = self.live_client(&client, now)?;
        let (peer, expires) = source.channel(channel, now).ok_or(DropReason::NoChannel)?;
        let mut route = self.route_to(source, peer, now)?;
        route.until = route.until.min(expires);
        self.routes.insert((client, channel), route);
        Ok(route)
    }

    /// Where data goes that a client sends to a peer by name.
    pub(super) fn route_by_name(
        &self,
        client: &Tuple,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<Route, DropReason> {
        self.route_to(self.live_client(client, now)?, peer, now)
    }

    fn live_client(&self, client: &Tuple, now: Instant) -> Result<&Allocation, DropReason> {
        let relayed = self.by_client.get(client).ok_or(DropReason::NoAllocation)?;
        let allocation = self.by_relayed.get(relayed).filter(|allocation| now < allocation.expires);
        allocation.ok_or(DropReason::NoAllocation)
    }

    fn route_to(&self, source: &Allocation, peer: SocketAddr, now: Instant) -> Result<Route, DropReason> {
        let outside = !self.has_address(peer.ip());
        if outside && !source.outside {
            return Err(DropReason::OutsidePeer);
        }
        let allowed = source.permitted(peer.ip(), now).ok_or(DropReason::NoPermission)?;
        let owner = source.owner.node;
        if outside {
            let local = unspecified(source.relayed.ip());
            let to = Tuple { via: Via::Outside(source.relayed.port()), local, remote: peer };
            let until = allowed.min(source.expires);
            return Ok(Route { to, hop: Hop::Outside, source: source.relayed, owner, until });
        }
        let target = self.by_relayed.get(&peer).filter(|target| now < target.expires);
        let target = target.ok_or(DropReason::PeerGone)?;
        if target.owner.network != source.owner.network {
            return Err(DropReason::ForeignNetwork);
        }
        let admitted = target.permitted(source.relayed.ip(), now).ok_or(DropReason::NoPermission)?;
        let mut until = allowed.min(admitted).min(source.expires).min(target.expires);
        let number = target.numbers.get(&source.relayed).copied();
        let hop = match number.and_then(|number| Some((number, target.channel(number, now)?.1))) {
            Some((number, expires)) => {
                until = until.min(expires);
                Hop::Channel(number)
            }
            None => Hop::Indication,
        };
        Ok(Route { to: target.client, hop, source: source.relayed, owner, until })
    }

    /// Where data goes that comes from outside to a relayed address.
    pub(super) fn route_from_outside(
        &self,
        relayed: SocketAddr,
        from: SocketAddr,
        now: Instant,
    ) -> Result<Route, DropReason> {
        let target = self.by_relayed.get(&relayed).filter(|target| now < target.expires);
        let target = target.ok_or(DropReason::PeerGone)?;
        let until = target.permitted(from.ip(), now).ok_or(DropReason::NoPermission)?;
        let number = target.numbers.get(&from).copied();
        let bound = number.filter(|number| target.channel(*number, now).is_some());
        let hop = bound.map_or(Hop::Indication, Hop::Channel);
        Ok(Route { to: target.client, hop, source: from, owner: target.owner.node, until })
    }
}

/// Left to the kernel: the address that relayed addresses show need not be one of this machine.
fn unspecified(family: IpAddr) -> IpAddr {
    match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
