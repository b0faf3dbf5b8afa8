//! A lab with the real coordinator and real agents, for the tests beside this directory.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod bus;
pub mod listener;
pub mod office;
pub mod traffic;
pub mod transfer;
pub mod turn_client;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netlab::{Host, HostSpec, Lab, Nat, NetworkSpec, Process, RouterSpec};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Where the coordinator is.
pub const COORDINATOR: &str = "198.51.100.2";

/// In each host: by how many seconds the agent's clock is off (faketime).
const CLOCK_FILE: &str = "/run/clock";

/// Longest wait for something that should happen soon; generous, since machines that test are slow.
pub const SOON: Duration = Duration::from_secs(20);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Where the robots of a team are.
pub enum Site {
    /// Each on a Wi-Fi of its own (isolated, without multicast), behind a NAT of its own.
    Apart(Nat),
    /// Together on one plain network behind one NAT.
    Together,
}

/// A lab with a coordinator, and `robot-a` and `robot-b` that have not joined yet.
pub struct Team {
    /// The lab.
    pub lab: Lab,
    coordinator: Option<Process>,
    logs: TempDir,
    settings: Vec<(&'static str, &'static str)>,
    urls: Vec<String>,
}

impl Team {
    /// Starts the coordinator.
    pub fn new(name: &str, site: &Site) -> Self {
        Self::with_settings(name, site, &[])
    }

    /// The same with settings of the coordinator, as variables of its environment.
    pub fn with_settings(name: &str, site: &Site, settings: &[(&'static str, &'static str)]) -> Self {
        let mut lab = Lab::new(name).unwrap();
        lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
        lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
        for (n, robot) in [(1, "robot-a"), (2, "robot-b")] {
            match site {
                Site::Apart(nat) => {
                    let (wifi, prefix) = (format!("wifi-{n}"), format!("192.168.{n}.0/24"));
                    lab.add_network(&wifi, NetworkSpec::campus_wifi(prefix.parse().unwrap())).unwrap();
                    lab.add_router(&format!("nat-{n}"), RouterSpec::new("internet", &wifi, *nat)).unwrap();
                    lab.add_host(robot, HostSpec::on(&wifi)).unwrap();
                }
                Site::Together => {
                    if n == 1 {
                        lab.add_network("lan", NetworkSpec::new("192.168.1.0/24".parse().unwrap())).unwrap();
                        lab.add_router("nat", RouterSpec::new("internet", "lan", Nat::Symmetric)).unwrap();
                    }
                    lab.add_host(robot, HostSpec::on("lan")).unwrap();
                }
            }
        }
        Self::in_lab(lab, settings)
    }

    /// Any number of robots: the first ones share a plain network, the others an isolated Wi-Fi, each network behind a
    /// symmetric NAT. So the first reach each other directly, and everything else is relayed.
    pub fn crowd(name: &str, together: &[&str], apart: &[&str]) -> Self {
        let mut lab = Lab::new(name).unwrap();
        lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
        lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
        lab.add_network("lan", NetworkSpec::new("192.168.1.0/24".parse().unwrap())).unwrap();
        lab.add_network("wifi", NetworkSpec::campus_wifi("192.168.2.0/24".parse().unwrap())).unwrap();
        for (network, robots) in [("lan", together), ("wifi", apart)] {
            let router = RouterSpec::new("internet", network, Nat::Symmetric);
            lab.add_router(&format!("nat-{network}"), router).unwrap();
            for robot in robots {
                lab.add_host(robot, HostSpec::on(network)).unwrap();
            }
        }
        Self::in_lab(lab, &[])
    }

    /// A coordinator with these settings in a lab that has a host of that name.
    pub fn of(lab: Lab, settings: &[(&'static str, &'static str)]) -> Self {
        Self::in_lab(lab, settings)
    }

    /// In a lab that has a host `coordinator`, which is to be found at these URLs.
    pub fn over(lab: Lab, urls: &[&str]) -> Self {
        Self::start_in(lab, &[], urls.iter().map(|url| (*url).to_owned()).collect())
    }

