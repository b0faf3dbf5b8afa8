//! What a host keeps to itself, how programs run in it, and that nothing is left when its owner is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{PATIENCE, campus_like, eventually, reaches};
use netlab::{Description, HostSpec, Lab, Nat, NetworkSpec};

fn two_hosts() -> (Lab, [netlab::Host; 2]) {
    let mut lab = Lab::new("two").unwrap();
    lab.add_network("lan", NetworkSpec::new("10.1.0.0/24".parse().unwrap())).unwrap();
    let private = vec!["/tmp".into()];
    let a = lab.add_host("host-a", HostSpec { private, ..HostSpec::on("lan") }).unwrap();
    let b = lab.add_host("host-b", HostSpec::on("lan")).unwrap();
    (lab, [a, b])
}

#[test]
fn state_names_and_ids_are_each_hosts_own() {
    let (_lab, [a, b]) = two_hosts();
    let outside = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    for directory in ["/var/lib/ria", "/etc/ria", "/run", "/dev/shm", "/var/lib", "/tmp"] {
        let file = format!("{directory}/netlab-test-{}", std::process::id());
        a.run(&["touch", &file]).unwrap();
        assert!(a.path(&file).exists(), "{file} is there for its host");
        assert!(!Path::new(&file).exists(), "{file} leaked to the machine");
        assert!(!b.path(&file).exists(), "{file} leaked to the other host");
    }
    for file in ["/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/etc/hostname"] {
        let [of_a, of_b] = [&a, &b].map(|host| host.run(&["cat", file]).unwrap());
        assert!(of_a.len() > 5 && of_a != of_b, "{file}: {of_a}");
        assert_ne!(of_a, outside);
    }
    assert_eq!(a.run(&["hostname"]).unwrap().trim(), "host-a");
    let interfaces = a.run(&["ls", "/sys/class/net"]).unwrap();
    assert_eq!(interfaces.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    let bridge = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    assert!(!bridge.exists() || a.run(&["cat", bridge.to_str().unwrap()]).unwrap().trim() == "0");
    a.run(&["ip", "tuntap", "add", "ria0", "mode", "tun"]).unwrap();
    assert!(!Path::new("/sys/class/net/ria0").exists() || b.run(&["ip", "link", "show", "ria0"]).is_err());
}

#[test]
fn a_program_runs_inside_with_its_own_pid_user_directory_and_exit_code() {
    let (_lab, [a, _]) = two_hosts();
    let mut command = a.command("sh");
    command.args(["-c", "pwd; id -u; ps -e | wc -l; exit 7"]).user(65534, 65534);
    let output = command.current_dir("/run").unwrap().output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).unwrap();
    let [directory, uid, processes] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    assert_eq!((directory, uid), ("/run", "65534"));
    // A heading, the init, sh, ps, wc: nothing of the machine.
    assert!(processes.parse::<u32>().unwrap() <= 6, "{processes}");

    let error = a.output(&["no-such-program"]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let error = a.run(&["sh", "-c", "echo broken >&2; exit 3"]).unwrap_err().to_string();
    assert!(error.contains("broken") && error.contains("host-a"), "{error}");

    let log = tempfile::NamedTempFile::new().unwrap();
    let mut process = a.spawn(&["sh", "-c", "echo begun; exec sleep 100"], log.path()).unwrap();
    eventually("the log has what it wrote", || fs::read_to_string(log.path()).unwrap() == "begun\n");
    assert_eq!(process.terminate(PATIENCE).unwrap().signal(), Some(15));
}

#[test]
fn orphans_are_reaped_and_end_with_the_lab() {
    let (lab, [a, _]) = two_hosts();
    // The shell ends at once; the sleep, an orphan then, becomes a child of the host's init.
    let pid = a.run(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]).unwrap();
    let pid = pid.trim();
    a.run(&["kill", "-0", pid]).unwrap();
    a.run(&["kill", "-9", pid]).unwrap();
    eventually("no zombie is left", || !a.path(format!("/proc/{pid}")).exists());

    a.run(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"]).unwrap();
    let namespace = pid_namespace(a.init()).unwrap();
    await_members(&namespace, 2);
    drop(lab);
    await_members(&namespace, 0);
}

#[test]
fn labs_of_the_same_name_and_addresses_do_not_disturb_each_other() {
    let (first, second) = (campus_like(Nat::PortPreserving), campus_like(Nat::Symmetric));
    for lab in [&first, &second] {
        assert!(reaches(&lab.host("robot").unwrap(), lab.host("one").unwrap().address()));
    }
    drop(first);
    assert!(reaches(&second.host("robot").unwrap(), second.host("one").unwrap().address()));
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let read = |text: &str| Description::from_toml(text).unwrap_err().to_string();
    let error = read("name = 'x'\n[host.a]\nnetwork = 'lan'\ncolour = 'red'");
    assert!(error.contains("unknown field `colour`") && error.contains("private"), "{error}");
    let error = read("name = 'x'\n[host.a]\nnetwork = 'lan'\nlink = { rate-up = 'fast' }");
    assert!(error.contains("20mbit"), "{error}");

    let build = |text: &str| Lab::build(&Description::from_toml(text).unwrap()).unwrap_err().to_string();
    let error = build("name = 'x'\n[network.lan]\nprefix = '10.1.0.0/24'\n[host.a]\nnetwork = 'wlan'");
    assert!(error.contains("no network named 'wlan'") && error.contains("lan"), "{error}");
    let error = build(
        "name = 'x'\n[network.lan]\nprefix = '10.1.0.0/24'\n[host.a]\nnetwork = 'lan'\naddress = '10.2.0.1'",
    );
    assert!(error.contains("10.2.0.1 is not free"), "{error}");

    let netlab = env!("CARGO_BIN_EXE_netlab");
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(netlab).args(["up", "campus"]).env("PATH", empty.path()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("'iproute2'"), "{error}");
    let output = Command::new(netlab).args(["down", "no-such-lab"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("netlab up FILE"), "{error}");
}

/// A lab of the command, with a name of this process's own, that is ready.
struct Running {
    name: String,
    owner: Child,
    inits: Vec<u32>,
}

impl Running {
    fn start(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let mut owner = Command::new(env!("CARGO_BIN_EXE_netlab"))
            .args(["up", "campus", "--json", "--name", &name])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let report: netlab::control::LabReport = serde_json::from_str(&line).unwrap();
        assert_eq!((&report.name, report.hosts.len()), (&name, 4));
        Self { name, owner, inits: report.hosts.iter().map(|host| host.init).collect() }
    }

    fn netlab(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netlab"));
        command.args([verb, &self.name]).args(arguments);
        command
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.owner.kill();
        let _ = self.owner.wait();
    }
}

#[test]
fn the_command_runs_changes_moves_and_ends() {
    let mut running = Running::start("command");
    let output = running.netlab("exec", &["robot-a", "--", "sh", "-c", "cat; hostname; exit 9"]);
    let output = with_input(output, "from outside\n");
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "from outside\nrobot-a\n");

    let ping = ["robot-a", "--", "ping", "-i0.2", "-c1", "-w2", "198.51.100.2"];
    let pings = |running: &Running| running.netlab("exec", &ping).output().unwrap().status.success();
    eventually("robot-a reaches the internet", || pings(&running));
    assert!(running.netlab("set", &["nat-a", "cut=on"]).status().unwrap().success());
    assert!(!pings(&running));
    assert!(running.netlab("move", &["robot-a", "office"]).status().unwrap().success());
    eventually("robot-a reaches the internet from the office", || pings(&running));
    let output = running.netlab("set", &["robot-a", "loss=lots"]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("percentage"));

    let listed = Command::new(env!("CARGO_BIN_EXE_netlab")).args(["ls", "--json"]).output().unwrap();
    let labs: Vec<netlab::control::LabReport> = serde_json::from_slice(&listed.stdout).unwrap();
    let lab = labs.iter().find(|lab| lab.name == running.name).expect("it is listed");
    assert!(lab.hosts.iter().any(|host| host.name == "robot-a" && host.network == "office"));

    assert!(running.netlab("down", &[]).status().unwrap().success());
    assert!(running.owner.wait().unwrap().success());
}

fn with_input(mut command: Command, text: &str) -> std::process::Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_signal_reaches_the_program_and_a_killed_exec_takes_it_along() {
    let running = Running::start("signals");
    let namespace = pid_namespace(running.inits[0]).unwrap();
    for (signal, code) in [("TERM", Some(143)), ("KILL", None)] {
        let mut exec = running.netlab("exec", &["coordinator", "sleep", "1000"]).spawn().unwrap();
        await_members(&namespace, 2);
        let pid = exec.id().to_string();
        // The thread that hands signals on starts when the guard is in place, a moment after the program.
        eventually("the guard is in place", || threads(&pid).contains("forward"));
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert_eq!(exec.wait().unwrap().code(), code);
        await_members(&namespace, 1);
    }
}

#[test]
fn nothing_is_left_of_a_lab_whose_owner_is_killed() {
    let before = (interfaces(), mounts());
    let mut running = Running::start("killed");
    let namespaces: Vec<String> = running.inits.iter().map(|init| pid_namespace(*init).unwrap()).collect();
    let mut inside = running.netlab("exec", &["robot-b", "sleep", "1000"]).spawn().unwrap();
    let everything = netlab_inits(&running.name);
    assert_eq!(everything.len(), 11, "4 hosts, 3 routers, 4 networks: {everything:?}");
    assert_eq!((interfaces(), mounts()), before, "a lab shows outside");

    running.owner.kill().unwrap();
    running.owner.wait().unwrap();
    inside.wait().unwrap();
    eventually("nothing runs any more", || {
        netlab_inits(&running.name).is_empty() && namespaces.iter().all(|ns| members(ns).is_empty())
    });
    assert_eq!((interfaces(), mounts()), before);
    assert!(!netlab::control::running().unwrap().contains(&running.name));
}

fn await_members(namespace: &str, count: usize) {
    eventually(&format!("{count} processes run in it"), || members(namespace).len() == count);
}

/// Names of a process's threads.
fn threads(pid: &str) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn pid_namespace(pid: u32) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok().map(|link| link.to_string_lossy().into_owned())
}

/// Processes that run in a PID namespace.
fn members(namespace: &str) -> Vec<u32> {
    pids().filter(|pid| pid_namespace(*pid).as_deref() == Some(namespace)).collect()
}

/// The init processes of a lab, by their environment.
fn netlab_inits(lab: &str) -> Vec<u32> {
    let mark = format!("NETLAB_NODE={lab}/");
    let is_of = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| text.starts_with(mark.as_bytes()))
    };
    pids().filter(is_of).collect()
}

fn interfaces() -> String {
    fs::read_to_string("/proc/net/dev").unwrap().lines().filter_map(|line| line.split(':').next()).collect()
}

fn mounts() -> String {
    fs::read_to_string("/proc/mounts").unwrap()
}
