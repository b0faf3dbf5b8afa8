//! Which files the service consists of, and how one is put in place: by a rename, so that there is always the old one or
//! the new one, and running programs keep what they have open.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use clap_complete::Shell;

use super::super::args::Cli;
use super::super::failure::{FAILED, Failure};
use super::machine::Machine;
use super::{PACKAGED, PREVIOUS, PROGRAM, can_not, own_program};

/// The unit, as it is in the package.
const UNIT: &str = include_str!("../../../packaging/systemd/ria.service");
const BUS_POLICY: &str = include_str!("../../../packaging/dbus/org.ria.Overlay1.conf");
const SYSUSERS: &str = include_str!("../../../packaging/sysusers/ria.conf");
const NETWORK_MANAGER: &str = include_str!("../../../packaging/NetworkManager/ria.conf");
pub const CONFIGURATION: &str = include_str!("../../../packaging/config/agent.toml");

pub const UNIT_FILE: &str = "/etc/systemd/system/ria.service";
pub const CONFIG_DIR: &str = "/etc/ria";

/// Something that is in its place now.
pub struct Placed {
    pub what: String,
    pub changed: bool,
}

/// All files that `ria install` makes and `ria uninstall` removes, besides the program.
pub fn all(program: &Path) -> [(&'static str, Vec<u8>); 7] {
    // Before each start, the program from before an update looks whether the new one is any good. A `+`: it has to write where
    // the agent may not.
    let guard = format!("ExecStartPre=-+{PREVIOUS} update --guard\nExecStart=");
    let unit = UNIT.replace(PACKAGED, &program.display().to_string()).replace("ExecStart=", &guard);
    [
        (UNIT_FILE, unit.into_bytes()),
        ("/etc/sysusers.d/ria.conf", SYSUSERS.into()),
        ("/etc/dbus-1/system.d/org.ria.Overlay1.conf", BUS_POLICY.into()),
        ("/etc/NetworkManager/conf.d/ria.conf", NETWORK_MANAGER.into()),
        ("/usr/local/share/bash-completion/completions/ria", completion(Shell::Bash)),
        ("/usr/local/share/zsh/site-functions/_ria", completion(Shell::Zsh)),
        ("/usr/local/share/fish/vendor_completions.d/ria.fish", completion(Shell::Fish)),
    ]
}

fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ria", &mut script);
    script
}

pub fn place_all(machine: &Machine, program: &Path, placed: &mut Vec<Placed>) -> Result<(), Failure> {
    for (name, content) in all(program) {
        placed.push(Placed {
            what: name.to_owned(),
            changed: place(&machine.at(name), &mut content.as_slice(), 0o644)?,
        });
    }
    Ok(())
}

/// The directory of the configuration, with a file that says what can be set, unless there is one.
pub fn place_configuration(machine: &Machine, group: u32, placed: &mut Vec<Placed>) -> Result<(), Failure> {
    let keys = machine.at(CONFIG_DIR).join("keys");
    let failed = |error: &io::Error| can_not("make", &keys, error);
    let is_new = !keys.exists();
    if is_new {
        fs::create_dir_all(&keys).map_err(|e| failed(&e))?;
        // The overlay node of ROS opens keys here by itself.
        chown(&keys, None, Some(group)).map_err(|e| failed(&e))?;
        fs::set_permissions(&keys, Permissions::from_mode(0o750)).map_err(|e| failed(&e))?;
    }
    placed.push(Placed { what: format!("{CONFIG_DIR}/keys"), changed: is_new });
    let file = machine.at(CONFIG_DIR).join("agent.toml");
    // It may hold a proxy's password.
    let changed = !file.exists() && place(&file, &mut CONFIGURATION.as_bytes(), 0o600)?;
    placed.push(Placed { what: format!("{CONFIG_DIR}/agent.toml"), changed });
    Ok(())
}

/// Puts this program where services find it; tells where. With a group, the program gets the right to make interfaces
/// and only that group may run it.
pub fn place_program(
    machine: &Machine,
    capability_for: Option<u32>,
    placed: &mut Vec<Placed>,
) -> Result<PathBuf, Failure> {
    let own = own_program()?;
    let target = machine.at(PROGRAM);
    let mode = if capability_for.is_some() { 0o750 } else { 0o755 };
    let mut file = File::open(&own).map_err(|error| can_not("read", &own, &error))?;
    let same_file = fs::canonicalize(&target).is_ok_and(|there| there == own);
    let changed =
        if same_file && mode_of(&target) == Some(mode) { false } else { place(&target, &mut file, mode)? };
    if let Some(group) = capability_for {
        chown(&target, Some(0), Some(group)).map_err(|error| can_not("give away", &target, &error))?;
        give_capability(&target)?;
    }
    let what = if capability_for.is_some() {
        format!("{PROGRAM} with CAP_NET_ADMIN, for the group ria only")
    } else {
        PROGRAM.to_owned()
    };
    placed.push(Placed { what, changed });
    Ok(PROGRAM.into())
}

fn give_capability(program: &Path) -> Result<(), Failure> {
    let failed = |text: String| {
        // Nobody but the group may run it, but it is not what was asked for either.
        Failure::new(FAILED, format!("can't give {} a capability: {text}", program.display()))
    };
    match Command::new("setcap").arg("cap_net_admin=ep").arg(program).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(failed("there is no setcap; install it: apt install libcap2-bin".into()))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

fn mode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.mode() & 0o7777)
}

/// Puts a file in place; `false` when it was there already, just so.
pub fn place(path: &Path, content: &mut dyn io::Read, mode: u32) -> Result<bool, Failure> {
    let failed = |error: io::Error| can_not("write", path, &error);
    let mut wanted = Vec::new();
    content.read_to_end(&mut wanted).map_err(failed)?;
    if mode_of(path) == Some(mode) && fs::read(path).is_ok_and(|there| there == wanted) {
        return Ok(false);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed)?;
    let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    temporary.write_all(&wanted).map_err(failed)?;
    fs::set_permissions(temporary.path(), Permissions::from_mode(mode)).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_placed_once_and_again_when_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert!(place(&path, &mut &b"one"[..], 0o644).unwrap());
        assert!(!place(&path, &mut &b"one"[..], 0o644).unwrap());
        assert!(place(&path, &mut &b"two"[..], 0o644).unwrap());
        assert!(place(&path, &mut &b"two"[..], 0o600).unwrap());
        assert_eq!((fs::read(&path).unwrap(), mode_of(&path)), (b"two".to_vec(), Some(0o600)));
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn the_unit_starts_the_program_that_was_installed() {
        let [(name, unit), ..] = all(Path::new(PROGRAM));
        let unit = String::from_utf8(unit).unwrap();
        assert_eq!(name, UNIT_FILE);
        assert!(
            unit.contains("\nExecStart=/usr/local/bin/ria daemon\n") && !unit.contains(PACKAGED),
            "{unit}"
        );
    }
}
