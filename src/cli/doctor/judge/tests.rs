use std::collections::BTreeMap;

use ria_api::state::{Condition, NetworkStatus, PeerStatus};

use super::super::facts::{InterfaceFacts, Neighbour, Processes};
use super::*;

fn well() -> Facts {
    let environment = [
        ("FASTRTPS_DEFAULT_PROFILES_FILE", "/run/ria/dds/fastdds.xml"),
        ("FASTDDS_DEFAULT_PROFILES_FILE", "/run/ria/dds/fastdds-3.xml"),
        ("CYCLONEDDS_URI", "file:///run/ria/dds/cyclonedds.xml"),
    ];
    let environment: BTreeMap<String, String> =
        environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let peer = PeerStatus {
        name: "robot-2".into(),
        kind: PeerKind::Node,
        coordinator_online: true,
        link_state: LinkState::Up,
        participants_seen: 2,
        participants_expected: Some(2),
        ..PeerStatus::default()
    };
    let status = NetworkStatus {
        network: "lab".into(),
        state: NetworkState::Up,
        coordinator_state: CoordinatorState::Connected,
        interface: "ria0".into(),
        addresses: vec!["10.213.0.1/16".into(), "fd00::1/64".into()],
        mtu: 1280,
        interface_up_since: Some(100.0),
        ..NetworkStatus::default()
    };
    let interface = InterfaceFacts { is_up: true, is_multicast: true, queue_length: 10_000, tx_dropped: 0 };
    let process = Process {
        pid: 7,
        uid: 1000,
        name: "talker".into(),
        started: 200.0,
        environment: environment.clone(),
        middleware: vec![Middleware::FastDds2],
        is_daemon: false,
        ipc: 1,
        udp: vec![[0, 0, 0, 0].into(), [10, 213, 0, 1].into(), [127, 0, 0, 1].into()],
    };
    Facts {
        agent: Default::default(),
        networks: vec![NetworkFacts { status, peers: vec![peer], environment, interface: Some(interface) }],
        processes: Processes { ros: vec![process], ..Processes::default() },
        ..Facts::default()
    }
}

/// The findings that are more than good to know.
fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, String)> {
    let mut facts = well();
    change(&mut facts);
    let all = findings(&facts).into_iter().filter(|f| f.severity != Severity::Info);
    all.map(|finding| {
        assert!(!finding.next.is_empty(), "it does not say what to do: {finding:?}");
        (finding.code, finding.text)
    })
    .collect()
}

fn codes(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
    wrong(change).into_iter().map(|(code, _)| code).collect()
}

#[test]
fn where_all_is_well_nothing_is_found() {
    assert!(wrong(|_| {}).is_empty());
    assert_eq!(codes(|facts| facts.networks.clear()), ["not-joined"]);
}

#[test]
fn tunnel_and_interface_come_before_processes() {
    let found = codes(|facts| {
        let network = &mut facts.networks[0];
        network.status.conditions.push(Condition { severity: Severity::Warning, ..Condition::default() });
        network.status.coordinator_state = CoordinatorState::Unreachable;
        network.peers[0].link_state = LinkState::Lost;
        network.status.drops.insert("multicast-data".into(), 3);
        network.interface =
            Some(InterfaceFacts { is_up: true, is_multicast: false, queue_length: 500, tx_dropped: 1 });
        facts.processes.ros[0].environment.clear();
    });
    let expected = [
        "condition",
        "coordinator",
        "link",
        "multicast-data",
        "interface-flags",
        "queue",
        "queue-drops",
        "environment",
    ];
    assert_eq!(found, expected);
    assert_eq!(codes(|facts| facts.networks[0].status.state = NetworkState::Disabled), ["network-down"]);
    assert_eq!(codes(|facts| facts.networks[0].interface = None), ["interface-missing"]);
    assert_eq!(codes(|facts| facts.networks[0].peers[0].link_state = LinkState::Denied), ["denied"]);
}

#[test]
fn a_process_from_before_the_interface_is_named() {
    let found = wrong(|facts| facts.processes.ros[0].started = 99.0);
    assert_eq!(found.len(), 1);
    assert!(found[0].0 == "older-than-interface" && found[0].1.contains("talker (process 7)"), "{found:?}");
    assert!(codes(|facts| facts.processes.ros[0].started = 99.995).is_empty(), "clocks have steps");
    assert!(
        codes(|facts| {
            facts.processes.ros[0].started = 1.0;
            facts.processes.ros[0].name = "ria_node".into();
        })
        .is_empty()
    );
    let stale = codes(|facts| {
        facts.processes.ros[0].started = 1.0;
        facts.processes.ros[0].is_daemon = true;
    });
    assert_eq!(stale, ["stale-daemon"]);
}

