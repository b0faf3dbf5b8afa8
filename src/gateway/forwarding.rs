//! The kernel's switches: on which interfaces it takes packets that are for others. Those that Ria has switched on are noted in a
//! file, so that they are switched off again whatever happens to the agent.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::GatewayError;

fn switch(interface: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4/conf").join(interface).join("forwarding")
}

fn is_on(interface: &str) -> bool {
    std::fs::read_to_string(switch(interface)).is_ok_and(|text| text.trim() != "0")
}

/// Which of these have to be switched on by Ria, or were.
pub(super) fn needed(before: &BTreeSet<String>, interfaces: &BTreeSet<String>) -> BTreeSet<String> {
    interfaces.iter().filter(|interface| before.contains(*interface) || !is_on(interface)).cloned().collect()
}

/// Has an interface take packets for others.
pub(super) fn switch_on(interface: &str) -> Result<(), GatewayError> {
    if is_on(interface) {
        return Ok(());
    }
    let failed = |source| GatewayError::Switch { interface: interface.to_owned(), source };
    std::fs::write(switch(interface), "1").map_err(failed)
}

/// Switches off those that are not among the others any more.
pub(super) fn keep_only(before: &BTreeSet<String>, kept: &BTreeSet<String>) {
    for interface in before.difference(kept) {
        match std::fs::write(switch(interface), "0") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, interface, "forwarding stays switched on");
            }
            // An interface that is gone forwards nothing.
            Ok(()) | Err(_) => {}
        }
    }
}

/// Which interfaces are noted.
pub(super) fn read(trace: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(trace).unwrap_or_default();
    text.lines().filter(|line| is_name(line)).map(str::to_owned).collect()
}

/// Whether this can be the name of an interface, and no way out of the directory of switches.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() < 16 && text != "." && text != ".." && !text.contains(['/', ' '])
}

pub(super) fn write(trace: &Path, interfaces: &BTreeSet<String>) -> Result<(), GatewayError> {
    let text: String = interfaces.iter().map(|interface| format!("{interface}\n")).collect();
    let failed = |source| GatewayError::Trace { path: trace.to_owned(), source };
    std::fs::write(trace, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again_and_nothing_else_is_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("gateway");
        assert!(read(&trace).is_empty());
        let names: BTreeSet<String> = ["eth1".to_owned(), "br-lan.7".to_owned()].into();
        write(&trace, &names).unwrap();
        assert_eq!(read(&trace), names);
        std::fs::write(&trace, "../eth0\n..\n\neth1\na name\n").unwrap();
        assert_eq!(read(&trace), ["eth1".to_owned()].into());
    }

    #[test]
    fn what_forwards_already_is_not_ours_to_switch_off() {
        let ours: BTreeSet<String> = ["no-such-if".to_owned()].into();
        assert_eq!(needed(&ours, &ours), ours, "switched on by an earlier run");
        assert_eq!(needed(&BTreeSet::new(), &ours), ours, "it does not forward");
        assert!(needed(&ours, &BTreeSet::new()).is_empty());
    }
}
