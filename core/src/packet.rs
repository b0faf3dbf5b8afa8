//! Batches of packets in memory that the caller owns and reuses.
//!
//! [`DatagramBatch`] takes outgoing datagrams back to back, so that a run of equal length to one destination can be
//! handed to the kernel as one segmented send (UDP GSO); the engine encrypts straight into it. [`PacketBatch`] takes
//! decrypted IP packets, one buffer each, with headroom for a TUN device's virtio header and room to grow when the
//! caller coalesces (GRO). After some rounds neither allocates any more.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ria_protocol::id::NetworkId;

use crate::marks::Ecn;
use crate::offload::VIRTIO_HEADER;

/// Bytes before each packet in a [`PacketBatch`]: a virtio header takes 10 or 12, the rest keeps packets aligned.
pub const PACKET_HEADROOM: usize = 16;

/// Most segments that Linux takes in one segmented send (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: usize = 64;

/// Most bytes in one segmented send: the largest UDP payload over IPv4.
const MAX_SEND: usize = 65_507;

/// Sockets have numbers below this one, streams from here on.
pub(crate) const FIRST_STREAM: u8 = 0x80;

/// Default capacity limit of a [`DatagramBatch`]: what a TUN read of 128 packets of 1500 bytes becomes, several times.
const DEFAULT_LIMIT: usize = 1 << 20;

/// Which of the agent's UDP sockets. All traffic takes the [main](Self::MAIN) one, whose port is the agent's, but for
/// one case: a relay tells its clients apart by their addresses alone (RFC 8656, section 2.2), so the second network
/// that uses the same relay goes there from a socket of its own, and the third from another.
///
/// The upper half of the numbers are no sockets but streams to relays ([`Event::RelayStreamWanted`]), for where UDP
/// does not get through; on them each datagram is a frame ([`relay::framing`](crate::relay::framing)).
///
/// [`Event::RelayStreamWanted`]: crate::Event::RelayStreamWanted
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketIndex(u8);

impl SocketIndex {
    /// The socket of the agent's port.
    pub const MAIN: Self = Self(0);

    /// The socket of this number; 0 is the main one.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// The stream of this number, modulo how many there may be.
    pub const fn stream(number: u8) -> Self {
        Self(FIRST_STREAM | number)
    }

    /// Whether this is a stream to a relay.
    pub const fn is_stream(self) -> bool {
        self.0 >= FIRST_STREAM
    }

    /// Its number; of sockets, counted from 0 without gaps.
    pub fn number(self) -> usize {
        self.0.into()
    }
}

/// A datagram that arrived at the UDP port. Addresses are plain IPv4 or IPv6, never IPv4 mapped into IPv6.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// The local address that it was sent to, where the socket tells.
    pub local: Option<IpAddr>,
    /// The mark that it bore.
    pub ecn: Ecn,
    /// Payload.
    pub data: &'a [u8],
}

/// What an interface hands out in one piece.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// An IP packet.
    Plain(&'a [u8]),
    /// A virtio-net header and behind it one packet, or many of one flow in one ([`offload`](crate::offload)).
    Virtio(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// All of it.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Plain(bytes) | Self::Virtio(bytes) => bytes,
        }
    }

    /// How many packets are in it.
    pub(crate) fn packets(self) -> usize {
        const GSO_SIZE: usize = 4;
        let size = match self {
            Self::Plain(_) => None,
            Self::Virtio(bytes) => bytes.get(GSO_SIZE..).and_then(|bytes| bytes.first_chunk()),
        };
        match size.map(|size| usize::from(u16::from_ne_bytes(*size))) {
            None | Some(0) => 1,
            Some(size) => self.packet().len().div_ceil(size),
        }
    }

    /// The packet, or what would be one if it were not too large.
    pub(crate) fn packet(self) -> &'a [u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Virtio(bytes) => bytes.get(VIRTIO_HEADER..).unwrap_or_default(),
        }
    }
}

