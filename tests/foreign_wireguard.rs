//! Devices with stock WireGuard (Debian's wireguard-go and wg-quick) as static peers of real agents.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netlab::{Host, HostSpec, Nat};
use ria_core::session::{HANDSHAKE_ROOM, SessionFactory, wireguard::WireGuard};
use support::{Robot, Site, Team, eventually, eventually_within, received};

/// A device that is set up with a file as its owner would do it.
struct Device {
    host: Host,
}

impl Device {
    fn new(team: &Team, name: &str) -> Self {
        Self { host: team.host(name) }
    }

    /// Brings the tunnel up with a file; a tunnel that is up already goes down first.
    fn take_file(&self, file: &str) {
        std::fs::write(self.host.path("/run/wg0.conf"), file).unwrap();
        let _ = self.host.output(&["wg-quick", "down", "/run/wg0.conf"]);
        let up = self.host.output(&["wg-quick", "up", "/run/wg0.conf"]).unwrap();
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    }

    fn answers(&self, address: &str, count: u32) -> u32 {
        let count = count.to_string();
        let line = ["ping", "-n", "-q", "-i", "0.2", "-W", "2", "-c", &count, address];
        received(&String::from_utf8_lossy(&self.host.output(&line).unwrap().stdout))
    }

    /// Waits until packets get there and back. After a move, wireguard-go itself takes up to 17 s.
    fn reaches(&self, address: &str) {
        let reached = || self.answers(address, 1) == 1;
        eventually_within(Duration::from_secs(45), &format!("the device reaches {address}"), reached);
        assert!(self.answers(address, 5) >= 4);
    }

    /// When it last agreed on keys with its only peer: seconds since 1970.
    fn handshake(&self) -> u64 {
        let shown = self.host.output(&["wg", "show", "wg0", "latest-handshakes"]).unwrap().stdout;
        String::from_utf8(shown).unwrap().split_whitespace().last().unwrap().parse().unwrap()
    }

    /// Where it sends to.
    fn endpoints(&self) -> String {
        String::from_utf8(self.host.output(&["wg", "show", "wg0", "endpoints"]).unwrap().stdout).unwrap()
    }
}

fn add_static(team: &Team, options: &[&str]) -> String {
    let added = team.admin(&[&["node", "add-static"], options].concat());
    assert_eq!(added.code, 0, "{added:?}");
    added.out
}

fn value<'t>(file: &'t str, name: &str) -> &'t str {
    file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")).unwrap()
}

/// The device's overlay address.
fn address(file: &str) -> String {
    value(file, "Address").split('/').next().unwrap().to_owned()
}

fn join(robot: &Robot, key: &str) {
    let joined = robot.join(key);
    assert_eq!(joined.code, 0, "{joined:?}");
}

