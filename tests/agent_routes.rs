//! Devices behind robots: two robots with the same network on board, a LiDAR and a micro-ROS agent on each, reached from a laptop at
//! prefixes of their own; policy, restart, withdrawal, and a laptop that has such a network itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use netlab::{Host, HostSpec, NetworkSpec};
use support::{Ended, Robot, SOON, Team, eventually};

const LAN: &str = "192.168.10.0/24";
const LIDAR: u16 = 2368;
const MICRO_ROS: u16 = 8888;
const TCP: u16 = 8000;

/// DDS-XRCE 1.0: header of a session (8.3.2), then CREATE_CLIENT (8.3.5.1) with the client's cookie and version.
const CREATE_CLIENT: [u8; 24] = [
    0x80, 0x00, 0x00, 0x00, 0x00, 0x01, 0x10, 0x00, b'X', b'R', b'C', b'E', 0x01, 0x00, 0x01, 0x0f, 0xaa,
    0xbb, 0xcc, 0xdd, 0x81, 0x00, 0xfc, 0x01,
];

/// STATUS_AGENT (8.3.5.2): submessage 4, with the agent's cookie.
const STATUS_AGENT: [u8; 16] =
    [0x80, 0x00, 0x00, 0x00, 0x04, 0x01, 0x08, 0x00, b'X', b'R', b'C', b'E', 0x01, 0x00, 0x01, 0x0f];

/// Lays a cable between two hosts, with an address at each end.
fn cable(one: (&Host, &str), other: (&Host, &str)) {
    let inside = |host: &Host, line: &str| {
        let init = host.init().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &init, "-n", "ip"]).args(line.split(' '));
        assert!(command.status().unwrap().success(), "ip {line}");
    };
    inside(one.0, &format!("link add lan0 type veth peer name lan0 netns {}", other.0.init()));
    for (host, address) in [one, other] {
        inside(host, &format!("addr add {address} dev lan0"));
        inside(host, "link set lan0 up");
    }
}

/// A device: a LiDAR that answers with its name, a micro-ROS agent, and something that listens on TCP. They end with the process.
fn device(host: &Host, name: &'static str) {
    let bind = |port: u16| host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).unwrap();
    let (lidar, agent) = (bind(LIDAR), bind(MICRO_ROS));
    thread::spawn(move || {
        let mut buffer = [0; 9000];
        while let Ok((len, from)) = lidar.recv_from(&mut buffer) {
            let answer = [name.as_bytes(), &buffer[..len]].concat();
            let _ = lidar.send_to(&answer, from);
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((len, from)) = agent.recv_from(&mut buffer) {
            if buffer[..len] == CREATE_CLIENT {
                let _ = agent.send_to(&STATUS_AGENT, from);
            }
        }
    });
    let listener = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TCP))).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(name.as_bytes());
        }
    });
}