#[test]
fn settings_of_a_process_are_looked_at_by_its_middleware() {
    let with = |middleware, name: &'static str, value: Option<&'static str>| {
        codes(move |facts| {
            let process = &mut facts.processes.ros[0];
            process.middleware = vec![middleware];
            process.environment.remove(name);
            process.environment.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        })
    };
    assert_eq!(with(Middleware::Cyclone, "CYCLONEDDS_URI", None), ["environment"]);
    assert!(with(Middleware::Cyclone, "FASTRTPS_DEFAULT_PROFILES_FILE", None).is_empty());
    assert_eq!(with(Middleware::FastDds3, "FASTDDS_DEFAULT_PROFILES_FILE", Some("")), ["environment"]);
    // Of one network of several, and the user's own.
    assert!(
        with(Middleware::FastDds2, "FASTRTPS_DEFAULT_PROFILES_FILE", Some("/run/ria/dds/n1/fastdds.xml"))
            .is_empty()
    );
    assert!(
        with(Middleware::FastDds2, "FASTRTPS_DEFAULT_PROFILES_FILE", Some("/home/me/mine.xml")).is_empty()
    );
    assert_eq!(with(Middleware::FastDds2, "ROS_LOCALHOST_ONLY", Some("1")), ["range"]);
    assert_eq!(with(Middleware::FastDds2, "ROS_AUTOMATIC_DISCOVERY_RANGE", Some("LOCALHOST")), ["range"]);
    assert!(with(Middleware::FastDds2, "ROS_AUTOMATIC_DISCOVERY_RANGE", Some("SUBNET")).is_empty());
    let humble = codes(|facts| {
        let environment = &mut facts.processes.ros[0].environment;
        environment.insert("ROS_DISTRO".into(), "humble".into());
        environment
            .insert("FASTRTPS_DEFAULT_PROFILES_FILE".into(), "/run/ria/dds/fastdds-by-address.xml".into());
    });
    assert!(humble.is_empty());
}

#[test]
fn a_process_from_a_time_without_an_agent_has_no_socket_on_the_interface() {
    let off = |change: fn(&mut Process)| {
        codes(move |facts| {
            let process = &mut facts.processes.ros[0];
            process.udp.retain(|address| address.octets()[0] != 10);
            change(process);
        })
    };
    assert_eq!(off(|_| {}), ["off-interface"]);
    // It makes its sockets when it makes its participant; with other settings, other sockets.
    assert!(off(|process| process.udp.clear()).is_empty());
    assert!(off(|process| process.middleware = vec![Middleware::Cyclone]).is_empty());
    let own = |process: &mut Process| {
        process.environment.insert("FASTRTPS_DEFAULT_PROFILES_FILE".into(), "/home/me/mine.xml".into());
        process.environment.remove("FASTDDS_DEFAULT_PROFILES_FILE");
    };
    assert!(off(own).is_empty());
}

#[test]
fn devices_on_the_robots_own_network_are_told_with_what_brings_them_in() {
    let mut facts = well();
    facts.neighbours =
        (1..=9).map(|n| Neighbour { interface: "eth0".into(), address: [192, 168, 7, n].into() }).collect();
    let told: Vec<Finding> = findings(&facts).into_iter().filter(|f| f.code == "local-devices").collect();
    assert!(
        told.len() == 1 && told[0].severity == Severity::Info && told[0].text.contains("192.168.7.5)"),
        "{told:?}"
    );
    assert!(told[0].next.contains("local_interfaces = [\"eth0\"]"));
}

#[test]
fn a_process_that_asks_no_server_where_all_do_is_found() {
    let with = |own: Option<&'static str>| {
        codes(move |facts| {
            let wanted = &mut facts.networks[0].environment;
            wanted.insert("ROS_DISCOVERY_SERVER".into(), "10.213.0.5:11811".into());
            let process = &mut facts.processes.ros[0].environment;
            process.extend(own.map(|own| ("ROS_DISCOVERY_SERVER".to_owned(), own.to_owned())));
        })
    };
    assert_eq!(with(None), ["environment"]);
    assert!(with(Some("10.213.0.5:11811")).is_empty() && with(Some("10.0.0.1:11811")).is_empty());
}

#[test]
fn domains_that_nobody_carries_are_found() {
    let found = wrong(|facts| {
        facts.networks[0].status.ros_domains = vec![5];
        facts.networks[0].status.ros_domain = Some(5);
    });
    assert!(found.len() == 1 && found[0].1.contains("domain 0"), "{found:?}");
    assert!(
        codes(|facts| {
            facts.networks[0].status.ros_domains = vec![5];
            facts.processes.ros[0].environment.insert("ROS_DOMAIN_ID".into(), "5".into());
        })
        .is_empty()
    );
}

#[test]
fn what_two_robots_have_is_told_with_discovery() {
    let clash = |facts: &mut Facts| {
        let (code, text) = ("ros-cmd-vel-twice".into(), "robot-2, too".into());
        let condition = Condition { code, text, severity: Severity::Error, ..Condition::default() };
        facts.networks[0].status.conditions.push(condition);
    };
    assert_eq!(wrong(clash), [("clash", "robot-2, too".to_owned())]);
}

#[test]
fn missing_participants_memory_and_buffers_are_found() {
    assert_eq!(codes(|facts| facts.networks[0].peers[0].participants_seen = 1), ["participants"]);
    let other = |change: fn(&mut Process)| {
        codes(|facts| {
            let mut other = facts.processes.ros[0].clone();
            change(&mut other);
            facts.processes.ros.push(other);
        })
    };
    assert_eq!(other(|process| process.uid = 0), ["users"]);
    assert_eq!(other(|process| process.ipc = 2), ["ipc"]);
    assert!(other(|process| process.pid = 8).is_empty());
    assert_eq!(
        codes(|facts| {
            facts.host.settings.insert("net.core.rmem_max", 212_992);
        }),
        ["setting"]
    );
}

#[test]
fn what_could_not_be_seen_is_said() {
    let mut facts = well();
    facts.processes.hidden = 4;
    assert!(findings(&facts).iter().any(|f| f.code == "not-seen" && f.text.contains("4 processes")));
    facts.processes.hidden_ros = vec!["nav2 (9)".into()];
    assert!(findings(&facts).iter().any(|f| f.code == "not-seen" && f.text.contains("nav2 (9)")));
}
