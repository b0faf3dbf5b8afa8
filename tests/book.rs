//! The manual: every page is found, every link leads somewhere, and the commands of the first five minutes do what is
//! said, typed as they stand there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use netlab::{HostSpec, Lab, Nat, NetworkSpec, RouterSpec};
use support::{COORDINATOR, Team, program};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// All pages, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let directories = [docs(), docs().join("decisions")];
    let entries =
        directories.iter().flat_map(|directory| fs::read_dir(directory).unwrap()).map(|e| e.unwrap().path());
    let pages = entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Targets of the links in a text, outside code.
fn links(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if !is_code {
            found.extend(line.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
        }
    }
    found
}

/// What a heading is called in links.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_page_is_found_and_no_link_leads_nowhere() {
    let summary = fs::read_to_string(docs().join("SUMMARY.md")).unwrap();
    let listed = links(&summary);
    let pages = pages();
    for (path, text) in pages.clone() {
        let name = path.strip_prefix(docs()).unwrap().to_str().unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let is_linked = || pages.iter().any(|(other, text)| *other != path && links(text).contains(&file));
        let is_found = name == "SUMMARY.md" || listed.contains(&name) || is_linked();
        assert!(is_found, "{name} is neither in SUMMARY.md nor linked beside it");
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{name}: {link} leads nowhere");
            if !place.is_empty() && target.extension().is_some_and(|extension| extension == "md") {
                let there = fs::read_to_string(&target).unwrap();
                let has_it =
                    there.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == place);
                assert!(has_it, "{name}: {link}: there is no such heading");
            }
        }
    }
}

/// Blocks of commands that are marked with a host: ```` ```sh,robot ````.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(host) = line.strip_prefix("```sh,") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push((host.to_owned(), block.join("\n")));
        }
    }
    blocks
}

#[test]
fn the_first_five_minutes_go_as_they_are_written() {
    let mut lab = Lab::new("book").unwrap();
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
    lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
    for (n, host) in [(1, "robot-7"), (2, "laptop")] {
        let (wifi, prefix) = (format!("wifi-{n}"), format!("192.168.{n}.0/24"));
        lab.add_network(&wifi, NetworkSpec::campus_wifi(prefix.parse().unwrap())).unwrap();
        lab.add_router(&format!("nat-{n}"), RouterSpec::new("internet", &wifi, Nat::Symmetric)).unwrap();
        lab.add_host(host, HostSpec::on(&wifi)).unwrap();
    }
    let team = Team::of(lab, &[]);
    // What the packages start.
    let _agents = [team.robot("robot-7", &[]), team.robot("laptop", &[])];
    let desk = tempfile::tempdir().unwrap();
    let programs = program("ria").parent().unwrap().to_str().unwrap().to_owned();

    let page = fs::read_to_string(docs().join("first-steps.md")).unwrap();
    let blocks = blocks(&page);
    assert!(blocks.len() >= 6, "{blocks:?}");
    for (host, block) in blocks {
        let name = match host.as_str() {
            "server" => "coordinator",
            "robot" => "robot-7",
            other => other,
        };
        // Whoever reads it is no root; here everybody is.
        let script = format!("set -e\nsudo() {{ \"$@\"; }}\nPATH={programs}:$PATH\n{block}\n");
        let mut command = team.host(name).command("bash");
        let output = command.args(["-c", &script]).current_dir(desk.path()).unwrap().output().unwrap();
        assert!(output.status.success(), "{host}: {block}\n{output:?}");
    }
    let bundle =
        std::process::Command::new("tar").arg("-tf").arg(desk.path().join("ria-debug.tar")).output().unwrap();
    assert!(String::from_utf8_lossy(&bundle.stdout).contains("ria-debug/agent/doctor.json"), "{bundle:?}");
}
