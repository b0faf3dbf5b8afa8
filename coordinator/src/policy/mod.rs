//! Policies: who may begin what with whom in a network.
//!
//! ```text
//! text --parse--> Policy --tests--> stored, a new version --compile, for each node--> map
//!                   |
//!                   +--> explain, dry run: the same rules, asked
//! ```
//!
//! Pure values and functions; the registry stores them and makes changes of them. What a node does with its part is core's
//! business; both ask [`ria_protocol::policy`] whether a permit allows something.

pub mod api;
pub mod ask;
pub mod bookings;
pub mod compile;
pub mod difference;
pub mod explain;
pub mod grant;
pub mod lockout;
pub mod text;
pub mod valid;
pub mod words;

use std::collections::BTreeMap;
use std::fmt;

use ria_protocol::name::Name;
use ria_protocol::policy::Permit;
use ria_protocol::prefix::Prefix;
use valid::Period;
use words::Question;

use crate::state::people::UserName;

/// A policy that makes sense by itself. Whether its tests hold depends on the members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub groups: BTreeMap<String, Vec<Who>>,
    pub rules: Vec<PolicyRule>,
    pub tests: Vec<Test>,
}

/// A member or several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Everybody,
    Node(Name),
    Tag(String),
    Group(String),
    /// The laptops of somebody.
    Person(UserName),
    /// The laptops of everybody in a group of the login provider's.
    People(String),
    /// Devices on a local network behind a member, by the addresses under which members reach them.
    Route(Prefix),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("*"),
            Self::Node(name) => name.fmt(f),
            Self::Tag(tag) => write!(f, "tag:{tag}"),
            Self::Group(group) => write!(f, "group:{group}"),
            Self::Person(name) => write!(f, "person:{}", name.as_str()),
            Self::People(group) => write!(f, "people:{group}"),
            Self::Route(prefix) => write!(f, "route:{prefix}"),
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// From 1, in the order of the text.
    pub number: u32,
    /// Where it stands in the text, from 1.
    pub line: usize,
    pub name: Option<String>,
    pub from: Vec<Who>,
    pub to: Vec<Who>,
    pub permits: Vec<Permit>,
    pub period: Option<Period>,
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.number)?;
        if let Some(name) = &self.name {
            write!(f, " {name:?}")?;
        }
        write!(f, " (line {})", self.line)
    }
}

/// Something that has to be so under the policy, or else it is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    pub line: usize,
    /// A node, or a tag: then everybody with the tag.
    pub from: Who,
    pub to: Who,
    pub question: Question,
    pub allow: bool,
}

impl Policy {
    /// All whom its rules and groups mention.
    fn whos(&self) -> impl Iterator<Item = &Who> {
        let rules = self.rules.iter().flat_map(|rule| rule.from.iter().chain(&rule.to));
        rules.chain(self.groups.values().flatten())
    }

    /// Whether it says anything of these, in its rules, groups or tests.
    pub fn mentions(&self, who: &Who) -> bool {
        let tests = self.tests.iter().flat_map(|test| [&test.from, &test.to]);
        self.whos().chain(tests).any(|mentioned| mentioned == who)
    }

    /// The node names that it mentions.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.whos().filter_map(|who| if let Who::Node(name) = who { Some(name) } else { None })
    }

    /// People, and groups of people, that it mentions.
    pub fn people(&self) -> impl Iterator<Item = &Who> {
        self.whos().filter(|who| matches!(who, Who::Person(_) | Who::People(_)))
    }

    /// The devices behind nodes that it mentions.
    pub fn routes(&self) -> impl Iterator<Item = Prefix> {
        self.whos().filter_map(|who| if let Who::Route(prefix) = who { Some(*prefix) } else { None })
    }

    /// Whether it says anything of devices at these addresses.
    pub fn reaches(&self, prefix: Prefix) -> bool {
        self.routes().any(|named| named.overlaps(&prefix))
    }

    /// The tags that it mentions.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.whos().filter_map(|who| if let Who::Tag(tag) = who { Some(tag.as_str()) } else { None })
    }
}
