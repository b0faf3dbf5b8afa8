//! Backups: all that a coordinator is, in one file, and the way back (see `docs/coordinator.md`).
//!
//! ```text
//! running coordinator --VACUUM INTO--> copy of the database \
//! data dir/identity -----------------------------------------> Archive --seal--> FILE (0600)
//! FILE --open--> Archive --> staging directory: new epoch --> data dir
//! ```

pub mod files;
pub mod restore;
pub mod schedule;
pub mod seal;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minicbor::{Decode, Encode};
use ria_protocol::time::UnixTime;
use ria_protocol::witness::Epoch;
use zeroize::Zeroizing;

use self::seal::Passphrase;
use crate::store::{Store, StoreError};
use crate::tls::authority::Identity;

/// Version of [`Archive`] that this build writes.
const VERSION: u16 = 1;

/// A backup can't be made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} can't be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("there is nothing to back up: {} has no identity", .0.display())]
    NoIdentity(PathBuf),
}

/// A backup can't be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    #[error("{} can't be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the passphrase in {} is too short; its first line must have 8 characters or more", .0.display())]
    TooShort(PathBuf),
}

/// The passphrase that a file holds in its first line.
pub fn passphrase(path: &Path) -> Result<Passphrase, PassphraseError> {
    let unreadable = |source| PassphraseError::Read { path: path.to_owned(), source };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?);
    let first = text.lines().next().unwrap_or_default();
    if first.chars().count() < 8 {
        return Err(PassphraseError::TooShort(path.to_owned()));
    }
    Ok(Zeroizing::new(first.to_owned()))
}

/// All that a coordinator is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Archive {
    #[n(0)]
    pub version: u16,
    /// When it was made.
    #[n(1)]
    pub made: UnixTime,
    /// By which version of the coordinator.
    #[n(2)]
    pub coordinator_version: String,
    /// Of which epoch.
    #[n(3)]
    pub epoch: Epoch,
    /// The SQLite database.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub database: Vec<u8>,
    /// The files of the directory `identity`.
    #[n(5)]
    pub identity: Vec<NamedFile>,
    /// Where nodes were told to find the coordinator.
    #[n(6)]
    pub urls: Vec<String>,
}

/// A file by its name.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NamedFile {
    #[n(0)]
    pub name: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub content: Vec<u8>,
}

/// Takes everything together, as it is at this moment; the coordinator may serve meanwhile.
pub async fn collect(data_dir: &Path, store: &Store) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    let directory =
        Identity::directory(data_dir).ok_or_else(|| BackupError::NoIdentity(data_dir.to_owned()))?;
    let identity = read_identity(&directory)?;
    let copy = data_dir.join(format!(".backup.{}.db", std::process::id()));
    let _ = fs::remove_file(&copy);
    let copied = store.copy_to(&copy).await;
    let database = fs::read(&copy).map_err(|source| BackupError::Read { path: copy.clone(), source });
    let _ = fs::remove_file(&copy);
    copied?;
    let world = store.load().await?;
    let archive = Archive {
        version: VERSION,
        made: UnixTime::from(SystemTime::now()),
        coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: world.epoch(),
        database: database?,
        identity,
        urls: world.networks.values().next().map(|network| network.info.urls.clone()).unwrap_or_default(),
    };
    Ok(Zeroizing::new(ria_protocol::message::to_bytes(&archive)))
}

fn read_identity(directory: &Path) -> Result<Vec<NamedFile>, BackupError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| BackupError::Read { path, source }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        // One that is being written is not there yet.
        if path.is_file() && !name.ends_with(".tmp") {
            files.push(NamedFile { name, content: fs::read(&path).map_err(failed(&path))? });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
