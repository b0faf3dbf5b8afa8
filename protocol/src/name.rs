//! Names of nodes and networks: DNS labels (RFC 1123) that also make a valid ROS name (REP 144) once `-` becomes `_`.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};

/// Longest DNS label.
const MAX_LEN: usize = 63;

/// The name of a node or a network, such as `robot-7`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text is no valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no valid name: use 1 to 63 characters a-z, 0-9 and single '-', beginning with a letter, as in \"robot-7\""
)]
pub struct ParseNameError {
    text: String,
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that ROS takes as a namespace or node name: `robot-7` becomes `robot_7`.
    pub fn ros_name(&self) -> String {
        self.0.replace('-', "_")
    }

    /// The nearest valid name to a host name such as `Robot 7.lab.example`; `None` when nothing usable is in it.
    pub fn from_host_name(host: &str) -> Option<Self> {
        let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let mut name = String::with_capacity(label.len());
        for c in label.chars() {
            match c {
                'a'..='z' => name.push(c),
                '0'..='9' if !name.is_empty() => name.push(c),
                _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
                _ => {}
            }
        }
        name.truncate(MAX_LEN);
        name.trim_end_matches('-').parse().ok()
    }

    /// This name with a number behind it, shortened when it would become too long: `robot` and 2 give `robot-2`.
    pub fn numbered(&self, number: u32) -> Self {
        let suffix = format!("-{number}");
        let kept = self.0.len().min(MAX_LEN - suffix.len());
        Self(format!("{}{suffix}", self.0[..kept].trim_end_matches('-')))
    }
}

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=MAX_LEN).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-')
            && !text.contains("--")
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseNameError { text: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for Name {
    type Error = ParseNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<C> Encode<C> for Name {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Name {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.str()?.parse().map_err(|_| decode::Error::message("invalid name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_and_ros_names() {
        assert_eq!("robot-7".parse::<Name>().unwrap().ros_name(), "robot_7");
        for bad in ["", "7up", "a--b", "a-", "-a", "Robot", "a_b", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn host_names_become_names() {
        assert_eq!(Name::from_host_name("Robot_7.lab.example").unwrap().as_str(), "robot-7");
        assert_eq!(Name::from_host_name("42").map(|n| n.to_string()), None);
        assert_eq!(Name::from_host_name("7of9--x").unwrap().as_str(), "of9-x");
    }

    #[test]
    fn numbered_names_stay_valid() {
        let long: Name = "a".repeat(63).parse().unwrap();
        assert_eq!(long.numbered(12).as_str().parse::<Name>().unwrap().as_str().len(), 63);
        assert_eq!("robot".parse::<Name>().unwrap().numbered(2).as_str(), "robot-2");
    }
}
