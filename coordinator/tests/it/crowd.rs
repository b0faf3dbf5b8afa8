//! All come at once: with room for hardly anybody at a time, all get in, and others are served meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use ria_protocol::message::CoordinatorMessage;
use tokio::time::{Duration, sleep};

use crate::pages::Person;
use crate::support::robot::Connection;
use crate::support::{Robot, Server, soon};

const CROWD: usize = 120;

/// As an agent does: again, when it is told to or when the connection ends. How often it was told to.
async fn back_in(robot: &Robot, server: &Server) -> (Connection, usize) {
    let mut told = 0;
    loop {
        let Some(mut connection) = robot.try_connect(server.address).await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        connection.try_send(&robot.resume(None)).await;
        match connection.next_or_end().await {
            Some(CoordinatorMessage::Snapshot(snapshot)) => {
                assert_eq!(snapshot.members.len(), CROWD + 1);
                return (connection, told);
            }
            Some(CoordinatorMessage::Drain(after)) => {
                assert!((2000..10_000).contains(&after), "{after}");
                told += 1;
                // A tenth of it, so that the test takes no longer than it has to.
                sleep(Duration::from_millis(u64::from(after) / 10)).await;
            }
            Some(other) => panic!("expected the map, got {other:?}"),
            None => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_in_through_a_narrow_door_and_others_are_served_meanwhile() {
    let server = Server::start_configured("[admission]\nhandshakes = 2\nresumes = 1\n");
    let ada = Person::owner(&server).await;
    let key = server.key(&["--reusable"]);
    let mut stays = Robot::new("stays", &key);
    let (mut staying, _) = stays.join(server.address, &key).await;
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut robot = Robot::new("robot", &key);
        drop(robot.enrol(server.address, &key).await);
        crowd.push(robot);
    }
    let before = server.resident_kib();

    // Somebody looks at pages all the while, each time by a connection of its own.
    let (all_in, looked) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let looking = async {
        while !all_in.load(Ordering::Relaxed) {
            assert_eq!(soon(ada.browser.get("/nodes")).await.status, 200);
            looked.fetch_add(1, Ordering::Relaxed);
        }
    };
    let coming = async {
        let back = join_all(crowd.iter().map(|robot| back_in(robot, &server))).await;
        all_in.store(true, Ordering::Relaxed);
        back
    };
    let (back, ()) = tokio::join!(coming, looking);
    assert!(looked.load(Ordering::Relaxed) > 0);
    let told: usize = back.iter().map(|(_, told)| told).sum();
    let mut unheard: BTreeSet<_> = crowd.iter().map(|robot| robot.node).collect();
    while !unheard.is_empty() {
        let news = staying.next_of(|message| match message {
            CoordinatorMessage::Live(news) => Some(news.members),
            _ => None,
        });
        for live in news.await.into_iter().filter(|live| live.online) {
            unheard.remove(&live.node);
        }
    }
    let online = server.json(&["node", "list"]);
    let online = online.as_array().unwrap().iter().filter(|node| node["online"] == true).count();
    assert_eq!(online, CROWD + 1);
    // Some tens of KiB for each that is connected; 120 maps at once would be more than that.
    let each = server.resident_kib().saturating_sub(before) / CROWD as u64;
    assert!(each < 256, "{each} KiB for each");

    let token = server.text(&["user", "token", "create", "ada", "--label", "p", "--scope", "metrics:read"]);
    let metrics = crate::support::web::Browser::token(server.address, &token).get("/metrics").await.text;
    let turned = format!("ria_admission_turned_away_total{{line=\"resume\"}} {told}\n");
    assert!(metrics.contains(&turned), "{told}: {metrics}");
    assert!(metrics.contains("ria_admission_waiting{line=\"resume\"} 0\n"), "{metrics}");
    assert!(metrics.contains("ria_admission_at_work{line=\"resume\"} 0\n"), "{metrics}");
    assert!(metrics.contains("ria_connections_refused_total 0\n"), "{metrics}");
}
