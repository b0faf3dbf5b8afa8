//! Sends with a traffic class (DSCP and ECN) of their own, and sends that the network may cut into fragments: what the
//! kernel is told by control messages and socket options, and no crate wraps as needed.
#![allow(unsafe_code, reason = "socket options that are integers")]

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

/// Datagrams of one send.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// Where to.
    pub to: SocketAddr,
    /// From which of this host's addresses, unless the kernel chooses.
    pub from: Option<IpAddr>,
    /// The byte that is TOS in IPv4 and the traffic class in IPv6.
    pub traffic_class: u8,
    /// Length of each datagram but the last.
    pub segment_size: usize,
}

/// Sends datagrams that lie one behind the other. The kernel cuts them, and gives each the same marks.
pub fn send(socket: &impl AsFd, message: &Message, datagrams: &[u8]) -> io::Result<()> {
    let (tos, class) = (message.traffic_class, i32::from(message.traffic_class));
    let ipv4 = message.to.ip().to_canonical().is_ipv4();
    let mark = if ipv4 { ControlMessage::Ipv4Tos(&tos) } else { ControlMessage::Ipv6TClass(&class) };
    let (info4, info6, segment);
    let source = match message.from {
        None => None,
        Some(IpAddr::V4(ip)) => {
            info4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            Some(ControlMessage::Ipv4PacketInfo(&info4))
        }
        Some(IpAddr::V6(ip)) => {
            info6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            Some(ControlMessage::Ipv6PacketInfo(&info6))
        }
    };
    segment = u16::try_from(message.segment_size).unwrap_or(u16::MAX);
    let cut = (datagrams.len() > message.segment_size).then_some(ControlMessage::UdpGsoSegments(&segment));
    let to = SockaddrStorage::from(message.to);
    let (fd, parts) = (socket.as_fd().as_raw_fd(), [IoSlice::new(datagrams)]);
    let mut told = [mark, mark, mark];
    let mut count = 1;
    for more in source.into_iter().chain(cut) {
        told[count] = more;
        count += 1;
    }
    sendmsg(fd, &parts, told.get(..count).unwrap_or(&told), MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
}

/// Lets what `send` sends be cut into fragments on the way: by this host to what each IPv6 path carries, by routers of IPv4
/// to what they must.
pub fn in_fragments(socket: &impl AsFd, v6: bool, send: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    forbid_fragments(socket, v6, false)?;
    let sent = send();
    forbid_fragments(socket, v6, true)?;
    sent
}

/// The least that IPv6 paths carry (RFC 8200, section 5).
const IPV6_LEAST: libc::c_int = 1280;

/// All a datagram may be.
const IPV6_ANY: libc::c_int = 65_535;

fn forbid_fragments(socket: &impl AsFd, v6: bool, forbid: bool) -> io::Result<()> {
    let (v4_rule, v6_rule) = match forbid {
        true => (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE),
        false => (libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_DONT),
    };
    if v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, v6_rule)?;
        // An option of its own besides (RFC 3542, section 11.2), which refuses whatever is larger than the first link.
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, libc::c_int::from(forbid))?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU, if forbid { IPV6_ANY } else { IPV6_LEAST })?;
    }
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4_rule)
}

fn set(socket: &impl AsFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads one integer of the size that is told.
    let done = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn runs_are_cut_and_the_rule_comes_back() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = Some("127.0.0.1".parse().unwrap());
        let to = receiver.local_addr().unwrap();
        let message = Message { to, from, traffic_class: 0xb8, segment_size: 100 };
        in_fragments(&sender, false, || send(&sender, &message, &[7; 250])).unwrap();
        let mut buffer = [0; 300];
        let lengths = [(); 3].map(|()| receiver.recv(&mut buffer).unwrap());
        assert_eq!(lengths, [100, 100, 50]);
        // What is larger than any packet is refused whole again.
        let large = Message { segment_size: 65_000, ..message };
        assert!(send(&sender, &large, &[7; 65_000]).is_ok(), "the loopback takes 64 KiB");
    }
}
