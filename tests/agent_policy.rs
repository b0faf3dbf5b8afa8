//! A policy, set while traffic flows: what it allows goes on, everything else stops within a second, everywhere; it holds
//! without a coordinator and over restarts, and what it allows for a time ends in time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use support::traffic::Traffic;
use support::{Ended, Robot, Team, eventually, eventually_within};

const NAMES: [&str; 3] = ["robot-1", "robot-2", "robot-3"];

/// The flows' port is netlab's.
const POLICY: &str = r#"
# The first may call the second, and nobody anybody else.
[[rule]]
name = "one to two"
from = ["robot-1"]
to = ["robot-2"]
allow = ["udp/40404", "tcp/8000", "icmp"]

[[test]]
from = "robot-1"
to = "robot-2"
port = "udp/40404"
expect = "allow"

[[test]]
from = "robot-2"
to = "robot-1"
port = "udp/40404"
expect = "deny"
"#;

/// Three robots with traffic between all of them, in both directions.
struct Lab {
    team: Team,
    robots: Vec<Robot>,
    traffic: Traffic,
}

impl Lab {
    fn new() -> Self {
        let team = Team::crowd("policy", &NAMES, &[]);
        let key = team.key(&["--reusable"]);
        let robots: Vec<Robot> = NAMES.iter().map(|name| team.robot(name, &[])).collect();
        for robot in &robots {
            let joined = robot.join(&key);
            assert_eq!(joined.code, 0, "{joined:?}");
        }
        let traffic = Traffic::among(&robots);
        Self { team, robots, traffic }
    }

    fn policy(&self, arguments: &[&str]) -> Ended {
        self.team.admin(&[&["policy"], arguments].concat())
    }

    /// Writes a text where the coordinator's host finds it.
    fn write(&self, text: &str) {
        std::fs::write(self.team.host("coordinator").path("/run/policy"), text).unwrap();
    }

    /// An old version is put in force again, and then none.
    fn goes_back(&self) {
        let back = self.policy(&["rollback", "1", "--note", "as it was"]);
        assert!(back.code == 0 && back.out.contains("version 3"), "{back:?}");
        let history = self.policy(&["history"]);
        for word in ["the first", "as it was", "in force"] {
            assert!(history.out.contains(word), "{history:?}");
        }
        assert_eq!(self.policy(&["clear"]).code, 0);
        self.traffic.wait_for(|_| true);
        assert_eq!(self.robots[0].status()["policy_version"], serde_json::Value::Null);
        let audit = self.team.admin(&["audit", "list"]);
        for action in ["policy.set", "policy.granted", "policy.rolled-back", "policy.cleared"] {
            assert!(audit.code == 0 && audit.out.contains(action), "{audit:?}");
        }
    }
}

/// A connection that both ends keep open.
struct Talk(TcpStream, TcpStream);

impl Talk {
    fn begin(from: &Robot, to: &Robot, port: u16) -> Self {
        let address = SocketAddr::new(to.address().parse().unwrap(), port);
        let listener = to.host.enter(|| TcpListener::bind(address)).unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(20));
        let (client, server) = (from.host.enter(connect).unwrap(), listener.accept().unwrap().0);
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        Self(client, server)
    }

    /// The called end speaks first: its packets are answers of a conversation all the same.
    fn goes_on(&mut self) {
        let mut byte = [0];
        self.1.write_all(&[7]).unwrap();
        self.0.read_exact(&mut byte).unwrap();
        self.0.write_all(&[8]).unwrap();
        self.1.read_exact(&mut byte).unwrap();
    }
}

#[test]
fn a_policy_holds_for_what_flows_already_and_without_the_coordinator() {
    let mut lab = Lab::new();
    let mut talk = Talk::begin(&lab.robots[0], &lab.robots[1], 8000);
    lab.write(POLICY);

    // A dry run says who loses what, and changes nothing.
    let told = lab.policy(&["set", "--file", "/run/policy", "--dry-run"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.contains("robot-1 -> robot-2: loses any; keeps tcp/8000, udp/40404, icmp"), "{told:?}");
    assert!(told.out.contains("robot-3 -> robot-1, robot-2: loses any"), "{told:?}");
    assert!(lab.policy(&["show"]).err.contains("no policy"));
    lab.traffic.wait_for(|_| true);

    let set = lab.policy(&["set", "--file", "/run/policy", "--note", "the first"]);
    assert_eq!(set.code, 0, "{set:?}");
    lab.traffic.wait_for_only(|pair| pair == (0, 1));
    talk.goes_on();
    assert_eq!(lab.robots[0].status()["policy_version"], 1);
    assert_eq!(lab.robots[0].peer("robot-3")["link_state"], "denied");
    assert_eq!(lab.robots[0].peer("robot-2")["link_state"], "up");
    assert!(lab.robots[1].status()["drops"]["filtered-out"].as_u64().unwrap() > 0, "counted where it begins");
    assert!(lab.robots[0].ping(&lab.robots[1].address(), 2) > 0);
    assert_eq!(lab.robots[1].ping(&lab.robots[0].address(), 2), 0, "it may answer, and not ask");

    // Why, and by which version.
    let why = lab.policy(&["explain", "robot-1", "robot-2", "40404/udp"]);
    assert!(
        why.code == 0 && why.out.contains("ALLOWED") && why.out.contains("rule 1 \"one to two\""),
        "{why:?}"
    );
    let why = lab.policy(&["explain", "robot-2", "robot-1", "udp/40404"]);
    assert!(why.code == 1 && why.out.contains("DENIED") && why.out.contains("version 1"), "{why:?}");

    // One with a mistake, or whose tests fail, changes nothing.
    lab.write(&POLICY.replace("udp/40404\", \"tcp", "udp/40405\", \"tcp"));
    let refused = lab.policy(&["set", "--file", "/run/policy"]);
    assert!(refused.code == 1 && refused.err.contains("line 9"), "{refused:?}");
    lab.write(&POLICY.replace("allow = [", "alow = ["));
    let refused = lab.policy(&["set", "--file", "/run/policy"]);
    assert!(
        refused.code == 1 && refused.err.contains("line 7") && refused.err.contains("alow"),
        "{refused:?}"
    );
    lab.traffic.wait_for_only(|pair| pair == (0, 1));

    // No coordinator, and an agent that begins anew: it is enforced all the same.
    lab.team.kill_coordinator();
    lab.robots[0].kill();
    lab.robots[0].start(&[]);
    lab.traffic.wait_for_only(|pair| pair == (0, 1));
    assert_eq!(lab.robots[0].peer("robot-3")["link_state"], "denied");
    talk.goes_on();
    lab.team.start_coordinator();

    // For a time, which ends also when nobody says so.
    eventually("all are back", || lab.team.admin(&["node", "list"]).out.matches("online").count() == 3);
    let what = ["--for", "20s", "--allow", "udp", "--reason", "a try"];
    let granted = lab.policy(&[&["grant", "robot-1", "robot-3"], &what[..]].concat());
    assert_eq!(granted.code, 0, "{granted:?}");
    lab.traffic.wait_for(|pair| pair == (0, 2));
    lab.team.kill_coordinator();
    let denied = || lab.robots[2].peer("robot-1")["link_state"] == "denied";
    eventually_within(Duration::from_secs(60), "the time is over", denied);
    lab.traffic.wait_for_only(|pair| pair == (0, 1));
    lab.team.start_coordinator();
    lab.goes_back();
}
