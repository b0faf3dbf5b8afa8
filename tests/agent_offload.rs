//! Packets of all sizes and kinds arrive as they were sent, with the kernel's offloads, without them, and where it refuses them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use netlab::Nat;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use support::{Robot, SOON, Site, Team, eventually, received};

const PORT: u16 = 7000;

/// Bytes of each stream: some hundred super-packets.
const STREAM: usize = 8 << 20;

/// Lengths of datagrams around whatever is a limit somewhere: headers, a segment, several, fragments, the largest.
const LENGTHS: [usize; 17] =
    [0, 1, 2, 7, 8, 63, 576, 1199, 1200, 1201, 1232, 1233, 1252, 1253, 4097, 32_749, 65_507];

/// Datagrams of one length in one system call are one super-packet for the interface.
const RUN: usize = 40;

/// Bytes of which every one says where it belongs.
fn content(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251 + seed * 7) as u8).collect()
}

/// All addresses of a robot in the overlay.
fn addresses(robot: &Robot) -> Vec<IpAddr> {
    let status = robot.status();
    let texts = status["addresses"].as_array().unwrap().iter().map(|address| address.as_str().unwrap());
    texts.map(|text| text.split('/').next().unwrap().parse().unwrap()).collect()
}

/// Whether the kernel hands out super-packets on the robot's interface.
fn set_offload(robot: &Robot, on: bool) {
    let segments = if on { "65535" } else { "1" };
    robot.host.run(&["ip", "link", "set", "ria0", "gso_max_segs", segments]).unwrap();
}

/// A stream in odd pieces, so that pushes and short segments come everywhere.
fn stream(from: &Robot, to: &Robot, address: IpAddr, seed: usize) {
    let listener = to.host.enter(|| TcpListener::bind(SocketAddr::new(address, PORT))).unwrap();
    let sent = content(seed, STREAM);
    let arrived = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut arrived = Vec::new();
            stream.read_to_end(&mut arrived).unwrap();
            arrived
        });
        let mut stream = from.host.enter(|| TcpStream::connect(SocketAddr::new(address, PORT))).unwrap();
        let mut rest = &sent[..];
        let mut piece = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            stream.write_all(now).unwrap();
            (rest, piece) = (later, piece * 3 % 100_003 + 1);
        }
        stream.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap()
    });
    assert!(arrived == sent, "{address}: {} of {} bytes, or others", arrived.len(), sent.len());
}

/// Datagrams of each length, singly and in runs, each with its number. Some may be lost; none may be another, come twice,
/// or overtake.
fn datagrams(from: &Robot, to: &Robot, address: IpAddr) {
    let receiver = to.host.enter(|| UdpSocket::bind(SocketAddr::new(address, PORT))).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let sender = from.host.enter(|| UdpSocket::bind((unspecified(address), 0))).unwrap();
    let fits = |len: &&usize| address.is_ipv4() || **len <= 65_487;
    for &len in LENGTHS.iter().filter(fits) {
        let count = if len > 2000 { 4 } else { RUN };
        for number in 0..count {
            sender.send_to(&content(number, len), (address, PORT)).unwrap();
        }
        arrive(&receiver, len, count);
        if (1..=1200).contains(&len) {
            let run: Vec<u8> = (0..count).flat_map(|number| content(number, len)).collect();
            setsockopt(&sender, sockopt::UdpGsoSegment, &i32::try_from(len).unwrap()).unwrap();
            sender.send_to(&run, (address, PORT)).unwrap();
            setsockopt(&sender, sockopt::UdpGsoSegment, &0).unwrap();
            arrive(&receiver, len, count);
        }
    }
}

fn arrive(receiver: &UdpSocket, len: usize, count: usize) {
    let (mut next, mut room) = (0, vec![0; 65_536]);
    while next < count {
        let Ok((arrived, _)) = receiver.recv_from(&mut room) else { break };
        assert_eq!(arrived, len);
        // An empty one does not tell which it is.
        let found = (next..count).find(|number| content(*number, len) == room[..len]);
        next = found.unwrap_or_else(|| panic!("{len} bytes that were not sent, or not now")) + 1;
    }
    assert!(next > 0, "none of {count} datagrams of {len} bytes arrived");
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}

