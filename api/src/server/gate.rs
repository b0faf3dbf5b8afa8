//! The transport of one client on the private socket: a Unix socket behind a gate, so that no client takes more of the
//! agent than its share, whatever it sends and however little it reads.
//!
//! - A message from it has at most [`MAX_MESSAGE`] bytes; a longer one ends the connection before it is stored.
//! - At most [`MAX_UNANSWERED`] of its calls are being answered at a time. It is not read from beyond that, so the rest
//!   waits in its own socket, and in the end the client.
//! - Calls that want no answer can't be counted that way; they are taken one after the other, with a pause.
//!
//! What D-Bus messages mean is not decided here.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use zbus::Message;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::fdo::ConnectionCredentials;
use zbus::message::{Flags, Type};

use super::caller::Caller;

/// Largest message that is taken from a client. Secrets come as descriptors, so all of them are small.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;

/// Calls of one client that are answered at the same time.
pub(super) const MAX_UNANSWERED: usize = 64;

/// Behind each call that wants no answer.
const PAUSE: Duration = Duration::from_millis(10);

/// How often a client that has to wait is looked at, whether it is still there.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// The beginning of each message, which tells its length (D-Bus specification, "Message Format").
const HEADER: usize = 16;

/// Most descriptors that the kernel passes with one message (`SCM_MAX_FD`); with room for all, none gets lost.
const MAX_FDS: usize = 253;

/// A client's socket.
#[derive(Debug)]
pub(super) struct Gated {
    pub(super) stream: UnixStream,
    pub(super) caller: Caller,
}

#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    unanswered: AtomicUsize,
    answered: Notify,
}

impl Socket for Gated {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let Self { stream, caller } = self;
        let (unanswered, answered) = (AtomicUsize::new(0), Notify::new());
        let shared = Arc::new(Shared { stream, unanswered, answered });
        let replay = Replay { shared: Arc::clone(&shared), caller, bytes: Vec::new(), fds: Vec::new() };
        Split::new(Reader { replay, pause: false }, Writer(shared))
    }
}

/// Reads from the socket; what was read ahead comes first.
#[derive(Debug)]
struct Replay {
    shared: Arc<Shared>,
    caller: Caller,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

#[async_trait]
impl ReadHalf for Replay {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if self.bytes.is_empty() {
            return self.shared.receive(buffer).await;
        }
        let taken = buffer.len().min(self.bytes.len());
        buffer[..taken].copy_from_slice(&self.bytes[..taken]);
        self.bytes.drain(..taken);
        Ok((taken, std::mem::take(&mut self.fds)))
    }
}

/// What the bus library reads from.
#[derive(Debug)]
pub(super) struct Reader {
    replay: Replay,
    /// The call before wanted no answer.
    pause: bool,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn receive_message(
        &mut self,
        seq: u64,
        already_received_bytes: &mut Vec<u8>,
        already_received_fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        if std::mem::take(&mut self.pause) {
            tokio::time::sleep(PAUSE).await;
        }
        self.replay.shared.wait_for_turn().await?;
        self.check_length(already_received_bytes).await?;
        let message = self.replay.receive_message(seq, already_received_bytes, already_received_fds).await?;
        if message.message_type() == Type::MethodCall {
            if message.primary_header().flags().contains(Flags::NO_REPLY_EXPECTED) {
                self.pause = true;
            } else {
                self.replay.shared.unanswered.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(message)
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.replay.recvmsg(buffer).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        let Caller { uid, pid, .. } = self.replay.caller;
        Ok(ConnectionCredentials::default().set_unix_user_id(uid).set_process_id(pid))
    }
}

impl Reader {
    /// Reads ahead as far as the length of the next message, which begins with what the handshake has left over.
    async fn check_length(&mut self, left_over: &[u8]) -> io::Result<()> {
        let mut header = [0; HEADER];
        let known = left_over.len().min(HEADER);
        header[..known].copy_from_slice(&left_over[..known]);
        let mut filled = known;
        while filled < HEADER {
            let (read, fds) = self.replay.shared.receive(&mut header[filled..]).await?;
            self.replay.fds.extend(fds);
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
        }
        self.replay.bytes.extend_from_slice(&header[known..]);
        if length(&header) > MAX_MESSAGE as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a client sent a message that is too long",
            ));
        }
        Ok(())
    }
}

