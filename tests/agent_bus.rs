//! The agent on a robot's system bus: Debian's own `dbus-daemon` with Debian's configuration and the policy file that Ria
//! installs, users of the robot as its clients, and each of the ways in which a bus may fail.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use ria_api::{AGENT_PATH, BUS_NAME};
use serde_json::Value;
use support::bus::{Bus, SOCKET};
use support::{Ended, Site, Team, eventually};

/// A user of the robot.
const ANNA: &str = "1234";

/// Another one, who is in the group `ria`.
const BERT: &str = "1235";

const ROOT: &str = "0";

const NETWORK: &str = "org.ria.Overlay1.Network";

/// What users do on the bus.
trait Users {
    fn call(&self, user: &str, path: &str, method: &str, arguments: &[&str]) -> Ended;
    fn shows_the_agent(&self) -> bool;
    fn switch(&self, user: &str, path: &str, on: bool) -> Ended;
}

impl Users for Bus {
    /// Calls a method of the agent as a user.
    fn call(&self, user: &str, path: &str, method: &str, arguments: &[&str]) -> Ended {
        let user = [format!("--reuid={user}"), format!("--regid={user}"), "--init-groups".to_owned()];
        let to = format!("--dest={BUS_NAME}");
        let mut line = vec!["setpriv"];
        line.extend(user.iter().map(String::as_str));
        line.extend(["dbus-send", "--system", "--print-reply", "--reply-timeout=20000", &to, path, method]);
        line.extend(arguments);
        let output = self.host.output(&line).unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Whether the agent answers a user.
    fn shows_the_agent(&self) -> bool {
        let of = ["string:org.ria.Overlay1", "string:Version"];
        let read = self.call(ANNA, AGENT_PATH, "org.freedesktop.DBus.Properties.Get", &of);
        read.code == 0 && read.out.contains(env!("CARGO_PKG_VERSION"))
    }

    /// Switches a network on or off as a user.
    fn switch(&self, user: &str, path: &str, on: bool) -> Ended {
        self.call(user, path, &format!("{NETWORK}.SetEnabled"), &[&format!("boolean:{on}")])
    }
}

/// What the nodes reported for rows of the audit log with this action.
fn reported(team: &Team, action: &str) -> Vec<Value> {
    let ended = team.admin(&["audit", "list", "--json", "--limit", "200"]);
    let value: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    let rows = value.as_array().or_else(|| value["rows"].as_array()).unwrap_or_else(|| panic!("{value}"));
    let detail = |row: &Value| match row["detail"].as_str() {
        Some(text) => serde_json::from_str(text).unwrap(),
        None => row["detail"].clone(),
    };
    let of_action = rows.iter().filter(|row| row["action"] == action);
    of_action.map(|row| detail(row)["reported_by_node"].clone()).collect()
}

#[test]
fn users_read_on_the_system_bus_and_only_root_and_the_group_change_something() {
    let team = Team::new("agent-bus", &Site::Together);
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let mut bus = Bus::install(a.host.clone());

    // The agent is there long before the bus, and lacks nothing without it.
    assert!(!a.conditions().contains(&"system-bus".to_owned()), "{:?}", a.conditions());
    bus.start();
    eventually("the agent is on the bus", || bus.shows_the_agent());
    let path = format!("{AGENT_PATH}/networks/{}", a.status()["network_id"].as_str().unwrap());
    let status = bus.call(ANNA, &path, &format!("{NETWORK}.Status"), &[]);
    assert!(status.code == 0 && status.out.contains(&a.address()), "{status:?}");
    let introspected = bus.call(ANNA, &path, "org.freedesktop.DBus.Introspectable.Introspect", &[]);
    assert!(introspected.out.contains("SetEnabled"), "{introspected:?}");

    // Everything that changes something is refused to Anna, in words that help.
    for method in ["SetEnabled boolean:false", "RotateKey", "SetUrl string:https://192.0.2.1", "Leave"] {
        let (method, arguments) = method.split_once(' ').unwrap_or((method, ""));
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let refused = bus.call(ANNA, &path, &format!("{NETWORK}.{method}"), &arguments);
        assert!(
            refused.code != 0
                && refused.err.contains("Error.NotPermitted")
                && refused.err.contains("usermod -aG ria"),
            "{method}: {refused:?}"
        );
    }
    assert_eq!(a.status()["state"], "up");
    let off = bus.switch(BERT, &path, false);
    assert_eq!(off.code, 0, "{off:?}");
    assert_eq!(a.status()["state"], "disabled");
    let on = bus.switch(ROOT, &path, true);
    assert_eq!(on.code, 0, "{on:?}");
    assert_eq!(a.status()["state"], "up");
    eventually("both are in the log", || reported(&team, "node.switched-on").len() == 1);
    let (off, on) = (reported(&team, "node.switched-off"), reported(&team, "node.switched-on"));
    assert_eq!(
        (&off[0]["via"], &off[0]["uid"], &off[0]["user"]),
        (&"bus".into(), &1235.into(), &"bert".into())
    );
    assert_eq!((&on[0]["via"], &on[0]["uid"], &on[0]["user"]), (&"bus".into(), &0.into(), &"root".into()));
}

#[test]
fn a_bus_that_vanishes_comes_back_or_knows_another_agent_stops_nothing() {
    let team = Team::new("agent-bus-faults", &Site::Together);
    let mut a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let mut bus = Bus::install(a.host.clone());
    bus.start();
    eventually("the agent is on the bus", || bus.shows_the_agent());

    bus.kill();
    assert!(!bus.shows_the_agent());
    assert_eq!(a.status()["state"], "up");
    assert_eq!(a.ria(&["down"]).code, 0);
    assert_eq!(a.ria(&["up"]).code, 0);
    bus.start();
    eventually("the agent is on the new bus", || bus.shows_the_agent());

    // Another program of root has the name when the agent starts; that is told until it ends.
    a.kill();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = format!("unix:path={}", a.host.path(SOCKET).display());
    let taking = zbus::connection::Builder::address(address.as_str()).name(BUS_NAME).build();
    let other = runtime.block_on(taking).unwrap();
    a.start(&[]);
    let is_told = || a.conditions().contains(&"system-bus".to_owned());
    eventually("the taken name is told", is_told);
    assert_eq!(a.status()["state"], "up");
    drop(other);
    eventually("the agent has its name", || bus.shows_the_agent());
    eventually("all is well", || !is_told());
}
