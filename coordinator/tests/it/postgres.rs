//! Two coordinators on one PostgreSQL database: nodes are on either, changes reach both, one is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use ria_protocol::demand::Sought;
use ria_protocol::error::ErrorCode;
use ria_protocol::join_key::JoinKey;
use ria_protocol::map::{Candidate, CandidateKind, Patch, Revision};
use ria_protocol::message::{CoordinatorMessage, NodeMessage};

use crate::laptops::{ask, poll};
use crate::oidc::{self, DOMAIN};
use crate::pages::{PASSWORD, Person, code, csrf, login_across};
use crate::support::postgres::Postgres;
use crate::support::provider::Provider;
use crate::support::web::Browser;
use crate::support::{Connection, Robot, Server};

/// Two coordinators, and what they share.
struct Both {
    postgres: Postgres,
    one: Server,
    other: Server,
}

impl Both {
    fn start() -> Self {
        Self::start_configured("")
    }

    /// Both with these settings in their files.
    fn start_configured(text: &str) -> Self {
        let postgres = Postgres::start(false);
        let mut environment = postgres.settings();
        let urls = "https://one.lab.example,https://other.lab.example";
        environment.push(("RIA_PUBLIC_URL".to_owned(), urls.to_owned()));
        let configure = |data: &Path| std::fs::write(data.with_file_name("coordinator.toml"), text).unwrap();
        let one = Server::start_with_all(environment.clone(), configure);
        let identity = one.data_dir().join("identity");
        let other = Server::start_with_all(environment, |data| {
            copy(&identity, data);
            configure(data);
        });
        Self { postgres, one, other }
    }
}

fn copy(directory: &Path, into: &Path) {
    assert!(Command::new("cp").arg("-a").args([directory, into]).status().unwrap().success());
}

