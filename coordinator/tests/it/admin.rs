//! What administrators type, and what they get.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::server::program;
use crate::support::{Robot, Server};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn everything_that_changes_is_in_the_audit_log_and_tampering_shows() {
    let mut server = Server::start();
    let key = server.key(&[]);
    Robot::new("robot", &key).enrol(server.address, &key).await;
    server.text(&["network", "create", "field", "--prefix", "10.220.0.0/16"]);
    let unused = server.key(&["--network", "lab"]);
    server.text(&["key", "revoke", &unused.key_id.to_string()]);
    server.text(&["node", "remove", "robot"]);
    let audit = server.json(&["audit", "list"]);
    let actions: Vec<_> =
        audit["rows"].as_array().unwrap().iter().map(|r| r["action"].as_str().unwrap()).collect();
    let expected = [
        "network.created",
        "key.created",
        "node.joined",
        "network.created",
        "key.created",
        "key.revoked",
        "node.removed",
    ];
    assert_eq!(actions, expected);
    assert_eq!((&audit["chain"]["intact"], &audit["chain"]["length"]), (&true.into(), &7.into()));
    let text = audit.to_string();
    for secret in [&key, &unused] {
        assert!(!text.contains(&secret.to_text()[20..40]), "a secret is in the log");
    }
    let latest = server.json(&["audit", "list", "--limit", "2", "--network", "lab"]);
    assert_eq!(latest["rows"].as_array().unwrap().len(), 2);
    assert_eq!(latest["rows"][1]["action"], "node.removed");

    // Somebody with access to the file covers up who was removed.
    server.kill();
    let url = format!("sqlite://{}", server.data_dir().join("coordinator.db").display());
    sqlx::any::install_default_drivers();
    let database = sqlx::AnyPool::connect(&url).await.unwrap();
    sqlx::query("UPDATE audit SET subject = 'nobody' WHERE seq = 7").execute(&database).await.unwrap();
    database.close().await;
    server.start_again();
    let output = server.command(&["audit", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("row 7 was changed"), "{output:?}");
    assert_eq!(server.json_of_failed(&["audit", "list"])["chain"]["intact"], false);
}

impl Server {
    fn json_of_failed(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.command(&arguments);
        assert_eq!(output.status.code(), Some(1));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn key_create_prints_the_key_alone_and_refuses_while_nobody_could_reach_the_coordinator() {
    let server = Server::start();
    let output = server.command(&["key", "create", "--expires", "never"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(text.starts_with("ria1_") && text.lines().count() == 1, "{text}");
    assert!(stderr(&output).contains("one node"), "{}", stderr(&output));
    let made = server.json(&["key", "create", "--reusable", "--tag", "b", "--tag", "a"]);
    assert_eq!(made["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(made["urls"], serde_json::json!(["https://coordinator.lab.example"]));
    let list = server.json(&["key", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains("ria1_"), "the list shows secrets");

    for nowhere in ["", "https://127.0.0.1:8443", "https://localhost,https://[::1]:7"] {
        let server = Server::start_with("RIA_PUBLIC_URL", nowhere);
        let output = server.command(&["key", "create"]);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{nowhere}");
        assert!(stderr(&output).contains("--public-url"), "{}", stderr(&output));
        assert_eq!(server.json(&["key", "list"]).as_array().unwrap().len(), 0);
    }
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    let server = Server::start();
    for (arguments, code, words) in [
        (&["node", "show", "robot"][..], 1, "node list"),
        (&["node", "remove", "robot"], 1, "node list"),
        (&["network", "show", "x/../y?z"], 1, "network list"),
        (&["network", "create", "lab"], 1, "another name"),
        (&["network", "create", "two", "--prefix", "10.213.4.0/24"], 1, "overlaps"),
        (&["network", "create", "two", "--mtu", "1279"], 1, "1280"),
        (&["network", "create", "Two"], 2, "robot-7"),
        (&["key", "create", "--network", "nowhere"], 1, "network list"),
        (&["key", "create", "--expires", "soon"], 2, "30m"),
        (&["key", "revoke", "aaaaaaaa"], 1, "key list"),
        (&["key", "revoke", "x"], 1, "8 characters"),
        (&["frobnicate"], 2, "Usage"),
    ] {
        let output = server.command(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let mode = std::fs::metadata(server.path().join("admin.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(server.text(&["completions", "bash"]).contains("check-config"));
    assert!(server.text(&["key", "create", "--help"]).contains("Examples"));
    assert!(server.text(&["network", "list"]).contains("10.213.0.0/16"));
    assert!(server.text(&["network", "create", "wide", "--mtu", "1420"]).contains("1420"));
}

#[test]
fn without_a_coordinator_the_exit_code_says_so() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("coordinator.toml"), "").unwrap();
    let output = program(directory.path()).args(["node", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("ria-coordinator serve"), "{}", stderr(&output));
}

#[test]
fn two_coordinators_keep_off_each_others_data_socket_and_port() {
    let server = Server::start();
    let refused = |set: &dyn Fn(&mut std::process::Command)| {
        let mut command = program(server.path());
        set(&mut command);
        let output = command.arg("serve").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let other = server.path().join("other");
    assert!(refused(&|_| ()).contains("another coordinator is running on the data directory"));
    let socket = refused(&|c| {
        c.env("RIA_DATA_DIR", &other);
    });
    assert!(socket.contains("--admin-socket"), "{socket}");
    let port = refused(&|c| {
        c.env("RIA_DATA_DIR", &other).env("RIA_LISTEN", server.address.to_string());
    });
    assert!(port.contains("--listen"), "{port}");
    server.text(&["node", "list"]);
}

#[test]
fn an_authority_is_never_replaced_behind_the_back_of_the_nodes() {
    let mut server = Server::start();
    let pin = server.key(&[]).ca_pin;
    server.kill();
    let identity = server.data_dir().join("identity");
    let away = server.path().join("away");
    std::fs::rename(&identity, &away).unwrap();
    let output = program(server.path()).arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("restore the directory from a backup"), "{}", stderr(&output));
    assert!(!identity.exists());
    std::fs::rename(&away, &identity).unwrap();
    server.start_again();
    assert_eq!(server.key(&[]).ca_pin, pin);
}

#[test]
fn all_mistakes_in_the_settings_are_shown_together() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("coordinator.toml");
    std::fs::write(
        &file,
        "listen = \"everywhere\"\npubic_url = \"https://a\"\n[relay]\nenabled = 3\nport = 1\n",
    )
    .unwrap();
    let check = |arguments: &[&str]| {
        let mut command = program(directory.path());
        command.env_remove("RIA_LISTEN").env("RIA_PUBLIC_URL", "http://a.example,https://b.example/path");
        command.arg("check-config").args(arguments).output().unwrap()
    };
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    for words in [
        "\"everywhere\"",
        "unknown key \"pubic_url\"",
        "relay.enabled",
        "relay.port",
        "http://a.example",
        "/path",
        "6 mistakes",
    ] {
        assert!(text.contains(words), "{words:?} is missing in: {text}");
    }
    let json: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!((&json["valid"], json["mistakes"].as_array().unwrap().len()), (&false.into(), 6));

    std::fs::write(
        &file,
        "public_url = [\"https://file.example\"]\ndata_dir = \"/file\"\n[relay]\nexternal = \"192.0.2.1\"\n",
    )
    .unwrap();
    let output = program(directory.path())
        .env_remove("RIA_PUBLIC_URL")
        .args(["check-config", "--json", "--data-dir", "/flag"])
        .output()
        .unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["data_dir"], &json["listen"]), (&"/flag".into(), &"127.0.0.1:0".into()));
    assert_eq!(json["public_url"], serde_json::json!(["https://file.example"]));
    assert_eq!(json["relay"]["external"], serde_json::json!(["192.0.2.1"]));
}
