//! Which machine the stored state belongs to. A card that was copied brings another machine's identity along; two
//! machines with one identity would fight for every packet.
//!
//! ```text
//! machine                 a random salt, and HMAC-SHA256(machine-id, salt): tells nobody the machine-id
//! set-aside-<time>/       what belonged to another machine, untouched
//! ```
//!
//! The machine-id (machine-id(5)) is what counts, for it goes with the installation: a card that moves to a new board
//! keeps it and stays who it was, while an image is meant to be shipped with an empty one, so that each copy draws its
//! own. Copies that share one are told apart by the coordinator.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use minicbor::{Decode, Encode};
use rand_core::{OsRng, RngCore};
use ring::hmac;

use super::{StateDir, disk, file};

const CONTEXT: &[u8] = b"ria machine v1\0";

/// This machine's machine-id. Never shown: the manual of it says so.
#[derive(Clone, PartialEq, Eq)]
pub struct MachineId(String);

impl MachineId {
    /// That of this machine; `None` where there is none that lasts.
    pub fn of_this_machine() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::from_root(Path::new("/"), &mounts)
    }

    /// On a root that can't be written, systemd mounts a machine-id of this boot over the file.
    fn from_root(root: &Path, mounts: &str) -> Option<Self> {
        let is_of_this_boot = mounts.lines().any(|line| line.split(' ').nth(4) == Some("/etc/machine-id"));
        if is_of_this_boot {
            return None;
        }
        let places = ["etc/machine-id", "var/lib/dbus/machine-id"];
        places.iter().find_map(|place| Self::parse(&fs::read_to_string(root.join(place)).ok()?))
    }

    /// Reads the text of a machine-id file; "uninitialized" and an empty one are none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let valid = text.len() == 32
            && text.bytes().all(|b| b.is_ascii_hexdigit())
            && !text.starts_with("00000000000000");
        valid.then_some(Self(text))
    }
}

impl std::fmt::Debug for MachineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MachineId(hidden)")
    }
}

/// What is stored of a machine-id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Mark {
    #[cbor(n(0), with = "minicbor::bytes")]
    salt: [u8; 16],
    #[cbor(n(1), with = "minicbor::bytes")]
    digest: [u8; 32],
}

impl Mark {
    fn new(machine: &MachineId) -> Self {
        let mut salt = [0; 16];
        OsRng.fill_bytes(&mut salt);
        Self { salt, digest: digest(machine, &salt) }
    }

    fn is_of(&self, machine: &MachineId) -> bool {
        self.digest == digest(machine, &self.salt)
    }
}

fn digest(machine: &MachineId, salt: &[u8; 16]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, machine.0.as_bytes()));
    context.update(CONTEXT);
    context.update(salt);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.sign().as_ref());
    digest
}

impl StateDir {
    /// Ties the state to this machine, or sets it aside when it is another's; then tells where it is now. An error
    /// means that there is foreign state which must not be used, and can't be moved.
    pub(super) fn settle(&self, machine: &MachineId) -> io::Result<Option<PathBuf>> {
        let path = self.root.join("machine");
        // A mark that can't be read says nothing.
        let known: Option<Mark> = file::load(&path).unwrap_or_default();
        let aside = match known {
            Some(mark) if mark.is_of(machine) => return Ok(None),
            Some(_) if self.holds_anything() => Some(self.set_all_aside()?),
            Some(_) | None => None,
        };
        if let Err(error) = file::write(&path, &file::encode(&Mark::new(machine))) {
            // Nothing here is foreign; it is only not known to be this machine's the next time.
            tracing::warn!(%error, "the state can't be marked as this machine's");
        }
        Ok(aside)
    }

    fn holds_anything(&self) -> bool {
        ["networks", "pending", "waiting", "leaving"]
            .iter()
            .any(|name| fs::read_dir(self.root.join(name)).is_ok_and(|mut entries| entries.next().is_some()))
    }