/// Where IP packets come from: one after the other, each only there while it is looked at, so that a source may cut them
/// out of larger ones in place.
pub trait PacketSource: Sized {
    /// Hands each packet to `each`, in order, but for those in frames that `elsewhere` says yes to: it has taken them.
    /// Returns how many were unreadable and left out.
    fn drain_but(self, elsewhere: impl FnMut(Frame<'_>) -> bool, each: impl FnMut(&[u8])) -> usize;

    /// Hands each packet to `each`, in order. Returns how many were unreadable and left out.
    fn drain(self, each: impl FnMut(&[u8])) -> usize {
        self.drain_but(|_| false, each)
    }
}

impl<'a, I: IntoIterator<Item = &'a [u8]>> PacketSource for I {
    fn drain_but(self, mut elsewhere: impl FnMut(Frame<'_>) -> bool, each: impl FnMut(&[u8])) -> usize {
        self.into_iter().filter(|packet| !elsewhere(Frame::Plain(packet))).for_each(each);
        0
    }
}

/// What is left of a source when some of its frames go elsewhere.
pub(crate) struct Sorted<S, F> {
    pub(crate) packets: S,
    pub(crate) elsewhere: F,
}

impl<S: PacketSource, F: FnMut(Frame<'_>) -> bool> PacketSource for Sorted<S, F> {
    fn drain_but(mut self, mut also: impl FnMut(Frame<'_>) -> bool, each: impl FnMut(&[u8])) -> usize {
        self.packets.drain_but(|frame| (self.elsewhere)(frame) || also(frame), each)
    }
}

/// One or several datagrams of equal length (the last may be shorter) for one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// Local address to send from; `None` leaves it to the kernel.
    pub from: Option<IpAddr>,
    /// Socket to send from.
    pub socket: SocketIndex,
    /// What goes before what.
    pub class: Class,
    /// Whose queue it waits in when it has to.
    pub lane: Lane,
    /// What the network is told to do with it.
    pub treatment: Treatment,
    /// Length of each datagram but the last.
    pub segment_size: usize,
    /// The datagrams, back to back.
    pub contents: &'a [u8],
}

impl<'a> Transmit<'a> {
    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.contents.chunks(self.segment_size.max(1))
    }
}

/// What goes before what on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Probes, checks, handshakes, keepalives and what is said to relays: never to wait behind packets.
    Urgent,
    /// Packets of flows that send little, or are marked: they go before the others of their peer.
    Prompt,
    /// All other packets.
    Bulk,
}

impl Class {
    /// In the order in which they go.
    pub const ALL: [Self; 3] = [Self::Urgent, Self::Prompt, Self::Bulk];
}

/// The peer whose packets a datagram carries, for [`Engine::allowance`](crate::Engine::allowance): each has a queue and a
/// pace of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(pub(crate) Option<u32>);

/// What the network is told to do with a datagram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Treatment {
    /// The byte that is TOS in IPv4 and the traffic class in IPv6.
    pub traffic_class: u8,
    /// It may be cut into fragments: the path does not carry it whole.
    pub fragments: bool,
}

/// Where a datagram goes, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<IpAddr>,
    pub(crate) socket: SocketIndex,
    pub(crate) class: Class,
    pub(crate) lane: Lane,
    pub(crate) treatment: Treatment,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    destination: Destination,
    start: usize,
    len: usize,
}

/// Datagrams to be sent.
#[derive(Debug)]
pub struct DatagramBatch {
    bytes: Vec<u8>,
    used: usize,
    entries: Vec<Entry>,
    limit: usize,
}

impl Default for DatagramBatch {
    fn default() -> Self {
        Self::with_limit(DEFAULT_LIMIT)
    }
}

impl DatagramBatch {
    /// An empty batch that never holds more than `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { bytes: Vec::new(), used: 0, entries: Vec::new(), limit }
    }

    /// Appends a datagram of at most `len` bytes that `fill` writes, which returns how long it became; `None` leaves
    /// nothing behind. Returns whether there was room and `fill` wrote one.
    pub fn push_with(
        &mut self,
        to: SocketAddr,
        from: Option<IpAddr>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let (socket, class, lane) = (SocketIndex::MAIN, Class::Bulk, Lane::default());
        let treatment = Treatment::default();
        self.push_to(Destination { to, from, socket, class, lane, treatment }, len, fill)
    }

    /// The same with any socket.
    pub(crate) fn push_to(
        &mut self,
        destination: Destination,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let Some(room) = self.reserve(len) else { return false };
        match fill(room) {
            Some(written) => {
                self.commit(destination, written.min(len));
                true
            }
            None => false,
        }
    }

    /// Appends a copy of a datagram; `false` when the batch is full.
    pub fn push(&mut self, to: SocketAddr, from: Option<IpAddr>, datagram: &[u8]) -> bool {
        self.push_with(to, from, datagram.len(), |room| {
            room.copy_from_slice(datagram);
            Some(datagram.len())
        })
    }

    /// Room for `len` more bytes behind the last datagram, or `None` when the batch is full.
    fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = self.used.checked_add(len).filter(|end| *end <= self.limit)?;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.used..end)
    }

    /// Makes the first `len` bytes of the reserved room a datagram.
    fn commit(&mut self, destination: Destination, len: usize) {
        self.entries.push(Entry { destination, start: self.used, len });
        self.used += len;
    }

    /// Number of datagrams.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Copies another batch behind this one; returns how many datagrams it had no room for.
    pub(crate) fn append(&mut self, other: &Self) -> usize {
        let datagram = |entry: &Entry| other.bytes.get(entry.start..entry.start + entry.len);
        let mut lost = 0;
        for entry in &other.entries {
            let copied = datagram(entry).is_some_and(|bytes| {
                self.push_to(entry.destination, bytes.len(), |room| {
                    room.copy_from_slice(bytes);
                    Some(bytes.len())
                })
            });
            lost += usize::from(!copied);
        }
        lost
    }

    /// Forgets all datagrams and keeps the memory.
    pub fn clear(&mut self) {
        self.used = 0;
        self.entries.clear();
    }

    /// What to send, class by class: runs of datagrams that fit one segmented send each (at most 64 segments and
    /// 65 507 bytes).
    pub fn transmits(&self) -> impl Iterator<Item = Transmit<'_>> {
        Class::ALL.into_iter().flat_map(|class| Transmits { batch: self, next: 0, class })
    }
}

