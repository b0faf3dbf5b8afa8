//! The agent's memory on disk: `/var/lib/ria`, for root alone.
//!
//! ```text
//! lock                       held by the running agent
//! machine, set-aside-<time>/ whose state this is, and what was another machine's (`machine`)
//! pending/<key id>           keys made for a join key, until the network that it leads to is stored
//! waiting/, leaving/, left   requests that wait for approval, farewells not heard yet, keys not wanted (`enrolment`)
//! networks/<id>/identity     who this machine is there, and whether the network shall be up
//!               keys         private keys
//!               certificate  certificate and authorities
//!               map          last map
//!               live         where members were last
//!               contact      the coordinator's address and time, relays with credentials
//!               kept         what the coordinator has given to be handed back after a restore
//!               untold       changes made on this machine that the coordinator does not know of yet
//! unusable/<id>.<n>          what was left of a damaged network when this machine joined it anew
//! ```
//!
//! The first three of a network are indispensable, so each is kept twice (`keys` and `keys.copy`): one that is damaged
//! is set aside and mended from the other. The rest can be had again from the coordinator; a damaged one is set aside
//! and no more. A network appears and disappears as a whole, by the rename of its directory. Nothing that may hold keys
//! is removed but by leaving the network.

mod disk;
pub mod enrolment;
pub mod file;
pub mod kept;
pub mod machine;
pub mod map;
pub mod membership;
pub mod saver;
pub mod untold;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use minicbor::{Decode, Encode};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use ria_protocol::id::{KeyId, NetworkId};

use file::LoadError;
use machine::MachineId;
use membership::{KeyError, Membership, NodeKeys};

/// How long the lock of an agent that was just killed may outlive it.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

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
    /// What is kept for the coordinator.
    Kept,
    /// What it has not been told of.
    Untold,
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
            Self::Kept => "kept",
            Self::Untold => "untold",
        }
    }

    /// Whether nobody can give it again.
    const fn is_indispensable(self) -> bool {
        matches!(self, Self::Identity | Self::Keys | Self::Certificate)
    }
}

/// The state directory, locked for this process.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    /// Held until the process ends; taken later where nothing can be written at first, so nothing can collide.
    lock: OnceLock<Flock<File>>,
    unwritable: Option<String>,
    /// Where state of another machine was put.
    aside: Option<PathBuf>,
    /// Whether state of another machine is still in its place, because the disk can't be written.
    foreign: bool,
}

/// What was found in the state directory.
#[derive(Debug, Default)]
pub struct Found {
    /// Networks that can be used.
    pub memberships: Vec<Membership>,
    /// What is missing.
    pub damage: Vec<Damage>,
}

/// Something that was stored can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Of which network.
    pub network: NetworkId,
    /// Which part, when the network can do without; `None` when it can't.
    pub part: Option<Part>,
    /// For people, with what to do.
    pub text: String,
}

impl StateDir {
    /// Makes the directory where needed and locks it. A disk that is full, read-only or broken is no error here: the
    /// agent works on in memory and says so.
    pub fn open_on(root: &Path, machine: Option<&MachineId>) -> Result<Self, OpenError> {
        let mut state = Self {
            root: root.to_owned(),
            lock: OnceLock::new(),
            unwritable: None,
            aside: None,
            foreign: false,
        };
        match state.prepare() {
            Ok(()) => {}
            Err(PrepareError::InUse) => return Err(OpenError::InUse(root.to_owned())),
            Err(PrepareError::Io(error)) if is_storage_trouble(&error) => {
                state.unwritable = Some(error.to_string());
            }
            Err(PrepareError::Io(source)) => {
                return Err(OpenError::Unusable { path: root.to_owned(), source });
            }
        }
        match machine.map_or(Ok(None), |machine| state.settle(machine)) {
            Ok(aside) => state.aside = aside,
            Err(error) => {
                state.unwritable.get_or_insert(error.to_string());
                state.foreign = true;
            }
        }
        if !state.foreign {
            state.sweep();
        }
        Ok(state)
    }

