//! A power cut at any moment leaves a defined state.
//!
//! What the agent does to the disk is recorded; each beginning of the record is replayed on a disk of which nothing is
//! certain but what was synced: a name given or taken may be lost or kept, each apart from the others, and a file that
//! was not synced may be empty, cut, or full of zeros. A new agent then opens every such disk.

use std::collections::BTreeMap;

use ria_protocol::id::NodeId;

use super::disk::record::{self, Operation};
use super::membership::NodeKeys;
use super::tests::membership;
use super::*;

/// A file as it would be found after the cut.
#[derive(Clone, PartialEq, Eq)]
enum Content {
    Synced(Vec<u8>),
    Unsynced(Vec<u8>),
}

/// What may have become of a file that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Torn {
    Whole,
    Empty,
    Half,
    Zeros,
}

impl Torn {
    const ALL: [Self; 4] = [Self::Whole, Self::Empty, Self::Half, Self::Zeros];

    fn tear(self, content: &[u8]) -> Vec<u8> {
        match self {
            Self::Whole => content.to_vec(),
            Self::Empty => Vec::new(),
            Self::Half => content[..content.len() / 2].to_vec(),
            Self::Zeros => vec![0; content.len()],
        }
    }
}

/// Files and directories (`None`) by path.
type Tree = BTreeMap<PathBuf, Option<Content>>;

fn is_below(path: &Path, dir: &Path) -> bool {
    path != dir && path.starts_with(dir)
}

/// Does one operation on a tree; one that makes no sense there (its file is lost, say) does nothing.
fn apply(tree: &mut Tree, operation: &Operation) {
    let has_parent = |tree: &Tree, path: &Path| path.parent().is_some_and(|dir| tree.get(dir) == Some(&None));
    match operation {
        Operation::MakeDir(path) if has_parent(tree, path) => _ = tree.entry(path.clone()).or_insert(None),
        Operation::Write(path, bytes) if has_parent(tree, path) => {
            tree.insert(path.clone(), Some(Content::Unsynced(bytes.clone())));
        }
        Operation::SyncFile(path) => {
            if let Some(Some(content)) = tree.get_mut(path)
                && let Content::Unsynced(bytes) = content
            {
                *content = Content::Synced(std::mem::take(bytes));
            }
        }
        Operation::Rename(from, to) if tree.contains_key(from) && has_parent(tree, to) => {
            let replaces_a_full_directory = tree.keys().any(|path| is_below(path, to));
            if !replaces_a_full_directory {
                let moved: Vec<PathBuf> =
                    tree.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in moved {
                    let entry = tree.remove(&path).unwrap();
                    let rest = path.strip_prefix(from).unwrap();
                    let place = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    tree.insert(place, entry);
                }
            }
        }
        Operation::Remove(path) if !tree.keys().any(|other| is_below(other, path)) => _ = tree.remove(path),
        Operation::MakeDir(_)
        | Operation::Write(..)
        | Operation::Rename(..)
        | Operation::Remove(_)
        | Operation::SyncDir(_) => {}
    }
}

/// The directory whose sync makes an operation last; `None` for those that name nothing.
fn directory(operation: &Operation) -> Option<&Path> {
    match operation {
        Operation::MakeDir(path) | Operation::Write(path, _) | Operation::Remove(path) => path.parent(),
        Operation::Rename(_, to) => to.parent(),
        Operation::SyncFile(_) | Operation::SyncDir(_) => None,
    }
}

/// All disks that a cut right after these operations may leave.
fn disks(start: &Tree, done: &[Operation]) -> Vec<Tree> {
    let is_lasting = |at: usize| {
        let Some(dir) = directory(&done[at]) else { return true };
        done[at..].iter().any(|later| *later == Operation::SyncDir(dir.to_owned()))
    };
    let uncertain: Vec<usize> = (0..done.len()).filter(|at| !is_lasting(*at)).collect();
    assert!(uncertain.len() <= 12, "{} operations are not synced: {done:?}", uncertain.len());
    let mut found: Vec<Tree> = Vec::new();
    for kept in 0..1_u32 << uncertain.len() {
        let mut tree = start.clone();
        for (at, operation) in done.iter().enumerate() {
            let place = uncertain.iter().position(|u| *u == at);
            if place.is_none_or(|bit| kept & (1 << bit) != 0) {
                apply(&mut tree, operation);
            }
        }
        if !found.contains(&tree) {
            found.push(tree);
        }
    }
    found
}