#[test]
fn a_phone_behind_client_isolation_reaches_every_robot_and_keeps_its_file() {
    let mut team = Team::new("foreign-gate", &Site::Apart(Nat::Symmetric));
    team.lab.add_host("gate", HostSpec::on("internet")).unwrap();
    team.lab.add_host("phone", HostSpec::on("wifi-1")).unwrap();
    let key = team.key(&["--reusable"]);
    let (gate, a) = (team.robot("gate", &[]), team.robot("robot-a", &[]));
    join(&gate, &key);
    join(&a, &key);
    gate.wait_for_link("robot-a", "up");
    let has_candidates = || team.admin(&["node", "show", "gate"]).out.contains(":41820");
    eventually("the coordinator knows where the gateway is", has_candidates);

    let phone = Device::new(&team, "phone");
    let file = add_static(&team, &["phone", "--via", "gate", "--psk"]);
    assert_eq!(value(&file, "Endpoint"), format!("{}:41820", gate.host.address()));
    phone.take_file(&file);
    phone.reaches(&gate.address());
    phone.reaches(&a.address());
    assert!(a.ping(&address(&file), 5) >= 4, "{}", a.peer("phone"));
    // IPv6 of the overlay is forwarded too, and a full packet fits.
    let v6 = a.status()["addresses"][1].as_str().unwrap().split('/').next().unwrap().to_owned();
    phone.reaches(&v6);
    let line = ["ping", "-n", "-q", "-M", "do", "-s", "1252", "-c", "3", "-i", "0.2", &a.address()];
    assert!(received(&String::from_utf8_lossy(&phone.host.output(&line).unwrap().stdout)) >= 2);

    // It is shown as what it is: by its gateway with its session, by others with its gateway.
    let seen = gate.peer("phone");
    assert_eq!((&seen["kind"], &seen["link_state"]), (&"static".into(), &"up".into()), "{seen}");
    assert!(seen["handshake_age"].as_f64().unwrap() < 120.0, "{seen}");
    let seen = a.peer("phone");
    assert_eq!(
        (&seen["kind"], &seen["path_reason"]),
        (&"static".into(), &"behind gateway gate".into()),
        "{seen}"
    );
    assert_eq!(a.peer("gate")["kind"], "gateway");
    let ping = a.ria(&["ping", "phone", "-c", "1"]);
    assert!(ping.code != 0 && ping.err.contains("stock WireGuard"), "{ping:?}");

    // A robot that joins later is reached with the file as it is.
    let b = team.robot("robot-b", &[]);
    join(&b, &key);
    gate.wait_for_link("robot-b", "up");
    phone.reaches(&b.address());

    // The phone goes to another Wi-Fi, behind another NAT.
    let endpoint = gate.peer("phone")["endpoint"].clone();
    team.lab.move_host("phone", "wifi-2").unwrap();
    phone.reaches(&b.address());
    assert_ne!(gate.peer("phone")["endpoint"], endpoint);
    assert!(b.ping(&address(&file), 5) >= 4);

    // Removed, it is cut off, and others do not even know it any more.
    assert_eq!(team.admin(&["node", "remove", "phone"]).code, 0);
    eventually("the gateway has heard", || gate.peer("phone").is_null());
    assert_eq!(phone.answers(&gate.address(), 3) + phone.answers(&b.address(), 3), 0);
    eventually("all have heard", || b.peer("phone").is_null());
    assert_eq!(gate.peer("robot-b")["kind"], "node");
}

#[test]
fn a_device_without_gateway_talks_to_robots_whoever_begins_and_wherever_they_go() {
    let mut team = Team::new("foreign-lan", &Site::Together);
    team.lab.add_host("device", HostSpec::on("lan")).unwrap();
    let (mut a, b) = team.pair();
    let has_candidates = |name: &str| team.admin(&["node", "show", name]).out.contains(":41820");
    eventually("both are known", || has_candidates("robot-a") && has_candidates("robot-b"));
    let device = Device::new(&team, "device");
    let listens_at = format!("{}:51820", device.host.address());
    let file = add_static(
        &team,
        &["device", "--listens-at", &listens_at, "--keepalive", "0", "--psk", "--tag", "bench"],
    );
    assert_eq!(file.matches("[Peer]").count(), 2, "{file}");
    device.take_file(&file);

    // The robot begins; then the device, to one that has not spoken to it.
    eventually("the robot reaches the device", || a.ping(&address(&file), 1) == 1);
    device.reaches(&a.address());
    device.reaches(&b.address());
    assert_eq!(a.peer("device")["link_state"], "up");

    // The agent is killed: what it knew of the device is on its disk, so nobody has to wait.
    eventually("where the device is has been saved", || {
        let networks = std::fs::read_dir(a.host.path("/var/lib/ria/networks")).unwrap();
        let live = networks.filter_map(|entry| std::fs::read(entry.unwrap().path().join("live")).ok());
        // Its port, 51820, as CBOR.
        live.into_iter().any(|bytes| bytes.windows(3).any(|window| window == b"\x19\xca\x6c"))
    });
    a.kill();
    a.start(&[]);
    a.wait_for_link("robot-b", "up");
    device.reaches(&a.address());

    // The device gets another address, then the robot does.
    let moved = "192.168.1.77";
    rename_address(&device.host, moved);
    device.reaches(&a.address());
    eventually("the robot has followed", || a.peer("device")["endpoint"] == format!("{moved}:51820"));
    assert!(a.ping(&address(&file), 5) >= 4);
    rename_address(&a.host, "192.168.1.88");
    eventually("the device has followed", || device.endpoints().contains("192.168.1.88:41820"));
    device.reaches(&a.address());
}

