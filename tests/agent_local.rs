//! What people on the machine change: what becomes of it, and who is told that it was they.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::path::Path;

use netlab::{Host, Process};
use serde_json::Value;
use support::{Ended, Robot, Site, Team, eventually};

/// Rows of the audit log with this action, each with its detail parsed.
fn audit(team: &Team, action: &str) -> Vec<Value> {
    let ended = team.admin(&["audit", "list", "--json", "--limit", "200"]);
    let value: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    let rows =
        value.as_array().or_else(|| value["rows"].as_array()).unwrap_or_else(|| panic!("{value}")).clone();
    let parsed = |mut row: Value| {
        if let Some(text) = row["detail"].as_str() {
            row["detail"] = serde_json::from_str(text).unwrap();
        }
        row
    };
    rows.into_iter().filter(|row| row["action"] == action).map(parsed).collect()
}

#[test]
fn the_audit_log_says_who_on_the_robot_did_it() {
    let mut team = Team::new("agent-who", &Site::Together);
    let (a, b) = team.pair();
    let reported = |action: &str, count: usize| {
        eventually(action, || audit(&team, action).len() == count);
        let row = audit(&team, action).pop().unwrap();
        (row["subject"].as_str().unwrap().to_owned(), row["detail"]["reported_by_node"].clone())
    };
    let (_, by) = reported("node.joined", 2);
    assert_eq!(
        (&by["via"], &by["uid"], &by["user"], &by["program"]),
        (&"socket".into(), &0.into(), &"root".into(), &"ria".into())
    );

    assert_eq!(a.ria(&["down"]).code, 0);
    let (subject, by) = reported("node.switched-off", 1);
    assert_eq!((subject.as_str(), &by["user"]), ("robot-a", &"root".into()));
    let away =
        || serde_json::from_str::<Value>(&team.admin(&["node", "show", "robot-a", "--json"]).out).unwrap();
    eventually("the coordinator sees it go", || away()["online"] == false);
    // Doing it again changes nothing, so there is nothing to note.
    assert_eq!(a.ria(&["down"]).code, 0);
    assert_eq!(a.ria(&["up"]).code, 0);
    reported("node.switched-on", 1);
    assert_eq!(audit(&team, "node.switched-off").len(), 1);
    a.wait_for_link("robot-b", "up");
    assert!(a.log().contains("asked to switch a network"), "{}", a.log());

    // One that is switched off says good-bye, too.
    assert_eq!(a.ria(&["down"]).code, 0);
    assert_eq!(a.ria(&["leave", "--yes"]).code, 0);
    let (subject, by) = reported("node.left", 1);
    assert_eq!((subject.as_str(), &by["user"]), ("robot-a", &"root".into()));
    assert!(a.conditions().is_empty(), "{:?}", a.conditions());
    eventually("the others know", || b.peer("robot-a") == Value::Null);

    // And an administrator is known by more than a number.
    let row = audit(&team, "key.created").pop().unwrap();
    assert_eq!((&row["actor"], &row["detail"]["caller"]["user"]), (&"uid:0".into(), &"root".into()));
    assert_eq!(team.admin(&["audit", "list"]).code, 0, "the chain is whole");

    // What a coordinator that is away can't be told, it is told when it is back.
    team.kill_coordinator();
    assert_eq!(b.ria(&["down"]).code, 0);
    assert_eq!(b.status()["state"], "disabled");
    assert_eq!(b.ria(&["up"]).code, 0);
    team.start_coordinator();
    eventually("both are told", || {
        audit(&team, "node.switched-off").len() == 3 && audit(&team, "node.switched-on").len() == 2
    });
}

/// A user of the robot, neither root nor the agent's own.
const ANNA: &str = "1234";

/// Group `ria` of the robot.
const GROUP: &str = "987";

