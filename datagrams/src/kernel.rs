//! What the kernel tells of a socket: how much it holds, and what it has dropped.
#![allow(unsafe_code, reason = "an ioctl and a socket option that write integers")]

use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

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

/// Numbers that `SO_MEMINFO` tells, and which of them is that of drops (linux/sock_diag.h).
const MEMINFO: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// Datagrams that the kernel dropped because the socket's buffer was full.
pub fn overflowed(socket: &impl AsFd) -> u64 {
    let mut told = [0u32; MEMINFO];
    let Ok(mut size) = libc::socklen_t::try_from(size_of_val(&told)) else { return 0 };
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes at most the size that it is told.
    let done = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, told.as_mut_ptr().cast(), &raw mut size)
    };
    if done == 0 { told[MEMINFO_DROPS].into() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_buffer_drops_is_counted() {
        let receiver = crate::open("127.0.0.1:0".parse().unwrap(), false, 4096).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        assert_eq!(overflowed(&receiver), 0);
        for _ in 0..100 {
            sender.send_to(&[0; 1000], to).unwrap();
        }
        let arrived = std::iter::from_fn(|| receiver.recv(&mut [0; 1000]).ok()).count();
        assert_eq!(overflowed(&receiver), 100 - arrived as u64);
        assert_eq!(held(&sender), 0);
    }
}
