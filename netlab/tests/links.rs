//! Bad links and moving hosts: loss, rate, blocked UDP, cut, another network under a running process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, bind, campus_like, eventually, is_silent, never_reaches, reaches};
use netlab::{Host, Lab, Link, Nat};

fn set(lab: &mut Lab, name: &str, settings: &[&str]) {
    let mut link = lab.link(name).unwrap().clone();
    link.set_all(settings).unwrap();
    lab.set_link(name, link).unwrap();
}

/// How many of 400 datagrams arrive.
fn arrivals(from: &Host, to: &Host) -> usize {
    let (sender, receiver) = (bind(from, 0), bind(to, 9000));
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // In parts, because the receiver's buffer holds some 250.
    let part = || {
        (0..100).for_each(|_| {
            sender.send_to(&[0; 100], (to.address(), 9000)).unwrap();
        });
        (0..100).map_while(|_| receiver.recv_from(&mut [0; 128]).ok()).count()
    };
    (0..4).map(|_| part()).sum()
}

#[test]
fn loss_is_about_what_was_asked_for_and_only_in_its_direction() {
    let mut lab = campus_like(Nat::PortPreserving);
    let [one, two] = ["one", "two"].map(|name| lab.host(name).unwrap());
    // A link says something about datagrams once addresses are resolved.
    assert!(reaches(&one, two.address()) && reaches(&two, one.address()));
    assert_eq!(arrivals(&one, &two), 400, "a perfect link");
    set(&mut lab, "one", &["loss-up=30"]);
    let arrived = arrivals(&one, &two);
    // 280 expected, standard deviation 9.
    assert!((225..=335).contains(&arrived), "{arrived} of 400 arrived");
    assert_eq!(arrivals(&two, &one), 400, "the way down");
    set(&mut lab, "one", &["loss-up=0", "loss-down=100"]);
    assert_eq!(arrivals(&two, &one), 0);
    assert_eq!(arrivals(&one, &two), 400);
}

/// Seconds that 2 MB take from one host to another.
fn transfer(from: &Host, to: &Host) -> f64 {
    let address = (to.address(), 9001);
    let listener = to.enter(|| TcpListener::bind(address)).unwrap();
    let mut sender = from.enter(|| TcpStream::connect(address)).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    let began = Instant::now();
    let writing = thread::spawn(move || sender.write_all(&[0; 2_000_000]).unwrap());
    let mut received = Vec::new();
    receiver.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert_eq!(received.len(), 2_000_000);
    began.elapsed().as_secs_f64()
}

#[test]
fn a_rate_limits_either_direction_and_can_be_taken_off() {
    let mut lab = campus_like(Nat::PortPreserving);
    let [two, one] = ["two", "one"].map(|name| lab.host(name).unwrap());
    for (direction, (from, to)) in [("rate-up=16mbit", (&one, &two)), ("rate-down=16mbit", (&two, &one))] {
        set(&mut lab, "one", &["rate=none"]);
        set(&mut lab, "one", &[direction]);
        let slow = transfer(from, to);
        assert!(slow > LIMITED_S, "{direction}: 2 MB took {slow} s");
        assert!(is_free(to, from), "{direction}: the other way is limited, too");
    }
    set(&mut lab, "one", &["rate=none"]);
    assert!(is_free(&two, &one), "without limit it is still slow");
}

/// 2 MB at 16 Mbit/s are a second, less what a token bucket lets through at once.
const LIMITED_S: f64 = 0.8;

/// Whether some transfer is faster than the limit would allow; a busy machine may take longer without any.
fn is_free(from: &Host, to: &Host) -> bool {
    let end = Instant::now() + PATIENCE;
    while transfer(from, to) > LIMITED_S {
        if Instant::now() > end {
            return false;
        }
    }
    true
}

#[test]
fn blocked_udp_leaves_tcp_and_the_ports_named() {
    let mut lab = campus_like(Nat::PortPreserving);
    let [robot, one] = ["robot", "one"].map(|name| lab.host(name).unwrap());
    // The router's uplink, as a campus firewall does it.
    set(&mut lab, "nat", &["udp=blocked:53"]);
    transfer(&robot, &one);
    let arrives = |port: u16| {
        let (sender, receiver) = (bind(&robot, 0), bind(&one, port));
        sender.send_to(b"hello", (one.address(), port)).unwrap();
        if is_silent(&receiver) {
            return false;
        }
        sender.send_to(b"again", (one.address(), port)).unwrap();
        let (_, source) = receiver.recv_from(&mut [0; 16]).unwrap();
        receiver.send_to(b"answer", source).unwrap();
        sender.recv_from(&mut [0; 16]).is_ok()
    };
    assert!(!arrives(3478));
    eventually("port 53 is open", || arrives(53));
    set(&mut lab, "nat", &["udp=open"]);
    eventually("port 3478 is open, too", || arrives(3478));
}

#[test]
fn a_cut_link_comes_back() {
    let mut lab = campus_like(Nat::PortPreserving);
    let [robot, one] = ["robot", "one"].map(|name| lab.host(name).unwrap());
    assert!(reaches(&robot, one.address()));
    lab.cut("robot", true).unwrap();
    assert!(never_reaches(&robot, one.address()));
    lab.cut("robot", false).unwrap();
    assert!(reaches(&robot, one.address()));
    assert_eq!(*lab.link("robot").unwrap(), Link::default());
}

#[test]
fn a_host_moves_to_another_network_while_its_processes_run_on() {
    let mut lab = campus_like(Nat::PortPreserving);
    let [robot, one] = ["robot", "one"].map(|name| lab.host(name).unwrap());
    set(&mut lab, "robot", &["loss-down=100"]);
    let index = std::fs::read_to_string(robot.path("/sys/class/net/eth0/ifindex")).unwrap();
    let mut runs = robot.command("cat");
    let mut process = runs.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (pid, mut input, mut output) =
        (process.id(), process.take_stdin().unwrap(), process.take_stdout().unwrap());

    let address = lab.move_host("robot", "internet").unwrap();
    assert_eq!((robot.address(), robot.network().as_str()), (address, "internet"));
    assert!(never_reaches(&robot, one.address()), "the link's quality moves with the host");
    set(&mut lab, "robot", &["loss-down=0"]);
    assert!(reaches(&robot, one.address()));
    let shown = robot.run(&["ip", "-4", "-o", "addr", "show", "dev", "eth0"]).unwrap();
    assert!(shown.contains(&address.to_string()) && !shown.contains("192.168."), "{shown}");
    assert_eq!(std::fs::read_to_string(robot.path("/sys/class/net/eth0/ifindex")).unwrap(), index);

    input.write_all(b"alive").unwrap();
    let mut answer = [0; 5];
    output.read_exact(&mut answer).unwrap();
    assert_eq!((process.id(), &answer), (pid, b"alive"));

    lab.move_host("robot", "wifi").unwrap();
    assert!(reaches(&robot, one.address()), "and back, through the NAT");
    let error = lab.move_host("robot", "nowhere").unwrap_err().to_string();
    assert!(error.contains("no network named 'nowhere'") && error.contains("internet, wifi"), "{error}");
    assert_eq!(process.terminate(PATIENCE).unwrap().code(), None);
}
