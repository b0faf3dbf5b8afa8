//! Backups, and what comes back of a coordinator that is restored from one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use ria_protocol::error::ErrorCode;
use ria_protocol::join_key::JoinKey;
use ria_protocol::message::{CoordinatorMessage, NodeMessage};
use ria_protocol::witness::{Keep, Testimony};
use serde_json::Value;

use crate::support::{Connection, Robot, Server, Start};

/// A coordinator, and the place of its backup with its passphrase.
struct Lab {
    server: Server,
    key: JoinKey,
    backup: PathBuf,
    passphrase: PathBuf,
}

impl Lab {
    fn start() -> Self {
        let server = Server::start();
        let key = server.key(&["--reusable"]);
        let (backup, passphrase) = (server.path().join("lab.backup"), server.path().join("passphrase"));
        fs::write(&passphrase, "correct horse battery\nnot this line\n").unwrap();
        Self { server, key, backup, passphrase }
    }

    fn back_up(&self) {
        let (file, secret) = (self.backup.to_str().unwrap(), self.passphrase.to_str().unwrap());
        self.server.text(&["backup", file, "--passphrase-file", secret]);
    }

    fn restore(&self, options: &[&str]) -> Output {
        let file = self.backup.to_str().unwrap();
        let secret = self.passphrase.to_str().unwrap();
        self.server.command(&[&["restore", file, "--passphrase-file", secret], options].concat())
    }

    /// The coordinator is lost with all that it had, and restored from the backup.
    fn lose_and_restore(&mut self) {
        self.server.kill();
        fs::remove_dir_all(self.server.data_dir()).unwrap();
        let output = self.restore(&[]);
        assert!(output.status.success(), "{output:?}");
        self.server.start_again();
    }

    async fn join(&self, name: &'static str) -> (Robot, Connection, Start, Keep) {
        let mut robot = Robot::new(name, &self.key);
        let (mut connection, start) = robot.join(self.server.address, &self.key).await;
        let keep = connection.keep().await;
        (robot, connection, start, keep)
    }

    /// A robot comes back and hands over what it has kept.
    async fn testify(&self, robot: &Robot, kept: &Keep) -> Connection {
        let mut connection = robot.connect(self.server.address).await;
        let epoch = connection.welcome.as_ref().unwrap().epoch.unwrap();
        assert_ne!(epoch, kept.epoch);
        let testimony = Testimony {
            epoch: kept.epoch,
            revision: None,
            deed: kept.deed.clone(),
            tombstones: kept.tombstones.clone(),
            audit: kept.audit.clone(),
        };
        connection.send(&NodeMessage::Testify(testimony)).await;
        connection.send(&robot.resume(Some(5))).await;
        connection
    }

    fn audit(&self, action: &str) -> Vec<Value> {
        let log = self.server.json(&["audit", "list", "--limit", "1000"]);
        assert_eq!(log["chain"]["intact"], true);
        log["rows"].as_array().unwrap().iter().filter(|row| row["action"] == action).cloned().collect()
    }

    fn address(&self, name: &str) -> Value {
        self.server.json(&["node", "show", name])["addresses"].clone()
    }
}