    fn in_lab(lab: Lab, settings: &[(&'static str, &'static str)]) -> Self {
        Self::start_in(lab, settings, vec![format!("https://{COORDINATOR}")])
    }

    fn start_in(lab: Lab, settings: &[(&'static str, &'static str)], urls: Vec<String>) -> Self {
        let (logs, settings) = (tempfile::tempdir().unwrap(), settings.to_vec());
        let mut team = Self { lab, coordinator: None, logs, settings, urls };
        team.start_coordinator();
        team
    }

    /// Starts the coordinator, again.
    pub fn start_coordinator(&mut self) {
        let mut command = self.host("coordinator").command(program("ria-coordinator"));
        command
            .arg("serve")
            .args(self.urls.iter().flat_map(|url| ["--public-url", url]))
            .log(&self.logs.path().join("coordinator.log"))
            .unwrap();
        for (name, value) in &self.settings {
            command.env(name, value);
        }
        self.coordinator = Some(command.spawn().unwrap());
        eventually("the coordinator answers", || self.admin(&["network", "list"]).code == 0);
    }

    /// Kills the coordinator without warning.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().unwrap().kill().unwrap();
    }

    /// Runs a verb of the coordinator.
    pub fn admin(&self, arguments: &[&str]) -> Ended {
        run(&self.host("coordinator"), &program("ria-coordinator"), arguments)
    }

    /// Runs a verb of the coordinator on another host.
    pub fn admin_on(&self, host: &str, arguments: &[&str]) -> Ended {
        run(&self.host(host), &program("ria-coordinator"), arguments)
    }

    /// Starts a coordinator on another host; without URLs it does not know where it is.
    pub fn serve_on(&self, host: &str, urls: &str) -> Process {
        let program = program("ria-coordinator");
        let mut line = vec![program.to_str().unwrap(), "serve"];
        if !urls.is_empty() {
            line.extend(["--public-url", urls]);
        }
        let log = self.logs.path().join(format!("{host}.log"));
        let process = self.host(host).spawn(&line, &log).unwrap();
        eventually("the coordinator answers", || self.admin_on(host, &["network", "list"]).code == 0);
        process
    }

    /// A join key; reusable when it says so.
    pub fn key(&self, options: &[&str]) -> String {
        let made = self.admin(&[&["key", "create"], options].concat());
        assert_eq!(made.code, 0, "{made:?}");
        made.out.trim().to_owned()
    }

    /// A host by name.
    pub fn host(&self, name: &str) -> Host {
        self.lab.host(name).unwrap()
    }

    /// A robot with a running agent.
    pub fn robot(&self, name: &str, options: &[&str]) -> Robot {
        let log = self.logs.path().join(format!("{name}.log"));
        let mut robot = Robot { host: self.host(name), agent: None, log, has_own_clock: false };
        robot.start(options);
        robot
    }

    /// A robot whose agent joins by itself; it is not waited for.
    pub fn joining(&self, name: &str, key: &str, options: &[&str]) -> Robot {
        let log = self.logs.path().join(format!("{name}.log"));
        let mut robot = Robot { host: self.host(name), agent: None, log, has_own_clock: false };
        std::fs::write(robot.host.path("/run/key"), key).unwrap();
        robot.start_unwatched(&[&["--join-file", "/run/key"], options].concat());
        robot
    }

    /// A robot with a running agent, for which the clock is off by so many seconds, as [`Robot::set_clock`] says.
    pub fn robot_with_clock(&self, name: &str, offset: i64) -> Robot {
        let log = self.logs.path().join(format!("{name}.log"));
        let mut robot = Robot { host: self.host(name), agent: None, log, has_own_clock: true };
        robot.set_clock(offset);
        robot.start(&[]);
        robot
    }

    /// Both robots, joined, with an answer from each other.
    pub fn pair(&self) -> (Robot, Robot) {
        let key = self.key(&["--reusable"]);
        let (a, b) = (self.robot("robot-a", &[]), self.robot("robot-b", &[]));
        for robot in [&a, &b] {
            let joined = robot.join(&key);
            assert_eq!(joined.code, 0, "{joined:?}");
        }
        a.wait_for_link("robot-b", "up");
        b.wait_for_link("robot-a", "up");
        (a, b)
    }
}