struct Transmits<'a> {
    batch: &'a DatagramBatch,
    next: usize,
    class: Class,
}

impl<'a> Iterator for Transmits<'a> {
    type Item = Transmit<'a>;

    fn next(&mut self) -> Option<Transmit<'a>> {
        let rest = self.batch.entries.get(self.next..)?;
        let skipped = rest.iter().position(|entry| entry.destination.class == self.class)?;
        self.next += skipped;
        let rest = rest.get(skipped..)?;
        let first = rest.first()?;
        let mut bytes = first.len;
        let mut count = 1;
        for (previous, entry) in rest.iter().zip(rest.iter().skip(1)).take(MAX_SEGMENTS - 1) {
            // A shorter datagram may only be the last one of a run.
            let fits = entry.destination == first.destination
                && previous.len == first.len
                && (1..=first.len).contains(&entry.len)
                && bytes + entry.len <= MAX_SEND;
            if !fits {
                break;
            }
            bytes += entry.len;
            count += 1;
        }
        self.next += count;
        let contents = self.batch.bytes.get(first.start..first.start + bytes)?;
        let Destination { to, from, socket, class, lane, treatment } = first.destination;
        Some(Transmit { to, from, socket, class, lane, treatment, segment_size: first.len, contents })
    }
}

/// IP packets of one network for its interface. Each buffer begins with [`PACKET_HEADROOM`] bytes that are not part
/// of the packet and may be overwritten.
#[derive(Debug, Default)]
pub struct NetworkPackets {
    buffers: Vec<Vec<u8>>,
    used: usize,
}

impl NetworkPackets {
    /// The packets, each behind [`PACKET_HEADROOM`] bytes; may be grown and changed in place.
    pub fn buffers_mut(&mut self) -> &mut [Vec<u8>] {
        self.buffers.get_mut(..self.used).unwrap_or_default()
    }

    /// The packets without their headroom.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.buffers.iter().take(self.used).map(|buffer| buffer.get(PACKET_HEADROOM..).unwrap_or_default())
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Room for a packet of `len` bytes behind the last one.
    pub fn reserve(&mut self, len: usize) -> &mut [u8] {
        if self.used == self.buffers.len() {
            self.buffers.push(Vec::new());
        }
        let index = self.used;
        let buffer = &mut self.buffers[index];
        // Never shrinks here, so that zeroing happens once per buffer and not once per packet.
        if buffer.len() < PACKET_HEADROOM + len {
            buffer.resize(PACKET_HEADROOM + len, 0);
        }
        &mut buffer[PACKET_HEADROOM..PACKET_HEADROOM + len]
    }

    /// Makes the first `len` bytes of the reserved room a packet.
    pub fn commit(&mut self, len: usize) {
        if let Some(buffer) = self.buffers.get_mut(self.used) {
            buffer.truncate(PACKET_HEADROOM + len);
            self.used += 1;
        }
    }
}

/// Decrypted IP packets, by network.
#[derive(Debug, Default)]
pub struct PacketBatch {
    networks: BTreeMap<NetworkId, NetworkPackets>,
}

impl PacketBatch {
    /// The packets of one network.
    pub fn network_mut(&mut self, network: NetworkId) -> &mut NetworkPackets {
        self.networks.entry(network).or_default()
    }

