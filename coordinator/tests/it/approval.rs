//! Nodes that wait until an administrator has approved them.

use std::time::Duration;

use rcgen::PublicKeyData;
use ria_protocol::enrol::{Enrolled, MembershipNews, Waiting, fingerprint};
use ria_protocol::error::ErrorCode;
use ria_protocol::join_key::{JoinKey, JoinSecret};
use ria_protocol::keys::SpkiHash;
use ria_protocol::message::{CoordinatorMessage, Hello, NodeMessage};
use serde_json::Value;

use crate::support::{Connection, Robot, Server};

/// Asks to be let in; the connection, and what the queue says.
async fn ask(robot: &Robot, server: &Server, key: &JoinKey) -> (Connection, Waiting) {
    let mut connection = robot.connect(server.address).await;
    let request = robot.enrol_request(&connection, key);
    connection.send(&NodeMessage::Enrol(request)).await;
    let waiting = waiting(&mut connection).await;
    (connection, waiting)
}

async fn waiting(connection: &mut Connection) -> Waiting {
    match connection.next().await {
        CoordinatorMessage::Membership(MembershipNews::Waiting(waiting)) => waiting,
        other => panic!("expected to wait, got {other:?}"),
    }
}

async fn let_in(connection: &mut Connection) -> Enrolled {
    connection
        .next_of(|m| match m {
            CoordinatorMessage::Enrolled(enrolled) => Some(enrolled),
            _ => None,
        })
        .await
}

fn fingerprint_of(robot: &Robot) -> String {
    fingerprint(&SpkiHash::of(&robot.tls.subject_public_key_info()), &robot.wg_key())
}

fn pending(server: &Server) -> Vec<Value> {
    server.json(&["node", "pending"]).as_array().unwrap().clone()
}

#[tokio::test]
async fn a_node_waits_hears_of_its_approval_at_once_and_is_who_was_approved() {
    let server = Server::start();
    let key = server.key(&["--reusable", "--approve", "--tag", "arm"]);
    let mut robot = Robot::new("robot", &key);
    let (mut connection, waiting) = ask(&robot, &server, &key).await;
    assert_eq!((waiting.name.as_str(), waiting.network_name.as_str()), ("robot", "lab"));
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 0, "it is no member yet");

    let [entry] = &pending(&server)[..] else { panic!() };
    let print = fingerprint_of(&robot);
    assert_eq!((&entry["fingerprint"], &entry["state"]), (&print.clone().into(), &"waiting".into()));
    assert_eq!((&entry["connected"], &entry["tags"]), (&true.into(), &serde_json::json!(["arm"])));
    let used = server.json(&["key", "show", &key.key_id.to_string()]);
    assert_eq!((&used["uses"], &used["used_by"][0]["state"]), (&1.into(), &"waiting".into()));

    server.text(&["node", "approve", &print]);
    let enrolled = let_in(&mut connection).await;
    assert_eq!((enrolled.node, enrolled.name.as_str()), (waiting.node, "robot"));
    (robot.network, robot.node) = (enrolled.network, enrolled.node);
    robot.certificate = Some(enrolled.certificate);
    connection.send(&robot.resume(None)).await;
    let members = connection.start().await.map.snapshot().members;
    assert_eq!(members[0].record.open(robot.network, &[]).unwrap().tags, ["arm"]);
    assert_eq!(pending(&server).len(), 0);
    assert_eq!(server.json(&["key", "list"])[0]["uses"], 1, "the approval is no second use");
}

#[tokio::test]
async fn waiting_survives_restarts_of_both_sides_and_needs_no_secret_then() {
    let mut server = Server::start();
    let key = server.key(&["--approve"]);
    let robot = Robot::new("robot", &key);
    let (connection, first) = ask(&robot, &server, &key).await;
    server.kill();
    drop(connection);
    server.start_again();
    assert_eq!(pending(&server)[0]["connected"], false);
    // The robot keeps its own keys, not the join key's secret.
    let no_secret = JoinKey { secret: JoinSecret::from_bytes([0; 16]), ..key.clone() };
    let (connection, second) = ask(&robot, &server, &no_secret).await;
    assert_eq!(first, second);
    drop(connection);
    // Nobody else gets anywhere without it.
    let stranger = Robot::new("stranger", &key);
    let mut connection = stranger.connect(server.address).await;
    let request = stranger.enrol_request(&connection, &no_secret);
    connection.send(&NodeMessage::Enrol(request)).await;
    assert_eq!(connection.refusal().await.code, ErrorCode::JoinKeyUnknown);

    // Approved while it is away, and the coordinator restarts once more.
    server.text(&["node", "approve", "robot"]);
    server.kill();
    server.start_again();
    let mut connection = robot.connect(server.address).await;
    let request = robot.enrol_request(&connection, &no_secret);
    connection.send(&NodeMessage::Enrol(request)).await;
    assert_eq!(let_in(&mut connection).await.node, first.node);
}

