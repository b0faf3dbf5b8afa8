//! Raw frames of an interface: many per system call, with what the kernel says about checksums and segments.
//! One of two modules of the crate with `unsafe`: packet sockets have no safe wrapper.
#![allow(unsafe_code, reason = "packet sockets, and many messages per call, have no safe wrapper")]

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Frames per system call at most.
const BATCH: usize = 32;

/// Room for the largest frame that there is: 64 KiB with what the kernel puts before it.
const SLOT: usize = 66_000;

/// Bytes that wait in the kernel, each way, at most.
const BUFFER: libc::c_int = 8 << 20;

/// What stands before a frame (`struct virtio_net_hdr`): whether a checksum has to be completed, how to cut it.
const OFFLOAD: usize = 10;

/// A frame, from the destination's address on.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// As the kernel gave it; all zero for a frame that is complete.
    pub offload: [u8; OFFLOAD],
    /// The frame itself.
    pub bytes: Vec<u8>,
}

/// A packet socket on one interface.
pub struct Port {
    socket: OwnedFd,
    slots: Vec<u8>,
}

impl Port {
    /// Opens the interface of this name in the calling thread's network namespace, where it stays.
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: a call without pointers. Protocol 0: nothing is received until it is bound to the one interface.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        for (level, option, value) in [
            (libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1),
            (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER),
        ] {
            set_option(&socket, level, option, value)?;
        }
        bind(&socket, index)?;
        Ok(Self { socket, slots: vec![0; BATCH * SLOT] })
    }

    /// Appends frames that have arrived, a batch of them at most; gives how many.
    pub fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let mut parts: [MaybeUninit<libc::iovec>; BATCH] = [MaybeUninit::uninit(); BATCH];
        // SAFETY: zero is a valid value of all fields of `mmsghdr`: null pointers and lengths of zero.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        for ((slot, part), message) in self.slots.chunks_exact_mut(SLOT).zip(&mut parts).zip(&mut messages) {
            let part = part.write(libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT });
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: there are BATCH messages, each with one part that points at SLOT bytes of its own in `self.slots`;
        // all of them outlive the call, and the kernel keeps no pointer.
        let got = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        for (message, slot) in messages.iter().zip(self.slots.chunks_exact(SLOT)).take(got) {
            let filled = slot.get(..message.msg_len as usize).and_then(<[u8]>::split_first_chunk);
            if let Some((offload, bytes)) = filled {
                frames.push(Frame { offload: *offload, bytes: bytes.to_vec() });
            }
        }
        Ok(got)
    }

    /// Sends frames and leaves none; gives how many the kernel refused.
    pub fn send(&mut self, frames: &mut Vec<Frame>) -> u64 {
        let mut refused = 0;
        let mut rest = frames.as_slice();
        while !rest.is_empty() {
            match self.send_batch(rest) {
                Ok(sent) => rest = rest.get(sent.max(1)..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // As a full queue on a real wire does, and no later frame is held up by it.
                Err(_) => {
                    refused += 1;
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
        }
        frames.clear();
        refused
    }

    fn send_batch(&self, frames: &[Frame]) -> io::Result<usize> {
        // SAFETY: zero is a valid value of all fields of `iovec` and `mmsghdr`: null pointers and lengths of zero.
        let mut parts: [[libc::iovec; 2]; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let count = frames.len().min(BATCH);
        for ((frame, part), message) in frames.iter().zip(&mut parts).zip(&mut messages) {
            for (part, bytes) in part.iter_mut().zip([&frame.offload[..], &frame.bytes]) {
                *part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            }
            message.msg_hdr.msg_iov = part.as_mut_ptr();
            message.msg_hdr.msg_iovlen = 2;
        }
        // SAFETY: the first `count` messages have two parts each, which point at bytes of `frames`. The kernel only reads
        // what is sent, and keeps no pointer after the call, which everything outlives.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), count as libc::c_uint, 0)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set_option(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to an int that lives through the call, and the size is that of an int.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(socket: &OwnedFd, index: libc::c_uint) -> io::Result<()> {
    // SAFETY: zero is a valid value of all fields of `sockaddr_ll`, which are numbers.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a `sockaddr_ll` that lives through the call, and the size is its own.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
