//! Figures for Prometheus: printed, written to a file, and served to this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use netlab::Host;
use support::{Site, Team, eventually};

const CONFIG: &str = "/run/agent.toml";
const URL: &str = "http://127.0.0.1:9586/metrics";

/// Status and body of an answer.
fn ask(host: &Host, line: &[&str]) -> (String, String) {
    let line = [&["curl", "-s", "-m", "10", "-w", "\n%{http_code} %{content_type}"], line].concat();
    let answer = String::from_utf8(host.output(&line).unwrap().stdout).unwrap();
    let (body, status) = answer.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

/// The figures of a text whose names begin so.
fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(name)).collect()
}

#[test]
fn figures_are_printed_written_and_served_to_this_machine_alone() {
    let team = Team::new("agent-metrics", &Site::Together);
    let key = team.key(&["--reusable"]);
    let config = "[metrics]\nlisten = '127.0.0.1:9586'\n";
    std::fs::write(team.host("robot-a").path(CONFIG), config).unwrap();
    let (a, b) = (team.robot("robot-a", &["--config", CONFIG]), team.robot("robot-b", &[]));
    let alone = a.ria(&["metrics"]);
    assert!(alone.code == 0 && alone.out.contains("\nria_agent_build_info{version="), "{alone:?}");
    for robot in [&a, &b] {
        assert_eq!(robot.join(&key).code, 0);
    }
    a.wait_for_link("robot-b", "up");
    assert_eq!(a.ping(&b.address(), 5), 5);

    let sent = || {
        let text = a.ria(&["metrics"]).out;
        let line = lines(&text, "ria_agent_peer_transmit_packets_total{")[0].to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    eventually("all packets are counted", || sent() >= 5);
    let printed = a.ria(&["metrics"]);
    let network = a.status()["network"].as_str().unwrap().to_owned();
    let up = format!("ria_agent_network_up{{network=\"{network}\"}} 1");
    assert_eq!(lines(&printed.out, "ria_agent_network_up{"), [up.as_str()]);
    assert_eq!(lines(&printed.out, "ria_agent_peer_link_up{").len(), 1, "{printed:?}");

    let (status, served) = ask(&a.host, &[URL]);
    assert_eq!(status, "200 text/plain; version=0.0.4; charset=utf-8");
    let names = |text: &str| {
        let heads = lines(text, "# TYPE ").into_iter().map(str::to_owned);
        heads.collect::<Vec<_>>()
    };
    assert_eq!(names(&served), names(&printed.out));
    assert_eq!(
        lines(&served, "ria_agent_dropped_total{").len(),
        lines(&printed.out, "ria_agent_dropped_total{").len()
    );
    assert!(ask(&a.host, &["-X", "POST", URL]).0.starts_with("405"));
    assert!(ask(&a.host, &["http://127.0.0.1:9586/"]).0.starts_with("404"));
    let from_outside = format!("http://{}:9586/metrics", a.host.address());
    assert!(ask(&b.host, &[&from_outside]).0.starts_with("000"), "nobody answers");

    assert_eq!(a.ria(&["metrics", "--output", "/run/ria.prom"]).code, 0);
    let written = std::fs::read_to_string(a.host.path("/run/ria.prom")).unwrap();
    assert_eq!(names(&written), names(&printed.out));
    assert_eq!(a.ria(&["metrics", "--output", "/no/such/folder/ria.prom"]).code, 1);
}

#[test]
fn an_address_that_is_taken_is_told_and_stops_nothing_else() {
    let team = Team::new("agent-metrics-taken", &Site::Together);
    let host = team.host("robot-a");
    let _taken = host.enter(|| std::net::TcpListener::bind("127.0.0.1:9586")).unwrap();
    std::fs::write(host.path(CONFIG), "[metrics]\nlisten = '127.0.0.1:9586'\n").unwrap();
    let a = team.robot("robot-a", &["--config", CONFIG]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    eventually("it is told", || a.conditions().contains(&"no-metrics".to_owned()));
    assert_eq!(a.status()["state"], "up");
}
