//! Watching an agent, and handing what it knows to somebody who helps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::process::Stdio;

use data_encoding::{BASE64, HEXLOWER};
use netlab::Host;
use serde_json::Value;
use support::{Site, Team, eventually, program};

/// All that is stored, file by file.
fn stored(host: &Host) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut directories = vec![host.path("/var/lib/ria")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with("keys")) {
                found.push(fs::read(entry).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_debug_bundle_has_what_helps_and_no_secret() {
    let team = Team::new("watch-bundle", &Site::Together);
    let key = team.key(&["--reusable"]);
    let host = team.host("robot-a");
    let settings = format!("# {key}\nproxy = \"http://robot:s3cret%40word@192.168.1.77:3128\"\n");
    fs::write(host.path("/etc/ria/agent.toml"), settings).unwrap();
    let (a, b) = (team.robot("robot-a", &[]), team.robot("robot-b", &[]));
    for robot in [&a, &b] {
        let joined = robot.join(&key);
        assert_eq!(joined.code, 0, "{joined:?}");
    }
    a.wait_for_link("robot-b", "up");
    let made = a.ria(&["debug-bundle", "--output", "/run/bundle.tar", "--json"]);
    assert_eq!(made.code, 0, "{made:?}");
    assert_ne!(a.ria(&["debug-bundle", "--output", "/run/bundle.tar"]).code, 0, "nothing is overwritten");

    let bytes = fs::read(a.host.path("/run/bundle.tar")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for expected in
        ["robot-b", &a.address(), "agent.toml", "[left out]@192.168.1.77:3128", "networks/", "ria0"]
    {
        assert!(text.contains(expected), "{expected} is missing");
    }
    let secret = key.strip_prefix("ria1_").unwrap();
    for secret in [secret, &secret[secret.len() / 2..], "s3cret", "PRIVATE KEY"] {
        assert!(!text.contains(secret), "{secret}");
    }
    // Any 32 bytes of the files with keys, as text may have them; a public key is none.
    let public = a.status()["public_key"].as_str().unwrap().to_owned();
    let stored = stored(&a.host);
    assert!(stored.len() >= 2, "keys and their copy");
    for window in stored.iter().flat_map(|keys| keys.windows(32)) {
        let (base64, hex) = (BASE64.encode(window), HEXLOWER.encode(window));
        assert!(base64 == public || !(text.contains(&base64) || text.contains(&hex)), "a key in {base64}");
        assert!(!bytes.windows(32).any(|there| there == window), "a key as it is stored");
    }

    // Also when there is no agent to ask.
    let lonely = team.host("coordinator").output(&[
        program("ria").to_str().unwrap(),
        "debug-bundle",
        "--output",
        "/run/bundle.tar",
    ]);
    assert!(lonely.unwrap().status.success());
}

#[test]
fn top_shows_what_passes_in_a_second() {
    let team = Team::new("watch-top", &Site::Together);
    let (a, b) = team.pair();
    let address = b.address();
    let rate = |value: &Value, name: &str| value["networks"][0]["peers"][0][name].as_f64().unwrap();
    let mut pings = a.host.command("ping");
    let mut pings =
        pings.args(["-n", "-q", "-i", "0.02", "-s", "1000", &address]).stdout(Stdio::null()).spawn().unwrap();
    eventually("the rate of pings of 1000 bytes, 50 in a second, is shown both ways", || {
        let looked = a.ria(&["top", "--json", "-c", "1", "-i", "1"]);
        let value: Value = serde_json::from_str(looked.out.trim()).unwrap_or_else(|_| panic!("{looked:?}"));
        let shown = [rate(&value, "rx_bytes_per_second"), rate(&value, "tx_bytes_per_second")];
        shown.iter().all(|rate| (5_000.0..200_000.0).contains(rate))
    });
    pings.kill().unwrap();
    let plain = a.ria(&["top", "-c", "2", "-i", "0.2"]).out;
    assert!(
        plain.matches("\nNAME ").count() == 2 && plain.contains("\nrobot-b ") && !plain.contains('\x1b'),
        "{plain}"
    );

    // On a terminal it takes another screen, and gives it back.
    let line = format!("{} top -c 2 -i 0.2", program("ria").display());
    let mut terminal = a.host.command("script");
    terminal.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    let seen = terminal.output().unwrap();
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert!(seen.contains("\x1b[?1049h") && seen.contains("robot-b") && seen.contains("q ends"), "{seen:?}");
    assert!(seen.trim_end().ends_with("\x1b[?25h\x1b[?1049l"), "{seen:?}");
}
