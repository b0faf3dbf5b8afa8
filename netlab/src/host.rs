//! A host: a handle with which programs are run in it, files are read and sockets are opened.

use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sched::CloneFlags;

use crate::command::{Command, Process};
use crate::error::Error;
use crate::network::Addresses;
use crate::sys::Namespaces;

/// A handle on a host; clones mean the same host. The host lives as long as its [`crate::Lab`].
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespaces: Arc<Namespaces>,
    place: Arc<Mutex<(String, Addresses)>>,
}

impl Host {
    pub(crate) fn new(name: &str, namespaces: Arc<Namespaces>, network: &str, addresses: Addresses) -> Self {
        let place = Arc::new(Mutex::new((network.to_owned(), addresses)));
        Self { name: name.to_owned(), namespaces, place }
    }

    /// Its name, which is its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its present IPv4 address; 0.0.0.0 on a network that has none.
    pub fn address(&self) -> Ipv4Addr {
        self.addresses().v4.unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Its present IPv6 address, beside the link-local one, on a network that has some.
    pub fn address6(&self) -> Option<Ipv6Addr> {
        self.addresses().v6
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// The network it is on now.
    pub fn network(&self) -> String {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(crate) fn moved(&self, network: &str, addresses: Addresses) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = (network.to_owned(), addresses);
    }

    /// Process id, seen from outside, of PID 1 of the host.
    pub fn init(&self) -> u32 {
        self.namespaces.init()
    }

    /// A program to run in the host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command::new(&self.name, Arc::clone(&self.namespaces), program.as_ref())
    }

    /// Runs a command line to its end and captures what it writes.
    pub fn output<S: AsRef<OsStr>>(&self, line: &[S]) -> io::Result<Output> {
        self.line(line)?.output()
    }

    /// Runs a command line that has to succeed; gives what it wrote to standard output.
    pub fn run<S: AsRef<OsStr>>(&self, line: &[S]) -> Result<String, Error> {
        self.line(line).map_err(Error::io("an empty command line"))?.run()
    }

    /// Starts a command line in the background; both outputs are appended to the file `log` (outside the host).
    pub fn spawn<S: AsRef<OsStr>>(&self, line: &[S], log: &Path) -> io::Result<Process> {
        let mut command = self.line(line)?;
        command.log(log)?;
        command.spawn()
    }

    /// Runs `work` on a thread in the host's network namespace: sockets made in it belong to the host for ever.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.namespaces.enter(CloneFlags::CLONE_NEWNET, work)
    }

    /// Where a file of the host is seen from outside, while the host lives.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        Path::new("/proc")
            .join(self.init().to_string())
            .join("root")
            .join(inside.strip_prefix("/").unwrap_or(inside))
    }

    fn line<S: AsRef<OsStr>>(&self, line: &[S]) -> io::Result<Command> {
        let (program, arguments) = line
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "empty command line"))?;
        let mut command = self.command(program);
        command.args(arguments);
        Ok(command)
    }
}
