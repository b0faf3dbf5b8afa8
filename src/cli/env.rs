//! `ria env`: the environment for ROS 2 processes. On any failure nothing is written to stdout, so that
//! `eval "$(ria env)"` in a shell's start-up file does no harm.

use std::collections::BTreeMap;
use std::path::Path;

use ria_api::environment::{CYCLONE_VARIABLE, DOMAIN_VARIABLE};

use super::Context;
use super::args::{EnvArgs, EnvFormat};
use super::failure::{FAILED, Failure};
use super::output::remark;
use crate::dds;

/// What to do about one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    Set(String),
    /// It names a file of ours that is not in use any more.
    Unset,
    /// The user has set it to something else, which is respected.
    Keep,
}

pub async fn run(context: &Context, args: &EnvArgs) -> Result<(), Failure> {
    let networks = context.networks(&args.network).await?;
    // Each gives the profile of all networks together; one that was named has one for itself.
    let Some(network) = networks.first() else { return Ok(()) };
    let mut variables = network.proxy.environment().await?;
    let several = context.agent().await?.proxy().status().await?.networks.len() > 1;
    if several && args.network.network.is_some() {
        variables = dds::for_network(variables, &network.summary.id);
    }
    for other in networks.iter().skip(1) {
        let theirs = other.proxy.environment().await?.get(DOMAIN_VARIABLE).cloned();
        if variables.get(DOMAIN_VARIABLE) != theirs.as_ref() {
            variables.remove(DOMAIN_VARIABLE);
            remark(format_args!(
                "the networks have different ROS domains, so {DOMAIN_VARIABLE} is not set; name one (ria env --network NAME)"
            ));
            break;
        }
    }
    let distro = std::env::var("ROS_DISTRO").ok();
    let wanted = dds::for_distro(variables, distro.as_deref());
    let changes = plan(&wanted, |name| std::env::var(name).ok());
    for (name, _) in changes.iter().filter(|(_, change)| **change == Change::Keep) {
        let matter = match wanted.get(name) {
            Some(domain) if name == DOMAIN_VARIABLE => {
                format!("this network gave this machine domain {domain}")
            }
            _ => "ROS 2 may not find its peers unless that file is made for the overlay".to_owned(),
        };
        remark(format_args!("{name} is already set and is left alone; {matter} (unset {name} to use Ria's)"));
    }
    let format = if context.output.json { EnvFormat::Json } else { args.format };
    match format {
        EnvFormat::Sh => context.output.lines(changes.iter().filter_map(shell_line))?,
        EnvFormat::File => {
            context.output.lines(set(&changes).map(|(name, value)| format!("{name}={value}")))?
        }
        EnvFormat::Hook => context.output.line(hook(&wanted)?)?,
        EnvFormat::Json => context.output.value(&set(&changes).collect::<BTreeMap<_, _>>())?,
    }
    Ok(())
}

/// What a shell's start-up file needs: the agent keeps the script up to date, and where there is none nothing happens.
fn hook(wanted: &BTreeMap<String, String>) -> Result<String, Failure> {
    let file = wanted.get(CYCLONE_VARIABLE).and_then(|value| value.strip_prefix("file://"));
    let directory = file.and_then(|file| Path::new(file).parent()).ok_or_else(|| {
        Failure::new(
            FAILED,
            "DDS is left to you ([dds] profiles = false in agent.toml), so there is nothing to hook in",
        )
    })?;
    let script = directory.join(dds::SCRIPT).to_string_lossy().replace('\'', r"'\''");
    Ok(format!("[ -r '{script}' ] && . '{script}'  # DDS settings of the Ria overlay for ROS 2"))
}

fn plan(
    wanted: &BTreeMap<String, String>,
    current: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, Change> {
    let names = wanted.keys().map(String::as_str).chain(dds::VARIABLES);
    let change = |name: &str| {
        let ours = |old: &str| is_ours(old, wanted.values());
        let old = current(name).filter(|old| !old.is_empty());
        Some(match (wanted.get(name), old) {
            (Some(_), Some(old)) if !ours(&old) => Change::Keep,
            (Some(value), _) => Change::Set(value.clone()),
            (None, Some(old)) if ours(&old) => Change::Unset,
            (None, _) => return None,
        })
    };
    names.filter_map(|name| Some((name.to_owned(), change(name)?))).collect()
}

/// Whether a value is one of those now given, or names a file in the agent's directory, which is that of theirs.
fn is_ours<'a>(old: &str, values: impl Iterator<Item = &'a String>) -> bool {
    let file = |value: &str| {
        let path = Path::new(value.strip_prefix("file://").unwrap_or(value));
        path.parent().filter(|_| path.is_absolute()).map(Path::to_owned)
    };
    let directory = file(old);
    let is_given = |value: &String| value == old || (directory.is_some() && file(value) == directory);
    directory.as_deref() == Some(Path::new("/run/ria/dds")) || values.into_iter().any(is_given)
}

