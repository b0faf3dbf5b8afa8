//! Choice of ROS domains: which a network gets, and which a member of its own.

use std::fmt;
use std::str::FromStr;

use ria_protocol::domains::{MAX_DOMAIN, ParseDomainsError, RosDomains};
use serde::{Deserialize, Serialize};

use super::Network;

/// What is asked for when a network is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WantedDomains {
    /// One that all members share and no other network has.
    Shared,
    /// These.
    Exactly(RosDomains),
}

impl FromStr for WantedDomains {
    type Err = ParseDomainsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "shared" { Ok(Self::Shared) } else { text.parse().map(Self::Exactly) }
    }
}

impl TryFrom<String> for WantedDomains {
    type Error = ParseDomainsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WantedDomains> for String {
    fn from(wanted: WantedDomains) -> Self {
        wanted.to_string()
    }
}

impl fmt::Display for WantedDomains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str("shared"),
            Self::Exactly(domains) => domains.fmt(f),
        }
    }
}

/// The domains of a new network; `None` when one was wanted for it alone and there is none left.
pub fn choose<'n>(wanted: WantedDomains, others: impl Iterator<Item = &'n Network>) -> Option<RosDomains> {
    match wanted {
        WantedDomains::Exactly(domains) => Some(domains),
        WantedDomains::Shared => {
            let taken: Vec<u8> = others.flat_map(taken).collect();
            (0..=MAX_DOMAIN)
                .find(|domain| !taken.contains(domain))
                .map(|domain| RosDomains::Listed(vec![domain]))
        }
    }
}

fn taken(network: &Network) -> Vec<u8> {
    match &network.info.ros_domains {
        Some(RosDomains::Listed(domains)) => domains.clone(),
        Some(RosDomains::PerRobot) => network.members.values().filter_map(|m| m.ros_domain).collect(),
        None => Vec::new(),
    }
}

/// The lowest domain that a new member has to itself; `None` where members have none of their own, and when all are
/// taken. Not 0, in which everybody is who was told nothing.
pub fn next_own(network: &Network) -> Option<u8> {
    if network.info.ros_domains != Some(RosDomains::PerRobot) {
        return None;
    }
    let taken = taken(network);
    (1..=MAX_DOMAIN).find(|domain| !taken.contains(domain))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::MemberEntry;
    use super::super::tests::{member, network};
    use super::*;

    fn with(domains: Option<RosDomains>) -> Network {
        let mut network = network();
        network.info.ros_domains = domains;
        network
    }

    #[test]
    fn a_shared_domain_is_no_other_networks() {
        let others = [with(None), with(Some(RosDomains::Listed(vec![0, 2])))];
        assert_eq!(choose(WantedDomains::Shared, others.iter()), Some(RosDomains::Listed(vec![1])));
        let all = [with(Some(RosDomains::Listed((0..=MAX_DOMAIN).collect())))];
        assert_eq!(choose(WantedDomains::Shared, all.iter()), None);
        let named = WantedDomains::Exactly(RosDomains::Listed(vec![0]));
        assert_eq!(choose(named, all.iter()), Some(RosDomains::Listed(vec![0])));
    }

    #[test]
    fn each_robot_gets_the_lowest_free_one_until_there_is_none() {
        assert_eq!(next_own(&with(None)), None);
        let mut network = with(Some(RosDomains::PerRobot));
        for expected in (1..=MAX_DOMAIN).map(Some).chain([None, None]) {
            let number = u8::try_from(network.members.len() + 1).unwrap();
            let own = next_own(&network);
            assert_eq!(own, expected);
            let entry =
                MemberEntry { ros_domain: own, ..MemberEntry::clone(&member(number, &format!("r{number}"))) };
            network.members.insert(entry.node, Arc::new(entry));
        }
        let gone = member(7, "r7").node;
        network.members.remove(&gone);
        assert_eq!(next_own(&network), Some(7));
    }

    #[test]
    fn requests_are_words_or_lists() {
        assert_eq!("shared".parse(), Ok(WantedDomains::Shared));
        for text in ["shared", "per-robot", "3,4"] {
            assert_eq!(text.parse::<WantedDomains>().unwrap().to_string(), text);
        }
        assert!(
            serde_json::from_str::<WantedDomains>("\"200\"")
                .unwrap_err()
                .to_string()
                .contains("out of range")
        );
    }
}
