//! The socket file: one agent at a time, no leftovers in the way, and no client that takes all connections.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::caller::Caller;
use super::{Backend, connection};

/// Connections at a time, of all users and of one that is neither root nor the agent's own.
const MAX_CONNECTIONS: usize = 512;
const MAX_OF_ONE_USER: usize = 128;

/// At least so long between complaints about too many.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Why the socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another agent has it.
    #[error("another agent is running and serves {}; stop it first (systemctl stop ria), or give this one another run directory", .0.display())]
    AlreadyRunning(PathBuf),
    /// Something else is there.
    #[error("{} is in the way and is no socket; move it away", .0.display())]
    NotASocket(PathBuf),
    /// The system said no.
    #[error(
        "can't serve the local API on {}: {source}; run the agent as root, or give it a run directory that it may \
         write to (--run-dir)",
        .path.display()
    )]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The private socket of an agent. It serves while [`Server::run`] is polled and is removed when dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Held while the agent lives. The kernel lets go of it however the agent ends, so a socket file without a lock
    /// is a leftover.
    _lock: Flock<File>,
}

impl Server {
    /// Takes the socket: readable and writable for everybody, in a directory that only its owner may change.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let io = |source: io::Error| BindError::Io { path: path.to_owned(), source };
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(io)?;
            std::fs::set_permissions(directory, Permissions::from_mode(0o755)).map_err(io)?;
        }
        let lock = take_lock(path)?;
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(io)?,
            Ok(_) => return Err(BindError::NotASocket(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(io)?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves all clients, until dropped.
    pub async fn run(&self, backend: Arc<dyn Backend>) {
        let own = nix::unistd::Uid::effective().as_raw();
        let mut clients: JoinSet<u32> = JoinSet::new();
        let mut of_user: BTreeMap<u32, usize> = BTreeMap::new();
        let mut complained: Option<Instant> = None;
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Some((stream, caller)) = greet(accepted).await else { continue };
                    let count = of_user.entry(caller.uid).or_default();
                    let privileged = caller.uid == 0 || caller.uid == own;
                    if clients.len() >= MAX_CONNECTIONS || (!privileged && *count >= MAX_OF_ONE_USER) {
                        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                            warn!(uid = caller.uid, "too many connections to the local API; some are refused");
                            complained = Some(Instant::now());
                        }
                        continue;
                    }
                    *count += 1;
                    let backend = Arc::clone(&backend);
                    clients.spawn(async move {
                        let uid = caller.uid;
                        if let Err(error) = connection::serve(stream, caller, backend).await {
                            debug!(%error, "a client of the local API was dropped");
                        }
                        uid
                    });
                }
                Some(ended) = clients.join_next() => match ended {
                    Ok(uid) => release(&mut of_user, uid),
                    // Counts too much for one user then, which is the safe side.
                    Err(error) => warn!(%error, "serving a client of the local API failed"),
                },
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The lock file stays: removing it would let two agents hold locks on two files of one name.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn take_lock(path: &Path) -> Result<Flock<File>, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|source| BindError::Io { path: PathBuf::from(&name), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            BindError::AlreadyRunning(path.to_owned())
        } else {
            BindError::Io { path: PathBuf::from(&name), source: errno.into() }
        }
    })
}

async fn greet(
    accepted: io::Result<(UnixStream, tokio::net::unix::SocketAddr)>,
) -> Option<(UnixStream, Caller)> {
    let stream = match accepted {
        Ok((stream, _)) => stream,
        Err(error) => {
            // Out of descriptors, most likely: without a pause this would spin.
            warn!(%error, "can't accept a client of the local API");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            return None;
        }
    };
    match Caller::of(stream.as_fd()) {
        // The bus library relies on a process id, which the kernel does not give across PID namespaces.
        Ok(caller) if caller.pid == 0 => {
            warn!("refused a client of the local API that runs outside of the agent's PID namespace");
            None
        }
        Ok(caller) => Some((stream, caller)),
        Err(error) => {
            debug!(%error, "a client of the local API was gone before it was seen");
            None
        }
    }
}

fn release(of_user: &mut BTreeMap<u32, usize>, uid: u32) {
    if let Some(count) = of_user.get_mut(&uid) {
        *count -= 1;
        if *count == 0 {
            of_user.remove(&uid);
        }
    }
}
