//! The group whose members control the agent, in the files of this machine or of an image.

use std::fs;
use std::process::Command;

use super::super::failure::{FAILED, Failure};
use super::machine::Machine;

pub const NAME: &str = "ria";

/// The group that is there now.
pub struct Group {
    pub gid: u32,
    pub made: bool,
}

/// Makes the group unless it is there.
pub fn make(machine: &Machine) -> Result<Group, Failure> {
    if let Some(gid) = find(machine) {
        return Ok(Group { gid, made: false });
    }
    change(machine, "groupadd", &["--system"])?;
    let gid = find(machine).ok_or_else(|| Failure::new(FAILED, "the group ria was made and is not there"))?;
    Ok(Group { gid, made: true })
}

/// Removes the group; `false` when there is none.
pub fn remove(machine: &Machine) -> Result<bool, Failure> {
    if find(machine).is_none() {
        return Ok(false);
    }
    change(machine, "groupdel", &[])?;
    Ok(true)
}

fn find(machine: &Machine) -> Option<u32> {
    fs::read_to_string(machine.at("/etc/group")).ok()?.lines().find_map(gid)
}

/// From a line of group(5), when it is this group's.
fn gid(line: &str) -> Option<u32> {
    let mut fields = line.split(':');
    (fields.next()? == NAME).then(|| fields.nth(1)?.parse().ok()).flatten()
}

fn change(machine: &Machine, program: &str, options: &[&str]) -> Result<(), Failure> {
    let failed = |text: &str| Failure::new(FAILED, format!("{program} {NAME} failed: {text}"));
    let mut command = Command::new(program);
    if let Some(root) = machine.image() {
        command.arg("--prefix").arg(root);
    }
    match command.args(options).arg(NAME).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(failed(String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(failed(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_group_is_told_from_others() {
        assert_eq!(gid("ria:x:987:anna,ben"), Some(987));
        assert_eq!(gid("ria:!:5:"), Some(5));
        for other in ["riad:x:1:", "x:ria:1:", "ria", "ria:x", "ria:x:many:", ""] {
            assert_eq!(gid(other), None, "{other}");
        }
    }
}