fn is_online(server: &Server, name: &str) -> bool {
    server.json(&["node", "show", name])["online"] == true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_either_coordinator_hear_of_each_other_and_move_when_one_is_killed() {
    let Both { postgres: _postgres, one, mut other } = Both::start();
    let key = one.key(&["--reusable"]);
    let (mut a, mut b) = (Robot::new("a", &key), Robot::new("b", &key));
    let (mut at_a, _) = a.join(one.address, &key).await;
    let (mut at_b, start) = b.join(other.address, &key).await;
    assert_eq!(start.map.snapshot().members.len(), 2, "the other one knows who has joined at the first");

    let set = at_a.patches().await;
    let [Patch::MemberSet(member)] = &set.patches[..] else { panic!("{set:?}") };
    assert_eq!(member.record.open(a.network, &[]).unwrap().node, b.node);
    at_a.news(b.node, |live| live.online).await;
    let home: Candidate =
        Candidate { kind: CandidateKind::Host, address: "192.0.2.7:41820".parse().unwrap() };
    at_b.send(&NodeMessage::Report(vec![home])).await;
    assert_eq!(at_a.news(b.node, |live| !live.candidates.is_empty()).await.candidates, [home]);
    for server in [&one, &other] {
        server.wait_for_node("a", |node| node["online"] == true);
        server.wait_for_node("b", |node| node["candidates"][0]["address"] == "192.0.2.7:41820");
    }

    // What an administrator does at either, all are told.
    other.text(&["node", "rename", "a", "arm"]);
    let told = |set: ria_protocol::map::PatchSet| {
        let [Patch::MemberSet(member)] = &set.patches[..] else { panic!("{set:?}") };
        member.name.to_string()
    };
    assert_eq!(told(at_a.patches().await), "arm");
    assert_eq!(told(at_b.patches().await), "arm");
    let known = one.json(&["network", "show", "lab"])["revision"].as_u64().unwrap();

    // One is killed: its node is offline to the other one's, and comes back there with what it knows.
    other.kill();
    at_a.news(b.node, |live| !live.online).await;
    let (mut at_b, start) = b.come_back(one.address, Some(known)).await;
    assert_eq!(start.map.patches().patches.len(), 0, "it has missed nothing");
    at_a.news(b.node, |live| live.online).await;

    // The other one is back, and a node goes there: its connection here is over, and it was never offline.
    other.start_again();
    let (_elsewhere, _) = b.come_back(other.address, Some(known)).await;
    while at_b.next_or_end().await.is_some() {}
    assert!(is_online(&one, "b") && is_online(&other, "b"));

    // Who is put out at one is out at the other.
    other.text(&["node", "remove", "arm"]);
    let refusal = at_a
        .next_of(|message| match message {
            CoordinatorMessage::Refused(refusal) => Some(refusal),
            _ => None,
        })
        .await;
    assert_eq!(refusal.code, ErrorCode::NotAMember);
}

/// So many robots join at one of the coordinators; their names.
async fn join_many(server: &Server, key: &JoinKey, count: usize) {
    for _ in 0..count {
        let mut robot = Robot::new("robot", key);
        drop(robot.join(server.address, key).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_write_at_the_same_time_and_nothing_is_lost_or_done_twice() {
    let Both { mut postgres, one, other } = Both::start();
    let key = one.key(&["--reusable"]);
    let revision = |server: &Server| server.json(&["network", "show", "lab"])["revision"].as_u64().unwrap();
    let before = revision(&one);
    tokio::join!(join_many(&one, &key, 15), join_many(&other, &key, 15));
    let begun = std::time::Instant::now();
    while revision(&one) != revision(&other) {
        assert!(begun.elapsed() < crate::support::PATIENCE, "they don't agree");
    }
    assert_eq!(revision(&one), before + 30, "each change has a revision of its own");
    let nodes = one.json(&["node", "list"]);
    let nodes = nodes.as_array().unwrap();
    for field in ["name", "id"] {
        let values: BTreeSet<_> = nodes.iter().map(|node| node[field].as_str().unwrap()).collect();
        assert_eq!(values.len(), 30, "{field}");
    }
    let addresses: BTreeSet<_> = nodes.iter().map(|node| node["addresses"][0].to_string()).collect();
    assert_eq!(addresses.len(), 30);
    assert_eq!(one.json(&["audit", "verify"])["intact"], true);

    // The database goes away and comes back: changes are refused meanwhile, and made and seen by both afterwards.
    postgres.restart();
    let began = std::time::Instant::now();
    while !one.command(&["node", "rename", "robot", "late"]).status.success() {
        assert!(began.elapsed() < 2 * crate::support::PATIENCE, "changes are refused for ever");
    }
    let began = std::time::Instant::now();
    while !other.command(&["node", "show", "late"]).status.success() {
        assert!(began.elapsed() < 2 * crate::support::PATIENCE, "the other one does not hear of it");
    }
    let mut robot = Robot::new("last", &key);
    let (_, start) = robot.join(other.address, &key).await;
    assert_eq!(start.map.snapshot().revision, Revision(before + 32));
}

/// Whether the next word about members is of somebody's coming; else it is of somebody's absence or end.
async fn hears_of_somebody(connection: &mut Connection) -> bool {
    let heard = connection.next_of(|message| match message {
        CoordinatorMessage::Patches(set) => {
            set.patches.first().map(|patch| matches!(patch, Patch::MemberSet(_)))
        }
        CoordinatorMessage::Absent(_) => Some(false),
        _ => None,
    });
    heard.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_an_on_demand_network_meet_across_coordinators() {
    let Both { postgres: _postgres, one, other } = Both::start();
    one.text(&["network", "create", "fleet", "--peers", "on-demand"]);
    let key = one.key(&["--reusable", "--network", "fleet"]);
    let (mut a, mut b) = (Robot::new("a", &key), Robot::new("b", &key));
    let (mut at_a, _) = a.enrol(one.address, &key).await;
    let (mut at_b, _) = b.enrol(other.address, &key).await;
    for (connection, robot) in [(&mut at_a, &a), (&mut at_b, &b)] {
        connection.send(&robot.resume_holding(&[])).await;
        assert_eq!(connection.start().await.map.snapshot().members.len(), 1);
    }
    // That it has joined at the other coordinator may not be known here yet.
    let sought = Sought::Node(b.node);
    let began = std::time::Instant::now();
    loop {
        at_a.send(&NodeMessage::Seek(sought.clone())).await;
        if hears_of_somebody(&mut at_a).await {
            break;
        }
        assert!(began.elapsed() < crate::support::PATIENCE, "nobody is found");
        // Who asks too often is not answered.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(hears_of_somebody(&mut at_b).await, "the other end is told, too");
    at_a.send(&NodeMessage::Release(vec![b.node])).await;
    at_b.send(&NodeMessage::Release(vec![a.node])).await;
    assert!(!hears_of_somebody(&mut at_a).await && !hears_of_somebody(&mut at_b).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_begin_at_one_coordinator_they_end_at_the_other_and_only_once() {
    let provider = Provider::start().await;
    let Both { postgres: _postgres, one, other } = Both::start_configured(&provider.settings(DOMAIN));
    let ada = an_owner_comes_in([&one, &other]).await;
    by_password([&one, &other], &ada).await;
    for way in [[&one, &other], [&other, &one]] {
        by_provider(way, &provider).await;
        a_laptop_comes_in(way, &ada).await;
    }
}

/// By a link that one made; it is good nowhere afterwards.
async fn an_owner_comes_in([one, other]: [&Server; 2]) -> Person {
    let link = one.text(&["user", "owner-link"]);
    let ada = Person::across([one, other], &link, Some("ada")).await;
    let path = format!("/welcome/{}", link.trim().rsplit('/').next().unwrap());
    for server in [one, other] {
        assert_eq!(Browser::new(server.address).get(&path).await.status, 404, "a link is good once");
        assert_eq!(ada.at(server).get("/people").await.status, 200, "logged in at both");
    }
    ada
}

/// The form of one is sent to the other, and a code is good once for both; who logs out is out at both.
async fn by_password([one, other]: [&Server; 2], ada: &Person) {
    let code = code(&ada.secret, 1);
    let done = login_across([one, other], ("ada", PASSWORD, &code)).await;
    assert_eq!(done.status, 303, "{}", done.text);
    for way in [[one, other], [other, one]] {
        assert_eq!(login_across(way, ("ada", PASSWORD, &code)).await.status, 401, "a code that was used");
    }
    let (here, there) = (oidc::session(one, &done), oidc::session(other, &done));
    assert_eq!(here.get("/people").await.status, 200);
    let token = csrf(&there.get("/account").await);
    assert_eq!(there.form("/logout", &[("csrf", &token)]).await.status, 303);
    assert_eq!(here.get("/people").await.status, 303);
    assert_eq!(ada.at(one).get("/people").await.status, 200, "another session of theirs goes on");
}

/// Only from the browser in which it began, and once.
async fn by_provider([here, there]: [&Server; 2], provider: &Provider) {
    let login = oidc::begin(here).await;
    let code = provider.code(&login.query);
    let thief = oidc::Away { query: login.query.clone(), browser: oidc::begin(there).await.browser };
    assert_eq!(oidc::come_back(there, &thief, &code).await.status, 400);
    let done = oidc::come_back(there, &login, &code).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, "/nodes"), "{}", done.text);
    assert_eq!(oidc::session(here, &done).get("/nodes").await.status, 200);
    for server in [here, there] {
        assert_eq!(oidc::come_back(server, &login, &code).await.status, 400, "once");
    }
}

/// It asks one, is let in at the other, and hears of it once, at either.
async fn a_laptop_comes_in([here, there]: [&Server; 2], ada: &Person) {
    if here.json(&["network", "list"]).as_array().unwrap().is_empty() {
        here.key(&[]);
    }
    let (long, short) = ask(here, "laptop").await;
    assert_eq!(poll(there, &long).await["error"], "authorization_pending");
    let token = csrf(&ada.at(there).get("/account").await);
    let form = [("csrf", token.as_str()), ("code", &short), ("network", "lab"), ("deed", "approve")];
    let done = ada.at(there).form("/device", &form).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let granted = poll(here, &long).await;
    assert_eq!(granted["network"], "lab", "{granted}");
    let key = JoinKey::parse(granted["access_token"].as_str().unwrap()).unwrap();
    Robot::new("laptop", &key).join(there.address, &key).await;
    for server in [here, there] {
        assert_eq!(poll(server, &long).await["error"], "expired_token", "told once");
    }
}
