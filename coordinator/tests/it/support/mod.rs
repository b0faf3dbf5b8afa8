//! A coordinator to test, and a robot to test it with.

pub mod postgres;
pub mod provider;
pub mod robot;
pub mod server;
pub mod web;

pub use robot::{Connection, Robot, Start};
pub use server::Server;

use std::future::Future;
use std::time::Duration;

/// Longer than anything takes, shorter than anybody waits.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What comes of `future`, in time.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened in time")
}

/// Waits until something is so.
pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < end, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
