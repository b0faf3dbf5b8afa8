//! Multicast groups that members of a network want carried beside the discovery of ROS 2.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Where multicast DNS speaks (RFC 6762 section 3).
const MDNS_PORT: u16 = 5353;
const MDNS: [MulticastGroup; 2] = [
    MulticastGroup { group: IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), first: MDNS_PORT, last: MDNS_PORT },
    MulticastGroup {
        group: IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb)),
        first: MDNS_PORT,
        last: MDNS_PORT,
    },
];
const MDNS_WORD: &str = "mdns";

/// Each packet is looked up in all of them.
const MAX_GROUPS: usize = 32;

/// A group, and which UDP ports of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct MulticastGroup {
    /// Its address.
    #[n(0)]
    pub group: IpAddr,
    /// First port.
    #[n(1)]
    pub first: u16,
    /// Last port.
    #[n(2)]
    pub last: u16,
}

impl MulticastGroup {
    /// Whether datagrams to this address and port are meant.
    pub fn has(&self, group: IpAddr, port: u16) -> bool {
        self.group == group && (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for MulticastGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            IpAddr::V4(v4) => write!(f, "{v4}:{}", self.first)?,
            IpAddr::V6(v6) => write!(f, "[{v6}]:{}", self.first)?,
        }
        if self.last == self.first { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

/// The text names no groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseGroupsError {
    /// Something else.
    #[error(
        "'{0}' is no multicast group with its UDP port; write mdns, 239.1.2.3:5000, 239.1.2.3:5000-5010 or [ff15::7]:5000, several \
         with a comma between, or none"
    )]
    NoGroup(String),
    /// Too many of them.
    #[error(
        "{0} multicast groups are too many; a network may have {MAX_GROUPS}, and one entry may have a range of ports"
    )]
    TooMany(usize),
}

/// The groups of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "String", into = "String")]
pub struct MulticastGroups(Vec<MulticastGroup>);

impl MulticastGroups {
    /// Each of them, as far as they make sense.
    pub fn iter(&self) -> impl Iterator<Item = MulticastGroup> {
        self.0.iter().copied().filter(|named| named.group.is_multicast()).take(MAX_GROUPS)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for MulticastGroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_mdns = MDNS.iter().all(|group| self.0.contains(group));
        let others =
            self.0.iter().filter(|group| !(is_mdns && MDNS.contains(group))).map(ToString::to_string);
        let words: Vec<String> = is_mdns.then(|| MDNS_WORD.to_owned()).into_iter().chain(others).collect();
        f.write_str(&if words.is_empty() { "none".to_owned() } else { words.join(",") })
    }
}

impl FromStr for MulticastGroups {
    type Err = ParseGroupsError;

    /// What `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::default());
        }
        let mut groups = BTreeSet::new();
        for word in text.split(',').map(str::trim) {
            match word {
                MDNS_WORD => groups.extend(MDNS),
                word => {
                    groups.insert(group(word).ok_or_else(|| ParseGroupsError::NoGroup(word.to_owned()))?);
                }
            }
        }
        if groups.len() > MAX_GROUPS {
            return Err(ParseGroupsError::TooMany(groups.len()));
        }
        Ok(Self(groups.into_iter().collect()))
    }
}

impl TryFrom<String> for MulticastGroups {
    type Error = ParseGroupsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MulticastGroups> for String {
    fn from(groups: MulticastGroups) -> Self {
        groups.to_string()
    }
}

fn group(word: &str) -> Option<MulticastGroup> {
    let (address, ports) = word.rsplit_once(':')?;
    let group = match address.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(inner) => IpAddr::V6(inner?.parse().ok()?),
        None => IpAddr::V4(address.parse().ok()?),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (group.is_multicast() && first > 0 && first <= last).then_some(MulticastGroup { group, first, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{from_bytes, to_bytes};

    fn parsed(text: &str) -> Result<MulticastGroups, ParseGroupsError> {
        text.parse()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["none", "mdns", "239.1.2.3:5000", "mdns,239.1.2.3:5000-5010,[ff15::7]:7"] {
            assert_eq!(parsed(text).map(|groups| groups.to_string()), Ok(text.to_owned()));
        }
        let mdns = parsed("mdns").unwrap();
        assert!(mdns.iter().any(|group| group.has([224, 0, 0, 251].into(), 5353)));
        assert!(!mdns.iter().any(|group| group.has([224, 0, 0, 251].into(), 5354)));
        assert_eq!(from_bytes::<MulticastGroups>(&to_bytes(&mdns)).unwrap(), mdns);
    }

    #[test]
    fn what_is_no_group_is_refused_with_examples() {
        for text in [
            "",
            "x",
            "10.0.0.1:5",
            "239.1.2.3",
            "239.1.2.3:0",
            "239.1.2.3:9-8",
            "ff15::7:5",
            "[10.0.0.1]:5",
            "mdns,,",
        ] {
            assert!(parsed(text).unwrap_err().to_string().contains("239.1.2.3:5000"), "{text}");
        }
        let many: Vec<String> = (1..=33).map(|n| format!("239.0.0.{n}:1")).collect();
        assert_eq!(parsed(&many.join(",")), Err(ParseGroupsError::TooMany(33)));
    }
}
