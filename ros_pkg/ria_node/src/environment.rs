//! The variables by which DDS finds the overlay's profiles, for this process itself: read once when a context is made,
//! so a context made without them does not reach other hosts.

use std::collections::BTreeMap;
use std::path::Path;

use ria_api::environment::for_distro;

/// Variables, by name.
pub type Variables = BTreeMap<String, String>;

/// What of the agent's variables is not in force, in a ROS 2 release. Values that a user chose are left alone; those
/// that name another file of the agent's are not.
pub fn missing(
    wanted: &Variables,
    distro: Option<&str>,
    current: impl Fn(&str) -> Option<String>,
) -> Variables {
    for_distro(wanted.clone(), distro)
        .into_iter()
        .filter(|(name, value)| match current(name).filter(|old| !old.is_empty()) {
            None => true,
            Some(old) => old != *value && directory(&old).is_some() && directory(&old) == directory(value),
        })
        .collect()
}

/// Of a value that names a file; others have none.
fn directory(value: &str) -> Option<&Path> {
    Path::new(value).parent().filter(|directory| !directory.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use ria_api::environment::FAST_DDS_VARIABLES;

    use super::*;

    fn wanted() -> Variables {
        [
            ("FASTDDS_DEFAULT_PROFILES_FILE", "/run/ria/dds/fastdds.xml"),
            ("CYCLONEDDS_URI", "file:///run/ria/dds/c.xml"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn what_is_set_already_is_not_missing() {
        assert_eq!(missing(&wanted(), Some("jazzy"), |_| None), wanted());
        assert!(missing(&wanted(), Some("jazzy"), |name| wanted().get(name).cloned()).is_empty());
    }

    #[test]
    fn a_profile_of_the_user_stays_and_an_old_one_of_the_agent_goes() {
        let missing = missing(&wanted(), None, |name| {
            Some(
                if name == "CYCLONEDDS_URI" { "file:///home/me/mine.xml" } else { "/run/ria/dds/old.xml" }
                    .into(),
            )
        });
        assert_eq!(missing.keys().collect::<Vec<_>>(), ["FASTDDS_DEFAULT_PROFILES_FILE"]);
    }

    #[test]
    fn a_domain_that_the_user_chose_stays() {
        let domain: Variables = [("ROS_DOMAIN_ID".to_owned(), "7".to_owned())].into();
        assert!(missing(&domain, None, |_| Some("5".into())).is_empty());
        assert_eq!(missing(&domain, None, |_| None), domain);
    }

    #[test]
    fn a_new_release_is_spared_the_variable_that_it_warns_of() {
        let older = [(FAST_DDS_VARIABLES[0].to_owned(), "/run/ria/dds/fastdds.xml".to_owned())].into();
        assert_eq!(missing(&older, Some("jazzy"), |_| None), older);
        assert!(missing(&older, Some("lyrical"), |_| None).is_empty());
    }

    #[test]
    fn an_old_release_gets_the_profile_by_address() {
        let missing = missing(&wanted(), Some("humble"), |_| None);
        assert_eq!(missing["FASTDDS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds-by-address.xml");
        assert_eq!(missing["CYCLONEDDS_URI"], "file:///run/ria/dds/c.xml");
    }
}
