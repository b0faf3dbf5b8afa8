//! Programs in a host: a builder like `std::process::Command` and a handle like `std::process::Child`.

use std::ffi::{CString, OsStr};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Error;
use crate::sys::{Namespaces, Start};

/// A program to run in a host. Inherits environment and, where it is visible inside, the working directory.
#[derive(Debug)]
pub struct Command {
    host: String,
    namespaces: Arc<Namespaces>,
    inner: std::process::Command,
    start: Start,
}

impl Command {
    pub(crate) fn new(host: &str, namespaces: Arc<Namespaces>, program: &OsStr) -> Self {
        let inner = std::process::Command::new(program);
        Self { host: host.to_owned(), namespaces, inner, start: Start::default() }
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = S>) -> &mut Self {
        self.inner.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env(name, value);
        self
    }

    /// Removes a variable of the environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env_remove(name);
        self
    }

    /// Begins with an empty environment.
    pub fn env_clear(&mut self) -> &mut Self {
        self.inner.env_clear();
        self
    }

    /// Working directory, as the host sees it.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> io::Result<&mut Self> {
        self.start.directory = Some(CString::new(directory.as_ref().as_os_str().as_bytes())?);
        Ok(self)
    }

    /// Runs as this user and group, without supplementary groups and capabilities.
    pub fn user(&mut self, uid: u32, gid: u32) -> &mut Self {
        self.start.user = Some((uid, gid));
        self
    }

    /// Standard input.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.inner.stdin(stdio);
        self
    }

    /// Standard output.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.inner.stdout(stdio);
        self
    }

    /// Standard error.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.inner.stderr(stdio);
        self
    }

    /// Appends both outputs to a file (outside the host) and gives an empty input.
    pub fn log(&mut self, file: &Path) -> io::Result<&mut Self> {
        let log = OpenOptions::new().create(true).append(true).open(file)?;
        self.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(self)
    }

    /// Starts it.
    pub fn spawn(&mut self) -> io::Result<Process> {
        self.namespaces.prepare(&mut self.inner, self.start.clone());
        self.namespaces.spawn(&mut self.inner).map(|child| Process { child: Some(child) })
    }

    /// Runs it to its end and captures what it writes.
    pub fn output(&mut self) -> io::Result<Output> {
        self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawn()?.wait_with_output()
    }

    /// Runs it to its end.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Runs it to its end, which has to be a good one; gives what it wrote to standard output.
    pub fn run(&mut self) -> Result<String, Error> {
        let line = self.line();
        let output = self.output().map_err(Error::io(format!("{}: '{line}'", self.host)))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Program { host: self.host.clone(), command: line, status: output.status, stderr })
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.inner.get_program()).chain(self.inner.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

/// A running program. Dropping the handle kills the program, unless it was [`detached`](Self::detach).
#[derive(Debug)]
pub struct Process {
    /// Taken only by the methods that consume the handle.
    child: Option<Child>,
}

impl Process {
    /// Its process id, seen from outside.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Its input, when piped.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.as_mut()?.stdin.take()
    }

    /// Its output, when piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.as_mut()?.stdout.take()
    }

    /// Its error output, when piped.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.as_mut()?.stderr.take()
    }

    /// Sends a signal; one that has ended already is an error.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // While it has not been waited for, the id can't belong to another process.
        if self.try_wait()?.is_some() {
            return Err(io::Error::other("the process has ended"));
        }
        let pid = i32::try_from(self.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Kills it and waits.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        let child = self.child_mut()?;
        child.kill()?;
        child.wait()
    }

    /// Asks it to end (SIGTERM) and waits; kills it after `patience`.
    pub fn terminate(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        match self.wait_timeout(patience)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child_mut()?.wait()
    }

    /// How it ended, if it did.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child_mut()?.try_wait()
    }

    /// Waits for its end, for so long at most.
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let give_up = Instant::now() + timeout;
        loop {
            let ended = self.try_wait()?;
            if ended.is_some() || Instant::now() >= give_up {
                return Ok(ended);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end and captures what it writes into pipes.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        self.child.take().ok_or_else(gone)?.wait_with_output()
    }

    /// Leaves it running until it ends by itself or with the lab.
    pub fn detach(mut self) {
        if let Some(mut child) = self.child.take() {
            thread::spawn(move || child.wait());
        }
    }

    fn child_mut(&mut self) -> io::Result<&mut Child> {
        self.child.as_mut().ok_or_else(gone)
    }
}

fn gone() -> io::Error {
    io::Error::other("the process was handed over")
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
