//! Server and client over a real socket, with a made-up agent behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use ria_api::client::{Agent, ConnectError};
use ria_api::error::ApiError;
use ria_api::fake::FakeAgent;
use ria_api::server::{BindError, Server};
use ria_api::state::{JoinOptions, LinkState, NetworkState};
use ria_protocol::id::KeyId;
use ria_protocol::join_key::{JoinKey, JoinSecret};
use ria_protocol::keys::SpkiHash;

struct Running {
    agent: Arc<FakeAgent>,
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Others must be able to get at the socket, as below /run/ria.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("run/bus");
        let agent = Arc::new(FakeAgent::default());
        let server = Server::bind(&path).unwrap();
        let backend = agent.clone();
        let task = tokio::spawn(async move { server.run(backend).await });
        Self { agent, path, task, _dir: dir }
    }

    fn say(&self, line: &str) {
        self.agent.command(line).unwrap();
    }

    async fn client(&self) -> Agent {
        Agent::connect(Some(&self.path)).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key_pipe(text: &str) -> std::io::PipeReader {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    reader
}

fn valid_key() -> String {
    let key = JoinKey {
        urls: vec!["https://ria.lab.example".into()],
        ca_pin: SpkiHash([3; 32]),
        key_id: KeyId::from_bytes([1; 5]),
        secret: JoinSecret::from_bytes([9; 16]),
    };
    key.to_text()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("nothing came within 30 s")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_key_goes_in_as_a_descriptor_and_the_network_can_be_used_at_once() {
    let running = Running::start();
    let client = running.client().await;
    assert_eq!(client.network(None).await.unwrap_err().exit_code(), 4);

    let key = key_pipe(&valid_key());
    let options = JoinOptions { name: Some("robot-7".into()) };
    let joined = client.proxy().join(key.as_fd().into(), options).await.unwrap();
    assert_eq!((joined.name.as_str(), joined.already), ("robot-7", false));

    let network = client.network_at(&joined.path).await.unwrap();
    assert_eq!(network.status().await.unwrap().ros_name, "robot_7");
    running.say("peer robot-2 up direct 0.002");
    let peers = network.peers().await.unwrap();
    assert_eq!((peers[0].name.as_str(), peers[0].link_state), ("robot-2", LinkState::Up));
    let replies = network.ping("robot-2", 3, 0.1, 1.0).await.unwrap();
    assert_eq!(replies.iter().map(|r| (r.seq, r.ok)).collect::<Vec<_>>(), [(1, true), (2, true), (3, true)]);

    network.set_enabled(false).await.unwrap();
    assert_eq!(network.status().await.unwrap().state, NetworkState::Disabled);
    network.leave().await.unwrap();
    assert_eq!(client.network(None).await.unwrap_err().exit_code(), 4);
}

#[tokio::test]
async fn errors_keep_their_kind_and_text_across_the_socket() {
    let running = Running::start();
    let client = running.client().await;
    let join = async |text: &str| {
        client.proxy().join(key_pipe(text).as_fd().into(), JoinOptions::default()).await.unwrap_err()
    };
    let ApiError::InvalidJoinKey(text) = join("tskey-auth-x").await else { panic!("wrong error") };
    assert!(text.contains("ria1_"), "{text}");
    let mut damaged = valid_key();
    damaged.truncate(30);
    assert!(join(&damaged).await.text().contains("damaged"));
    assert!(matches!(join(&"x".repeat(60_000)).await, ApiError::InvalidJoinKey(_)));

    running.say("join");
    let network = client.network(None).await.unwrap();
    let ApiError::NoSuchPeer(text) = network.proxy.ping("nobody", 1, 1.0, 1.0).await.unwrap_err() else {
        panic!("wrong error")
    };
    assert!(text.contains("nobody"));
}

/// Calls a method as another user, with a D-Bus implementation that is not ours.
fn call_as(uid: u32, path: &Path, object: &str, method: &str, argument: &str) -> Result<String, String> {
    let mut call = std::process::Command::new("dbus-send");
    call.arg(format!("--peer=unix:path={}", path.display()));
    call.args(["--print-reply", "--reply-timeout=20000", object, method]);
    if !argument.is_empty() {
        call.arg(argument);
    }
    if nix::unistd::Uid::effective().is_root() {
        call.uid(uid).gid(uid);
    }
    let output = call.output().expect("dbus-send (package dbus) is needed for this test");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_may_read_but_not_change_and_any_dbus_client_will_do() {
    let running = Running::start();
    running.say("join");
    let network = ria_api::network_path(ria_api::fake::network_id());
    let change = "org.ria.Overlay1.Network.SetEnabled";
    let nobody = 65_534;
    let status = call_as(nobody, &running.path, ria_api::AGENT_PATH, "org.ria.Overlay1.Status", "").unwrap();
    assert!(status.contains(&network), "{status}");

    assert!(call_as(0, &running.path, &network, change, "boolean:false").is_ok());
    let client = running.client().await;
    let lab = client.network(None).await.unwrap().proxy;
    assert_eq!(lab.status().await.unwrap().state, NetworkState::Disabled);
    if nix::unistd::Uid::effective().is_root() {
        let refusal = call_as(nobody, &running.path, &network, change, "boolean:true").unwrap_err();
        assert!(refusal.contains("org.ria.Overlay1.Error.NotPermitted"), "{refusal}");
        assert!(refusal.contains("sudo"), "{refusal}");
        assert_eq!(lab.status().await.unwrap().state, NetworkState::Disabled);
    }
}

#[tokio::test]
async fn every_client_hears_of_changes_and_events() {
    let running = Running::start();
    let clients = [running.client().await, running.client().await];
    let mut changes = Vec::new();
    for client in &clients {
        changes.push(client.proxy().receive_networks_changed().await.unwrap());
    }
    running.say("join");
    for stream in &mut changes {
        soon(stream.next()).await.unwrap();
    }
    let mut streams = Vec::new();
    for client in &clients {
        let network = client.network(Some("lab")).await.unwrap().proxy;
        let happened = network.receive_happened().await.unwrap();
        streams.push((network.receive_changed().await.unwrap(), happened));
    }
    running.say("peer robot-2 up");
    running.say("event link_state robot-2 connecting up 0.4");
    for (changed, happened) in &mut streams {
        soon(changed.next()).await.unwrap();
        let event = soon(happened.next()).await.unwrap().args().unwrap().event;
        assert_eq!((event.peer.as_str(), event.after.as_str(), event.gap), ("robot-2", "up", Some(0.4)));
    }
    running.say("leave");
    for stream in &mut changes {
        soon(stream.next()).await.unwrap();
    }
    assert!(clients[0].proxy().status().await.unwrap().networks.is_empty());
}

#[tokio::test]
async fn a_client_that_looks_away_still_gets_its_answers() {
    let running = Running::start();
    running.say("join");
    let client = running.client().await;
    let network = client.network(None).await.unwrap().proxy;
    let mut changed = network.receive_changed().await.unwrap();
    for n in 0..1000 {
        running.say(&format!("peer robot-{} up", n % 10));
        tokio::task::yield_now().await;
    }
    assert_eq!(soon(network.peers()).await.unwrap().len(), 10);
    soon(changed.next()).await.unwrap();
}

#[tokio::test]
async fn a_client_notices_that_the_agent_has_gone_and_can_come_back() {
    let running = Running::start();
    let client = running.client().await;
    let mut changes = client.proxy().receive_networks_changed().await.unwrap();
    running.task.abort();
    soon(client.closed()).await;
    assert!(soon(changes.next()).await.is_none());
    assert!(client.is_closed() && client.proxy().status().await.is_err());

    while Agent::connect(Some(&running.path)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let server = Server::bind(&running.path).unwrap();
    let backend = running.agent.clone();
    let again = tokio::spawn(async move { server.run(backend).await });
    assert!(soon(running.client().await.proxy().status()).await.is_ok());
    again.abort();
}

#[tokio::test]
async fn garbage_and_silence_on_the_socket_hurt_nobody() {
    let running = Running::start();
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&running.path).unwrap()).collect();
    for bytes in [
        &b"\0AUTH EXTERNAL zz\r\nBEGIN\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 70_000],
        b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\nl\x01\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\x7f",
    ] {
        let mut raw = UnixStream::connect(&running.path).unwrap();
        raw.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        // The server may close before all is written.
        let _ = raw.write_all(bytes);
    }
    soon(running.client().await.proxy().status()).await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn fifty_clients_at_once_are_all_served() {
    let running = Running::start();
    running.say("join");
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let path = running.path.clone();
        clients.spawn(async move {
            let client = Agent::connect(Some(&path)).await.unwrap();
            for _ in 0..10 {
                assert_eq!(client.network(None).await.unwrap().proxy.status().await.unwrap().network, "lab");
            }
        });
    }
    while let Some(done) = soon(clients.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn one_agent_at_a_time_and_leftovers_are_replaced() {
    let running = Running::start();
    assert!(matches!(Server::bind(&running.path), Err(BindError::AlreadyRunning(_))));
    assert_eq!(mode(&running.path), 0o666);
    assert_eq!(mode(running.path.parent().unwrap()), 0o755);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let refused = Agent::connect(Some(&path)).await.unwrap_err();
    assert!(matches!(&refused, ConnectError::NoDaemon { .. }) && refused.to_string().contains("ria daemon"));
    // What a killed agent leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(Agent::connect(Some(&path)).await, Err(ConnectError::NoDaemon { .. })));
    drop(Server::bind(&path).unwrap());
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}
