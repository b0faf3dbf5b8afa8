//! The coordinator moves to another machine, is lost and restored; robots follow, and nobody touches them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use netlab::{HostSpec, Process};
use serde_json::Value;
use support::{Ended, Robot, Site, Team, eventually};

/// Where the coordinator moves to.
const NEW_PLACE: &str = "198.51.100.3";

/// A team with a second machine for its coordinator.
struct Move {
    team: Team,
    moved: Option<Process>,
}

impl Move {
    fn new(name: &str) -> Self {
        let mut team = Team::new(name, &Site::Together);
        team.lab.add_host("spare", HostSpec::on("internet").at(NEW_PLACE.parse().unwrap())).unwrap();
        Self { team, moved: None }
    }

    fn back_up(&self) {
        let host = self.team.host("coordinator");
        std::fs::write(host.path("/run/passphrase"), "correct horse battery\n").unwrap();
        let made = self.team.admin(&["backup", "/run/lab.backup", "--passphrase-file", "/run/passphrase"]);
        assert_eq!(made.code, 0, "{made:?}");
    }

    /// Carries the backup over and starts a coordinator from it.
    fn restore_elsewhere(&mut self, urls: &str) {
        let (old, new) = (self.team.host("coordinator"), self.team.host("spare"));
        for file in ["/run/lab.backup", "/run/passphrase"] {
            std::fs::copy(old.path(file), new.path(file)).unwrap();
        }
        let restored = self
            .team
            .admin_on("spare", &["restore", "/run/lab.backup", "--passphrase-file", "/run/passphrase"]);
        assert_eq!(restored.code, 0, "{restored:?}");
        self.moved = Some(self.team.serve_on("spare", urls));
    }

    fn url(&self) -> String {
        format!("https://{NEW_PLACE}")
    }
}

fn is_at(robot: &Robot, url: &str) -> bool {
    let status = robot.status();
    status["coordinator_state"] == "connected" && status["coordinator_url"] == url
}

fn names(list: &Ended) -> Vec<String> {
    let nodes: Value = serde_json::from_str(&list.out).unwrap_or_else(|_| panic!("{list:?}"));
    nodes.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn robots_follow_a_coordinator_that_moves_and_keep_off_the_old_one() {
    let mut lab = Move::new("move-planned");
    let (mut a, b) = lab.team.pair();
    let address = b.address();
    let new = lab.url();
    assert_eq!(lab.team.admin(&["url", "add", &new]).code, 0);
    eventually("both have heard of the new address", || {
        ["robot-a", "robot-b"].iter().all(|name| {
            let shown = lab.team.admin(&["node", "show", name, "--json"]);
            let node: Value = serde_json::from_str(&shown.out).unwrap_or(Value::Null);
            node["acked_revision"].is_u64() && node["acked_revision"] == node["map_revision"]
        })
    });
    lab.back_up();
    // After the backup one more change, which the restored coordinator can't know of.
    assert_eq!(lab.team.admin(&["node", "remove", "robot-b"]).code, 0);
    eventually("robot-a has heard of the removal", || a.peer("robot-b") == Value::Null);
    let joined = b.join(&lab.team.key(&[]));
    assert_eq!(joined.code, 0, "{joined:?}");
    let (name, identity) = (b.status()["name"].as_str().unwrap().to_owned(), b.status()["node_id"].clone());
    let later = b.address();
    assert_ne!(later, address);
    a.wait_for_link(&name, "up");

    lab.team.kill_coordinator();
    assert_eq!(a.ping(&later, 3), 3, "nodes go on without a coordinator");
    lab.restore_elsewhere(&new);
    for robot in [&a, &b] {
        eventually("the robot has found the coordinator", || is_at(robot, &new));
    }
    eventually("the removed node is out, the new one is back", || {
        let mut there = names(&lab.team.admin_on("spare", &["node", "list", "--json"]));
        there.sort();
        there == ["robot-a", &name]
    });
    assert_eq!((b.status()["node_id"].clone(), b.address()), (identity, later.clone()));
    a.wait_for_link(&name, "up");
    assert_eq!(a.ping(&later, 3), 3);
    assert!(a.peer("robot-b").is_null() || name == "robot-b", "{}", a.peer("robot-b"));
    let log = lab.team.admin_on("spare", &["audit", "list", "--json"]);
    assert!(log.out.contains("audit.fork") && log.out.contains("node.readmitted"), "{}", log.out);

    // Somebody starts the old one again, and the robot's agent too: it knows which of the two is its own.
    lab.team.start_coordinator();
    a.kill();
    a.start(&[]);
    eventually("the agent is with the new one again", || is_at(&a, &new));
    assert_eq!(a.ping(&later, 3), 3);
}

#[test]
fn a_robot_that_finds_its_coordinator_nowhere_is_told_by_hand() {
    let mut lab = Move::new("move-by-hand");
    let (mut a, _b) = lab.team.pair();
    lab.back_up();
    lab.team.kill_coordinator();
    let new = lab.url();
    // Nobody is there, then another coordinator, then the right one.
    let nobody = a.ria(&["set-url", &new]);
    assert!(nobody.code == 1 && nobody.err.contains("refuses the connection"), "{nobody:?}");
    lab.moved = Some(lab.team.serve_on("spare", &new));
    let foreign = a.ria(&["set-url", &new]);
    assert!(foreign.code == 1 && foreign.err.contains("another coordinator"), "{foreign:?}");
    assert_eq!(a.ria(&["set-url", "spare"]).code, 2);
    lab.moved.take().unwrap().kill().unwrap();
    std::fs::remove_dir_all(lab.team.host("spare").path("/var/lib/ria-coordinator")).unwrap();
    // The restored one does not know its new address itself, so it can't tell anybody.
    lab.restore_elsewhere("");
    let told = a.ria(&["set-url", &new, "--network", "lab"]);
    assert_eq!(told.code, 0, "{told:?}");
    eventually("the robot is with the new one", || is_at(&a, &new));
    a.kill();
    a.start(&[]);
    eventually("also after a restart", || is_at(&a, &new));
}
