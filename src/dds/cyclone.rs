//! The Cyclone DDS configuration, for 0.9 and 0.10 (Humble to Kilted), and for 11.
//!
//! Cyclone takes one interface unless told and fails when a named one is missing, so without a network it is told to
//! use loopback. With two interfaces 0.10 finds others and then sends them nothing, so it is given the overlay's first one
//! only; 11 copes.
//!
//! By multicast it announces itself and nothing else (`spdp`): with several readers it would send them its data that
//! way, too. What only 11 knows would keep 0.10 from starting.

use std::fmt::Write;

use super::config::Discovery;
use super::{Overlay, PARTICIPANTS, SOCKET_BUFFER};

/// Headers of RTPS around a fragment of data.
const RTPS: u32 = 152;

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// 0.9 and 0.10.
    V0,
    /// 11 and later.
    V11,
}

pub(super) fn profile(overlay: &Overlay, version: Version) -> String {
    // Asking for more than the system grants would keep every process from starting.
    let buffer = match overlay.receive_buffer_max {
        Some(max) if max >= SOCKET_BUFFER => {
            "\n    <Internal>\n      <SocketReceiveBufferSize min=\"4MB\"/>\n    </Internal>"
        }
        _ => "",
    };
    let is_multicast = overlay.is_up() && overlay.discovery == Discovery::Multicast;
    let multicast = if is_multicast { "spdp" } else { "false" };
    let (interfaces, sizes) = (interfaces(overlay, version), sizes(overlay));
    let discovery = if is_multicast { String::new() } else { asking(overlay, version) };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- Written by the Ria agent; changes are overwritten. -->
<CycloneDDS>
  <Domain id="any">
    <General>
      <Interfaces>{interfaces}
      </Interfaces>
      <AllowMulticast>{multicast}</AllowMulticast>{sizes}
    </General>
    <Discovery>
      <ParticipantIndex>auto</ParticipantIndex>
      <MaxAutoParticipantIndex>{}</MaxAutoParticipantIndex>{discovery}
    </Discovery>{buffer}
  </Domain>
</CycloneDDS>
"#,
        PARTICIPANTS - 1
    )
}

fn interfaces(overlay: &Overlay, version: Version) -> String {
    let own = overlay.interfaces.iter().map(|i| (i.name.as_str(), ""));
    // One that is unplugged must not keep ROS from starting.
    let local = overlay.local.iter().map(|i| (i.name.as_str(), " presence_required=\"false\""));
    let mut names: Vec<(&str, &str)> = own.chain(local.filter(|_| overlay.is_up())).collect();
    if names.is_empty() {
        names.push(("lo", ""));
    }
    let most = if version == Version::V11 { names.len() } else { 1 };
    let mut text = String::new();
    for (name, option) in names.into_iter().take(most) {
        let _ = write!(text, "\n        <NetworkInterface name=\"{name}\"{option}/>");
    }
    text
}

fn sizes(overlay: &Overlay) -> String {
    if !overlay.is_up() {
        return String::new();
    }
    let size = overlay.message_size();
    format!(
        "\n      <MaxMessageSize>{size}B</MaxMessageSize>\n      <MaxRexmitMessageSize>{size}B</MaxRexmitMessageSize>\
         \n      <FragmentSize>{}B</FragmentSize>",
        size - RTPS
    )
}

/// Whom to ask, one by one. 11 would give up those that do not answer within 30 s.
fn asking(overlay: &Overlay, version: Version) -> String {
    let mut text =
        format!("\n      <SPDPInterval>{}s</SPDPInterval>", announce_interval(overlay.peers.len()));
    if version == Version::V11 {
        text.push_str("\n      <InitialLocatorPruneDelay>inf</InitialLocatorPruneDelay>");
    }
    text.push_str("\n      <Peers>\n        <Peer address=\"localhost\"/>");
    for address in &overlay.peers {
        let _ = write!(text, "\n        <Peer address=\"{address}\"/>");
    }
    text + "\n      </Peers>"
}

/// Every port of every peer is tried again at this interval, in seconds: the more peers, the more rarely.
fn announce_interval(peers: usize) -> usize {
    (peers * PARTICIPANTS / 85).clamp(3, 30)
}

#[cfg(test)]
mod tests {
    use super::super::Interface;
    use super::super::tests::{overlay, unicast};
    use super::*;

    #[test]
    fn by_multicast_nobody_is_listed() {
        for version in [Version::V0, Version::V11] {
            let text = profile(&overlay(3), version);
            assert!(
                text.contains("<AllowMulticast>spdp<") && !text.contains("<Peer") && !text.contains("Prune")
            );
            assert!(text.contains("<NetworkInterface name=\"ria0\"/>") && !text.contains("\"lo\""));
            assert!(text.contains("<MaxMessageSize>1252B<") && text.contains("<FragmentSize>1100B<"));
        }
    }

    #[test]
    fn by_unicast_all_peers_are_asked_and_not_given_up() {
        let text = profile(&unicast(3), Version::V0);
        assert!(text.contains("<AllowMulticast>false<") && !text.contains("Prune"));
        assert_eq!(text.matches("<Peer ").count(), 4);
        let text = profile(&unicast(3), Version::V11);
        assert!(text.contains("<InitialLocatorPruneDelay>inf<") && text.matches("<Peer ").count() == 4);
    }

    #[test]
    fn local_interfaces_are_for_those_that_cope_with_two() {
        let local = Interface { name: "eth0".into(), address: [192, 168, 7, 2].into() };
        let overlay = Overlay { local: vec![local], ..overlay(1) };
        assert!(!profile(&overlay, Version::V0).contains("eth0"));
        assert!(profile(&overlay, Version::V11).contains("name=\"eth0\" presence_required=\"false\""));
    }

    #[test]
    fn large_buffers_are_asked_for_only_where_they_are_granted() {
        assert!(!profile(&overlay(1), Version::V0).contains("SocketReceiveBufferSize"));
        let generous = Overlay { receive_buffer_max: Some(4 << 20), ..overlay(1) };
        assert!(profile(&generous, Version::V0).contains("SocketReceiveBufferSize min=\"4MB\""));
        let unknown = Overlay { receive_buffer_max: None, ..overlay(1) };
        assert!(!profile(&unknown, Version::V0).contains("SocketReceiveBufferSize"));
    }

    #[test]
    fn without_a_network_a_process_still_starts() {
        let alone = profile(&Overlay::default(), Version::V11);
        assert!(alone.contains("<NetworkInterface name=\"lo\"/>") && alone.contains("localhost"));
        assert!(!alone.contains("MaxMessageSize") && alone.contains("<AllowMulticast>false<"));
    }

    #[test]
    fn many_peers_are_announced_to_more_rarely() {
        assert_eq!([0, 1, 8, 50, 500].map(announce_interval), [3, 3, 3, 18, 30]);
    }
}