#[tokio::test]
async fn a_rejected_node_hears_so_stays_out_and_may_be_approved_after_all() {
    let server = Server::start();
    let key = server.key(&["--reusable", "--approve"]);
    let robot = Robot::new("robot", &key);
    let (mut connection, _) = ask(&robot, &server, &key).await;
    server.text(&["node", "reject", "robot"]);
    assert_eq!(connection.refusal().await.code, ErrorCode::Rejected);
    let mut again = robot.connect(server.address).await;
    let request = robot.enrol_request(&again, &key);
    again.send(&NodeMessage::Enrol(request)).await;
    assert_eq!(again.refusal().await.code, ErrorCode::Rejected);
    assert_eq!((pending(&server).len(), &pending(&server)[0]["state"]), (1, &"rejected".into()));

    server.text(&["node", "approve", "robot", "--name", "arm-1"]);
    let mut connection = robot.connect(server.address).await;
    let request = robot.enrol_request(&connection, &key);
    connection.send(&NodeMessage::Enrol(request)).await;
    assert_eq!(let_in(&mut connection).await.name.as_str(), "arm-1");
    let audit = server.json(&["audit", "list"]);
    let actions: Vec<_> = audit["rows"].as_array().unwrap().iter().map(|r| r["action"].clone()).collect();
    assert_eq!(actions[2..], ["node.asked", "node.rejected", "node.refused", "node.approved"]);
    assert_eq!(audit["chain"]["intact"], true);
}

#[tokio::test]
async fn nodes_of_one_name_are_told_apart_by_fingerprint_and_one_may_give_up() {
    let server = Server::start();
    let key = server.key(&["--reusable", "--approve"]);
    let (one, two) = (Robot::new("robot", &key), Robot::new("robot", &key));
    let (mut first, _) = ask(&one, &server, &key).await;
    let (mut second, _) = ask(&two, &server, &key).await;
    let output = server.command(&["node", "approve", "robot"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fingerprint"), "{output:?}");
    first.send(&NodeMessage::Leave).await;
    assert_eq!(first.next().await, CoordinatorMessage::Left);
    assert_eq!(pending(&server).len(), 1);
    server.text(&["node", "approve", &fingerprint_of(&two)]);
    assert_eq!(let_in(&mut second).await.name.as_str(), "robot");
    let output = server.command(&["node", "approve", "nobody"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("node pending"), "{output:?}");
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_an_older_one() {
    let server = Server::start();
    let key = server.key(&["--approve"]);
    let robot = Robot::new("robot", &key);
    let (mut older, _) = ask(&robot, &server, &key).await;
    let (mut newer, _) = ask(&robot, &server, &key).await;
    assert_eq!(older.next_or_end().await, None);
    server.text(&["node", "approve", "robot"]);
    let_in(&mut newer).await;
}

#[tokio::test]
async fn a_node_of_the_first_protocol_is_told_to_ask_again() {
    let server = Server::start();
    let key = server.key(&["--approve"]);
    let robot = Robot::new("robot", &key);
    for expected in [ErrorCode::ApprovalPending, ErrorCode::NotAMember] {
        let mut connection = robot.connect_silently(server.address).await;
        let hello = Hello { protocol_min: 1, protocol_max: 1, agent_version: String::new() };
        connection.send(&NodeMessage::Hello(hello)).await;
        let CoordinatorMessage::Welcome(welcome) = connection.next().await else { panic!() };
        connection.welcome = Some(welcome);
        let request = robot.enrol_request(&connection, &key);
        connection.send(&NodeMessage::Enrol(request)).await;
        assert_eq!(connection.refusal().await.code, expected);
        // A code that it does not know is told as the nearest that it does.
        server.text(&["node", "reject", "robot"]);
    }
}

/// A node that was away for a year is not shut out for ever: somebody who knows it lets it in again, as who it was.
#[tokio::test]
async fn a_member_whose_time_has_ended_waits_for_approval_and_keeps_its_address() {
    let mut server = Server::start();
    let key = server.key(&[]);
    let mut robot = Robot::new("robot", &key);
    drop(robot.join(server.address, &key).await);
    let before = server.wait_for_node("robot", |node| node["online"] == false);
    server.terminate();
    server.sql("UPDATE nodes SET last_contact = last_contact - 34560000").await;
    server.start_again();

    let mut connection = robot.connect(server.address).await;
    connection.send(&robot.resume(None)).await;
    let news = waiting(&mut connection).await;
    assert_eq!((news.node, news.name.as_str()), (robot.node, "robot"));
    assert_eq!(pending(&server)[0]["former"], true);
    server.text(&["node", "approve", "robot"]);
    assert_eq!(connection.start().await.map.snapshot().members.len(), 1);
    let after = server.json(&["node", "show", "robot"]);
    assert_eq!((&after["addresses"], &after["id"]), (&before["addresses"], &before["id"]));
}

#[tokio::test]
async fn the_queue_forgets_who_is_never_heard_of() {
    let mut server = Server::start();
    let key = server.key(&["--reusable", "--approve"]);
    let robot = Robot::new("robot", &key);
    drop(ask(&robot, &server, &key).await);
    server.terminate();
    server.sql("UPDATE waiting_nodes SET heard = heard - 691200").await;
    server.start_again();
    let began = std::time::Instant::now();
    while !pending(&server).is_empty() {
        assert!(began.elapsed() < 2 * crate::support::PATIENCE, "it is still remembered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