fn stderr(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn nothing_left_beside(directory: &Path) {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_node_enrolled_after_the_backup_comes_back_and_one_removed_after_it_stays_out() {
    let mut lab = Lab::start();
    let (_, _at_before, _, _) = lab.join("before").await;
    let (removed, _, _, removed_keep) = lab.join("removed").await;
    lab.back_up();
    let (after, mut at_after, _, after_keep) = lab.join("after").await;
    let (gone, _, _, gone_keep) = lab.join("gone").await;
    let address = lab.address("after");
    // Both a member of the backup and one that it does not know are removed, and those who stay hear of it.
    lab.server.text(&["node", "remove", "removed"]);
    lab.server.text(&["node", "remove", "gone"]);
    let mut kept = after_keep;
    while kept.tombstones.len() < 2 {
        let keep = at_after.keep().await;
        kept.tombstones.extend(keep.tombstones);
        kept.audit = keep.audit.or(kept.audit);
    }
    drop(at_after);
    lab.lose_and_restore();
    assert_eq!(lab.server.json(&["node", "list"]).as_array().unwrap().len(), 2, "as the backup has it");

    let mut connection = lab.testify(&after, &kept).await;
    let start = connection.start().await;
    let snapshot = start.map.snapshot();
    assert!(
        snapshot.revision.0 >= 1_000_000_000,
        "beyond all that anybody has seen: {:?}",
        snapshot.revision
    );
    let mut names: Vec<_> = snapshot.members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["after", "before"]);
    assert_eq!(lab.address("after"), address);

    // Neither comes back by its own word.
    for (robot, keep) in [(&removed, &removed_keep), (&gone, &gone_keep)] {
        let mut connection = lab.testify(robot, keep).await;
        assert_eq!(connection.refusal().await.code, ErrorCode::NotAMember);
    }
    assert_eq!(lab.audit("coordinator.restored").len(), 1);
    assert_eq!(lab.audit("node.readmitted").len(), 1);
    let fork = lab.audit("audit.fork");
    assert_eq!(fork.len(), 1, "what is lost of the log is told once");
    let detail: Value = serde_json::from_str(fork[0]["detail"].as_str().unwrap()).unwrap();
    assert!(detail["rows_lost"].as_u64().unwrap() >= 3, "{detail}");

    // All of that is stored, and a second testimony tells nothing new.
    let before = lab.server.json(&["network", "show", "lab"])["revision"].clone();
    lab.server.kill();
    lab.server.start_again();
    drop(lab.testify(&after, &kept).await.start().await);
    assert_eq!(lab.server.json(&["network", "show", "lab"])["revision"], before);
    assert_eq!((lab.audit("audit.fork").len(), lab.audit("node.readmitted").len()), (1, 1));
}

#[tokio::test]
async fn no_address_is_given_twice_across_a_restore_and_names_make_room() {
    let mut lab = Lab::start();
    lab.join("first").await;
    lab.back_up();
    let mut lost = Vec::new();
    for _ in 0..5 {
        let (robot, _, _, keep) = lab.join("robot").await;
        lost.push((robot, keep));
    }
    lab.lose_and_restore();
    // The key was revoked by the restore, for it may have been after the backup.
    let refused = Robot::new("robot", &lab.key);
    let mut connection = refused.connect(lab.server.address).await;
    let request = refused.enrol_request(&connection, &lab.key);
    connection.send(&NodeMessage::Enrol(request)).await;
    assert_eq!(connection.refusal().await.code, ErrorCode::JoinKeyRevoked);
    // New ones come before the lost ones are back.
    lab.key = lab.server.key(&["--reusable"]);
    for _ in 0..3 {
        lab.join("robot").await;
    }
    for (robot, keep) in &lost {
        lab.testify(robot, keep).await.start().await;
    }
    let nodes = lab.server.json(&["node", "list"]);
    let all: Vec<_> = nodes.as_array().unwrap().iter().map(|n| n["addresses"][0].as_str().unwrap()).collect();
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (9, 9), "{all:?}");
    for row in lab.audit("node.readmitted") {
        let detail: Value = serde_json::from_str(row["detail"].as_str().unwrap()).unwrap();
        assert_eq!(detail["same_address"], true, "{detail}");
    }
}

#[tokio::test]
async fn a_node_can_show_no_statement_but_its_own() {
    let mut lab = Lab::start();
    let (honest, _, _, honest_keep) = lab.join("honest").await;
    lab.back_up();
    let (thief, _, _, thief_keep) = lab.join("thief").await;
    let (victim, _, _, victim_keep) = lab.join("victim").await;
    lab.lose_and_restore();

    // Another's deed, a forged one, and a tombstone for somebody else made of one's own deed.
    let stolen = Keep { deed: victim_keep.deed.clone(), ..thief_keep.clone() };
    let mut forged = thief_keep.clone();
    let deed = forged.deed.as_mut().unwrap();
    deed.statement[20] ^= 1;
    for keep in [&stolen, &forged] {
        assert_eq!(lab.testify(&thief, keep).await.refusal().await.code, ErrorCode::NotAMember);
    }
    let mut spiteful = honest_keep.clone();
    let statement = ria_protocol::witness::Statement::Tombstone(ria_protocol::witness::Tombstone {
        network: honest.network,
        node: honest.node,
        time: ria_protocol::time::UnixTime(1),
    });
    spiteful.tombstones.push(ria_protocol::witness::SealingKey::new(&[0; 32]).seal(&statement));
    lab.testify(&honest, &spiteful).await.start().await;
    assert!(lab.audit("node.readmitted").is_empty());
    lab.testify(&victim, &victim_keep).await.start().await;
    assert_eq!(lab.audit("node.readmitted").len(), 1);
}

