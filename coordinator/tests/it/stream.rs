//! Sessions: who is told what, and when it ends.

use std::time::{Duration, Instant};

use rcgen::{CertificateParams, Issuer, KeyPair};
use ria_protocol::error::ErrorCode;
use ria_protocol::join_key::JoinKey;
use ria_protocol::map::{Candidate, CandidateKind, Patch, Revision};
use ria_protocol::message::{CoordinatorMessage, Hello, NodeMessage};

use crate::support::{Connection, Robot, Server, Start, soon};

/// Two members with sessions, and what `b`, who came last, was told.
struct Pair {
    key: JoinKey,
    a: Robot,
    b: Robot,
    at_a: Connection,
    at_b: Connection,
    start: Start,
}

impl Pair {
    async fn join(server: &Server) -> Self {
        let key = server.key(&["--reusable"]);
        let (mut a, mut b) = (Robot::new("a", &key), Robot::new("b", &key));
        let (at_a, _) = a.join(server.address, &key).await;
        let (at_b, start) = b.join(server.address, &key).await;
        Self { key, a, b, at_a, at_b, start }
    }
}

fn candidate(text: &str) -> Candidate {
    Candidate { kind: CandidateKind::Host, address: text.parse().unwrap() }
}

#[tokio::test]
async fn members_hear_of_each_other() {
    let server = Server::start();
    let Pair { a, b, mut at_a, mut at_b, start, .. } = Pair::join(&server).await;
    assert_eq!(start.map.snapshot().members.len(), 2);
    assert_eq!(start.live.len(), 1);
    assert!(start.live[0].online && start.live[0].node == a.node && start.live[0].boot == Some(a.boot));

    let set = at_a.patches().await;
    assert_eq!((set.from, set.to), (Revision(2), Revision(3)));
    let [Patch::MemberSet(member)] = &set.patches[..] else { panic!("{set:?}") };
    assert_eq!(member.record.open(a.network, &[]).unwrap().node, b.node);
    at_a.news(b.node, |live| live.online).await;

    let (good, loopback) = (candidate("192.0.2.7:41820"), candidate("127.0.0.1:41820"));
    at_b.send(&NodeMessage::Report(vec![good, loopback, good])).await;
    let live = at_a.news(b.node, |live| !live.candidates.is_empty()).await;
    assert_eq!(live.candidates, [good], "doubles and addresses of no use are dropped");
    // An empty report is no reason to forget what was known.
    at_b.send(&NodeMessage::Report(Vec::new())).await;
    at_b.send(&NodeMessage::Ack(Revision(3))).await;
    let node = server.wait_for_node("b", |node| node["acked_revision"] == 3);
    assert_eq!(node["candidates"][0]["address"], "192.0.2.7:41820");
    assert_eq!(node["map_revision"], 3);

    drop(at_b);
    let live = at_a.news(b.node, |live| !live.online).await;
    assert_eq!(live.candidates, [good], "where it was is still worth knowing");
}

