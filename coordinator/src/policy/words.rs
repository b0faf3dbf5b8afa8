//! The words of a policy: what may be allowed (`tcp/22`, `ros/7`), and who is meant (`tag:arm`, `group:team-a`, `robot-7`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ria_protocol::domains::domain_of_port;
use ria_protocol::name::Name;
use ria_protocol::policy::protocol::{ICMP, TCP, UDP};
use ria_protocol::policy::{Permit, PermitKind, Traffic};
use serde::{Deserialize, Serialize};

use super::Who;

/// Longest name of a group of people.
const LONGEST_GROUP: usize = 200;

/// Highest ROS domain whose discovery has a port.
const LAST_DOMAIN: u16 = 232;

/// A word is none of a policy's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    #[error(
        "{0:?} is nothing that can be allowed; write any, icmp, tcp, udp, tcp/22, udp/5000-5010, ros/7, ros/0-9, ros, or \
         multicast/239.1.2.3:5000"
    )]
    Permit(String),
    #[error(
        "the port in {0:?} is not possible; ports are 1 to 65535, and of a range the lower one comes first"
    )]
    Port(String),
    #[error(
        "the ROS domain in {0:?} is not possible; domains are 0 to {LAST_DOMAIN}, of a range the lower one comes first"
    )]
    Domain(String),
    #[error("{0:?} is no multicast group; IPv4 has 224.0.0.0 to 239.255.255.255, IPv6 ff00::/8")]
    Group(String),
    #[error(
        "{0:?} is nobody; write the name of a node, tag:NAME, group:NAME, person:NAME, people:GROUP, route:PREFIX or *"
    )]
    Who(String),
    #[error(
        "{0:?} is nobody; a person is written as person:ada@uni.example, a group of the login provider's as people:GROUP"
    )]
    Person(String),
    #[error(
        "{0:?} is no network behind a node; write it as route:10.66.3.0/24, a device in it as route:10.66.3.7/32, by the \
         addresses under which members reach it (`ria-coordinator route list`)"
    )]
    Route(String),
    #[error("{0:?} can't be asked for; ask for tcp/22, udp/5000, icmp, ros/7 or multicast/239.1.2.3:5000")]
    Question(String),
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Reads what may be allowed.
pub fn permit(text: &str) -> Result<Permit, WordError> {
    let wrong = || WordError::Permit(text.to_owned());
    let Some((word, rest)) = text.split_once('/') else {
        return match text {
            "any" => Ok(Permit::plain(PermitKind::ANY)),
            "icmp" => Ok(Permit::plain(PermitKind::ICMP)),
            "tcp" => Ok(Permit::plain(PermitKind::TCP)),
            "udp" => Ok(Permit::plain(PermitKind::UDP)),
            "ros" => Ok(Permit::range(PermitKind::ROS, 0, LAST_DOMAIN)),
            _ => Err(wrong()),
        };
    };
    let ports = |kind| {
        let found = range(rest).filter(|(first, _)| *first > 0);
        found.map(|(first, last)| Permit::range(kind, first, last)).ok_or(WordError::Port(text.to_owned()))
    };
    match word {
        "tcp" => ports(PermitKind::TCP),
        "udp" => ports(PermitKind::UDP),
        "ros" => {
            let found = range(rest).filter(|(_, last)| *last <= LAST_DOMAIN);
            let found = found.map(|(first, last)| Permit::range(PermitKind::ROS, first, last));
            found.ok_or(WordError::Domain(text.to_owned()))
        }
        "multicast" => group(text, rest),
        _ => Err(wrong()),
    }
}

fn group(text: &str, rest: &str) -> Result<Permit, WordError> {
    let (address, ports) = rest.rsplit_once(':').ok_or(WordError::Permit(text.to_owned()))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = address.parse().map_err(|_| WordError::Group(text.to_owned()))?;
    if !address.is_multicast() {
        return Err(WordError::Group(text.to_owned()));
    }
    let ports = range(ports).filter(|(first, _)| *first > 0).ok_or(WordError::Port(text.to_owned()))?;
    Ok(Permit::group(address, ports.0, ports.1))
}

