//! The file tree of a host: what it shares with the machine and what is its own.
//!
//! Own: `/dev/shm`, `/run` (empty tmpfs), `/proc`, `/sys` (its own processes and interfaces), `/etc` and `/var/lib` (the machine's, with the
//! host's changes in memory above them), boot id, and the directories of `HostSpec::private`. Everything else, `/tmp`
//! and home directories among them, is the machine's.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use crate::error::Error;
use crate::node::Node;

/// Directories that a host sees with changes of its own.
const LAYERED: [&str; 2] = ["/etc", "/var/lib"];

/// Gives the node a file tree and a host name of its own.
pub fn furnish(node: &Node, private: &[PathBuf]) -> Result<(), Error> {
    let inside = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    let enter = |work: &(dyn Fn() -> io::Result<()> + Sync)| node.namespaces().enter(inside, work);
    let name = node.name();
    enter(&|| mount_tree(name)).map_err(Error::io(format!("mounting the file tree of host '{name}'")))?;
    for path in private {
        enter(&|| mount_private(path)).map_err(|source| Error::Private { path: path.clone(), source })?;
    }
    Ok(())
}

fn mount_tree(name: &str) -> io::Result<()> {
    tmpfs(Path::new("/dev/shm"), 0o1777)?;
    tmpfs(Path::new("/run"), 0o755)?;
    fs::create_dir("/run/lock")?;

    // The layers stay reachable for the overlays after their own mount point is gone.
    let layers = Path::new("/mnt");
    tmpfs(layers, 0o700)?;
    for (number, directory) in LAYERED.iter().enumerate() {
        overlay(Path::new(directory), &layers.join(number.to_string()))?;
    }
    own_boot_id(&layers.join("boot_id"))?;
    umount2(layers, MntFlags::MNT_DETACH)?;

    for directory in ["/etc/ria", "/var/lib/ria"] {
        fs::create_dir_all(directory)?;
    }
    nix::unistd::sethostname(name)?;
    fs::write("/etc/hostname", format!("{name}\n"))?;
    let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost\n");
    fs::write("/etc/hosts", hosts)?;
    fs::write("/etc/machine-id", random_uuid()?.replace('-', "") + "\n")
}

fn mount_private(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    tmpfs(path, mode & 0o7777)
}

fn tmpfs(path: &Path, mode: u32) -> io::Result<()> {
    let options = format!("mode={mode:o}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))?)
}

fn overlay(directory: &Path, layer: &Path) -> io::Result<()> {
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    fs::set_permissions(&upper, fs::metadata(directory)?.permissions())?;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", directory.display(), upper.display(), work.display());
    Ok(mount(Some("overlay"), directory, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?)
}

/// Programs tell a reboot, and one machine from another, by this file.
fn own_boot_id(file: &Path) -> io::Result<()> {
    fs::write(file, random_uuid()? + "\n")?;
    let target = "/proc/sys/kernel/random/boot_id";
    Ok(mount(Some(file), target, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?)
}

fn random_uuid() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}