    /// Moves everything but the lock, the mark last: as long as it is there, a start that was cut off is repeated.
    fn set_all_aside(&self) -> io::Result<PathBuf> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let place = |n: u64| self.root.join(format!("set-aside-{}", now + n));
        let aside = (0..).map(place).find(|path| !path.exists()).ok_or(io::ErrorKind::QuotaExceeded)?;
        disk::make_dir(&aside)?;
        let entries = fs::read_dir(&self.root)?.flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = entries.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name != "lock" && !name.starts_with("set-aside-"));
        names.sort_by_key(|name| name == "machine");
        for name in names {
            disk::rename(&self.root.join(&name), &aside.join(&name))?;
        }
        disk::sync_dir(&aside)?;
        disk::sync_dir(&self.root)?;
        ["networks", "pending"].iter().try_for_each(|name| disk::make_dir(&self.root.join(name)))?;
        Ok(aside)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::membership;
    use super::*;

    fn machine(number: u8) -> MachineId {
        MachineId::parse(&format!("{number:032x}").replacen("0000", "abcd", 1)).unwrap()
    }

    #[test]
    fn state_of_another_machine_is_set_aside_whole_and_not_used() {
        let dir = tempfile::tempdir().unwrap();
        {
            let state = StateDir::open_on(dir.path(), Some(&machine(1))).unwrap();
            state.admit(&membership(1)).unwrap();
            let stored = fs::read(dir.path().join("machine")).unwrap();
            let id = machine(1).0;
            assert!(!stored.windows(8).any(|w| w == &id.as_bytes()[..8]), "the id itself is stored");
        }
        let same = StateDir::open_on(dir.path(), Some(&machine(1))).unwrap();
        assert_eq!((same.load().memberships.len(), same.set_aside()), (1, None));
        drop(same);
        let other = StateDir::open_on(dir.path(), Some(&machine(2))).unwrap();
        assert!(other.load().memberships.is_empty());
        let aside = other.set_aside().unwrap().to_owned();
        assert!(
            aside.join("networks").join(membership(1).identity.network.to_string()).join("keys").exists()
        );
        other.admit(&membership(2)).unwrap();
        drop(other);
        // It stays the other machine's, and the first one does not get its state back from it.
        assert_eq!(StateDir::open_on(dir.path(), Some(&machine(2))).unwrap().load().memberships.len(), 1);
        assert!(StateDir::open_on(dir.path(), Some(&machine(1))).unwrap().load().memberships.is_empty());
    }

    #[test]
    fn a_start_that_was_cut_off_while_setting_aside_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        StateDir::open_on(dir.path(), Some(&machine(1))).unwrap().admit(&membership(1)).unwrap();
        // The networks are aside already, the mark is not.
        let half = dir.path().join("set-aside-1");
        fs::create_dir(&half).unwrap();
        fs::rename(dir.path().join("networks"), half.join("networks")).unwrap();
        fs::create_dir(dir.path().join("pending")).unwrap_or_default();
        fs::write(dir.path().join("pending").join("x"), "").unwrap();
        let state = StateDir::open_on(dir.path(), Some(&machine(2))).unwrap();
        assert!(state.set_aside().is_some() && state.load().memberships.is_empty());
        assert!(half.join("networks").exists());
    }

    #[test]
    fn an_image_that_never_joined_is_marked_anew_without_a_word() {
        let dir = tempfile::tempdir().unwrap();
        drop(StateDir::open_on(dir.path(), Some(&machine(1))).unwrap());
        let state = StateDir::open_on(dir.path(), Some(&machine(2))).unwrap();
        assert_eq!(state.set_aside(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "lock, machine, networks, pending");
    }

    #[test]
    fn only_a_machine_id_that_lasts_counts() {
        for none in ["", "uninitialized", "0123", &"0".repeat(32), &"x".repeat(32)] {
            assert_eq!(MachineId::parse(none), None, "{none:?}");
        }
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/machine-id"), "0123456789abcdef0123456789ABCDEF\n").unwrap();
        assert!(MachineId::from_root(root.path(), "").is_some());
        let mounts = "40 29 0:35 /machine-id /etc/machine-id ro,nosuid - tmpfs tmpfs rw\n";
        assert_eq!(MachineId::from_root(root.path(), mounts), None, "systemd drew it for this boot only");
        // Without a machine-id nothing is judged.
        let dir = tempfile::tempdir().unwrap();
        StateDir::open_on(dir.path(), Some(&machine(1))).unwrap().admit(&membership(1)).unwrap();
        assert_eq!(StateDir::open_on(dir.path(), None).unwrap().load().memberships.len(), 1);
    }
}
