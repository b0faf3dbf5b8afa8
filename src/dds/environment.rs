//! The variables by which DDS finds the files.

use std::collections::BTreeMap;
use std::path::Path;

use super::{CYCLONE, FAST_DDS, FAST_DDS_BY_ADDRESS};

/// Fast DDS 2 reads the first, 3 the second, and each passes over the other's. `RMW_IMPLEMENTATION` is left to the
/// user: whichever is chosen is served.
const FAST_DDS_VARIABLES: [&str; 2] = ["FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"];
const CYCLONE_VARIABLE: &str = "CYCLONEDDS_URI";

/// All variables that may be set.
pub const VARIABLES: [&str; 3] = [FAST_DDS_VARIABLES[0], FAST_DDS_VARIABLES[1], CYCLONE_VARIABLE];

/// ROS 2 releases with a Fast DDS that knows interfaces only by address.
const OLD_FAST_DDS: [&str; 4] = ["foxy", "galactic", "humble", "iron"];

/// Releases whose Fast DDS warns of the older variable.
const NEW_FAST_DDS: [&str; 3] = ["kilted", "lyrical", "rolling"];

/// The variables for files in a directory.
pub fn environment(directory: &Path) -> BTreeMap<String, String> {
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let mut variables: BTreeMap<_, _> =
        FAST_DDS_VARIABLES.iter().map(|name| ((*name).to_owned(), file(FAST_DDS))).collect();
    variables.insert(CYCLONE_VARIABLE.to_owned(), format!("file://{}", file(CYCLONE)));
    variables
}

/// The same for a ROS 2 release (`ROS_DISTRO`), which only the process that asks knows.
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
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_chooses_the_file() {
        let all = environment(Path::new("/run/ria/dds"));
        assert_eq!(all["CYCLONEDDS_URI"], "file:///run/ria/dds/cyclonedds.xml");
        assert_eq!(for_distro(all.clone(), Some("jazzy")), all);
        let kilted = for_distro(all.clone(), Some("kilted"));
        assert_eq!(kilted["FASTDDS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds.xml");
        assert!(!kilted.contains_key("FASTRTPS_DEFAULT_PROFILES_FILE"));
        let humble = for_distro(all, Some("humble"));
        assert_eq!(humble["FASTRTPS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds-by-address.xml");
        assert_eq!(humble["CYCLONEDDS_URI"], "file:///run/ria/dds/cyclonedds.xml");
        assert!(humble.keys().all(|name| VARIABLES.contains(&name.as_str())));
    }
}