/// A host with an agent.
pub struct Robot {
    /// The host.
    pub host: Host,
    agent: Option<Process>,
    log: PathBuf,
    has_own_clock: bool,
}

/// A test that fails shows what the programs said last.
impl Drop for Team {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_logs(self.logs.path());
        }
    }
}

impl Robot {
    /// A host without an agent yet.
    pub fn on(host: Host, log: &Path) -> Self {
        Self { host, agent: None, log: log.to_owned(), has_own_clock: false }
    }

    /// Starts the agent and waits until it serves.
    pub fn start(&mut self, options: &[&str]) {
        self.start_unwatched(options);
        eventually("the agent serves", || self.ria(&["status"]).code != 3);
    }

    /// Starts the agent and does not wait.
    pub fn start_unwatched(&mut self, options: &[&str]) {
        self.start_by(&[], options);
    }

    /// Starts the agent by another program, which is given its command line, and does not wait.
    pub fn start_by(&mut self, starter: &[&str], options: &[&str]) {
        let ria = program("ria").to_string_lossy().into_owned();
        let line = [starter, &[&ria, "daemon"], options].concat();
        let mut command = self.host.command(line[0]);
        command.args(&line[1..]).log(&self.log).unwrap();
        if self.has_own_clock {
            command.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1");
            command.env("FAKETIME_TIMESTAMP_FILE", CLOCK_FILE).env("FAKETIME_NO_CACHE", "1");
            // Only the clock that people set: timers go on as always.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
        self.agent = Some(command.spawn().unwrap());
    }

    /// Sets the agent's clock, also while it runs: so many seconds ahead of the real one.
    pub fn set_clock(&self, offset: i64) {
        let file = self.host.path(CLOCK_FILE);
        std::fs::write(file.with_extension("new"), format!("{offset:+}\n")).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }

    /// Kills the agent without warning.
    pub fn kill(&mut self) {
        self.agent.take().unwrap().kill().unwrap();
    }

    /// Kills an agent that was [started by](Self::start_by) another program, which then ends by itself.
    pub fn kill_started(&mut self) {
        let mut starter = self.agent.take().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", starter.id());
        for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            // It may be gone meanwhile.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL);
        }
        starter.wait_timeout(SOON).unwrap().expect("the starter ends with the agent");
    }

