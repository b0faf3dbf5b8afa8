//! A peer's probes: what it is asked and what it answers, and what follows from either.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Action, Peer};
use crate::counters::DropReason;
use crate::packet::Class;
use crate::path::probe::{Clock, Probe, ProbeKind, ReplayWindow, Skills};
use crate::path::{Address, PathState};

/// What a probe tells besides.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    /// Only what all probes tell that have room for it.
    None,
    /// Where somebody is seen from outside.
    Address(SocketAddr),
    /// The time, or that it is asked for.
    Clock(Clock),
}

impl Peer {
    /// A datagram with this pair's tag came.
    pub(crate) fn handle_probe(
        &mut self,
        datagram: &[u8],
        via: Address,
        local: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let probe = self.keys.open(datagram).ok_or(DropReason::Unauthentic)?;
        if self.boot == Some(probe.boot) && !self.window.take(probe.number) {
            return Err(DropReason::Replayed);
        }
        self.participants = probe.participants.or(self.participants);
        self.learn_skills(&probe);
        match probe.kind {
            ProbeKind::Ping => {
                if self.boot == Some(probe.boot) {
                    self.follow(&probe, via, now);
                }
                self.handle_ping(&probe, via, local, now);
            }
            ProbeKind::Pong => {
                self.handle_pong(&probe, via, now)?;
                self.meet(probe.boot, now);
            }
        }
        self.update(now);
        Ok(())
    }

    fn handle_ping(&mut self, ping: &Probe, via: Address, local: Option<IpAddr>, now: Instant) {
        if self.boot == Some(ping.boot) {
            self.link.heard(now);
        } else if self.next_boot.is_none_or(|(boot, _)| boot != ping.boot) {
            self.next_boot = Some((ping.boot, now));
        }
        let told = match (ping.clock, self.own_clock, via) {
            (Clock::Asked(_), Some(own), _) => Word::Clock(Clock::Told(own.told(now))),
            (_, _, Address::Direct(address)) => Word::Address(address),
            (_, _, Address::Relayed(..)) => Word::None,
        };
        self.send((ProbeKind::Pong, Class::Urgent), ping.echo, told, (via, local));
        // A ping is a good moment for one of our own: the NATs on the way have just been opened.
        self.add_path(via, false);
        let known_run = self.boot == Some(ping.boot);
        let asks = self.own_clock.is_some() && self.clock.handle_ping(ping.clock, now);
        if let Some(path) = self.path_mut(via) {
            if known_run {
                path.handle_peers_ping(now);
            }
            if asks {
                path.owe_ping();
            }
            let wanted = path.state != PathState::Proven || !known_run;
            if wanted && !path.pinged_lately(now) {
                self.ping_path(via, now);
            } else if !known_run {
                // The last one went to the run before; only an answer by the new one ends the session with that.
                path.owe_ping();
            }
        }
    }

    fn handle_pong(&mut self, pong: &Probe, via: Address, now: Instant) -> Result<(), DropReason> {
        if self.take_queue_answer(pong, via, now) || self.take_size_answer(pong, via, now) {
            return Ok(());
        }
        let path = self.path_mut(via).ok_or(DropReason::Unexpected)?;
        let rtt = path.handle_pong(pong.echo, now).ok_or(DropReason::Unexpected)?;
        if let Clock::Told(told) = pong.clock {
            self.clock.handle_told(told, rtt, now);
        } else {
            path.observed = pong.observed;
        }
        if self.active == Some(via) {
            self.pacer.note_rtt(rtt, now);
        }
        self.link.heard(now);
        // It answers a ping of ours, so its boot id is the present one.
        if self.boot != Some(pong.boot) {
            let since = self.next_boot.filter(|(boot, _)| *boot == pong.boot).map_or(now, |(_, at)| at);
            // Also at first contact: a session may be there with a run of before, whose handshake came when no pong had
            // yet, and whose timestamps this run's may not reach.
            self.actions.push_back(Action::ReplaceSession { since });
            self.boot = Some(pong.boot);
            self.next_boot = None;
            self.clock.forget();
            self.window = ReplayWindow::default();
            self.window.take(pong.number);
            for path in &mut self.paths {
                path.measure_anew(now);
                // The two are in touch, perhaps by the relay only: now is the time to open NATs for each other.
                path.burst();
            }
        }
        self.pings.handle_pong(pong.echo, rtt, via, &mut self.actions);
        Ok(())
    }

    /// A ping that went out then for another purpose was answered.
    pub(super) fn note_sign(&mut self, via: Address, asked: Instant, now: Instant) {
        self.link.heard(now);
        if let Some(path) = self.path_mut(via) {
            path.handle_sign(asked, now);
        }
    }

    pub(super) fn ping_path(&mut self, address: Address, now: Instant) -> u64 {
        let echo = self.rng.u64();
        let wanted = self.own_clock.filter(|_| self.clock.wants(now));
        if let Some(path) = self.path_mut(address) {
            path.handle_ping_sent(echo, now);
            let from = path.from;
            // A direct path is to tell first where this node is seen.
            let may_ask = path.state == PathState::Proven && (path.is_relayed() || path.observed.is_some());
            let told = match wanted.filter(|_| may_ask) {
                Some(own) => {
                    self.clock.handle_asked(now);
                    Word::Clock(Clock::Asked(own.told(now)))
                }
                None => self.word_by(address),
            };
            self.send((ProbeKind::Ping, Class::Urgent), echo, told, (address, from));
        }
        echo
    }

    /// What a ping this way tells. Over a relay, where this node is: the coordinator may be away.
    pub(super) fn word_by(&self, address: Address) -> Word {
        match (self.reflexive, address) {
            (Some(reflexive), Address::Relayed(..)) => Word::Address(reflexive),
            _ => Word::None,
        }
    }

    pub(super) fn send(
        &mut self,
        what: (ProbeKind, Class),
        echo: u64,
        told: Word,
        way: (Address, Option<IpAddr>),
    ) {
        self.send_filled(what, echo, told, way, 0);
    }

    pub(super) fn send_filled(
        &mut self,
        (kind, class): (ProbeKind, Class),
        echo: u64,
        told: Word,
        (address, from): (Address, Option<IpAddr>),
        size: usize,
    ) {
        self.number += 1;
        let (observed, clock) = match told {
            Word::None => (None, Clock::Silent),
            Word::Address(address) => (Some(address), Clock::Silent),
            Word::Clock(clock) => (None, clock),
        };
        let participants = observed.is_none().then_some(self.own_participants);
        let (boot, number, skills) = (self.own_boot, self.number, Some(Skills::OWN));
        let probe = Probe { kind, boot, number, echo, observed, participants, skills, clock };
        let datagram = self.keys.seal(&probe, &mut self.rng);
        self.actions.push_back(Action::Send { address, from, class, datagram, size });
    }
}
