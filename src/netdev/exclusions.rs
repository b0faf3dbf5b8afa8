//! What the user says is the robot's own affair: `[paths]` in `agent.toml`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

/// Interfaces and prefixes that no path uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exclusions {
    /// Names of interfaces; `*` at the end stands for anything.
    pub exclude_interfaces: Vec<String>,
    /// Prefixes, such as that of the robot's sensors.
    pub exclude_prefixes: Vec<IpNet>,
}

impl Exclusions {
    /// Whether an interface of this name is excluded.
    pub fn name(&self, name: &str) -> bool {
        self.exclude_interfaces.iter().any(|excluded| match excluded.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => excluded == name,
        })
    }

    /// Whether an address is in an excluded prefix.
    pub fn cover(&self, ip: IpAddr) -> bool {
        self.exclude_prefixes.iter().any(|prefix| prefix.contains(&ip))
    }
}
