//! What the kernel does for single datagrams and no crate wraps as needed: it tells how much of a socket's waits in its
//! queues, takes a datagram that is to go before what waits there, and says from where it would send.
#![allow(unsafe_code, reason = "one ioctl that writes one integer")]

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

/// What marks datagrams as urgent: the class AF42 (RFC 2597). Linux's queues put it before others (its bits say "low
/// delay" in the older reading, RFC 1349), Wi-Fi sends it in the category of video, and networks that don't know it carry
/// it as all else. WireGuard marks its handshakes in the same class.
const CLASS: u8 = 0x90;

nix::ioctl_read_bad!(
    /// `SIOCOUTQ`, udp(7).
    outq,
    libc::TIOCOUTQ,
    libc::c_int
);

/// Bytes of the socket's that the kernel holds, in queues and in the driver, with its own bookkeeping.
pub fn held(socket: &impl AsFd) -> usize {
    let mut bytes = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the call writes one integer where one is.
    let done = unsafe { outq(socket.as_fd().as_raw_fd(), &raw mut bytes) };
    done.ok().and_then(|_| usize::try_from(bytes).ok()).unwrap_or(0)
}

/// A STUN binding request (RFC 8489, section 5), such as ICE's checks are.
const BINDING_REQUEST: [u8; 2] = [0, 1];

/// Whether this is a check from an address that is not the kernel's choice for where it goes. The kernel would send it out
/// all the same, by the interface that its routes name and with a source of another one: no such pair can work as it is
/// meant, and at a NAT it may take the port that the check from the right address needs.
pub fn is_astray(to: SocketAddr, from: Option<IpAddr>, datagram: &[u8]) -> bool {
    let Some(from) = from.filter(|_| datagram.starts_with(&BINDING_REQUEST)) else { return false };
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let chosen = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(to)?;
        socket.local_addr()
    });
    !chosen.is_ok_and(|chosen| chosen.ip() == from)
}

/// Sends a datagram that goes before what waits. `to` is in the form that the socket takes.
pub fn send(socket: &impl AsFd, to: SocketAddr, from: Option<IpAddr>, datagram: &[u8]) -> io::Result<()> {
    let (tos, class) = (CLASS, i32::from(CLASS));
    let ipv4 = to.ip().to_canonical().is_ipv4();
    let mark = if ipv4 { ControlMessage::Ipv4Tos(&tos) } else { ControlMessage::Ipv6TClass(&class) };
    let (info4, info6);
    let source = match from {
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
    let (fd, parts, to) = (socket.as_fd().as_raw_fd(), [IoSlice::new(datagram)], SockaddrStorage::from(to));
    match source {
        Some(source) => sendmsg(fd, &parts, &[mark, source], MsgFlags::MSG_DONTWAIT, Some(&to))?,
        None => sendmsg(fd, &parts, &[mark], MsgFlags::MSG_DONTWAIT, Some(&to))?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checks_from_another_address_than_the_kernels_choice_are_astray() {
        let to = "127.0.0.1:9".parse().unwrap();
        let check = [0, 1, 0, 0];
        let (right, wrong) = (Some("127.0.0.1".parse().unwrap()), Some("127.0.0.2".parse().unwrap()));
        assert!(!is_astray(to, right, &check) && !is_astray(to, None, &check));
        assert!(is_astray(to, wrong, &check));
        assert!(!is_astray(to, wrong, &[1, 1, 0, 0]), "an answer goes out from where the question came to");
        assert!(!is_astray(to, wrong, &[0xd1, 1]));
    }
}
