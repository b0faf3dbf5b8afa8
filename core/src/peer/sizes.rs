//! A peer's side of the search for what the path in use carries whole, and what the peer has told that it knows.

use std::time::{Duration, Instant};

use super::Peer;
use crate::packet::Class;
use crate::path::Address;
use crate::path::probe::{Probe, ProbeKind};
use crate::relay::Transport;
use crate::session::OVERHEAD;
use crate::stun::CHANNEL_HEADER;

/// Without traffic for so long, a path that carries all is not asked again.
const USED_FOR: Duration = Duration::from_secs(30);

impl Peer {
    /// A probe may tell what the peer knows.
    pub(super) fn learn_skills(&mut self, probe: &Probe) {
        let present = self.boot.is_none_or(|boot| boot == probe.boot);
        if let Some(skills) = probe.skills.filter(|skills| present && *skills != self.skills) {
            self.skills = skills;
            if self.active.is_some() {
                self.set_route();
            }
        }
    }

    /// The UDP payload that a full packet becomes, on paths that are no streams.
    fn full_size(&self) -> Option<u16> {
        let header = match self.active? {
            Address::Direct(_) => 0,
            Address::Relayed(Transport::Udp, _) => CHANNEL_HEADER,
            Address::Relayed(Transport::Tls, _) => return None,
        };
        u16::try_from(usize::from(self.mtu) + OVERHEAD + header).ok()
    }

    pub(super) fn sizes_deadline(&self, now: Instant) -> Option<Instant> {
        let used = self.traffic.active.is_some_and(|at| now.saturating_duration_since(at) < USED_FOR);
        let settled = self.sizes.carries().is_some() && !self.sizes.is_small();
        self.sizes.deadline().filter(|_| used || !settled)
    }

    /// Begins the search, once the peer is known to answer.
    pub(super) fn begin_sizes(&mut self, now: Instant) {
        if self.skills.answers_sizes()
            && !self.sizes.has_begun()
            && let Some(full) = self.full_size()
        {
            self.sizes.begin(full, now);
        }
    }

    /// Asks what is due.
    pub(super) fn ask_sizes(&mut self, now: Instant) {
        let was_small = self.sizes.is_small();
        if self.sizes_deadline(now).is_some_and(|at| at <= now)
            && let Some(size) = self.sizes.poll(now)
        {
            self.ask_size(size, now);
        }
        self.follow_sizes(was_small);
    }

    fn ask_size(&mut self, size: u16, now: Instant) {
        let Some(address) = self.active else { return };
        let path = self.paths.iter().find(|path| path.address == address);
        let (from, rtt) = path.map_or((None, Duration::ZERO), |path| (path.from, path.rtt()));
        let echo = self.rng.u64();
        self.sizes.handle_sent(echo, rtt, now);
        let header = if matches!(address, Address::Direct(_)) { 0 } else { CHANNEL_HEADER };
        let told = self.word_by(address);
        let filled = usize::from(size).saturating_sub(header);
        self.send_filled((ProbeKind::Ping, Class::Urgent), echo, told, (address, from), filled);
    }

    /// Whether a pong answers one of these pings.
    pub(super) fn take_size_answer(&mut self, pong: &Probe, via: Address, now: Instant) -> bool {
        let was_small = self.sizes.is_small();
        let ours = self.active == Some(via) && self.boot == Some(pong.boot);
        let Some(asked) = ours.then(|| self.sizes.handle_answer(pong.echo, now)).flatten() else {
            return false;
        };
        self.note_sign(via, asked, now);
        self.follow_sizes(was_small);
        true
    }

    fn follow_sizes(&mut self, was_small: bool) {
        if self.sizes.is_small() != was_small && self.active.is_some() {
            self.set_route();
        }
    }
}