/// How many packets this kernel has thrown away for their checksum.
fn wrong_checksums(robot: &Robot) -> u64 {
    let texts = ["/proc/net/snmp", "/proc/net/snmp6"].map(|file| robot.host.run(&["cat", file]).unwrap());
    let pairs = texts[0].lines().zip(texts[0].lines().skip(1));
    let v4 = pairs.flat_map(|(names, values)| names.split_whitespace().zip(values.split_whitespace()));
    let v6 = texts[1].lines().filter_map(|line| line.split_once(char::is_whitespace));
    let all = v4.chain(v6).filter(|(name, _)| name.ends_with("InCsumErrors"));
    all.map(|(_, value)| value.trim().parse::<u64>().unwrap_or(0)).sum()
}

#[test]
fn packets_of_every_size_and_kind_arrive_as_they_were_sent() {
    let team = Team::new("offload", &Site::Together);
    let (a, b) = team.pair();
    eventually("the path is direct", || a.peer("robot-b")["path"] == "direct");
    let to = addresses(&b);
    assert_eq!(to.len(), 2, "IPv4 and IPv6: {to:?}");
    for on in [true, false] {
        set_offload(&a, on);
        set_offload(&b, on);
        for (n, address) in to.iter().enumerate() {
            stream(&a, &b, *address, n);
            datagrams(&a, &b, *address);
        }
        // IPv4 options, and fragments.
        let v4 = b.address();
        for line in [&["-T", "tsonly"][..], &["-R"], &["-s", "4000"]] {
            let line = [&["ping", "-n", "-q", "-i", "0.1", "-W", "3", "-c", "5"], line, &[&v4]].concat();
            let output = a.host.output(&line).unwrap();
            assert_eq!(received(&String::from_utf8_lossy(&output.stdout)), 5, "{line:?}: {output:?}");
        }
    }
    assert_eq!((wrong_checksums(&a), wrong_checksums(&b)), (0, 0));
}

#[test]
fn streams_by_a_relay_arrive_as_they_were_sent() {
    let team = Team::new("offload-relayed", &Site::Apart(Nat::Symmetric));
    let (a, b) = team.pair();
    for (n, address) in addresses(&b).into_iter().enumerate() {
        stream(&a, &b, address, n);
        datagrams(&a, &b, address);
    }
    assert_eq!((wrong_checksums(&a), wrong_checksums(&b)), (0, 0));
}

/// Packets that have left by the overlay's interface, and by all others, as the kernel counts them: super-packets once.
fn left_by(robot: &Robot) -> (u64, u64) {
    let table = robot.host.run(&["cat", "/proc/net/dev"]).unwrap();
    let lines = table.lines().filter_map(|line| line.trim().split_once(':'));
    let each = lines.map(|(name, rest)| {
        let packets: u64 = rest.split_whitespace().nth(9).unwrap().parse().unwrap();
        (name.to_owned(), packets)
    });
    let each: Vec<(String, u64)> = each.filter(|(name, _)| name != "lo").collect();
    let of =
        |overlay: bool| each.iter().filter(|(name, _)| (name == "ria0") == overlay).map(|(_, n)| n).sum();
    (of(true), of(false))
}

/// How many packets left a robot by the overlay's interface while it sent one run of datagrams, and a stream; and how many left
/// by its other interfaces for the stream.
#[derive(Debug)]
struct Count {
    run: u64,
    stream: u64,
    outside: u64,
}

/// Datagrams of a run, and of a stream at the least.
const WHOLE: (u64, u64) = (RUN as u64, (STREAM / 1300) as u64);

