//! DDS profiles: what ROS 2 processes on this machine must be told to find their peers over the overlay.
//!
//! ```text
//! networks, as the daemon sees them ──► Overlay ──► fast_dds, cyclone (pure) ──► files in /run/ria/dds/
//!                                                   environment (pure)     ──► variables that name them
//! ```
//!
//! DDS reads files and variables once, when a process starts. By multicast, which the overlay carries, they need to name
//! nobody. By unicast all peers known by then are listed; a machine that joins later lists those before it, and
//! discovery needs only one side to know the other. Owns the files; knows neither the engine nor the local API.

pub mod config;
mod cyclone;
pub mod domains;
mod environment;
mod fast_dds;
mod handouts;
mod zenoh;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ria_api::environment::{
    CYCLONE, CYCLONE_11, DOMAIN_VARIABLE, FAST_DDS, FAST_DDS_3, FAST_DDS_BY_ADDRESS, ZENOH_ROUTER,
};
use ria_api::state::{NetworkState, PeerKind};

use self::config::{DdsConfig, Discovery, InterfaceName};
pub use self::environment::{
    FAST_DDS_SERVERS, FAST_DDS_TRANSPORTS, VARIABLES, environment, for_distro, for_network,
};
pub use self::handouts::SCRIPT;
use crate::daemon::handle::NetworkView;

/// IPv4 and UDP headers in front of a DDS message.
const HEADERS: u32 = 28;

/// Socket buffers that take a burst of a large message in small datagrams (measured: 1 MB at 10 Hz needs them).
const SOCKET_BUFFER: u32 = 4 << 20;

/// Participants per host that are looked for; also how many processes with Cyclone a host may run.
const PARTICIPANTS: usize = 32;

/// What the profiles depend on, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Overlay {
    interfaces: Vec<Interface>,
    /// The smallest of the networks.
    mtu: u32,
    /// Overlay addresses of the other members.
    peers: BTreeSet<Ipv4Addr>,
    discovery: Discovery,
    /// Interfaces beside the overlay's that are wanted, as far as they have an address.
    local: Vec<Interface>,
    /// Largest receive buffer that the system grants; unknown inside a network namespace.
    receive_buffer_max: Option<u32>,
}

/// An interface that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Interface {
    name: String,
    address: Ipv4Addr,
}

impl Overlay {
    fn of<'a>(networks: impl IntoIterator<Item = &'a NetworkView>) -> Self {
        let mut overlay = Self::default();
        for NetworkView { status, peers, .. } in networks {
            let Some(address) = status.addresses.iter().find_map(|a| ipv4(a)) else { continue };
            // A strange name would need quoting in XML.
            let Ok(name) = InterfaceName::try_from(status.interface.clone()) else { continue };
            if status.state != NetworkState::Up {
                continue;
            }
            overlay.interfaces.push(Interface { name: name.as_str().to_owned(), address });
            let mtu = if status.mtu < 576 { 1280 } else { status.mtu };
            overlay.mtu = if overlay.mtu == 0 { mtu } else { overlay.mtu.min(mtu) };
            // A phone has no ROS, and a laptop that has lists its robots itself.
            let nodes = peers.iter().filter(|(_, peer)| peer.kind != PeerKind::Static);
            overlay.peers.extend(nodes.filter_map(|(_, p)| p.addresses.iter().find_map(|a| ipv4(a))));
        }
        overlay
    }

    fn is_up(&self) -> bool {
        !self.interfaces.is_empty()
    }

    /// Largest DDS message that fits one packet: IP fragments would multiply every loss.
    fn message_size(&self) -> u32 {
        self.mtu - HEADERS
    }
}

/// An address with or without a prefix length, if it is an IPv4 one.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    text.split('/').next().unwrap_or(text).parse().ok()
}

/// Those of these interfaces that are there and have an IPv4 address now.
fn local_interfaces(names: &[InterfaceName]) -> Vec<Interface> {
    if names.is_empty() {
        return Vec::new();
    }
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let mut found = BTreeMap::new();
    for interface in addresses {
        let address = interface.address.and_then(|address| Some(address.as_sockaddr_in()?.ip()));
        // The first one is the main one.
        if let Some(address) = address {
            found.entry(interface.interface_name).or_insert(address);
        }
    }
    names
        .iter()
        .filter_map(|name| {
            let address = *found.get(name.as_str())?;
            Some(Interface { name: name.as_str().to_owned(), address })
        })
        .collect()
}