/// A permit as it is written.
pub fn permit_text(permit: &Permit) -> String {
    let range = |word: &str, all: (u16, u16)| match (permit.first, permit.last) {
        same if same == all => word.to_owned(),
        (first, last) if first == last => format!("{word}/{first}"),
        (first, last) => format!("{word}/{first}-{last}"),
    };
    match (permit.kind, permit.group) {
        (PermitKind::ANY, _) => "any".to_owned(),
        (PermitKind::ICMP, _) => "icmp".to_owned(),
        (PermitKind::TCP, _) => range("tcp", (0, u16::MAX)),
        (PermitKind::UDP, _) => range("udp", (0, u16::MAX)),
        (PermitKind::ROS, _) => range("ros", (0, LAST_DOMAIN)),
        (PermitKind::MULTICAST, Some(group)) => {
            let ports = range("", (0, u16::MAX));
            let ports = ports.trim_start_matches('/');
            if group.is_ipv4() {
                format!("multicast/{group}:{ports}")
            } else {
                format!("multicast/[{group}]:{ports}")
            }
        }
        (kind, _) => format!("unknown ({})", kind.0),
    }
}

impl FromStr for Who {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || WordError::Who(text.to_owned());
        let name = |text: &str| text.parse::<Name>().map_err(|_| wrong());
        match text.split_once(':') {
            _ if text == "*" => Ok(Self::Everybody),
            None => Ok(Self::Node(name(text)?)),
            Some(("tag", tag)) => Ok(Self::Tag(name(tag)?.to_string())),
            Some(("group", group)) => Ok(Self::Group(name(group)?.to_string())),
            Some(("person", person)) => {
                let known = person.to_lowercase().parse();
                known.map(Self::Person).map_err(|_| WordError::Person(text.to_owned()))
            }
            Some(("people", group)) if is_group(group) => Ok(Self::People(group.to_owned())),
            Some(("route", prefix)) => {
                let read = prefix.parse().map(Self::Route);
                read.map_err(|_| WordError::Route(text.to_owned()))
            }
            Some(("people" | "user", _)) => Err(WordError::Person(text.to_owned())),
            Some(_) => Err(wrong()),
        }
    }
}

/// Providers call groups as they like; what would break a line or a quotation is none.
fn is_group(text: &str) -> bool {
    let breaks = |c: char| c.is_control() || c == '"' || c == '\\';
    !text.is_empty() && text.len() <= LONGEST_GROUP && text.trim() == text && !text.contains(breaks)
}

/// What is asked of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Question {
    /// A conversation of this kind.
    Unicast(u8, Option<u16>),
    /// Nodes in this ROS domain: its ports, and its discovery.
    Ros(u8),
    /// Datagrams to a group.
    Group(SocketAddr),
}

impl Question {
    /// Whether a permit allows it.
    pub fn is_allowed_by(&self, permit: &Permit) -> bool {
        match *self {
            Self::Unicast(protocol, port) => permit.allows(Traffic { protocol, port }),
            Self::Ros(domain) => {
                // The first port of a participant stands for all of the domain's.
                let port =
                    (0..=u16::MAX).rev().find(|port| domain_of_port(*port) == Some((domain.into(), 10)));
                permit.allows(Traffic { protocol: UDP, port })
                    && (permit.kind == PermitKind::ANY || permit.kind == PermitKind::ROS)
            }
            Self::Group(group) => permit.allows_group(group, false),
        }
    }

    /// Whether who is asked may begin it as well, when it is allowed.
    pub fn is_mutual(&self) -> bool {
        matches!(self, Self::Ros(_))
    }
}

