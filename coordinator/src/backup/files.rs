//! Files that are whole or not there at all, and that nobody else may read.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Puts a file in place: written under another name, synced, and renamed. Mode 0600.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = beside(path);
    let written = write_new(&unfinished, content).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        // Half a file would keep a full disk full.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    sync_directory(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// A new file that is on the disk when this returns. Mode 0600.
pub fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes renames and removals in a directory last.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}