/// The files.
#[derive(Debug, Clone)]
pub struct Profiles {
    directory: PathBuf,
    config: DdsConfig,
}

impl Profiles {
    /// Of an agent with this run directory (`/run/ria`). Writes nothing yet.
    pub fn new(run_directory: &Path, config: &DdsConfig) -> Self {
        Self { directory: run_directory.join("dds"), config: config.clone() }
    }

    /// Makes the files fit the networks and tells whether any changed. Without a network that is up they let ROS work
    /// inside the machine. To be called at the start and whenever an interface or the members change; cheap when
    /// nothing did.
    pub fn update<'a>(&self, networks: impl IntoIterator<Item = &'a NetworkView>) -> io::Result<bool> {
        if !self.config.profiles {
            return Ok(false);
        }
        let networks: Vec<&NetworkView> = networks.into_iter().collect();
        let mut changed = self.write(&self.directory, &networks)?;
        let mut own = BTreeSet::new();
        // One network's profile is that of all.
        for network in networks.iter().filter(|_| networks.len() > 1) {
            changed |= self.write(&self.directory.join(&network.status.network_id), &[network])?;
            own.insert(network.status.network_id.as_str());
        }
        self.remove_others(&own)?;
        Ok(changed)
    }

    /// Removes the directories of networks that are gone.
    fn remove_others(&self, own: &BTreeSet<&str>) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() && !name.to_str().is_some_and(|name| own.contains(name)) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Makes the files of one directory fit some networks.
    fn write(&self, directory: &Path, networks: &[&NetworkView]) -> io::Result<bool> {
        let networks = networks.iter().copied();
        let overlay = Overlay {
            receive_buffer_max: receive_buffer_max(),
            discovery: self.config.discovery,
            local: local_interfaces(&self.config.local_interfaces),
            ..Overlay::of(networks.clone())
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        let mut changed = false;
        for (name, content) in [
            (FAST_DDS, fast_dds::profile(&overlay, fast_dds::Version::V2_10)),
            (FAST_DDS_BY_ADDRESS, fast_dds::profile(&overlay, fast_dds::Version::V2)),
            (FAST_DDS_3, fast_dds::profile(&overlay, fast_dds::Version::V3)),
            (CYCLONE, cyclone::profile(&overlay, cyclone::Version::V0)),
            (CYCLONE_11, cyclone::profile(&overlay, cyclone::Version::V11)),
            (ZENOH_ROUTER, zenoh::router(&overlay)),
        ] {
            changed |= write_if_changed(&directory.join(name), &content)?;
        }
        let variables = self.handed_out(directory, networks.clone());
        for (name, content) in handouts::files(&variables, &self.directory.to_string_lossy()) {
            changed |= write_if_changed(&directory.join(name), &content)?;
        }
        Ok(changed)
    }

    /// What processes are given by the files of a directory: the variables, and the ROS domain where the networks agree.
    fn handed_out<'a>(
        &self,
        directory: &Path,
        mut networks: impl Iterator<Item = &'a NetworkView> + Clone,
    ) -> BTreeMap<String, String> {
        let mut variables = self.environment();
        if let Some(id) =
            directory.strip_prefix(&self.directory).ok().and_then(Path::to_str).filter(|id| !id.is_empty())
        {
            variables = for_network(variables, id);
        }
        let domain = networks.clone().next().and_then(|network| network.status.ros_domain);
        if let Some(domain) = domain.filter(|_| networks.all(|network| network.status.ros_domain == domain)) {
            variables.insert(DOMAIN_VARIABLE.to_owned(), domain.to_string());
        }
        variables
    }

    /// The variables that name the files; none when DDS is left to the user.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let all = environment(&self.directory);
        match (&self.config.discovery_servers[..], self.config.large_data) {
            _ if !self.config.profiles => BTreeMap::new(),
            (_, true) => environment::with_large_data(all),
            ([], false) => all,
            (servers, false) => environment::with_servers(all, servers),
        }
    }
}

/// Readers see the old file or the new one, never a part; everybody may read.
fn write_if_changed(path: &Path, content: &str) -> io::Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == content.as_bytes()) {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(true)
}

