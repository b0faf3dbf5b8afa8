//! Opening sockets, with buffers for bursts.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Type};

/// Opens a socket that does not block. `both` lets one of IPv6 take IPv4 besides; `buffers` bytes are asked for in either
/// direction, see [`Granted`].
pub fn open(address: SocketAddr, both: bool, buffers: usize) -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!both)?;
    }
    // The forcing form needs CAP_NET_ADMIN and ignores the system's limit; without it, as much as the limit allows.
    if setsockopt(&socket, sockopt::RcvBufForce, &buffers).is_err() {
        let _ = socket.set_recv_buffer_size(buffers);
    }
    if setsockopt(&socket, sockopt::SndBufForce, &buffers).is_err() {
        let _ = socket.set_send_buffer_size(buffers);
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

/// The buffers that a socket really has, in bytes as they were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Granted {
    /// For what arrives.
    pub receive: usize,
    /// For what is sent.
    pub send: usize,
}

impl Granted {
    /// What a socket has.
    pub fn of(socket: &impl AsFd) -> Self {
        // The kernel doubles what it is asked for, for its own bookkeeping, and tells the double (socket(7)).
        let receive = getsockopt(socket, sockopt::RcvBuf).unwrap_or(0) / 2;
        let send = getsockopt(socket, sockopt::SndBuf).unwrap_or(0) / 2;
        Self { receive, send }
    }

    /// Whether it is as much as was asked for, both ways.
    pub const fn covers(self, asked: usize) -> bool {
        self.receive >= asked && self.send >= asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_what_is_told() {
        let socket = open("127.0.0.1:0".parse().unwrap(), false, 16_384).unwrap();
        let granted = Granted::of(&socket);
        assert_eq!(granted, Granted { receive: 16_384, send: 16_384 });
        assert!(granted.covers(16_384) && !granted.covers(16_385));
    }
}
