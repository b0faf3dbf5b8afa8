//! Section `[routes]` of the agent's configuration.

use ria_protocol::prefix::Prefix;
use serde::Deserialize;

/// As many as a coordinator takes of one node.
const MOST: usize = 16;

/// Which local networks others may be let into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutesConfig {
    /// Local networks that this machine offers to forward to. An administrator approves each.
    pub advertise: Vec<Prefix>,
}

impl RoutesConfig {
    /// The same, without what can't be.
    pub fn checked(mut self) -> Result<Self, String> {
        self.advertise.sort_unstable();
        self.advertise.dedup();
        if let Some(six) = self.advertise.iter().find(|prefix| prefix.address().is_ipv6()) {
            return Err(format!("advertise: {six} is IPv6, which is not forwarded; name IPv4 networks"));
        }
        if let Some(wide) = self.advertise.iter().find(|prefix| prefix.length() < 8) {
            return Err(format!("advertise: {wide} is no local network; name one of /8 or longer"));
        }
        if self.advertise.len() > MOST {
            return Err(format!("advertise: {} networks are too many; at most {MOST}", self.advertise.len()));
        }
        let pairs = self.advertise.iter().zip(self.advertise.iter().skip(1));
        match pairs.into_iter().find(|(one, other)| one.overlaps(other)) {
            Some((one, other)) => Err(format!("advertise: {one} and {other} overlap; name one of them")),
            None => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RoutesConfig, String> {
        toml::from_str::<RoutesConfig>(text).map_err(|error| error.to_string())?.checked()
    }

    #[test]
    fn networks_are_named_once_and_are_ipv4() {
        let two = read("advertise = ['192.168.20.0/24', '192.168.10.7/24']").unwrap();
        assert_eq!(
            two.advertise.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.168.10.0/24", "192.168.20.0/24"]
        );
        for (bad, hint) in [
            ("advertise = ['fd00::/64']", "IPv4"),
            ("advertise = ['0.0.0.0/0']", "/8 or longer"),
            ("advertise = ['10.0.0.0/8', '10.1.0.0/16']", "overlap"),
            ("advertise = ['lan']", "lan"),
            ("advertize = []", "advertize"),
        ] {
            assert!(read(bad).unwrap_err().contains(hint), "{bad}: {:?}", read(bad));
        }
    }
}
