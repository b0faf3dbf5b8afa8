//! The command line as a user or a script sees it: exit codes, JSON, what goes to which stream. A made-up agent answers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ria_api::fake::FakeAgent;
use ria_api::server::Server;
use serde_json::Value;

/// A made-up agent and its command line.
struct Machine {
    agent: Arc<FakeAgent>,
    socket: PathBuf,
    dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Machine {
    fn start(lines: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/bus");
        let agent = Arc::new(FakeAgent::default());
        for line in lines {
            agent.command(line).unwrap();
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(async { Server::bind(&socket) }).unwrap();
        let backend = agent.clone();
        runtime.spawn(async move { server.run(backend).await });
        Self { agent, socket, dir, _runtime: runtime }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ria"));
        command.args(args).env("RIA_SOCKET", &self.socket);
        for name in ["RIA_JOIN_KEY", "RIA_LOG", "ROS_DISTRO", "NO_COLOR", "CYCLONEDDS_URI"] {
            command.env_remove(name);
        }
        command
    }

    fn ria(&self, args: &[&str]) -> Ran {
        finish(self.command(args).stdin(Stdio::null()))
    }

    fn json(&self, args: &[&str]) -> (i32, Value) {
        let ran = self.ria(&[args, &["--json"]].concat());
        (ran.code, serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", ran.out)))
    }
}

fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

const LAB: &[&str] = &[
    "join robot-7",
    "peer robot-2 up direct 0.0123 0",
    "peer robot-3 up relay_udp 0.034 0.02",
    "peer robot-4 lost",
];

#[test]
fn without_an_agent_every_verb_says_how_to_start_one() {
    let machine = Machine::start(&[]);
    let nowhere = ["--socket", "/nonexistent/ria/bus"];
    for verb in
        [&["status"][..], &["peers"], &["ping", "x"], &["up"], &["leave", "--yes"], &["env"], &["join", "-"]]
    {
        let ran = machine.ria(&[verb, &nowhere].concat());
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{verb:?}");
        assert!(ran.err.contains("ria daemon"), "{}", ran.err);
    }
    let (code, error) = machine.json(&["status", nowhere[0], nowhere[1]]);
    assert_eq!((code, &error["error"]["name"]), (3, &"no_daemon".into()));
}

#[test]
fn not_joined_has_its_own_exit_code_and_advice() {
    let machine = Machine::start(&[]);
    for verb in [&["status"][..], &["peers"], &["ping", "x"], &["up"], &["leave", "--yes"], &["env"]] {
        let ran = machine.ria(verb);
        assert_eq!(ran.code, 4, "{verb:?}");
        assert!((ran.out + &ran.err).contains("ria join"), "{verb:?}");
    }
    let (code, status) = machine.json(&["status"]);
    assert_eq!((code, &status["joined"]), (4, &Value::Bool(false)));
    assert_eq!(machine.ria(&["env"]).out, "", "eval would run this");
}

#[test]
fn the_first_line_of_status_answers_and_the_table_is_complete() {
    let machine = Machine::start(LAB);
    let status = machine.ria(&["status"]);
    assert_eq!(status.code, 0);
    assert_eq!(status.out.lines().next(), Some("lab works: 2 of 3 peers answer, coordinator connected"));
    let peers = machine.ria(&["peers"]).out;
    let lines: Vec<&str> = peers.lines().collect();
    assert_eq!(lines.len(), 4, "{peers}");
    assert!(lines[1].starts_with("robot-2  10.213.0.2  up ") && lines[1].contains("12.3 ms"), "{peers}");
    assert!(!peers.contains('\x1b'), "colours in a pipe");

    machine.agent.command("condition no-tun error run: sudo modprobe tun").unwrap();
    let broken = machine.ria(&["status"]).out;
    assert_eq!(broken.lines().next(), Some("lab broken: run: sudo modprobe tun"));
}

#[test]
fn json_is_one_object_for_every_verb_and_every_failure() {
    let machine = Machine::start(LAB);
    let (code, status) = machine.json(&["status"]);
    assert_eq!((code, &status["summary"][0]["health"]), (0, &"works".into()));
    assert_eq!(status["networks"][0]["ros_name"], "robot_7");
    assert_eq!(machine.json(&["peers"]).1["peers"][1]["path"], "relay_udp");
    let (code, ping) = machine.json(&["ping", "robot-2", "-c", "2", "-i", "0.01"]);
    assert_eq!((code, &ping["received"], &ping["rtt_avg"]), (0, &2.into(), &0.0123.into()));
    let (code, ping) = machine.json(&["ping", "robot-2"]);
    assert_eq!(
        (code, &ping["sent"], &ping["direct_from"]),
        (0, &1.into(), &1.into()),
        "it is direct at once"
    );
    let (code, ping) = machine.json(&["ping", "robot-3", "-c", "2", "-i", "0.01"]);
    assert_eq!((code, &ping["sent"], ping.get("direct_from")), (0, &2.into(), None));
    let (code, ping) = machine.json(&["ping", "robot-4", "-c", "1", "-W", "0.05"]);
    assert_eq!((code, &ping["loss"], ping.get("rtt_avg")), (5, &1.0.into(), None));
    assert_eq!(machine.json(&["wait", "--peers", "2"]).1["peers_up"], 2);
    let (code, error) = machine.json(&["wait", "--peers", "9", "--timeout", "0.2"]);
    assert_eq!((code, &error["error"]["name"]), (5, &"timed_out".into()));
    let (code, error) = machine.json(&["ping", "nobody"]);
    assert_eq!((code, &error["error"]["exit_code"]), (1, &1.into()));
    assert_eq!(machine.json(&["leave"]).0, 2);
    assert_eq!(machine.json(&["down"]).1["enabled"], false);
    assert_eq!(machine.json(&["leave", "--yes"]).1["left"], true);
    assert_eq!(machine.json(&["status"]).0, 4);
}

#[test]
fn a_key_never_travels_in_arguments_and_is_never_shown() {
    let machine = Machine::start(&[]);
    let key = "ria1_averysecretsecret";
    let refused = machine.ria(&["join", key]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("ria join -") && !refused.err.contains("averysecret"), "{}", refused.err);

    let mut child = machine.command(&["join", "-", "--log-level", "trace"]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "a damaged key is a usage error");
    let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(all.contains("damaged") && !all.contains("averysecret"), "{all}");

    assert_eq!(finish(machine.command(&["join"]).env("RIA_JOIN_KEY", key)).code, 2);
    assert_eq!(machine.ria(&["join"]).code, 2);
    assert_eq!(machine.ria(&["join", "--file", "/no/such/key"]).code, 1);
}

#[test]
fn wait_returns_when_the_last_peer_answers() {
    let machine = Machine::start(&[]);
    let mut child = machine.command(&["wait", "--peers", "1", "--timeout", "60"]);
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "did not wait for the network");
    machine.agent.command("join").unwrap();
    machine.agent.command("peer robot-2 connecting").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "did not wait for the peer");
    machine.agent.command("peer robot-2 up").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn those_without_rights_may_look_and_learn_what_they_lack() {
    if !nix::unistd::Uid::effective().is_root() {
        return; // Only root can become somebody else.
    }
    let machine = Machine::start(LAB);
    // Where anybody may run it.
    let program = machine.dir.path().join("ria");
    std::fs::copy(env!("CARGO_BIN_EXE_ria"), &program).unwrap();
    open_up(machine.dir.path());
    open_up(&program);
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).env("RIA_SOCKET", &machine.socket).stdin(Stdio::null()).uid(65_534).gid(65_534);
        finish(&mut command)
    };
    assert_eq!(as_nobody(&["peers"]).code, 0);
    let refused = as_nobody(&["down"]);
    assert_eq!(refused.code, 7);
    assert!(refused.err.contains("sudo"), "{}", refused.err);
    assert_eq!(as_nobody(&["leave", "--yes"]).code, 7);
    assert_eq!(machine.json(&["status"]).1["networks"][0]["state"], "up");
}

fn open_up(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let lines: Vec<String> = (0..2000).map(|n| format!("peer robot-{n} up direct 0.01")).collect();
    let lines: Vec<&str> = ["join"].into_iter().chain(lines.iter().map(String::as_str)).collect();
    let machine = Machine::start(&lines);
    let mut child = machine.command(&["peers"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn completions_are_scripts() {
    let machine = Machine::start(&[]);
    for shell in ["bash", "zsh", "fish"] {
        let ran = machine.ria(&["completions", shell]);
        assert!(ran.code == 0 && ran.out.contains("peers") && ran.out.contains("wait"), "{shell}");
    }
    assert_eq!(machine.ria(&["completions", "tcsh"]).code, 2);
    assert_eq!(machine.ria(&["pears"]).code, 2);
}
