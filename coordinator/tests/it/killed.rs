//! The coordinator is killed, its power is cut, its disk is full or spoilt: what was said to be done is done, what was
//! not is not, and nothing is half done.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ria_coordinator::audit::Head;
use ria_coordinator::store::{AuditQuery, Store, file_url};
use ria_protocol::message::{CoordinatorMessage, NodeMessage};
use serde_json::Value;

use crate::support::{Robot, Server};

/// What a database says of itself: how many rows its log has, and whether members and log tell the same.
async fn examine(database: &Path) -> Result<Head, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let store = Store::open(&file_url(database)).await.map_err(|error| text(&error))?;
    let world = store.load().await.map_err(|error| text(&error))?;
    let query = AuditQuery { limit: usize::MAX, ..AuditQuery::default() };
    let (rows, verdict) = store.audit(query, world.audit_head).await.map_err(|error| text(&error))?;
    store.close().await;
    verdict.map_err(|broken| text(&broken))?;
    let mut logged = BTreeSet::new();
    for row in rows {
        let detail: Value = serde_json::from_str(&row.detail).map_err(|error| text(&error))?;
        match row.action.as_str() {
            "node.joined" => _ = logged.insert(detail["node"].as_str().unwrap_or_default().to_owned()),
            "node.removed" => _ = logged.remove(detail["node"].as_str().unwrap_or_default()),
            _ => {}
        }
    }
    let networks: Vec<_> = world.networks.values().collect();
    let members: BTreeSet<_> =
        networks.iter().flat_map(|n| n.members.keys()).map(ToString::to_string).collect();
    if members != logged {
        return Err(format!("members are {members:?}, the log says {logged:?}"));
    }
    // Each change of a map is there with its revision, or not at all.
    for network in networks {
        let last = network.log.back().map_or(network.revision, |change| change.set.to);
        if last != network.revision {
            return Err(format!("revision {:?}, last change {last:?}", network.revision));
        }
    }
    Ok(world.audit_head)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_has_done_what_it_said_and_nothing_by_halves() {
    let mut server = Server::start();
    // By id: a name that came free is given to the next one.
    let mut confirmed: BTreeSet<String> = BTreeSet::new();
    // Each round is killed a little later than the one before, in the middle of enrolments and removals.
    for round in 0..8_u64 {
        let key = server.key(&["--reusable"]);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::new(Mutex::new(Vec::new()));
        let work = tokio::spawn(enrol_until(server.address, key, stop.clone(), told.clone()));
        while told.lock().unwrap().is_empty() {
            assert!(!work.is_finished(), "nobody could enrol");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(35 * round)).await;
        let victim = confirmed.iter().next().cloned();
        let removal = victim.as_ref().map(|node| server.spawn_command(&["node", "remove", node]));
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        server.kill();
        stop.store(true, Ordering::Relaxed);
        work.await.unwrap();
        confirmed.extend(told.lock().unwrap().drain(..));
        let removed = removal.is_some_and(|mut child| child.wait().unwrap().success());
        server.start_again();

        let nodes = server.json(&["node", "list"]);
        let there: BTreeSet<String> =
            nodes.as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap().to_owned()).collect();
        if let Some(victim) = victim {
            assert!(!(removed && there.contains(&victim)), "{victim} was removed and is back");
            confirmed.remove(&victim);
        }
        let lost: Vec<_> = confirmed.difference(&there).collect();
        assert!(lost.is_empty(), "members that were told so are gone: {lost:?}");
        assert_eq!(server.json(&["audit", "verify"])["intact"], true);
    }
    server.kill();
    examine(&server.data_dir().join("coordinator.db")).await.unwrap();
}

/// Enrols one robot after the other until the coordinator is gone; `told` are those that were told to be members.
async fn enrol_until(
    address: std::net::SocketAddr,
    key: ria_protocol::join_key::JoinKey,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<String>>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let robot = Robot::new("robot", &key);
        let Some(mut connection) = robot.try_connect(address).await else { return };
        let request = robot.enrol_request(&connection, &key);
        connection.try_send(&NodeMessage::Enrol(request)).await;
        let Some(CoordinatorMessage::Enrolled(enrolled)) = connection.next_or_end().await else { return };
        told.lock().unwrap().push(enrolled.node.to_string());
    }
}

