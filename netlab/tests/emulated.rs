//! Emulated translators and links over real interfaces: what a prober at STUN's place sees of each kind, hairpinning,
//! connections, what changes while all runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{PATIENCE, bind, campus_like, eventually, is_silent, never_reaches, reaches};
use netlab::nat::{Behaviour, Dependence, Dropped, Hairpin};
use netlab::{Description, Direction, Host, HostSpec, Lab, Nat, NetworkSpec, RouterSpec};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

const KINDS: [Dependence; 3] =
    [Dependence::EndpointIndependent, Dependence::AddressDependent, Dependence::AddressAndPortDependent];

/// The sender's address as a server sees it, for the datagram that arrives for this question.
fn seen(from: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    from.send_to(b"who am I", server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let (length, source) = server.recv_from(&mut buffer).expect("the question arrives");
    assert_eq!(&buffer[..length], b"who am I");
    source
}

/// Whether a datagram to a mapping comes in. One of somebody who may write there is sent after it, so that nobody has to
/// wait long for what doesn't come.
fn comes_in(from: &UdpSocket, friend: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> bool {
    from.send_to(b"stranger", to).unwrap();
    thread::sleep(Duration::from_millis(20));
    friend.send_to(b"friend", to).unwrap();
    let mut buffer = [0; 16];
    let (length, _) = at.recv_from(&mut buffer).expect("what a friend writes comes in");
    if &buffer[..length] == b"friend" {
        return !is_silent(at);
    }
    // The friend's is still to come.
    at.recv_from(&mut buffer).unwrap();
    true
}

/// What a prober learns as RFC 5780 describes: of the mapping by asking three ends, of the filtering by being answered by
/// another port and by another address than the one asked.
fn probe(lab: &Lab) -> (Dependence, Dependence) {
    let [robot, one, two] = ["robot", "one", "two"].map(|name| lab.host(name).unwrap());
    let [asked, other_port] = [3478, 3479].map(|port| bind(&one, port));
    let [other_host, stranger] = [3478, 3480].map(|port| bind(&two, port));
    let client = bind(&robot, 0);
    let mapped = [&asked, &other_port, &other_host].map(|server| seen(&client, server));
    assert!(mapped.iter().all(|end| end.ip() == OUTSIDE), "{mapped:?}");
    assert_eq!(seen(&client, &asked), mapped[0], "a mapping lasts");
    let mapping = match (mapped[0] == mapped[1], mapped[0] == mapped[2]) {
        (true, true) => Dependence::EndpointIndependent,
        (true, false) => Dependence::AddressDependent,
        (false, false) => Dependence::AddressAndPortDependent,
        (false, true) => panic!("no kind of mapping: {mapped:?}"),
    };
    // Another socket, which has written to one end only.
    let client = bind(&robot, 0);
    let end = seen(&client, &asked);
    let comes_in = |from| comes_in(from, &asked, end, &client);
    let filtering = match (comes_in(&other_port), comes_in(&stranger)) {
        (true, true) => Dependence::EndpointIndependent,
        (true, false) => Dependence::AddressDependent,
        (false, false) => Dependence::AddressAndPortDependent,
        (false, true) => panic!("no kind of filtering"),
    };
    (mapping, filtering)
}

#[test]
fn a_prober_finds_each_kind_of_mapping_and_filtering() {
    for (n, mapping) in KINDS.into_iter().enumerate() {
        // Each kind of either meets each other kind in three labs of the nine; all nine are in the tests in virtual time.
        for filtering in [KINDS[n], KINDS[(n + 1) % 3]] {
            let lab = campus_like(Nat::Emulated(Behaviour { mapping, filtering, ..Behaviour::default() }));
            assert_eq!(probe(&lab), (mapping, filtering));
        }
    }
}

/// A datagram from a server comes in.
fn answer(server: &UdpSocket, to: SocketAddr, at: &UdpSocket) {
    server.send_to(b"answer", to).unwrap();
    let mut buffer = [0; 16];
    let (length, source) = at.recv_from(&mut buffer).expect("the answer comes in");
    assert_eq!((&buffer[..length], source), (&b"answer"[..], server.local_addr().unwrap()));
}

/// Two robots on one network behind the same translator, and a server outside.
fn two_behind(nat: Nat) -> (Lab, [Host; 3]) {
    let mut lab = Lab::new("two-behind").unwrap();
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
    lab.add_network("wifi", NetworkSpec::campus_wifi("192.168.1.0/24".parse().unwrap())).unwrap();
    lab.add_router("nat", RouterSpec { address: Some(OUTSIDE), ..RouterSpec::new("internet", "wifi", nat) })
        .unwrap();
    let hosts = [("a", "wifi"), ("b", "wifi"), ("server", "internet")];
    let hosts = hosts.map(|(name, network)| lab.add_host(name, HostSpec::on(network)).unwrap());
    (lab, hosts)
}

#[test]
fn hairpinning_joins_isolated_hosts_or_is_refused() {
    for hairpin in [Hairpin::ExternalSource, Hairpin::Off] {
        let (lab, [a, b, server]) = two_behind(Nat::Emulated(Behaviour { hairpin, ..Behaviour::default() }));
        assert!(never_reaches(&a, b.address()), "they are isolated");
        let [a, b, server] = [(&a, 5000), (&b, 5001), (&server, 3478)].map(|(host, port)| bind(host, port));
        let [outside_a, outside_b] = [&a, &b].map(|socket| seen(socket, &server));
        // Both punch, as ICE does.
        a.send_to(b"punch", outside_b).unwrap();
        b.send_to(b"hello", outside_a).unwrap();
        if hairpin == Hairpin::Off {
            assert!(is_silent(&a));
            let refused = || lab.nat_report("nat").unwrap().dropped.get(&Dropped::Hairpin).copied();
            eventually("both were refused", || refused() >= Some(2));
            continue;
        }
        let mut buffer = [0; 16];
        let (length, source) = a.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], source), (&b"hello"[..], outside_b));
    }
}