#[test]
fn a_backup_is_private_whole_and_opens_with_its_passphrase_only() {
    let mut lab = Lab::start();
    let asked = stderr(&lab.server.command(&["backup", lab.backup.to_str().unwrap()]));
    assert!(asked.contains("--passphrase-file") && asked.contains("--unencrypted"), "{asked}");
    fs::write(&lab.backup, "an older backup").unwrap();
    lab.back_up();
    assert_eq!(fs::metadata(&lab.backup).unwrap().permissions().mode() & 0o777, 0o600);
    nothing_left_beside(lab.server.path());
    let file = fs::read(&lab.backup).unwrap();
    assert!(!file.windows(11).any(|part| part == b"PRIVATE KEY"), "the authority's key is readable");

    // To standard output as well, and without a coordinator that runs.
    let secret = lab.passphrase.to_str().unwrap();
    let piped = lab.server.command(&["backup", "-", "--passphrase-file", secret]);
    assert!(piped.status.success() && piped.stdout.starts_with(b"ria-backup-1\n"));
    let pin = lab.key.ca_pin;
    lab.server.terminate();
    lab.back_up();

    let busy = stderr(&lab.restore(&[]));
    assert!(busy.contains("--force"), "{busy}");
    fs::write(&lab.passphrase, "wrong horse battery\n").unwrap();
    let wrong = stderr(&lab.restore(&["--force"]));
    assert!(wrong.contains("passphrase is wrong"), "{wrong}");
    fs::write(&lab.passphrase, "correct horse battery\n").unwrap();
    let whole = fs::read(&lab.backup).unwrap();
    for cut in [0, 10, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&lab.backup, &whole[..cut]).unwrap();
        assert!(stderr(&lab.restore(&["--force"])).contains("can't be read"));
    }
    fs::write(&lab.backup, &whole).unwrap();
    // Nothing of that has touched what was there.
    lab.server.start_again();
    assert_eq!(lab.server.key(&[]).ca_pin, pin);
    let while_it_runs = stderr(&lab.restore(&["--force"]));
    assert!(while_it_runs.contains("another coordinator is running"), "{while_it_runs}");
    lab.server.terminate();

    let output = lab.server.command(&[
        "restore",
        lab.backup.to_str().unwrap(),
        "--passphrase-file",
        secret,
        "--force",
        "--json",
    ]);
    let restored: Value = serde_json::from_slice(&output.stdout).unwrap();
    let aside = PathBuf::from(restored["aside"].as_str().unwrap());
    assert!(aside.join("coordinator.db").exists() && aside.join("identity/ca.key").exists());
    assert_eq!((&restored["epoch"], &restored["keys_revoked"]), (&2.into(), &true.into()));
    lab.server.start_again();
    assert_eq!(lab.server.key(&[]).ca_pin, pin);
}

#[tokio::test]
async fn an_old_copy_put_in_place_by_hand_is_noticed_and_begins_a_new_epoch() {
    let mut lab = Lab::start();
    lab.join("before").await;
    lab.server.terminate();
    let database = lab.server.data_dir().join("coordinator.db");
    let copy = fs::read(&database).unwrap();
    lab.server.start_again();
    let (after, _, _, keep) = lab.join("after").await;
    lab.server.terminate();
    assert!(lab.server.text(&["audit", "verify"]).contains("intact"));
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(lab.server.data_dir().join(format!("coordinator.db{suffix}")));
    }
    fs::write(&database, copy).unwrap();
    let verdict = lab.server.command(&["audit", "verify"]);
    assert_eq!(verdict.status.code(), Some(1), "{verdict:?}");

    lab.server.start_again();
    assert_eq!(lab.audit("coordinator.rewound").len(), 1);
    lab.testify(&after, &keep).await.start().await;
    assert_eq!(lab.audit("node.readmitted").len(), 1);
    assert_eq!(lab.audit("audit.fork").len(), 1);
    lab.server.terminate();
    lab.server.start_again();
    assert_eq!(lab.audit("coordinator.rewound").len(), 1, "once");
}

#[tokio::test]
async fn new_urls_travel_in_the_map() {
    let lab = Lab::start();
    let (_, mut connection, start, _) = lab.join("robot").await;
    assert_eq!(start.map.snapshot().network.urls, ["https://coordinator.lab.example"]);
    lab.server.text(&["url", "add", "https://new.lab.example/"]);
    let patches = connection.patches().await.patches;
    let [ria_protocol::map::Patch::NetworkChanged(info)] = &patches[..] else { panic!("{patches:?}") };
    assert_eq!(info.urls, ["https://coordinator.lab.example", "https://new.lab.example"]);
    assert_eq!(lab.server.key(&[]).urls, info.urls);

    for (url, words) in [
        ("https://new.lab.example", "already"),
        ("http://new.lab.example", "https://"),
        ("https://127.0.0.1", "this machine only"),
    ] {
        assert!(stderr(&lab.server.command(&["url", "add", url])).contains(words));
    }
    let configured = stderr(&lab.server.command(&["url", "remove", "https://coordinator.lab.example"]));
    assert!(configured.contains("public_url"), "{configured}");
    assert!(stderr(&lab.server.command(&["url", "remove", "https://x.example"])).contains("url list"));
    lab.server.text(&["url", "remove", "https://new.lab.example"]);
    assert_eq!(connection.patches().await.patches.len(), 1);
    assert_eq!(lab.audit("network.urls").len(), 2);
}

impl Connection {
    /// The next thing to keep.
    async fn keep(&mut self) -> Keep {
        self.next_of(|message| match message {
            CoordinatorMessage::Keep(keep) => Some(keep),
            _ => None,
        })
        .await
    }
}
