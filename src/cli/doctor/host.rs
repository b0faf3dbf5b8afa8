//! The machine: interface, kernel settings and counters, from `/sys` and `/proc`.

use std::path::Path;

use super::facts::{HostFacts, InterfaceFacts};

/// A kernel setting that large messages need, and at least how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    pub wanted: u64,
    /// Whether less is better.
    pub at_most: bool,
}

/// Socket buffers that a message of a megabyte in small datagrams fits into, and no poisoning of the memory for
/// fragments by processes without Ria's settings.
pub const SETTINGS: [Setting; 4] = [
    Setting { name: "net.core.rmem_max", wanted: 4 << 20, at_most: false },
    Setting { name: "net.core.wmem_max", wanted: 4 << 20, at_most: false },
    Setting { name: "net.ipv4.ipfrag_high_thresh", wanted: 128 << 20, at_most: false },
    Setting { name: "net.ipv4.ipfrag_time", wanted: 3, at_most: true },
];

/// Flags of an interface (`linux/if.h`).
const UP: u64 = 0x1;
const MULTICAST: u64 = 0x1000;

impl Setting {
    pub fn suffices(self, value: u64) -> bool {
        if self.at_most { value <= self.wanted } else { value >= self.wanted }
    }

    pub fn path(self) -> String {
        format!("/proc/sys/{}", self.name.replace('.', "/"))
    }
}

pub fn look() -> HostFacts {
    let settings =
        SETTINGS.iter().filter_map(|setting| Some((setting.name, number(&setting.path())?))).collect();
    let counters = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let counter = |group, name| counter(&counters, group, name).unwrap_or_default();
    HostFacts {
        settings,
        reassembly_failed: counter("Ip:", "ReasmFails"),
        fragments_created: counter("Ip:", "FragCreates"),
        buffer_errors: counter("Udp:", "RcvbufErrors"),
    }
}

pub fn interface(name: &str) -> Option<InterfaceFacts> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let directory = format!("/sys/class/net/{name}");
    if !Path::new(&directory).exists() {
        return None;
    }
    let flags = std::fs::read_to_string(format!("{directory}/flags")).ok();
    let flags = flags.and_then(|text| u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok())?;
    Some(InterfaceFacts {
        is_up: flags & UP != 0,
        is_multicast: flags & MULTICAST != 0,
        queue_length: number(&format!("{directory}/tx_queue_len"))?,
        tx_dropped: number(&format!("{directory}/statistics/tx_dropped")).unwrap_or_default(),
    })
}

/// A file with a number.
pub fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A counter of `/proc/net/snmp`: each group is a line of names and one of values.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.split(' ').next() == Some(group));
    let position = lines.next()?.split(' ').position(|word| word == name)?;
    lines.next()?.split(' ').nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text =
            "Ip: Forwarding ReasmFails FragCreates\nIp: 1 7 9\nUdp: InDatagrams RcvbufErrors\nUdp: 5 2\n";
        assert_eq!(counter(text, "Ip:", "ReasmFails"), Some(7));
        assert_eq!(counter(text, "Udp:", "RcvbufErrors"), Some(2));
        assert_eq!(counter(text, "Udp:", "None"), None);
        assert_eq!(counter("Ip: A", "Ip:", "A"), None);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        assert!(interface("lo").is_some_and(|lo| !lo.is_multicast));
        assert!(
            interface("").is_none() && interface("no-such-one").is_none() && interface("../../x").is_none()
        );
        let _ = look();
    }

    #[test]
    fn enough_is_more_or_less() {
        let [receive, .., time] = SETTINGS;
        assert!(receive.suffices(4 << 20) && !receive.suffices(212_992));
        assert!(time.suffices(3) && !time.suffices(30));
        assert_eq!(receive.path(), "/proc/sys/net/core/rmem_max");
    }
}
