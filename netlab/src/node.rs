//! One node of the lab (a host, a switch or a router): a name and its namespaces, and `ip`, `nft` and `tc` in them.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;

use crate::error::Error;
use crate::sys::{Init, Namespaces};

/// The programs netlab calls, and the Debian packages that have them.
const TOOLS: [(&str, &str); 3] = [("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")];

/// Checks once, before anything is built, that the lab can be built.
pub fn check_system() -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (tool, package) in TOOLS {
        if !std::env::split_paths(&path).any(|directory| directory.join(tool).is_file()) {
            return Err(Error::MissingTool { tool, package });
        }
    }
    Ok(())
}

/// A node and its namespaces; they end with it.
#[derive(Debug)]
pub struct Node {
    name: String,
    init: Init,
}

impl Node {
    /// Starts the namespaces, with `lo` up.
    pub fn start(lab: &str, name: &str) -> Result<Self, Error> {
        let init =
            Init::start(&format!("{lab}/{name}")).map_err(Error::io(format!("starting node '{name}'")))?;
        let node = Self { name: name.to_owned(), init };
        node.sysctl(&[
            // Another program (Docker) may have turned these on for new namespaces.
            ("net.bridge.bridge-nf-call-iptables", "0"),
            ("net.bridge.bridge-nf-call-ip6tables", "0"),
            ("net.bridge.bridge-nf-call-arptables", "0"),
            // Link-local addresses are usable at once.
            ("net.ipv6.conf.default.accept_dad", "0"),
        ])?;
        node.ip("link set lo up")?;
        Ok(node)
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id of its init, as the owner sees it.
    pub fn init(&self) -> u32 {
        self.namespaces().init()
    }

    /// Kills everything in it, without waiting.
    pub fn kill(&mut self) {
        self.init.kill();
    }

    /// Its namespaces.
    pub fn namespaces(&self) -> &Arc<Namespaces> {
        self.init.namespaces()
    }

    /// Writes sysctls of the network namespace; names that this kernel doesn't have are left out.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<(), Error> {
        self.in_net(|| {
            for (name, value) in settings {
                let path = Path::new("/proc/sys").join(name.replace('.', "/"));
                if path.exists() {
                    fs::write(path, value)?;
                }
            }
            Ok(())
        })
        .map_err(Error::io(format!("{}: sysctl", self.name)))
    }

    /// Waits until an interface passes frames; the kernel takes a moment to notice that both ends are up.
    pub fn await_up(&self, interface: &str) -> Result<(), Error> {
        let directory = format!("/proc/{}/root/sys/class/net/{interface}", self.init());
        let give_up = Instant::now() + Duration::from_secs(5);
        let reads = |file: &str, wanted: &str| {
            fs::read_to_string(format!("{directory}/{file}")).map(|text| text.trim() == wanted)
        };
        // A bridge port says 3 when it forwards; what is no bridge port has no such file.
        while !(reads("operstate", "up").unwrap_or(false) && reads("brport/state", "3").unwrap_or(true)) {
            if Instant::now() > give_up {
                let what = format!("{}: interface {interface} did not come up", self.name);
                return Err(Error::io(what)(io::ErrorKind::TimedOut.into()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The hardware address of an interface.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6], Error> {
        let path = format!("/proc/{}/root/sys/class/net/{interface}/address", self.init());
        let text = fs::read_to_string(&path).map_err(Error::io(path.clone()))?;
        let bytes: Option<Vec<u8>> =
            text.trim().split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
        let mac = bytes.and_then(|bytes| bytes.try_into().ok());
        mac.ok_or_else(|| Error::io(path)(io::ErrorKind::InvalidData.into()))
    }

    /// Runs lines of `ip` commands.
    pub fn ip(&self, lines: &str) -> Result<(), Error> {
        self.tool(&["ip", "-batch", "-"], lines)
    }

    /// Takes away the IPv6 default route of an interface, if there is one.
    pub fn forget_default6(&self, interface: &str) -> Result<(), Error> {
        self.tool(&["ip", "-6", "route", "flush", "exact", "::/0", "dev", interface], "")
    }

    /// Runs lines of `tc` commands.
    pub fn tc(&self, lines: &str) -> Result<(), Error> {
        self.tool(&["tc", "-batch", "-"], lines)
    }

    /// Loads an nftables script, all of it or nothing.
    pub fn nft(&self, script: &str) -> Result<(), Error> {
        self.tool(&["nft", "-f", "-"], script)
    }

    fn tool(&self, command: &[&str], input: &str) -> Result<(), Error> {
        let line = command.join(" ");
        let output = self.in_net(|| run_with_input(command, input)).map_err(Error::io(line.clone()))?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Tool { node: self.name.clone(), command: format!("{line} <<< {}", input.trim()), stderr })
    }

    fn in_net<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.namespaces().enter(CloneFlags::CLONE_NEWNET, work)
    }
}

fn run_with_input(command: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    child.wait_with_output()
}
