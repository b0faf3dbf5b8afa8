//! ROS 2 processes, found by the libraries in them, as far as the caller may look (`/proc/PID`).

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
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
                found.ros.extend(process(pid, &directory, middleware, ticks));
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
    })
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
