//! Turns the daemon's one "something changed" into notices that name what did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ria_api::server::Notice;
use ria_api::state::NetworkSummary;
use ria_protocol::id::NetworkId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::daemon::handle::{DaemonHandle, NetworkView, State};

/// Events that are passed on at once, and how many a second after that; changes come at most four times a second anyway.
/// What is left out shows as a gap in the numbers of the events, and in what status and peers say.
const BURST: f64 = 200.0;
const EVENTS_PER_SECOND: f64 = 50.0;

/// Lets so many events pass that a flood of them costs the programs that listen little.
struct Tap {
    level: f64,
    since: Instant,
}

impl Tap {
    fn new(now: Instant) -> Self {
        Self { level: BURST, since: now }
    }

    fn lets_pass(&mut self, now: Instant) -> bool {
        let refill = now.duration_since(self.since).as_secs_f64() * EVENTS_PER_SECOND;
        self.level = (self.level + refill).min(BURST);
        self.since = now;
        let open = self.level >= 1.0;
        if open {
            self.level -= 1.0;
        }
        open
    }
}

/// Passes changes and events on until the daemon's loop ends.
pub async fn pass_on(handle: &DaemonHandle, notices: &broadcast::Sender<Notice>) {
    let mut changes = handle.changes();
    let mut events = handle.events();
    let Ok(mut known) = handle.state().await else { return };
    let mut tap = Tap::new(Instant::now());
    loop {
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                let Ok(now) = handle.state().await else { return };
                tell(notices, differences(&known, &now));
                known = now;
            }
            event = events.recv() => match event {
                Ok(event) if tap.lets_pass(Instant::now()) => tell(notices, [Notice::Happened(event)]),
                Ok(_) => {}
                // Some are lost to everybody; their numbers show it.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
    }
}

fn tell(notices: &broadcast::Sender<Notice>, all: impl IntoIterator<Item = Notice>) {
    for notice in all {
        // An error means that no client is there.
        let _ = notices.send(notice);
    }
}

fn differences(before: &Arc<State>, now: &Arc<State>) -> Vec<Notice> {
    let listed = |state: &State| -> BTreeMap<String, NetworkSummary> {
        state.agent.networks.iter().map(|n| (n.id.clone(), n.clone())).collect()
    };
    let networks = (listed(before) != listed(now)).then_some(Notice::NetworksChanged);
    let same = |id, view: &NetworkView| {
        before.networks.get(id).is_some_and(|old| old.status == view.status && old.peers == view.peers)
    };
    let changed = now.networks.iter().filter(|(id, view)| !same(*id, view));
    let notice = |(id, view): (&NetworkId, &NetworkView)| Notice::Changed(*id, Arc::new(view.status.clone()));
    networks.into_iter().chain(changed.map(notice)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_of_events_becomes_a_trickle() {
        let begin = Instant::now();
        let mut tap = Tap::new(begin);
        let passed = |tap: &mut Tap, at| (0..10_000).filter(|_| tap.lets_pass(at)).count();
        assert_eq!(passed(&mut tap, begin), 200);
        assert_eq!(passed(&mut tap, begin + Duration::from_secs(1)), 50);
        assert_eq!(passed(&mut tap, begin + Duration::from_secs(3600)), 200);
    }

    #[test]
    fn only_what_changed_is_named() {
        let (lab, field) = (NetworkId::from_bytes([1; 10]), NetworkId::from_bytes([2; 10]));
        let mut state = State::default();
        state.networks.insert(lab, NetworkView::default());
        state.networks.insert(field, NetworkView::default());
        let before = Arc::new(state.clone());
        assert_eq!(differences(&before, &before), []);

        let view = state.networks.get_mut(&field).unwrap();
        view.status.rx_bytes = 7;
        let counted = Arc::new(state.clone());
        let status = Arc::new(counted.networks[&field].status.clone());
        assert_eq!(differences(&before, &counted), [Notice::Changed(field, status)]);

        state.agent.networks.push(NetworkSummary::default());
        assert_eq!(differences(&counted, &Arc::new(state)), [Notice::NetworksChanged]);
    }
}