/// A socket on the laptop that is connected with this address.
fn talk(from: &Host, to: &str, port: u16) -> UdpSocket {
    let to: SocketAddr = format!("{to}:{port}").parse().unwrap();
    let socket = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// What comes back, if anything does within a moment.
fn asked(from: &Host, to: &str, port: u16, question: &[u8]) -> Option<Vec<u8>> {
    let socket = talk(from, to, port);
    socket.send(question).ok()?;
    let mut buffer = [0; 9000];
    let len = socket.recv(&mut buffer).ok()?;
    Some(buffer[..len].to_vec())
}

struct Lab {
    team: Team,
    robots: [Robot; 2],
    laptop: Robot,
}

impl Lab {
    fn new() -> Self {
        let mut team = Team::crowd("routes", &["robot-1", "robot-2", "laptop"], &[]);
        team.lab.add_network("shelf", NetworkSpec::new("172.20.0.0/24".parse().unwrap())).unwrap();
        for (robot, name, told) in [("robot-1", "device-1", "one"), ("robot-2", "device-2", "two")] {
            let on_board = team.lab.add_host(name, HostSpec::on("shelf")).unwrap();
            cable((&team.host(robot), "192.168.10.1/24"), (&on_board, "192.168.10.7/24"));
            device(&on_board, told);
        }
        let key = team.key(&["--reusable"]);
        let robots = ["robot-1", "robot-2"].map(|name| {
            let config = team.host(name).path("/run/agent.toml");
            std::fs::write(config, format!("[routes]\nadvertise = ['{LAN}']\n")).unwrap();
            team.robot(name, &["--config", "/run/agent.toml"])
        });
        let laptop = team.robot("laptop", &[]);
        for robot in robots.iter().chain([&laptop]) {
            let joined = robot.join(&key);
            assert_eq!(joined.code, 0, "{joined:?}");
        }
        for robot in ["robot-1", "robot-2"] {
            laptop.wait_for_link(robot, "up");
        }
        Self { team, robots, laptop }
    }

    fn route(&self, arguments: &[&str]) -> Ended {
        self.team.admin(&[&["route"], arguments].concat())
    }

    fn approve(&self, robot: &str, map: &str) -> Ended {
        self.route(&["approve", robot, LAN, "--map", map])
    }

    fn lidar(&self, address: &str) -> Option<Vec<u8>> {
        asked(&self.laptop.host, address, LIDAR, b" scan")
    }

    fn answers(&self, address: &str, name: &str) {
        let expected = format!("{name} scan").into_bytes();
        eventually(&format!("the LiDAR {name} answers at {address}"), || {
            self.lidar(address).as_ref() == Some(&expected)
        });
    }

    fn micro_ros(&self, address: &str) -> bool {
        asked(&self.laptop.host, address, MICRO_ROS, &CREATE_CLIENT).as_deref() == Some(&STATUS_AGENT[..])
    }

    fn condition(robot: &Robot, code: &str) -> String {
        let ended = robot.ria(&["status"]);
        ended.out.lines().find(|line| line.contains(&format!(" {code}: "))).unwrap_or_default().to_owned()
    }

    /// Networks are offered, and nobody reaches them before an administrator says so, each under a prefix of its own.
    fn are_approved(&self) {
        eventually("both are offered", || self.route(&["list"]).out.matches("proposed").count() == 2);
        eventually("the robot says so", || Self::condition(&self.robots[0], "route-proposed").contains(LAN));
        assert_eq!(self.lidar("10.66.1.7"), None);
        for (prefix, words) in [
            ("10.213.9.0/24", "network lab"),
            ("10.66.0.0/16", "/24"),
            ("127.0.1.0/24", "loopback"),
            ("somewhere", "auto"),
        ] {
            let refused = self.approve("robot-1", prefix);
            assert!(refused.code == 1 && refused.err.contains(words), "{refused:?}");
        }
        let unknown = self.route(&["approve", "robot-1", "192.168.11.0/24"]);
        assert!(unknown.code == 1 && unknown.err.contains("[routes] advertise"), "{unknown:?}");
        let approved = self.approve("robot-1", "10.66.1.0/24");
        assert!(approved.code == 0 && approved.out.contains("10.66.1.0/24"), "{approved:?}");
        let taken = self.approve("robot-2", "10.66.1.0/24");
        assert!(taken.code == 1 && taken.err.contains("behind robot-1"), "{taken:?}");
        let second = self.approve("robot-2", "auto");
        assert!(second.code == 0 && second.out.contains("10.64.0.0/24"), "{second:?}");
    }

    /// All that a network carries gets to the devices and back, with the addresses that the laptop knows.
    fn are_reached(&self) {
        self.answers("10.66.1.7", "one");
        self.answers("10.64.0.7", "two");
        assert!(self.micro_ros("10.66.1.7") && self.micro_ros("10.64.0.7"));
        let large = vec![b'x'; 4000];
        let mut expected = b"one".to_vec();
        expected.extend(&large);
        eventually("datagrams in fragments", || {
            asked(&self.laptop.host, "10.66.1.7", LIDAR, &large).as_ref() == Some(&expected)
        });
        let to: SocketAddr = format!("10.64.0.7:{TCP}").parse().unwrap();
        let mut stream = self.laptop.host.enter(|| TcpStream::connect_timeout(&to, SOON)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut name = String::new();
        stream.read_to_string(&mut name).unwrap();
        assert_eq!(name, "two");
        assert!(self.laptop.ping("10.66.1.7", 3) > 0, "pings");
        assert!(self.laptop.ping("10.66.1.1", 3) > 0, "and the robot itself by its address there");
        // Errors of the device quote the addresses that the laptop has used; else its kernel would not take them for its own.
        eventually("nobody listens there", || {
            let socket = talk(&self.laptop.host, "10.66.1.7", 9);
            let _ = socket.send(b"is anybody there");
            socket.recv(&mut [0; 9]).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        let peer = self.laptop.peer("robot-1");
        assert!(peer["kind"] == "gateway", "{peer}");
        assert!(peer["path_reason"].as_str().unwrap().contains("gateway to 10.66.1.0/24"), "{peer}");
        let told = Self::condition(&self.robots[0], "gateway");
        assert!(told.contains("192.168.10.0/24 as 10.66.1.0/24 (lan0)"), "{told}");
        assert_eq!(Self::condition(&self.robots[0], "route-proposed"), "");
    }

    /// A device that knows the way begins nothing with members.
    fn only_answer(&self) {
        let device = self.team.host("device-1");
        device.run(&["ip", "route", "add", "10.213.0.0/16", "via", "192.168.10.1"]).unwrap();
        let here = self.laptop.address();
        let listener = self.laptop.host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7777))).unwrap();
        listener.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        let sender = talk(&device, &here, 7777);
        for _ in 0..3 {
            let _ = sender.send(b"let me in");
        }
        assert!(listener.recv(&mut [0; 20]).is_err(), "nothing has come");
        self.answers("10.66.1.7", "one");
    }

    /// With a policy nothing is reached that no rule names.
    fn are_under_policy(&self) {
        let text = "[[rule]]\nfrom = [\"laptop\"]\nto = [\"route:10.66.1.0/24\"]\nallow = [\"udp/2368\"]\n\
                    [[test]]\nfrom = \"laptop\"\nto = \"route:10.64.0.0/24\"\nport = \"udp/2368\"\nexpect = \"deny\"\n";
        std::fs::write(self.team.host("coordinator").path("/run/policy"), text).unwrap();
        let set = self.team.admin(&["policy", "set", "--file", "/run/policy"]);
        assert_eq!(set.code, 0, "{set:?}");
        eventually("the other robot's is reached no more", || self.lidar("10.64.0.7").is_none());
        self.answers("10.66.1.7", "one");
        assert!(!self.micro_ros("10.66.1.7"), "another port");
        assert!(self.laptop.status()["drops"]["filtered-out"].as_u64().unwrap() > 0);
        for (port, word, code) in [("udp/2368", "ALLOWED", 0), ("udp/8888", "DENIED", 1)] {
            let why = self.team.admin(&["policy", "explain", "laptop", "route:10.66.1.7/32", port]);
            assert!(why.code == code && why.out.contains(word), "{why:?}");
        }
        let list = self.route(&["list", "--json"]);
        assert!(
            list.out.contains("\"in_policy\": true") && list.out.contains("\"in_policy\": false"),
            "{list:?}"
        );
    }

    /// What is withdrawn is reached no more, and the robot's kernel is as it was.
    fn is_withdrawn(&self) {
        let robot = &self.robots[0].host;
        let tables = || robot.run(&["nft", "list", "tables"]).unwrap();
        let forwards = || robot.run(&["cat", "/proc/sys/net/ipv4/conf/lan0/forwarding"]).unwrap();
        assert!(tables().contains("table ip ria") && forwards().trim() == "1");
        assert_eq!(self.route(&["withdraw", "robot-1", LAN]).code, 0);
        eventually("it is reached no more", || self.lidar("10.66.1.7").is_none());
        let routes = || self.laptop.host.run(&["ip", "-4", "route", "show", "dev", "ria0"]).unwrap();
        eventually("the way is gone", || {
            !routes().contains("10.66.1.0/24") && routes().contains("10.64.0.0/24")
        });
        eventually("the rules are gone", || !tables().contains("table ip ria"));
        eventually("it is switched off", || forwards().trim() == "0");
        let audit = self.team.admin(&["audit", "list"]);
        for action in ["route.offered", "route.approved", "route.withdrawn"] {
            assert!(audit.out.contains(action), "{audit:?}");
        }
    }

    /// A laptop that has such a network itself keeps it, and says why it does not reach the robot's.
    fn collides_with_the_laptops_own(&self) {
        for line in
            ["link add own type veth peer name far", "addr add 192.168.10.50/24 dev own", "link set own up"]
        {
            let line: Vec<&str> = std::iter::once("ip").chain(line.split(' ')).collect();
            self.laptop.host.run(&line).unwrap();
        }
        assert_eq!(self.route(&["approve", "robot-1", LAN]).code, 0);
        eventually("it is named", || {
            let told = Self::condition(&self.laptop, "route-conflict");
            told.contains("192.168.10.0/24 behind robot-1")
                && told.contains("own")
                && told.contains("--map auto")
        });
        let routes = self.laptop.host.run(&["ip", "-4", "route", "show", "192.168.10.0/24"]).unwrap();
        assert!(routes.contains("dev own") && !routes.contains("ria0"), "{routes}");
        assert_eq!(self.approve("robot-1", "auto").code, 0);
        eventually("another prefix mends it", || Self::condition(&self.laptop, "route-conflict").is_empty());
    }
}

#[test]
fn devices_behind_robots_with_the_same_network_are_reached_at_their_own_prefixes() {
    let mut lab = Lab::new();
    lab.are_approved();
    lab.are_reached();
    lab.only_answer();
    lab.are_under_policy();
    lab.robots[0].kill();
    lab.robots[0].start(&["--config", "/run/agent.toml"]);
    lab.answers("10.66.1.7", "one");
    lab.is_withdrawn();
    lab.collides_with_the_laptops_own();
}
