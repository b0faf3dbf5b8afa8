//! What is stored of joining and leaving besides networks: requests that wait for approval, farewells that no
//! coordinator has heard yet, and keys of networks that were left on purpose.
//!
//! ```text
//! waiting/<key id>             a request that waits for approval; its keys are in pending/<key id>
//! leaving/<network>-<node>     a membership that was left while its coordinator could not be told
//! left                         join keys of networks that were left: no file makes this machine join by them again
//! ```

use std::fs;
use std::io;
use std::path::PathBuf;

use minicbor::{Decode, Encode};
use ria_protocol::enrol::{Certificate, fingerprint};
use ria_protocol::id::{KeyId, NetworkId, NodeId};
use ria_protocol::join_key::{JoinKey, JoinSecret};
use ria_protocol::keys::SpkiHash;
use ria_protocol::name::Name;
use ria_protocol::requester::{LocalDeed, Requester};
use ria_protocol::time::UnixTime;

use super::membership::{Membership, NodeKeys};
use super::untold::Note;
use super::{SaveError, StateDir, disk, file};

/// Keys of left networks that are remembered.
const MOST_LEFT: usize = 64;

/// A request to join that waits for an administrator. It holds no secret: the node is known by its own keys.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WaitingJoin {
    /// The join key.
    #[n(0)]
    pub key_id: KeyId,
    /// Where the coordinator answers, best first.
    #[n(1)]
    pub urls: Vec<String>,
    /// The pin of the join key.
    #[n(2)]
    pub ca_pin: SpkiHash,
    /// The name that was asked for.
    #[n(3)]
    pub wanted: Name,
    /// Whether a person chose it.
    #[n(4)]
    pub name_required: bool,
    /// The network.
    #[n(5)]
    pub network: NetworkId,
    /// The network's name.
    #[n(6)]
    pub network_name: Name,
    /// The identity that this machine will have.
    #[n(7)]
    pub node: NodeId,
    /// The name that it will have.
    #[n(8)]
    pub name: Name,
    /// Since when it waits.
    #[n(9)]
    pub since: UnixTime,
}

impl WaitingJoin {
    /// What asks again, without the secret.
    pub fn key(&self) -> JoinKey {
        JoinKey {
            urls: self.urls.clone(),
            ca_pin: self.ca_pin,
            key_id: self.key_id,
            secret: JoinSecret::from_bytes([0; 16]),
        }
    }
}

/// A membership that was left, to be told to its coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoredFarewell {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The network's name.
    #[n(1)]
    pub network_name: Name,
    /// The node that this machine was.
    #[n(2)]
    pub node: NodeId,
    /// Its name.
    #[n(3)]
    pub name: Name,
    /// Where the coordinator answers.
    #[n(4)]
    pub urls: Vec<String>,
    /// Its keys.
    #[n(5)]
    pub keys: NodeKeys,
    /// Its certificate and whom to trust.
    #[n(6)]
    pub certificate: Certificate,
    /// The coordinator's clock at the last contact.
    #[n(7)]
    pub time: UnixTime,
    /// Who had this machine leave.
    #[n(8)]
    pub by: Requester,
    /// What else the coordinator has not been told of, and when it was left; last that.
    #[n(9)]
    pub notes: Option<Vec<Note>>,
}

impl StoredFarewell {
    /// That of a membership.
    pub fn of(membership: &Membership, by: Requester, now: UnixTime) -> Self {
        let identity = &membership.identity;
        let mut untold = membership.untold.clone();
        untold.add(LocalDeed::Left, by.clone(), now);
        Self {
            network: identity.network,
            network_name: identity.network_name.clone(),
            node: identity.node,
            name: identity.name.clone(),
            urls: identity.urls.clone(),
            keys: membership.keys.clone(),
            certificate: membership.certificate.clone(),
            time: membership.contact.time,
            by,
            notes: Some(untold.notes().to_vec()),
        }
    }
}

impl NodeKeys {
    /// What people compare on both sides before they approve this machine.
    pub fn fingerprint(&self) -> Option<String> {
        use rcgen::PublicKeyData;
        let tls = self.tls().ok()?;
        Some(fingerprint(&SpkiHash::of(&tls.subject_public_key_info()), &self.wg_public()))
    }
}

impl StateDir {
    /// Stores a request that waits.
    pub fn put_waiting(&self, waiting: &WaitingJoin) -> Result<(), SaveError> {
        let path = self.waiting_path(waiting.key_id);
        let store = || {
            self.make_ready()?;
            disk::make_dir(&self.root.join("waiting"))?;
            file::write(&path, &file::encode(waiting))
        };
        store().map_err(|source| SaveError::Disk { path: path.clone(), source })
    }

    /// All requests that wait, with their keys.
    pub fn load_waiting(&self) -> Vec<(WaitingJoin, NodeKeys)> {
        let mut found = Vec::new();
        for key_id in self.names("waiting").iter().filter_map(|name| name.parse::<KeyId>().ok()) {
            let waiting = file::load::<WaitingJoin>(&self.waiting_path(key_id));
            let keys = file::load::<NodeKeys>(&self.root.join("pending").join(key_id.to_string()));
            if let (Ok(Some(waiting)), Ok(Some(keys))) = (waiting, keys) {
                found.push((waiting, keys));
            } else {
                tracing::warn!("a request that waits for approval is damaged; join again with a key");
                self.forget_waiting(key_id);
            }
        }
        found
    }

