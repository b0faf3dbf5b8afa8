//! IPv4 and IPv6 side by side, of which one is broken: nobody has to wait for it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use netlab::{Host, HostSpec, Lab, NetworkSpec};
use support::{COORDINATOR, Robot, Team, eventually};

const NAME: &str = "ria.lab.example";
const COORDINATOR_V6: &str = "2001:db8::a";
const CONFIG: &str = "/run/agent.toml";

/// Connecting to an address that swallows everything is given up after five seconds. Whoever waits for that is slower than
/// this; whoever tries both is not, also on a slow machine.
const WITHOUT_WAITING: Duration = Duration::from_secs(4);

/// `robot-a`, `robot-b` and `robot-c` beside the coordinator, which has one name for addresses of both families.
fn lab() -> Lab {
    let mut lab = Lab::new("dual-stack").unwrap();
    let internet = NetworkSpec::internet("198.51.100.0/24".parse().unwrap());
    lab.add_network("internet", internet.with_ipv6("2001:db8::/64".parse().unwrap())).unwrap();
    lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
    for robot in ["robot-a", "robot-b", "robot-c"] {
        let host = lab.add_host(robot, HostSpec::on("internet")).unwrap();
        let hosts = format!("127.0.0.1 localhost\n{COORDINATOR_V6} {NAME}\n{COORDINATOR} {NAME}\n");
        std::fs::write(host.path("/etc/hosts"), hosts).unwrap();
        // They share a link, whose own addresses are a way that this is not about.
        std::fs::write(host.path(CONFIG), "beacon = false\n").unwrap();
    }
    lab
}

/// What goes to this network is swallowed: there is a route, and nobody says that it leads nowhere.
fn swallow(host: &Host, family: &str, prefix: &str) {
    let rules = format!(
        "table inet hole {{ chain out {{ type filter hook output priority 0; {family} daddr {prefix} drop; }}; \
         chain in {{ type filter hook input priority 0; {family} saddr {prefix} drop; }}; }}\n"
    );
    std::fs::write(host.path("/run/hole.nft"), rules).unwrap();
    host.run(&["nft", "-f", "/run/hole.nft"]).unwrap();
}

fn time_to_join(robot: &Robot, key: &str) -> Duration {
    let begin = Instant::now();
    let joined = robot.join(key);
    assert_eq!(joined.code, 0, "{joined:?}");
    begin.elapsed()
}

#[test]
fn a_family_that_is_a_black_hole_delays_nobody_and_the_two_kinds_reach_each_other() {
    let url = format!("https://{NAME}");
    let team = Team::over(lab(), &[&url]);
    let key = team.key(&["--reusable"]);
    let [a, b, c] = ["robot-a", "robot-b", "robot-c"].map(|name| team.robot(name, &["--config", CONFIG]));
    swallow(&b.host, "ip6", "2001:db8::/32");
    swallow(&c.host, "ip", "198.51.100.0/24");
    let healthy = time_to_join(&a, &key);
    for robot in [&b, &c] {
        let took = time_to_join(robot, &key);
        assert!(took < healthy + WITHOUT_WAITING, "{took:?}, but {healthy:?} where both families work");
    }
    for robot in [&a, &b, &c] {
        eventually("the coordinator is connected", || robot.status()["coordinator_state"] == "connected");
    }
    // Each broken one has a family in common with the healthy one, and none with the other broken one.
    for (one, other, way) in [(&a, &b, "direct"), (&a, &c, "direct"), (&b, &c, "relay_udp")] {
        for (from, to) in [(one, other), (other, one)] {
            let name = to.host.name();
            eventually(&format!("{} to {name} is {way}", from.host.name()), || {
                from.peer(name)["path"] == way
            });
            assert_eq!(from.ping(&to.address(), 3), 3);
        }
    }
}