    /// The same where it does not matter on which machine.
    #[cfg(test)]
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        Self::open_on(root, None)
    }

    /// Where the state of another machine was put that had been found here.
    pub fn set_aside(&self) -> Option<&Path> {
        self.aside.as_deref()
    }

    /// Whether the state here is another machine's and can't be put aside. It is not used, nor is any other stored.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Makes what is missing of the directory, and locks it unless that is done.
    fn prepare(&self) -> Result<(), PrepareError> {
        let made = ["networks", "pending"].iter().try_for_each(|name| disk::make_dir(&self.root.join(name)));
        if self.lock.get().is_none() {
            // First the lock, as far as it can be had, then the complaint: two agents must not share what is there.
            match lock(&self.root.join("lock")) {
                Ok(lock) => _ = self.lock.set(lock),
                Err(PrepareError::Io(error)) => return Err(PrepareError::Io(made.err().unwrap_or(error))),
                Err(PrepareError::InUse) => return Err(PrepareError::InUse),
            }
        }
        Ok(made?)
    }

    /// Before anything is written: on a disk that was full or read-only at the start, the directory is not ready yet.
    fn make_ready(&self) -> io::Result<()> {
        if self.foreign {
            return Err(io::Error::other("another machine's state is there and could not be set aside"));
        }
        if self.unwritable.is_none() {
            return Ok(());
        }
        self.prepare().map_err(|error| match error {
            PrepareError::Io(error) => error,
            PrepareError::InUse => io::Error::other("another agent uses it"),
        })
    }

    /// Why nothing could be written when the directory was opened.
    pub fn unwritable(&self) -> Option<&str> {
        self.unwritable.as_deref()
    }

    /// Whether something can be written now.
    pub fn try_writing(&self) -> io::Result<()> {
        self.make_ready()?;
        let path = self.root.join("probe");
        file::write(&path, b"can this be written?")?;
        disk::remove_file(&path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// All stored networks.
    pub fn load(&self) -> Found {
        let mut found = Found::default();
        if self.foreign {
            return found;
        }
        let entries = fs::read_dir(self.root.join("networks")).into_iter().flatten().flatten();
        let mut ids: Vec<NetworkId> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        for id in ids {
            match self.load_network(id) {
                Ok((membership, damage)) => {
                    found.memberships.push(membership);
                    found.damage.extend(damage);
                }
                Err(error) => {
                    let text = format!(
                        "network {id} can't be used: {error}; put the file back from a backup, which is noticed at \
                         once, or join again with a key"
                    );
                    found.damage.push(Damage { network: id, part: None, text });
                }
            }
        }
        found
    }

    /// The keys for a join key: those of an attempt that was cut off, else new ones, stored before they are used so
    /// that enrolling again leads to the same identity.
    pub fn pending_keys(&self, key: KeyId) -> Result<NodeKeys, SaveError> {
        let path = self.root.join("pending").join(key.to_string());
        self.make_ready().map_err(|source| SaveError::Disk { path: self.root.clone(), source })?;
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
        let _ = disk::remove_file(&self.root.join("pending").join(key.to_string()));
    }

    /// Stores a new network, whole, in place of one with the same id.
    ///
    /// The one before is out of the way, not gone, until the new one has its place; [`Self::sweep`] puts it back after a
    /// crash in between.
    pub fn admit(&self, membership: &Membership) -> Result<(), SaveError> {
        let id = membership.identity.network;
        let networks = self.root.join("networks");
        let (place, stage, before) = (self.network(id), self.aside("new", id), self.aside("old", id));
        let store = || -> io::Result<()> {
            self.make_ready()?;
            disk::remove_dir(&stage)?;
            disk::make_dir(&stage)?;
            put(&stage, Part::Keys, &file::encode(&membership.keys))?;
            put(&stage, Part::Certificate, &file::encode(&membership.certificate))?;
            put(&stage, Part::Contact, &file::encode(&membership.contact))?;
            put(&stage, Part::Identity, &file::encode(&membership.identity))?;
            if place.exists() {
                if self.load_network(id).is_err() {
                    self.keep_unusable(id)?;
                } else {
                    disk::remove_dir(&before)?;
                    disk::rename(&place, &before)?;
                    disk::sync_dir(&networks)?;
                }
            }
            disk::rename(&stage, &place)?;
            disk::sync_dir(&networks)
        };
        store().map_err(|source| SaveError::Disk { path: networks.clone(), source })?;
        // What is left of it is removed at the next start.
        let _ = disk::remove_dir(&before);
        Ok(())
    }

    /// Replaces one part of a stored network.
    pub fn put(&self, network: NetworkId, part: Part, bytes: &[u8]) -> io::Result<()> {
        self.make_ready()?;
        put(&self.network(network), part, bytes)
    }

    /// Erases a network.
    pub fn erase(&self, network: NetworkId) -> io::Result<()> {
        let gone = self.aside("gone", network);
        disk::remove_dir(&gone)?;
        match disk::rename(&self.network(network), &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        disk::sync_dir(&self.root.join("networks"))?;
        disk::remove_dir(&gone)
    }

    /// Keeps a damaged network for people to look at: it may hold the only copy of its keys.
    fn keep_unusable(&self, id: NetworkId) -> io::Result<()> {
        let unusable = self.root.join("unusable");
        disk::make_dir(&unusable)?;
        let free = (1..u32::MAX).map(|n| unusable.join(format!("{id}.{n}"))).find(|path| !path.exists());
        let place = free.ok_or(io::ErrorKind::QuotaExceeded)?;
        tracing::warn!(place = %place.display(), "a damaged network is kept there");
        disk::rename(&self.network(id), &place)?;
        disk::sync_dir(&unusable)?;
        disk::sync_dir(&self.root.join("networks"))
    }

    fn network(&self, id: NetworkId) -> PathBuf {
        self.root.join("networks").join(id.to_string())
    }

    /// A name that `load` does not see.
    fn aside(&self, what: &str, id: NetworkId) -> PathBuf {
        self.root.join("networks").join(format!(".{what}-{id}"))
    }

    fn part(&self, network: NetworkId, part: Part) -> PathBuf {
        self.network(network).join(part.name())
    }

    /// One stored network, and which spare parts it lacks.
    pub fn load_network(&self, id: NetworkId) -> Result<(Membership, Vec<Damage>), LoadError> {
        let mut damage = Vec::new();
        let membership = Membership {
            identity: self.needed(id, Part::Identity)?,
            keys: self.needed(id, Part::Keys)?,
            certificate: self.needed(id, Part::Certificate)?,
            map: self.spare(id, Part::Map, &mut damage),
            live: self.spare(id, Part::Live, &mut damage).unwrap_or_default(),
            contact: self.spare(id, Part::Contact, &mut damage).unwrap_or_default(),
            kept: self.spare(id, Part::Kept, &mut damage).unwrap_or_default(),
            untold: self.spare(id, Part::Untold, &mut damage).unwrap_or_default(),
        };
        Ok((membership, damage))
    }

    /// A part without which the network can't be used, from the one file or the other.
    fn needed<T: for<'b> Decode<'b, ()> + Encode<()>>(
        &self,
        id: NetworkId,
        part: Part,
    ) -> Result<T, LoadError> {
        let path = self.part(id, part);
        let copy = copy_of(&path);
        let (value, broken) = match (load_existing::<T>(&path), load_existing::<T>(&copy)) {
            (Ok(value), Ok(_)) => return Ok(value),
            (Ok(value), Err(error)) => (value, (copy, error)),
            (Err(error), Ok(value)) => (value, (path, error)),
            // Left as they are: somebody may put one right.
            (Err(error), Err(_)) => return Err(error),
        };
        self.mend(&broken.0, &broken.1, &file::encode(&value));
        Ok(value)
    }

    fn mend(&self, path: &Path, error: &LoadError, bytes: &[u8]) {
        // State of before there were copies has none.
        if path.exists() {
            tracing::warn!(%error, "mended from its copy; is the disk dying?");
            let _ = file::set_aside(path);
        }
        if let Err(error) = self.make_ready().and_then(|()| file::write(path, bytes)) {
            tracing::warn!(%error, path = %path.display(), "can't be mended on the disk; its copy is used");
        }
    }

    /// A part that the coordinator can give again.
    fn spare<T: for<'b> Decode<'b, ()>>(
        &self,
        id: NetworkId,
        part: Part,
        damage: &mut Vec<Damage>,
    ) -> Option<T> {
        let path = self.part(id, part);
        file::load(&path).unwrap_or_else(|error| {
            let kept = file::set_aside(&path).map_or_else(
                |e| format!("and can't be set aside: {e}"),
                |aside| format!("and was kept as {}", aside.display()),
            );
            let loss = if part == Part::Untold {
                "the coordinator's audit log lacks what was changed on this machine without contact"
            } else {
                "what was in it comes again from the coordinator"
            };
            let text = format!("{error} {kept}; {loss}");
            damage.push(Damage { network: id, part: Some(part), text });
            None
        })
    }

    /// Ends what a crash has cut off: a network that was being replaced comes back, what was half made or half erased
    /// goes.
    fn sweep(&self) {
        for entry in fs::read_dir(self.root.join("networks")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let replaced = name.strip_prefix(".old-").and_then(|id| id.parse::<NetworkId>().ok());
            let done = match replaced.map(|id| self.network(id)).filter(|place| !place.exists()) {
                Some(place) => disk::rename(&entry.path(), &place),
                None if name.starts_with('.') => disk::remove_dir(&entry.path()),
                None => Ok(()),
            };
            if let Err(error) = done {
                tracing::warn!(%error, path = %entry.path().display(), "can't be cleared away");
            }
        }
    }
}

/// Writes a part, and its copy if it is indispensable.
fn put(network: &Path, part: Part, bytes: &[u8]) -> io::Result<()> {
    let path = network.join(part.name());
    file::write(&path, bytes)?;
    if part.is_indispensable() { file::write(&copy_of(&path), bytes) } else { Ok(()) }
}

fn copy_of(path: &Path) -> PathBuf {
    path.with_extension("copy")
}

fn load_existing<T: for<'b> Decode<'b, ()>>(path: &Path) -> Result<T, LoadError> {
    let missing = || LoadError::Damaged { path: path.to_owned(), reason: "it is missing".into() };
    file::load(path)?.ok_or_else(missing)
}

enum PrepareError {
    InUse,
    Io(io::Error),
}

impl From<io::Error> for PrepareError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes the lock. An agent that was killed may hold it a moment longer.
///
/// The file is opened for reading, which a lock is content with: an open file that could be written would keep the disk
/// from being made read-only.
fn lock(path: &Path) -> Result<Flock<File>, PrepareError> {
    if !path.exists() {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    }
    let mut file = File::open(path)?;
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < end => file,
            Err((_, Errno::EWOULDBLOCK)) => return Err(PrepareError::InUse),
            Err((_, errno)) => return Err(PrepareError::Io(errno.into())),
        };
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the disk is to blame, not a mistake that a person has to correct before anything can work.
fn is_storage_trouble(error: &io::Error) -> bool {
    let broken = [libc::EIO, libc::EUCLEAN, libc::ENODEV, libc::ESTALE];
    // To root, only an immutable directory says so.
    let immutable = error.raw_os_error() == Some(libc::EPERM) && nix::unistd::Uid::effective().is_root();
    immutable
        || error.raw_os_error().is_some_and(|code| broken.contains(&code))
        || matches!(
            error.kind(),
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
}

#[cfg(test)]
mod power_cuts;
#[cfg(test)]
pub(crate) mod tests;
