//! Nodes that are put out: nothing of them gets through any more, directly or relayed, whatever they do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use serde_json::Value;
use support::traffic::Traffic;
use support::{Robot, Team, eventually};

/// Five robots with traffic between all of them. The second shares a network with the first and the third, so to these
/// its way is direct; to the other two it is relayed.
struct Crowd {
    team: Team,
    robots: Vec<Robot>,
    traffic: Traffic,
}

/// The robot that is put out.
const VICTIM: usize = 1;

impl Crowd {
    fn new(name: &str) -> Self {
        let names = ["robot-1", "robot-2", "robot-3", "robot-4", "robot-5"];
        let team = Team::crowd(name, &names[..3], &names[3..]);
        let key = team.key(&["--reusable"]);
        let robots: Vec<Robot> = names.iter().map(|name| team.robot(name, &[])).collect();
        for robot in &robots {
            let joined = robot.join(&key);
            assert_eq!(joined.code, 0, "{joined:?}");
        }
        let path = |from: usize, to: usize| robots[from].peer(names[to])["path"].clone();
        for other in [0, 2] {
            eventually("it is reached directly", || path(other, VICTIM) == "direct");
        }
        for other in [3, 4] {
            eventually("it is reached through the relay", || path(other, VICTIM) == "relay_udp");
        }
        let traffic = Traffic::among(&robots);
        Self { team, robots, traffic }
    }

    /// Waits until nothing comes from or to the victim, and makes sure that the others are not touched.
    fn wait_for_silence(&self) {
        self.traffic.wait_for_only(|(from, to)| from != VICTIM && to != VICTIM);
    }

    fn victim(&self) -> &Robot {
        &self.robots[VICTIM]
    }
}

#[test]
fn a_disabled_node_is_cut_off_everywhere_and_comes_back_by_itself() {
    let mut crowd = Crowd::new("revoke-disable");
    let (id, address) = (crowd.victim().status()["node_id"].clone(), crowd.victim().address());
    assert_eq!(crowd.team.admin(&["node", "disable", "robot-2"]).code, 0);
    crowd.wait_for_silence();
    for other in [0, 2, 3, 4] {
        assert_eq!(crowd.robots[other].peer("robot-2"), Value::Null, "it is nobody's peer");
    }
    eventually("it knows", || crowd.victim().conditions().contains(&"disabled".to_owned()));
    let told = crowd.victim().ria(&["status"]);
    assert!(told.out.contains("disabled") && told.out.contains("comes back by itself"), "{told:?}");
    assert!(!crowd.victim().has_interface("ria0"));
    let listed = crowd.team.admin(&["node", "show", "robot-2"]);
    assert!(listed.out.contains("disabled since") && listed.out.contains(&address), "{listed:?}");

    // It stays out over restarts of both, and nobody gets its name or address.
    crowd.team.kill_coordinator();
    crowd.team.start_coordinator();
    crowd.robots[VICTIM].kill();
    crowd.robots[VICTIM].start(&[]);
    crowd.wait_for_silence();
    eventually("it is told again", || crowd.victim().conditions().contains(&"disabled".to_owned()));

    assert_eq!(crowd.team.admin(&["node", "enable", "robot-2"]).code, 0);
    crowd.traffic.wait_for(|_| true);
    let status = crowd.victim().status();
    assert_eq!((&status["node_id"], crowd.victim().address()), (&id, address), "{status}");
    assert_eq!(status["state"], "up", "{status}");
    assert!(!crowd.victim().conditions().contains(&"disabled".to_owned()));
    let audit = crowd.team.admin(&["audit", "list"]);
    assert!(audit.code == 0 && audit.out.contains("node.disabled") && audit.out.contains("node.enabled"));
}

/// A node that does not even hear that it was removed, and one that would not care, look the same from outside.
#[test]
fn a_removed_node_that_sends_on_gets_nowhere() {
    let crowd = Crowd::new("revoke-ignore");
    let host = &crowd.victim().host;
    host.run(&["nft", "add table inet deaf"]).unwrap();
    host.run(&["nft", "add chain inet deaf out { type filter hook output priority 0; }"]).unwrap();
    host.run(&["nft", "add rule inet deaf out tcp dport 443 drop"]).unwrap();
    host.run(&["nft", "add chain inet deaf in { type filter hook input priority 0; }"]).unwrap();
    host.run(&["nft", "add rule inet deaf in tcp sport 443 drop"]).unwrap();
    assert_eq!(crowd.team.admin(&["node", "remove", "robot-2"]).code, 0);
    crowd.wait_for_silence();
    // It goes on as if nothing had happened, to all four of them.
    assert_eq!(crowd.victim().status()["state"], "up");
    let from_it = |crowd: &Crowd| crowd.traffic.sent(|(from, _)| from == VICTIM);
    let sent = from_it(&crowd);
    eventually("it sends on", || from_it(&crowd) > sent + 400);
    crowd.wait_for_silence();
    let drops = crowd.robots[0].status()["drops"].clone();
    let strangers = drops.as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    assert!(strangers > 0, "what it sends directly is counted as dropped: {drops}");
}
