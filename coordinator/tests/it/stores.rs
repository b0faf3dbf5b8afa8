//! The contract of a store, for SQLite and PostgreSQL alike: what was done is there after a kill, in every part of the state,
//! and the log of it holds.

use serde_json::Value;

use crate::support::postgres::Postgres;
use crate::support::{Robot, Server};

/// What the coordinator says of everything that it stores.
fn all_of(server: &Server) -> Vec<(String, Value)> {
    let verbs = [
        "network list",
        "key list",
        "node list",
        "node pending --network lab",
        "url list",
        "relay list",
        "user list",
        "user token list",
        "ca list",
        "policy show --network lab",
        "policy history --network lab",
        "audit list --limit 1000",
    ];
    let ask = |verb: &str| {
        let arguments: Vec<&str> = verb.split(' ').collect();
        let mut said = server.json(&arguments);
        forget_the_moment(&mut said);
        (verb.to_owned(), said)
    };
    verbs.into_iter().map(ask).collect()
}

/// What is of the moment, and not stored.
fn forget_the_moment(value: &mut Value) {
    let momentary = [
        "online",
        "boot",
        "whole",
        "acked_revision",
        "acked_at",
        "candidates",
        "last_contact",
        "expires",
        "load",
        "heard",
        "connected",
        "standalone",
        "udp_port",
        "tls_port",
    ];
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !momentary.contains(&name.as_str()));
            fields.values_mut().for_each(forget_the_moment);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_the_moment),
        _ => {}
    }
}

/// Something of every kind is made, changed and removed.
async fn live_a_life(server: &Server) {
    let key = server.key(&["--reusable", "--tag", "robot"]);
    let cautious = server.key(&["--reusable", "--approve"]);
    server.key(&["--expires", "never"]);
    let revoked = server.json(&["key", "list"])[0]["id"].as_str().unwrap().to_owned();
    let (mut a, mut b, mut gone) = (Robot::new("a", &key), Robot::new("b", &key), Robot::new("gone", &key));
    let (_at_a, _) = a.join(server.address, &key).await;
    let (at_b, _) = b.join(server.address, &key).await;
    drop(gone.join(server.address, &key).await);
    let waits = Robot::new("waits", &cautious);
    let mut waiting = waits.connect(server.address).await;
    let request = waits.enrol_request(&waiting, &cautious);
    waiting.send(&ria_protocol::message::NodeMessage::Enrol(request)).await;
    waiting.next().await;
    drop(at_b);
    for line in [
        "node rename a arm",
        "node tag arm --add left --remove robot",
        "node disable b",
        "node enable b",
        "node disable b",
        "node remove gone",
        "node add-static phone --via arm --endpoint 192.0.2.8:41820 --psk",
        "url add https://second.lab.example",
        "url add https://third.lab.example",
        "url remove https://third.lab.example",
        "relay add annexe",
        "user add ada --role operator",
        "user token create ada --label bench --scope nodes:read",
        "user add grace --in lab=viewer",
        "user remove grace",
        "network multicast lab mdns",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        server.text(&arguments);
    }
    server.text(&["key", "revoke", &revoked]);
    let policy = server.path().join("policy.toml");
    for rule in ["[\"icmp\"]", "[\"tcp/22\"]"] {
        let text =
            format!("[[rule]]\nname = \"Ünïcode 'n quotes\"\nfrom = [\"*\"]\nto = [\"*\"]\nallow = {rule}\n");
        std::fs::write(&policy, text).unwrap();
        server.text(&["policy", "set", "--file", policy.to_str().unwrap()]);
    }
    server.text(&["policy", "rollback", "1"]);
    server.text(&["ca", "roll"]);
    server.text(&["network", "create", "second", "--ros-domains", "per-robot", "--mtu", "1400"]);
}

async fn keeps_its_contract(mut server: Server) {
    live_a_life(&server).await;
    let before = all_of(&server);
    assert!(
        before.iter().all(|(verb, said)| said.as_array().is_none_or(|list| !list.is_empty()) || verb == "x"),
        "{before:#?}"
    );
    server.kill();
    server.start_again();
    for ((verb, before), (_, after)) in before.into_iter().zip(all_of(&server)) {
        assert_eq!(before, after, "{verb}");
    }
    let verdict = server.json(&["audit", "verify"]);
    assert_eq!(verdict["intact"], true, "{verdict}");
    let (status, _) = server.terminate();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_its_contract() {
    keeps_its_contract(Server::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_keeps_its_contract() {
    let postgres = Postgres::start(false);
    keeps_its_contract(Server::start_with_all(postgres.settings(), |_| {})).await;
}