#[tokio::test]
async fn a_power_cut_leaves_the_state_before_or_after_a_change() {
    let mut server = Server::start();
    let key = server.key(&["--reusable"]);
    server.terminate();
    let directory = tempfile::tempdir().unwrap();
    let database = server.data_dir().join("coordinator.db");
    let before = fs::read(&database).unwrap();
    server.start_again();
    for name in ["a", "b", "c", "d"] {
        Robot::new(name, &key).enrol(server.address, &key).await;
    }
    server.text(&["node", "remove", "b"]);
    server.text(&["network", "create", "field"]);
    // Killed, so that everything since the last start is in the write-ahead log only.
    server.kill();
    let log = fs::read(server.data_dir().join("coordinator.db-wal")).unwrap();
    let whole = fs::read(&database).unwrap();
    let place = directory.path().join("coordinator.db");
    let put = |database: &[u8], log: &[u8]| {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(directory.path().join(format!("coordinator.db{suffix}")));
        }
        fs::write(&place, database).unwrap();
        fs::write(directory.path().join("coordinator.db-wal"), log).unwrap();
    };

    // The log is cut anywhere: at the borders of what SQLite wrote at once, one byte beside, and in between.
    const HEADER: usize = 32;
    const FRAME: usize = 24 + 4096;
    let frames = (log.len() - HEADER) / FRAME;
    let borders = (0..=frames).map(|n| HEADER + n * FRAME);
    let cuts = borders.flat_map(|at| [at.saturating_sub(1), at, at + 1, at + FRAME / 2]);
    let cuts: BTreeSet<usize> =
        [0, 1, HEADER - 1].into_iter().chain(cuts).filter(|at| *at <= log.len()).collect();
    let mut last = 0;
    let mut states = BTreeSet::new();
    for cut in &cuts {
        put(&whole, &log[..*cut]);
        let head = examine(&place).await.unwrap_or_else(|problem| panic!("cut at {cut}: {problem}"));
        assert!(head.seq >= last, "a longer log holds more");
        last = head.seq;
        states.insert(head.seq);
    }
    assert!(states.len() >= 6, "each change is a state of its own: {states:?}");

    // A disk that wrote the last part wrongly.
    for at in [log.len() - 1, log.len() - FRAME / 2, log.len() - FRAME + 3] {
        let mut torn = log.clone();
        torn[at] ^= 0xff;
        put(&whole, &torn);
        let head = examine(&place).await.unwrap();
        assert!(head.seq < last && states.contains(&head.seq), "{head:?}");
    }

    // The power fails while the log is written back: some pages of the database are the new ones, some not.
    put(&whole, &log);
    assert_eq!(examine(&place).await.unwrap().seq, last);
    let after = fs::read(&place).unwrap();
    let pages = after.len() / 4096;
    for step in 0..8 {
        let mut torn = before.clone();
        torn.resize(after.len().max(before.len()), 0);
        for page in (0..pages).filter(|page| page % 8 <= step) {
            torn[page * 4096..][..4096].copy_from_slice(&after[page * 4096..][..4096]);
        }
        put(&torn, &log);
        assert_eq!(examine(&place).await.unwrap().seq, last, "step {step}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_nothing_else_and_is_over_when_there_is_room() {
    let server = Server::start_on_small_disk("4m");
    let key = server.key(&["--reusable"]);
    let mut robot = Robot::new("robot", &key);
    let (mut session, _) = robot.join(server.address, &key).await;
    let disk = server.data_dir_inside();
    let filler = disk.join("filler");
    fill(&filler);

    let refused = server.refused_when_full();
    assert!(refused.contains("full") && refused.contains("make room"), "{refused}");
    let mut late = Robot::new("late", &key);
    let mut connection = late.connect(server.address).await;
    let request = late.enrol_request(&connection, &key);
    connection.send(&NodeMessage::Enrol(request)).await;
    assert_eq!(connection.refusal().await.code, ria_protocol::error::ErrorCode::Unavailable);
    // Who is a member is served as ever: by its session, a new one, and with a new certificate.
    session.send(&NodeMessage::Renew(robot.csr())).await;
    session.next_of(|m| matches!(m, CoordinatorMessage::Renewed(_)).then_some(())).await;
    drop(robot.come_back(server.address, None).await);
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(server.json(&["audit", "verify"])["intact"], true);

    fs::remove_file(filler).unwrap();
    late.enrol(server.address, &key).await;
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(server.json(&["audit", "verify"])["intact"], true);
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for size in [4096, 512, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[tokio::test]
async fn a_spoilt_database_is_refused_with_the_way_back() {
    let mut server = Server::start();
    let key = server.key(&["--reusable"]);
    for name in ["a", "b", "c"] {
        Robot::new(name, &key).enrol(server.address, &key).await;
    }
    server.terminate();
    let database = server.data_dir().join("coordinator.db");
    let whole = fs::read(&database).unwrap();
    let pages = whole.len() / 4096;
    let mut refused = 0;
    for page in 1..pages {
        let mut spoilt = whole.clone();
        spoilt[page * 4096..][..2048].fill(0xa5);
        fs::write(&database, spoilt).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(server.data_dir().join(format!("coordinator.db{suffix}")));
        }
        let output = server.command(&["audit", "verify"]);
        // A page that nothing is in may be as it likes.
        if output.status.code() == Some(1) {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(text.contains("backup") || text.contains("tampered"), "page {page}: {text}");
            refused += 1;
        }
    }
    assert!(refused * 2 > pages, "{refused} of {pages} spoilt pages were noticed");
    fs::write(&database, whole).unwrap();
    server.start_again();
    assert_eq!(server.json(&["audit", "verify"])["intact"], true);
}

impl Server {
    /// What an administrator is told who wants to make a key.
    fn refused_when_full(&self) -> String {
        let output = self.command(&["key", "create"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A coordinator whose data directory is a disk of this size, which nobody else sees.
    fn start_on_small_disk(size: &str) -> Self {
        Self::start_wrapped(|directory, program| {
            let mut command = Command::new("unshare");
            let script = "mount -t tmpfs -o size=\"$1\",mode=0700 tmpfs \"$2\" && shift 2 && exec \"$@\"";
            command.args(["--mount", "sh", "-c", script, "sh", size]).arg(directory).arg(program);
            command
        })
    }
}
