//! The services of the robot's machine: a real NetworkManager that manages the robot's network, and, since there is no radio
//! here and nothing that could sleep, python-dbusmock's NetworkManager and logind for Wi-Fi and sleep.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::time::Instant;

use netlab::{Host, Process};
use serde_json::Value;
use support::bus::Bus;
use support::listener::Listener;
use support::{Robot, Site, Team, eventually};

const MANAGER: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";
const MOCK: &str = "org.freedesktop.DBus.Mock";
const RADIO: &str = "/org/freedesktop/NetworkManager/Devices/radio";
const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";

fn uplink(robot: &Robot) -> Value {
    let ended = robot.ria(&["status", "--json"]);
    serde_json::from_str::<Value>(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"))["agent"]["uplink"]
        .clone()
}

/// Waits until entries of the uplink have these values.
fn wait_for_uplink(robot: &Robot, wanted: &[(&str, &str)]) {
    eventually(&format!("the uplink is {wanted:?}"), || {
        let uplink = uplink(robot);
        wanted.iter().all(|(name, value)| uplink[*name] == *value)
    });
}

/// Calls a method on the system bus; words as `busctl` takes them.
fn busctl(host: &Host, words: &[&str]) -> String {
    let output = host.output(&[&["busctl", "--system", "call"], words].concat()).unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sets a property of a played NetworkManager's object, which tells so; type and value as `busctl` takes them.
fn set(host: &Host, path: &str, interface: &str, property: &str, value: [&str; 2]) {
    let words = [
        MANAGER,
        path,
        "org.freedesktop.DBus.Properties",
        "Set",
        "ssv",
        interface,
        property,
        value[0],
        value[1],
    ];
    busctl(host, &words);
}

/// A service that python-dbusmock plays.
fn play(bus: &Bus, template: &str, name: &str) -> Process {
    let log = bus.host.path(format!("/run/{template}.log"));
    // Debian's, whatever else is on the path.
    let line = ["/usr/bin/python3", "-m", "dbusmock", "--system", "--template", template];
    let process = bus.host.spawn(&line, &log).unwrap();
    bus.wait_for(name);
    process
}

/// Gives the played NetworkManager a radio with two access points, and a connection that uses the first.
fn connect_radio(host: &Host) {
    let mock = |words: &[&str]| busctl(host, &[&[MANAGER, PATH, MOCK], words].concat());
    mock(&["AddWiFiDevice", "ssi", "radio", "eth0", "100"]);
    for (name, address, strength) in [("one", "02:00:5E:10:00:01", "63"), ("two", "02:00:5E:10:00:02", "100")]
    {
        let words = ["lab", address, "2", "5180", "54000", strength, "0"];
        mock(&[&["AddAccessPoint", "ssssuuuyu", RADIO, name], &words[..]].concat());
    }
    let wireless = format!("{MANAGER}.Device.Wireless");
    let first = format!("{PATH}/AccessPoint/one");
    busctl(
        host,
        &[MANAGER, RADIO, MOCK, "AddProperties", "sa{sv}", &wireless, "1", "ActiveAccessPoint", "o", &first],
    );
    let (active, kind) = (format!("{PATH}/ActiveConnection/lab"), format!("{MANAGER}.Connection.Active"));
    let entries = ["3", "Type", "s", "802-11-wireless", "State", "u", "2", "Devices", "ao", "1", RADIO];
    mock(&[&["AddObject", "ssa{sv}a(ssss)", &active, &kind], &entries[..], &["0"]].concat());
    mock(&["AddProperties", "sa{sv}", MANAGER, "1", "PrimaryConnection", "o", "/"]);
    set(host, PATH, MANAGER, "PrimaryConnection", ["o", &active]);
}

#[test]
fn a_real_networkmanager_is_asked_and_leaves_the_overlay_alone() {
    let team = Team::new("machine-networkmanager", &Site::Together);
    let (a, b) = team.pair();
    assert_eq!(uplink(&a)["source"], "kernel");
    assert_eq!(uplink(&a)["interface"], "eth0");
    let host = a.host.clone();
    let configuration = host.path("/etc/NetworkManager/conf.d");
    fs::create_dir_all(&configuration).unwrap();
    fs::write(configuration.join("ria.conf"), include_str!("../packaging/NetworkManager/ria.conf")).unwrap();
    fs::write(configuration.join("test.conf"), "[main]\nplugins=keyfile\nno-auto-default=*\ndns=none\n")
        .unwrap();
    // What NetworkManager does with interfaces like the overlay's that nobody has told it to leave alone.
    host.run(&["ip", "tuntap", "add", "other0", "mode", "tun"]).unwrap();
    host.run(&["ip", "address", "add", "10.99.0.1/24", "dev", "other0"]).unwrap();
    host.run(&["ip", "link", "set", "other0", "up"]).unwrap();
    let mut bus = Bus::install(host.clone());
    bus.start();
    // Without udev it takes interfaces for ready where it can't write to /sys.
    let start =
        "mount -o remount,bind,ro /sys && mkdir -p /run/NetworkManager && exec NetworkManager --no-daemon";
    let log = host.path("/run/networkmanager.log");
    let mut manager = host.spawn(&["unshare", "--mount", "sh", "-c", start], &log).unwrap();
    let states = || host.run(&["nmcli", "-t", "-f", "DEVICE,STATE", "device"]).unwrap_or_default();
    eventually("NetworkManager has seen the interfaces", || states().contains("other0:connected"));
    assert!(states().lines().any(|line| line == "ria0:unmanaged"), "{}", states());

    let address = format!("{}/24", host.address());
    let add = ["nmcli", "connection", "add", "type", "ethernet", "con-name", "lan", "ifname", "eth0"];
    let settings = ["ipv4.method", "manual", "ipv4.addresses", &address, "ipv4.gateway", "192.168.1.1"];
    host.run(&[&add[..], &settings[..]].concat()).unwrap();
    host.run(&["nmcli", "-w", "20", "connection", "up", "lan"]).unwrap();
    // It tells the lab's virtual cable from a real one.
    wait_for_uplink(&a, &[("source", "NetworkManager"), ("interface", "eth0"), ("kind", "other")]);
    a.wait_for_link("robot-b", "up");
    assert_eq!(b.ping(&a.address(), 3), 3);

    // It restarts: for a moment the kernel alone tells.
    manager.kill().unwrap();
    wait_for_uplink(&a, &[("source", "kernel"), ("interface", "eth0")]);
    let mut manager = host.spawn(&["unshare", "--mount", "sh", "-c", start], &log).unwrap();
    wait_for_uplink(&a, &[("source", "NetworkManager"), ("interface", "eth0")]);
    assert!(states().lines().any(|line| line == "ria0:unmanaged"), "{}", states());
    assert_eq!(b.ping(&a.address(), 3), 3);
    manager.kill().unwrap();
}

#[test]
fn wi_fi_is_told_its_access_points_are_followed_and_a_portal_is_a_warning() {
    let team = Team::new("machine-wifi", &Site::Together);
    let (a, _b) = team.pair();
    let host = a.host.clone();
    let mut bus = Bus::install(host.clone());
    bus.start();
    let manager = play(&bus, "networkmanager", MANAGER);
    connect_radio(&host);
    let first =
        [("interface", "eth0"), ("kind", "wifi"), ("ssid", "lab"), ("access_point", "02:00:5E:10:00:01")];
    wait_for_uplink(&a, &first);
    let told = uplink(&a);
    let near = |name: &str, value: f64| (told[name].as_f64().unwrap() - value).abs() < 1e-6;
    assert!(
        near("frequency", 5.18e9) && near("rate", 5.4e6) && near("quality", 0.63) && near("signal", -62.2),
        "{told}"
    );
    assert_eq!(told["connectivity"], "full");
    assert!(a.ria(&["status"]).out.contains("Wi-Fi, \"lab\", access point 02:00:5E:10:00:01, -62 dBm"));

    let (listener, since) = (Listener::on(&host), Instant::now());
    let wireless = format!("{MANAGER}.Device.Wireless");
    let roam = |point: &str| {
        let point = format!("{PATH}/AccessPoint/{point}");
        set(&host, RADIO, &wireless, "ActiveAccessPoint", ["o", &point]);
    };
    roam("two");
    eventually("the move is an event", || listener.of_kind("access_point", since).len() == 1);
    let moved = listener.of_kind("access_point", since).pop().unwrap();
    assert_eq!((moved.before.as_str(), moved.after.as_str()), ("02:00:5E:10:00:01", "02:00:5E:10:00:02"));
    a.wait_for_link("robot-b", "up");

    let connectivity = |value: &str| set(&host, PATH, MANAGER, "Connectivity", ["u", value]);
    connectivity("2");
    eventually("the portal is a condition", || a.conditions().contains(&"captive-portal".to_owned()));
    connectivity("4");
    eventually("it is not any more", || !a.conditions().contains(&"captive-portal".to_owned()));

    // The bus vanishes with everybody on it, and comes back.
    bus.kill();
    drop(manager);
    wait_for_uplink(&a, &[("source", "kernel"), ("interface", "eth0")]);
    bus.start();
    let _manager = play(&bus, "networkmanager", MANAGER);
    connect_radio(&host);
    wait_for_uplink(&a, &first);
    assert_eq!(a.status()["state"], "up");
}

#[test]
fn before_a_sleep_the_coordinator_is_told_and_after_it_all_is_there_again() {
    let team = Team::new("machine-sleep", &Site::Together);
    let (a, b) = team.pair();
    let host = a.host.clone();
    let mut bus = Bus::install(host.clone());
    bus.start();
    let logind = play(&bus, "logind", LOGIND);
    let manager = format!("{LOGIND}.Manager");
    let waits = || busctl(&host, &[LOGIND, LOGIND_PATH, &manager, "ListInhibitors"]).contains("Ria");
    let sleep = |starts: &str| {
        let signal = ["EmitSignal", "sssav", &manager, "PrepareForSleep", "b", "1", "b", starts];
        busctl(&host, &[&[LOGIND, LOGIND_PATH, MOCK], &signal[..]].concat());
    };
    let online = || {
        let ended = team.admin(&["node", "show", "robot-a", "--json"]);
        serde_json::from_str::<Value>(&ended.out).unwrap()["online"] == true
    };
    eventually("logind waits for the agent", waits);
    assert!(online());
    sleep("true");
    eventually("the coordinator knows that the robot went away", || !online());
    eventually("logind need not wait any longer", || !waits());
    sleep("false");
    eventually("the robot is back", online);
    eventually("logind waits again", waits);
    assert_eq!(b.ping(&a.address(), 3), 3);

    // A logind that is restarted is given another lock.
    drop(logind);
    let _logind = play(&bus, "logind", LOGIND);
    eventually("the new logind waits, too", waits);
    assert_eq!(a.status()["state"], "up");
}
