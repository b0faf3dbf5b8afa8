//! What the tests share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use netlab::{Host, HostSpec, Lab, Nat, NetworkSpec, RouterSpec};

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

/// A UDP socket of a host, on its address, that waits 300 ms for a datagram.
pub fn bind(host: &Host, port: u16) -> UdpSocket {
    let address = if port == 7400 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V4(host.address()) };
    let socket = host.enter(|| UdpSocket::bind((address, port))).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// Whether one ping is answered within a second.
pub fn pings(host: &Host, to: Ipv4Addr) -> bool {
    host.output(&["ping", "-c1", "-W1", &to.to_string()]).unwrap().status.success()
}
