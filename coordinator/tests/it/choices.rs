//! What an administrator may choose about keys and members: tags, names, how long they stay.

use ria_protocol::enrol::MembershipNews;
use ria_protocol::error::ErrorCode;
use ria_protocol::message::{CoordinatorMessage, NodeMessage};

use crate::support::{Robot, Server};

#[tokio::test]
async fn another_key_of_the_network_changes_nothing_but_the_tags() {
    let server = Server::start();
    let first = server.key(&["--tag", "base"]);
    let mut robot = Robot::new("robot", &first);
    let (_, before) = robot.enrol(server.address, &first).await;

    let plain = server.key(&[]);
    let (_, again) = robot.enrol(server.address, &plain).await;
    assert_eq!((again.node, &again.name), (before.node, &before.name));
    assert_eq!(server.json(&["key", "show", &plain.key_id.to_string()])["uses"], 0, "it did nothing");

    let tagged = server.key(&["--tag", "arm"]);
    assert_eq!(robot.enrol(server.address, &tagged).await.1.node, before.node);
    let node = server.json(&["node", "show", "robot"]);
    assert_eq!(node["tags"], serde_json::json!(["arm", "base"]));
    let used = server.json(&["key", "show", &tagged.key_id.to_string()]);
    assert_eq!((&used["status"], &used["used_by"][0]["name"]), (&"used".into(), &"robot".into()));
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 1);

    // Tags that need an approval are not had by the way.
    let approved = server.key(&["--approve", "--tag", "root"]);
    robot.enrol(server.address, &approved).await;
    assert_eq!(server.json(&["node", "show", "robot"])["tags"], serde_json::json!(["arm", "base"]));
}

