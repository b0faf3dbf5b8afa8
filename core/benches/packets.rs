//! What a packet costs in the engine, without a kernel: `cargo bench -p ria-core`. Figures: docs/performance.md.
//!
//! Two engines with real sessions on one direct path. A batch is what one read of the interface or one receive gives.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use common::nat::{Filtering, Mapping};
use common::{World, ms, network, packet, two_in};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ria_core::offload::{Coalescer, VIRTIO_HEADER, segment};
use ria_core::{DatagramBatch, PacketBatch, PathKind, Received};
use ria_protocol::map::Patch;
use ria_protocol::policy::{NodePolicy, Permit, PermitKind, Rule, Selector};

/// The last one needs an overlay of more than its usual MTU.
const LENGTHS: [usize; 3] = [64, 200, 1400];
const MTU: u16 = 1420;
const BATCHES: [usize; 2] = [1, 48];

fn connected() -> World {
    let mut world = World::new(1);
    world.mtu = MTU;
    let mut world = two_in(world, Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    world.run(ms(3000));
    assert!(world.both_on(PathKind::Direct));
    world
}

/// From the interface: route, filter, encrypt into the outgoing buffer.
fn send(criterion: &mut Criterion) {
    let mut world = connected();
    let mut group = criterion.benchmark_group("send");
    for (len, count) in LENGTHS.into_iter().flat_map(|len| BATCHES.map(|count| (len, count))) {
        let packets: Vec<Vec<u8>> = (0..count).map(|n| packet(0, 1, n as u32, len)).collect();
        let mut out = DatagramBatch::default();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new(format!("{len} bytes"), count), |bencher| {
            bencher.iter(|| {
                let packets = packets.iter().map(Vec::as_slice);
                world.hosts[0].engine.handle_tun(network(), packets, world.now, &mut out);
                assert_eq!(out.len(), count);
                out.clear();
            });
        });
    }
}

/// The same under a policy: one flow, and as many as the table of flows holds, of which each packet is another's.
fn send_by_policy(criterion: &mut Criterion) {
    let mut world = connected();
    let everybody = || Selector { all: true, ..Selector::default() };
    let permits = vec![Permit::range(PermitKind::UDP, 1, u16::MAX)];
    let rule = Rule { number: 1, from: everybody(), to: everybody(), permits, not_before: None, until: None };
    world.patch(&[0, 1], &Patch::PolicySet(NodePolicy { version: 1, rules: Some(vec![rule]) }));
    let mut group = criterion.benchmark_group("send by policy");
    const COUNT: usize = 48;
    for flows in [1, 8000] {
        let packets: Vec<Vec<u8>> =
            (0..flows.max(COUNT)).map(|n| packet(0, 1, 1 + (n % flows) as u32, 64)).collect();
        let mut batches = packets.chunks_exact(COUNT).cycle();
        let mut out = DatagramBatch::default();
        group.throughput(Throughput::Elements(COUNT as u64));
        group.bench_function(BenchmarkId::new("64 bytes", flows), |bencher| {
            bencher.iter(|| {
                let batch = batches.next().into_iter().flatten().map(Vec::as_slice);
                world.hosts[0].engine.handle_tun(network(), batch, world.now, &mut out);
                assert_eq!(out.len(), COUNT);
                out.clear();
            });
        });
    }
}

/// From the socket: find the session, decrypt, check source and filter.
fn receive(criterion: &mut Criterion) {
    let mut world = connected();
    let from = world.public(0);
    let mut group = criterion.benchmark_group("receive");
    for (len, count) in LENGTHS.into_iter().flat_map(|len| BATCHES.map(|count| (len, count))) {
        let packets: Vec<Vec<u8>> = (0..count).map(|n| packet(0, 1, n as u32, len)).collect();
        let (mut sealed, mut answers, mut tun) =
            (DatagramBatch::default(), DatagramBatch::default(), PacketBatch::default());
        let now = world.now;
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new(format!("{len} bytes"), count), |bencher| {
            let [a, b] = &mut world.hosts[..] else { unreachable!("there are two hosts") };
            bencher.iter_batched(
                || {
                    // What opens once does not open again.
                    a.engine.handle_tun(network(), packets.iter().map(Vec::as_slice), now, &mut sealed);
                    let datagrams = sealed.transmits().flat_map(|transmit| transmit.datagrams());
                    let datagrams: Vec<Vec<u8>> = datagrams.map(<[u8]>::to_vec).collect();
                    sealed.clear();
                    datagrams
                },
                |datagrams| {
                    let received = datagrams.iter().map(|data| Received {
                        from,
                        local: None,
                        ecn: ria_core::Ecn::NotEct,
                        data,
                    });
                    b.engine.handle_udp(received, now, &mut tun, &mut answers);
                    assert_eq!(tun.network_mut(network()).len(), count);
                    tun.clear();
                    answers.clear();
                    datagrams
                },
                BatchSize::PerIteration,
            );
        });
    }
}

/// A super-packet of 47 segments of TCP: cut; and joined again.
fn offload(criterion: &mut Criterion) {
    const SEGMENT: usize = 1360;
    const COUNT: usize = 47;
    let mut frame = vec![0; VIRTIO_HEADER + 40 + SEGMENT * COUNT];
    let total = (40 + SEGMENT * COUNT) as u16;
    (frame[0], frame[1]) = (1, 1);
    frame[4..6].copy_from_slice(&(SEGMENT as u16).to_ne_bytes());
    frame[10..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6]);
    frame[12..14].copy_from_slice(&total.to_be_bytes());
    frame[42..44].copy_from_slice(&[0x50, 0x10]);
    let mut group = criterion.benchmark_group("offload");
    group.throughput(Throughput::Elements(COUNT as u64));
    group.bench_function("cut", |bencher| {
        bencher.iter_batched_ref(
            || frame.clone(),
            |frame| segment(frame, |packet| _ = black_box(packet)),
            BatchSize::SmallInput,
        );
    });
    let mut buffers = Vec::new();
    let cut = segment(&mut frame.clone(), |packet| {
        buffers.push([&[0; ria_core::PACKET_HEADROOM][..], packet].concat());
    });
    assert_eq!((cut, buffers.len()), (Ok(()), COUNT));
    group.bench_function("join", |bencher| {
        let mut coalescer = Coalescer::default();
        bencher.iter_batched_ref(
            || buffers.clone(),
            |buffers| {
                coalescer.plan(buffers, true);
                assert_eq!(coalescer.groups().len(), 1);
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, send, send_by_policy, receive, offload);
criterion_main!(benches);