/// Sends bytes both ways over one connection, and checks every one.
fn exchange(mut near: TcpStream, mut far: TcpStream, bytes: usize) {
    let pattern: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
    let echo = thread::spawn(move || {
        let mut got = vec![0; bytes];
        far.read_exact(&mut got).unwrap();
        far.write_all(&got).unwrap();
    });
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut writer, sent) = (near.try_clone().unwrap(), pattern.clone());
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; bytes];
    near.read_exact(&mut back).unwrap();
    writing.join().unwrap();
    echo.join().unwrap();
    assert!(back == pattern, "bytes changed on their way");
}

fn connect(from: &Host, to: &Host) -> (TcpStream, TcpStream) {
    let listener = to.enter(|| TcpListener::bind((to.address(), 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let near = from.enter(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
fn tcp_pings_and_errors_pass_two_translators_in_a_row() {
    let mut lab = Lab::new("in-a-row").unwrap();
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
    lab.add_network("provider", NetworkSpec::new("100.64.0.0/24".parse().unwrap())).unwrap();
    lab.add_network("home", NetworkSpec::new("192.168.1.0/24".parse().unwrap())).unwrap();
    lab.add_router("carrier", RouterSpec::new("internet", "provider", Nat::ADDRESS_AND_PORT_DEPENDENT))
        .unwrap();
    lab.add_router("box", RouterSpec::new("provider", "home", Nat::ENDPOINT_INDEPENDENT)).unwrap();
    let server = lab.add_host("server", HostSpec::on("internet")).unwrap();
    let robot = lab.add_host("robot", HostSpec::on("home")).unwrap();
    assert!(reaches(&robot, server.address()));
    let (near, far) = connect(&robot, &server);
    assert_eq!(far.peer_addr().unwrap().ip(), "198.51.100.10".parse::<Ipv4Addr>().unwrap());
    exchange(near, far, 3_000_000);
    // A closed port far away is refused at once, which is an ICMP error that came back through both.
    let socket = bind(&robot, 0);
    socket.connect((server.address(), 9)).unwrap();
    eventually("the closed port is told", || {
        let _ = socket.send(b"anybody there?");
        socket.recv(&mut [0; 16]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    let path = robot.output(&["ping", "-n", "-c1", "-W5", "-t1", &server.address().to_string()]).unwrap();
    let path = String::from_utf8(path.stdout).unwrap();
    assert!(path.contains("192.168.1.1") && path.contains("Time to live exceeded"), "{path}");
    let mappings = |router| lab.nat_report(router).unwrap().mappings.len();
    assert!(mappings("carrier") >= 3 && mappings("box") >= 3);
}

#[test]
fn a_translator_forgets_when_told_and_takes_another_address() {
    let mut lab = campus_like(Nat::ENDPOINT_INDEPENDENT);
    let [robot, one] = ["robot", "one"].map(|name| lab.host(name).unwrap());
    let (client, server) = (bind(&robot, 41820), bind(&one, 3478));
    let before = seen(&client, &server);
    answer(&server, before, &client);
    lab.reboot_nat("nat").unwrap();
    server.send_to(b"late", before).unwrap();
    assert!(is_silent(&client), "the mapping is gone");
    assert_eq!(seen(&client, &server), before, "the port is free, and kept");

    let wanted = Ipv4Addr::new(198, 51, 100, 77);
    assert_eq!(lab.readdress_nat("nat", Some(wanted)).unwrap(), wanted);
    assert_eq!(seen(&client, &server), SocketAddr::from((wanted, 41820)));
    server.send_to(b"late", before).unwrap();
    assert!(is_silent(&client), "the old address leads nowhere");
    assert!(reaches(&one, wanted), "the router answers on its new address");
    // The old one is free again, the new one is taken.
    assert_eq!(lab.add_host("three", HostSpec::on("internet").at(OUTSIDE)).unwrap().address(), OUTSIDE);
    let error = lab.add_host("four", HostSpec::on("internet").at(wanted)).unwrap_err().to_string();
    assert!(error.contains("not free"), "{error}");

    let kernel = campus_like(Nat::PortPreserving);
    let error = kernel.nat_report("nat").unwrap_err().to_string();
    assert!(error.contains("port-restricted"), "{error}");
    let error = kernel.nat_report("robot").unwrap_err().to_string();
    assert!(error.contains("no router with an emulated nat named 'robot'"), "{error}");
}

/// Milliseconds that a datagram takes there and back, the least of several.
fn round_trip(from: &UdpSocket, to: &UdpSocket) -> Duration {
    let once = || {
        let began = std::time::Instant::now();
        answer(to, seen(from, to), from);
        began.elapsed()
    };
    (0..10).map(|_| once()).min().unwrap()
}

fn set(lab: &mut Lab, link: &str, settings: &[&str]) {
    let changed = lab.link(link).unwrap().clone().with(settings).unwrap();
    lab.set_link(link, changed).unwrap();
}

#[test]
fn a_running_link_is_emulated_as_long_as_it_has_to_be() {
    let mut lab = campus_like(Nat::PORT_RESTRICTED);
    let [robot, one] = ["robot", "one"].map(|name| lab.host(name).unwrap());
    let (near, far) = connect(&robot, &one);
    let (client, server) = (bind(&robot, 0), bind(&one, 3478));
    seen(&client, &server);
    assert_eq!(lab.link_counters("robot").unwrap(), None);
    set(&mut lab, "robot", &["delay=30ms"]);
    // Never sooner, however busy the machine.
    assert!(round_trip(&client, &server) >= Duration::from_millis(60));
    set(&mut lab, "robot", &["delay-up=0"]);
    assert!(round_trip(&client, &server) >= Duration::from_millis(30));
    set(&mut lab, "robot", &["duplicate-down=100"]);
    answer(&server, seen(&client, &server), &client);
    assert_eq!(client.recv(&mut [0; 16]).unwrap(), b"answer".len(), "a second time");
    let (up, down) = lab.link_counters("robot").unwrap().unwrap();
    assert!(up.delivered >= 20 && down.duplicated >= 1, "{up:?} {down:?}");
    // The uplink of the router, too; and what was there before goes on.
    set(&mut lab, "nat", &["delay=10ms", "jitter=5ms", "reorder=5", "loss=1", "burst=2", "rate=200mbit"]);
    exchange(near, far, 300_000);
    // Cut and blocked UDP hold for an emulated link.
    set(&mut lab, "robot", &["udp=blocked"]);
    client.send_to(b"lost", server.local_addr().unwrap()).unwrap();
    assert!(is_silent(&server));
    assert!(reaches(&robot, one.address()));
    lab.cut("robot", true).unwrap();
    assert!(never_reaches(&robot, one.address()));
    for link in ["robot", "nat"] {
        lab.set_link(link, netlab::Link::default()).unwrap();
        assert_eq!(lab.link_counters(link).unwrap(), None);
    }
    eventually("it is a plain link again", || {
        client.send_to(b"who am I", server.local_addr().unwrap()).unwrap();
        !is_silent(&server)
    });
}

#[test]
fn a_black_out_ends_by_itself_and_a_moved_host_takes_its_link_along() {
    let mut lab = campus_like(Nat::PORT_RESTRICTED);
    let [robot, one] = ["robot", "one"].map(|name| lab.host(name).unwrap());
    assert!(reaches(&robot, one.address()));
    let server = bind(&one, 3478);
    let client = bind(&robot, 0);
    seen(&client, &server);
    lab.black_out("robot", Some(Direction::Down), Duration::from_secs(600)).unwrap();
    let source = seen(&client, &server);
    let is_dark = || {
        server.send_to(b"hello", source).unwrap();
        is_silent(&client)
    };
    assert!(is_dark(), "nothing comes down, though all goes up");
    set(&mut lab, "robot", &["delay=20ms"]);
    assert!(is_dark(), "a change of the link does not end it");
    lab.move_host("robot", "internet").unwrap();
    assert!(never_reaches(&robot, one.address()), "nor does a move");
    let error = lab.black_out("robot", None, Duration::from_secs(3601)).unwrap_err().to_string();
    assert!(error.contains("cut=on"), "{error}");

    assert!(reaches(&lab.host("two").unwrap(), one.address()));
    let [client, server] = [bind(&lab.host("two").unwrap(), 0), bind(&one, 9)];
    let send = || client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
    eventually("a frame is swallowed by a short black-out", || {
        lab.black_out("two", None, Duration::from_secs(1)).unwrap();
        send();
        lab.link_counters("two").unwrap().is_some_and(|(up, _)| up.blacked_out > 0)
    });
    eventually("the black-out is over", || {
        send();
        !is_silent(&server)
    });
}

/// A lab of the command; it ends with its standard input.
struct Running(std::process::Child, String);

impl Running {
    fn start(description: &str) -> Self {
        let name = format!("emulated-{}", std::process::id());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(description.as_bytes()).unwrap();
        let mut lab = netlab(&["up", file.path().to_str().unwrap(), "--json", "--name", &name]);
        let mut lab = lab.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(lab.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(&name), "it is not ready: {line}");
        Self(lab, name)
    }

    /// What a verb prints; or its error.
    fn run(&self, verb: &str, arguments: &[&str]) -> Result<String, String> {
        let output = netlab(&[&[verb, &self.1], arguments].concat()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn netlab(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netlab"));
    command.args(line);
    command
}

#[test]
fn the_command_shows_and_changes_what_is_emulated() {
    let running = Running::start(
        "name = 'x'\n[network.internet]\nprefix = '198.51.100.0/24'\ninternet = true\n\
         [network.lan]\nprefix = '10.1.0.0/24'\n\
         [router.box]\nuplink = 'internet'\ndownlink = 'lan'\nnat = { hairpin = 'off' }\nlink = { delay = '2ms' }\n\
         [router.plain]\nuplink = 'internet'\ndownlink = 'lan-2'\n[network.lan-2]\nprefix = '10.2.0.0/24'\n\
         [host.robot]\nnetwork = 'lan'\n[host.server]\nnetwork = 'internet'\naddress = '198.51.100.2'\n",
    );
    let ping = ["robot", "--", "ping", "-n", "-q", "-i0.2", "-c1", "-w2", "198.51.100.2"];
    eventually("the robot reaches the internet", || running.run("exec", &ping).is_ok());
    let shown = running.run("nat", &["box"]).unwrap();
    assert!(shown.contains("outside address 198.51.100.10") && shown.contains("icmp  10.1.0.10:"), "{shown}");
    assert_eq!(running.run("nat", &["box", "address"]).unwrap(), "198.51.100.12\n");
    let shown = running.run("nat", &["box", "--json"]).unwrap();
    let report: netlab::nat::NatReport = serde_json::from_str(&shown).unwrap();
    assert_eq!((report.external.to_string().as_str(), report.mappings.len()), ("198.51.100.12", 0));
    eventually("the robot reaches the internet from there", || running.run("exec", &ping).is_ok());
    running.run("nat", &["box", "reset"]).unwrap();
    let error = running.run("nat", &["plain", "reset"]).unwrap_err();
    assert!(error.contains("leaves translation to the kernel"), "{error}");

    running.run("set", &["robot", "jitter-up=1.5ms", "burst=4"]).unwrap();
    running.run("black-out", &["robot", "600", "--up"]).unwrap();
    assert!(running.run("exec", &ping).is_err());
    let report: netlab::control::LinkReport =
        serde_json::from_str(&running.run("link", &["robot", "--json"]).unwrap()).unwrap();
    assert!(report.up.unwrap().blacked_out > 0 && report.down.unwrap().blacked_out == 0, "{report:?}");
    let shown = running.run("link", &["robot"]).unwrap();
    assert!(shown.contains("jitter-up = \"1500us\"") && shown.contains("burst-down = \"4\""), "{shown}");
    running.run("black-out", &["robot", "0"]).unwrap();
    eventually("the black-out is over", || running.run("exec", &ping).is_ok());
    for wrong in ["-1", "1e99", "NaN", "4000"] {
        let error = running.run("black-out", &["--", "robot", wrong]).unwrap_err();
        assert!(error.contains("at most an hour"), "{wrong}: {error}");
    }
}

#[test]
fn descriptions_name_each_kind_and_mistakes_are_told() {
    let text = |nat: &str| format!("name = 'x'\n[router.r]\nuplink = 'a'\ndownlink = 'b'\nnat = {nat}");
    let nat = |nat: &str| Description::from_toml(&text(nat)).map(|read| read.routers["r"].nat);
    for (name, kind) in [
        ("none", Nat::None),
        ("port-preserving", Nat::PortPreserving),
        ("symmetric", Nat::Symmetric),
        ("endpoint-independent", Nat::ENDPOINT_INDEPENDENT),
        ("port-restricted", Nat::PORT_RESTRICTED),
        ("address-dependent", Nat::ADDRESS_DEPENDENT),
        ("address-and-port-dependent", Nat::ADDRESS_AND_PORT_DEPENDENT),
    ] {
        assert_eq!(nat(&format!("'{name}'")).unwrap(), kind);
    }
    let odd = nat(
        "{ mapping = 'address-dependent', hairpin = 'internal-source', ports = 'random', parity = true, udp-timeout = 30 }",
    );
    let Nat::Emulated(behaviour) = odd.unwrap() else { panic!() };
    assert_eq!((behaviour.hairpin, behaviour.udp_timeout), (Hairpin::InternalSource, 30));
    let read = Description::from_toml(&text("{ parity = true }")).unwrap();
    assert_eq!(Description::from_toml(&toml_of(&read)).unwrap(), read, "written as it is read");
    for (wrong, hint) in
        [("'cone'", "endpoint-independent"), ("{ map = 'x' }", "unknown field `map`"), ("3", "a table")]
    {
        let error = nat(wrong).unwrap_err().to_string();
        assert!(error.contains(hint), "{wrong}: {error}");
    }
}

fn toml_of(description: &Description) -> String {
    toml::to_string(description).unwrap()
}
