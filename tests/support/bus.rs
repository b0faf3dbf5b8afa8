//! A system bus for a host of the lab.

use std::fs;
use std::io::Write;
use std::path::Path;

use netlab::{Host, Process};

use super::eventually;

pub const SOCKET: &str = "/run/dbus/system_bus_socket";

/// A robot's system bus: Debian's `dbus-daemon` with Debian's configuration, and the policy file that Ria installs.
pub struct Bus {
    pub host: Host,
    daemon: Option<Process>,
}

impl Bus {
    /// Installs what a package would, and makes the users. Nothing runs yet.
    pub fn install(host: Host) -> Self {
        let policies = host.path("/etc/dbus-1/system.d");
        fs::create_dir_all(&policies).unwrap();
        let policy = include_str!("../../packaging/dbus/org.ria.Overlay1.conf");
        fs::write(policies.join("org.ria.Overlay1.conf"), policy).unwrap();
        let add = |file: &str, lines: &str| {
            let mut file = fs::OpenOptions::new().append(true).open(host.path(file)).unwrap();
            file.write_all(lines.as_bytes()).unwrap();
        };
        add("/etc/passwd", "anna:x:1234:1234::/:/bin/sh\nbert:x:1235:1235::/:/bin/sh\n");
        add("/etc/group", "anna:x:1234:\nbert:x:1235:\nria:x:987:bert\n");
        Self { host, daemon: None }
    }

    pub fn start(&mut self) {
        let socket = self.host.path(SOCKET);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        // One that was killed leaves it.
        let _ = fs::remove_file(socket);
        let line = ["dbus-daemon", "--system", "--nofork", "--nopidfile", "--nosyslog"];
        self.daemon = Some(self.host.spawn(&line, Path::new("/dev/null")).unwrap());
    }

    /// Waits until somebody has this name.
    pub fn wait_for(&self, name: &str) {
        eventually(&format!("{name} is on the bus"), || {
            let to = [
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus",
                "NameHasOwner",
                "s",
                name,
            ];
            let asked = self.host.output(&[&["busctl", "--system", "call"], &to[..]].concat()).unwrap();
            asked.stdout.starts_with(b"b true")
        });
    }

    pub fn kill(&mut self) {
        self.daemon.take().unwrap().kill().unwrap();
    }
}