/// Writes a tree to the disk at its own place, and gives it to the test.
fn lay_out(root: &Path, tree: &Tree, torn: Torn) {
    fs::remove_dir_all(root).unwrap();
    for (path, entry) in tree {
        match entry {
            None => fs::create_dir_all(path).unwrap(),
            Some(Content::Synced(bytes)) => fs::write(path, bytes).unwrap(),
            Some(Content::Unsynced(bytes)) => fs::write(path, torn.tear(bytes)).unwrap(),
        }
    }
}

fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::from([(root.to_owned(), None)]);
    for entry in fs::read_dir(root).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            tree.extend(read_tree(&entry.path()));
        } else {
            tree.insert(entry.path(), Some(Content::Synced(fs::read(entry.path()).unwrap())));
        }
    }
    tree
}

/// Does `work` on a disk prepared by `before`, cuts the power after each operation, in each way, and has a new agent's
/// view checked; the check is told whether the work had returned. Gives the number of disks tried.
fn cut_everywhere<B>(
    before: impl FnOnce(&StateDir) -> B,
    work: impl FnOnce(&StateDir, &B),
    check: impl Fn(&StateDir, &Found, bool, &B),
) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ria");
    fs::create_dir(&root).unwrap();
    let state = StateDir::open(&root).unwrap();
    let prepared = before(&state);
    let start = read_tree(&root);
    record::take();
    work(&state, &prepared);
    let done = record::take();
    drop(state);
    assert!(!done.is_empty(), "nothing was done to the disk");
    let mut tried = 0;
    for count in 0..=done.len() {
        for tree in disks(&start, &done[..count]) {
            let is_torn = tree.values().any(|e| matches!(e, Some(Content::Unsynced(_))));
            for torn in if is_torn { &Torn::ALL[..] } else { &Torn::ALL[..1] } {
                lay_out(&root, &tree, *torn);
                let state = StateDir::open(&root).unwrap();
                let found = state.load();
                check(&state, &found, count == done.len(), &prepared);
                drop(state);
                // Once more: what was mended or cleared away at the first start is so at the second.
                let again = StateDir::open(&root).unwrap().load();
                assert_eq!(again.memberships, found.memberships);
                tried += 1;
            }
        }
    }
    record::take();
    tried
}

const KEY: KeyId = KeyId::from_bytes([4; 5]);

#[test]
fn in_a_join_the_keys_are_kept_until_the_network_is() {
    let work = |state: &StateDir, (): &()| {
        let keys = state.pending_keys(KEY).unwrap();
        // From here on the coordinator may know the public keys.
        state.admit(&Membership { keys, ..membership(1) }).unwrap();
        state.forget_pending(KEY);
    };
    let tried = cut_everywhere(
        |_| (),
        work,
        |state, found, returned, ()| {
            assert!(found.damage.is_empty(), "{:?}", found.damage);
            match &found.memberships[..] {
                [] => assert!(!returned, "the network is lost"),
                [one] => assert_eq!(one.identity, membership(1).identity),
                more => panic!("{more:?}"),
            }
            // Whoever asks again goes on, with keys that can be stored.
            state.pending_keys(KEY).unwrap();
        },
    );
    assert!(tried > 50, "{tried}");
}

#[test]
fn keys_that_were_handed_out_survive_until_their_network_is_stored() {
    let keys_at = |state: &StateDir| state.pending_keys(KEY).unwrap();
    let admit = |state: &StateDir, keys: &NodeKeys| {
        state.admit(&Membership { keys: keys.clone(), ..membership(1) }).unwrap();
        state.forget_pending(KEY);
    };
    cut_everywhere(keys_at, admit, |state, found, _, keys| match &found.memberships[..] {
        [] => assert!(state.pending_keys(KEY).unwrap() == *keys, "other keys would be another node"),
        [one] => assert!(one.keys == *keys),
        more => panic!("{more:?}"),
    });
}