    /// All networks for which packets came.
    pub fn networks_mut(&mut self) -> impl Iterator<Item = (NetworkId, &mut NetworkPackets)> {
        self.networks
            .iter_mut()
            .filter(|(_, packets)| !packets.is_empty())
            .map(|(id, packets)| (*id, packets))
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.networks.values().all(NetworkPackets::is_empty)
    }

    /// Forgets all packets and keeps the memory.
    pub fn clear(&mut self) {
        for packets in self.networks.values_mut() {
            packets.used = 0;
        }
    }

    /// Copies another batch behind this one.
    pub(crate) fn append(&mut self, other: &Self) {
        for (network, packets) in &other.networks {
            let mine = self.network_mut(*network);
            for packet in packets.iter() {
                mine.reserve(packet.len()).copy_from_slice(packet);
                mine.commit(packet.len());
            }
        }
    }

    /// Gives back the memory of networks that are not these.
    pub(crate) fn retain(&mut self, stays: impl Fn(&NetworkId) -> bool) {
        self.networks.retain(|network, _| stays(network));
    }

    /// Gives back the memory of a network that is gone.
    pub fn forget(&mut self, network: NetworkId) {
        self.networks.remove(&network);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn equal_datagrams_for_one_destination_become_one_send() {
        let mut batch = DatagramBatch::default();
        for len in [100, 100, 40, 100] {
            assert!(batch.push(address(1), None, &vec![len as u8; len]));
        }
        assert!(batch.push(address(2), None, &[7; 100]));
        let sends: Vec<_> =
            batch.transmits().map(|t| (t.to.port(), t.segment_size, t.contents.len())).collect();
        assert_eq!(sends, [(1, 100, 240), (1, 100, 100), (2, 100, 100)]);
        let first: Vec<_> = batch.transmits().next().unwrap().datagrams().map(<[u8]>::len).collect();
        assert_eq!(first, [100, 100, 40]);
    }

    #[test]
    fn classes_go_one_before_the_other_and_each_in_its_order() {
        use Class::{Bulk, Prompt, Urgent};
        let mut batch = DatagramBatch::default();
        for (n, class) in [(0, Bulk), (1, Urgent), (2, Bulk), (3, Urgent), (4, Bulk), (5, Prompt)] {
            let (socket, lane) = (SocketIndex::MAIN, Lane::default());
            let treatment = Treatment::default();
            let to = Destination { to: address(1), from: None, socket, class, lane, treatment };
            assert!(batch.push_to(to, 9, |room| {
                room.fill(n);
                Some(9)
            }));
        }
        let sent: Vec<_> = batch
            .transmits()
            .map(|t| (t.class, t.datagrams().map(|datagram| datagram[0]).collect::<Vec<_>>()))
            .collect();
        let expected = [(Urgent, 1), (Urgent, 3), (Prompt, 5), (Bulk, 0), (Bulk, 2), (Bulk, 4)];
        assert_eq!(sent, expected.map(|(class, n)| (class, vec![n])));
    }

    #[test]
    fn sends_respect_the_kernels_limits() {
        let mut batch = DatagramBatch::default();
        for _ in 0..100 {
            batch.push(address(1), None, &[0; 1400]);
        }
        for _ in 0..100 {
            batch.push(address(2), None, &[0; 100]);
        }
        let sends: Vec<_> = batch.transmits().map(|t| t.contents.len()).collect();
        assert!(batch.transmits().all(|t| t.contents.len() <= MAX_SEND), "{sends:?}");
        assert!(batch.transmits().all(|t| t.datagrams().count() <= MAX_SEGMENTS), "{sends:?}");
        assert_eq!(sends.iter().sum::<usize>(), 150_000);
    }

    #[test]
    fn a_full_batch_refuses_and_an_unwritten_datagram_leaves_nothing() {
        let mut batch = DatagramBatch::with_limit(150);
        assert!(!batch.push_with(address(1), None, 100, |_| None));
        assert!(batch.push(address(1), None, &[1; 100]));
        assert!(!batch.push(address(1), None, &[1; 51]));
        assert_eq!((batch.len(), batch.transmits().count()), (1, 1));
    }

    #[test]
    fn packets_keep_headroom_and_memory() {
        let mut batch = PacketBatch::default();
        let network = NetworkId::from_bytes([1; 10]);
        for round in 0..3u8 {
            let packets = batch.network_mut(network);
            packets.reserve(60).fill(round);
            packets.commit(40);
            assert_eq!(packets.buffers_mut()[0].len(), PACKET_HEADROOM + 40);
            assert_eq!(packets.iter().next(), Some(&[round; 40][..]));
            batch.clear();
            assert!(batch.is_empty());
        }
    }
}
