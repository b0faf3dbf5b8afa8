//! The state of the link to a peer: a path that answers and a session together make it up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Action;
use crate::engine::status::{LinkState, PathKind};

/// Loss from which a link counts as degraded, and below which it is well again.
const DEGRADED_FROM: f32 = 0.15;
const WELL_BELOW: f32 = 0.05;

/// How long a link that was up may be without session before it counts as lost: a peer that restarted is back within
/// a handshake, which nobody needs to hear of.
const SESSION_GRACE: Duration = Duration::from_millis(1500);

/// The link to one peer.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) state: LinkState,
    session: bool,
    /// Since when there is no session although there was one.
    without_session: Option<Instant>,
    pub(crate) heard: Option<Instant>,
    /// When something came last before the link was lost.
    lost_after: Option<Instant>,
    was_up: bool,
    /// The path that is in use, or was before none was.
    last_path: PathKind,
    /// The path of before the link was lost.
    lost_path: PathKind,
}

/// What the state of a link follows from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// Whether there is any way to try.
    pub(crate) known: bool,
    /// Loss and doubt of the path in use, when one works.
    pub(crate) quality: Option<(f32, bool)>,
    /// The path in use.
    pub(crate) path: PathKind,
    /// Why it is this one.
    pub(crate) reason: &'static str,
}

impl Link {
    /// Something authentic came from the peer.
    pub(crate) fn heard(&mut self, at: Instant) {
        self.heard = self.heard.max(Some(at));
    }

    pub(crate) fn handle_session(&mut self, ready: bool, now: Instant) {
        self.without_session = if ready { None } else { Some(now) };
        self.session = ready;
    }

    pub(crate) fn has_session(&self) -> bool {
        self.session
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Up | LinkState::Degraded)
    }

    pub(crate) fn was_up(&self) -> bool {
        self.was_up
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.without_session.filter(|_| self.is_up()).map(|since| since + SESSION_GRACE)
    }

    /// For how long nothing has come through, while the link is lost.
    pub(crate) fn lost_for(&self, now: Instant) -> Option<Duration> {
        self.lost_after.map(|at| now.saturating_duration_since(at))
    }

    /// Works the state out anew.
    pub(crate) fn update(&mut self, situation: Situation, now: Instant, actions: &mut VecDeque<Action>) {
        let after = self.next(situation.known, situation.quality, now);
        self.change(after, situation, now, actions);
    }

    fn change(
        &mut self,
        after: LinkState,
        Situation { path, reason, .. }: Situation,
        now: Instant,
        actions: &mut VecDeque<Action>,
    ) {
        let (before, was_up) = (self.state, self.is_up());
        if after != before {
            self.state = after;
            self.was_up |= self.is_up();
            let (mut gap, mut path_before) = (None, if was_up { path } else { PathKind::None });
            if after == LinkState::Lost {
                path_before = self.last_path;
                (self.lost_after, self.lost_path) = (self.heard, self.last_path);
            } else if before == LinkState::Lost && self.is_up() {
                path_before = self.lost_path;
                gap = self.lost_after.take().map(|at| now.saturating_duration_since(at));
            }
            let paths = (path_before, path);
            actions.push_back(Action::LinkChanged { before, after, gap, paths, reason });
        }
        if path != PathKind::None {
            self.last_path = path;
        }
    }

    /// The same for a peer that answers no probes: `state` follows from its handshakes and from what it leaves unanswered.
    pub(crate) fn set(
        &mut self,
        after: LinkState,
        situation: Situation,
        now: Instant,
        actions: &mut VecDeque<Action>,
    ) {
        self.change(after, situation, now, actions);
    }

    fn next(&self, known: bool, quality: Option<(f32, bool)>, now: Instant) -> LinkState {
        let without = if self.was_up {
            LinkState::Lost
        } else if known {
            LinkState::Connecting
        } else {
            LinkState::Idle
        };
        let Some((loss, suspect)) = quality else { return without };
        if !self.session {
            let grace = self.deadline().is_some_and(|until| now < until);
            return if grace { self.state } else { without };
        }
        let stays = self.state == LinkState::Degraded && (suspect || loss >= WELL_BELOW);
        if stays || loss >= DEGRADED_FROM { LinkState::Degraded } else { LinkState::Up }
    }
}
