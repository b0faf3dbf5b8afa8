//! The data path allocates nothing per packet, direct or relayed, cut or joined. Alone in its file, since an allocator is for a whole program.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::nat::{Filtering, Mapping};
use common::rtps::{to_all, to_one};
use common::stock::{device_overlay, routed};
use common::{World, ms, network, node, overlay, packet, two_behind};
use ria_core::offload::{Coalescer, VIRTIO_HEADER, segment};
use ria_core::{DatagramBatch, PacketBatch, PacketSource, PathKind, Received};
use ria_protocol::map::{Patch, StockPeer};

struct Counting;

thread_local! {
    /// Allocations of this thread: the test harness has threads of its own.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator, which keeps the contract.
#[allow(unsafe_code, reason = "an allocator can't be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Passes rounds of packets from host 0 to host 1 and returns how many allocations the last ones took.
fn allocations(world: &mut World, rounds: usize) -> u64 {
    let packets: Vec<Vec<u8>> = (0..64).map(|number| packet(0, 1, number, 1200)).collect();
    let (mut sent, mut answers, mut tun) =
        (DatagramBatch::default(), DatagramBatch::default(), PacketBatch::default());
    let relay = world.turn.address;
    let mut counted = 0;
    for round in 0..rounds {
        let before = COUNT.get();
        let batch = packets.iter().map(Vec::as_slice);
        world.hosts[0].engine.handle_tun(network(), batch, world.now, &mut sent);
        let sending = COUNT.get() - before;
        assert!(sent.len() >= 64);

        // Relayed datagrams pass the server, which is none of the engine's business.
        let source = world.public(0);
        let mut arrived = Vec::new();
        for transmit in sent.transmits() {
            for bytes in transmit.datagrams() {
                let forwarded = world.turn.handle(source, bytes).filter(|_| transmit.to == relay);
                arrived.push(forwarded.map_or((source, bytes.to_vec()), |(_, bytes)| (relay, bytes)));
            }
        }
        let before = COUNT.get();
        let batch = arrived.iter().map(|(from, data)| Received {
            from: *from,
            local: None,
            ecn: ria_core::Ecn::NotEct,
            data,
        });
        world.hosts[1].engine.handle_udp(batch, world.now, &mut tun, &mut answers);
        let receiving = COUNT.get() - before;
        assert_eq!(tun.network_mut(network()).len(), 64);
        if round >= 4 {
            counted += sending + receiving;
        }
        sent.clear();
        answers.clear();
        tun.clear();
    }
    counted
}

#[test]
fn packets_cost_no_allocation() {
    for (mapping, kind) in [
        (Mapping::EndpointIndependent, PathKind::Direct),
        (Mapping::AddressAndPortDependent, PathKind::RelayUdp),
    ] {
        let mut world = two_behind(1, mapping, Filtering::AddressAndPortDependent);
        world.run(ms(3000));
        assert!(world.both_on(kind));
        // Time stands still, so nothing but packets is at work.
        assert_eq!(allocations(&mut world, 104), 0, "for 6400 packets, {kind:?}");
    }
}

/// A super-packet as Linux hands it out.
struct Frame(Vec<u8>);

impl PacketSource for &mut Frame {
    fn drain_but(
        self,
        mut elsewhere: impl FnMut(ria_core::Frame<'_>) -> bool,
        each: impl FnMut(&[u8]),
    ) -> usize {
        let taken = elsewhere(ria_core::Frame::Virtio(&self.0));
        usize::from(!taken && segment(&mut self.0, each).is_err())
    }
}

/// `count` datagrams of 1000 bytes from host 0 to host 1 in one.
fn super_packet(count: usize) -> Frame {
    let mut bytes = packet(0, 1, 0, 28 + count * 1000);
    // Not to be fragmented; from port 1 to port 2, with a length and a checksum.
    bytes[6] = 0x40;
    bytes[20..28].copy_from_slice(&[0, 1, 0, 2, 0, 0, 1, 1]);
    let udp_len = (8 + count * 1000) as u16;
    bytes[24..26].copy_from_slice(&udp_len.to_be_bytes());
    let mut header = [0; VIRTIO_HEADER];
    (header[0], header[1]) = (1, 5);
    header[4..6].copy_from_slice(&1000u16.to_ne_bytes());
    header[6..8].copy_from_slice(&20u16.to_ne_bytes());
    header[8..10].copy_from_slice(&6u16.to_ne_bytes());
    Frame([&header[..], &bytes].concat())
}

#[test]
fn super_packets_cost_none_either() {
    let mut world = two_behind(4, Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    world.run(ms(3000));
    assert!(world.both_on(PathKind::Direct));
    let source = world.public(0);
    let (mut sent, mut answers, mut tun, mut coalescer) =
        (DatagramBatch::default(), DatagramBatch::default(), PacketBatch::default(), Coalescer::default());
    let mut counted = 0;
    for round in 0..104 {
        let mut frame = super_packet(60);
        let before = COUNT.get();
        world.hosts[0].engine.handle_tun(network(), &mut frame, world.now, &mut sent);
        assert_eq!(sent.len(), 60);
        let received = sent.transmits().flat_map(|transmit| transmit.datagrams());
        let received =
            received.map(|data| Received { from: source, local: None, ecn: ria_core::Ecn::NotEct, data });
        world.hosts[1].engine.handle_udp(received, world.now, &mut tun, &mut answers);
        let buffers = tun.network_mut(network()).buffers_mut();
        coalescer.plan(buffers, true);
        let written: usize =
            coalescer.groups().iter().flat_map(|g| coalescer.parts(g, buffers)).map(<[u8]>::len).sum();
        assert_eq!((coalescer.groups().len(), written), (1, VIRTIO_HEADER + 28 + 60_000));
        counted += if round >= 4 { COUNT.get() - before } else { 0 };
        sent.clear();
        answers.clear();
        tun.clear();
    }
    assert_eq!(counted, 0, "for 6000 packets");
}

#[test]
fn packets_through_a_gateway_cost_none_either() {
    let mut world = World::new(2);
    world.host(None);
    world.host(None);
    world.introduce_all();
    let device = world.device(0, None);
    let member = world.device_member(device, StockPeer { gateway: Some(node(0)), ..StockPeer::default() });
    world.patch(&[0], &Patch::MemberSet(member));
    world.send_from_device(device, &routed(device_overlay(device), overlay(0), 1, 64, 100));
    world.run(ms(3000));
    assert!(world.both_up());
    let packet = routed(device_overlay(device), overlay(1), 1, 64, 1200);
    let (mut tun, mut out, mut counted) = (PacketBatch::default(), DatagramBatch::default(), 0);
    for round in 0..104 {
        let from = world.devices[device].address;
        let datagrams: Vec<_> =
            (0..64).flat_map(|_| world.devices[device].send(&packet, world.now)).collect();
        let before = COUNT.get();
        let batch =
            datagrams.iter().map(|data| Received { from, local: None, ecn: ria_core::Ecn::NotEct, data });
        world.hosts[0].engine.handle_udp(batch, world.now, &mut tun, &mut out);
        counted += if round >= 4 { COUNT.get() - before } else { 0 };
        assert_eq!((tun.network_mut(network()).len(), out.len()), (0, 64));
        out.clear();
        tun.clear();
    }
    assert_eq!(counted, 0, "for 6400 packets");
}

#[test]
fn announcements_to_many_peers_cost_none_either() {
    let mut world = World::new(3);
    (0..4).for_each(|_| {
        world.host(None);
    });
    world.introduce_all();
    world.run(ms(3000));
    assert!((1..4).all(|other| world.is_up(0, other)));
    // Heard by multicast from all others, so that unicast is damped too.
    (1..4).for_each(|other| world.send(other, &to_all(other, 1, 1)));
    world.run(ms(100));
    let packets: Vec<Vec<u8>> =
        (0..10).flat_map(|number| [to_all(0, number, 1), to_one(0, number, (1, 7410))]).collect();
    let (mut out, mut counted, mut copies) = (DatagramBatch::default(), 0, 0);
    for round in 0..40 {
        let now = world.now + ms(3000 * round);
        let before = COUNT.get();
        world.hosts[0].engine.handle_tun(network(), packets.iter().map(Vec::as_slice), now, &mut out);
        counted += if round >= 4 { COUNT.get() - before } else { 0 };
        copies += if round == 0 { out.len() } else { 0 };
        out.clear();
    }
    assert!(copies >= 10 * 3 + 10, "{copies}");
    assert_eq!(counted, 0, "for 720 packets");
}

#[test]
fn packets_that_are_handed_to_another_thread_cost_none_either() {
    let mut world = World::new(6);
    world.shards = 2;
    (0..3).for_each(|_| {
        world.host(None);
    });
    world.introduce_all();
    world.run(ms(3000));
    assert!(world.is_up(0, 2));
    // Of the first host's two peers, the second is in the other shard; of the last one's, the first host is not.
    let mut workers = world.hosts[0].engine.take_workers();
    let packets: Vec<Vec<u8>> = (0..64).map(|number| packet(0, 2, number, 1200)).collect();
    let answers: Vec<Vec<u8>> = (0..64).map(|number| packet(2, 0, number, 1200)).collect();
    let (mut udp, mut tun, mut counted) = (DatagramBatch::default(), PacketBatch::default(), 0);
    let (now, source) = (world.now, world.public(2));
    for round in 0..104 {
        world.hosts[2].engine.handle_tun(network(), answers.iter().map(Vec::as_slice), now, &mut udp);
        let datagrams: Vec<Vec<u8>> =
            udp.transmits().flat_map(|transmit| transmit.datagrams()).map(<[u8]>::to_vec).collect();
        udp.clear();
        let before = COUNT.get();
        let engine = &mut world.hosts[0].engine;
        engine.handle_tun(network(), packets.iter().map(Vec::as_slice), now, &mut udp);
        let received = datagrams.iter();
        let received =
            received.map(|data| Received { from: source, local: None, ecn: ria_core::Ecn::NotEct, data });
        engine.handle_udp(received, now, &mut tun, &mut udp);
        assert!(udp.is_empty() && tun.is_empty(), "all of it is the other shard's");
        let (worker, mut parcel) = engine.poll_parcel().unwrap();
        workers[worker].handle(&mut parcel, now);
        engine.handle_parcel(worker, &mut parcel, now);
        assert_eq!((parcel.udp.len(), parcel.tun.network_mut(network()).len()), (64, 64));
        engine.recycle(worker, parcel);
        counted += if round >= 4 { COUNT.get() - before } else { 0 };
    }
    assert_eq!(counted, 0, "for 12800 packets");
}
