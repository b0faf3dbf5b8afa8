//! What is stored survives restarts, crashes and damage.

use std::os::unix::fs::PermissionsExt;

use ria_protocol::enrol::{Authority, Certificate};
use ria_protocol::id::NodeId;
use ria_protocol::keys::SpkiHash;
use ria_protocol::time::UnixTime;

use super::membership::{Contact, Identity};
use super::*;

pub(crate) fn membership(id: u8) -> Membership {
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
            suspended: None,
            ended: None,
        },
        keys: NodeKeys::generate().unwrap(),
        certificate: Certificate {
            leaf: vec![1],
            authorities: vec![Authority(vec![2])],
            not_after: UnixTime(5),
            issued: None,
            membership: None,
        },
        map: None,
        live: vec![],
        contact: Contact { time: UnixTime(9), ..Contact::default() },
        kept: Default::default(),
        untold: Default::default(),
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
fn a_damaged_spare_part_costs_nothing_but_itself() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    state.admit(&membership(1)).unwrap();
    let path = |part| state.part(NetworkId::from_bytes([1; 10]), part);
    fs::write(path(Part::Map), b"rubbish").unwrap();
    fs::write(path(Part::Contact), b"").unwrap();
    let found = state.load();
    assert_eq!(found.memberships[0].contact, Contact::default());
    let parts: Vec<_> = found.damage.iter().map(|d| d.part).collect();
    assert_eq!(parts, [Some(Part::Map), Some(Part::Contact)], "{:?}", found.damage);
    assert!(path(Part::Map).with_extension("damaged").exists());
    assert!(found.damage[0].text.contains("comes again"), "{:?}", found.damage);
}

/// What a bad disk, a bad cable or a careless hand makes of a file.
fn spoil(path: &Path) -> Vec<Box<dyn Fn() + '_>> {
    let whole = fs::read(path).unwrap();
    let (cut, mut flipped, newer) = (whole[..whole.len() / 2].to_vec(), whole.clone(), b"ria-state-9\nabc");
    flipped[whole.len() / 2] ^= 4;
    let write =
        move |bytes: Vec<u8>| -> Box<dyn Fn() + '_> { Box::new(move || fs::write(path, &bytes).unwrap()) };
    vec![
        write(cut),
        write(flipped),
        write(Vec::new()),
        write(newer.to_vec()),
        Box::new(move || fs::remove_file(path).unwrap()),
        Box::new(move || {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ]
}

#[test]
fn one_damaged_file_of_an_indispensable_part_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let whole = membership(1);
    state.admit(&whole).unwrap();
    for part in [Part::Identity, Part::Keys, Part::Certificate] {
        let path = state.part(whole.identity.network, part);
        for path in [path.clone(), copy_of(&path)] {
            for spoil in spoil(&path) {
                spoil();
                let found = state.load();
                assert_eq!((&found.memberships[..], &found.damage[..]), (&[whole.clone()][..], &[][..]));
                assert!(path.is_file(), "{} is mended", path.display());
            }
        }
    }
}

#[test]
fn a_network_that_lost_both_files_is_told_of_and_left_as_it_is_until_one_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let (one, two) = (membership(1), membership(2));
    state.admit(&one).unwrap();
    state.admit(&two).unwrap();
    let path = state.part(two.identity.network, Part::Keys);
    let backup = fs::read(&path).unwrap();
    for file in [path.clone(), copy_of(&path)] {
        fs::write(file, b"ria-state-1\nrubbish").unwrap();
    }
    let found = state.load();
    assert_eq!(found.memberships, std::slice::from_ref(&one), "the other network is as it was");
    let [damage] = &found.damage[..] else { panic!("{found:?}") };
    assert_eq!((damage.network, damage.part), (two.identity.network, None));
    assert!(damage.text.contains("keys is damaged") && damage.text.contains("join again"), "{}", damage.text);
    assert!(path.exists() && copy_of(&path).exists(), "nothing was taken away");
    fs::write(&path, backup).unwrap();
    assert_eq!(state.load().memberships, [one, two]);
}

#[test]
fn state_of_before_there_were_copies_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let whole = membership(1);
    state.admit(&whole).unwrap();
    let copy = copy_of(&state.part(whole.identity.network, Part::Keys));
    fs::remove_file(&copy).unwrap();
    assert_eq!(state.load().memberships, [whole]);
    assert!(copy.exists());
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
