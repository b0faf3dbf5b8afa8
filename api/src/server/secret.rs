//! Reading a join key from a descriptor that a caller handed over: bounded in size and in time, whatever the
//! descriptor is.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ria_protocol::join_key::JoinKey;
use zeroize::Zeroizing;

use crate::error::ApiError;

/// Longest text that is read.
const MAX: usize = 4096;

/// How long the writer of a pipe may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads and checks a join key. Blocks.
pub(super) fn read_join_key(fd: OwnedFd) -> Result<JoinKey, ApiError> {
    let bytes = read_all(fd, PATIENCE).map_err(|error| {
        if error.kind() == io::ErrorKind::TimedOut {
            ApiError::TimedOut("nobody wrote a join key to the descriptor within 10 s".into())
        } else if error.kind() == io::ErrorKind::FileTooLarge {
            ApiError::InvalidJoinKey(
                "this is no Ria join key: a key is one line of at most 4096 characters that begins with ria1_"
                    .into(),
            )
        } else {
            ApiError::InvalidArgument(format!("can't read the join key: {error}"))
        }
    })?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| ApiError::InvalidJoinKey("this is no Ria join key: it is not even text".into()))?;
    JoinKey::parse(text).map_err(|error| ApiError::InvalidJoinKey(error.to_string()))
}

fn read_all(fd: OwnedFd, patience: Duration) -> io::Result<Zeroizing<Vec<u8>>> {
    let deadline = Instant::now() + patience;
    let mut file = std::fs::File::from(fd);
    // One byte more than allowed, so that too much is noticed; never reallocated, so that nothing stays behind.
    let mut bytes = Zeroizing::new(vec![0; MAX + 1]);
    let mut filled = 0;
    while filled < bytes.len() {
        wait_readable(&file, deadline)?;
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
    if filled > MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn wait_readable(file: &std::fs::File, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
        std::io::pipe().unwrap()
    }

    #[test]
    fn a_silent_pipe_does_not_hold_the_agent() {
        let (reader, _writer) = pipe();
        let error = read_all(reader.into(), Duration::from_millis(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn an_endless_file_is_no_key() {
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert!(matches!(read_join_key(zero.into()), Err(ApiError::InvalidJoinKey(_))));
    }

    #[test]
    fn a_directory_is_no_key() {
        let directory = std::fs::File::open("/").unwrap();
        assert!(matches!(read_join_key(directory.into()), Err(ApiError::InvalidArgument(_))));
    }

    #[test]
    fn a_key_in_two_pieces_is_put_together() {
        let (reader, mut writer) = pipe();
        let reading = std::thread::spawn(move || read_all(reader.into(), PATIENCE));
        writer.write_all(b"ria1_").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        writer.write_all(b"abc\n").unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap().unwrap().as_slice(), b"ria1_abc\n");
    }
}
