//! ROS 2 processes, found by the libraries in them, as far as the caller may look (`/proc/PID`).

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::facts::{Middleware, Process, Processes};

/// Processes beyond this many are not told one by one.
const MOST: usize = 1000;

/// All of them in this network namespace.
pub fn look() -> Processes {
    let mut found = Processes::default();
    let ticks = ticks_per_second();
    let network = fs::read_link("/proc/self/ns/net").ok();
    let sockets = udp_sockets(&fs::read_to_string("/proc/self/net/udp").unwrap_or_default());
    let Ok(entries) = fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let directory = entry.path();
        match fs::read_to_string(directory.join("maps")) {
            Ok(maps) => {
                let middleware = middleware(&maps);
                // One with a network of its own, as in a container, is that network's matter.
                let is_here = fs::read_link(directory.join("ns/net")).ok() == network;
                if middleware.is_empty() || !is_here || found.ros.len() >= MOST {
                    continue;
                }
                let process = process(pid, &directory, middleware, ticks);
                found
                    .ros
                    .extend(process.map(|process| Process { udp: bound(&directory, &sockets), ..process }));
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                found.hidden += 1;
                let line = command_line(&directory);
                if line.iter().any(|word| word == "--ros-args" || word.contains("/opt/ros/"))
                    && found.hidden_ros.len() < MOST
                {
                    found.hidden_ros.push(format!("{} ({pid})", shown(&line)));
                }
            }
            // It has ended meanwhile, or is the kernel's.
            Err(_) => {}
        }
    }
    found.ros.sort_by_key(|process| process.pid);
    found
}

fn process(pid: u32, directory: &Path, middleware: Vec<Middleware>, ticks: f64) -> Option<Process> {
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    let line = command_line(directory);
    let environment = fs::read(directory.join("environ")).ok()?;
    let ipc = fs::metadata(directory.join("ns/ipc")).map(|of| of.ino()).unwrap_or_default();
    Some(Process {
        pid,
        uid: fs::metadata(directory).ok()?.uid(),
        name: shown(&line),
        started: start_ticks(&stat)? / ticks,
        environment: variables(&environment),
        middleware,
        is_daemon: line.iter().any(|word| word.contains("ros2cli.daemon") || word.ends_with("_ros2_daemon")),
        ipc,
        udp: Vec::new(),
    })
}

/// The machine's UDP sockets, by their inodes: the second field of the table is the local address, the tenth the inode.
fn udp_sockets(table: &str) -> BTreeMap<u64, Ipv4Addr> {
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = fields.get(1)?.split(':').next()?;
        // In the order of the bytes on the wire, whatever the machine's is.
        let address = Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes());
        Some((fields.get(9)?.parse().ok()?, address))
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// Where a process's UDP sockets are bound.
fn bound(directory: &Path, sockets: &BTreeMap<u64, Ipv4Addr>) -> Vec<Ipv4Addr> {
    let Ok(descriptors) = fs::read_dir(directory.join("fd")) else { return Vec::new() };
    let links = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let address = |link: std::path::PathBuf| {
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        sockets.get(&inode).copied()
    };
    links.filter_map(address).collect()
}

/// The DDS libraries among the files that are mapped.
fn middleware(maps: &str) -> Vec<Middleware> {
    let mut found = Vec::new();
    for line in maps.lines() {
        let file = line.rsplit('/').next().unwrap_or_default();
        let of = if file.starts_with("libfastrtps") {
            Middleware::FastDds2
        } else if file.starts_with("libfastdds") {
            Middleware::FastDds3
        } else if file.starts_with("libddsc") {
            Middleware::Cyclone
        } else {
            continue;
        };
        if !found.contains(&of) {
            found.push(of);
        }
    }
    found
}

/// When a process was started, in clock ticks since the machine's start: field 22 of its `stat`, whose second may hold
/// anything between its brackets.
#[allow(clippy::cast_precision_loss, reason = "ticks of a machine's life fit")]
fn start_ticks(stat: &str) -> Option<f64> {
    let behind_name = stat.rsplit_once(')')?.1;
    let ticks: u64 = behind_name.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks as f64)
}

fn ticks_per_second() -> f64 {
    let told = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    #[allow(clippy::cast_precision_loss, reason = "it is 100")]
    told.map_or(100.0, |ticks| ticks as f64)
}

fn command_line(directory: &Path) -> Vec<String> {
    let bytes = fs::read(directory.join("cmdline")).unwrap_or_default();
    words(&bytes)
}

fn words(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn variables(bytes: &[u8]) -> BTreeMap<String, String> {
    let of = |word: String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    words(bytes).into_iter().filter_map(of).collect()
}

/// The program, or what an interpreter runs, without its directory.
fn shown(line: &[String]) -> String {
    let base = |word: &String| word.rsplit('/').next().unwrap_or_default().to_owned();
    let program = line.first().map(base).unwrap_or_default();
    let is_interpreter = program.starts_with("python") || program == "bash" || program == "sh";
    let script = line.iter().skip(1).find(|word| !word.starts_with('-')).map(base);
    match script {
        Some(script) if is_interpreter => script,
        _ => program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn libraries_tell_the_middleware() {
        let maps = "7f00-7f01 r--p 0 08:01 5 /opt/ros/jazzy/lib/libfastrtps.so.2.14.5\n\
                    7f01-7f02 r-xp 0 08:01 5 /opt/ros/jazzy/lib/libfastrtps.so.2.14.5\n\
                    7f02-7f03 r-xp 0 08:01 5 /x/libddsc-9f8b.so.11.0.1\n7f03-7f04 rw-p 0 0:0 0 [heap]\n";
        assert_eq!(middleware(maps), [Middleware::FastDds2, Middleware::Cyclone]);
        assert_eq!(middleware("a /lib/libfastdds.so.3.2\n"), [Middleware::FastDds3]);
        assert!(middleware("7f00-7f01 r--p 0 08:01 5 /lib/libc.so.6\n").is_empty());
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=30).map(|n| n.to_string()).collect();
        let stat = format!("42 (a) b (c)) {}", fields.join(" "));
        assert_eq!(start_ticks(&stat), Some(22.0));
        assert_eq!(start_ticks("42 no brackets"), None);
    }

    #[test]
    fn sockets_are_known_by_their_addresses() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     1: 0100007F:1CF2 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0\n noise\n";
        let local = u32::from_ne_bytes([127, 0, 0, 1]);
        let table = table.replace("0100007F", &format!("{local:08X}"));
        assert_eq!(udp_sockets(&table), [(4711, Ipv4Addr::LOCALHOST)].into());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let all = udp_sockets(&fs::read_to_string("/proc/self/net/udp").unwrap());
        assert!(bound(Path::new("/proc/self"), &all).contains(&Ipv4Addr::LOCALHOST));
        drop(socket);
    }

    #[test]
    fn what_an_interpreter_runs_names_it() {
        assert_eq!(shown(&line(&["/usr/bin/python3", "-u", "/opt/x/talker.py", "a"])), "talker.py");
        assert_eq!(shown(&line(&["/opt/ros/lib/rviz2/rviz2", "-d", "x"])), "rviz2");
        assert_eq!(shown(&[]), "");
    }

    #[test]
    fn environments_may_hold_anything() {
        let all = variables(b"A=1\0B=x=y\0\xff=\xfe\0noise\0\0");
        assert_eq!((all["A"].as_str(), all["B"].as_str(), all.len()), ("1", "x=y", 3));
    }
}
