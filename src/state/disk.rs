//! The few operations on the disk that stored state is made of, so that what a power cut leaves of them can be tried.
//!
//! Nothing else in `state` changes a file. Tests record the operations of a thread and replay each beginning of them,
//! with and without what was not synced yet (`power_cuts`).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;

/// Makes a directory for root alone; one that is there is left as it is.
pub fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dir(path.parent().ok_or(error)?)?;
            make_dir(path)
        }
        Err(_) if path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Errno::ENOTDIR.into()),
        Err(error) => Err(error),
        Ok(()) => {
            #[cfg(test)]
            record::add(record::Operation::MakeDir(path.into()));
            sync_dir(path.parent().unwrap_or(Path::new(".")))
        }
    }
}

/// Makes or replaces a file with this content, and has it on the disk when it returns; its name may not be there yet.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    #[cfg(test)]
    record::add(record::Operation::Write(path.into(), bytes.into()));
    file.write_all(bytes)?;
    file.sync_all()?;
    #[cfg(test)]
    record::add(record::Operation::SyncFile(path.into()));
    Ok(())
}

/// Gives a file or directory another name, in place of what has that name.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    #[cfg(test)]
    record::add(record::Operation::Rename(from.into(), to.into()));
    Ok(())
}

/// Removes a file; one that is not there is no error.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            #[cfg(test)]
            record::add(record::Operation::Remove(path.into()));
            Ok(())
        }
    }
}

/// Removes a directory with all that is in it; one that is not there is no error.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove_dir(&entry.path())? } else { remove_file(&entry.path())? }
    }
    fs::remove_dir(path)?;
    #[cfg(test)]
    record::add(record::Operation::Remove(path.into()));
    Ok(())
}

/// Makes names in a directory, given and taken, last.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    #[cfg(test)]
    record::add(record::Operation::SyncDir(path.into()));
    Ok(())
}

/// What a thread did to the disk, in order.
#[cfg(test)]
pub mod record {
    use std::cell::RefCell;
    use std::path::PathBuf;

    /// One operation that has succeeded.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Operation {
        MakeDir(PathBuf),
        Write(PathBuf, Vec<u8>),
        SyncFile(PathBuf),
        Rename(PathBuf, PathBuf),
        Remove(PathBuf),
        SyncDir(PathBuf),
    }

    thread_local! {
        static OPERATIONS: RefCell<Vec<Operation>> = const { RefCell::new(Vec::new()) };
    }

    pub fn add(operation: Operation) {
        OPERATIONS.with_borrow_mut(|operations| operations.push(operation));
    }

    /// What was done since the last call.
    pub fn take() -> Vec<Operation> {
        OPERATIONS.take()
    }
}