#[test]
fn a_part_is_the_old_one_or_the_new_one_and_the_new_one_once_it_was_said_so() {
    let (old, mut new) = (membership(1), membership(1));
    new.identity.enabled = false;
    new.identity.node = NodeId::from_bytes([9; 10]);
    new.certificate.leaf = vec![7; 400];
    new.keys = NodeKeys::generate().unwrap();
    new.contact.time = ria_protocol::time::UnixTime(77);
    let id = old.identity.network;
    let parts: [(Part, Vec<u8>); 4] = [
        (Part::Identity, file::encode(&new.identity).to_vec()),
        (Part::Keys, file::encode(&new.keys).to_vec()),
        (Part::Certificate, file::encode(&new.certificate).to_vec()),
        (Part::Contact, file::encode(&new.contact).to_vec()),
    ];
    for (part, bytes) in parts {
        cut_everywhere(
            |state| state.admit(&old).unwrap(),
            |state, ()| state.put(id, part, &bytes).unwrap(),
            |_, found, returned, ()| {
                assert!(found.damage.is_empty(), "{:?}", found.damage);
                let [is] = &found.memberships[..] else { panic!("{found:?}") };
                let mut wanted = old.clone();
                let replaced = match part {
                    Part::Identity => is.identity == new.identity,
                    Part::Keys => is.keys == new.keys,
                    Part::Certificate => is.certificate == new.certificate,
                    Part::Contact | Part::Map | Part::Live | Part::Kept | Part::Untold => {
                        is.contact == new.contact
                    }
                };
                assert!(replaced || !returned, "{part:?} was said to be stored");
                if replaced {
                    match part {
                        Part::Identity => wanted.identity = new.identity.clone(),
                        Part::Keys => wanted.keys = new.keys.clone(),
                        Part::Certificate => wanted.certificate = new.certificate.clone(),
                        Part::Contact | Part::Map | Part::Live | Part::Kept | Part::Untold => {
                            wanted.contact = new.contact.clone()
                        }
                    }
                }
                assert_eq!(*is, wanted, "{part:?}");
            },
        );
    }
}

#[test]
fn a_network_that_is_joined_again_is_the_old_one_or_the_new_one() {
    let (old, new) = (membership(1), membership(1));
    cut_everywhere(
        |state| state.admit(&old).unwrap(),
        |state, ()| state.admit(&new).unwrap(),
        |_, found, returned, ()| {
            let [one] = &found.memberships[..] else { panic!("{found:?}") };
            assert!(*one == new || (*one == old && !returned));
        },
    );
}

#[test]
fn a_damaged_network_that_is_joined_again_is_kept_for_people() {
    let old = membership(1);
    let damage = |state: &StateDir| {
        state.admit(&old).unwrap();
        for name in ["identity", "identity.copy"] {
            fs::write(state.network(old.identity.network).join(name), b"").unwrap();
        }
        fs::read(state.part(old.identity.network, Part::Keys)).unwrap()
    };
    let new = membership(1);
    cut_everywhere(
        damage,
        |state, _| state.admit(&new).unwrap(),
        |state, found, returned, keys| {
            assert!(!returned || found.memberships == [new.clone()], "{found:?}");
            let kept = state.root.join("unusable").join(format!("{}.1", old.identity.network)).join("keys");
            let in_place = state.part(old.identity.network, Part::Keys);
            let still = [kept, in_place].iter().any(|path| fs::read(path).is_ok_and(|bytes| bytes == *keys));
            assert!(still, "the old keys are gone");
        },
    );
}

#[test]
fn a_network_that_is_left_is_there_or_not() {
    let old = membership(1);
    cut_everywhere(
        |state| state.admit(&old).unwrap(),
        |state, ()| state.erase(old.identity.network).unwrap(),
        |_, found, returned, ()| {
            assert!(found.damage.is_empty(), "{:?}", found.damage);
            assert!(found.memberships.is_empty() || (found.memberships == [old.clone()] && !returned));
        },
    );
}
