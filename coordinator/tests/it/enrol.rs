//! Joining: what makes a robot a member, and what does not.

use ria_protocol::error::ErrorCode;
use ria_protocol::id::KeyId;
use ria_protocol::join_key::{JoinKey, JoinSecret};
use ria_protocol::map::RelayHost;
use ria_protocol::message::{CoordinatorMessage, Hello, NodeMessage};

use crate::support::web::Browser;
use crate::support::{Robot, Server};

/// What an enrolment is refused with.
async fn refused(robot: &Robot, server: &Server, key: &JoinKey) -> ErrorCode {
    let mut connection = robot.connect(server.address).await;
    let request = robot.enrol_request(&connection, key);
    connection.send(&NodeMessage::Enrol(request)).await;
    let refusal = connection.refusal().await;
    assert!(!refusal.text.is_empty());
    refusal.code
}

#[tokio::test]
async fn a_robot_joins_with_a_key_and_gets_map_relays_and_news() {
    let server = Server::start();
    let key = server.key(&["--tag", "arm"]);
    let mut robot = Robot::new("robot-7", &key);
    let (connection, start) = robot.join(server.address, &key).await;
    let snapshot = start.map.snapshot();
    assert_eq!(snapshot.network.name.as_str(), "lab");
    assert_eq!(snapshot.network.mtu, 1280);
    let [own] = &snapshot.members[..] else { panic!("{snapshot:?}") };
    assert_eq!(own.name.as_str(), "robot-7");
    let record = own.record.open(robot.network, &[]).unwrap();
    assert_eq!(
        (record.node, record.wg_key, record.tags),
        (robot.node, robot.wg_key(), vec!["arm".to_owned()])
    );
    let prefixes: Vec<String> = record.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes[0], "10.213.0.2/32");
    assert!(prefixes[1].starts_with("fd") && prefixes[1].ends_with("/128"), "{prefixes:?}");

    let [relay] = &start.relays[..] else { panic!("{:?}", start.relays) };
    assert_eq!(relay.host, RelayHost::Coordinator);
    assert_ne!(relay.udp_port, 0);
    let life = relay.expires.since(connection.welcome.as_ref().unwrap().time).as_secs();
    assert!((47 * 3600..=48 * 3600 + 60).contains(&life), "{life}");
    assert_eq!(start.live, [], "there is nobody else");

    let node = server.json(&["node", "show", "robot-7"]);
    assert_eq!((&node["online"], &node["agent_version"]), (&true.into(), &"test-1".into()));
    drop(connection);
    server.wait_for_node("robot-7", |node| node["online"] == false);

    // The certificate opens the next session.
    let (_connection, start) = robot.come_back(server.address, Some(2)).await;
    assert_eq!(start.map.patches().patches, []);
}

