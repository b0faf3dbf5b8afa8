//! Policies as they are asked for and told, in JSON: by the admin socket, and by whatever else serves people.

use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::difference::Difference;
use super::words::Question;

/// A network's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    pub network: Name,
    /// 0 when there was never one.
    pub version: u64,
    /// Absent: there is no policy, and everything is allowed.
    pub text: Option<String>,
    /// Since when; absent when there was never one.
    pub since: Option<UnixTime>,
    /// What may be a mistake; of the version in force only.
    pub warnings: Vec<String>,
}

/// A version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    pub version: u64,
    pub time: UnixTime,
    pub actor: String,
    pub note: String,
    /// Whether there was a policy from then on.
    pub policy: bool,
    pub in_force: bool,
}

/// A change that is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePolicy {
    /// May be left out while there is one network.
    pub network: Option<Name>,
    pub what: What,
    /// The version that it was made from; refused where that is not the last one.
    #[serde(default)]
    pub base: Option<u64>,
    #[serde(default)]
    pub note: String,
    /// Only tell what would come of it.
    #[serde(default)]
    pub dry_run: bool,
    /// Also where it locks its author, or everybody, out.
    #[serde(default)]
    pub force: bool,
}

/// A text that is to be the policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutPolicy {
    /// May be left out while there is one network.
    #[serde(default)]
    pub network: Option<Name>,
    pub text: String,
    #[serde(default)]
    pub note: String,
    /// Only tell what would come of it.
    #[serde(default)]
    pub dry_run: bool,
    /// Also where it locks its author, or everybody, out.
    #[serde(default)]
    pub force: bool,
}

/// What is wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum What {
    Set { text: String },
    Rollback { version: u64 },
    Clear {},
    Grant { from: Vec<String>, to: Vec<String>, allow: Vec<String>, seconds: u64, reason: Option<String> },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChanged {
    pub network: Name,
    /// The version now.
    pub version: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Whether there is a policy then.
    pub policy: bool,
    pub rules: usize,
    pub tests: usize,
    pub difference: Difference,
    pub warnings: Vec<String>,
}

/// May one member begin something with another?
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// May be left out while there is one network.
    pub network: Option<Name>,
    /// Names or identities; `route:PREFIX` or an address for devices behind a member.
    pub from: String,
    pub to: String,
    /// Absent: everything that it may begin.
    #[serde(default)]
    pub question: Option<Question>,
}

/// Why it may, or may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    pub from: Name,
    pub to: Name,
    /// Devices behind `to` are meant, not itself.
    #[serde(default)]
    pub to_devices: Option<Prefix>,
    pub question: Option<Question>,
    pub allowed: bool,
    /// Version of the policy; 0 when there was never one.
    pub version: u64,
    /// In words.
    pub reason: String,
    /// The rules about the two; with a question, the one that decides.
    pub rules: Vec<RuleView>,
}

impl Explained {
    /// With whom, in words.
    pub fn whom(&self) -> String {
        self.to_devices.map_or_else(|| self.to.to_string(), |prefix| format!("{prefix} behind {}", self.to))
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// From 1.
    pub number: u32,
    pub line: usize,
    pub name: Option<String>,
    pub from: Vec<String>,
    pub to: Vec<String>,
    pub allow: Vec<String>,
    pub valid: Option<String>,
    /// Whether it holds now.
    pub holds: bool,
}
