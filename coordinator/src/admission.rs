//! How much is done at once for those who come: TLS handshakes, which cost time, and maps for members that resume, which cost
//! memory. The rest waits in the order in which it came, so that after a power cut those at the head are done with while the
//! others still wait, instead of all being too late together. Nodes and others (pages, relay) wait in lines of their own.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

use crate::config::AdmissionSettings;

/// A member waits for its map for so long, then comes again.
const MAP_PATIENCE: Duration = Duration::from_secs(10);
/// A handshake that takes longer waits for the other end's network, and keeps nobody else from theirs.
const LONGEST_AT_WORK: Duration = Duration::from_secs(1);
/// As many as this wait for each that is at work.
const WAITING_FOR_EACH: usize = 32;

/// The lines.
#[derive(Debug)]
pub struct Admission {
    /// Handshakes of nodes.
    pub nodes: Line,
    /// Handshakes of browsers, programs and the relay's clients.
    pub others: Line,
    /// Maps of members that resume.
    pub maps: Line,
    map_patience: Duration,
}

impl Admission {
    pub fn new(settings: AdmissionSettings) -> Self {
        let AdmissionSettings { handshakes, resumes } = settings;
        Self {
            nodes: Line::new(handshakes),
            others: Line::new(handshakes.div_ceil(2)),
            maps: Line::new(resumes),
            map_patience: MAP_PATIENCE,
        }
    }

    /// A place from which a member is told its map. `None`: it is to come again later.
    pub async fn map(&self) -> Option<Place<'_>> {
        timeout(self.map_patience, self.maps.enter()).await.unwrap_or_else(|_| {
            self.maps.turned_away.fetch_add(1, Ordering::Relaxed);
            None
        })
    }

    /// All of them, with their names in metrics.
    pub fn lines(&self) -> [(&'static str, &Line); 3] {
        [("node-handshake", &self.nodes), ("other-handshake", &self.others), ("resume", &self.maps)]
    }
}

/// Work of which only so much is done at once.
#[derive(Debug)]
pub struct Line {
    at_once: usize,
    places: Semaphore,
    waiting: AtomicUsize,
    turned_away: AtomicU64,
}

/// One is at work, for as long as this is kept.
pub type Place<'l> = SemaphorePermit<'l>;

/// One that waits; also when it gives up.
struct Waiting<'l>(&'l AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Line {
    fn new(at_once: usize) -> Self {
        let (places, waiting) = (Semaphore::new(at_once), AtomicUsize::new(0));
        Self { at_once, places, waiting, turned_away: AtomicU64::new(0) }
    }

    /// Waits for a place. `None`: there is no room to wait any more.
    pub async fn enter(&self) -> Option<Place<'_>> {
        // It has places only while nobody waits.
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if before >= self.at_once * WAITING_FOR_EACH {
            let count = self.turned_away.fetch_add(1, Ordering::Relaxed) + 1;
            // Said ever more rarely, so that nobody can fill the log.
            if count.is_power_of_two() {
                tracing::warn!(count, "more come at once than can wait; they come again later");
            }
            return None;
        }
        // It is never closed.
        let place = self.places.acquire().await.ok();
        drop(waiting);
        place
    }

    /// Does a handshake in its turn. `None`: there is no room to wait any more.
    pub async fn shake<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let place = self.enter().await?;
        let mut work = pin!(work);
        tokio::select! {
            done = &mut work => return Some(done),
            () = sleep(LONGEST_AT_WORK) => drop(place),
        }
        Some(work.await)
    }

    /// How many are at work.
    pub fn at_work(&self) -> usize {
        self.at_once - self.places.available_permits().min(self.at_once)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many were told to come again.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_wait_come_in_their_order_and_no_more_wait_than_there_is_room_for() {
        let line = Line::new(1);
        let first = line.enter().await.unwrap();
        assert_eq!((line.at_work(), line.waiting()), (1, 0));
        let mut waiting: Vec<_> = (0..WAITING_FOR_EACH).map(|_| Box::pin(line.enter())).collect();
        for one in &mut waiting {
            assert!(timeout(Duration::from_millis(1), one).await.is_err());
        }
        assert_eq!(line.waiting(), WAITING_FOR_EACH);
        assert!(line.enter().await.is_none());
        assert_eq!((line.waiting(), line.turned_away()), (WAITING_FOR_EACH, 1));
        // One that gives up makes room; who came first is let in first.
        drop(waiting.pop());
        assert_eq!(line.waiting(), WAITING_FOR_EACH - 1);
        drop(first);
        assert!(timeout(Duration::from_millis(1), &mut waiting[1]).await.is_err());
        let second = timeout(Duration::from_millis(1), &mut waiting[0]).await.unwrap();
        assert!(second.is_some() && line.at_work() == 1);
        drop((second, waiting));
        assert_eq!((line.at_work(), line.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn a_handshake_that_waits_for_the_network_keeps_nobody_from_theirs() {
        let line = Line::new(1);
        let mut slow = Box::pin(line.shake(std::future::pending::<()>()));
        assert!(timeout(Duration::from_millis(1), &mut slow).await.is_err() && line.at_work() == 1);
        let quick = async {
            tokio::select! { _ = &mut slow => None, quick = line.shake(async { 7 }) => quick }
        };
        assert_eq!(quick.await, Some(7));
        assert_eq!(line.at_work(), 0);
    }

    #[tokio::test]
    async fn a_member_that_waits_too_long_for_its_map_is_to_come_again() {
        let mut admission = Admission::new(AdmissionSettings { handshakes: 1, resumes: 1 });
        admission.map_patience = Duration::from_millis(5);
        let place = admission.map().await.unwrap();
        assert!(admission.map().await.is_none());
        assert_eq!((admission.maps.waiting(), admission.maps.turned_away()), (0, 1));
        drop(place);
        assert!(admission.map().await.is_some());
    }
}
