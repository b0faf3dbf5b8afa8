//! Turns the daemon's one "something changed" into notices that name what did.

use std::collections::BTreeMap;
use std::sync::Arc;

use ria_api::server::Notice;
use ria_api::state::NetworkSummary;
use ria_protocol::id::NetworkId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::daemon::handle::{DaemonHandle, NetworkView, State};

/// Passes changes and events on until the daemon's loop ends.
pub async fn pass_on(handle: &DaemonHandle, notices: &broadcast::Sender<Notice>) {
    let mut changes = handle.changes();
    let mut events = handle.events();
    let Ok(mut known) = handle.state().await else { return };
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
                Ok(event) => tell(notices, [Notice::Happened(event)]),
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
    use super::*;

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
