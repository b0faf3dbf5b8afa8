//! What the tests share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use netlab::{Host, HostSpec, Lab, Nat, NetworkSpec, RouterSpec};

/// Longest wait for what should be so at once; generous, since machines that test are slow.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// `robot` on an isolated Wi-Fi behind a NAT at 198.51.100.99, servers `one` and `two` on the internet.
pub fn campus_like(nat: Nat) -> Lab {
    let mut lab = Lab::new("campus-like").unwrap();
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
    lab.add_network("wifi", NetworkSpec::campus_wifi("192.168.1.0/24".parse().unwrap())).unwrap();
    let address = Some(Ipv4Addr::new(198, 51, 100, 99));
    lab.add_router("nat", RouterSpec { address, ..RouterSpec::new("internet", "wifi", nat) }).unwrap();
    lab.add_host("robot", HostSpec::on("wifi")).unwrap();
    for server in ["one", "two"] {
        lab.add_host(server, HostSpec::on("internet")).unwrap();
    }
    lab
}

/// A UDP socket of a host, on its address, that waits long for a datagram.
pub fn bind(host: &Host, port: u16) -> UdpSocket {
    let address = if port == 7400 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V4(host.address()) };
    let socket = host.enter(|| UdpSocket::bind((address, port))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Whether nothing arrives at a socket for a while.
pub fn is_silent(socket: &UdpSocket) -> bool {
    let before = socket.read_timeout().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let received = socket.recv_from(&mut [0; 16]);
    socket.set_read_timeout(before).unwrap();
    received.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Whether a host is reached within a generous while. One ping says little: the address resolution of a fresh or lossy
/// link repeats itself only once a second, and gives up after three questions.
pub fn reaches(host: &Host, to: Ipv4Addr) -> bool {
    is_reached(host, to.into())
}

/// The same for IPv6.
pub fn reaches6(host: &Host, to: Ipv6Addr) -> bool {
    is_reached(host, to.into())
}

fn is_reached(host: &Host, to: IpAddr) -> bool {
    let end = Instant::now() + PATIENCE;
    while !pings(host, to, 3) {
        if Instant::now() > end {
            return false;
        }
    }
    true
}

/// Whether none of several pings is answered, over long enough that address resolution had its chance.
pub fn never_reaches(host: &Host, to: Ipv4Addr) -> bool {
    !pings(host, to.into(), 2)
}

/// The same for IPv6.
pub fn never_reaches6(host: &Host, to: Ipv6Addr) -> bool {
    !pings(host, to.into(), 2)
}

/// Sends pings until one is answered, the network reports an error, or the seconds are over.
fn pings(host: &Host, to: IpAddr, seconds: u32) -> bool {
    let (seconds, to) = (seconds.to_string(), to.to_string());
    host.output(&["ping", "-n", "-q", "-i0.2", "-c1", "-w", &seconds, &to]).unwrap().status.success()
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
