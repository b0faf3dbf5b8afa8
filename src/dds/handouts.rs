//! The variables as files, for those who can't run `ria env`: a script for shells and containers, and lists for systemd
//! and Docker, one per release of ROS 2.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::environment::{VARIABLES, for_distro};

/// The script: `. /run/ria/dds/ros.sh`.
pub const SCRIPT: &str = "ros.sh";

/// Releases that differ in what they are given; others are like the first.
const RELEASES: [(&str, &str); 4] = [
    ("jazzy", "*"),
    ("humble", "foxy | galactic | humble | iron"),
    ("kilted", "kilted"),
    ("lyrical", "lyrical | rolling"),
];

/// Each file with its content. `directory` is where the profiles are.
pub fn files(variables: &BTreeMap<String, String>, directory: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = RELEASES
        .iter()
        .map(|(release, _)| {
            (format!("ros-{release}.env"), list(&for_distro(variables.clone(), Some(release))))
        })
        .collect();
    files.push((SCRIPT.to_owned(), script(variables, directory)));
    files
}

fn list(variables: &BTreeMap<String, String>) -> String {
    let mut text = "# Written by the Ria agent; changes are overwritten.\n".to_owned();
    text.extend(variables.iter().map(|(name, value)| format!("{name}={value}\n")));
    text
}

/// Sets what is not set, and what is Ria's own; what the user has set stays.
fn script(variables: &BTreeMap<String, String>, directory: &str) -> String {
    let directory = quoted(directory);
    let mut text = format!(
        r#"# Written by the Ria agent; changes are overwritten. To be read by a shell, before ROS 2 is started:
#   [ -r FILE ] && . FILE
# What you have set yourself stays as it is.
_ria_is_ours() {{
    eval "_ria_old=\${{$1-}}"
    case $_ria_old in
    {directory}/* | 'file://'{directory}/*) return 0 ;;
    esac
    return 1
}}
_ria_set() {{
    if _ria_is_ours "$1" || [ -z "$_ria_old" ]; then export "$1=$2"; fi
}}
_ria_unset() {{
    if _ria_is_ours "$1"; then unset "$1"; fi
}}
case ${{ROS_DISTRO-}} in
"#
    );
    // The pattern that takes all comes last.
    for (release, pattern) in RELEASES.iter().rev() {
        let _ = writeln!(text, "{pattern})");
        let given = for_distro(variables.clone(), Some(release));
        for name in VARIABLES {
            let _ = match given.get(name) {
                Some(value) => writeln!(text, "    _ria_set {name} {}", quoted(value)),
                None => writeln!(text, "    _ria_unset {name}"),
            };
        }
        text.push_str("    ;;\n");
    }
    text + "esac\nunset -f _ria_is_ours _ria_set _ria_unset\nunset _ria_old\n"
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::super::environment::environment;
    use super::*;

    /// What a shell has after it has read the script twice, beginning with some variables.
    fn sourced(directory: &str, set: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut variables = environment(Path::new(directory));
        variables.insert("ROS_DOMAIN_ID".into(), "7".into());
        let text = script(&variables, directory);
        let mut shell = Command::new("sh");
        shell.args(["-euc", "eval \"$1\"; eval \"$1\"; env", "sh", &text]).env_clear();
        let output = shell.envs(set.iter().copied()).env("PATH", "/usr/bin:/bin").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let output = String::from_utf8(output.stdout).unwrap();
        let of = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        output.lines().filter_map(of).collect()
    }

    #[test]
    fn a_shell_gets_what_its_release_takes() {
        let plain = sourced("/run/ria/dds", &[]);
        assert_eq!(plain["FASTRTPS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds.xml");
        assert_eq!(plain["ROS_DOMAIN_ID"], "7");
        let humble = sourced("/run/ria/dds", &[("ROS_DISTRO", "humble")]);
        assert_eq!(humble["FASTRTPS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds-by-address.xml");
        let lyrical = sourced("/run/ria/dds", &[("ROS_DISTRO", "lyrical")]);
        assert_eq!(lyrical["CYCLONEDDS_URI"], "file:///run/ria/dds/cyclonedds-11.xml");
        assert!(!lyrical.contains_key("FASTRTPS_DEFAULT_PROFILES_FILE"));
        assert!(plain.keys().all(|name| !name.starts_with("_ria")), "{plain:?}");
    }

    #[test]
    fn what_the_user_has_set_stays_and_old_values_of_ours_go() {
        let set = [
            ("CYCLONEDDS_URI", "<CycloneDDS/>"),
            ("ROS_DOMAIN_ID", "5"),
            ("FASTRTPS_DEFAULT_PROFILES_FILE", "/run/ria/dds/old.xml"),
            ("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4"),
        ];
        let got = sourced("/run/ria/dds", &set);
        assert_eq!((got["CYCLONEDDS_URI"].as_str(), got["ROS_DOMAIN_ID"].as_str()), ("<CycloneDDS/>", "5"));
        assert_eq!(got["FASTRTPS_DEFAULT_PROFILES_FILE"], "/run/ria/dds/fastdds.xml");
        assert_eq!(got["FASTDDS_BUILTIN_TRANSPORTS"], "UDPv4");
        let kilted =
            [("ROS_DISTRO", "kilted"), ("FASTRTPS_DEFAULT_PROFILES_FILE", "/run/ria/dds/fastdds.xml")];
        assert!(!sourced("/run/ria/dds", &kilted).contains_key("FASTRTPS_DEFAULT_PROFILES_FILE"));
    }

    #[test]
    fn any_directory_survives() {
        let directory = "/tmp/it's $HOME `x`*/dds";
        let got = sourced(directory, &[]);
        assert_eq!(got["CYCLONEDDS_URI"], format!("file://{directory}/cyclonedds.xml"));
    }

    #[test]
    fn lists_have_a_line_for_each_variable() {
        let files = files(&environment(Path::new("/run/ria/dds")), "/run/ria/dds");
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ros-jazzy.env", "ros-humble.env", "ros-kilted.env", "ros-lyrical.env", "ros.sh"]);
        let jazzy = &files[0].1;
        assert!(jazzy.contains("\nFASTRTPS_DEFAULT_PROFILES_FILE=/run/ria/dds/fastdds.xml\n"), "{jazzy}");
        assert_eq!(jazzy.lines().filter(|line| line.contains('=')).count(), 4);
    }
}
