//! Backups that are made by themselves: they are there, they restore, the old ones go, and one that can't be made is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::Server;

fn backups(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "backup"));
    found.sort();
    found
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_backup_is_made_without_anybody_and_restores() {
    let outside = tempfile::tempdir().unwrap();
    let (safe, passphrase) = (outside.path().join("safe"), outside.path().join("passphrase"));
    fs::write(&passphrase, "correct horse\n").unwrap();
    fs::create_dir(&safe).unwrap();
    // Of long ago, and one too many.
    for old in ["ria-coordinator-1-100.backup", "ria-coordinator-1-200.backup", "notes.txt"] {
        fs::write(safe.join(old), "old").unwrap();
    }
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let environment = vec![
        ("RIA_BACKUP_DIRECTORY".to_owned(), text(&safe)),
        ("RIA_BACKUP_PASSPHRASE_FILE".to_owned(), text(&passphrase)),
        ("RIA_BACKUP_KEEP".to_owned(), "2".to_owned()),
    ];
    let mut server = Server::start_with_all(environment, |_| {});
    server.text(&["network", "create", "field-team"]);
    until("a backup", || backups(&safe).len() == 2 && !safe.join("ria-coordinator-1-100.backup").exists());
    let made =
        backups(&safe).into_iter().find(|path| !path.ends_with("ria-coordinator-1-200.backup")).unwrap();
    assert!(safe.join("notes.txt").exists() && safe.join("ria-coordinator-1-200.backup").exists());
    assert!(server.text(&["audit", "list"]).contains("backup.made"));
    server.terminate();
    // The one of now is new enough: a restart makes no other.
    server.start_again();
    server.text(&["network", "create", "later"]);
    server.terminate();
    assert!(backups(&safe).len() == 2 && made.exists());

    // It is a whole coordinator.
    let restored =
        server.text(&["restore", &text(&made), "--passphrase-file", &text(&passphrase), "--force"]);
    assert!(restored.contains("epoch"), "{restored}");
    server.start_again();
    let networks = server.text(&["network", "list"]);
    assert!(networks.contains("lab") && !networks.contains("later"), "{networks}");
}

#[test]
fn settings_that_make_no_backup_are_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("coordinator.toml");
    let complaint = |content: &str| {
        fs::write(&file, content).unwrap();
        let output = crate::support::server::program(directory.path()).arg("check-config").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = complaint("[backup]\ndirectory = \"/mnt/safe\"\n");
    assert!(said.contains("backup.passphrase_file"), "{said}");
    let said = complaint(
        "database = \"postgres://ria@db/ria\"\n[backup]\ndirectory = \"/mnt/safe\"\npassphrase_file = \"/etc/p\"\n",
    );
    assert!(said.contains("pg_dump"), "{said}");
    let said = complaint("database = \"postgres://ria:secret@db/ria\"\n");
    assert!(said.contains("database_password_file") && !said.contains("secret@"), "{said}");
    let said = complaint("database = \"mysql://ria@db/ria\"\n");
    assert!(said.contains("postgres://USER@HOST/DATABASE"), "{said}");
    let said = complaint("database_password_file = \"/etc/p\"\n");
    assert!(said.contains("only a PostgreSQL database has a password"), "{said}");
}
