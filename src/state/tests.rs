//! What is stored survives restarts, crashes and damage.

use std::os::unix::fs::PermissionsExt;

use ria_protocol::enrol::{Authority, Certificate};
use ria_protocol::id::NodeId;
use ria_protocol::keys::SpkiHash;
use ria_protocol::time::UnixTime;

use super::membership::{Contact, Identity};
use super::*;

fn membership(id: u8) -> Membership {
    Membership {
        identity: Identity {
            network: NetworkId::from_bytes([id; 10]),
            network_name: "lab".parse().unwrap(),
            node: NodeId::from_bytes([2; 10]),
            name: "robot-7".parse().unwrap(),
            urls: vec!["https://ria.lab.example".into()],
            ca_pin: SpkiHash([3; 32]),
            key_id: KeyId::from_bytes([4; 5]),
            enabled: true,
            interface: 0,
            refused: None,
        },
        keys: NodeKeys::generate().unwrap(),
        certificate: Certificate {
            leaf: vec![1],
            authorities: vec![Authority(vec![2])],
            not_after: UnixTime(5),
        },
        map: None,
        live: vec![],
        contact: Contact { address: None, time: UnixTime(9), relays: vec![] },
    }
}

#[test]
fn networks_are_stored_privately_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ria");
    let state = StateDir::open(&root).unwrap();
    let (one, two) = (membership(1), membership(2));
    state.admit(&one).unwrap();
    state.admit(&two).unwrap();
    assert_eq!(state.load().memberships, [one, two.clone()]);
    state.erase(NetworkId::from_bytes([1; 10])).unwrap();
    assert_eq!(state.load().memberships, [two]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    let stored = root.join("networks").join(NetworkId::from_bytes([2; 10]).to_string());
    assert_eq!((mode(&stored), mode(&stored.join("keys"))), (0o700, 0o600));
}

#[test]
fn a_second_agent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = StateDir::open(dir.path()).unwrap();
    let error = StateDir::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    drop(first);
    assert!(StateDir::open(dir.path()).is_ok());
}

#[test]
fn an_unfinished_join_goes_on_with_the_same_keys() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyId::from_bytes([7; 5]);
    let keys = StateDir::open(dir.path()).unwrap().pending_keys(key).unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    assert!(state.pending_keys(key).unwrap() == keys);
    assert!(state.pending_keys(KeyId::from_bytes([8; 5])).unwrap() != keys);
    state.forget_pending(key);
    assert!(state.pending_keys(key).unwrap() != keys);
}

#[test]
fn a_damaged_spare_part_costs_nothing_but_itself_and_a_needed_one_its_network() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    state.admit(&membership(1)).unwrap();
    state.admit(&membership(2)).unwrap();
    let path = |id: u8, part| state.part(NetworkId::from_bytes([id; 10]), part);
    fs::write(path(1, Part::Map), b"rubbish").unwrap();
    fs::write(path(1, Part::Contact), b"").unwrap();
    fs::write(path(2, Part::Keys), b"ria-state-1\nrubbish").unwrap();
    let found = state.load();
    assert_eq!(found.memberships.len(), 1);
    assert_eq!(found.memberships[0].contact, Contact::default());
    assert_eq!(found.damage.len(), 3, "{:?}", found.damage);
    assert!(found.damage[2].contains("keys is damaged") && found.damage[2].contains("join again"));
    assert!(path(1, Part::Map).with_extension("damaged").exists());
    assert!(path(2, Part::Keys).with_extension("damaged").exists());
}

#[test]
fn what_a_crash_left_half_made_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    {
        let state = StateDir::open(dir.path()).unwrap();
        state.admit(&membership(1)).unwrap();
    }
    let networks = dir.path().join("networks");
    for left in [".new-abc", ".gone-abc"] {
        fs::create_dir(networks.join(left)).unwrap();
        fs::write(networks.join(left).join("keys"), b"x").unwrap();
    }
    let state = StateDir::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(&networks).unwrap().count(), 1);
    assert_eq!(state.load().memberships.len(), 1);
}