fn set(changes: &BTreeMap<String, Change>) -> impl Iterator<Item = (&String, &String)> {
    changes.iter().filter_map(|(name, change)| match change {
        Change::Set(value) => Some((name, value)),
        Change::Unset | Change::Keep => None,
    })
}

fn shell_line((name, change): (&String, &Change)) -> Option<String> {
    match change {
        Change::Set(value) => Some(format!("export {name}='{}'", value.replace('\'', r"'\''"))),
        Change::Unset => Some(format!("unset {name}")),
        Change::Keep => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(directory: &str) -> BTreeMap<String, String> {
        dds::environment(Path::new(directory))
    }

    #[test]
    fn own_values_are_renewed_and_the_users_kept() {
        let changes = plan(&wanted("/tmp/r/dds"), |name| match name {
            "CYCLONEDDS_URI" => Some("<CycloneDDS/>".into()),
            "FASTDDS_DEFAULT_PROFILES_FILE" => Some("/run/ria/dds/old.xml".into()),
            "FASTRTPS_DEFAULT_PROFILES_FILE" => Some(String::new()),
            _ => None,
        });
        assert_eq!(changes["CYCLONEDDS_URI"], Change::Keep);
        assert_eq!(changes["FASTDDS_DEFAULT_PROFILES_FILE"], Change::Set("/tmp/r/dds/fastdds-3.xml".into()));
        assert_eq!(set(&changes).count(), 3);
    }

    #[test]
    fn a_value_that_is_no_file_is_only_ours_when_it_is_the_same() {
        let mut wanted = wanted("/run/ria/dds");
        wanted.insert("FASTDDS_BUILTIN_TRANSPORTS".into(), "LARGE_DATA".into());
        let change = |value: &str| {
            let changes =
                plan(&wanted, |name| (name == "FASTDDS_BUILTIN_TRANSPORTS").then(|| value.to_owned()));
            changes["FASTDDS_BUILTIN_TRANSPORTS"].clone()
        };
        assert_eq!(change("UDPv4"), Change::Keep);
        assert_eq!(change("LARGE_DATA"), Change::Set("LARGE_DATA".into()));
    }

    #[test]
    fn a_domain_of_the_users_own_is_respected() {
        let mut wanted = wanted("/run/ria/dds");
        wanted.insert(DOMAIN_VARIABLE.into(), "7".into());
        let change = |value: &str| {
            let changes = plan(&wanted, |name| (name == DOMAIN_VARIABLE).then(|| value.to_owned()));
            changes[DOMAIN_VARIABLE].clone()
        };
        assert_eq!(
            (change("5"), change("7"), change("")),
            (Change::Keep, Change::Set("7".into()), Change::Set("7".into()))
        );
    }

    #[test]
    fn what_the_agent_no_longer_gives_is_unset_if_it_was_its_own() {
        let none = BTreeMap::new();
        let stale = plan(&none, |name| {
            (name == "CYCLONEDDS_URI").then(|| "file:///run/ria/dds/cyclonedds.xml".into())
        });
        assert_eq!(stale.into_iter().collect::<Vec<_>>(), [("CYCLONEDDS_URI".to_owned(), Change::Unset)]);
        assert!(plan(&none, |_| Some("/home/me/mine.xml".into())).is_empty());
    }

    #[test]
    fn the_hook_names_the_script() {
        let line = hook(&wanted("/run/ria/dds")).unwrap();
        assert!(line.starts_with("[ -r '/run/ria/dds/ros.sh' ] && . '/run/ria/dds/ros.sh'"), "{line}");
        assert_eq!(hook(&BTreeMap::new()).unwrap_err().code(), FAILED);
    }

    #[test]
    fn any_directory_survives_eval() {
        let directory = "/tmp/it's $HOME `x`/dds";
        let script: String =
            plan(&wanted(directory), |_| None).iter().filter_map(shell_line).map(|l| l + "\n").collect();
        let script = script + "printf %s \"$CYCLONEDDS_URI\"";
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("file://{directory}/cyclonedds.xml"));
    }
}
