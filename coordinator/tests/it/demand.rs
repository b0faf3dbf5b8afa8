//! On-demand networks: who is told of whom, and until when.

use ria_protocol::demand::{PeerMode, Sought};
use ria_protocol::id::NodeId;
use ria_protocol::join_key::JoinKey;
use ria_protocol::map::{Member, Patch, PatchSet};
use ria_protocol::message::{CoordinatorMessage, NodeMessage};

use crate::support::{Connection, Robot, Server};

fn name(text: &str) -> Sought {
    Sought::Name(text.parse().unwrap())
}

fn names(members: &[Member]) -> Vec<&str> {
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// What the next patches that say something say.
async fn told(connection: &mut Connection) -> PatchSet {
    loop {
        let set = connection.patches().await;
        if !set.patches.is_empty() {
            return set;
        }
    }
}

async fn is_told_of(connection: &mut Connection, wanted: &str) {
    let set = told(connection).await;
    let [Patch::MemberSet(member)] = &set.patches[..] else { panic!("{set:?}") };
    assert_eq!(member.name.as_str(), wanted);
}

async fn is_told_of_the_end_of(connection: &mut Connection, node: NodeId) {
    assert_eq!(told(connection).await.patches, [Patch::MemberRemoved(node)]);
}

/// Asks for somebody who is not there for it; whoever else it was told of before the answer.
async fn is_absent(connection: &mut Connection, sought: Sought) {
    connection.send(&NodeMessage::Seek(sought.clone())).await;
    let answer = connection
        .next_of(|message| match message {
            CoordinatorMessage::Absent(absent) => Some(absent),
            CoordinatorMessage::Patches(set) => {
                assert!(set.patches.is_empty(), "told of somebody: {set:?}");
                None
            }
            CoordinatorMessage::Live(live) => panic!("told of somebody: {live:?}"),
            _ => None,
        })
        .await;
    assert_eq!(answer, sought);
}

/// A robot in an on-demand network, which begins with itself alone.
async fn join(server: &Server, name: &'static str, key: &JoinKey) -> (Robot, Connection) {
    let mut robot = Robot::new(name, key);
    let (mut connection, _) = robot.enrol(server.address, key).await;
    connection.send(&robot.resume_holding(&[])).await;
    let start = connection.start().await;
    let map = start.map.snapshot();
    assert_eq!((names(&map.members), start.live.len()), (vec![name], 0));
    assert!(map.network.is_on_demand());
    (robot, connection)
}

async fn come_back(server: &Server, robot: &Robot, holds: &[NodeId]) -> (Connection, Vec<String>) {
    let mut connection = robot.connect(server.address).await;
    connection.send(&robot.resume_holding(holds)).await;
    let map = connection.start().await.map.snapshot();
    (connection, names(&map.members).into_iter().map(str::to_owned).collect())
}

fn start() -> (Server, JoinKey) {
    let server = Server::start();
    server.text(&["network", "create", "fleet", "--peers", "on-demand"]);
    let key = server.key(&["--reusable", "--network", "fleet"]);
    (server, key)
}

#[tokio::test]
async fn both_ends_are_told_and_a_third_never_learns_of_them() {
    let (server, key) = start();
    let (a, mut at_a) = join(&server, "a", &key).await;
    let (b, mut at_b) = join(&server, "b", &key).await;
    let (_, mut at_c) = join(&server, "c", &key).await;
    at_a.send(&NodeMessage::Seek(name("b"))).await;
    is_told_of(&mut at_a, "b").await;
    at_a.news(b.node, |live| live.online).await;
    is_told_of(&mut at_b, "a").await;
    at_b.news(a.node, |live| live.online).await;
    // What changes of one, the other is told.
    server.text(&["node", "tag", "a", "--add", "arm", "--network", "fleet"]);
    is_told_of(&mut at_b, "a").await;
    is_told_of(&mut at_a, "a").await;
    is_absent(&mut at_c, name("nobody")).await;
    is_absent(&mut at_c, Sought::Address([10, 214, 99, 99].into())).await;
    is_absent(&mut at_c, name("c")).await;
    // It hears that time has passed, and nothing else.
    let revision = server.json(&["network", "show", "fleet"])["revision"].as_u64().unwrap();
    while at_c.patches().await.to.0 < revision {}

    // Both let go.
    at_a.send(&NodeMessage::Release(vec![b.node])).await;
    at_b.send(&NodeMessage::Release(vec![a.node])).await;
    is_told_of_the_end_of(&mut at_a, b.node).await;
    is_told_of_the_end_of(&mut at_b, a.node).await;
    // By address, from the other end.
    let address = server.json(&["node", "show", "a", "--network", "fleet"])["addresses"][0].clone();
    at_b.send(&NodeMessage::Seek(Sought::Address(address.as_str().unwrap().parse().unwrap()))).await;
    is_told_of(&mut at_b, "a").await;
    is_told_of(&mut at_a, "b").await;
    // One is put out.
    server.text(&["node", "remove", "a", "--network", "fleet"]);
    is_told_of_the_end_of(&mut at_b, a.node).await;
    is_absent(&mut at_b, name("a")).await;
}

#[tokio::test]
async fn who_is_held_is_held_over_restarts_of_the_coordinator() {
    let (mut server, key) = start();
    let (a, at_a) = join(&server, "a", &key).await;
    let (b, at_b) = join(&server, "b", &key).await;
    drop((at_a, at_b));
    server.kill();
    server.start_again();
    // One names the other, which is told of it when it comes, and hears the news.
    let (mut at_a, told) = come_back(&server, &a, &[b.node]).await;
    assert_eq!(told, ["a", "b"]);
    let (mut at_b, told) = come_back(&server, &b, &[]).await;
    assert_eq!(told, ["a", "b"]);
    at_a.news(b.node, |live| live.online).await;
    // One alone does not let go for both.
    at_b.send(&NodeMessage::Release(vec![a.node])).await;
    is_absent(&mut at_b, name("nobody")).await;
    drop(at_b);
    at_a.news(b.node, |live| !live.online).await;
    let (_, told) = come_back(&server, &b, &[]).await;
    assert_eq!(told, ["a", "b"]);
}

#[tokio::test]
async fn whom_the_policy_denies_is_answered_like_nobody() {
    let (server, key) = start();
    let (_, mut at_a) = join(&server, "a", &key).await;
    let (_, mut at_b) = join(&server, "b", &key).await;
    let (_, mut at_c) = join(&server, "c", &key).await;
    let file = server.path().join("policy");
    std::fs::write(&file, "[[rule]]\nfrom = [\"a\"]\nto = [\"b\"]\nallow = [\"tcp/22\"]\n").unwrap();
    server.text(&["policy", "set", "--file", file.to_str().unwrap(), "--network", "fleet"]);
    for connection in [&mut at_a, &mut at_b, &mut at_c] {
        let set = told(connection).await;
        assert!(matches!(set.patches[..], [Patch::PolicySet(_)]), "{set:?}");
    }
    let address = server.json(&["node", "show", "a", "--network", "fleet"])["addresses"][0].clone();
    is_absent(&mut at_c, name("a")).await;
    is_absent(&mut at_c, Sought::Address(address.as_str().unwrap().parse().unwrap())).await;
    is_absent(&mut at_c, name("nobody")).await;
    // Who may be called may find out who calls.
    at_b.send(&NodeMessage::Seek(name("a"))).await;
    is_told_of(&mut at_b, "a").await;
    is_told_of(&mut at_a, "b").await;
}

#[tokio::test]
async fn an_older_agent_is_told_of_everybody_and_everybody_of_it() {
    let (server, key) = start();
    let (a, mut at_a) = join(&server, "a", &key).await;
    let mut old = Robot::new("old", &key);
    let (_at_old, start) = old.join(server.address, &key).await;
    assert_eq!(names(&start.map.snapshot().members), ["a", "old"]);
    is_told_of(&mut at_a, "old").await;
    let (_, told) = come_back(&server, &a, &[]).await;
    assert_eq!(told, ["a", "old"]);
}

/// What a connection is told when its network works another way: whom it knows from then on, and who of them is connected.
async fn begins_anew(connection: &mut Connection) -> (Vec<String>, Vec<NodeId>) {
    let untold = |message: &CoordinatorMessage| match message {
        CoordinatorMessage::Patches(set) => {
            assert!(!set.patches.iter().any(|patch| matches!(patch, Patch::NetworkChanged(_))), "{set:?}");
        }
        CoordinatorMessage::Drain(_) => panic!("it would have to come again"),
        _ => {}
    };
    let map = connection
        .next_of(|message| {
            untold(&message);
            if let CoordinatorMessage::Snapshot(map) = message { Some(map) } else { None }
        })
        .await;
    let live = connection
        .next_of(|message| match message {
            CoordinatorMessage::Live(live) if live.whole => Some(live.members),
            _ => None,
        })
        .await;
    let online = live.into_iter().filter(|live| live.online).map(|live| live.node);
    (names(&map.members).into_iter().map(str::to_owned).collect(), online.collect())
}

#[tokio::test]
async fn a_network_changes_its_mode_and_nobody_has_to_come_again() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut connections = Vec::new();
    for name in ["a", "b", "c"] {
        let mut robot = Robot::new(name, &key);
        let (mut connection, _) = robot.enrol(server.address, &key).await;
        connection.send(&robot.resume_holding(&[])).await;
        assert_eq!(connection.start().await.map.snapshot().network.peers, None);
        connections.push((robot, connection));
    }
    let [(a, mut at_a), (b, mut at_b), (c, mut at_c)] = <[_; 3]>::try_from(connections).ok().unwrap();
    let text = server.text(&["network", "peers", "lab", "on-demand"]);
    assert!(text.contains("on-demand"), "{text}");
    for connection in [&mut at_a, &mut at_b, &mut at_c] {
        let changed = |message| match message {
            CoordinatorMessage::Patches(set) => set.patches.into_iter().find_map(|patch| match patch {
                Patch::NetworkChanged(info) => Some(info.peers),
                _ => None,
            }),
            _ => None,
        };
        assert_eq!(connection.next_of(changed).await, Some(PeerMode::OnDemand));
    }
    // Each says whom it uses.
    at_a.send(&NodeMessage::Hold(vec![b.node])).await;
    assert_eq!(begins_anew(&mut at_a).await, (vec!["a".to_owned(), "b".to_owned()], vec![b.node]));
    at_b.send(&NodeMessage::Hold(Vec::new())).await;
    assert_eq!(begins_anew(&mut at_b).await, (vec!["a".to_owned(), "b".to_owned()], vec![a.node]));
    // One that says nothing has to come again.
    at_c.next_of(|message| matches!(message, CoordinatorMessage::Drain(_)).then_some(())).await;
    let (mut at_c, told) = come_back(&server, &c, &[]).await;
    assert_eq!(told, ["c"]);
    // Said once more it is too late, and no harm.
    at_a.send(&NodeMessage::Hold(vec![c.node])).await;
    is_absent(&mut at_c, name("nobody")).await;

    // They are not told of the other mode before they are told of everybody: they would take those whom they know for all.
    server.text(&["network", "peers", "lab", "push"]);
    for connection in [&mut at_a, &mut at_b, &mut at_c] {
        let (told, online) = begins_anew(connection).await;
        assert_eq!((told, online.len()), (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 2));
    }
    server.text(&["node", "tag", "a", "--add", "arm"]);
    is_told_of(&mut at_c, "a").await;
    let audit = server.json(&["audit", "list"]);
    let rows = audit["rows"].as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row["action"] == "network.peers").count(), 2);
}

#[tokio::test]
async fn an_older_agent_stays_as_it_is_when_its_network_becomes_on_demand() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let (mut a, mut b) = (Robot::new("a", &key), Robot::new("b", &key));
    let (mut at_a, _) = a.join(server.address, &key).await;
    server.text(&["network", "peers", "lab", "on-demand"]);
    let (_at_b, start) = b.join(server.address, &key).await;
    assert_eq!(names(&start.map.snapshot().members), ["a", "b"]);
    let mut told = told(&mut at_a).await;
    while !told
        .patches
        .iter()
        .any(|patch| matches!(patch, Patch::MemberSet(member) if member.name.as_str() == "b"))
    {
        told = at_a.patches().await;
    }
}