#[tokio::test]
async fn a_session_resumes_by_revision_also_after_a_restart_of_the_coordinator() {
    let mut server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut a = Robot::new("a", &key);
    a.join(server.address, &key).await;
    for name in ["b", "c", "d"] {
        Robot::new(name, &key).enrol(server.address, &key).await;
    }
    server.text(&["node", "remove", "c"]);
    server.kill();
    server.start_again();

    let (_, start) = a.come_back(server.address, Some(2)).await;
    let set = start.map.patches();
    assert_eq!((set.from, set.to, set.patches.len()), (Revision(2), Revision(6), 4));
    assert!(matches!(set.patches[3], Patch::MemberRemoved(_)));
    let (_, start) = a.come_back(server.address, Some(6)).await;
    let set = start.map.patches();
    assert_eq!((set.from, set.to, set.patches.len()), (Revision(6), Revision(6), 0));
    // A revision that this coordinator never had: it was set up from an old backup, say.
    let (_, start) = a.come_back(server.address, Some(7)).await;
    let snapshot = start.map.snapshot();
    assert_eq!((snapshot.revision, snapshot.members.len()), (Revision(6), 3));
    // Addresses stay what they were, and a freed one is not given away at once.
    let (_, enrolled) = Robot::new("e", &key).enrol(server.address, &key).await;
    let node = server.json(&["node", "show", enrolled.name.as_str()]);
    assert_eq!(node["addresses"][0], "10.213.0.6");
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_the_others_are_told() {
    let server = Server::start();
    let Pair { key, mut b, mut at_a, mut at_b, .. } = Pair::join(&server).await;
    at_a.patches().await;
    server.text(&["node", "remove", "b"]);
    let refusal = at_b.refusal().await;
    assert_eq!(refusal.code, ErrorCode::NotAMember);
    assert_eq!(at_a.patches().await.patches, [Patch::MemberRemoved(b.node)]);
    assert_eq!(b.refused_to_come_back(server.address).await, ErrorCode::NotAMember);
    assert_eq!(server.command(&["node", "show", "b"]).status.code(), Some(1));

    // With the reusable key it may come again, as somebody new.
    let before = b.node;
    let (_, start) = b.join(server.address, &key).await;
    assert_ne!(b.node, before);
    assert_eq!(start.map.snapshot().members.len(), 2);
}

#[tokio::test]
async fn a_disabled_node_is_kept_out_and_keeps_its_place() {
    let mut server = Server::start();
    let Pair { key, a, mut b, mut at_a, mut at_b, .. } = Pair::join(&server).await;
    at_a.patches().await;
    for _ in 0..2 {
        let node = server.json(&["node", "disable", "b"]);
        assert!(node["disabled"].is_u64(), "{node}");
    }
    assert_eq!(at_b.refusal().await.code, ErrorCode::Disabled);
    assert_eq!(at_a.patches().await.patches, [Patch::MemberRemoved(b.node)]);
    assert_eq!(b.refused_to_come_back(server.address).await, ErrorCode::Disabled);
    // To an agent that does not know the word, it is something that passes.
    let mut older = b.connect_silently(server.address).await;
    let hello = Hello { protocol_min: 1, protocol_max: 1, agent_version: "old".to_owned() };
    older.send(&NodeMessage::Hello(hello)).await;
    older.next().await;
    older.send(&b.resume(None)).await;
    let refusal = older.refusal().await;
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    assert!(refusal.text.contains("disabled"), "{refusal:?}");
    // Enrolling again with its keys is no way around it, nor does its name come free.
    let mut again = b.connect(server.address).await;
    again.send(&NodeMessage::Enrol(b.enrol_request(&again, &key))).await;
    assert_eq!(again.refusal().await.code, ErrorCode::Disabled);
    let (_, other) = Robot::new("b", &key).enrol(server.address, &key).await;
    assert_eq!(other.name.as_str(), "b-2");

    server.kill();
    server.start_again();
    assert_eq!(b.refused_to_come_back(server.address).await, ErrorCode::Disabled);
    let (_, start) = a.come_back(server.address, None).await;
    let listed = start.map.snapshot().members;
    assert!(listed.iter().all(|m| m.name.as_str() != "b"), "{listed:?}");

    assert_eq!(server.json(&["node", "enable", "b"])["disabled"], serde_json::Value::Null);
    let before = b.node;
    let (_, start) = b.come_back(server.address, None).await;
    let snapshot = start.map.snapshot();
    assert_eq!((b.node, snapshot.members.len()), (before, 3));
    let (_, enrolled) = b.enrol(server.address, &key).await;
    assert_eq!(enrolled.node, before);
}

#[tokio::test]
async fn a_node_that_leaves_is_gone() {
    let server = Server::start();
    let Pair { b, mut at_a, mut at_b, .. } = Pair::join(&server).await;
    at_a.patches().await;
    at_b.send(&NodeMessage::Leave).await;
    at_b.next_of(|m| matches!(m, CoordinatorMessage::Left).then_some(())).await;
    assert!(at_b.next_or_end().await.is_none());
    assert_eq!(at_a.patches().await.patches, [Patch::MemberRemoved(b.node)]);
    let audit = server.json(&["audit", "list"]);
    let last = audit["rows"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["action"], &last["subject"]), (&"node.left".into(), &"b".into()));
    assert_eq!(last["actor"], format!("node:{}", b.node));
}

#[tokio::test]
async fn a_newer_session_takes_over_and_the_node_stays_online() {
    let server = Server::start();
    let Pair { mut b, mut at_a, at_b: mut old, .. } = Pair::join(&server).await;
    at_a.news(b.node, |live| live.online).await;
    b.boot = ria_protocol::id::BootId::from_bytes([8; 10]);
    let (mut new, _) = b.come_back(server.address, None).await;
    while old.next_or_end().await.is_some() {}
    let boot = b.boot;
    at_a.news(b.node, |live| live.online && live.boot == Some(boot)).await;
    // What the old session would still say, no longer counts.
    new.send(&NodeMessage::Report(vec![candidate("192.0.2.9:1")])).await;
    at_a.news(b.node, |live| live.online && !live.candidates.is_empty()).await;
    assert_eq!(server.json(&["node", "show", "b"])["online"], true);
}