impl Count {
    /// Sends them.
    fn of(from: &Robot, to: &Robot) -> Self {
        let address: IpAddr = to.address().parse().unwrap();
        let receiver = to.host.enter(|| UdpSocket::bind(SocketAddr::new(address, PORT))).unwrap();
        receiver.set_read_timeout(Some(SOON)).unwrap();
        let sender = from.host.enter(|| UdpSocket::bind((unspecified(address), 0))).unwrap();
        setsockopt(&sender, sockopt::UdpGsoSegment, &1000).unwrap();
        let before = left_by(from);
        sender.send_to(&content(0, 1000 * RUN), (address, PORT)).unwrap();
        arrive(&receiver, 1000, 1);
        let run = left_by(from);
        stream(from, to, address, 0);
        let after = left_by(from);
        Self { run: run.0 - before.0, stream: after.0 - run.0, outside: after.1 - run.1 }
    }
}

/// All kinds of packets both ways, by both families.
fn all_arrive(a: &Robot, b: &Robot) {
    for (from, to) in [(a, b), (b, a)] {
        for (n, address) in addresses(to).into_iter().enumerate() {
            stream(from, to, address, n);
            datagrams(from, to, address);
        }
    }
    assert_eq!((wrong_checksums(a), wrong_checksums(b)), (0, 0));
}

const REFUSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/refuse.py");

/// Both agents anew, on a kernel that refuses something.
fn restart_without(what: &str, robots: [&mut Robot; 2]) {
    let [a, b] = robots;
    for robot in [&mut *a, &mut *b] {
        robot.stop(Signal::SIGTERM);
        robot.start_by(&["/usr/bin/python3", REFUSE, what], &[]);
    }
    for (robot, peer) in [(&*a, "robot-b"), (&*b, "robot-a")] {
        eventually("the agent serves", || robot.ria(&["status"]).code != 3);
        robot.wait_for_link(peer, "up");
        eventually("the path is direct", || robot.peer(peer)["path"] == "direct");
    }
}

/// The agents meet the kernel's own refusals (`support/refuse.py`), and what the kernel counts shows that they live without.
#[test]
fn what_a_kernel_refuses_is_done_without() {
    let team = Team::new("offload-refused", &Site::Together);
    let (mut a, mut b) = team.pair();
    eventually("the path is direct", || a.peer("robot-b")["path"] == "direct");
    let usual = Count::of(&a, &b);
    println!("usual: {usual:?}");
    assert!(usual.run < WHOLE.0 / 2, "a run is one packet: {usual:?}");
    assert!(usual.stream < WHOLE.1 / 2 && usual.outside < WHOLE.1 / 2, "super-packets in and out: {usual:?}");

    // A card or a route that takes no runs is found when sending; what was refused goes singly.
    for robot in [&a, &b] {
        let status =
            Command::new("/usr/bin/python3").args([REFUSE, "runs", &robot.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }
    let singly = Count::of(&a, &b);
    println!("runs refused: {singly:?}");
    assert!(singly.outside >= WHOLE.1, "each datagram by itself: {singly:?}");
    assert!(singly.stream < WHOLE.1 / 2, "the interface is as it was: {singly:?}");
    all_arrive(&a, &b);

    restart_without("gso", [&mut a, &mut b]);
    let singly = Count::of(&a, &b);
    println!("no runs: {singly:?}");
    assert!(singly.outside >= WHOLE.1, "each datagram by itself: {singly:?}");
    all_arrive(&a, &b);

    restart_without("uso", [&mut a, &mut b]);
    let old = Count::of(&a, &b);
    println!("no UDP offload: {old:?}");
    assert!(old.run >= WHOLE.0, "the kernel cuts runs of datagrams: {old:?}");
    assert!(old.stream < WHOLE.1 / 2 && old.outside < WHOLE.1 / 2, "streams are as they were: {old:?}");
    all_arrive(&a, &b);

    restart_without("frames", [&mut a, &mut b]);
    let plain = Count::of(&a, &b);
    println!("no offload: {plain:?}");
    let link = a.host.run(&["ip", "-d", "link", "show", "ria0"]).unwrap();
    assert!(link.contains("vnet_hdr off"), "{link}");
    assert!(plain.run >= WHOLE.0 && plain.stream >= WHOLE.1, "the kernel cuts all: {plain:?}");
    all_arrive(&a, &b);
}