fn receive_buffer_max() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use ria_api::state::{NetworkStatus, PeerStatus};
    use ria_protocol::id::NodeId;

    use super::*;

    pub(super) fn overlay(peers: u8) -> Overlay {
        Overlay {
            interfaces: vec![Interface { name: "ria0".into(), address: Ipv4Addr::new(10, 213, 0, 1) }],
            mtu: 1280,
            peers: (0..peers).map(|n| Ipv4Addr::new(10, 213, 1, n)).collect(),
            receive_buffer_max: Some(212_992),
            ..Overlay::default()
        }
    }

    pub(super) fn unicast(peers: u8) -> Overlay {
        Overlay { discovery: Discovery::Unicast, ..overlay(peers) }
    }

    fn view(interface: &str, address: &str, mtu: u32) -> NetworkView {
        let status = NetworkStatus {
            state: NetworkState::Up,
            interface: interface.into(),
            addresses: vec![address.into(), "fd00::1/64".into()],
            mtu,
            ..NetworkStatus::default()
        };
        let peer =
            PeerStatus { addresses: vec!["10.213.0.9".into(), "fd00::9".into()], ..PeerStatus::default() };
        NetworkView { status, on_demand: false, peers: vec![(NodeId::from_bytes([9; 10]), peer)] }
    }

    #[test]
    fn several_networks_make_one_overlay_of_the_smallest_mtu() {
        let overlay =
            Overlay::of([&view("ria0", "10.213.0.1/16", 1420), &view("ria1", "10.99.0.4/24", 1280)]);
        let names: Vec<_> = overlay.interfaces.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["ria0", "ria1"]);
        assert_eq!((overlay.message_size(), overlay.peers.len()), (1252, 1));
    }

    #[test]
    fn what_is_not_up_or_has_a_strange_name_is_left_out() {
        let mut off = view("ria0", "10.213.0.1/16", 1280);
        off.status.state = NetworkState::Disabled;
        let strange = view("r\"/><x>", "10.213.0.1/16", 1280);
        let addressless = view("ria0", "fd00::1/64", 1280);
        assert!(!Overlay::of([&off, &strange, &addressless]).is_up());
    }

    #[test]
    fn files_are_readable_for_all_and_untouched_when_nothing_changed() {
        let dir = tempfile::tempdir().unwrap();
        let unicast = DdsConfig { discovery: Discovery::Unicast, ..DdsConfig::default() };
        let profiles = Profiles::new(dir.path(), &unicast);
        let network = view("ria0", "10.213.0.1/16", 1280);
        assert!(profiles.update([]).unwrap());
        assert!(profiles.update([&network]).unwrap());
        let file = dir.path().join("dds").join(FAST_DDS);
        let before = std::fs::metadata(&file).unwrap();
        assert_eq!(before.mode() & 0o777, 0o644);
        assert!(!profiles.update([&network]).unwrap());
        assert_eq!(std::fs::metadata(&file).unwrap().ino(), before.ino());

        let mut grown = network.clone();
        grown.peers[0].1.addresses[0] = "10.213.0.10".into();
        assert!(profiles.update([&grown]).unwrap());
        assert!(std::fs::read_to_string(&file).unwrap().contains("10.213.0.10"));
        let names = std::fs::read_dir(dir.path().join("dds")).unwrap().count();
        assert_eq!(names, 11, "something was left behind");
    }

    #[test]
    fn by_multicast_a_new_member_changes_no_file_of_dds() {
        let dir = tempfile::tempdir().unwrap();
        let profiles = Profiles::new(dir.path(), &DdsConfig::default());
        let mut network = view("ria0", "10.213.0.1/16", 1280);
        let files = |network: &NetworkView| {
            profiles.update([network]).unwrap();
            let inode = |name: &str| std::fs::metadata(dir.path().join("dds").join(name)).unwrap().ino();
            [FAST_DDS, FAST_DDS_BY_ADDRESS, FAST_DDS_3, CYCLONE, CYCLONE_11].map(inode)
        };
        let before = files(&network);
        network.peers.push((NodeId::from_bytes([8; 10]), PeerStatus::default()));
        network.peers[0].1.addresses[0] = "10.213.0.10".into();
        assert_eq!(files(&network), before);
        network.status.mtu = 1420;
        assert_ne!(files(&network), before);
    }

    #[test]
    fn for_large_data_fast_dds_keeps_its_own_transports() {
        let config = DdsConfig { large_data: true, ..DdsConfig::default() };
        let variables = Profiles::new(Path::new("/run/ria"), &config).environment();
        assert_eq!(variables["FASTDDS_BUILTIN_TRANSPORTS"], "LARGE_DATA");
        assert!(variables.contains_key("CYCLONEDDS_URI") && variables.len() == 3);
        assert!(variables.keys().all(|name| VARIABLES.contains(&name.as_str())));
    }

    #[test]
    fn servers_are_asked_beside_the_profile() {
        let text = "discovery = 'server'\ndiscovery_servers = ['10.213.0.5', '10.213.0.6:7000']";
        let config = toml::from_str::<DdsConfig>(text).unwrap();
        let variables = Profiles::new(Path::new("/run/ria"), &config).environment();
        assert_eq!(variables["ROS_DISCOVERY_SERVER"], "10.213.0.5:11811;10.213.0.6:7000");
        assert!(variables.contains_key("FASTRTPS_DEFAULT_PROFILES_FILE"));
        let own = for_network(variables, "n5x");
        assert_eq!(own["ROS_DISCOVERY_SERVER"], "10.213.0.5:11811;10.213.0.6:7000");
        assert!(own.keys().all(|name| VARIABLES.contains(&name.as_str())));
    }

    #[test]
    fn each_of_several_networks_has_a_profile_of_its_own_beside_the_common_one() {
        let dir = tempfile::tempdir().unwrap();
        let profiles = Profiles::new(dir.path(), &DdsConfig::default());
        let named = |id: &str, interface: &str, address: &str| {
            let mut view = view(interface, address, 1280);
            view.status.network_id = id.into();
            view
        };
        let (lab, field) = (named("a", "ria0", "10.213.0.1/16"), named("b", "ria1", "10.99.0.4/24"));
        assert!(profiles.update([&lab, &field]).unwrap());
        let read = |path: &str| std::fs::read_to_string(dir.path().join("dds").join(path)).unwrap();
        let both = read(FAST_DDS);
        assert!(both.contains("ria0") && both.contains("ria1"));
        let own = read("b/fastdds.xml");
        assert!(!own.contains("ria0") && own.contains("ria1"));
        assert!(read("b/ros-jazzy.env").contains("/dds/b/fastdds.xml\n"));
        assert!(profiles.update([&lab]).unwrap());
        assert!(!dir.path().join("dds/b").exists() && !read(FAST_DDS).contains("ria1"));
    }

    #[test]
    fn the_domain_is_handed_out_where_networks_agree() {
        let dir = tempfile::tempdir().unwrap();
        let profiles = Profiles::new(dir.path(), &DdsConfig::default());
        let named = |id: &str, domain| {
            let mut view = view("ria0", "10.213.0.1/16", 1280);
            (view.status.network_id, view.status.ros_domain) = (id.into(), domain);
            view
        };
        let has_domain = |networks: &[&NetworkView]| {
            profiles.update(networks.iter().copied()).unwrap();
            std::fs::read_to_string(dir.path().join("dds/ros-jazzy.env"))
                .unwrap()
                .contains("\nROS_DOMAIN_ID=7\n")
        };
        assert!(
            has_domain(&[&named("a", Some(7))]) && has_domain(&[&named("a", Some(7)), &named("b", Some(7))])
        );
        assert!(!has_domain(&[]) && !has_domain(&[&named("a", Some(7)), &named("b", None)]));
    }

    #[test]
    fn dds_can_be_left_to_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let profiles = Profiles::new(dir.path(), &DdsConfig { profiles: false, ..DdsConfig::default() });
        assert!(!profiles.update([&view("ria0", "10.213.0.1/16", 1280)]).unwrap());
        assert!(profiles.environment().is_empty() && !dir.path().join("dds").exists());
    }

    #[test]
    fn every_file_that_a_variable_names_exists() {
        let dir = tempfile::tempdir().unwrap();
        let profiles = Profiles::new(dir.path(), &DdsConfig::default());
        profiles.update([]).unwrap();
        for distro in [None, Some("humble"), Some("jazzy"), Some("kilted"), Some("lyrical")] {
            for value in for_distro(profiles.environment(), distro).values() {
                let path = value.strip_prefix("file://").unwrap_or(value);
                assert!(Path::new(path).is_file(), "{path}");
            }
        }
    }
}
