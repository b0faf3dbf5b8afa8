//! ROS domains (`ROS_DOMAIN_ID`): which of them the members of a network use.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// Highest domain with ports below those that Linux gives to any program (7400 + 250 × domain, RTPS section 9.6.2.3).
pub const MAX_DOMAIN: u8 = 101;

/// Where the UDP ports of domain 0 begin, and how many each domain has (RTPS section 9.6.2.3: PB and DG).
const PORT_BASE: u16 = 7400;
const DOMAIN_GAIN: u16 = 250;

/// The domain to which a UDP port belongs, and which of that domain's ports it is: 0 is discovery by multicast, 1 user data
/// by multicast, those behind are of single participants.
pub fn domain_of_port(port: u16) -> Option<(u16, u16)> {
    let offset = port.checked_sub(PORT_BASE)?;
    Some((offset / DOMAIN_GAIN, offset % DOMAIN_GAIN))
}

/// The domains of a network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RosDomains {
    /// Each member has one of its own, which the map lists with it.
    #[n(0)]
    PerRobot,
    /// All members have these in common. The first is the usual one; there is at least one.
    #[n(1)]
    Listed(#[n(0)] Vec<u8>),
}

/// The text names no domains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDomainsError {
    /// Higher than any that works.
    #[error(
        "ROS domain {0} is out of range: on Linux 0 to {MAX_DOMAIN} can be used, higher ones would take ports that other \
         programs are given (7400 + 250 x domain)"
    )]
    OutOfRange(u32),
    /// No numbers.
    #[error("'{0}' names no ROS domains; they are given as 7 or 7,8 or 10-19")]
    NoList(String),
}

impl RosDomains {
    /// Whether all numbers are of use.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::PerRobot => true,
            Self::Listed(domains) => !domains.is_empty() && domains.iter().all(|d| *d <= MAX_DOMAIN),
        }
    }
}

impl fmt::Display for RosDomains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerRobot => f.write_str("per-robot"),
            Self::Listed(domains) => {
                let numbers: Vec<_> = domains.iter().map(u8::to_string).collect();
                f.write_str(&numbers.join(","))
            }
        }
    }
}

impl FromStr for RosDomains {
    type Err = ParseDomainsError;

    /// What `Display` writes, and ranges.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "per-robot" {
            return Ok(Self::PerRobot);
        }
        let no_list = || ParseDomainsError::NoList(text.to_owned());
        let (mut domains, mut seen) = (Vec::new(), BTreeSet::new());
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first).ok_or_else(no_list)?, number(last).ok_or_else(no_list)?);
            let highest = first.max(last);
            if highest > u32::from(MAX_DOMAIN) {
                return Err(ParseDomainsError::OutOfRange(highest));
            }
            if first > last {
                return Err(no_list());
            }
            domains.extend((first..=last).filter_map(|d| u8::try_from(d).ok()).filter(|d| seen.insert(*d)));
        }
        Ok(Self::Listed(domains))
    }
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<RosDomains, ParseDomainsError> {
        text.parse()
    }

    #[test]
    fn lists_and_ranges_name_domains() {
        assert_eq!(parsed("7"), Ok(RosDomains::Listed(vec![7])));
        assert_eq!(parsed("9, 2,10-12,11"), Ok(RosDomains::Listed(vec![9, 2, 10, 11, 12])));
        assert_eq!(parsed("per-robot"), Ok(RosDomains::PerRobot));
        for text in ["per-robot", "0", "9,2,10"] {
            assert_eq!(parsed(text).map(|d| d.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_no_domain_is_refused_with_a_reason() {
        for text in ["", "x", "1,,2", "5-3", "-1", "1-2-3"] {
            assert_eq!(parsed(text), Err(ParseDomainsError::NoList(text.to_owned())), "{text}");
        }
        assert_eq!(parsed("102"), Err(ParseDomainsError::OutOfRange(102)));
        assert_eq!(parsed("0-4000000000"), Err(ParseDomainsError::OutOfRange(4_000_000_000)));
        assert!(parsed("232").unwrap_err().to_string().contains("0 to 101"));
    }
}