impl FromStr for Question {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || WordError::Question(text.to_owned());
        let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
        // As in `22/tcp`, or `22` for TCP, too.
        if let Some(port) = number(text) {
            return Ok(Self::Unicast(TCP, Some(port)));
        }
        let (word, rest) = match text.split_once('/') {
            Some((first, last)) if number(first).is_some() => (last, Some(first)),
            Some((first, last)) => (first, Some(last)),
            None => (text, None),
        };
        match (word, rest) {
            ("icmp" | "ping", None) => Ok(Self::Unicast(ICMP, None)),
            ("tcp", Some(port)) => number(port).map(|port| Self::Unicast(TCP, Some(port))).ok_or_else(wrong),
            ("udp", Some(port)) => number(port).map(|port| Self::Unicast(UDP, Some(port))).ok_or_else(wrong),
            ("ros", Some(domain)) => domain
                .parse::<u8>()
                .ok()
                .filter(|domain| u16::from(*domain) <= LAST_DOMAIN)
                .map(Self::Ros)
                .ok_or_else(wrong),
            ("multicast", Some(group)) => group
                .parse()
                .ok()
                .filter(|to: &SocketAddr| to.ip().is_multicast())
                .map(Self::Group)
                .ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unicast(TCP, Some(port)) => write!(f, "tcp/{port}"),
            Self::Unicast(UDP, Some(port)) => write!(f, "udp/{port}"),
            Self::Unicast(ICMP, _) => f.write_str("icmp"),
            Self::Unicast(protocol, _) => write!(f, "IP protocol {protocol}"),
            Self::Ros(domain) => write!(f, "ros/{domain}"),
            Self::Group(group) => write!(f, "multicast/{group}"),
        }
    }
}

impl TryFrom<String> for Question {
    type Error = WordError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Question> for String {
    fn from(question: Question) -> Self {
        question.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_allowed_reads_back_as_it_was_written() {
        for text in [
            "any",
            "icmp",
            "tcp",
            "udp",
            "ros",
            "tcp/22",
            "udp/5000-5010",
            "ros/7",
            "ros/0-9",
            "multicast/239.1.2.3:5000",
            "multicast/[ff1e::7]:5000-5001",
        ] {
            assert_eq!(permit_text(&permit(text).unwrap()), text);
        }
        for (text, hint) in [
            ("http", "tcp/22"),
            ("tcp/0", "1 to 65535"),
            ("tcp/9-3", "lower one"),
            ("tcp/70000", "1 to 65535"),
            ("ros/300", "0 to 232"),
            ("multicast/10.0.0.1:5", "239.255.255.255"),
            ("multicast/239.0.0.1", "239.1.2.3:5000"),
            ("sctp/1", "tcp/22"),
            ("", "tcp/22"),
        ] {
            let error = permit(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn who_is_meant_reads_back_as_it_was_written() {
        for text in ["*", "robot-7", "tag:arm", "group:team-a", "route:10.66.3.0/24", "route:10.66.3.7/32"] {
            assert_eq!(text.parse::<Who>().unwrap().to_string(), text);
        }
        for text in ["", "Robot 7", "tag:", "grp:x", "tag:a b"] {
            assert!(matches!(text.parse::<Who>(), Err(WordError::Who(_))), "{text}");
        }
        assert_eq!("person:Eva".parse::<Who>().unwrap().to_string(), "person:eva");
        assert!(matches!("route:robot-3".parse::<Who>(), Err(WordError::Route(_))));
        assert!("user:eva".parse::<Who>().unwrap_err().to_string().contains("person:"));
        assert!("people:a\"b".parse::<Who>().is_err() && "people:a\\b".parse::<Who>().is_err());
    }

    #[test]
    fn questions_may_be_asked_either_way_round() {
        for (asked, read) in [
            ("22", "tcp/22"),
            ("22/tcp", "tcp/22"),
            ("tcp/22", "tcp/22"),
            ("5000/udp", "udp/5000"),
            ("icmp", "icmp"),
            ("ping", "icmp"),
            ("ros/7", "ros/7"),
            ("multicast/239.1.2.3:5", "multicast/239.1.2.3:5"),
        ] {
            assert_eq!(asked.parse::<Question>().unwrap().to_string(), read);
        }
        for text in ["", "tcp", "tcp/x", "0", "ros/240", "multicast/10.0.0.1:5"] {
            assert!(text.parse::<Question>().is_err(), "{text}");
        }
    }

    #[test]
    fn udp_alone_is_no_ros_domain() {
        let ros = Question::Ros(7);
        assert!(ros.is_allowed_by(&permit("ros/7").unwrap()) && ros.is_allowed_by(&permit("any").unwrap()));
        assert!(!ros.is_allowed_by(&permit("udp").unwrap()) && !ros.is_allowed_by(&permit("ros/8").unwrap()));
    }
}
