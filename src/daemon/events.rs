//! What happened, told to whoever listens: numbered, timed, in words.

use ria_api::state::{Event, PathKind, Severity};
use ria_protocol::id::NetworkId;
use tokio::sync::broadcast;

use super::conditions::seconds_now;

/// Events that a slow listener may lag behind.
const BACKLOG: usize = 256;

/// Numbers events and tells them.
pub struct EventLog {
    sender: broadcast::Sender<Event>,
    last: u64,
}

/// An event, before it has a number.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// How much it matters.
    pub severity: Severity,
    /// What.
    pub kind: &'static str,
    /// Peer's name.
    pub peer: String,
    /// State before.
    pub before: String,
    /// State after.
    pub after: String,
    /// In words.
    pub text: String,
    /// How long nothing came through, seconds.
    pub gap: Option<f64>,
    /// Paths before and now.
    pub paths: Option<(PathKind, PathKind)>,
}

impl EventLog {
    /// Without listeners yet.
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), last: 0 }
    }

    /// For listeners.
    pub fn sender(&self) -> broadcast::Sender<Event> {
        self.sender.clone()
    }

    /// Tells an event of a network.
    pub fn tell(&mut self, network: NetworkId, draft: Draft) -> Event {
        self.last += 1;
        tracing::debug!(%network, kind = draft.kind, peer = draft.peer, "{}", draft.text);
        let event = Event {
            seq: self.last,
            time: seconds_now(),
            severity: draft.severity,
            kind: draft.kind.into(),
            network_id: network.to_string(),
            peer: draft.peer,
            before: draft.before,
            after: draft.after,
            text: draft.text,
            gap: draft.gap,
            path_before: draft.paths.map(|(before, _)| before),
            path_after: draft.paths.map(|(_, after)| after),
        };
        // Without listeners there is nobody to tell.
        let _ = self.sender.send(event.clone());
        event
    }
}
