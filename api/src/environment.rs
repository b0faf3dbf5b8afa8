//! The variables by which DDS finds the agent's profiles, and which of them a ROS 2 release takes. Only the process
//! that asks knows its release, so this is done by clients: the command line and the ROS 2 node.

use std::collections::BTreeMap;

/// The agent's profile for Fast DDS: from 2.10 on it takes interfaces by name, which stays right whatever happens to
/// the address.
pub const FAST_DDS: &str = "fastdds.xml";
/// The one for older Fast DDS, as in Humble, which knows only addresses.
pub const FAST_DDS_BY_ADDRESS: &str = "fastdds-by-address.xml";
/// The one for Fast DDS 3, where some settings have other names; with a name that it does not know, a file is refused.
pub const FAST_DDS_3: &str = "fastdds-3.xml";

/// Fast DDS 2 reads the first, 3 the second, and each passes over the other's. `RMW_IMPLEMENTATION` is left to the
/// user: whichever is chosen is served.
pub const FAST_DDS_VARIABLES: [&str; 2] = ["FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"];

/// The agent's configuration for Cyclone DDS 0.9 and 0.10.
pub const CYCLONE: &str = "cyclonedds.xml";
/// The one for Cyclone DDS 11, which has settings that the older one refuses.
pub const CYCLONE_11: &str = "cyclonedds-11.xml";

/// Read by Cyclone DDS.
pub const CYCLONE_VARIABLE: &str = "CYCLONEDDS_URI";

/// The agent's configuration for the router of rmw_zenoh.
pub const ZENOH_ROUTER: &str = "zenoh-router.json5";

/// Read by that router.
pub const ZENOH_ROUTER_VARIABLE: &str = "ZENOH_ROUTER_CONFIG_URI";

/// The ROS domain of a process.
pub const DOMAIN_VARIABLE: &str = "ROS_DOMAIN_ID";

/// ROS 2 releases with a Fast DDS that knows interfaces only by address.
const OLD_FAST_DDS: [&str; 4] = ["foxy", "galactic", "humble", "iron"];

/// Releases whose Fast DDS warns of the older variable.
const NEW_FAST_DDS: [&str; 3] = ["kilted", "lyrical", "rolling"];

/// Releases with Cyclone DDS 11.
const NEW_CYCLONE: [&str; 2] = ["lyrical", "rolling"];

/// The agent's variables as a ROS 2 release (`ROS_DISTRO`) takes them.
pub fn for_distro(mut variables: BTreeMap<String, String>, distro: Option<&str>) -> BTreeMap<String, String> {
    let is_one_of = |releases: &[&str]| distro.is_some_and(|d| releases.contains(&d));
    if is_one_of(&OLD_FAST_DDS) {
        for value in variables.values_mut() {
            if let Some(directory) = value.strip_suffix(FAST_DDS) {
                *value = format!("{directory}{FAST_DDS_BY_ADDRESS}");
            }
        }
    } else if is_one_of(&NEW_FAST_DDS) {
        variables.remove(FAST_DDS_VARIABLES[0]);
    }
    if is_one_of(&NEW_CYCLONE)
        && let Some(value) = variables.get_mut(CYCLONE_VARIABLE)
        && let Some(directory) = value.strip_suffix(CYCLONE)
    {
        *value = format!("{directory}{CYCLONE_11}");
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_chooses_the_file() {
        let all: BTreeMap<String, String> = [
            (FAST_DDS_VARIABLES[0], "/run/ria/dds/fastdds.xml"),
            (FAST_DDS_VARIABLES[1], "/run/ria/dds/fastdds-3.xml"),
            (CYCLONE_VARIABLE, "file:///run/ria/dds/cyclonedds.xml"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        assert_eq!(for_distro(all.clone(), Some("jazzy")), all);
        let kilted = for_distro(all.clone(), Some("kilted"));
        assert_eq!(kilted["FASTDDS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds-3.xml");
        assert!(!kilted.contains_key("FASTRTPS_DEFAULT_PROFILES_FILE"));
        assert_eq!(kilted["CYCLONEDDS_URI"], "file:///run/ria/dds/cyclonedds.xml");
        let lyrical = for_distro(all.clone(), Some("lyrical"));
        assert_eq!(lyrical["CYCLONEDDS_URI"], "file:///run/ria/dds/cyclonedds-11.xml");
        let humble = for_distro(all, Some("humble"));
        assert_eq!(humble["FASTRTPS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds-by-address.xml");
        assert_eq!(humble["CYCLONEDDS_URI"], "file:///run/ria/dds/cyclonedds.xml");
    }
}
