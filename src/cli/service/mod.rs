//! `ria install` and `ria uninstall`: this program as a service of the machine, where it did not come as a package.
//!
//! Own the files of the service and in which order things are done. What the service does is the unit's business; what is
//! kept of a membership, the agent's.

mod files;
mod group;
mod machine;
mod removal;

use std::path::{Path, PathBuf};

use serde_json::json;

use self::files::Placed;
pub use self::files::place;
use self::machine::Machine;
use super::Context;
use super::args::InstallArgs;
use super::failure::{FAILED, Failure, NOT_PERMITTED};
pub use removal::uninstall;

/// Where the program is put that nobody has put anywhere yet.
pub const PROGRAM: &str = "/usr/local/bin/ria";

/// Where updates are laid down, and the program from before the last one.
pub const DIRECTORY: &str = "/usr/local/lib/ria";
pub const PREVIOUS: &str = "/usr/local/lib/ria/previous";

/// Its place in the package.
const PACKAGED: &str = "/usr/bin/ria";

/// A unit in one of these came with a package.
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system/ria.service", "/lib/systemd/system/ria.service"];

/// Installs the service. Doing it again changes nothing, or what a newer program has newer.
pub fn install(context: &Context, args: &InstallArgs) -> Result<(), Failure> {
    let machine = Machine::new(args.root.as_deref());
    need_root("ria install")?;
    if PACKAGED_UNITS.iter().any(|unit| machine.at(unit).exists()) {
        return Err(Failure::new(
            FAILED,
            "Ria is here as a package, which brings the service along; to start it: systemctl enable --now ria. To \
             have this program instead, remove the package first: apt remove ria",
        ));
    }
    let mut placed = Vec::new();
    let group = group::make(&machine)?;
    placed.push(Placed { what: format!("group {}", group::NAME), changed: group.made });
    let program = files::place_program(&machine, args.file_capability.then_some(group.gid), &mut placed)?;
    files::place_all(&machine, &program, &mut placed)?;
    files::place_configuration(&machine, group.gid, &mut placed)?;
    let changed = placed.iter().any(|place| place.changed);
    let next = machine.start(changed && !args.no_start, args.no_start)?;
    tell(context, &placed, &next)
}

fn tell(context: &Context, placed: &[Placed], next: &str) -> Result<(), Failure> {
    if context.output.json {
        let of = |changed| {
            let chosen = placed.iter().filter(move |place: &&Placed| place.changed == changed);
            chosen.map(|place| place.what.as_str()).collect::<Vec<_>>()
        };
        context.output.value(&json!({ "changed": of(true), "unchanged": of(false), "next": next }))?;
        return Ok(());
    }
    let line = |place: &Placed| format!("{}  {}", if place.changed { "made " } else { "as is" }, place.what);
    context.output.lines(placed.iter().map(line))?;
    Ok(context.output.line(next)?)
}

/// Whether this machine has Ria as a package.
pub fn packaged() -> bool {
    PACKAGED_UNITS.iter().any(|unit| Path::new(unit).exists())
}

pub fn need_root(line: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(NOT_PERMITTED, format!("that needs root; run: sudo {line}")))
}

pub fn can_not(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FAILED, format!("can't {what} {}: {error}", path.display()))
}

/// This program's own file.
fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(FAILED, format!("can't find this program: {error}")))
}
