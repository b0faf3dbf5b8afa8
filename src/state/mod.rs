//! The agent's memory on disk: `/var/lib/ria`, for root alone.
//!
//! ```text
//! lock                       held by the running agent
//! pending/<key id>           keys made for a join key, until the network that it leads to is stored
//! networks/<id>/identity     who this machine is there, and whether the network shall be up
//!               keys         private keys
//!               certificate  certificate and authorities
//!               map          last map
//!               live         where members were last
//!               contact      the coordinator's address and time, relays with credentials
//! ```
//!
//! The first three of a network are indispensable; the others can be had again from the coordinator, so a damaged one
//! is set aside and no more. A network appears and disappears as a whole, by the rename of its directory.

pub mod file;
pub mod map;
pub mod membership;
pub mod saver;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use minicbor::Decode;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use ria_protocol::id::{KeyId, NetworkId};

use file::LoadError;
use membership::{KeyError, Membership, NodeKeys};

/// The state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent has it.
    #[error(
        "another agent is running with the state directory {0}; stop it first (systemctl stop ria), or use --state-dir"
    )]
    InUse(PathBuf),
    /// Not allowed, or not a directory.
    #[error("the state directory {path} can't be used: {source}; run the agent as root, or use --state-dir")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// State can't be stored.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The disk.
    #[error("the state can't be saved in {path}: {source}; free space or make it writable, then try again")]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keys.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// One part of a network's state, a file of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Who this machine is.
    Identity,
    /// Private keys.
    Keys,
    /// Certificate and authorities.
    Certificate,
    /// The map.
    Map,
    /// Where members were last.
    Live,
    /// The last contact with the coordinator.
    Contact,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Keys => "keys",
            Self::Certificate => "certificate",
            Self::Map => "map",
            Self::Live => "live",
            Self::Contact => "contact",
        }
    }
}

/// The state directory, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    /// Held until the process ends; absent where nothing can be written, so nothing can collide.
    _lock: Option<Flock<File>>,
    unwritable: Option<String>,
}

/// What was found in the state directory.
#[derive(Debug, Default)]
pub struct Found {
    /// Networks that can be used.
    pub memberships: Vec<Membership>,
    /// What was damaged, each as a sentence that says what to do.
    pub damage: Vec<String>,
}

