//! DDS participants on the machine's own networks, beside the overlay: sensors and boards of the robot that processes with
//! Ria's settings do not hear, because these use the overlay alone.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use super::facts::Neighbour;

/// Where participants announce themselves; Fast DDS every 3 s.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 0, 1);
const LISTENING: Duration = Duration::from_millis(3500);

/// One wait, so that all interfaces are looked at in turn.
const TURN: Duration = Duration::from_millis(20);

/// What each RTPS message begins with.
const MAGIC: &[u8] = b"RTPS";

/// An interface beside the overlay's, with this machine's addresses there.
struct Place {
    name: String,
    index: u32,
    own: BTreeSet<Ipv4Addr>,
}

/// Who announces itself in these domains, on interfaces that are not among `used`.
pub fn look(used: &[String], domains: &BTreeSet<u32>) -> Vec<Neighbour> {
    let places = places(used);
    let ports = domains.iter().filter_map(|domain| u16::try_from(7400 + 250 * domain).ok());
    let sockets: Vec<(&Place, UdpSocket)> = ports
        .flat_map(|port| places.iter().map(move |place| (place, port)))
        // On one that can't be listened on nobody is heard.
        .filter_map(|(place, port)| Some((place, open(place.index, port).ok()?)))
        .collect();
    let (mut heard, end) = (BTreeSet::new(), Instant::now() + LISTENING);
    while !sockets.is_empty() && Instant::now() < end {
        for (place, socket) in &sockets {
            let source = receive(socket).filter(|source| !place.own.contains(source));
            heard.extend(source.map(|source| (place.name.clone(), source)));
        }
    }
    heard.into_iter().map(|(interface, address)| Neighbour { interface, address }).collect()
}

fn places(used: &[String]) -> Vec<Place> {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING | InterfaceFlags::IFF_MULTICAST;
    let mut places: Vec<Place> = Vec::new();
    for entry in getifaddrs().into_iter().flatten() {
        let is_other = entry.flags.contains(wanted) && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(address) = entry.address.and_then(|address| Some(address.as_sockaddr_in()?.ip())) else {
            continue;
        };
        if !is_other || used.contains(&entry.interface_name) {
            continue;
        }
        if let Some(place) = places.iter_mut().find(|place| place.name == entry.interface_name) {
            place.own.insert(address);
        } else if let Ok(index) = if_nametoindex(entry.interface_name.as_str()) {
            places.push(Place { name: entry.interface_name, index, own: [address].into() });
        }
    }
    places
}

fn open(interface: u32, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    // Beside the participants of this machine, which have the port, too; each gets every packet to the group.
    socket.set_reuse_address(true)?;
    socket.set_multicast_all_v4(false)?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(GROUP, port)))?;
    socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(interface))?;
    socket.set_read_timeout(Some(TURN))?;
    Ok(socket.into())
}

/// The source of an RTPS message, if one comes.
fn receive(socket: &UdpSocket) -> Option<Ipv4Addr> {
    let mut head = [0; MAGIC.len()];
    let (length, from) = socket.recv_from(&mut head).ok()?;
    match from {
        SocketAddr::V4(from) if head.get(..length) == Some(MAGIC) => Some(*from.ip()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rtps_counts() {
        let listening = UdpSocket::bind("127.0.0.1:0").unwrap();
        listening.set_read_timeout(Some(TURN)).unwrap();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (datagram, counts) in
            [(&b"RTPS\x02\x03 and more"[..], true), (b"RTP", false), (b"", false), (b"M-SEARCH *", false)]
        {
            other.send_to(datagram, listening.local_addr().unwrap()).unwrap();
            assert_eq!(receive(&listening).is_some(), counts, "{datagram:?}");
        }
        assert_eq!(receive(&listening), None, "nothing came");
    }

    #[test]
    fn own_networks_are_those_beside_loopback_and_overlay() {
        let all = places(&[]);
        assert!(all.iter().all(|place| place.name != "lo" && !place.own.is_empty()));
        let names: Vec<String> = all.into_iter().map(|place| place.name).collect();
        assert!(places(&names).is_empty());
    }
}
