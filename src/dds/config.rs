//! Section `[dds]` of the agent's configuration.

use ria_core::MulticastPolicy;
use serde::Deserialize;

/// How ROS 2 processes on this machine are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DdsConfig {
    /// Writes profiles and names them in `ria env`. Default: true. False leaves DDS to the user.
    pub profiles: bool,
    /// How processes find each other. Default: multicast, which the overlay carries to all peers.
    pub discovery: Discovery,
    /// Leaves out announcements that peers need not hear again. Default: true.
    pub damping: bool,
    /// Has Fast DDS carry data over TCP, for images and point clouds over lossy links; discovery by multicast only.
    /// Default: false.
    pub large_data: bool,
    /// Further interfaces that DDS uses, such as `eth0` towards the robot's own sensors and boards. Default: none.
    pub local_interfaces: Vec<InterfaceName>,
}

/// How processes find each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discovery {
    /// They announce themselves to everybody; who comes later is found by those that run.
    #[default]
    Multicast,
    /// Each asks all members that are known when it starts.
    Unicast,
}

/// The name of an interface: the kernel's own rules, less what would need quoting in XML.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = (1..16).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits {
            Ok(Self(name))
        } else {
            Err(format!("{name:?} is no name of an interface, such as \"eth0\" (see: ip link)"))
        }
    }
}

impl Default for DdsConfig {
    fn default() -> Self {
        Self {
            profiles: true,
            discovery: Discovery::default(),
            damping: true,
            large_data: false,
            local_interfaces: Vec::new(),
        }
    }
}

impl DdsConfig {
    /// The same, when its parts go together.
    pub fn checked(self) -> Result<Self, String> {
        if self.large_data && self.discovery == Discovery::Unicast {
            // Measured: with large data and peers named one by one, Fast DDS finds nobody.
            return Err("large_data needs discovery = \"multicast\"; choose one of the two".into());
        }
        Ok(self)
    }

    /// What the engine does with multicast.
    pub fn multicast(&self) -> MulticastPolicy {
        let replicate = self.discovery == Discovery::Multicast;
        MulticastPolicy { replicate, damping: self.damping, ..MulticastPolicy::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_mistakes() {
        assert_eq!(toml::from_str::<DdsConfig>(""), Ok(DdsConfig::default()));
        assert!(toml::from_str::<DdsConfig>("profile = false").unwrap_err().to_string().contains("profile"));
        assert!(
            toml::from_str::<DdsConfig>("discovery = 'server'").unwrap_err().to_string().contains("unicast")
        );
    }

    #[test]
    fn names_of_interfaces_are_looked_at() {
        let local = toml::from_str::<DdsConfig>("local_interfaces = ['eth0', 'enp3s0.7']").unwrap();
        assert_eq!(local.local_interfaces[1].as_str(), "enp3s0.7");
        for bad in ["", "a-name-that-is-too-long", "<x>"] {
            let text = format!("local_interfaces = ['{bad}']");
            assert!(toml::from_str::<DdsConfig>(&text).unwrap_err().to_string().contains("ip link"), "{bad}");
        }
    }

    #[test]
    fn large_data_needs_multicast() {
        let both = toml::from_str::<DdsConfig>("discovery = 'unicast'\nlarge_data = true").unwrap();
        assert!(both.checked().unwrap_err().contains("multicast"));
        assert!(toml::from_str::<DdsConfig>("large_data = true").unwrap().checked().is_ok());
    }

    #[test]
    fn the_engine_follows() {
        assert_eq!(DdsConfig::default().multicast(), MulticastPolicy::default());
        let unicast = toml::from_str::<DdsConfig>("discovery = 'unicast'").unwrap();
        assert!(!unicast.multicast().replicate);
        assert!(!toml::from_str::<DdsConfig>("damping = false").unwrap().multicast().damping);
    }
}
