//! Starting anew: the process replaces itself by a fresh run of the same program.
//!
//! This is how the whole ROS context is made again, with any RMW: r2r keeps one context for the life of a process, some
//! RMWs (Zenoh) open their session with it, and after a panic inside rcl its state can't be trusted. The process id stays,
//! so neither a launch nor a service manager notices. What must survive goes along in [`Carried`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

use crate::environment::Variables;

/// Environment variable that holds [`Carried`].
const VARIABLE: &str = "RIA_NODE_CARRIED";

/// What one run hands to the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// Why it started anew; empty at the first start.
    pub reason: String,
    /// Runs in a row that ended in a failure.
    pub failures: u32,
    /// Runs in a row that were short.
    pub hasty: u32,
    /// Parameters that were changed while it ran.
    pub parameters: BTreeMap<String, f64>,
    /// Variables for DDS, set for the next run.
    pub environment: Variables,
    /// Whether the join key has done its work.
    pub joined: bool,
    /// State of the node's lifecycle; none at the first start.
    pub lifecycle: Option<u8>,
}

impl Carried {
    /// From the run before, if there was one.
    pub fn take() -> Self {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// For the run after a failed one.
    pub fn failed(self, reason: String) -> Self {
        Self { reason, failures: self.failures + 1, ..self }
    }
}

/// SIGINT and SIGTERM wait while they are blocked, also across the replacement: none is lost.
pub fn hold_signals() -> nix::Result<()> {
    stop_signals().thread_block()
}

/// Lets held signals come, once they are handled again.
pub fn release_signals() -> nix::Result<()> {
    stop_signals().thread_unblock()
}

fn stop_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

/// Replaces this process. Returns only when that fails.
pub fn replace(carried: &Carried) -> io::Result<Infallible> {
    // What DDS left open must not stay behind: its sockets would hold ports that the new participant wants.
    close_on_exec()?;
    let c_string = |s: OsString| CString::new(s.into_vec()).map_err(io::Error::other);
    let arguments: Vec<CString> = std::env::args_os().map(c_string).collect::<Result<_, _>>()?;
    let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    environment.extend(carried.environment.iter().map(|(name, value)| (name.into(), value.into())));
    environment.insert(VARIABLE.into(), serde_json::to_string(carried)?.into());
    let environment: Vec<CString> =
        environment.into_iter().map(|(k, v)| c_string(joined(&k, &v))).collect::<Result<_, _>>()?;
    let program = c_string(program()?.into_os_string())?;
    Ok(nix::unistd::execve(&program, &arguments, &environment)?)
}

/// The file that this process was started from; when it was replaced by an update, what still runs.
fn program() -> io::Result<PathBuf> {
    let named = std::env::current_exe()?;
    Ok(if named.exists() { named } else { Path::new("/proc/self/exe").to_owned() })
}

fn joined(key: &OsStr, value: &OsStr) -> OsString {
    OsString::from_vec([key.as_bytes(), value.as_bytes()].join(&b'='))
}

/// Marks everything but standard input, output and error to be closed when another program begins.
fn close_on_exec() -> io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        mark(fd);
    }
    Ok(())
}

#[allow(unsafe_code, reason = "descriptors are known by number only")]
fn mark(fd: RawFd) {
    // SAFETY: the borrow ends with this statement, and a descriptor number is all that the system call needs: when it
    // was closed meanwhile (the listing's own was), the call fails with EBADF and touches nothing.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_survives_the_environment() {
        let carried = Carried {
            reason: "ria0 appeared".into(),
            failures: 2,
            hasty: 1,
            parameters: [("publish_period".to_owned(), 0.5)].into(),
            environment: [("CYCLONEDDS_URI".to_owned(), "file:///x".to_owned())].into(),
            joined: true,
            lifecycle: Some(2),
        };
        let text = serde_json::to_string(&carried).unwrap();
        assert_eq!(serde_json::from_str::<Carried>(&text).unwrap(), carried);
    }

    #[test]
    fn a_variable_keeps_bytes_that_are_no_text() {
        let value = OsStr::from_bytes(b"\xff=x");
        assert_eq!(joined(OsStr::new("K"), value).as_bytes(), b"K=\xff=x");
    }
}
