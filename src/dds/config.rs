//! Section `[dds]` of the agent's configuration.

use serde::Deserialize;

/// How ROS 2 processes on this machine are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DdsConfig {
    /// Writes profiles and names them in `ria env`. Default: true. False leaves DDS to the user.
    pub profiles: bool,
}

impl Default for DdsConfig {
    fn default() -> Self {
        Self { profiles: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_mistakes() {
        assert_eq!(toml::from_str::<DdsConfig>(""), Ok(DdsConfig::default()));
        assert!(toml::from_str::<DdsConfig>("profile = false").unwrap_err().to_string().contains("profile"));
    }
}
