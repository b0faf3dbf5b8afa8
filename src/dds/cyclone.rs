//! The Cyclone DDS configuration, for 0.9 to 11.
//!
//! Cyclone takes one interface unless told and fails when a named one is missing, so without a network it is told to
//! use loopback.

use std::fmt::Write;

use super::{Overlay, PARTICIPANTS, SOCKET_BUFFER};

/// Headers of RTPS around a fragment of data.
const RTPS: u32 = 152;

pub(super) fn profile(overlay: &Overlay) -> String {
    let mut interfaces = String::new();
    let names: Vec<&str> = overlay.interfaces.iter().map(|i| i.name.as_str()).collect();
    for name in if names.is_empty() { &["lo"][..] } else { &names } {
        let _ = write!(interfaces, "\n        <NetworkInterface name=\"{name}\"/>");
    }
    let mut peers = String::new();
    for address in &overlay.peers {
        let _ = write!(peers, "\n        <Peer address=\"{address}\"/>");
    }
    let sizes = if overlay.is_up() {
        let size = overlay.message_size();
        format!(
            "\n      <MaxMessageSize>{size}B</MaxMessageSize>\n      <MaxRexmitMessageSize>{size}B</MaxRexmitMessageSize>\
             \n      <FragmentSize>{}B</FragmentSize>",
            size - RTPS
        )
    } else {
        String::new()
    };
    // Asking for more than the system grants would keep every process from starting.
    let buffer = match overlay.receive_buffer_max {
        Some(max) if max >= SOCKET_BUFFER => {
            "\n    <Internal>\n      <SocketReceiveBufferSize min=\"4MB\"/>\n    </Internal>"
        }
        _ => "",
    };
    let interval = announce_interval(overlay.peers.len());
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- Written by the Ria agent; changes are overwritten. -->
<CycloneDDS>
  <Domain id="any">
    <General>
      <Interfaces>{interfaces}
      </Interfaces>
      <AllowMulticast>false</AllowMulticast>{sizes}
    </General>
    <Discovery>
      <ParticipantIndex>auto</ParticipantIndex>
      <MaxAutoParticipantIndex>{}</MaxAutoParticipantIndex>
      <SPDPInterval>{interval}s</SPDPInterval>
      <Peers>
        <Peer address="localhost"/>{peers}
      </Peers>
    </Discovery>{buffer}
  </Domain>
</CycloneDDS>
"#,
        PARTICIPANTS - 1
    )
}

/// Every port of every peer is tried again at this interval, in seconds: the more peers, the more rarely.
fn announce_interval(peers: usize) -> usize {
    (peers * PARTICIPANTS / 85).clamp(3, 30)
}

#[cfg(test)]
mod tests {
    use super::super::tests::overlay;
    use super::*;

    #[test]
    fn peers_and_sizes_come_from_the_network() {
        let text = profile(&overlay(3));
        assert!(text.contains("<NetworkInterface name=\"ria0\"/>") && !text.contains("\"lo\""));
        assert_eq!(text.matches("<Peer ").count(), 4);
        assert!(text.contains("<MaxMessageSize>1252B<") && text.contains("<FragmentSize>1100B<"));
    }

    #[test]
    fn large_buffers_are_asked_for_only_where_they_are_granted() {
        assert!(!profile(&overlay(1)).contains("SocketReceiveBufferSize"));
        let generous = Overlay { receive_buffer_max: Some(4 << 20), ..overlay(1) };
        assert!(profile(&generous).contains("SocketReceiveBufferSize min=\"4MB\""));
        let unknown = Overlay { receive_buffer_max: None, ..overlay(1) };
        assert!(!profile(&unknown).contains("SocketReceiveBufferSize"));
    }

    #[test]
    fn without_a_network_a_process_still_starts() {
        let alone = profile(&Overlay::default());
        assert!(alone.contains("<NetworkInterface name=\"lo\"/>") && alone.contains("localhost"));
        assert!(!alone.contains("MaxMessageSize"));
    }

    #[test]
    fn many_peers_are_announced_to_more_rarely() {
        assert_eq!([0, 1, 8, 50, 500].map(announce_interval), [3, 3, 3, 18, 30]);
    }
}
