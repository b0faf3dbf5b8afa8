//! Pings that somebody has asked for; each peer sends its own.

use std::time::Instant;

use ria_protocol::id::{NetworkId, NodeId};

use super::command::{CommandError, PingId};
use super::control::Control;
use super::event::{Event, PingOutcome};

impl Control {
    pub(super) fn start_ping(
        &mut self,
        (network, peer): (NetworkId, NodeId),
        id: PingId,
        until: Instant,
        now: Instant,
    ) -> Result<(), CommandError> {
        if self.network(network)?.peers.contains_key(&peer) {
            self.with_peer((network, peer), now, |peer| peer.start_ping(id, until, now));
        } else {
            let outcome = PingOutcome::UnknownPeer;
            self.events.push_back(Event::PingFinished { id, network, peer, outcome });
        }
        Ok(())
    }
}
