//! `--fix`: kernel settings that are safe to raise. What they were is kept in the file that keeps them raised.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::super::failure::{FAILED, Failure, NOT_PERMITTED};
use super::host::{SETTINGS, Setting, number};

/// Read at each start of the machine; to undo, write the old values back and remove it.
const FILE: &str = "/etc/sysctl.d/60-ria.conf";

/// Raises what is too low, now and for later starts. Tells what was changed.
pub fn apply() -> Result<Vec<String>, Failure> {
    let now: Vec<(Setting, u64)> =
        SETTINGS.iter().filter_map(|setting| Some((*setting, number(&setting.path())?))).collect();
    let wrong: Vec<_> = now.into_iter().filter(|(setting, value)| !setting.suffices(*value)).collect();
    if wrong.is_empty() {
        return Ok(Vec::new());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(
            NOT_PERMITTED,
            "changing kernel settings needs root; run: sudo ria doctor --fix",
        ));
    }
    let old = fs::read_to_string(FILE).unwrap_or_default();
    keep(&file_text(&old, &wrong))?;
    let mut changed = Vec::with_capacity(wrong.len());
    for (setting, before) in wrong {
        match fs::write(setting.path(), setting.wanted.to_string()) {
            Ok(()) => changed.push(format!("{} from {before} to {} ({FILE})", setting.name, setting.wanted)),
            // A container's, say. It is in the file for who may.
            Err(error) => {
                return Err(Failure::new(
                    FAILED,
                    format!(
                        "can't set {}: {error}; run it on the machine itself, outside containers",
                        setting.name
                    ),
                ));
            }
        }
    }
    Ok(changed)
}

/// Sets the file by a rename, so that a power cut leaves the old one or the new one.
fn keep(text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::new(FAILED, format!("can't write {FILE}: {error}"));
    let directory = Path::new(FILE).parent().unwrap_or(Path::new("/"));
    match fs::create_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let temporary = format!("{FILE}.new");
    fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, FILE)).map_err(failed)
}

/// The file, with the values from before the first change; later runs don't take their own values for those.
fn file_text(old: &str, wrong: &[(Setting, u64)]) -> String {
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    for line in old.lines() {
        let (into, line) = match line.strip_prefix("# before: ") {
            Some(line) => (&mut before, line),
            None if line.starts_with('#') => continue,
            None => (&mut wanted, line),
        };
        if let Some((name, value)) = line.split_once('=') {
            into.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    for (setting, value) in wrong {
        before.entry(setting.name.to_owned()).or_insert_with(|| value.to_string());
        wanted.insert(setting.name.to_owned(), setting.wanted.to_string());
    }
    let mut text = "# Written by `ria doctor --fix`: room for large ROS 2 messages. To undo, set the values of before and\n\
                    # remove this file.\n"
        .to_owned();
    text.extend(before.iter().map(|(name, value)| format!("# before: {name} = {value}\n")));
    text.extend(wanted.iter().map(|(name, value)| format!("{name} = {value}\n")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_values_are_kept_through_several_runs() {
        let [receive, send, ..] = SETTINGS;
        let first = file_text("", &[(receive, 212_992)]);
        assert!(first.contains("# before: net.core.rmem_max = 212992\n"), "{first}");
        assert!(first.contains("\nnet.core.rmem_max = 4194304\n"), "{first}");
        // Somebody lowered it meanwhile; what counts is what it was before Ria.
        let second = file_text(&first, &[(receive, 1), (send, 2)]);
        assert!(second.contains("# before: net.core.rmem_max = 212992\n"), "{second}");
        assert!(
            second.contains("# before: net.core.wmem_max = 2\n")
                && second.contains("\nnet.core.wmem_max = 4194304\n")
        );
        assert_eq!(second.matches("Written by").count(), 1);
    }
}
