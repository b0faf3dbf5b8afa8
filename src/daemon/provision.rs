//! Joining by a file: a robot that is in no network and finds a join key in a provisioning file joins by itself, and
//! tries again for as long as that may help. A member ignores the file, and says so when it holds another key.
//!
//! A file is used when nobody but root (or the agent's own user) could have put the key there. Others may be able to
//! read it: a boot partition with a FAT file system knows no permissions, and whoever has the card has all of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use ria_api::state::{JoinOptions, Severity};
use ria_protocol::id::KeyId;
use ria_protocol::join_key::JoinKey;
use ria_protocol::requester::Requester;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::control::{Control, Input};
use super::handle::{DaemonHandle, Provisioned, Reply};
use super::join::is_temporary;
use crate::coordinator::backoff::Backoff;

/// How often the file is looked at.
const FILE_CHECK: Duration = Duration::from_secs(5);

/// Longest file that may be a key's.
const MAX: u64 = 4096;

impl Control {
    /// Joins by a provisioning file, unless this machine is in a network, or has left the one of the key on purpose.
    pub(super) fn provision(&mut self, key: JoinKey, path: &Path, reply: Reply<Provisioned>) {
        let id = key.key_id;
        let identities = || self.networks.values().map(|n| &n.membership.identity);
        let belongs = !self.pending.is_empty() || identities().any(|identity| !identity.has_ended());
        let is_used = identities().any(|identity| identity.key_id == id)
            || self.pending.values().any(|p| p.key_id() == id);
        let path = path.display();
        let hint = if belongs && !is_used {
            Some(format!(
                "{path} holds a join key that this machine did not join by, and is ignored since it is in a network; \
                 remove the file, or to change: ria leave --yes, then ria join --file {path}"
            ))
        } else if !belongs && self.state.left_keys().contains(&id) {
            Some(format!(
                "{path} holds the join key of a network that was left, so it is not used by itself; to join again: \
                 ria join --file {path}"
            ))
        } else {
            None
        };
        let ignored = belongs || hint.is_some();
        self.changed |= match hint {
            Some(text) => self.conditions.set("join-file-ignored", Severity::Info, text),
            None => self.conditions.clear("join-file-ignored"),
        };
        if ignored {
            let _ = reply.send(Ok(Provisioned::Ignored));
            return;
        }
        let (answer, joined) = oneshot::channel();
        self.join(key, JoinOptions::default(), by_file(), answer);
        tokio::spawn(async move {
            if let Ok(joined) = joined.await {
                let _ = reply.send(joined.map(|_| Provisioned::Joined));
            }
        });
    }

    /// Remembers that a network was left, so that no file makes this machine join it again.
    pub(super) fn remember_left(&self, key: KeyId) {
        if let Err(error) = self.state.note_left(key) {
            tracing::warn!(%error, "it can't be stored that a network was left");
        }
    }

    /// Shows what is wrong with the provisioning file.
    pub(super) fn tell_join_file(&mut self, problem: Option<String>) {
        self.changed |= match problem {
            Some(text) => self.conditions.set("join-file", Severity::Error, text),
            None => self.conditions.clear("join-file"),
        };
    }

    /// Says once that this machine has found another one's state.
    pub(super) fn tell_set_aside(&mut self) {
        if self.state.is_foreign() {
            let text = format!(
                "the state in {} belongs to another machine (its machine-id is another one, as after copying a card) and \
                 can't be set aside, so this machine can't join: make the disk writable and restart the agent",
                self.state.path().display()
            );
            self.conditions.set("state-of-another-machine", Severity::Error, text);
        } else if let Some(aside) = self.state.set_aside() {
            let text = format!(
                "the stored state was another machine's (its machine-id is another one, as after copying a card); it \
                 was put into {} and is not used. This machine joins anew by its provisioning file, or with: ria join -",
                aside.display()
            );
            self.conditions.set("state-set-aside", Severity::Warning, text);
        }
    }
}

/// Where to look for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// This file has to be there.
    Named(PathBuf),
    /// The first of these that is there.
    AnyOf(Vec<PathBuf>),
}

/// A file can't be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("it is not there")]
    Missing,
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("it is no regular file")]
    NotAFile,
    #[error(
        "somebody else than root could have written it: give it to root (chown root) and take the others' right to \
         write (chmod go-w); on a FAT partition by the mount options, umask=022"
    )]
    Untrusted,
    #[error("it is no join key: {0}")]
    NoKey(#[from] ria_protocol::join_key::ParseJoinKeyError),
    #[error("it is too long to be a join key")]
    TooLong,
}

/// The agent itself, told so by a file.
pub(super) fn by_file() -> Requester {
    let uid = nix::unistd::geteuid().as_raw();
    Requester { via: "join-file".into(), uid: Some(uid), ..Requester::default() }
}

/// What became of a look at the file.
enum Look {
    /// Nothing is to be done now.
    Settled,
    /// Try again soon.
    Again(String),
    /// Nothing helps but another file.
    Stuck(String),
}