/// Runs a program as Anna, who is in these groups.
fn as_anna(host: &Host, groups: &[&str], line: &[&str]) -> Ended {
    let groups = match groups {
        [] => "--clear-groups".to_owned(),
        some => format!("--groups={}", some.join(",")),
    };
    let user = [format!("--reuid={ANNA}"), format!("--regid={ANNA}"), groups];
    let mut whole = vec!["setpriv"];
    whole.extend(user.iter().map(String::as_str).chain(line.iter().copied()));
    let output = host.output(&whole).unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A system bus on a robot, as Debian configures it, with the policy file that is installed.
fn start_bus(host: &Host, log: &Path) -> Process {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/dbus/org.ria.Overlay1.conf");
    let config = format!(
        r#"<busconfig>
          <type>system</type>
          <listen>unix:path=/run/dbus/system_bus_socket</listen>
          <auth>EXTERNAL</auth>
          <policy context="default">
            <allow user="*"/>
            <deny own="*"/>
            <deny send_type="method_call"/>
            <allow send_type="signal"/>
            <allow send_requested_reply="true" send_type="method_return"/>
            <allow send_requested_reply="true" send_type="error"/>
            <allow receive_type="method_call"/>
            <allow receive_type="method_return"/>
            <allow receive_type="error"/>
            <allow receive_type="signal"/>
            <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
          </policy>
          <include>{}</include>
        </busconfig>"#,
        policy.display()
    );
    std::fs::create_dir_all(host.path("/run/dbus")).unwrap();
    std::fs::write(host.path("/run/bus.conf"), config).unwrap();
    let line = ["dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile", "--nosyslog"];
    host.spawn(&line, log).unwrap()
}

fn call(robot: &Robot, groups: &[&str], object: &str, method: &[&str]) -> Ended {
    let to = [
        "dbus-send",
        "--system",
        "--dest=org.ria.Overlay1",
        "--print-reply",
        "--reply-timeout=20000",
        object,
    ];
    as_anna(&robot.host, groups, &[&to, method].concat())
}

/// The same answer on the private socket and on the bus: the kernel and the bus know the same of a caller.
#[test]
fn members_of_the_group_control_the_agent_and_others_only_look() {
    let team = Team::new("agent-group", &Site::Together);
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let groups = a.host.path("/etc/group");
    let listed = std::fs::read_to_string(&groups).unwrap();
    std::fs::write(&groups, format!("{listed}ria:x:{GROUP}:\n")).unwrap();
    let program = env!("CARGO_BIN_EXE_ria");

    assert_eq!(as_anna(&a.host, &[], &[program, "status"]).code, 0);
    for verb in [&["down"][..], &["up"], &["leave", "--yes"], &["join", "--file", "/run/key"]] {
        let refused = as_anna(&a.host, &[], &[&[program], verb].concat());
        assert!(refused.code == 7 && refused.err.contains("usermod -aG ria"), "{verb:?}: {refused:?}");
    }
    assert_eq!(a.status()["state"], "up");
    let off = as_anna(&a.host, &[GROUP], &[program, "down"]);
    assert_eq!(off.code, 0, "{off:?}");
    assert_eq!(a.status()["state"], "disabled");

    // The agent was there before the bus.
    let directory = tempfile::tempdir().unwrap();
    let bus = start_bus(&a.host, &directory.path().join("bus.log"));
    let status = ["org.ria.Overlay1.Status"];
    eventually("the agent is on the bus", || call(&a, &[], "/org/ria/Overlay1", &status).code == 0);
    let object = format!("/org/ria/Overlay1/networks/{}", a.status()["network_id"].as_str().unwrap());
    let switch_on = ["org.ria.Overlay1.Network.SetEnabled", "boolean:true"];
    let refused = call(&a, &[], &object, &switch_on);
    assert!(refused.err.contains("org.ria.Overlay1.Error.NotPermitted"), "{refused:?}");
    assert_eq!(a.status()["state"], "disabled");
    let done = call(&a, &[GROUP], &object, &switch_on);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(a.status()["state"], "up");

    // Each is in the log as it was.
    eventually("both are noted", || audit(&team, "node.switched-on").len() == 1);
    let by = |action: &str| audit(&team, action).pop().unwrap()["detail"]["reported_by_node"].clone();
    let (off, on) = (by("node.switched-off"), by("node.switched-on"));
    assert_eq!((&off["via"], &off["uid"], &off["program"]), (&"socket".into(), &1234.into(), &"ria".into()));
    assert_eq!((&on["via"], &on["uid"], &on["program"]), (&"bus".into(), &1234.into(), &"dbus-send".into()));

    // The bus goes, and nobody minds.
    drop(bus);
    assert_eq!(a.ria(&["down"]).code, 0);
    assert!(a.conditions().is_empty(), "{:?}", a.conditions());
}