/// Length of the message of this header: fixed part, fields, padding, body.
fn length(header: &[u8; HEADER]) -> u64 {
    let number = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u64::from(if header[0] == b'l' { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let (body, fields) = (number(4), number(12));
    HEADER as u64 + fields.next_multiple_of(8) + body
}

/// What the bus library writes to.
#[derive(Debug)]
pub(super) struct Writer(Arc<Shared>);

#[async_trait]
impl WriteHalf for Writer {
    async fn send_message(&mut self, message: &Message) -> zbus::Result<()> {
        let sent = self.0.send_whole(message).await;
        if matches!(message.message_type(), Type::MethodReturn | Type::Error) {
            self.0.note_answer();
        }
        Ok(sent?)
    }

    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.send(buffer, fds).await
    }

    async fn close(&mut self) -> io::Result<()> {
        socket_shutdown(&self.0.stream)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

impl Shared {
    /// Waits while too many calls are unanswered; ends when the client is gone.
    async fn wait_for_turn(&self) -> io::Result<()> {
        while self.unanswered.load(Ordering::Relaxed) >= MAX_UNANSWERED {
            let answered = self.answered.notified();
            if tokio::time::timeout(LOOK_AFTER, answered).await.is_err() && self.is_gone() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn note_answer(&self) {
        let less = |count: usize| Some(count.saturating_sub(1));
        let _ = self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.answered.notify_one();
    }

    /// Whether nobody is at the other end any more, unread messages or not.
    fn is_gone(&self) -> bool {
        let mut watched = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let polled = poll(&mut watched, PollTimeout::ZERO);
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
        polled.is_ok() && watched[0].revents().is_some_and(|found| found.intersects(gone))
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let fd = self.stream.as_raw_fd();
        self.stream.async_io(Interest::READABLE, || receive_with_fds(fd, buffer)).await
    }

    /// Descriptors go with the first part.
    async fn send_whole(&self, message: &Message) -> io::Result<()> {
        let (mut rest, data) = (&message.data()[..], message.data());
        let mut fds: Vec<BorrowedFd<'_>> = data.fds().iter().map(AsFd::as_fd).collect();
        while !rest.is_empty() {
            let written = self.send(rest, &fds).await?;
            rest = &rest[written..];
            fds.clear();
        }
        Ok(())
    }

    async fn send(&self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let socket = self.stream.as_raw_fd();
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let write = || Ok(sendmsg::<()>(socket, &[IoSlice::new(buffer)], control, flags, None)?);
        self.stream.async_io(Interest::WRITABLE, write).await
    }
}

/// One read, with the descriptors that came along.
#[allow(unsafe_code, reason = "descriptors come from the kernel as bare numbers")]
fn receive_with_fds(socket: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let received = recvmsg::<()>(socket, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these descriptors for this process, nobody else knows of them, and
            // each is taken exactly once.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((received.bytes, fds))
}

fn socket_shutdown(stream: &UnixStream) -> io::Result<()> {
    Ok(nix::sys::socket::shutdown(stream.as_raw_fd(), nix::sys::socket::Shutdown::Both)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_message_is_in_its_header() {
        let mut header = [0; HEADER];
        header[0] = b'l';
        header[4..8].copy_from_slice(&100u32.to_le_bytes());
        header[12..16].copy_from_slice(&13u32.to_le_bytes());
        assert_eq!(length(&header), 16 + 16 + 100);
        header[0] = b'B';
        header[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        header[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(length(&header) > 1 << 33);
    }
}