/// Four packets a second until either end has renewed the keys (Ria after 110 s, wireguard-go after 120 s).
const PAST_A_REKEY: u32 = 136 * 4;

fn steady_ping(host: &Host, address: &str) -> u32 {
    let count = PAST_A_REKEY.to_string();
    let line = ["ping", "-n", "-q", "-i", "0.25", "-W", "5", "-c", &count, address];
    received(&String::from_utf8_lossy(&host.output(&line).unwrap().stdout))
}

/// One device begins its session itself, so it renews it too; with the other one the robot does both.
#[test]
fn nothing_is_lost_when_keys_are_renewed_whoever_does_it() {
    let mut team = Team::new("foreign-rekey", &Site::Together);
    for name in ["device-1", "device-2"] {
        team.lab.add_host(name, HostSpec::on("lan")).unwrap();
    }
    let a = team.robot("robot-a", &[]);
    join(&a, &team.key(&[]));
    let known = || team.admin(&["node", "show", "robot-a"]).out.contains(":41820");
    eventually("the coordinator knows where the robot is", known);
    let devices = ["device-1", "device-2"].map(|name| Device::new(&team, name));
    let files = [0, 1].map(|n: usize| {
        let listens_at = format!("{}:51820", devices[n].host.address());
        let name = format!("device-{}", n + 1);
        let options = [&name, "--listens-at", &listens_at, "--keepalive", "0", "--psk"];
        add_static(&team, if n == 0 { &["device-1", "--via", "robot-a"] } else { &options })
    });
    devices[0].take_file(&files[0]);
    devices[0].reaches(&a.address());
    devices[1].take_file(&files[1]);
    eventually("the robot reaches the second device", || a.ping(&address(&files[1]), 1) == 1);

    let before = devices.each_ref().map(Device::handshake);
    let (robot, there) = (&a, a.address());
    let answers: Vec<u32> = std::thread::scope(|scope| {
        let pings: Vec<_> = (devices.iter().zip(&files))
            .flat_map(|(device, file)| {
                let (there, here) = (there.as_str(), address(file));
                [
                    scope.spawn(move || steady_ping(&device.host, there)),
                    scope.spawn(move || steady_ping(&robot.host, &here)),
                ]
            })
            .collect();
        pings.into_iter().map(|ping| ping.join().unwrap()).collect()
    });
    assert_eq!(answers, [PAST_A_REKEY; 4], "answers to the devices and to the robot, by turns");
    for (device, before) in devices.iter().zip(before) {
        let age = device.handshake() - before;
        assert!((100..150).contains(&age), "the keys were renewed after {age} s");
    }
}

/// Gives a host another address in its network.
fn rename_address(host: &Host, new: &str) {
    let line = format!(
        "ip addr flush dev eth0 scope global && ip addr add {new}/24 dev eth0 && ip route replace default via 192.168.1.1"
    );
    host.run(&["sh", "-c", &line]).unwrap();
}

