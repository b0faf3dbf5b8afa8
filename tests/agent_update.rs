//! `ria update` on a robot that is a member: a good release, bad ones of every kind, and the way back. The service manager is
//! a small stand-in that starts the agent as its unit says and starts it again when it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use netlab::{HostSpec, Lab, NetworkSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{COORDINATOR, Ended, Robot, Team, eventually, program};

const INSTALLED: &str = "/usr/local/bin/ria";

/// `systemctl`, as far as `ria install` needs it.
const SYSTEMCTL: &str = r#"#!/bin/sh
case "$*" in
*"start ria.service"*)
    if kill -0 "$(cat /run/service.pid 2>/dev/null)" 2>/dev/null; then
        case "$*" in *restart*) kill "$(cat /run/agent.pid)" 2>/dev/null ;; esac
    else
        setsid /usr/local/sbin/service </dev/null >>/run/service.log 2>&1 &
        echo $! >/run/service.pid
    fi ;;
esac
exit 0
"#;

/// What systemd does with the unit.
const SERVICE: &str = r#"#!/bin/sh
unit=/etc/systemd/system/ria.service
while :; do
    guard=$(sed -n 's/^ExecStartPre=-+//p' $unit)
    [ ! -x "${guard%% *}" ] || $guard
    $(sed -n 's/^ExecStart=//p' $unit) &
    echo $! >/run/agent.pid
    wait $!
    sleep 0.3
done
"#;

/// `systemd-run`: one at a time, by itself.
const SYSTEMD_RUN: &str = r#"#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
exec 9>/run/ria-update.lock
flock -n 9 || exit 1
setsid "$@" &
echo $! >/run/watcher.pid
"#;

/// A robot with a service manager, a peer, and somebody who makes releases.
struct Shop {
    team: Team,
    robot: Robot,
    peer: Robot,
    place: tempfile::TempDir,
}

impl Shop {
    fn open(name: &str) -> Self {
        let mut lab = Lab::new(name).unwrap();
        lab.add_network("lan", NetworkSpec::new("198.51.100.0/24".parse().unwrap())).unwrap();
        lab.add_host("coordinator", HostSpec::on("lan").at(COORDINATOR.parse().unwrap())).unwrap();
        let robot = HostSpec { private: vec!["/usr/local".into()], ..HostSpec::on("lan") };
        lab.add_host("robot-a", robot).unwrap();
        lab.add_host("robot-b", HostSpec::on("lan")).unwrap();
        let team = Team::of(lab, &[]);
        let peer = team.robot("robot-b", &[]);
        let place = tempfile::tempdir().unwrap();
        let robot = Robot::on(team.host("robot-a"), &place.path().join("log"));
        let shop = Self { team, robot, peer, place };
        shop.write("/usr/local/bin/systemctl", SYSTEMCTL);
        shop.write("/usr/local/bin/systemd-run", SYSTEMD_RUN);
        shop.write("/usr/local/sbin/service", SERVICE);
        fs::create_dir_all(shop.robot.host.path("/run/systemd/system")).unwrap();
        shop
    }

