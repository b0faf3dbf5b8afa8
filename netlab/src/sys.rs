//! Namespaces and processes: making a set of namespaces that dies with its owner, and entering one.
//! The only module of the crate with `unsafe`: two `pre_exec` hooks, two pidfd calls, one `signal`.
//!
//! ```text
//! owner ──pipe──> init (cat, PID 1 of its own PID namespace)
//!                   └ owns net, mount, UTS, IPC namespaces: veth, nft, tmpfs, overlays
//! ```
//! When the owner ends, even by SIGKILL, the kernel closes the pipe, `cat` reads end-of-file and ends, the kernel
//! kills everything else in its PID namespace and then frees interfaces and mounts. Nothing has a name outside.
#![allow(unsafe_code, reason = "hooks between fork and exec, and pidfd calls, have no safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{Gid, Uid, chdir, setgid, setgroups, setuid};

/// What a program sees of a host, apart from its PID namespace.
const WORLD: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);

/// A handle on the namespaces of one init process.
#[derive(Debug)]
pub struct Namespaces {
    init: u32,
    pidfd: OwnedFd,
}

/// The init process of one set of namespaces. Dropping it kills everything inside.
#[derive(Debug)]
pub struct Init {
    child: Child,
    namespaces: Arc<Namespaces>,
    /// The pipe whose end-of-file ends the init process.
    _alive: Option<ChildStdin>,
}

impl Init {
    /// Starts a new PID, mount, network, UTS and IPC namespace. `label` shows up in the init's environment.
    pub fn start(label: &str) -> io::Result<Self> {
        let mut command = Command::new("/bin/cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir("/").env_clear().env("NETLAB_NODE", label).process_group(0);
        // SAFETY: the hook runs between fork and exec, where only async-signal-safe calls are allowed. It makes plain
        // system calls on constant strings, allocates nothing and takes no lock.
        unsafe { command.pre_exec(become_init) };
        let mut child = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWPID)?;
            command.spawn()
        })?;
        let alive = child.stdin.take();
        let namespaces = Arc::new(Namespaces::of(child.id())?);
        Ok(Self { child, namespaces, _alive: alive })
    }

    /// The namespaces, for entering them.
    pub fn namespaces(&self) -> &Arc<Namespaces> {
        &self.namespaces
    }

    /// Kills everything inside, without waiting.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Init {
    /// Waits a little, not for ever: the kernel ends an init only after all processes that were started from outside
    /// have been waited for, and their handles may be held by the caller.
    fn drop(&mut self) {
        self.kill();
        let give_up = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Runs in the forked child that becomes PID 1.
fn become_init() -> io::Result<()> {
    unshare(WORLD)?;
    let none = None::<&Path>;
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, none)?;
    // Shows the interfaces of the new network namespace.
    mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), flags, none)?;
    // SAFETY: no handler is installed; an ignored SIGCHLD survives exec and makes the kernel reap orphans for us.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn)? };
    Ok(())
}

/// How a program starts once it is inside.
#[derive(Debug, Default, Clone)]
pub struct Start {
    /// Working directory, as seen inside; the caller's one (or `/` where that is hidden) when absent.
    pub directory: Option<CString>,
    /// Numeric user and group; root when absent.
    pub user: Option<(u32, u32)>,
}

impl Namespaces {
    /// The namespaces of a running init process.
    pub fn of(init: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(init).map_err(io::Error::other)?;
        // SAFETY: pidfd_open takes a pid and flags and returns a new descriptor (always close-on-exec) or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: `fd` was just returned by the kernel and nobody else owns it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { init, pidfd })
    }

    /// The init's process id, as the owner sees it.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// Runs `work` on a thread that is inside the given namespaces.
    pub fn enter<T: Send>(
        &self,
        which: CloneFlags,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        on_thread(|| {
            if which.contains(CloneFlags::CLONE_NEWNS) {
                // The kernel moves only a task whose root and working directory are its own.
                unshare(CloneFlags::CLONE_FS)?;
            }
            setns(self.pidfd.as_fd(), which)?;
            work()
        })
    }

    /// Runs `work` on a thread whose new child processes belong to the PID namespace.
    pub fn with_pids<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.enter(CloneFlags::CLONE_NEWPID, work)
    }

    /// Makes `command` enter everything but the PID namespace when it starts.
    pub fn prepare(self: &Arc<Self>, command: &mut Command, start: Start) {
        let inside = Arc::clone(self);
        let outer =
            std::env::current_dir().ok().and_then(|path| CString::new(path.into_os_string().into_vec()).ok());
        let enter = move || {
            setns(inside.pidfd.as_fd(), WORLD)?;
            // Signals that the caller waits for are blocked in its threads, and a child would inherit that.
            SigSet::empty().thread_set_mask()?;
            match (&start.directory, &outer) {
                (Some(directory), _) => chdir(directory.as_c_str())?,
                (None, Some(outer)) if chdir(outer.as_c_str()).is_ok() => {}
                (None, _) => chdir(c"/")?,
            }
            if let Some((uid, gid)) = start.user {
                setgroups(&[])?;
                setgid(Gid::from_raw(gid))?;
                setuid(Uid::from_raw(uid))?;
            }
            Ok(())
        };
        // SAFETY: the hook runs between fork and exec. It makes system calls on strings and a descriptor prepared
        // before the fork (the Arc keeps them alive), allocates nothing and takes no lock of this program.
        unsafe { command.pre_exec(enter) };
    }

    /// Starts a prepared command inside; the child is the caller's own, to wait for and to signal.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.with_pids(|| command.spawn())
    }
}

/// Kills the process that the handle was made of, and never another that got its number later.
pub fn send_kill(process: &Namespaces) {
    let fd = process.pidfd.as_raw_fd();
    // SAFETY: pidfd_send_signal takes a descriptor (alive by the borrow), a signal, no info and no flags.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, std::ptr::null::<libc::siginfo_t>(), 0)
    };
}

/// Runs `work` on a thread of its own, because namespaces are entered per thread and there is no way back.
fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
}
