//! The Fast DDS profile, for 2.6 to 3.x.
//!
//! Only the overlay's interfaces and loopback are used: with all interfaces every packet would be sent twice, once to
//! the peer's other address. Loopback and shared memory keep the machine's own processes together, also while the
//! interface is missing.
//!
//! By multicast nobody has to be named but this machine itself: ROS 2 adds the group to the list, unless it is older than
//! Iron, for which the file does it.
//!
//! Of writers only one time is set, no QoS policy: ROS 2 takes the default profile and puts a publisher's policies over it.

use std::fmt::Write;
use std::time::Duration;

use super::config::Discovery;
use super::{Overlay, PARTICIPANTS, SOCKET_BUFFER};

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// Up to 2.9: interfaces are known by address.
    V2,
    /// From 2.10 on: by name.
    V2_10,
    /// 3 and later: some settings have other names.
    V3,
}

/// The group of discovery.
const GROUP: &str = "239.255.0.1";

/// Announcements of one participant that go out every three seconds, at most: peers times ports of each.
const LOCATORS: usize = 256;

/// How long a reliable subscription waits at most until it hears what it has missed, with all that came after it held
/// back: 3 s unless told, which is what a robot's move would cost. A heartbeat is sent while something is not acknowledged.
const HEARTBEAT: Duration = Duration::from_millis(300);

/// Where ROS 2 tells which nodes a participant has. ROS 2 takes the profile that is named as the topic.
const GRAPH_TOPIC: &str = "ros_discovery_info";

/// What Fast DDS takes by itself.
const GRAPH_HEARTBEAT: Duration = Duration::from_secs(3);

/// By so much Fast DDS goes beyond the size that it is given, where announcements that were lost are sent again together. More
/// room than that is no good: with 20 bytes less, participants that know each other by unicast alone took half a minute longer.
const BEYOND: u32 = 4;

pub(super) fn profile(overlay: &Overlay, version: Version) -> String {
    let (interfaces, peers) = (interfaces(overlay, version), peers(overlay, version));
    let size = if overlay.is_up() {
        format!("\n        <maxMessageSize>{}</maxMessageSize>", overlay.message_size() - BEYOND)
    } else {
        String::new()
    };
    let range = match overlay.discovery {
        Discovery::Multicast | Discovery::Server => PARTICIPANTS,
        Discovery::Unicast => ports_per_peer(overlay.peers.len()),
    };
    let writers = writers(version);
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- Written by the Ria agent; changes are overwritten. -->
<dds xmlns="http://www.eprosima.com">
  <profiles>
    <transport_descriptors>
      <transport_descriptor>
        <transport_id>ria_udp</transport_id>
        <type>UDPv4</type>{size}
        <sendBufferSize>{SOCKET_BUFFER}</sendBufferSize>
        <receiveBufferSize>{SOCKET_BUFFER}</receiveBufferSize>
        <maxInitialPeersRange>{range}</maxInitialPeersRange>
        <interfaceWhiteList>{interfaces}
          <address>127.0.0.1</address>
        </interfaceWhiteList>
      </transport_descriptor>
      <transport_descriptor>
        <transport_id>ria_shm</transport_id>
        <type>SHM</type>
      </transport_descriptor>
    </transport_descriptors>
    <participant profile_name="ria" is_default_profile="true">
      <rtps>
        <builtin>
          <initialPeersList>
            <locator><udpv4><address>127.0.0.1</address></udpv4></locator>{peers}
          </initialPeersList>
        </builtin>
        <userTransports>
          <transport_id>ria_udp</transport_id>
          <transport_id>ria_shm</transport_id>
        </userTransports>
        <useBuiltinTransports>false</useBuiltinTransports>
      </rtps>
    </participant>{writers}
  </profiles>
</dds>
"#
    )
}

fn interfaces(overlay: &Overlay, version: Version) -> String {
    let mut text = String::new();
    for interface in overlay.interfaces.iter().chain(&overlay.local) {
        let entry = match version {
            Version::V2_10 | Version::V3 => format!("<interface>{}</interface>", interface.name),
            Version::V2 => format!("<address>{}</address>", interface.address),
        };
        let _ = write!(text, "\n          {entry}");
    }
    text
}

fn peers(overlay: &Overlay, version: Version) -> String {
    let mut text = String::new();
    for address in listed(overlay, version) {
        let _ = write!(text, "\n            <locator><udpv4><address>{address}</address></udpv4></locator>");
    }
    text
}

/// What writers are given that are not named in a profile of their own, and those of the topic by which participants tell
/// of their nodes. That one goes from everybody to everybody, and a heartbeat is for all readers as long as one of them is
/// behind: at the pace of the others, fifty processes that start together would drown in them.
fn writers(version: Version) -> String {
    let own = writer("ria_writer", " is_default_profile=\"true\"", HEARTBEAT, version);
    own + &writer(GRAPH_TOPIC, "", GRAPH_HEARTBEAT, version)
}

