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

    let page = |name: &str| blocks(&fs::read_to_string(docs().join(name)).unwrap());
    let mut blocks = page("first-steps.md");
    assert!(blocks.len() >= 6, "{blocks:?}");
    let farewell = blocks.pop().unwrap();
    assert!(farewell.1.contains("ria leave"), "{farewell:?}");
    blocks.extend(["campus.md", "tools.md"].into_iter().flat_map(page));
    blocks.push(farewell);
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

/// The words in quotes that stand right behind `before`, but for white space.
fn quoted_behind(text: &str, before: &str) -> Vec<String> {
    let rests = text.split(before).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
    rests.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// The code of these files or directories, without its tests.
fn code(paths: &[&str]) -> String {
    let mut waiting: Vec<PathBuf> =
        paths.iter().map(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).collect();
    let mut code = String::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with("tests.rs") {
            let text = fs::read_to_string(path).unwrap();
            code.push_str(text.split("#[cfg(test)]").next().unwrap());
        }
    }
    code
}

#[test]
fn the_reference_has_every_word_that_the_code_has() {
    let page = fs::read_to_string(docs().join("reference.md")).unwrap();
    let section =
        |heading: &str| page.split("\n## ").find(|part| part.starts_with(heading)).unwrap().to_owned();
    let doctor = code(&["src/cli/doctor"]);
    let stages =
        ["agent", "tunnel", "policy", "interface", "processes", "discovery", "memory", "buffers", "clocks"];
    let findings = stages.iter().flat_map(|stage| quoted_behind(&doctor, &format!("\"{stage}\",")));
    let drops = [code(&["core/src/counters.rs"]), code(&["coordinator/src/relay/counters.rs"])].concat();
    let words = [
        ("Conditions", quoted_behind(&code(&["src/daemon"]), "onditions.set("), 20),
        ("Findings", findings.collect(), 25),
        ("Packets", quoted_behind(&drops, "=>"), 40),
        ("Packets", quoted_behind(&code(&["src/metrics/mod.rs"]), "\n    "), 8),
        ("Events", quoted_behind(&code(&["src/daemon"]), "kind:"), 8),
        ("Refusals", quoted_behind(&code(&["protocol/src/error.rs"]), "=>"), 19),
        ("Metrics", quoted_behind(&code(&["coordinator/src/metrics.rs", "src/metrics"]), "("), 22),
    ];
    for (heading, words, at_least) in words {
        let there = section(heading);
        let is_name = |word: &&String| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || "-_".contains(c))
        };
        let names: Vec<&String> = words.iter().filter(is_name).collect();
        assert!(names.len() >= at_least, "{heading}: found {names:?} only: is the code another one?");
        for word in names.into_iter().filter(|word| heading != "Metrics" || word.starts_with("ria_")) {
            assert!(
                there.contains(&format!("`{word}`")),
                "docs/reference.md, {heading}: `{word}` is missing"
            );
        }
    }
}
