//! A peer's side of pacing: how full the path in use is, asked by pings that wait where packets do.

use std::time::Instant;

use super::Peer;
use crate::packet::Class;
use crate::path::Address;
use crate::path::probe::{Probe, ProbeKind};

impl Peer {
    /// How many bytes of this class may go out now.
    pub(crate) fn allowance(&mut self, class: Class, now: Instant) -> usize {
        self.pacer.allowance(class, now)
    }

    /// So many bytes of packets have gone out; whether it is time for [`Self::ask_queue`].
    pub(crate) fn handle_sent(&mut self, bytes: usize, now: Instant) -> bool {
        self.pacer.handle_sent(bytes, now);
        // The boot id is known once it has answered a ping, so it runs an agent.
        self.boot.is_some() && self.active.is_some() && self.pacer.asks(now)
    }

    /// Sends a ping behind the packets that have just gone out.
    pub(crate) fn ask_queue(&mut self, now: Instant) {
        let Some(address) = self.active else { return };
        let echo = self.rng.u64();
        self.pacer.handle_asked(echo, now);
        let from = self.paths.iter().find(|path| path.address == address).and_then(|path| path.from);
        let told = self.word_by(address);
        self.send((ProbeKind::Ping, Class::Prompt), echo, told, (address, from));
    }

    /// Whether a pong answers one of these pings.
    pub(super) fn take_queue_answer(&mut self, pong: &Probe, via: Address, now: Instant) -> bool {
        let ours = self.active == Some(via) && self.boot == Some(pong.boot);
        let Some(asked) = ours.then(|| self.pacer.handle_answer(pong.echo, now)).flatten() else {
            return false;
        };
        self.note_sign(via, asked, now);
        true
    }
}
