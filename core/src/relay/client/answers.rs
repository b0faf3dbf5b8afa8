//! What the server's answers, and their absence, do to the allocation and its channels.

use std::time::{Duration, Instant};

use stun_types::attribute::ErrorCode;
use stun_types::message::{Message, MessageClass};

use super::requests::{Purpose, Request};
use super::{KEEPALIVE, LIFETIME, Pace, RelayClient, State};
use crate::relay::message::{self, Challenge, Signer};
use crate::relay::{RelayEvent, RelayFailure, RelayInput};
use crate::stun::{Randomness, parse};

/// Wait after an attempt that nothing answered, which took seconds itself, for so many in a row: some ten minutes, in which
/// a network that comes back is to be noticed at once.
const UNANSWERED: (Duration, u32) = (Duration::from_millis(250), 120);

/// First and longest wait after a failure.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Between attempts while another way serves.
const SPARED_EVERY: Duration = Duration::from_secs(4);

/// A nonce may go stale again between challenge and answer; a server that does it more often is not for us.
const MAX_CHALLENGES: u8 = 3;

impl RelayClient {
    pub(super) fn handle_message<'a>(&mut self, datagram: &'a [u8], now: Instant) -> RelayInput<'a> {
        let Some(message) = parse(datagram) else { return RelayInput::Consumed };
        if let Some((peer, payload)) = message::data_indication(&message, datagram) {
            self.note_received();
            return RelayInput::FromPeer { peer, payload };
        }
        let id = message.transaction_id();
        let answers = |request: &Request| request.id == id && request.purpose.method() == message.method();
        if let Some(index) = self.requests.iter().position(answers) {
            match message.class() {
                MessageClass::Success => self.handle_success(index, &message, now),
                MessageClass::Error => self.handle_error(index, &message, now),
                MessageClass::Request | MessageClass::Indication => {}
            }
            self.bind_due(now);
        } else {
            self.handle_answer_again(&message, now);
        }
        RelayInput::Consumed
    }

    /// The request for this allocation was answered before. When the server grants it again, with another address, the one
    /// before has been ended: by a Release of the attempt before, sent twice, whose second copy was overtaken. As its
    /// answers may have been overtaken, too, which address it is now can't be told.
    fn handle_answer_again(&mut self, message: &Message<'_>, now: Instant) {
        let Some((id, signer)) = &self.granted else { return };
        let is_grant = message.class() == MessageClass::Success
            && message.method() == Purpose::Allocate.method()
            && message.transaction_id() == *id
            && signer.verify(message);
        let Some(granted) = message::granted(message).filter(|_| is_grant) else { return };
        if self.relayed_address().is_some_and(|own| own != granted.relayed) {
            self.events.push_back(RelayEvent::Lost(RelayFailure::Mismatch));
            (self.granted, self.released, self.state) = (None, true, State::Allocating);
            self.requests.clear();
            self.send(Purpose::Release, 0, now);
        }
    }

    fn handle_success(&mut self, index: usize, message: &Message<'_>, now: Instant) {
        let signed = self.requests.get(index).and_then(|request| request.signer.as_ref());
        if !signed.is_some_and(|signer| signer.verify(message)) {
            return;
        }
        let request = self.requests.swap_remove(index);
        self.note_received();
        match request.purpose {
            Purpose::Allocate => {
                self.granted = request.signer.map(|signer| (request.id, signer));
                self.handle_allocated(message, now);
            }
            Purpose::Refresh => self.handle_refreshed(message, now),
            Purpose::Adopt => {
                if let Some(credentials) = self.next_credentials.take() {
                    self.credentials = credentials;
                    self.signer = request.signer;
                }
                self.handle_refreshed(message, now);
            }
            Purpose::Reclaim => self.handle_reclaimed(message, now),
            Purpose::Release if self.state == State::Releasing => self.state = State::Released,
            Purpose::Release => self.allocate_behind(&request, now),
            Purpose::Bind { peer, .. } => {
                if self.channels.handle_bound(peer, now) {
                    self.events.push_back(RelayEvent::ChannelBound { peer });
                }
            }
        }
    }

    fn handle_error(&mut self, index: usize, message: &Message<'_>, now: Instant) {
        let code = message::error_code(message);
        let challenged = matches!(code, ErrorCode::UNAUTHORIZED | ErrorCode::STALE_NONCE);
        let Some(request) = self.requests.get(index) else { return };
        if challenged && let Some(challenge) = message::challenge(message) {
            let request = self.requests.swap_remove(index);
            self.note_received();
            self.handle_challenge(&request, code, challenge, now);
            return;
        }
        // Everything but a challenge is believed only with the server's signature (RFC 8489, section 9.2.5).
        if !request.signer.as_ref().is_some_and(|signer| signer.verify(message)) {
            return;
        }
        let request = self.requests.swap_remove(index);
        self.note_received();
        if request.purpose == Purpose::Allocate && code == ErrorCode::ADDRESS_FAMILY_NOT_SUPPORTED && !self.v6
        {
            self.v6 = true;
            self.send(Purpose::Allocate, 0, now);
            return;
        }
        let reason = RelayFailure::from_code(code);
        if request.purpose == Purpose::Release
            && reason == RelayFailure::Mismatch
            && self.state != State::Releasing
        {
            // There was nothing to release after all.
            return self.allocate_behind(&request, now);
        }
        self.handle_failure(request.purpose, reason, now);
    }

    /// Allocates when nothing is left of a release on its way: packets overtake each other.
    fn allocate_behind(&mut self, release: &Request, now: Instant) {
        match release.timer.copies_until(now) {
            Some(until) => self.state = State::Clearing { until },
            None => self.send(Purpose::Allocate, 0, now),
        }
    }

    fn handle_challenge(&mut self, request: &Request, code: u16, challenge: Challenge, now: Instant) {
        let used = request.signer.as_ref().map(Signer::nonce);
        let refused = code == ErrorCode::UNAUTHORIZED && used == Some(challenge.nonce.as_str());
        // With a wrong password some servers hand out a fresh nonce for ever.
        let tired = request.challenges >= MAX_CHALLENGES
            || (code == ErrorCode::UNAUTHORIZED && request.challenges > 1);
        if self.challenge.as_ref() != Some(&challenge) {
            self.signer = None;
            self.challenge = Some(challenge);
        }
        if refused || tired {
            self.handle_failure(request.purpose, RelayFailure::Unauthorized, now);
        } else {
            self.send(request.purpose, request.challenges + 1, now);
        }
    }

    fn handle_allocated(&mut self, message: &Message<'_>, now: Instant) {
        let Some(granted) = message::granted(message) else {
            self.handle_failure(Purpose::Allocate, RelayFailure::Refused(0), now);
            return;
        };
        (self.failures, self.former) = (0, None);
        self.mapped = granted.mapped.or(self.mapped);
        let refresh_at = self.refresh_time(message, now);
        self.state = State::Allocated { relayed: granted.relayed, refresh_at };
        self.channels.start_over(now);
        self.unheard_since = None;
        self.events.push_back(RelayEvent::Allocated { relayed: granted.relayed, mapped: self.mapped });
        if self.next_credentials.is_some() {
            self.send(Purpose::Adopt, 0, now);
        }
    }

    /// The server has held the allocation of before; its channels may have lapsed.
    fn handle_reclaimed(&mut self, message: &Message<'_>, now: Instant) {
        let Some(relayed) = self.former.take() else { return };
        self.failures = 0;
        let refresh_at = self.refresh_time(message, now);
        self.state = State::Allocated { relayed, refresh_at };
        self.channels.bind_again(now);
        self.events.push_back(RelayEvent::Allocated { relayed, mapped: self.mapped });
        if self.next_credentials.is_some() {
            self.send(Purpose::Adopt, 0, now);
        }
    }

    fn handle_refreshed(&mut self, message: &Message<'_>, now: Instant) {
        let next = self.refresh_time(message, now);
        if let State::Allocated { refresh_at, .. } = &mut self.state {
            *refresh_at = next;
        }
    }

    fn refresh_time(&mut self, message: &Message<'_>, now: Instant) -> Instant {
        let lifetime = Duration::from_secs(message::lifetime(message).unwrap_or(LIFETIME).into());
        let longest = self.randomness.jitter(KEEPALIVE * 4 / 5);
        now + longest.min(lifetime / 2).max(Duration::from_secs(1))
    }

    pub(super) fn handle_failure(&mut self, purpose: Purpose, reason: RelayFailure, now: Instant) {
        if self.state == State::Releasing {
            // There is none any more, or it ends with its lifetime.
            self.state = State::Released;
            return;
        }
        match purpose {
            Purpose::Reclaim if reason != RelayFailure::NoAnswer => {
                self.former = None;
                self.send(Purpose::Allocate, 0, now);
            }
            Purpose::Allocate if reason == RelayFailure::Mismatch && !self.released => {
                self.released = true;
                self.send(Purpose::Release, 0, now);
            }
            Purpose::Allocate | Purpose::Reclaim | Purpose::Release => self.wait(reason, now),
            // The old credentials serve on until the allocation ends.
            Purpose::Adopt => {}
            Purpose::Refresh => self.lose(reason, now),
            Purpose::Bind { .. } if matches!(reason, RelayFailure::Mismatch | RelayFailure::Unauthorized) => {
                self.lose(reason, now);
            }
            Purpose::Bind { peer, .. } => {
                let randomness = &mut self.randomness;
                self.channels.handle_failed(peer, now, |failures| back_off(randomness, failures));
                self.events.push_back(RelayEvent::ChannelFailed { peer, reason });
            }
        }
    }

    pub(super) fn wait(&mut self, reason: RelayFailure, now: Instant) {
        let until = now
            + match self.pace {
                Pace::Spared => self.randomness.jitter(SPARED_EVERY),
                Pace::Steady if reason == RelayFailure::NoAnswer && self.failures < UNANSWERED.1 => {
                    self.randomness.jitter(UNANSWERED.0)
                }
                Pace::Steady | Pace::Reliable => back_off(&mut self.randomness, self.failures),
            };
        self.failures += 1;
        self.requests.clear();
        self.state = State::Waiting { until };
        self.events.push_back(RelayEvent::Failed { reason, retry_at: until });
    }

    fn lose(&mut self, reason: RelayFailure, now: Instant) {
        let relayed = self.relayed_address();
        if relayed.is_some() {
            self.events.push_back(RelayEvent::Lost(reason));
        }
        self.former = relayed.filter(|_| reason == RelayFailure::NoAnswer);
        self.allocate(now);
    }

    pub(super) fn allocate(&mut self, now: Instant) {
        if let Some(credentials) = self.next_credentials.take() {
            self.credentials = credentials;
            self.signer = None;
        }
        self.requests.clear();
        self.outbox.clear();
        (self.released, self.granted) = (false, None);
        self.unheard_since = None;
        self.state = State::Allocating;
        // As long as nothing is heard, no request may be made that would have an effect if only its answer got lost.
        let purpose = if self.former.is_some() { Purpose::Reclaim } else { Purpose::Allocate };
        self.send(purpose, 0, now);
    }

    pub(super) fn bind_due(&mut self, now: Instant) {
        while self.relayed_address().is_some()
            && let Some((channel, peer)) = self.channels.poll_due(now)
        {
            self.send(Purpose::Bind { channel, peer }, 0, now);
        }
    }
}

/// Doubles with each failure in a row, with jitter.
fn back_off(randomness: &mut Randomness, failures: u32) -> Duration {
    let (first, longest) = BACK_OFF;
    randomness.jitter(first.saturating_mul(1 << failures.min(10)).min(longest))
}
