//! Ria as a service of the machine: what it says to the service manager, that it works with the rights that its unit leaves
//! it, and `ria install` and `ria uninstall`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use netlab::{Host, HostSpec, Lab, NetworkSpec, Process};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{COORDINATOR, SOON, Site, Team, eventually, program};

const UNITS: [&str; 2] = ["ria", "ria-coordinator"];

/// What `systemd-analyze security` may say at most, and the manual says.
const EXPOSURE: [(&str, &str); 2] = [("ria", "24"), ("ria-coordinator", "16")];

/// Where the made-up service manager listens, inside the host.
const NOTIFY: &str = "/run/notify";

/// A service manager that only listens.
struct Manager(UnixDatagram);

impl Manager {
    fn on(host: &Host) -> Self {
        let socket = UnixDatagram::bind(host.path(NOTIFY)).unwrap();
        Self(socket)
    }

    /// What comes next, if anything comes in that time.
    fn next(&self, patience: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 256];
        let len = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    fn expect(&self, state: &str) {
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            if self.next(Duration::from_secs(1)).as_deref() == Some(state) {
                return;
            }
        }
        panic!("the service manager never heard {state}");
    }
}

fn start(host: &Host, line: &[&str], watchdog_usec: &str) -> Process {
    let (program, arguments) = (program(line[0]), &line[1..]);
    let mut command = host.command(program);
    command.args(arguments).env("NOTIFY_SOCKET", NOTIFY).env("WATCHDOG_USEC", watchdog_usec);
    command.stderr(Stdio::null()).spawn().unwrap()
}

fn end(mut process: Process) {
    process.signal(Signal::SIGTERM).unwrap();
    let status = process.wait_timeout(SOON).unwrap().expect("it ends");
    assert!(status.success(), "{status:?}");
}

#[test]
fn the_agent_is_ready_with_its_interface_and_alive_only_while_packets_are_moved() {
    let team = Team::new("service-notify", &Site::Together);
    let mut a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    a.stop(Signal::SIGINT);
    assert!(!a.has_interface("ria0"));

    let manager = Manager::on(&a.host);
    let agent = start(&a.host, &["ria", "daemon"], "1000000");
    assert_eq!(manager.next(SOON).as_deref(), Some("READY=1"), "first of all");
    assert!(a.has_interface("ria0"), "whoever waits for READY=1 finds the interface");
    (0..3).for_each(|_| manager.expect("WATCHDOG=1"));

    // The thread that moves packets hangs, the rest of the agent does not.
    let mut hang = Command::new("strace");
    hang.args(["-qq", "-e", "trace=epoll_wait", "-e", "inject=epoll_wait:delay_enter=300000000", "-p"]);
    hang.arg(packet_thread(agent.id())).stdout(Stdio::null()).stderr(Stdio::null());
    let mut hang = hang.spawn().unwrap();
    let silent_by = Instant::now() + SOON;
    while manager.next(Duration::from_secs(4)).is_some() {
        assert!(Instant::now() < silent_by, "it says that it is alive while no packet moves");
    }
    kill(Pid::from_raw(hang.id() as i32), Signal::SIGTERM).unwrap();
    hang.wait().unwrap();
    manager.expect("WATCHDOG=1");
    end(agent);
    manager.expect("STOPPING=1");
}

fn packet_thread(agent: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{agent}/task")).unwrap().flatten();
    let mut named = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "ria-packets")
    });
    named.next().unwrap().file_name().to_string_lossy().into_owned()
}