/// Looks after the file until the agent ends.
pub async fn run(places: Places, handle: DaemonHandle, inputs: mpsc::UnboundedSender<Input>) {
    let mut backoff = Backoff::default();
    let mut stuck_with: Option<Stamp> = None;
    loop {
        let Some(path) = places.find() else {
            if inputs.send(Input::JoinFile(None)).is_err() {
                return;
            }
            sleep(FILE_CHECK).await;
            continue;
        };
        let stamp = Stamp::of(&path);
        if stuck_with.is_some() && stuck_with == stamp {
            sleep(FILE_CHECK).await;
            continue;
        }
        let look = look(&path, &handle).await;
        stuck_with = stamp.filter(|_| matches!(look, Look::Stuck(_)));
        let (problem, wait) = match look {
            Look::Settled => {
                backoff.reset();
                (None, FILE_CHECK)
            }
            Look::Again(text) => (Some(text), backoff.next()),
            Look::Stuck(text) => (Some(text), FILE_CHECK),
        };
        let shown = problem.map(|text| format!("joining with {} failed: {text}", path.display()));
        if inputs.send(Input::JoinFile(shown)).is_err() {
            return;
        }
        sleep(wait).await;
    }
}

async fn look(path: &Path, handle: &DaemonHandle) -> Look {
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&file)).await;
    let key = match read.unwrap_or_else(|error| Err(io::Error::other(error).into())) {
        Ok(key) => key,
        Err(error @ FileError::Missing) => return Look::Again(error.to_string()),
        Err(error) => return Look::Stuck(error.to_string()),
    };
    match handle.provision(key, path.to_owned()).await {
        Ok(Provisioned::Joined | Provisioned::Ignored) => Look::Settled,
        Err(error) if is_temporary(&error) => Look::Again(error.text()),
        Err(error) => Look::Stuck(error.text()),
    }
}

impl Places {
    fn find(&self) -> Option<PathBuf> {
        match self {
            Self::Named(path) => Some(path.clone()),
            Self::AnyOf(paths) => paths.iter().find(|path| path.exists()).cloned(),
        }
    }
}

/// Tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Reads a key. What is judged is the file that was opened, whatever has its name a moment later.
fn read(path: &Path) -> Result<JoinKey, FileError> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound { FileError::Missing } else { error.into() }
    })?;
    check(&file)?;
    let mut text = Zeroizing::new(String::with_capacity(MAX as usize + 1));
    file.take(MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX {
        return Err(FileError::TooLong);
    }
    Ok(JoinKey::parse(&text)?)
}

fn check(file: &File) -> Result<(), FileError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile);
    }
    let own = nix::unistd::geteuid().as_raw();
    let trusted = [0, own].contains(&metadata.uid()) && metadata.mode() & 0o022 == 0;
    if trusted { Ok(()) } else { Err(FileError::Untrusted) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read_file(mode: u32, text: &str) -> Result<JoinKey, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read(&path)
    }

    fn key() -> String {
        use ria_protocol::id::KeyId;
        use ria_protocol::join_key::JoinSecret;
        use ria_protocol::keys::SpkiHash;
        let key = JoinKey {
            urls: vec!["https://ria.lab.example".into()],
            ca_pin: SpkiHash([1; 32]),
            key_id: KeyId::from_bytes([2; 5]),
            secret: JoinSecret::from_bytes([3; 16]),
        };
        key.to_text() + "\n"
    }

    #[test]
    fn a_file_that_others_can_read_is_used_and_one_that_they_can_write_is_not() {
        for good in [0o600, 0o400, 0o644, 0o755] {
            assert!(read_file(good, &key()).is_ok(), "{good:o}");
        }
        for bad in [0o666, 0o620, 0o602, 0o777] {
            let error = read_file(bad, &key()).unwrap_err();
            assert!(matches!(error, FileError::Untrusted) && error.to_string().contains("umask"), "{bad:o}");
        }
    }

    #[test]
    fn what_is_no_key_is_said_and_holds_nobody() {
        assert!(matches!(read_file(0o600, "ria1_abc"), Err(FileError::NoKey(_))));
        assert!(matches!(read_file(0o600, &"x".repeat(5000)), Err(FileError::TooLong)));
        assert!(matches!(read(Path::new("/")), Err(FileError::NotAFile)));
        assert!(matches!(read(Path::new("/no/such/key")), Err(FileError::Missing)));
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&pipe), Err(FileError::NotAFile)));
    }

    #[test]
    fn the_first_place_that_is_there_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let places = Places::AnyOf(vec![one.clone(), two.clone()]);
        assert_eq!(places.find(), None);
        std::fs::write(&two, "").unwrap();
        assert_eq!(places.find(), Some(two.clone()));
        let before = Stamp::of(&two);
        std::fs::write(&two, "x").unwrap();
        assert_ne!(Stamp::of(&two), before);
        std::fs::write(&one, "").unwrap();
        assert_eq!(places.find(), Some(one));
    }
}
