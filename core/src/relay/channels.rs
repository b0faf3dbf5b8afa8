//! Which channel number stands for which peer, and when it is bound again.
//!
//! A binding can't be taken back: it lapses on the server ten minutes after it was last asked for, and its number may
//! go to another peer five minutes later (RFC 8656, section 12). So the entry of a peer that left stays that long.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::TooManyPeers;

/// First channel number (RFC 8656, section 12).
const FIRST: u16 = 0x4000;

/// Number of channels.
const COUNT: u16 = 0x1000;

/// A bind also renews the permission, which lives five minutes; one minute is left for retransmissions.
const REBIND: Duration = Duration::from_secs(240);

/// How long a number belongs to its peer after the last bind.
const LAPSE: Duration = Duration::from_secs(900);

#[derive(Debug)]
struct Channel {
    number: u16,
    wanted: bool,
    bound: bool,
    failures: u32,
    /// When to ask next; `None` while a request is under way.
    ask_at: Option<Instant>,
    /// When the number is free again.
    lapses_at: Instant,
}

/// The channels of one allocation.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_peer: BTreeMap<SocketAddr, Channel>,
    /// Peer of channel `FIRST + index`.
    by_number: Vec<Option<SocketAddr>>,
}

impl Channels {
    /// Wants a channel to a peer from now on.
    pub(super) fn connect(&mut self, peer: SocketAddr, now: Instant) -> Result<(), TooManyPeers> {
        if let Some(channel) = self.by_peer.get_mut(&peer) {
            if !channel.wanted {
                channel.wanted = true;
                channel.ask_at = Some(now);
            }
            return Ok(());
        }
        self.drop_lapsed(now);
        let number = self.take_number(peer).ok_or(TooManyPeers)?;
        let channel = Channel {
            number,
            wanted: true,
            bound: false,
            failures: 0,
            ask_at: Some(now),
            lapses_at: now + LAPSE,
        };
        self.by_peer.insert(peer, channel);
        Ok(())
    }

    fn take_number(&mut self, peer: SocketAddr) -> Option<u16> {
        if let Some(index) = self.by_number.iter().position(Option::is_none) {
            *self.by_number.get_mut(index)? = Some(peer);
            return u16::try_from(index).ok().map(|index| FIRST + index);
        }
        let index = u16::try_from(self.by_number.len()).ok().filter(|index| *index < COUNT)?;
        self.by_number.push(Some(peer));
        Some(FIRST + index)
    }

    /// Lets a peer's channel lapse.
    pub(super) fn disconnect(&mut self, peer: SocketAddr) {
        if let Some(channel) = self.by_peer.get_mut(&peer) {
            channel.wanted = false;
            channel.bound = false;
            channel.ask_at = None;
        }
    }

    fn drop_lapsed(&mut self, now: Instant) {
        let numbers = &mut self.by_number;
        self.by_peer.retain(|_, channel| {
            let keep = channel.wanted || now < channel.lapses_at;
            if !keep && let Some(slot) = numbers.get_mut(usize::from(channel.number - FIRST)) {
                *slot = None;
            }
            keep
        });
    }

    /// The number bound to a peer.
    pub(super) fn number(&self, peer: SocketAddr) -> Option<u16> {
        self.by_peer.get(&peer).filter(|channel| channel.bound).map(|channel| channel.number)
    }

    /// Whether a channel to this peer is wanted.
    pub(super) fn wants(&self, peer: SocketAddr) -> bool {
        self.by_peer.get(&peer).is_some_and(|channel| channel.wanted)
    }

    /// The peer behind a number. The server may use it before the answer to the bind arrives.
    pub(super) fn peer(&self, number: u16) -> Option<SocketAddr> {
        self.by_number.get(usize::from(number.checked_sub(FIRST)?)).copied().flatten()
    }

    /// The next bind that is due; the caller sends it and reports the outcome.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<(u16, SocketAddr)> {
        let due = |channel: &Channel| channel.wanted && channel.ask_at.is_some_and(|at| at <= now);
        let (peer, channel) = self.by_peer.iter_mut().find(|(_, channel)| due(channel))?;
        channel.ask_at = None;
        Some((channel.number, *peer))
    }

    /// When the next bind is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_peer.values().filter_map(|channel| channel.ask_at).min()
    }

    /// A bind succeeded; returns whether the channel is usable now and was not before.
    pub(super) fn handle_bound(&mut self, peer: SocketAddr, now: Instant) -> bool {
        let Some(channel) = self.by_peer.get_mut(&peer) else { return false };
        channel.lapses_at = now + LAPSE;
        channel.failures = 0;
        let new = channel.wanted && !channel.bound;
        channel.bound = channel.wanted;
        channel.ask_at = channel.wanted.then_some(now + REBIND);
        new
    }

    /// A bind failed; `back_off` maps the number of failures in a row to a wait.
    pub(super) fn handle_failed(
        &mut self,
        peer: SocketAddr,
        now: Instant,
        back_off: impl FnOnce(u32) -> Duration,
    ) {
        let Some(channel) = self.by_peer.get_mut(&peer).filter(|channel| channel.wanted) else { return };
        channel.bound = false;
        channel.ask_at = Some(now + back_off(channel.failures));
        channel.failures += 1;
    }

    /// The allocation is the one of before, but what was bound may have lapsed.
    pub(super) fn bind_again(&mut self, now: Instant) {
        for channel in self.by_peer.values_mut().filter(|channel| channel.wanted) {
            (channel.bound, channel.ask_at) = (false, Some(now));
        }
    }

    /// The allocation is gone: forgets numbers, keeps the wish for each wanted peer, to be asked for at `now`.
    pub(super) fn start_over(&mut self, now: Instant) {
        let wanted: Vec<_> =
            self.by_peer.iter().filter(|(_, channel)| channel.wanted).map(|(peer, _)| *peer).collect();
        *self = Self::default();
        for peer in wanted {
            // There were numbers for more peers than these.
            let _ = self.connect(peer, now);
        }
    }
}