#[tokio::test]
async fn a_certificate_is_renewed_and_an_expired_one_still_opens_the_door_to_that() {
    let server = Server::start();
    let key = server.key(&[]);
    let mut robot = Robot::new("robot", &key);
    let (mut connection, _) = robot.join(server.address, &key).await;
    let first = robot.certificate.clone().unwrap();
    let life = first.not_after.since(connection.welcome.as_ref().unwrap().time);
    assert!(
        life > Duration::from_secs(7 * 24 * 3600 - 60) && life <= Duration::from_secs(7 * 24 * 3600 + 60)
    );

    // The same as the coordinator would have issued two weeks ago.
    let identity = server.data_dir().join("identity");
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(identity.join("ca.key")).unwrap()).unwrap();
    let ca = std::fs::read_to_string(identity.join("ca.crt")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 8);
    let expired = params.signed_by(&robot.tls, &issuer).unwrap();
    robot.certificate.as_mut().unwrap().leaf = expired.der().to_vec();
    let (mut connection_2, _) = robot.come_back(server.address, None).await;
    connection_2.send(&NodeMessage::Renew(robot.csr())).await;
    let renewed = connection_2
        .next_of(|m| match m {
            CoordinatorMessage::Renewed(certificate) => Some(certificate),
            _ => None,
        })
        .await;
    assert_eq!(renewed.authorities, first.authorities);
    robot.certificate = Some(renewed);
    let (mut last, _) = robot.come_back(server.address, None).await;

    // For its own key only.
    let other = Robot::new("other", &key);
    last.send(&NodeMessage::Renew(other.csr())).await;
    assert_eq!(last.refusal().await.code, ErrorCode::ProofFailed);
    while connection.next_or_end().await.is_some() {}
}

#[tokio::test]
async fn on_sigterm_nodes_are_told_to_come_back_and_the_program_ends_well() {
    let mut server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut robots = Vec::new();
    for _ in 0..5 {
        let mut robot = Robot::new("robot", &key);
        let (connection, _) = robot.join(server.address, &key).await;
        robots.push((robot, connection));
    }
    // One that never reads must not hold up the end.
    let (_stuck, _never_read) = robots.pop().unwrap();
    let (status, took) = server.terminate();
    assert_eq!(status.code(), Some(0));
    // A session that never reads is given up after a few seconds; the rest is for a busy machine.
    assert!(took < Duration::from_secs(20), "{took:?}");
    for (_, connection) in &mut robots {
        let wait = connection
            .next_of(|m| match m {
                CoordinatorMessage::Drain(milliseconds) => Some(milliseconds),
                _ => None,
            })
            .await;
        assert!((500..5000).contains(&wait), "{wait}");
        assert!(connection.next_or_end().await.is_none());
    }
    server.start_again();
    let (robot, _) = &robots[0];
    robot.come_back(server.address, Some(6)).await;
}

#[tokio::test]
async fn a_node_that_falls_silent_is_offline_after_a_while() {
    let server = Server::start();
    // One is never read from again, so pings are not answered; the connection stays open.
    let Pair { b, mut at_a, at_b: _silent, .. } = Pair::join(&server).await;
    at_a.news(b.node, |live| live.online).await;
    let began = Instant::now();
    let gone = async {
        loop {
            match at_a.next_or_end().await {
                Some(CoordinatorMessage::Live(update))
                    if update.members.iter().any(|l| l.node == b.node && !l.online) =>
                {
                    return;
                }
                Some(_) => {}
                None => panic!("the session that answers pings was closed"),
            }
        }
    };
    // Each message within the usual patience, hence in steps: pings keep the connection busy meanwhile.
    tokio::time::timeout(Duration::from_secs(40), gone).await.expect("still online");
    assert!(began.elapsed() > Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn several_networks_are_apart() {
    let server = Server::start();
    server.text(&["network", "create", "field"]);
    let (lab, field) = (server.key(&["--network", "lab", "--reusable"]), server.key(&["--network", "field"]));
    let (mut a, mut b, mut c) = (Robot::new("a", &lab), Robot::new("b", &lab), Robot::new("a", &field));
    let (mut at_a, _) = a.join(server.address, &lab).await;
    let (_at_c, start) = c.join(server.address, &field).await;
    let snapshot = start.map.snapshot();
    assert_eq!((snapshot.network.name.as_str(), snapshot.members.len()), ("field", 1));
    assert_eq!(snapshot.network.prefix_v4.to_string(), "10.214.0.0/16");
    // The next thing that `a` hears is of its own network.
    b.enrol(server.address, &lab).await;
    let set = loop {
        match soon(at_a.next()).await {
            CoordinatorMessage::Patches(set) => break set,
            // What it is given to keep is about itself.
            CoordinatorMessage::Keep(_) => {}
            other => panic!("{other:?}"),
        }
    };
    let [Patch::MemberSet(member)] = &set.patches[..] else { panic!("{set:?}") };
    assert_eq!(member.name.as_str(), "b");
    assert_eq!(server.command(&["key", "create"]).status.code(), Some(1), "which network?");
}

#[tokio::test]
async fn an_idle_node_costs_the_coordinator_little_memory() {
    const NODES: usize = 80;
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut robots = Vec::new();
    for _ in 0..NODES {
        let mut robot = Robot::new("robot", &key);
        drop(robot.enrol(server.address, &key).await);
        robots.push(robot);
    }
    let before = server.resident_kib();
    let mut sessions = Vec::new();
    for robot in &robots {
        sessions.push(robot.come_back(server.address, Some(NODES as u64 + 1)).await);
    }
    let each = server.resident_kib().saturating_sub(before) / NODES as u64;
    println!("{each} KiB for each of {NODES} connected nodes");
    assert!(each <= 80, "{each} KiB for each connected node");
}