fn writer(name: &str, options: &str, heartbeat: Duration, version: Version) -> String {
    let element = match version {
        Version::V2 | Version::V2_10 => "heartbeatPeriod",
        Version::V3 => "heartbeat_period",
    };
    let (seconds, rest) = (heartbeat.as_secs(), heartbeat.subsec_nanos());
    format!(
        r#"
    <data_writer profile_name="{name}"{options}>
      <times>
        <{element}>
          <sec>{seconds}</sec>
          <nanosec>{rest}</nanosec>
        </{element}>
      </times>
    </data_writer>"#
    )
}

/// Who is asked beside this machine itself.
fn listed(overlay: &Overlay, version: Version) -> Vec<String> {
    match (overlay.discovery, version) {
        (_, _) if !overlay.is_up() => Vec::new(),
        (Discovery::Multicast, Version::V2_10 | Version::V3) => Vec::new(),
        (Discovery::Multicast, Version::V2) => vec![GROUP.into()],
        // Servers are named by a variable.
        (Discovery::Server, _) => Vec::new(),
        (Discovery::Unicast, _) => {
            let own = overlay.interfaces.iter().map(|i| i.address);
            own.chain(overlay.peers.iter().copied()).map(|address| address.to_string()).collect()
        }
    }
}

/// Each participant of a host has a port of its own, and nobody knows which are in use: all are tried while there are
/// few peers. Never less than the four that Fast DDS tries by itself.
fn ports_per_peer(peers: usize) -> usize {
    (LOCATORS / peers.max(1)).clamp(4, PARTICIPANTS)
}

#[cfg(test)]
mod tests {
    use super::super::Interface;
    use super::super::tests::{overlay, unicast};
    use super::*;

    #[test]
    fn interfaces_are_named_as_the_version_needs_it() {
        let by_name = profile(&overlay(1), Version::V2_10);
        assert!(by_name.contains("<interface>ria0</interface>"));
        assert!(!by_name.contains("<interfaceWhiteList>\n          <address>10.213.0.1"));
        let by_address = profile(&overlay(1), Version::V2);
        assert!(by_address.contains("<interfaceWhiteList>\n          <address>10.213.0.1</address>"));
        assert!(!by_address.contains("<interface>"));
        assert!(by_name.contains("<maxMessageSize>1248</maxMessageSize>"));
    }

    #[test]
    fn writers_tell_soon_what_is_missing_in_the_words_of_each_version() {
        for (version, name) in [
            (Version::V2, "heartbeatPeriod"),
            (Version::V2_10, "heartbeatPeriod"),
            (Version::V3, "heartbeat_period"),
        ] {
            let text = profile(&overlay(1), version);
            let heartbeats: Vec<_> =
                text.lines().filter(|l| l.to_lowercase().contains("heartbeat")).collect();
            assert_eq!(heartbeats.len(), 4, "{text}");
            assert!(heartbeats.iter().all(|line| line.contains(name)));
            assert!(text.contains("<sec>0</sec>\n          <nanosec>300000000</nanosec>"));
            let graph = text.split("<data_writer profile_name=\"ros_discovery_info\">").nth(1).unwrap();
            assert!(graph.contains("<sec>3</sec>\n          <nanosec>0</nanosec>"), "{text}");
            assert!(!text.contains("<qos>"), "a policy of the user's would be taken over");
        }
    }

    #[test]
    fn all_peers_are_listed_and_the_announcements_stay_bounded() {
        let many = profile(&unicast(200), Version::V2_10);
        // 200 peers, itself, loopback.
        assert_eq!(many.matches("<locator>").count(), 202);
        assert_eq!([0, 1, 8, 16, 64, 500].map(ports_per_peer), [32, 32, 32, 16, 4, 4]);
    }

    #[test]
    fn by_multicast_nobody_is_listed() {
        let by_name = profile(&overlay(200), Version::V2_10);
        assert_eq!(by_name.matches("<locator>").count(), 1);
        let by_address = profile(&overlay(200), Version::V2);
        assert_eq!(by_address.matches("<locator>").count(), 2);
        assert!(by_address.contains("<address>239.255.0.1</address>"));
    }

    #[test]
    fn with_servers_nobody_is_asked_but_them() {
        let overlay = Overlay { discovery: Discovery::Server, ..overlay(200) };
        for version in [Version::V2_10, Version::V2, Version::V3] {
            let text = profile(&overlay, version);
            assert!(text.matches("<locator>").count() == 1 && !text.contains("239.255.0.1"));
        }
    }

    #[test]
    fn local_interfaces_are_used_too() {
        let local = Interface { name: "eth0".into(), address: [192, 168, 7, 2].into() };
        let overlay = Overlay { local: vec![local], ..overlay(1) };
        assert!(profile(&overlay, Version::V2_10).contains("<interface>eth0</interface>"));
        assert!(profile(&overlay, Version::V2).contains("<address>192.168.7.2</address>"));
    }

    #[test]
    fn without_a_network_the_machine_keeps_to_itself() {
        let alone = profile(&Overlay::default(), Version::V2_10);
        assert!(!alone.contains("maxMessageSize") && !alone.contains("<interface>"));
        assert_eq!(alone.matches("127.0.0.1").count(), 2);
        assert!(alone.contains("<type>SHM</type>"));
    }
}
