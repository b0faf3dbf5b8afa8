//! The audit log against somebody who can write the database.

use ria_coordinator::audit::{Actor, Event, Head};
use ria_protocol::time::UnixTime;
use serde_json::Value;
use sqlx::Row as _;

use crate::support::Server;

/// Writes the whole log anew with another subject in one row, so that the chain is intact.
async fn rewrite(server: &Server, changed: i64) {
    let url = format!("sqlite://{}", server.data_dir().join("coordinator.db").display());
    sqlx::any::install_default_drivers();
    let database = sqlx::AnyPool::connect(&url).await.unwrap();
    let rows = sqlx::query("SELECT * FROM audit ORDER BY seq").fetch_all(&database).await.unwrap();
    let mut head = Head::START;
    for old in rows {
        let text = |column: &str| old.try_get::<String, _>(column).unwrap();
        let seq: i64 = old.try_get("seq").unwrap();
        let row = head.follow(&Event {
            time: UnixTime(u64::try_from(old.try_get::<i64, _>("time").unwrap()).unwrap()),
            actor: Actor::Coordinator,
            action: text("action").leak(),
            network: old.try_get::<Option<String>, _>("network").unwrap().map(|id| id.parse().unwrap()),
            subject: if seq == changed { "nothing-here".to_owned() } else { text("subject") },
            detail: serde_json::from_str(&text("detail")).unwrap(),
        });
        head = Head::from(&row);
        let sql = "UPDATE audit SET actor = $1, subject = $2, detail = $3, prev_hash = $4, hash = $5 WHERE seq = $6";
        let query = sqlx::query(sql).bind(row.actor).bind(row.subject).bind(row.detail);
        let query = query.bind(String::from(row.prev_hash)).bind(String::from(row.hash)).bind(seq);
        query.execute(&database).await.unwrap();
    }
    database.close().await;
}

#[tokio::test]
async fn a_log_that_was_rewritten_or_cut_off_shows_against_heads_that_were_kept() {
    let mut server = Server::start();
    for name in ["field", "yard"] {
        server.text(&["network", "create", name]);
    }
    let file = server.path().join("witness");
    let path = file.to_str().unwrap().to_owned();
    let head = server.text(&["audit", "head"]);
    let rows = server.text(&["audit", "export"]);
    server.text(&["network", "create", "roof"]);
    let verify = |server: &Server, witness: &str| {
        std::fs::write(&file, witness).unwrap();
        let output = server.command(&["audit", "verify", "--witness", &path]);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, told) = verify(&server, &head);
    assert!(
        code == Some(0) && told.contains("all rows up to 3") && told.contains("the 1 rows behind"),
        "{told}"
    );
    assert!(server.text(&["audit", "verify"]).contains("--witness"), "what is not proved is said");
    let (code, told) = verify(&server, &head.replace("\"seq\":3", "\"seq\":2"));
    assert!(
        code == Some(0) && told.contains("signature that is wrong") && told.contains("proves nothing"),
        "{told}"
    );
    let (code, told) = verify(&server, "not a witness");
    assert!(code == Some(1) && told.contains("line 1"), "{told}");

    // Filters find rows; the whole is verified all the same.
    let found = |arguments: &[&str]| -> Vec<Value> {
        let all = server.json(&[&["audit", "list"], arguments].concat());
        assert_eq!(all["chain"]["intact"], true);
        all["rows"].as_array().unwrap().clone()
    };
    assert_eq!(found(&["--action", "network", "--about", "yard"]).len(), 1);
    assert_eq!(found(&["--action", "net"]).len(), 0, "words, not parts of them");
    assert_eq!(found(&["--actor", "coordinator"]).len(), 1);
    assert_eq!((found(&["--actor", "uid"]).len(), found(&["--since", "1h"]).len()), (3, 4));
    assert_eq!(found(&["--until", "2026-01-01"]).len(), 0);
    let syslog = server.text(&["audit", "export", "--format", "syslog", "--after", "3"]);
    assert!(
        syslog.lines().count() == 1 && syslog.starts_with("<109>1 ") && syslog.contains("roof"),
        "{syslog}"
    );

    server.kill();
    rewrite(&server, 2).await;
    server.start_again();
    assert!(server.command(&["audit", "verify"]).status.success(), "by itself it looks well");
    let (code, told) = verify(&server, &head);
    assert!(code == Some(1) && told.contains("row 3 is another"), "{told}");
    let (code, told) = verify(&server, &rows);
    assert!(code == Some(1) && told.contains("row 2 is another"), "{told}");

    // The end is cut off; this is found while no coordinator runs, too.
    server.kill();
    server.sql("DELETE FROM audit WHERE seq > 2").await;
    let (code, told) = verify(&server, &head);
    assert!(code == Some(1) && told.contains("row 3") && told.contains("cut off"), "{told}");
}