#[test]
fn a_flood_of_handshakes_over_udp_gets_cookies_and_the_device_gets_in_all_the_same() {
    let mut team = Team::new("foreign-flood", &Site::Together);
    team.lab.add_host("device", HostSpec::on("lan")).unwrap();
    team.lab.add_host("flooder", HostSpec::on("lan")).unwrap();
    let a = team.robot("robot-a", &[]);
    join(&a, &team.key(&[]));
    let known = || team.admin(&["node", "show", "robot-a"]).out.contains(":41820");
    eventually("the coordinator knows where the robot is", known);
    let device = Device::new(&team, "device");
    let file = add_static(&team, &["device", "--via", "robot-a"]);
    let target: SocketAddr = value(&file, "Endpoint").parse().unwrap();
    let public = a.status()["public_key"].as_str().unwrap().parse().unwrap();

    // One stranger's handshake, garbage, and one with a wrong first MAC: silence.
    let flooder = team.host("flooder");
    let make = |seed: u8| {
        let mut out = [0; HANDSHAKE_ROOM];
        let len = WireGuard.network(&[seed; 32]).session(&public, None, 9).initiate(&mut out).unwrap();
        out[..len].to_vec()
    };
    let mut wrong = make(8);
    wrong[120] ^= 1;
    let questions = vec![make(7), wrong, vec![4; 64], vec![1, 0, 0, 0], b"hello".to_vec()];
    let answers = flooder.enter(move || ask(target, &questions, Duration::from_secs(1))).unwrap();
    assert_eq!(answers, [0; 5], "a stranger gets no answer");

    // A flood whose content is right, four times as much as is looked at without a proof of address. The device begins in
    // the middle of it.
    let flood: Vec<Vec<u8>> = (0..40).map(make).collect();
    let over = Arc::new(AtomicBool::new(false));
    let during = {
        let (host, over) = (flooder.clone(), Arc::clone(&over));
        std::thread::spawn(move || host.enter(move || pour(target, &flood, &over)).unwrap())
    };
    device.take_file(&file);
    let end = Instant::now() + Duration::from_secs(40);
    while device.answers(&a.address(), 1) == 0 {
        assert!(Instant::now() < end, "the device does not get in: {}", a.peer("device"));
    }
    over.store(true, Ordering::Relaxed);
    let answers = during.join().unwrap();
    assert!(answers[3] > 0, "cookies by message type: {answers:?}");
    assert_eq!(
        (answers[1], answers[2], answers[4]),
        (0, 0, 0),
        "nobody without a key gets more than a cookie"
    );
    eventually("the link is up", || a.peer("device")["link_state"] == "up");
    let drops = a.status()["drops"].clone();
    assert!(drops["stranger"].as_u64().unwrap_or(0) > 0, "{drops}");
}

/// Sends 2000 datagrams a second until it is over and at least one answer has come, and counts the answers by their
/// first byte.
fn pour(target: SocketAddr, flood: &[Vec<u8>], over: &AtomicBool) -> std::io::Result<[u32; 5]> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_nonblocking(true)?;
    let (begin, mut sent, mut answers) = (Instant::now(), 0, [0; 5]);
    let mut room = [0; 2048];
    let limit = Duration::from_secs(50);
    while begin.elapsed() < limit && !(over.load(Ordering::Relaxed) && answers[3] > 0) {
        while sent < begin.elapsed().as_millis() * 2 {
            let question = &flood[usize::try_from(sent).unwrap() % flood.len()];
            // What the kernel does not take now is lost, as floods are.
            let _ = socket.send_to(question, target);
            sent += 1;
        }
        while let Ok((len, _)) = socket.recv_from(&mut room) {
            answers[kind(&room[..len])] += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(answers)
}

/// Sends datagrams and counts the answers by their first byte (0 for others) until none has come for a while.
fn ask(target: SocketAddr, questions: &[Vec<u8>], patience: Duration) -> std::io::Result<[u32; 5]> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_nonblocking(true)?;
    let mut answers = [0; 5];
    let mut room = [0; 2048];
    for question in questions {
        socket.send_to(question, target)?;
        while let Ok((len, _)) = socket.recv_from(&mut room) {
            answers[kind(&room[..len])] += 1;
        }
    }
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(patience))?;
    while let Ok((len, _)) = socket.recv_from(&mut room) {
        answers[kind(&room[..len])] += 1;
    }
    Ok(answers)
}

fn kind(answer: &[u8]) -> usize {
    answer.first().map_or(0, |first| usize::from(*first)).min(4)
}