    /// Forgets a request and its keys.
    pub fn forget_waiting(&self, key: KeyId) {
        let _ = disk::remove_file(&self.waiting_path(key));
        self.forget_pending(key);
    }

    /// Stores that a coordinator has to be told of a leave, in place of the network itself.
    pub fn put_farewell(&self, farewell: &StoredFarewell) -> io::Result<()> {
        self.make_ready()?;
        disk::make_dir(&self.root.join("leaving"))?;
        file::write(&self.farewell_path(farewell.network, farewell.node), &file::encode(farewell))
    }

    /// All farewells that no coordinator has heard. A network whose leaving was cut off is erased.
    pub fn load_farewells(&self) -> Vec<StoredFarewell> {
        let mut found = Vec::new();
        for name in self.names("leaving") {
            let path = self.root.join("leaving").join(name);
            match file::load::<StoredFarewell>(&path) {
                Ok(Some(farewell)) => {
                    let stored = self.load_network(farewell.network);
                    if stored.is_ok_and(|(stored, _)| stored.identity.node == farewell.node) {
                        let _ = self.erase(farewell.network);
                    }
                    found.push(farewell);
                }
                Ok(None) | Err(_) => _ = disk::remove_file(&path),
            }
        }
        found
    }

    /// A coordinator has heard the farewell.
    pub fn forget_farewell(&self, network: NetworkId, node: NodeId) {
        let _ = disk::remove_file(&self.farewell_path(network, node));
    }

    /// Join keys of networks that were left.
    pub fn left_keys(&self) -> Vec<KeyId> {
        if self.foreign {
            return Vec::new();
        }
        file::load(&self.root.join("left")).ok().flatten().unwrap_or_default()
    }

    /// Remembers that a network was left to which this key had led.
    pub fn note_left(&self, key: KeyId) -> io::Result<()> {
        let mut keys = self.left_keys();
        keys.retain(|known| *known != key);
        keys.push(key);
        let surplus = keys.len().saturating_sub(MOST_LEFT);
        keys.drain(..surplus);
        self.make_ready()?;
        file::write(&self.root.join("left"), &file::encode(&keys))
    }

    fn waiting_path(&self, key: KeyId) -> PathBuf {
        self.root.join("waiting").join(key.to_string())
    }

    fn farewell_path(&self, network: NetworkId, node: NodeId) -> PathBuf {
        self.root.join("leaving").join(format!("{network}-{node}"))
    }

    /// Names of the files in a directory, without those that are being written.
    fn names(&self, directory: &str) -> Vec<String> {
        if self.foreign {
            return Vec::new();
        }
        let entries = fs::read_dir(self.root.join(directory)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| !name.contains('.'));
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::membership;
    use super::*;

    fn waiting(key: u8) -> WaitingJoin {
        WaitingJoin {
            key_id: KeyId::from_bytes([key; 5]),
            urls: vec!["https://ria.lab.example".into()],
            ca_pin: SpkiHash([3; 32]),
            wanted: "robot".parse().unwrap(),
            name_required: false,
            network: NetworkId::from_bytes([1; 10]),
            network_name: "lab".parse().unwrap(),
            node: NodeId::from_bytes([2; 10]),
            name: "robot-2".parse().unwrap(),
            since: UnixTime(5),
        }
    }

    #[test]
    fn a_waiting_request_is_found_again_with_its_keys_and_not_without() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let keys = state.pending_keys(waiting(1).key_id).unwrap();
        state.put_waiting(&waiting(1)).unwrap();
        state.put_waiting(&waiting(2)).unwrap();
        assert!(state.load_waiting() == [(waiting(1), keys)]);
        state.forget_waiting(waiting(1).key_id);
        assert!(state.load_waiting().is_empty());
        assert!(state.names("waiting").is_empty() && state.names("pending").is_empty());
    }

    #[test]
    fn a_farewell_outlives_its_network_and_a_leave_that_was_cut_off_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.admit(&membership(1)).unwrap();
        state.admit(&membership(2)).unwrap();
        let farewell = StoredFarewell::of(&membership(1), Requester::default(), UnixTime(5));
        state.put_farewell(&farewell).unwrap();
        assert_eq!(state.load_farewells().len(), 1);
        let left: Vec<_> = state.load().memberships.iter().map(|m| m.identity.network).collect();
        assert_eq!(left, [NetworkId::from_bytes([2; 10])]);
        state.forget_farewell(farewell.network, farewell.node);
        assert!(state.load_farewells().is_empty());
    }

    #[test]
    fn the_latest_left_keys_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let key = |n: usize| KeyId::from_bytes([0, 0, 0, 0, u8::try_from(n).unwrap()]);
        (0..=MOST_LEFT).chain([1]).for_each(|n| state.note_left(key(n)).unwrap());
        let left = state.left_keys();
        assert_eq!((left.len(), left.last()), (MOST_LEFT, Some(&key(1))));
        assert!(!left.contains(&key(0)));
    }
}