    /// Sends the agent a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.agent.as_mut().unwrap().signal(signal).unwrap();
    }

    /// Whether the agent has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.agent.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Sends the agent a signal and tells how long it took to end, which it must do in good order.
    pub fn stop(&mut self, signal: Signal) -> Duration {
        let mut agent = self.agent.take().unwrap();
        let begin = Instant::now();
        agent.signal(signal).unwrap();
        let status = agent.wait_timeout(SOON).unwrap().expect("the agent ends");
        assert!(status.success(), "{status:?}: {}", self.log());
        begin.elapsed()
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// What the agent logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Runs a verb.
    pub fn ria(&self, arguments: &[&str]) -> Ended {
        run(&self.host, &program("ria"), arguments)
    }

    /// Starts a verb and does not wait for its end.
    pub fn begin(&self, arguments: &[&str]) -> Process {
        self.host.command(program("ria")).args(arguments).spawn().unwrap()
    }

    /// Joins with a key.
    pub fn join(&self, key: &str) -> Ended {
        let file = self.host.path("/run/key");
        std::fs::write(&file, key).unwrap();
        self.ria(&["join", "--file", "/run/key"])
    }

    /// The first network in `ria status`.
    pub fn status(&self) -> Value {
        let ended = self.ria(&["status", "--json"]);
        let value: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
        value["networks"].get(0).cloned().unwrap_or(Value::Null)
    }

    /// Codes of all conditions of the agent and its first network.
    pub fn conditions(&self) -> Vec<String> {
        let ended = self.ria(&["status", "--json"]);
        let value: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
        let mut codes = Vec::new();
        collect_codes(&value, &mut codes);
        codes
    }

    /// All of `ria peers`.
    pub fn peers(&self) -> Vec<Value> {
        let ended = self.ria(&["peers", "--json"]);
        let value: Value = serde_json::from_str(&ended.out).unwrap_or(Value::Null);
        value["peers"].as_array().cloned().unwrap_or_default()
    }

    /// A peer in `ria peers`; null when it is none.
    pub fn peer(&self, name: &str) -> Value {
        self.peers().into_iter().find(|peer| peer["name"] == name).unwrap_or(Value::Null)
    }

    /// Waits until the link to a peer is in this state.
    pub fn wait_for_link(&self, peer: &str, state: &str) {
        eventually(&format!("link to {peer} is {state}"), || self.peer(peer)["link_state"] == state);
    }

    /// Own overlay IPv4 address.
    pub fn address(&self) -> String {
        let status = self.status();
        let address = status["addresses"][0].as_str().unwrap_or_else(|| panic!("{status}")).to_owned();
        address.split('/').next().unwrap().to_owned()
    }

    /// Sends packets through the tunnel; how many of them came back.
    pub fn ping(&self, address: &str, count: u32) -> u32 {
        let count = count.to_string();
        let line = ["ping", "-n", "-q", "-i", "0.1", "-W", "3", "-c", &count, address];
        received(&String::from_utf8_lossy(&self.host.output(&line).unwrap().stdout))
    }

    /// Whether an interface of this name is there.
    pub fn has_interface(&self, name: &str) -> bool {
        self.host.output(&["ip", "link", "show", "dev", name]).unwrap().status.success()
    }
}

/// Prints the end of each log in this directory.
#[expect(clippy::print_stderr, reason = "for whom the test fails")]
fn show_logs(directory: &Path) {
    const LINES: usize = 60;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- the end of {}", entry.path().display());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            eprintln!("{line}");
        }
    }
}

/// The number of answers in ping's summary.
pub fn received(summary: &str) -> u32 {
    let line = summary.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
    let number = line.split(", ").find_map(|part| part.strip_suffix(" received"));
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Starts another coordinator, beside that of the team; gives it with a reusable key for its network.
pub fn serve_beside(host: &Host, address: &str) -> (Process, String) {
    let program = program("ria-coordinator");
    let line = [program.to_str().unwrap(), "serve", "--public-url", &format!("https://{address}")];
    let process = host.spawn(&line, Path::new("/dev/null")).unwrap();
    eventually("the coordinator answers", || run(host, &program, &["network", "list"]).code == 0);
    let made = run(host, &program, &["key", "create", "--reusable"]);
    (process, made.out.trim().to_owned())
}

/// Waits until something is so.
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    eventually_within(SOON, what, is_so);
}

/// The same for what takes its time.
pub fn eventually_within(patience: Duration, what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < end, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Writes until nothing fits any more.
pub fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}

fn run(host: &Host, program: &Path, arguments: &[&str]) -> Ended {
    let line = [&[program.to_str().unwrap()], arguments].concat();
    let output = host.output(&line).unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The workspace's programs lie side by side.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_ria")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

fn collect_codes(value: &Value, codes: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let conditions = map.get("conditions").and_then(Value::as_array);
            codes.extend(
                conditions.into_iter().flatten().filter_map(|c| Some(c["code"].as_str()?.to_owned())),
            );
            map.values().for_each(|inner| collect_codes(inner, codes));
        }
        Value::Array(list) => list.iter().for_each(|inner| collect_codes(inner, codes)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
