//! The way back: an archive is unpacked beside the place where it belongs, a new epoch begins in it, and only then is it
//! put in place. A restore that is cut off leaves what was there before, or a directory that `serve` refuses.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ria_protocol::message::from_bytes;
use ria_protocol::time::UnixTime;

use super::seal::{self, OpenError, Passphrase};
use super::{Archive, VERSION, files};
use crate::anchor;
use crate::epoch::{self, Began, Reason};
use crate::server::{self, StartError};
use crate::store::{Store, StoreError, file_url, sqlite_file};

/// What is being restored, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    pub data_dir: PathBuf,
    /// Where the database belongs.
    pub database: String,
    /// Put aside what is there.
    pub force: bool,
    /// Join keys of the backup stay valid.
    pub keep_keys: bool,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    pub made: UnixTime,
    pub began: Began,
    pub urls: Vec<String>,
    pub nodes: usize,
    /// Where that is which was there before.
    pub aside: Option<PathBuf>,
}

/// A backup can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the backup can't be read: {0}")]
    Open(OpenError),
    #[error("the backup can't be read: {0}; was it made by a newer version of ria-coordinator?")]
    Archive(String),
    #[error(
        "{} holds a coordinator already; with --force it is kept beside the restored one, in a directory of its own",
        .0.display()
    )]
    Occupied(PathBuf),
    #[error("only SQLite databases are restored by this command; the setting `database` names another")]
    NotSqlite,
    #[error("{} can't be written: {source}; nothing was changed, unless that directory says otherwise", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the database of the backup can't be used: {0}")]
    Store(StoreError),
    #[error(transparent)]
    DataDir(#[from] StartError),
}

impl From<OpenError> for RestoreError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<StoreError> for RestoreError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Puts a backup in place.
pub async fn restore(
    file: &[u8],
    passphrase: Option<&Passphrase>,
    plan: &Plan,
) -> Result<Restored, RestoreError> {
    let content = seal::open(file, passphrase)?;
    let archive: Archive = from_bytes(&content).map_err(|error| RestoreError::Archive(error.to_string()))?;
    if archive.version != VERSION {
        return Err(RestoreError::Archive(format!("it has version {}", archive.version)));
    }
    let database = sqlite_file(&plan.database).ok_or(RestoreError::NotSqlite)?;
    let _lock = server::lock(&plan.data_dir)?;
    let old = occupied(&plan.data_dir, &database);
    if !old.is_empty() && !plan.force {
        return Err(RestoreError::Occupied(plan.data_dir.clone()));
    }
    let stage = plan.data_dir.join("restore.new");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Write { path, source }
    };
    unpack(&archive, &stage).map_err(failed(&stage))?;
    let (began, nodes) = begin(&stage, archive.made, plan.keep_keys).await?;
    let aside = put_aside(&plan.data_dir, &old).map_err(failed(&plan.data_dir))?;
    put_in_place(&stage, &plan.data_dir, &database).map_err(failed(&plan.data_dir))?;
    anchor::forget(&plan.data_dir);
    Ok(Restored { made: archive.made, began, urls: archive.urls, nodes, aside })
}

/// What stands where a restored coordinator would.
fn occupied(data_dir: &Path, database: &Path) -> Vec<PathBuf> {
    let beside = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let all = [data_dir.join("identity"), database.to_owned(), beside("-wal"), beside("-shm")];
    all.into_iter().filter(|path| path.exists()).collect()
}

fn unpack(archive: &Archive, stage: &Path) -> io::Result<()> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let identity = stage.join("identity");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&identity)?;
    for file in &archive.identity {
        // Names within a directory only: the file may be anybody's.
        let name = Path::new(&file.name).file_name().filter(|name| *name == file.name.as_str());
        let name = name.ok_or_else(|| io::Error::other(format!("{:?} is no file name", file.name)))?;
        files::write_new(&identity.join(name), &file.content)?;
    }
    files::sync_directory(&identity)?;
    files::write_new(&stage.join("coordinator.db"), &archive.database)
}

async fn begin(stage: &Path, made: UnixTime, keep_keys: bool) -> Result<(Began, usize), RestoreError> {
    let store = Store::open(&file_url(&stage.join("coordinator.db"))).await?;
    let began = epoch::begin_next(&store, Reason::Restored { made, keep_keys }).await;
    let world = store.load().await;
    // Closing writes everything into the one file.
    store.close().await;
    Ok((began?, world?.networks.values().map(|network| network.members.len()).sum()))
}

fn put_aside(data_dir: &Path, old: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    if old.is_empty() {
        return Ok(None);
    }
    let now = UnixTime::from(SystemTime::now()).0;
    let free = |n: &u32| !data_dir.join(name_aside(now, *n)).exists();
    let aside = data_dir.join(name_aside(now, (0..1000).find(free).unwrap_or(1000)));
    fs::DirBuilder::new().mode(0o700).create(&aside)?;
    for path in old {
        if let Some(name) = path.file_name() {
            fs::rename(path, aside.join(name))?;
        }
    }
    files::sync_directory(&aside)?;
    files::sync_directory(data_dir)?;
    Ok(Some(aside))
}

fn name_aside(now: u64, n: u32) -> String {
    if n == 0 { format!("replaced-{now}") } else { format!("replaced-{now}-{n}") }
}

/// The database last: while it is missing, `serve` refuses the directory and says so.
fn put_in_place(stage: &Path, data_dir: &Path, database: &Path) -> io::Result<()> {
    fs::rename(stage.join("identity"), data_dir.join("identity"))?;
    files::sync_directory(data_dir)?;
    fs::rename(stage.join("coordinator.db"), database)?;
    files::sync_directory(database.parent().unwrap_or(data_dir))?;
    fs::remove_dir_all(stage)
}
