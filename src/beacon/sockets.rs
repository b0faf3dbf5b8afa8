//! The sockets of beacons: one per family that hears, and one for each that is sent, which says by which link it goes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Socket, Type};

use crate::netdev::host::Place;

/// Of the block for one site (RFC 2365), and never forwarded (hop limit 1). Switches pass the block for one link (224.0.0.0/24)
/// more readily, but that one is handed out by IANA only; so beacons also go to the link's broadcast address.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 114, 105);

/// Link-local, not assigned by IANA (RFC 4291 section 2.7).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x7269, 0x6100);

/// Hears IPv4. Other agents of this machine may hear at the same port.
pub fn listen_v4(port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    bind_shared(&socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    Ok(socket.into())
}

/// Hears IPv6.
pub fn listen_v6(port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    bind_shared(&socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    Ok(socket.into())
}

fn bind_shared(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.set_nonblocking(true)
}

/// Hears the group on a link, if the socket is of its family. It may be in the group already, and the link may be gone.
pub fn join(socket: &UdpSocket, place: &Place) {
    let socket = SockRef::from(socket);
    let is_v6 = socket.local_addr().is_ok_and(|own| own.is_ipv6());
    let _ = match place.address {
        IpAddr::V4(_) if !is_v6 => {
            socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(place.index))
        }
        IpAddr::V6(_) if is_v6 => socket.join_multicast_v6(&GROUP_V6, place.index),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    };
}

/// Sends a datagram to everybody on a link, and never beyond.
pub fn send(place: &Place, port: u16, datagram: &[u8]) -> io::Result<()> {
    match place.address {
        IpAddr::V4(address) => send_v4(place, address, port, datagram),
        IpAddr::V6(address) => send_v6(place, address, port, datagram),
    }
}

fn send_v4(place: &Place, address: Ipv4Addr, port: u16, datagram: &[u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Two links may have the same addresses. Without the right to name the link, routing decides.
    let _ = socket.bind_device(Some(place.interface.as_bytes()));
    socket.bind(&SockAddr::from(SocketAddr::from((address, 0))))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v4(&address)?;
    socket.set_multicast_ttl_v4(1)?;
    socket.set_multicast_loop_v4(false)?;
    let group = socket.send_to(datagram, &SockAddr::from(SocketAddr::from((GROUP_V4, port))));
    let Some(all) = place.broadcast else { return group.map(|_| ()) };
    socket.set_ttl_v4(1)?;
    socket.set_broadcast(true)?;
    let all = socket.send_to(datagram, &SockAddr::from(SocketAddr::from((all, port))));
    // Some links have the one, some the other.
    group.or(all).map(|_| ())
}

fn send_v6(place: &Place, address: Ipv6Addr, port: u16, datagram: &[u8]) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    let own = SocketAddrV6::new(address, 0, 0, place.scope());
    socket.bind(&SockAddr::from(own))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v6(place.index)?;
    socket.set_multicast_hops_v6(1)?;
    socket.set_multicast_loop_v6(false)?;
    let group = SocketAddrV6::new(GROUP_V6, port, 0, place.index);
    socket.send_to(datagram, &SockAddr::from(group)).map(|_| ())
}