impl StateDir {
    /// Makes the directory where needed and locks it. A disk that is full or read-only is no error here: the agent
    /// works on in memory and says so.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Unusable { path: root.to_owned(), source };
        let mut unwritable = None;
        for dir in [root.to_owned(), root.join("networks"), root.join("pending")] {
            match make_dir(&dir) {
                Ok(()) => {}
                Err(error) if is_storage_trouble(&error) => unwritable = Some(error.to_string()),
                Err(error) => return Err(unusable(error)),
            }
        }
        let lock = match lock_file(&root.join("lock")) {
            Ok(file) => Some(match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, Errno::EWOULDBLOCK)) => return Err(OpenError::InUse(root.to_owned())),
                Err((_, errno)) => return Err(unusable(errno.into())),
            }),
            Err(error) if is_storage_trouble(&error) || unwritable.is_some() => {
                unwritable.get_or_insert(error.to_string());
                None
            }
            Err(error) => return Err(unusable(error)),
        };
        let state = Self { root: root.to_owned(), _lock: lock, unwritable };
        state.sweep();
        Ok(state)
    }

    /// Why nothing could be written when the directory was opened.
    pub fn unwritable(&self) -> Option<&str> {
        self.unwritable.as_deref()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// All stored networks.
    pub fn load(&self) -> Found {
        let mut found = Found::default();
        let entries = fs::read_dir(self.root.join("networks")).into_iter().flatten().flatten();
        let mut ids: Vec<NetworkId> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        for id in ids {
            match self.load_network(id, &mut found.damage) {
                Ok(membership) => found.memberships.push(membership),
                Err(error) => found.damage.push(format!(
                    "network {id} can't be used: {error}; put the file back from a backup, or join again with a key"
                )),
            }
        }
        found
    }

    /// The keys for a join key: those of an attempt that was cut off, else new ones, stored before they are used so
    /// that enrolling again leads to the same identity.
    pub fn pending_keys(&self, key: KeyId) -> Result<NodeKeys, SaveError> {
        let path = self.root.join("pending").join(key.to_string());
        match file::load::<NodeKeys>(&path) {
            Ok(Some(keys)) => return Ok(keys),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "keys of an unfinished join are unusable; new ones are made");
                let _ = file::set_aside(&path);
            }
        }
        let keys = NodeKeys::generate()?;
        file::write(&path, &file::encode(&keys)).map_err(|source| SaveError::Disk { path, source })?;
        Ok(keys)
    }

    /// Forgets the keys of an attempt to join.
    pub fn forget_pending(&self, key: KeyId) {
        let _ = fs::remove_file(self.root.join("pending").join(key.to_string()));
    }

    /// Stores a new network, whole, in place of one with the same id.
    pub fn admit(&self, membership: &Membership) -> Result<(), SaveError> {
        let id = membership.identity.network;
        let networks = self.root.join("networks");
        let stage = networks.join(format!(".new-{id}"));
        let store = || -> io::Result<()> {
            let _ = fs::remove_dir_all(&stage);
            make_dir(&stage)?;
            file::write(&stage.join(Part::Keys.name()), &file::encode(&membership.keys))?;
            file::write(&stage.join(Part::Certificate.name()), &file::encode(&membership.certificate))?;
            file::write(&stage.join(Part::Contact.name()), &file::encode(&membership.contact))?;
            file::write(&stage.join(Part::Identity.name()), &file::encode(&membership.identity))?;
            self.erase(id)?;
            fs::rename(&stage, networks.join(id.to_string()))?;
            file::sync_dir(&networks)
        };
        store().map_err(|source| SaveError::Disk { path: networks.clone(), source })
    }

    /// Replaces one part of a stored network.
    pub fn put(&self, network: NetworkId, part: Part, bytes: &[u8]) -> io::Result<()> {
        file::write(&self.part(network, part), bytes)
    }

    /// Erases a network.
    pub fn erase(&self, network: NetworkId) -> io::Result<()> {
        let networks = self.root.join("networks");
        let gone = networks.join(format!(".gone-{network}"));
        let _ = fs::remove_dir_all(&gone);
        match fs::rename(networks.join(network.to_string()), &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        file::sync_dir(&networks)?;
        fs::remove_dir_all(&gone)
    }

    fn part(&self, network: NetworkId, part: Part) -> PathBuf {
        self.root.join("networks").join(network.to_string()).join(part.name())
    }

    fn load_network(&self, id: NetworkId, damage: &mut Vec<String>) -> Result<Membership, LoadError> {
        Ok(Membership {
            identity: self.needed(id, Part::Identity)?,
            keys: self.needed(id, Part::Keys)?,
            certificate: self.needed(id, Part::Certificate)?,
            map: self.spare(id, Part::Map, damage),
            live: self.spare(id, Part::Live, damage).unwrap_or_default(),
            contact: self.spare(id, Part::Contact, damage).unwrap_or_default(),
        })
    }

    /// A part without which the network can't be used.
    fn needed<T: for<'b> Decode<'b, ()>>(&self, id: NetworkId, part: Part) -> Result<T, LoadError> {
        let path = self.part(id, part);
        match file::load(&path) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(LoadError::Damaged { path, reason: "it is missing".into() }),
            Err(error) => {
                if matches!(error, LoadError::Damaged { .. }) {
                    let _ = file::set_aside(&path);
                }
                Err(error)
            }
        }
    }

    /// A part that the coordinator can give again.
    fn spare<T: for<'b> Decode<'b, ()>>(
        &self,
        id: NetworkId,
        part: Part,
        damage: &mut Vec<String>,
    ) -> Option<T> {
        let path = self.part(id, part);
        file::load(&path).unwrap_or_else(|error| {
            let kept = file::set_aside(&path).map_or_else(
                |e| format!("and can't be set aside: {e}"),
                |aside| format!("and was kept as {}", aside.display()),
            );
            damage.push(format!("{error} {kept}; what was in it comes again from the coordinator"));
            None
        })
    }

    /// Removes what a crash left half made or half erased.
    fn sweep(&self) {
        for entry in fs::read_dir(self.root.join("networks")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(path)
        }
        Err(_) if path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Errno::ENOTDIR.into()),
        other => other,
    }
}

/// Opened for reading, which a lock is content with: an open file that could be written would keep the disk from being
/// made read-only.
fn lock_file(path: &Path) -> io::Result<File> {
    if !path.exists() {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    }
    File::open(path)
}

fn is_storage_trouble(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests;