#[tokio::test]
async fn a_node_may_ask_whether_it_is_known_without_becoming_a_member() {
    let server = Server::start();
    server.text(&["network", "create", "field"]);
    let (lab, field) = (server.key(&["--network", "lab"]), server.key(&["--network", "field"]));
    let mut robot = Robot::new("robot", &lab);
    robot.enrol(server.address, &lab).await;
    for (key, known) in [(&lab, true), (&field, false)] {
        let mut connection = robot.connect(server.address).await;
        let mut request = robot.enrol_request(&connection, key);
        request.only_known = Some(true);
        connection.send(&NodeMessage::Enrol(request)).await;
        if known {
            assert!(matches!(
                connection.next().await,
                ria_protocol::message::CoordinatorMessage::Enrolled(_)
            ));
        } else {
            assert_eq!(connection.refusal().await.code, ErrorCode::NotAMember);
        }
    }
    assert_eq!(server.json(&["node", "list", "--network", "field"]).as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_member_is_renamed_and_tagged_and_the_others_hear_of_it() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let (mut one, mut two) = (Robot::new("robot", &key), Robot::new("robot", &key));
    let (mut connection, _) = one.join(server.address, &key).await;
    two.enrol(server.address, &key).await;
    connection.patches().await;

    server.text(&["node", "rename", "robot-2", "arm"]);
    let patches = connection.patches().await;
    let [ria_protocol::map::Patch::MemberSet(member)] = &patches.patches[..] else { panic!("{patches:?}") };
    assert_eq!(member.name.as_str(), "arm");
    server.text(&["node", "tag", "arm", "--add", "b", "--add", "a"]);
    let patches = connection.patches().await;
    let [ria_protocol::map::Patch::MemberSet(member)] = &patches.patches[..] else { panic!("{patches:?}") };
    assert_eq!(member.record.open(one.network, &[]).unwrap().tags, ["a", "b"]);
    assert!(server.text(&["node", "tag", "arm", "--remove", "a"]).contains("tags: b"));

    for (arguments, words) in [
        (&["node", "rename", "arm", "robot"][..], "another node has the name"),
        (&["node", "rename", "arm", "robot_2"], "robot-7"),
        (&["node", "tag", "arm"], "--add"),
        (&["node", "tag", "nobody", "--add", "x"], "node list"),
    ] {
        let output = server.command(arguments);
        assert!(
            !output.status.success() && String::from_utf8_lossy(&output.stderr).contains(words),
            "{output:?}"
        );
    }
    // A change to what is so already is none.
    let length = server.json(&["audit", "list"])["chain"]["length"].clone();
    server.text(&["node", "rename", "arm", "arm"]);
    assert_eq!(server.json(&["audit", "list"])["chain"]["length"], length);
}

#[tokio::test]
async fn an_ephemeral_node_is_removed_after_its_absence_and_its_address_is_free_at_once() {
    let mut server = Server::start();
    let key = server.key(&["--reusable", "--ephemeral=3s"]);
    let mut robot = Robot::new("robot", &key);
    let (connection, _) = robot.join(server.address, &key).await;
    let address = server.json(&["node", "show", "robot"])["addresses"][0].clone();
    assert_eq!(server.json(&["node", "show", "robot"])["ephemeral"], 3);
    // A coordinator that was down blames nobody for it: what counts begins with its start.
    server.kill();
    server.sql("UPDATE nodes SET last_contact = last_contact - 86400").await;
    drop(connection);
    server.start_again();
    let (connection, _) = robot.come_back(server.address, None).await;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(server.json(&["node", "show", "robot"])["online"], true, "it stays while it is connected");
    drop(connection);
    let began = std::time::Instant::now();
    while !server.json(&["node", "list"]).as_array().unwrap().is_empty() {
        assert!(began.elapsed() < 4 * crate::support::PATIENCE, "it is still a member");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(robot.refused_to_come_back(server.address).await, ErrorCode::MembershipEnded);
    let used = server.json(&["key", "show", &key.key_id.to_string()]);
    assert_eq!(used["used_by"][0]["state"], "gone");
    Robot::new("other", &key).enrol(server.address, &key).await;
    assert_eq!(server.json(&["node", "show", "other"])["addresses"][0], address);
    let audit = server.json(&["audit", "list"]);
    let ended = audit["rows"].as_array().unwrap().iter().find(|r| r["action"] == "node.ended").unwrap();
    assert_eq!(ended["actor"], "coordinator");
}

#[tokio::test]
async fn a_removed_node_is_told_so_and_comes_back_as_another_one() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut robot = Robot::new("robot", &key);
    let (_, before) = robot.enrol(server.address, &key).await;
    server.text(&["node", "remove", "robot"]);
    assert_eq!(robot.refused_to_come_back(server.address).await, ErrorCode::NotAMember);
    robot.certificate = None;
    let (_, after) = robot.enrol(server.address, &key).await;
    assert_ne!(after.node, before.node);
    assert_eq!(after.name, before.name, "the name is free again");
    assert_eq!(
        server.json(&["node", "show", "robot"])["addresses"][0],
        "10.213.0.3",
        "the address is held back"
    );
}

/// A copied card whose machine-id was copied along: the same keys run on two machines.
#[tokio::test]
async fn two_machines_with_one_identity_do_not_throw_each_other_out_for_ever() {
    let server = Server::start();
    let key = server.key(&[]);
    let mut robot = Robot::new("robot", &key);
    let boot = |n: u8| ria_protocol::id::BootId::from_bytes([n; 10]);
    robot.boot = boot(1);
    let (mut kept, _) = robot.join(server.address, &key).await;
    // Each comes back as soon as the other has taken its place.
    let mut refused = None;
    for n in [2, 1, 2, 1, 2, 1] {
        robot.boot = boot(n);
        let mut connection = robot.connect(server.address).await;
        connection.send(&robot.resume(None)).await;
        match connection.next().await {
            CoordinatorMessage::Refused(refusal) => {
                refused = Some((n, refusal));
                break;
            }
            _ => kept = connection,
        }
    }
    let (copy, refusal) = refused.expect("they go on for ever");
    assert_eq!(refusal.code, ErrorCode::Cloned);
    assert!(refusal.text.contains("ria leave"), "{refusal}");
    let news = kept
        .next_of(|m| match m {
            CoordinatorMessage::Membership(MembershipNews::Cloned(cloned)) => Some(cloned),
            _ => None,
        })
        .await;
    assert_eq!(news.other, "127.0.0.1");
    let node = server.json(&["node", "show", "robot"]);
    assert_eq!(node["cloned"]["kept"], "127.0.0.1");
    assert!(server.text(&["node", "list"]).contains("CLONED"));
    let audit = server.json(&["audit", "list"]);
    let cloned = audit["rows"].as_array().unwrap().iter().filter(|r| r["action"] == "node.cloned").count();
    assert_eq!(cloned, 1);
    // Who was kept may go away; then the other one has its turn.
    robot.boot = boot(copy);
    assert_eq!(robot.refused_to_come_back(server.address).await, ErrorCode::Cloned);
    drop(kept);
    server.wait_for_node("robot", |node| node["online"] == false);
    robot.come_back(server.address, None).await;
}

#[tokio::test]
async fn robots_get_domains_of_their_own_and_keep_them() {
    let mut server = Server::start();
    let text = server.text(&["network", "create", "fleet", "--ros-domains", "per-robot"]);
    assert!(text.contains("per-robot"), "{text}");
    let key = server.key(&["--network", "fleet", "--reusable"]);
    let (mut one, mut two) = (Robot::new("robot", &key), Robot::new("robot", &key));
    let (_connection, start) = one.join(server.address, &key).await;
    let snapshot = start.map.snapshot();
    assert_eq!(snapshot.network.ros_domains, Some(ria_protocol::domains::RosDomains::PerRobot));
    assert_eq!(snapshot.members[0].ros_domain, Some(1));
    two.enrol(server.address, &key).await;
    server.text(&["node", "remove", "robot"]);
    // Nobody else's changes, and what is free is given again.
    let mut three = Robot::new("arm", &key);
    three.enrol(server.address, &key).await;
    server.kill();
    server.start_again();
    for (name, domain) in [("robot-2", 2), ("arm", 1)] {
        assert_eq!(server.json(&["node", "show", name])["ros_domain"], domain, "{name}");
    }
}

#[tokio::test]
async fn networks_share_domains_only_when_told() {
    let server = Server::start();
    server.text(&["network", "create", "first", "--ros-domains", "0,5-6"]);
    assert_eq!(server.json(&["network", "create", "second", "--ros-domains", "shared"])["ros_domains"], "1");
    assert_eq!(server.json(&["network", "create", "third", "--ros-domains", "5"])["ros_domains"], "5");
    assert_eq!(server.json(&["network", "show", "first"])["ros_domains"], "0,5,6");
    let list = server.text(&["network", "list"]);
    assert!(list.contains("ROS DOMAINS") && list.contains("0,5,6") && list.contains("any"), "{list}");
    for (domains, words) in [("102", "0 to 101"), ("robots", "10-19"), ("", "10-19")] {
        let output = server.command(&["network", "create", "fourth", "--ros-domains", domains]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(words), "{said}");
    }
}

#[tokio::test]
async fn members_follow_the_multicast_groups_of_their_network() {
    let mut server = Server::start();
    let key = server.key(&[]);
    let mut robot = Robot::new("robot", &key);
    let (mut connection, start) = robot.join(server.address, &key).await;
    assert_eq!(start.map.snapshot().network.multicast, None);
    let text = server.text(&["network", "multicast", "lab", "239.1.2.3:5000,mdns"]);
    assert!(text.contains("mdns,239.1.2.3:5000"), "{text}");
    let set = connection.patches().await;
    let [ria_protocol::map::Patch::NetworkChanged(info)] = &set.patches[..] else { panic!("{set:?}") };
    assert_eq!(info.multicast, Some("mdns,239.1.2.3:5000".parse().unwrap()));
    server.kill();
    server.start_again();
    assert_eq!(server.json(&["network", "show", "lab"])["multicast"], "mdns,239.1.2.3:5000");
    // What is so already is no change.
    server.text(&["network", "multicast", "lab", "mdns,239.1.2.3:5000"]);
    server.text(&["network", "multicast", "lab", "none"]);
    assert_eq!(server.json(&["network", "show", "lab"])["multicast"], "none");
    let audit = server.json(&["audit", "list"]);
    let rows = audit["rows"].as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row["action"] == "network.multicast").count(), 2);
    server.text(&["network", "create", "fleet", "--multicast", "mdns"]);
    assert_eq!(server.json(&["network", "show", "fleet"])["multicast"], "mdns");
}
