//! One state file: written whole or not at all, and known to be damaged when it is.
//!
//! ```text
//! "ria-state-1\n" | SHA-256 of the content (32 bytes) | content (deterministic CBOR)
//! ```
//!
//! Writing goes to a file beside it, which is synced and renamed, so a crash leaves the old or the new content. The
//! digest tells a disk that lost bytes from an agent that is older than its state.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use ria_protocol::message::{from_bytes, to_bytes};
use zeroize::Zeroizing;

use super::disk;

const MAGIC: &[u8] = b"ria-state-1\n";

/// How files of every version begin.
const FAMILY: &[u8] = b"ria-state-";

const DIGEST_LEN: usize = 32;

/// Far above any real state; keeps a foreign file from being read into memory.
const MAX_LEN: u64 = 64 << 20;

/// A state file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system said no.
    #[error("{path} can't be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The content is not what was written.
    #[error("{path} is damaged ({reason})")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads a file; `None` when there is none.
pub fn load<T: for<'b> Decode<'b, ()>>(path: &Path) -> Result<Option<T>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_LEN => return Err(damaged(path, "far too large")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(unreadable)?);
    parse(path, &bytes).map(Some)
}

/// Reads the bytes of a file; the path is for the error.
pub fn parse<T: for<'b> Decode<'b, ()>>(path: &Path, bytes: &[u8]) -> Result<T, LoadError> {
    let body = bytes.strip_prefix(MAGIC).ok_or_else(|| {
        let of_another_version = bytes.starts_with(FAMILY);
        let reason = if of_another_version { "written by another version of Ria" } else { "no state file" };
        damaged(path, reason)
    })?;
    let (digest, content) =
        body.split_at_checked(DIGEST_LEN).ok_or_else(|| damaged(path, "it is cut short"))?;
    if ring::digest::digest(&ring::digest::SHA256, content).as_ref() != digest {
        return Err(damaged(path, "its checksum does not match"));
    }
    from_bytes(content).map_err(|error| damaged(path, &error.to_string()))
}

/// The bytes of a file with this content.
pub fn encode<T: Encode<()>>(value: &T) -> Zeroizing<Vec<u8>> {
    let content = Zeroizing::new(to_bytes(value));
    let digest = ring::digest::digest(&ring::digest::SHA256, &content);
    Zeroizing::new([MAGIC, digest.as_ref(), &content].concat())
}

/// Replaces the file by these bytes; when this returns they are on the disk.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let written = disk::write_synced(&beside, bytes).and_then(|()| disk::rename(&beside, path));
    if let Err(error) = written {
        // Half a file would keep a full disk full.
        let _ = disk::remove_file(&beside);
        return Err(error);
    }
    disk::sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Puts a damaged file out of the way, so that it can be looked at; returns its new path.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    /// A disk that damages files again and again must not fill up with them.
    const MOST: u32 = 9;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let place = |n: u32| {
        path.with_file_name(format!("{name}.damaged{}", if n == 1 { String::new() } else { n.to_string() }))
    };
    let aside = place((1..MOST).find(|n| !place(*n).exists()).unwrap_or(MOST));
    disk::rename(path, &aside)?;
    Ok(aside)
}

fn damaged(path: &Path, reason: &str) -> LoadError {
    LoadError::Damaged { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_read_back_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        assert!(load::<String>(&path).unwrap().is_none());
        write(&path, &encode(&"one".to_owned())).unwrap();
        write(&path, &encode(&"two".to_owned())).unwrap();
        assert_eq!(load::<String>(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed_and_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        let whole = encode(&"some content".to_owned());
        for at in 0..whole.len() {
            let mut changed = whole.to_vec();
            changed[at] ^= 1;
            for bad in [&whole[..at], &changed] {
                fs::write(&path, bad).unwrap();
                let error = load::<String>(&path).unwrap_err();
                assert!(matches!(error, LoadError::Damaged { .. }), "{error}");
                assert!(error.to_string().contains("value is damaged"));
            }
        }
        let aside = set_aside(&path).unwrap();
        assert!(aside.ends_with("value.damaged") && aside.exists() && !path.exists());
    }

    #[test]
    fn a_crash_while_writing_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        write(&path, &encode(&"old".to_owned())).unwrap();
        // What a kill between writing and renaming leaves behind.
        fs::write(path.with_extension("tmp"), &encode(&"new".to_owned())[..20]).unwrap();
        assert_eq!(load::<String>(&path).unwrap().as_deref(), Some("old"));
        write(&path, &encode(&"newer".to_owned())).unwrap();
        assert_eq!(load::<String>(&path).unwrap().as_deref(), Some("newer"));
    }
}
