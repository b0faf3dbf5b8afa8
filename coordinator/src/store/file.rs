//! The file of an SQLite database: whether it is there, and still the one that was opened.
//!
//! SQLite works on with a file that somebody has removed or put another in the place of; what it stores from then on
//! ends with the process. So this is asked before each change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;

/// The file that was opened.
#[derive(Debug, Clone)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl DatabaseFile {
    /// The file of a database that is open; `None` where it has none.
    pub fn of(url: &str) -> Option<Self> {
        let path = path_of(url)?;
        let identity = identity(&path)?;
        Some(Self { path, identity })
    }

    /// Its path, if it is not there any more or another file is.
    pub fn moved(&self) -> Option<PathBuf> {
        (identity(&self.path) != Some(self.identity)).then(|| self.path.clone())
    }
}

/// Where the database should be, if it is a file and nothing is in it yet.
pub fn missing_file(url: &str) -> Option<PathBuf> {
    path_of(url).filter(|path| fs::metadata(path).map_or(true, |metadata| metadata.len() == 0))
}

/// The file of an SQLite database; `None` for any other.
pub fn path_of(url: &str) -> Option<PathBuf> {
    let options: SqliteConnectOptions = url.parse().ok().filter(|_| url.starts_with("sqlite:"))?;
    let path = options.get_filename();
    // SQLite's name of a database in memory.
    (!path.to_string_lossy().starts_with("file:")).then(|| path.to_owned())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
