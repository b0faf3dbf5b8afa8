//! The variables by which DDS finds the files.

use std::collections::BTreeMap;
use std::path::Path;

pub use ria_api::environment::for_distro;
use ria_api::environment::{
    CYCLONE, CYCLONE_VARIABLE, DOMAIN_VARIABLE, FAST_DDS, FAST_DDS_3, FAST_DDS_VARIABLES, ZENOH_ROUTER,
    ZENOH_ROUTER_VARIABLE,
};

use super::config::DiscoveryServer;

/// All variables that may be set.
pub const VARIABLES: [&str; 7] = [
    FAST_DDS_VARIABLES[0],
    FAST_DDS_VARIABLES[1],
    CYCLONE_VARIABLE,
    FAST_DDS_TRANSPORTS,
    FAST_DDS_SERVERS,
    ZENOH_ROUTER_VARIABLE,
    DOMAIN_VARIABLE,
];

/// Chooses a set of transports of Fast DDS 2.13 and later; a profile with transports of its own would win over it.
pub const FAST_DDS_TRANSPORTS: &str = "FASTDDS_BUILTIN_TRANSPORTS";

/// The discovery servers that Fast DDS asks.
pub const FAST_DDS_SERVERS: &str = "ROS_DISCOVERY_SERVER";

/// The variables for files in a directory.
pub fn environment(directory: &Path) -> BTreeMap<String, String> {
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let fast_dds = FAST_DDS_VARIABLES.into_iter().zip([FAST_DDS, FAST_DDS_3]);
    let mut variables: BTreeMap<_, _> = fast_dds.map(|(name, of)| (name.to_owned(), file(of))).collect();
    variables.insert(CYCLONE_VARIABLE.to_owned(), format!("file://{}", file(CYCLONE)));
    variables.insert(ZENOH_ROUTER_VARIABLE.to_owned(), file(ZENOH_ROUTER));
    variables
}

/// The same with Fast DDS's own transports for large messages: TCP for data, UDP multicast for discovery.
pub(super) fn with_large_data(mut variables: BTreeMap<String, String>) -> BTreeMap<String, String> {
    variables.retain(|name, _| !FAST_DDS_VARIABLES.contains(&name.as_str()));
    variables.insert(FAST_DDS_TRANSPORTS.to_owned(), "LARGE_DATA".to_owned());
    variables
}

/// The same with the servers that Fast DDS asks. The profile stays in force for all else.
pub(super) fn with_servers(
    mut variables: BTreeMap<String, String>,
    servers: &[DiscoveryServer],
) -> BTreeMap<String, String> {
    // Their order numbers them, so it is the same on all machines.
    let list: Vec<String> = servers.iter().map(ToString::to_string).collect();
    variables.insert(FAST_DDS_SERVERS.to_owned(), list.join(";"));
    variables
}

/// The same for one network of several: its files are in a directory of its own.
pub fn for_network(mut variables: BTreeMap<String, String>, id: &str) -> BTreeMap<String, String> {
    for value in variables.values_mut() {
        if let Some((directory, file)) = value.rsplit_once('/') {
            *value = format!("{directory}/{id}/{file}");
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_several_has_files_of_its_own() {
        let own = for_network(environment(Path::new("/run/ria/dds")), "n5x");
        assert_eq!(own["CYCLONEDDS_URI"], "file:///run/ria/dds/n5x/cyclonedds.xml");
        let humble = for_distro(own, Some("humble"));
        assert_eq!(humble["FASTRTPS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/n5x/fastdds-by-address.xml");
    }

    #[test]
    fn every_variable_names_a_file_in_the_directory() {
        let all = environment(Path::new("/run/ria/dds"));
        assert_eq!(all["CYCLONEDDS_URI"], "file:///run/ria/dds/cyclonedds.xml");
        assert_eq!(all["FASTRTPS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds.xml");
        assert_eq!(all["FASTDDS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds-3.xml");
        assert!(all.keys().all(|name| VARIABLES.contains(&name.as_str())) && all.len() == 4);
    }
}