#[tokio::test]
async fn each_key_that_is_not_good_is_refused_with_its_reason() {
    let server = Server::start();
    let other = Server::start();
    let key = server.key(&[]);
    let robot = Robot::new("robot", &key);

    let wrong_secret = JoinKey { secret: JoinSecret::from_bytes([1; 16]), ..key.clone() };
    assert_eq!(refused(&robot, &server, &wrong_secret).await, ErrorCode::JoinKeyUnknown);
    let unknown = JoinKey { key_id: KeyId::from_bytes([1; 5]), ..key.clone() };
    assert_eq!(refused(&robot, &server, &unknown).await, ErrorCode::JoinKeyUnknown);
    assert_eq!(refused(&robot, &server, &other.key(&[])).await, ErrorCode::JoinKeyUnknown);

    let revoked = server.key(&["--reusable"]);
    server.text(&["key", "revoke", &revoked.key_id.to_string()]);
    assert_eq!(refused(&robot, &server, &revoked).await, ErrorCode::JoinKeyRevoked);
    let short = server.key(&["--expires", "1s"]);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(refused(&robot, &server, &short).await, ErrorCode::JoinKeyExpired);

    let mut first = Robot::new("robot", &key);
    first.enrol(server.address, &key).await;
    assert_eq!(refused(&robot, &server, &key).await, ErrorCode::JoinKeyUsed);
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 1);
    let id = revoked.key_id.to_string();
    let listed = server.json(&["audit", "list", "--action", "node.refused", "--about", &id]);
    let [row] = &listed["rows"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&row["actor"], &row["network"].is_null()), (&"address:127.0.0.1".into(), &false), "{row}");
    let detail: serde_json::Value = serde_json::from_str(row["detail"].as_str().unwrap()).unwrap();
    let expected =
        serde_json::json!({ "code": "join-key-revoked", "key": id, "known_key": true, "name": "robot" });
    assert_eq!(detail, expected);
    let all = server.json(&["audit", "list", "--action", "node.refused"]);
    assert_eq!(all["rows"].as_array().unwrap().len(), 6, "{all}");
    server.text(&["user", "add", "ada", "--role", "viewer"]);
    let token = server.text(&["user", "token", "create", "ada", "--label", "p", "--scope", "metrics:read"]);
    let metrics = Browser::token(server.address, token.trim()).get("/metrics").await.text;
    assert!(metrics.contains("ria_joins_refused_total 6\n"), "{metrics}");
    // A key of another coordinator does not even reach the wrong one: its authority is not the pinned one.
    let foreign = Robot::new("robot", &other.key(&[]));
    let error = foreign.tls(server.address).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn both_private_keys_have_to_be_proved_on_this_very_connection() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let robot = Robot::new("robot", &key);
    let send = async |change: &dyn Fn(&mut ria_protocol::enrol::Enrol)| {
        let mut connection = robot.connect(server.address).await;
        let mut request = robot.enrol_request(&connection, &key);
        change(&mut request);
        connection.send(&NodeMessage::Enrol(request)).await;
        connection.refusal().await.code
    };
    assert_eq!(send(&|r| r.proof[0] ^= 1).await, ErrorCode::ProofFailed);
    assert_eq!(send(&|r| r.proof.clear()).await, ErrorCode::ProofFailed);
    // The WireGuard key of somebody else.
    let stranger = Robot::new("stranger", &key);
    assert_eq!(send(&|r| r.wg_key = stranger.wg_key()).await, ErrorCode::ProofFailed);
    // A point of small order gives a shared secret that everybody knows.
    assert_eq!(send(&|r| r.wg_key.0 = [0; 32]).await, ErrorCode::ProofFailed);

    // A proof from one connection is of no use on another.
    let (here, mut there) = (robot.connect(server.address).await, robot.connect(server.address).await);
    let replayed = robot.enrol_request(&here, &key);
    there.send(&NodeMessage::Enrol(replayed)).await;
    assert_eq!(there.refusal().await.code, ErrorCode::ProofFailed);

    // A certificate for a key that is not the connection's, correctly signed and covered by the proof.
    let mut connection = robot.connect(server.address).await;
    let mixed = Robot { tls: rcgen::KeyPair::generate().unwrap(), ..Robot::new("robot", &key) };
    let request = mixed.enrol_request(&connection, &key);
    connection.send(&NodeMessage::Enrol(request)).await;
    assert_eq!(connection.refusal().await.code, ErrorCode::ProofFailed);
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_robot_whose_answer_got_lost_asks_again_and_is_the_same() {
    let server = Server::start();
    let key = server.key(&[]);
    let mut robot = Robot::new("robot", &key);
    let (_, first) = robot.enrol(server.address, &key).await;
    robot.certificate = None;
    let (mut connection, second) = robot.enrol(server.address, &key).await;
    assert_eq!((first.network, first.node, &first.name), (second.network, second.node, &second.name));
    connection.send(&robot.resume(None)).await;
    assert_eq!(
        connection.start().await.map.snapshot().revision.0,
        2,
        "nothing changed by the second request"
    );
    assert_eq!(server.json(&["key", "list"])[0]["uses"], 1);

    // Half of it is somebody else.
    let thief = Robot { wg: robot.wg.clone(), ..Robot::new("thief", &key) };
    assert_eq!(refused(&thief, &server, &key).await, ErrorCode::ProofFailed);
    // Also after the key was revoked, and after a restart.
    server.text(&["key", "revoke", &key.key_id.to_string()]);
    let mut server = server;
    server.kill();
    server.start_again();
    robot.certificate = None;
    assert_eq!(robot.enrol(server.address, &key).await.1.node, first.node);
}

#[tokio::test]
async fn names_are_numbered_unless_a_person_chose_them() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    for expected in ["robot", "robot-2", "robot-3"] {
        let (_, enrolled) = Robot::new("robot", &key).enrol(server.address, &key).await;
        assert_eq!(enrolled.name.as_str(), expected);
    }
    let robot = Robot::new("robot", &key);
    let mut connection = robot.connect(server.address).await;
    let mut request = robot.enrol_request(&connection, &key);
    request.name_required = true;
    connection.send(&NodeMessage::Enrol(request)).await;
    assert_eq!(connection.refusal().await.code, ErrorCode::NameTaken);
}

#[tokio::test]
async fn guessing_is_slowed_down_while_nodes_that_are_members_go_on() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut member = Robot::new("member", &key);
    member.join(server.address, &key).await;
    let guesser = Robot::new("guesser", &key);
    let guess = JoinKey { secret: JoinSecret::from_bytes([1; 16]), ..key.clone() };
    let mut limited = false;
    for _ in 0..15 {
        limited |= refused(&guesser, &server, &guess).await == ErrorCode::RateLimited;
    }
    assert!(limited);
    member.come_back(server.address, None).await;
}

#[tokio::test]
async fn a_key_alone_is_no_membership_and_first_words_have_an_order() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut robot = Robot::new("robot", &key);
    robot.enrol(server.address, &key).await;
    // The registered key with a certificate that the robot signed itself: it has to enrol again.
    robot.certificate = None;
    assert_eq!(robot.refused_to_come_back(server.address).await, ErrorCode::Certificate);
    // Somebody else's certificate.
    let mut other = Robot::new("other", &key);
    other.enrol(server.address, &key).await;
    other.node = robot.node;
    assert_eq!(other.refused_to_come_back(server.address).await, ErrorCode::Certificate);

    for message in [NodeMessage::Leave, NodeMessage::Report(Vec::new()), robot.resume(None)] {
        let mut connection = robot.connect_silently(server.address).await;
        connection.send(&message).await;
        assert_eq!(connection.refusal().await.code, ErrorCode::BadMessage, "{message:?} before Hello");
    }
    let mut connection = robot.connect_silently(server.address).await;
    let hello = Hello { protocol_min: 900, protocol_max: 901, agent_version: String::new() };
    connection.send(&NodeMessage::Hello(hello)).await;
    let CoordinatorMessage::Refused(refusal) = connection.next().await else { panic!() };
    assert_eq!(refusal.code, ErrorCode::ProtocolVersion);
}
