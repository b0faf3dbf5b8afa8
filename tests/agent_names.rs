//! Names of members for every program of a robot: in its hosts file while the network is up, and gone without a trace after.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;

use nix::sys::signal::Signal;
use support::{Robot, Site, Team, eventually};

/// What the robot's C library says to a name or an address.
fn getent(robot: &Robot, question: &str) -> String {
    let output = robot.host.output(&["getent", "ahostsv4", question]).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn resolves(robot: &Robot, name: &str, address: &str) -> bool {
    getent(robot, name).starts_with(&format!("{address} "))
}

#[test]
fn members_are_found_by_name_while_the_network_is_up_and_the_rest_of_the_file_stays() {
    let team = Team::new("names-hosts", &Site::Together);
    let file = team.host("robot-a").path("/etc/hosts");
    // The last line has no end, and somebody has a robot of that name already.
    let before = format!("{}# by hand\n10.9.9.9\trobot-c", fs::read_to_string(&file).unwrap());
    fs::write(&file, &before).unwrap();
    let content = || fs::read_to_string(&file).unwrap();
    let (mut a, b) = team.pair();
    let address = b.address();
    eventually("the peer has its names", || {
        resolves(&a, "robot-b", &address) && resolves(&a, "robot-b.lab.ria.internal", &address)
    });
    assert_eq!(a.ping("robot-b", 3), 3, "by name");
    let reverse = a.host.output(&["getent", "hosts", &address]).unwrap();
    assert!(String::from_utf8_lossy(&reverse.stdout).contains("robot-b.lab.ria.internal"), "{reverse:?}");
    assert_eq!(a.ria(&["ping", "robot-b.lab.ria.internal", "-c", "1"]).code, 0);
    let own = a.ria(&["status"]).out;
    assert!(own.contains("in /etc/hosts, such as robot-a.lab.ria.internal"), "{own}");
    assert!(content().ends_with(&before), "{}", content());

    // Renamed, to a name that is taken here: the bare one stays whose it was.
    assert_eq!(team.admin(&["node", "rename", "robot-b", "robot-c"]).code, 0);
    eventually("it has the new name", || resolves(&a, "robot-c.lab.ria.internal", &address));
    assert!(resolves(&a, "robot-c", "10.9.9.9") && getent(&a, "robot-b").is_empty(), "{}", content());

    // Off and on, and through a kill.
    assert_eq!(a.ria(&["down"]).code, 0);
    eventually("switched off, it has no names", || content() == before);
    assert_eq!(a.ria(&["up"]).code, 0);
    eventually("they are back", || resolves(&a, "robot-c.lab.ria.internal", &address));
    a.kill();
    assert!(resolves(&a, "robot-c.lab.ria.internal", &address), "as the interface, they outlive it");
    a.start(&[]);
    a.stop(Signal::SIGTERM);
    assert!(resolves(&a, "robot-c.lab.ria.internal", &address), "nothing is missed during an update");
    a.start(&[]);
    a.stop(Signal::SIGINT);
    assert_eq!(content(), before, "for good: to the last byte");

    // Gone with the membership; and whoever does not want them says so.
    a.start(&[]);
    eventually("they are back", || resolves(&a, "robot-c.lab.ria.internal", &address));
    assert_eq!(a.ria(&["leave", "--yes"]).code, 0);
    eventually("left, it has no names", || content() == before);
    a.stop(Signal::SIGTERM);
    fs::write(a.host.path("/etc/ria/agent.toml"), "[names]\nmode = \"off\"\n").unwrap();
    a.start(&[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    a.wait_for_link("robot-c", "up");
    assert_eq!(content(), before);
    assert!(!a.ria(&["status"]).out.contains("/etc/hosts"));
}