    /// An executable file on the robot.
    fn write(&self, path: &str, text: &str) {
        let path = self.robot.host.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// Installed, and both in the network.
    fn join(&self) {
        let installed = self.robot.ria(&["install"]);
        assert_eq!(installed.code, 0, "{installed:?}");
        eventually("the service serves", || self.robot.ria(&["status"]).code != 3);
        let key = self.team.key(&["--reusable"]);
        assert_eq!((self.robot.join(&key).code, self.peer.join(&key).code), (0, 0));
        self.robot.wait_for_link("robot-b", "up");
    }

    fn release_script(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release");
        let output = Command::new(script).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A private key to sign with; gives its file and the public one.
    fn key(&self, name: &str) -> (String, String) {
        let file = self.place.path().join(name).to_str().unwrap().to_owned();
        let public = self.release_script(&["--new-key", &file]);
        (file, public)
    }

    /// A release of this program; gives its directory.
    fn release(&self, version: &str, key: &str, program: &Path) -> PathBuf {
        let directory = self.place.path().join(format!("release-{version}"));
        let output = directory.to_str().unwrap();
        let program = program.to_str().unwrap();
        self.release_script(&["--key", key, "--version", version, "--output", output, program]);
        directory
    }

    fn trust(&self, from: &str, key: &str) {
        self.write("/etc/ria/update.toml", &format!("from = \"{from}\"\nkeys = [\"{key}\"]\n"));
    }

    /// This very program under the name of another version.
    fn dressed_up(&self, version: &str) -> PathBuf {
        let mut code = fs::read(program("ria")).unwrap();
        let (own, other) = (env!("CARGO_PKG_VERSION").as_bytes(), version.as_bytes());
        assert_eq!(own.len(), other.len());
        let mut at = 0;
        while let Some(found) = code[at..].windows(own.len()).position(|window| window == own) {
            code[at + found..at + found + own.len()].copy_from_slice(other);
            at += found + own.len();
        }
        self.executable(&format!("ria-{version}"), &code)
    }

    /// A program that installs itself and then does as it likes.
    fn impostor(&self, version: &str, as_agent: &str) -> PathBuf {
        let script = format!(
            "#!/bin/sh\ncase $1 in\n--version) echo ria {version} ;;\ninstall) cp \"$0\" {INSTALLED}.new && mv {INSTALLED}.new \
             {INSTALLED} && systemctl restart ria.service ;;\ndaemon) {as_agent} ;;\nesac\n"
        );
        self.executable(&format!("impostor-{version}"), script.as_bytes())
    }

    fn executable(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.place.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn update(&self, options: &[&str]) -> Ended {
        let line = [&[INSTALLED, "--json", "update"], options].concat();
        let output = self.robot.host.output(&line).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    fn refused(&self, options: &[&str], why: &str) {
        let before = fs::read(self.robot.host.path(INSTALLED)).unwrap();
        let ended = self.update(options);
        assert!(ended.code == 1 && ended.err.contains(why), "{why}: {ended:?}");
        assert!(fs::read(self.robot.host.path(INSTALLED)).unwrap() == before, "{why}: nothing is changed");
    }

    fn running(&self) -> String {
        let status: Value =
            serde_json::from_str(&self.robot.ria(&["status", "--json"]).out).unwrap_or_default();
        status["agent"]["version"].as_str().unwrap_or_default().to_owned()
    }

    /// Begins an update, and ends all at once in the middle of its trial: the service, the agent, who watches, who looks on.
    fn power_cut_in(&self, options: &[&str]) {
        let mut typed = self.robot.host.command(INSTALLED);
        let mut typed = typed.arg("update").args(options).spawn().unwrap();
        eventually("it is on trial", || self.robot.host.path("/var/lib/ria/update.json").exists());
        typed.kill().unwrap();
        for name in ["service", "watcher", "agent"] {
            let pid = fs::read_to_string(self.robot.host.path(format!("/run/{name}.pid"))).unwrap();
            // The agent may have ended by itself, to be started again.
            let killed = kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL);
            assert!(killed.is_ok() || name == "agent", "{name}: {killed:?}");
        }
        eventually("it is dark", || self.robot.ria(&["status"]).code == 3);
        assert!(!self.robot.host.path("/var/lib/ria/updated.json").exists());
        assert!(self.robot.host.output(&["systemctl", "start", "ria.service"]).unwrap().status.success());
    }

    fn works(&self) {
        self.robot.wait_for_link("robot-b", "up");
        assert_eq!(self.robot.ping("robot-b", 3), 3);
    }
}

#[test]
fn a_good_release_stays_and_the_way_back_is_open() {
    let shop = Shop::open("update-good");
    shop.join();
    let (key, public) = shop.key("key.pem");
    shop.release("0.1.9", &key, &shop.dressed_up("0.1.9"));
    // By a web server, as a lab would.
    let web = shop.team.host("coordinator");
    let mut server = web.command("python3");
    server.args(["-m", "http.server", "8000"]).current_dir(shop.place.path()).unwrap();
    let _server = server.log(&shop.place.path().join("web")).unwrap().spawn().unwrap();
    let from = format!("http://{COORDINATOR}:8000/release-0.1.9/");
    shop.trust(&from, &public);
    eventually("the web server serves", || shop.update(&["--check"]).code == 0);

    let check: Value = serde_json::from_str(&shop.update(&["--check"]).out).unwrap();
    assert_eq!(check, serde_json::json!({ "version": "0.1.0", "available": "0.1.9", "newer": true }));
    let updated = shop.update(&[]);
    let told: Value = serde_json::from_str(&updated.out).unwrap_or_else(|_| panic!("{updated:?}"));
    assert_eq!((&told["updated"], &told["to"]), (&true.into(), &"0.1.9".into()));
    assert_eq!(shop.running(), "0.1.9");
    shop.works();
    let again: Value = serde_json::from_str(&shop.update(&[]).out).unwrap();
    assert_eq!(again["updated"], false, "{again}");

    let back = shop.update(&["--rollback"]);
    assert_eq!((back.code, shop.running().as_str()), (0, "0.1.0"), "{back:?}");
    shop.works();
    let left: Vec<_> = fs::read_dir(shop.robot.host.path("/usr/local/lib/ria")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "only the way back is kept: {left:?}");

    // Whoever has typed the command may be gone: it goes on.
    let mut typed = shop.robot.host.command(INSTALLED);
    let mut typed = typed.args(["update"]).spawn().unwrap();
    eventually("it is on trial", || shop.robot.host.path("/var/lib/ria/update.json").exists());
    typed.kill().unwrap();
    eventually("it is decided", || shop.robot.host.path("/var/lib/ria/updated.json").exists());
    assert_eq!(shop.running(), "0.1.9");
}

#[test]
fn a_release_that_does_not_do_is_taken_back_and_one_that_is_not_ours_is_not_even_tried() {
    let shop = Shop::open("update-bad");
    shop.join();
    let ((key, public), (foreign, _)) = (shop.key("key.pem"), shop.key("foreign.pem"));
    let at = |directory: &Path| directory.to_str().unwrap().to_owned();

    let good = shop.dressed_up("0.1.9");
    let forged = at(&shop.release("0.1.7", &foreign, &good));
    shop.trust(&forged, &public);
    shop.refused(&[], "not signed by a key");
    let older = at(&shop.release("0.0.9", &key, &shop.dressed_up("0.0.9")));
    shop.refused(&["--from", &older], "--allow-downgrade");
    let misnamed = at(&shop.release("0.1.8", &key, &good));
    shop.refused(&["--from", &misnamed], "it says that it is 0.1.9");
    let damaged = shop.release("0.1.9", &key, &good);
    let file = damaged.join(format!("ria-0.1.9-{}", std::env::consts::ARCH));
    let mut content = fs::read(&file).unwrap();
    content[5000] ^= 1;
    fs::write(&file, &content).unwrap();
    shop.refused(&["--from", &at(&damaged)], "is not what was signed");
    fs::write(&file, &content[..9000]).unwrap();
    shop.refused(&["--from", &at(&damaged)], "is not what was signed");
    shop.refused(&["--from", "/nowhere"], "can't be read");
    shop.works();

    // It ends at once: the guard gives it up before anybody waits for long.
    let dead = at(&shop.release("0.2.0", &key, &shop.impostor("0.2.0", "exit 1")));
    let taken_back = shop.update(&["--from", &dead, "--timeout", "120"]);
    assert!(taken_back.code == 1 && taken_back.err.contains("taken back"), "{taken_back:?}");
    assert!(
        taken_back.err.contains("ended 3 times") && taken_back.err.contains("0.1.0 runs again"),
        "{taken_back:?}"
    );
    shop.works();

    // It runs, and does not find its way to the coordinator.
    let real = shop.dressed_up("0.2.1");
    let elsewhere = format!("RIA_STATE_DIR=/run/elsewhere exec {} daemon", real.display());
    let lost = at(&shop.release("0.2.1", &key, &shop.impostor("0.2.1", &elsewhere)));
    let taken_back = shop.update(&["--from", &lost, "--timeout", "6"]);
    assert!(taken_back.code == 1 && taken_back.err.contains("is not reached"), "{taken_back:?}");
    assert_eq!(shop.running(), "0.1.0");
    shop.works();
}

#[test]
fn a_trial_is_taken_up_again_after_a_power_cut() {
    let shop = Shop::open("update-cut");
    shop.join();
    let (key, public) = shop.key("key.pem");
    let at = |directory: &Path| directory.to_str().unwrap().to_owned();
    let lost = shop.impostor(
        "0.2.1",
        &format!("RIA_STATE_DIR=/run/elsewhere exec {} daemon", shop.dressed_up("0.2.1").display()),
    );
    let lost = at(&shop.release("0.2.1", &key, &lost));
    let good = at(&shop.release("0.1.9", &key, &shop.dressed_up("0.1.9")));
    shop.trust(&good, &public);
    let decided = shop.robot.host.path("/var/lib/ria/updated.json");

    shop.power_cut_in(&["--from", &lost, "--timeout", "8"]);
    eventually("the bad one is taken back", || decided.exists() && shop.running() == "0.1.0");
    shop.works();

    fs::remove_file(&decided).unwrap();
    shop.power_cut_in(&[]);
    eventually("the good one stays", || decided.exists());
    assert_eq!(shop.running(), "0.1.9");
    shop.works();
}
