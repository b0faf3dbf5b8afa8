//! A network whose firewall lets nothing out but what its HTTP proxy carries.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use netlab::HostSpec;
use support::office::{CONFIG, PASSWORD, PROXY, close_firewall, set_proxy, start_proxy};
use support::{Robot, Site, Team, eventually, eventually_within};

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
