//! Changes of keys: a node's WireGuard key, the certification authority, and what is issued for a short time.

use std::time::Duration;

use ria_protocol::error::ErrorCode;
use ria_protocol::join_key::JoinKey;
use ria_protocol::map::Patch;
use ria_protocol::message::{CoordinatorMessage, NodeMessage};
use ria_protocol::rotation::{Rotate, Transcript, proof};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::support::robot::pins;
use crate::support::{Connection, Robot, Server};

/// A proof of another key on a connection, as it should be.
fn rotate(connection: &Connection, wg: &StaticSecret) -> Rotate {
    let challenge = connection.welcome.as_ref().unwrap().challenge;
    let wg_key = ria_protocol::keys::WgPublicKey(PublicKey::from(wg).to_bytes());
    let shared = wg.diffie_hellman(&PublicKey::from(challenge.0));
    let transcript = Transcript { exporter: &connection.exporter, challenge: &challenge, wg_key: &wg_key };
    Rotate { wg_key, proof: proof(shared.as_bytes(), &transcript) }
}

#[tokio::test]
async fn a_node_changes_its_key_and_keeps_its_address() {
    let mut server = Server::start();
    let key = server.key(&["--reusable"]);
    let (mut a, mut b) = (Robot::new("a", &key), Robot::new("b", &key));
    drop(a.join(server.address, &key).await);
    drop(b.join(server.address, &key).await);
    let (mut at_a, _) = a.come_back(server.address, None).await;
    let (mut at_b, _) = b.come_back(server.address, None).await;
    let before = server.json(&["node", "show", "b"]);

    let next = StaticSecret::random();
    let request = rotate(&at_b, &next);
    at_b.send(&NodeMessage::Rotate(request.clone())).await;
    for connection in [&mut at_a, &mut at_b] {
        let set = connection.patches().await;
        let [Patch::MemberSet(member)] = &set.patches[..] else { panic!("{set:?}") };
        let record = member.record.open(b.network, &[]).unwrap();
        assert_eq!((record.node, record.wg_key), (b.node, request.wg_key));
    }
    // A challenge is good for one proof.
    at_b.send(&NodeMessage::Rotate(request.clone())).await;
    assert_eq!(at_b.refusal().await.code, ErrorCode::BadMessage);

    server.kill();
    server.start_again();
    let after = server.json(&["node", "show", "b"]);
    assert_eq!(after["wg_key"], request.wg_key.to_string());
    assert_eq!((&after["addresses"], &after["id"]), (&before["addresses"], &before["id"]));
    let audit = server.json(&["audit", "list"]);
    let rows = audit["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["action"] == "node.key-rotated" && row["subject"] == "b"));

    // Asking again for what is so already changes nothing; the key of another is refused, and a proof of none.
    let revision = after["map_revision"].clone();
    let (mut at_b, _) = b.come_back(server.address, None).await;
    let again = rotate(&at_b, &next);
    at_b.send(&NodeMessage::Rotate(again)).await;
    let (mut other, _) = b.come_back(server.address, None).await;
    assert_eq!(server.json(&["node", "show", "b"])["map_revision"], revision);
    let taken = rotate(&other, &a.wg);
    other.send(&NodeMessage::Rotate(taken)).await;
    assert_eq!(other.refusal().await.code, ErrorCode::KeyTaken);
    let (mut other, _) = b.come_back(server.address, None).await;
    let mut forged = rotate(&other, &StaticSecret::random());
    forged.wg_key = a.wg_key();
    other.send(&NodeMessage::Rotate(forged)).await;
    assert_eq!(other.refusal().await.code, ErrorCode::ProofFailed);
}

async fn authorities(connection: &mut Connection) -> Vec<ria_protocol::enrol::Authority> {
    let wanted = |message| match message {
        CoordinatorMessage::Authorities(authorities) => Some(authorities),
        _ => None,
    };
    connection.next_of(wanted).await
}

#[tokio::test]
async fn an_authority_is_followed_by_another_and_nobody_is_locked_out() {
    let mut server = Server::start();
    let old: JoinKey = server.key(&["--reusable"]);
    let (mut here, mut away) = (Robot::new("here", &old), Robot::new("away", &old));
    drop(away.join(server.address, &old).await);
    let (mut at_here, _) = here.join(server.address, &old).await;
    let first = server.json(&["ca", "list"])[0]["id"].clone();

    let listed = server.json(&["ca", "roll"]);
    assert_eq!((&listed[0]["status"], &listed[1]["status"]), (&"in-use".into(), &"trusted".into()));
    assert_eq!(listed[1]["id"], first);
    let told = authorities(&mut at_here).await;
    let certificate = here.certificate.as_mut().unwrap();
    certificate.authorities = told;
    assert_eq!(pins(certificate).len(), 2);
    let new: JoinKey = server.key(&["--reusable"]);
    assert_eq!(pins(certificate), [new.ca_pin, old.ca_pin]);
    drop(at_here);

    server.kill();
    server.start_again();
    // Who was away is told as it comes back with its old certificate; a renewed one is by the new authority.
    let (mut at_away, _) = away.come_back(server.address, None).await;
    assert_eq!(authorities(&mut at_away).await.len(), 2);
    at_away.send(&NodeMessage::Renew(away.csr())).await;
    let renewed = at_away
        .next_of(|message| match message {
            CoordinatorMessage::Renewed(certificate) => Some(certificate),
            _ => None,
        })
        .await;
    away.certificate = Some(renewed);
    away.pin = new.ca_pin;
    drop(away.come_back(server.address, None).await);
    // Both join keys lead here.
    for (name, key) in [("by-old", &old), ("by-new", &new)] {
        let (_, enrolled) = Robot::new(name, key).enrol(server.address, key).await;
        assert_eq!(pins(&enrolled.certificate), [new.ca_pin, old.ca_pin]);
    }
    assert!(!server.data_dir().join("identity/ca.key").exists(), "the old private key is still there");

    let (mut at_here, _) = here.come_back(server.address, None).await;
    assert_eq!(server.command(&["ca", "retire", listed[0]["id"].as_str().unwrap()]).status.code(), Some(1));
    let listed = server.json(&["ca", "retire", first.as_str().unwrap()]);
    assert_eq!(listed[1]["status"], "retired");
    assert_eq!(authorities(&mut at_here).await.len(), 1);
    // Who has slept through all of it still finds the way.
    drop(Robot::new("late", &old).enrol(server.address, &old).await);
    let audit = server.json(&["audit", "list"]);
    assert_eq!(audit["chain"]["intact"], true);
    let rows = audit["rows"].as_array().unwrap();
    for action in ["ca.rolled", "ca.retired"] {
        assert!(rows.iter().any(|row| row["action"] == action), "{action}");
    }
}

#[tokio::test]
async fn relay_credentials_are_renewed_before_they_end() {
    let server = Server::start_with("RIA_RELAY_CREDENTIALS", "8s");
    let key = server.key(&[]);
    let mut robot = Robot::new("robot", &key);
    let (mut connection, start) = robot.join(server.address, &key).await;
    let now = connection.welcome.as_ref().unwrap().time;
    let life = start.relays[0].expires.since(now);
    assert!(life <= Duration::from_secs(9), "{life:?}");
    let renewed = connection
        .next_of(|message| match message {
            CoordinatorMessage::Relays(relays) => Some(relays),
            _ => None,
        })
        .await;
    assert!(renewed[0].expires > start.relays[0].expires);
    assert_ne!(renewed[0].password, start.relays[0].password);
}

#[test]
fn lifetimes_that_are_too_short_are_mistakes() {
    let server = Server::start();
    let checked = |name: &str, value: &str| {
        let mut command = crate::support::server::program(server.path());
        command.env(name, value).arg("check-config").output().unwrap()
    };
    for name in ["RIA_CERTIFICATES_LIFETIME", "RIA_CERTIFICATES_MEMBERSHIP", "RIA_RELAY_CREDENTIALS"] {
        for bad in ["1s", "never", "soon"] {
            let output = checked(name, bad);
            assert_eq!(output.status.code(), Some(2), "{name}={bad}");
            assert!(String::from_utf8_lossy(&output.stderr).contains(name));
        }
        assert!(checked(name, "90d").status.success());
    }
}
