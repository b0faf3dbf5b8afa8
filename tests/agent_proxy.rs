//! A network whose firewall lets nothing out but what its HTTP proxy carries.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::path::Path;

use netlab::{Host, HostSpec, Process};
use support::{Robot, Site, Team, eventually, eventually_within};

const PROXY: &str = "198.51.100.9";
const PASSWORD: &str = "s3cret-of-the-proxy";
const CONFIG: &str = "/run/agent.toml";

/// A proxy as offices have it: to port 443 only, for those who know the password.
fn start_proxy(host: &Host) -> Process {
    let config = format!(
        "Port 3128\nListen 0.0.0.0\nTimeout 600\nMaxClients 20\nConnectPort 443\nBasicAuth robot {PASSWORD}\n"
    );
    std::fs::write(host.path("/run/tinyproxy.conf"), config).unwrap();
    let proxy = host.spawn(&["tinyproxy", "-d", "-c", "/run/tinyproxy.conf"], Path::new("/dev/null"));
    proxy.expect("tinyproxy is installed: scripts/test installs it")
}

/// Nothing but the proxy is reached from here.
fn close_firewall(host: &Host) {
    let rules = format!(
        "table inet office {{ chain out {{ type filter hook output priority 0; policy drop; oif lo accept; \
         oifname \"ria*\" accept; ip daddr {PROXY} tcp dport 3128 accept; }}; }}\n"
    );
    std::fs::write(host.path("/run/office.nft"), rules).unwrap();
    host.run(&["nft", "-f", "/run/office.nft"]).unwrap();
}

fn set_proxy(host: &Host, password: &str) {
    let config = format!("proxy = \"http://robot:{password}@{PROXY}:3128\"\n");
    std::fs::write(host.path(CONFIG), config).unwrap();
}

fn is_connected(robot: &Robot) -> bool {
    robot.status()["coordinator_state"] == "connected"
}

#[test]
fn a_robot_that_gets_out_by_a_proxy_only_joins_and_one_that_has_left_there_goes_on() {
    let mut team = Team::new("agent-proxy", &Site::Together);
    team.lab.add_host("proxy", HostSpec::on("internet").at(PROXY.parse().unwrap())).unwrap();
    let mut proxy = start_proxy(&team.host("proxy"));
    let key = team.key(&["--reusable"]);
    let host = team.host("robot-a");
    close_firewall(&host);

    set_proxy(&host, "wrong");
    let mut a = team.robot("robot-a", &["--config", CONFIG]);
    let refused = a.join(&key);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("refuses the user name or the password"), "{refused:?}");
    a.kill();

    set_proxy(&host, PASSWORD);
    a.start(&["--config", CONFIG]);
    let joined = a.join(&key);
    assert_eq!(joined.code, 0, "{joined:?}");
    eventually("the coordinator is connected", || is_connected(&a));
    let b = team.robot("robot-b", &[]);
    assert_eq!(b.join(&key).code, 0);
    eventually("news come by the proxy", || a.peer("robot-b")["coordinator_online"] == true);
    // What is relayed goes the same way.
    a.wait_for_link("robot-b", "up");
    assert_eq!(a.peer("robot-b")["path"], "relay_tls");
    assert_eq!(a.ping(&b.address(), 10), 10);
    assert_eq!(b.ping(&a.address(), 10), 10);
    let said = a.ria(&["status", "--json"]).out;
    assert!(!said.contains(PASSWORD), "{said}");

    // The robot drives on to where there is no proxy, and none is needed.
    proxy.kill().unwrap();
    host.run(&["nft", "delete", "table", "inet", "office"]).unwrap();
    eventually("the stream by the proxy has ended", || !is_connected(&a));
    eventually_within(std::time::Duration::from_secs(45), "the coordinator is connected directly", || {
        is_connected(&a)
    });
    a.wait_for_link("robot-b", "up");
    assert_eq!(a.ping(&b.address(), 3), 3);
}
