//! Pings that somebody asked for: each waits for the link, then for its answer, and ends in time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Action, kind};
use crate::engine::command::PingId;
use crate::engine::event::PingOutcome;
use crate::path::Address;

#[derive(Debug)]
struct Waiting {
    id: PingId,
    deadline: Instant,
    echo: Option<u64>,
}

/// The pings of one peer.
#[derive(Debug, Default)]
pub(crate) struct Pings(Vec<Waiting>);

impl Pings {
    pub(crate) fn start(&mut self, id: PingId, deadline: Instant) {
        self.0.push(Waiting { id, deadline, echo: None });
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|ping| ping.deadline).min()
    }

    /// A ping that has not gone yet.
    pub(crate) fn next_waiting(&self) -> Option<PingId> {
        self.0.iter().find(|ping| ping.echo.is_none()).map(|ping| ping.id)
    }

    pub(crate) fn handle_sent(&mut self, id: PingId, echo: u64) {
        if let Some(ping) = self.0.iter_mut().find(|ping| ping.id == id && ping.echo.is_none()) {
            ping.echo = Some(echo);
        }
    }

    pub(crate) fn handle_pong(
        &mut self,
        echo: u64,
        rtt: Duration,
        via: Address,
        actions: &mut VecDeque<Action>,
    ) {
        self.0.retain(|ping| {
            if ping.echo != Some(echo) {
                return true;
            }
            let outcome = PingOutcome::Answered { rtt, path: kind(Some(via)), endpoint: via.socket() };
            actions.push_back(Action::PingFinished { id: ping.id, outcome });
            false
        });
    }

    pub(crate) fn expire(&mut self, now: Instant, actions: &mut VecDeque<Action>) {
        self.0.retain(|ping| {
            if ping.deadline > now {
                return true;
            }
            let outcome = if ping.echo.is_some() { PingOutcome::NoAnswer } else { PingOutcome::NoPath };
            actions.push_back(Action::PingFinished { id: ping.id, outcome });
            false
        });
    }

    /// The peer is removed.
    pub(crate) fn close(&mut self, actions: &mut VecDeque<Action>) {
        for ping in self.0.drain(..) {
            actions.push_back(Action::PingFinished { id: ping.id, outcome: PingOutcome::UnknownPeer });
        }
    }
}
