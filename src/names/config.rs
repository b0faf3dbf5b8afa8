//! Section `[names]` of the agent's configuration.

use std::str::FromStr;

use serde::Deserialize;

/// How members get names on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamesConfig {
    /// Default: auto.
    pub mode: Mode,
}

/// Where names are put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Mode {
    /// By systemd-resolved where programs ask that, else in /etc/hosts where it can be written; where not, that is no mistake.
    #[default]
    Auto,
    /// In /etc/hosts.
    Hosts,
    /// By systemd-resolved.
    Resolved,
    /// Nowhere; `ria` itself knows them all the same.
    Off,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "hosts" => Ok(Self::Hosts),
            "off" => Ok(Self::Off),
            "resolved" => Ok(Self::Resolved),
            other => Err(format!("{other:?} is none of \"auto\", \"hosts\", \"resolved\" and \"off\"")),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
