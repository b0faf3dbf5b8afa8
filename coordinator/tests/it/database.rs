//! A database that somebody takes away or spoils: nothing is stored where it would be lost, no member is forgotten.

use std::fs;
use std::path::Path;
use std::process::Output;

use sqlx::Connection as _;

use crate::support::Server;

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_removed_database_takes_no_change_and_is_never_begun_anew() {
    let mut server = Server::start();
    server.text(&["network", "create", "field-team"]);
    let (place, aside) = (server.data_dir(), server.path().join("aside"));
    let files = ["coordinator.db", "coordinator.db-wal", "coordinator.db-shm"];
    fs::create_dir(&aside).unwrap();
    files.iter().for_each(|file| fs::rename(place.join(file), aside.join(file)).unwrap());

    let refused = complaint(&server.command(&["network", "create", "lost"]));
    assert!(refused.contains("removed or replaced") && refused.contains("coordinator.db"), "{refused}");
    assert!(server.text(&["network", "list"]).contains("field-team"), "it goes on with what it knows");

    server.kill();
    let refused = complaint(&server.command(&["serve"]));
    assert!(refused.contains("missing or empty") && refused.contains("backup"), "{refused}");
    assert!(!place.join("coordinator.db").exists());

    files.iter().for_each(|file| fs::rename(aside.join(file), place.join(file)).unwrap());
    server.start_again();
    assert!(server.text(&["network", "list"]).contains("field-team"));
}

/// Does something to the database of a coordinator that does not run.
fn execute(database: &Path, sql: &'static str) {
    let url = format!("sqlite://{}", database.display());
    sqlx::any::install_default_drivers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut database = sqlx::AnyConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut database).await.unwrap();
        database.close().await.unwrap();
    });
}

#[test]
fn a_database_of_a_newer_version_is_left_as_it_is() {
    let mut server = Server::start();
    server.text(&["network", "create", "field-team"]);
    server.terminate();
    let database = server.data_dir().join("coordinator.db");
    execute(
        &database,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99999999999999, 'of the future', TRUE, x'00', 0)",
    );
    let before = fs::read(&database).unwrap();
    let refused = complaint(&server.command(&["serve"]));
    assert!(
        refused.contains("newer") && refused.contains("the version of ria-coordinator that wrote it"),
        "{refused}"
    );
    assert!(fs::read(&database).unwrap() == before);
    execute(&database, "DELETE FROM _sqlx_migrations WHERE version = 99999999999999");
    server.start_again();
    assert!(server.text(&["network", "list"]).contains("field-team"));
}

#[test]
fn a_spoilt_database_and_a_lost_authority_are_said_at_once() {
    let mut server = Server::start();
    server.terminate();
    let database = server.data_dir().join("coordinator.db");
    let whole = fs::read(&database).unwrap();
    fs::write(&database, [&b"not what it was "[..], &whole[16..]].concat()).unwrap();
    let refused = complaint(&server.command(&["serve"]));
    assert!(refused.contains("can't be read") && refused.contains("backup"), "{refused}");

    fs::write(&database, whole).unwrap();
    fs::remove_file(server.data_dir().join("identity/ca.key")).unwrap();
    let refused = complaint(&server.command(&["serve"]));
    assert!(refused.contains("ca.key is missing") && refused.contains("backup"), "{refused}");
}
