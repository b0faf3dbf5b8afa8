//! Section `[dds]` of the agent's configuration.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

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
    /// Discovery servers of Fast DDS, by their overlay addresses; for `discovery = "server"`. Default: none.
    pub discovery_servers: Vec<DiscoveryServer>,
    /// Leaves out announcements that peers need not hear again. Default: true.
    pub damping: bool,
    /// Announces processes to peers by their addresses on the overlay alone, so that nobody sends packets to others in vain.
    /// Default: true.
    pub hide_addresses: bool,
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
    /// Fast DDS asks servers; Cyclone DDS, which has none, does as for unicast.
    Server,
}

/// Where a discovery server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DiscoveryServer(SocketAddrV4);

/// The port that Fast DDS gives its servers.
const SERVER_PORT: u16 = 11811;

impl fmt::Display for DiscoveryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for DiscoveryServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse::<Ipv4Addr>().map(|ip| SocketAddrV4::new(ip, SERVER_PORT));
        let address = address.or_else(|_| text.parse::<SocketAddrV4>());
        address.ok().filter(|address| address.port() != 0 && !address.ip().is_unspecified()).map(Self).ok_or_else(|| {
            format!("{text:?} is no IPv4 address of a discovery server, such as \"10.213.0.5\" or \"10.213.0.5:{SERVER_PORT}\"")
        })
    }
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
            discovery_servers: Vec::new(),
            damping: true,
            hide_addresses: true,
            large_data: false,
            local_interfaces: Vec::new(),
        }
    }
}

impl DdsConfig {
    /// The same, when its parts go together.
    pub fn checked(self) -> Result<Self, String> {
        if self.large_data && self.discovery != Discovery::Multicast {
            // Measured: with large data and peers named one by one, Fast DDS finds nobody.
            return Err("large_data needs discovery = \"multicast\"; choose one of the two".into());
        }
        if (self.discovery == Discovery::Server) == self.discovery_servers.is_empty() {
            return Err("discovery = \"server\" and discovery_servers = [\"10.213.0.5\"] (the overlay addresses of the machines \
                        that run one: fastdds discovery) need each other"
                .into());
        }
        Ok(self)
    }

    /// What the engine does with multicast.
    pub fn multicast(&self) -> MulticastPolicy {
        let replicate = self.discovery == Discovery::Multicast;
        MulticastPolicy {
            replicate,
            damping: self.damping,
            hide_addresses: self.hide_addresses,
            ..MulticastPolicy::default()
        }
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
            toml::from_str::<DdsConfig>("discovery = 'servers'").unwrap_err().to_string().contains("unicast")
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
    fn servers_are_named_where_they_are_asked() {
        let parse = |text: &str| toml::from_str::<DdsConfig>(text).map_err(|e| e.to_string())?.checked();
        let servers =
            parse("discovery = 'server'\ndiscovery_servers = ['10.213.0.5', '10.213.0.6:7000']").unwrap();
        let shown: Vec<String> = servers.discovery_servers.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.213.0.5:11811", "10.213.0.6:7000"]);
        assert!(!servers.multicast().replicate);
        for bad in ["robot-1", "10.213.0.5:0", "0.0.0.0", "fd00::1", "10.213.0.5:11811;x"] {
            let text = format!("discovery = 'server'\ndiscovery_servers = ['{bad}']");
            assert!(parse(&text).unwrap_err().contains("such as"), "{bad}");
        }
        assert!(parse("discovery = 'server'").unwrap_err().contains("discovery_servers"));
        assert!(parse("discovery_servers = ['10.213.0.5']").unwrap_err().contains("discovery = \"server\""));
    }

    #[test]
    fn the_engine_follows() {
        assert_eq!(DdsConfig::default().multicast(), MulticastPolicy::default());
        let unicast = toml::from_str::<DdsConfig>("discovery = 'unicast'").unwrap();
        assert!(!unicast.multicast().replicate);
        assert!(!toml::from_str::<DdsConfig>("damping = false").unwrap().multicast().damping);
        assert!(!toml::from_str::<DdsConfig>("hide_addresses = false").unwrap().multicast().hide_addresses);
    }
}