#[test]
fn the_coordinator_is_ready_when_it_answers_and_is_found_where_its_service_has_its_socket() {
    let team = Team::new("service-coordinator", &Site::Together);
    let host = team.host("robot-b");
    let manager = Manager::on(&host);
    fs::create_dir(host.path("/run/ria-coordinator")).unwrap();
    let socket = "/run/ria-coordinator/admin.sock";
    let line = ["ria-coordinator", "serve", "--public-url", "https://198.51.100.9", "--admin-socket", socket];
    let coordinator = start(&host, &line, "1000000");
    assert_eq!(manager.next(SOON).as_deref(), Some("READY=1"));
    let listed = team.admin_on("robot-b", &["network", "list"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    (0..3).for_each(|_| manager.expect("WATCHDOG=1"));
    end(coordinator);
    manager.expect("STOPPING=1");
}

/// System calls that the unit allows, by systemd's own lists.
fn allowed_calls() -> BTreeSet<String> {
    let output = Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let unit = fs::read_to_string(unit("ria")).unwrap();
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        for group in line.trim_start_matches('~').split(' ') {
            let calls = calls_of(&text, group);
            assert!(!calls.is_empty(), "{group}");
            if line.starts_with('~') {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    allowed
}

/// The calls of a group, and of the groups in it.
fn calls_of(text: &str, group: &str) -> BTreeSet<String> {
    let mut lines = text.lines().skip_while(|line| line.trim_end() != group).skip(1);
    let mut calls = BTreeSet::new();
    for line in lines.by_ref().take_while(|line| line.starts_with(' ')) {
        match line.trim() {
            inner if inner.starts_with('@') => calls.extend(calls_of(text, inner)),
            call if !call.starts_with('#') => {
                calls.insert(call.to_owned());
            }
            _ => {}
        }
    }
    calls
}

fn unit(name: &str) -> String {
    format!("{}/packaging/systemd/{name}.service", env!("CARGO_MANIFEST_DIR"))
}

/// What systemd itself would enforce: the one capability, a system that is read-only but for its own directories, and the
/// system calls.
#[test]
fn an_agent_with_nothing_but_what_its_unit_leaves_it_works() {
    let team = Team::new("service-confined", &Site::Together);
    let b = team.robot("robot-b", &[]);
    let key = team.key(&["--reusable"]);
    assert_eq!(b.join(&key).code, 0);
    let a = support::Robot::on(team.host("robot-a"), Path::new("/dev/null"));
    let script = "mount --bind /var/lib/ria /var/lib/ria && mkdir /run/ria && mount --bind /run/ria /run/ria \
         && mount --bind /etc/hosts /etc/hosts && mount -o remount,bind,ro / && mount -o remount,bind,ro /etc && mount -o remount,bind,ro /var/lib \
         && ! touch /etc/x 2>/dev/null && ! touch /usr/x 2>/dev/null \
         && exec setpriv --bounding-set=-all,+net_admin --inh-caps=-all --no-new-privs \
            strace -f -c -o /run/calls \"$1\" daemon";
    let ria = program("ria");
    let mut command = a.host.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", ria.to_str().unwrap()]);
    let mut confined = command.stderr(Stdio::null()).spawn().unwrap();
    eventually("the agent serves", || a.ria(&["status"]).code != 3);
    let joined = a.join(&key);
    assert_eq!(joined.code, 0, "{joined:?}");
    a.wait_for_link("robot-b", "up");
    assert_eq!(a.ping("robot-b", 5), 5, "by its name, though /etc is read-only");
    assert!(a.conditions().is_empty(), "{:?}", a.conditions());
    let netcheck = a.ria(&["netcheck"]);
    assert_eq!(netcheck.code, 0, "{netcheck:?}");
    assert_eq!((a.ria(&["down"]).code, a.ria(&["up"]).code), (0, 0));
    // Another program puts another file in the place of /etc/hosts, as editors do: names can't follow, which is said with its cure.
    let replaced = a
        .host
        .command("sh")
        .args(["-c", "cp /etc/hosts /etc/new && mv /etc/new /etc/hosts"])
        .status()
        .unwrap();
    assert!(replaced.success());
    assert_eq!(team.admin(&["node", "rename", "robot-b", "arm"]).code, 0);
    eventually("it is said that names can't be written", || {
        a.conditions().iter().any(|condition| condition.contains("names-not-set"))
    });
    let status = a.ria(&["status"]);
    assert!(status.out.contains("systemctl restart ria"), "{status:?}");

    let children = format!("/proc/{0}/task/{0}/children", confined.id());
    let agent: i32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let status = fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
    assert!(status.contains("\nCapEff:\t0000000000001000\n"), "CAP_NET_ADMIN only: {status}");
    kill(Pid::from_raw(agent), Signal::SIGTERM).unwrap();
    confined.wait_timeout(SOON).unwrap().expect("it ends");
    let counted = fs::read_to_string(a.host.path("/run/calls")).unwrap();
    let lines = counted.lines().skip_while(|line| !line.starts_with("------")).skip(1);
    let used: BTreeSet<String> = lines
        .take_while(|line| !line.starts_with("------"))
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect();
    assert!(used.contains("ioctl") && used.contains("sendmsg"), "{counted}");
    let allowed = allowed_calls();
    let foreign: Vec<_> = used.difference(&allowed).collect();
    assert!(foreign.is_empty(), "the unit does not allow {foreign:?}");
}

fn analyze(arguments: &[&str]) -> Output {
    Command::new("systemd-analyze").args(arguments).output().unwrap()
}

fn ria(arguments: &[&str]) -> Output {
    Command::new(program("ria")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// An image of a machine: what `ria install` needs of one.
fn image() -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    fs::create_dir(image.path().join("etc")).unwrap();
    fs::write(image.path().join("etc/group"), "root:x:0:\n").unwrap();
    image
}

#[test]
fn the_units_are_sound_and_as_closed_as_the_manual_says() {
    let image = image();
    let root = image.path().to_str().unwrap();
    assert!(ria(&["install", "--root", root]).status.success());
    let units = image.path().join("etc/systemd/system");
    fs::create_dir_all(image.path().join("usr/bin")).unwrap();
    fs::copy(program("ria-coordinator"), image.path().join("usr/bin/ria-coordinator")).unwrap();
    fs::copy(unit("ria-coordinator"), units.join("ria-coordinator.service")).unwrap();
    let root = format!("--root={root}");
    let verify = |unit: &str| analyze(&["verify", "--man=no", "--recursive-errors=no", &root, unit]);
    for name in UNITS {
        let verified = verify(&format!("{name}.service"));
        assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    }
    let text = fs::read_to_string(unit("ria")).unwrap();
    fs::write(units.join("wrong.service"), text.replace("LockPersonality=", "LockPersonalty=")).unwrap();
    assert!(!verify("wrong.service").stderr.is_empty(), "a mistake would be seen");

    for (name, most) in EXPOSURE {
        let threshold = format!("--threshold={most}");
        let scored = analyze(&["security", "--no-pager", "--offline=true", &threshold, &unit(name)]);
        assert!(scored.status.success(), "{}", String::from_utf8_lossy(&scored.stdout));
    }
}

#[test]
fn installing_twice_changes_nothing_and_uninstalling_keeps_the_membership_unless_told() {
    let image = image();
    let root = image.path().to_str().unwrap();
    let at = |name: &str| image.path().join(name);
    let told = |arguments: &[&str]| {
        let output = ria(&[arguments, &["--root", root, "--json"]].concat());
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        (output.status.code().unwrap(), value)
    };
    let (code, first) = told(&["install"]);
    assert_eq!((code, &first["unchanged"]), (0, &Value::Array(Vec::new())), "{first}");
    let group = fs::read_to_string(at("etc/group")).unwrap();
    assert!(group.contains("\nria:x:"), "{group}");
    assert_eq!(fs::metadata(at("etc/ria/keys")).unwrap().permissions().mode() & 0o7777, 0o750);
    assert!(at("etc/systemd/system/multi-user.target.wants/ria.service").is_symlink());
    fs::write(at("etc/ria/agent.toml"), "beacon = false\n").unwrap();
    fs::write(at("etc/systemd/system/ria.service"), "[Unit]\n").unwrap();
    let (code, second) = told(&["install"]);
    assert_eq!((code, &second["changed"]), (0, &serde_json::json!(["/etc/systemd/system/ria.service"])));
    assert_eq!(fs::read_to_string(at("etc/ria/agent.toml")).unwrap(), "beacon = false\n", "the admin's");

    let (code, _) = told(&["install", "--file-capability"]);
    assert_eq!(code, 0);
    let program = at("usr/local/bin/ria");
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o7777, 0o750);
    let capability = Command::new("getcap").arg(&program).output().unwrap();
    assert!(String::from_utf8_lossy(&capability.stdout).contains("cap_net_admin=ep"), "{capability:?}");
    assert_eq!(told(&["install"]).0, 0);
    let capability = Command::new("getcap").arg(&program).output().unwrap();
    assert!(capability.stdout.is_empty(), "for everybody, and without the capability: {capability:?}");

    fs::create_dir_all(at("var/lib/ria/networks/one")).unwrap();
    let (code, asked) = told(&["uninstall"]);
    assert_eq!(code, 2);
    assert!(asked["error"]["text"].as_str().unwrap().contains("stays a member"), "{asked}");
    assert!(program.exists());
    let (code, removed) = told(&["uninstall", "--yes"]);
    assert_eq!((code, &removed["kept"]), (0, &serde_json::json!(["/var/lib/ria", "/etc/ria"])), "{removed}");
    assert!(!program.exists() && !at("etc/systemd/system/multi-user.target.wants/ria.service").is_symlink());
    assert_eq!(told(&["uninstall", "--yes"]).1["removed"], serde_json::json!([]), "nothing is left to do");
    let (code, purged) = told(&["uninstall", "--yes", "--purge"]);
    assert_eq!((code, &purged["coordinator_told"]), (0, &false.into()), "{purged}");
    let group = fs::read_to_string(at("etc/group")).unwrap();
    assert!(!at("var/lib/ria").exists() && !at("etc/ria").exists() && !group.contains("ria:"));

    fs::create_dir_all(at("usr/lib/systemd/system")).unwrap();
    fs::write(at("usr/lib/systemd/system/ria.service"), "").unwrap();
    for verb in ["install", "uninstall"] {
        let (code, refused) = told(&[verb]);
        assert!(code == 1 && refused["error"]["text"].as_str().unwrap().contains("package"), "{refused}");
    }
}

#[test]
fn purging_while_joined_leaves_the_network_and_the_coordinator_hears_of_it() {
    let mut lab = Lab::new("service-purge").unwrap();
    lab.add_network("lan", NetworkSpec::new("198.51.100.0/24".parse().unwrap())).unwrap();
    lab.add_host("coordinator", HostSpec::on("lan").at(COORDINATOR.parse().unwrap())).unwrap();
    let robot = HostSpec { private: vec!["/usr/local".into()], ..HostSpec::on("lan") };
    lab.add_host("robot-a", robot).unwrap();
    let team = Team::of(lab, &[]);
    let mut a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let installed = a.ria(&["install"]);
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(a.host.path("/usr/local/bin/ria").exists());
    let purged = a.ria(&["uninstall", "--purge", "--yes", "--json"]);
    let told: Value = serde_json::from_str(&purged.out).unwrap_or_else(|_| panic!("{purged:?}"));
    assert_eq!((&told["left"], &told["coordinator_told"]), (&serde_json::json!(["lab"]), &true.into()));
    assert!(!a.host.path("/var/lib/ria").exists() && !a.host.path("/usr/local/bin/ria").exists());
    eventually("the coordinator has no node any more", || {
        team.admin(&["node", "list", "--json"]).out.trim() == "[]"
    });
    a.kill();
}
