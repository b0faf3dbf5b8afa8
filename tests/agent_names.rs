//! Names of members for every program of a robot: in its hosts file while the network is up, and gone without a trace after.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::bus::Bus;
use support::{Robot, Site, Team, eventually, eventually_within};

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

/// Debian's systemd-resolved, which `scripts/test` has unpacked: installed, it would take over this machine's resolv.conf.
fn resolved() -> String {
    let directory =
        std::env::var("RIA_ENV_DIR").unwrap_or_else(|_| format!("{}/.ria-env", env!("CARGO_MANIFEST_DIR")));
    format!("{directory}/resolved")
}

#[test]
fn where_programs_ask_systemd_resolved_it_asks_the_agent() {
    let team = Team::new("names-resolved", &Site::Together);
    let host = team.host("robot-a");
    let unpacked = resolved();
    let policy = fs::read(format!("{unpacked}/usr/share/dbus-1/system.d/org.freedesktop.resolve1.conf"));
    let policy = policy.expect("systemd-resolved is unpacked: scripts/test does it");
    let mut bus = Bus::install(host.clone());
    fs::write(host.path("/etc/dbus-1/system.d/org.freedesktop.resolve1.conf"), policy).unwrap();
    let add = "echo systemd-resolve:x:994:994::/:/usr/sbin/nologin >> /etc/passwd; echo systemd-resolve:x:994: >> /etc/group; \
               mkdir -p /run/systemd/resolve && chown 994:994 /run/systemd/resolve";
    host.run(&["sh", "-c", add]).unwrap();
    fs::write(
        host.path("/etc/resolv.conf"),
        "nameserver 127.0.0.53\noptions edns0\nsearch lab.ria.internal\n",
    )
    .unwrap();
    let hosts = fs::read_to_string(host.path("/etc/hosts")).unwrap();
    bus.start();
    let program = format!("{unpacked}/lib/systemd/systemd-resolved");
    let start = || host.spawn(&[program.as_str()], &host.path("/run/resolved.log")).unwrap();
    let mut daemon = start();
    bus.wait_for("org.freedesktop.resolve1");

    for name in ["robot-a", "robot-b"] {
        fs::write(team.host(name).path("/etc/ria/agent.toml"), "[peers]\nrelease_after = 1\n").unwrap();
    }
    let (mut a, b) = team.pair();
    let address = b.address();
    let found = || resolves(&a, "robot-b", &address) && resolves(&a, "robot-b.lab.ria.internal", &address);
    eventually("the peer has its names", found);
    let reverse = host.output(&["getent", "hosts", &address]).unwrap();
    assert!(String::from_utf8_lossy(&reverse.stdout).contains("robot-b.lab.ria.internal"), "{reverse:?}");
    assert!(getent(&a, "robot-z.lab.ria.internal").is_empty());
    assert_eq!(a.ping("robot-b", 3), 3, "by name");
    let told = a.ria(&["status"]).out;
    assert!(told.contains("by systemd-resolved, such as robot-a.lab.ria.internal"), "{told}");
    assert_eq!(
        fs::read_to_string(host.path("/etc/hosts")).unwrap(),
        hosts,
        "the file is nobody's business now"
    );

    // Renamed, restarted, and without resolved for a while: then the hosts file has them.
    assert_eq!(team.admin(&["node", "rename", "robot-b", "robot-c"]).code, 0);
    eventually("it has the new name", || resolves(&a, "robot-c", &address));
    a.stop(Signal::SIGTERM);
    a.start(&[]);
    eventually("they are back", || resolves(&a, "robot-c", &address));
    daemon.kill().unwrap();
    fs::write(host.path("/etc/ria/agent.toml"), "[names]\nmode = \"auto\"\n[peers]\nrelease_after = 1\n")
        .unwrap();
    a.stop(Signal::SIGTERM);
    a.start(&[]);
    eventually("the hosts file has them", || {
        fs::read_to_string(host.path("/etc/hosts")).unwrap().contains("robot-c.lab.ria.internal")
    });
    let _daemon = start();
    // It is looked for twice a minute.
    eventually_within(Duration::from_secs(60), "resolved is asked again", || {
        resolves(&a, "robot-c", &address) && fs::read_to_string(host.path("/etc/hosts")).unwrap() == hosts
    });

    // Whom an on-demand network does not hold, it asks for.
    assert_eq!(team.admin(&["network", "peers", "lab", "on-demand"]).code, 0);
    eventually("they let go", || a.peers().is_empty() && b.peers().is_empty());
    assert!(resolves(&a, "robot-c.lab.ria.internal", &address), "at once");
    assert_eq!(a.peers().len(), 1);
}
