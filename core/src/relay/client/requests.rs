//! The client's requests: why each is sent, how it is signed, and when it is sent again.

use std::time::{Duration, Instant};

use std::net::SocketAddr;
use stun_types::message::{StunWriteError, TransactionId};

use super::{LIFETIME, Pace, RelayClient, State};
use crate::relay::RelayFailure;
use crate::relay::message::{self, Ask, Signer};
use crate::stun::{Due, Outgoing, Retransmission, Schedule};

/// Six transmissions within 4.75 s. A relay is near, or its path lossy, and a robot waits for it: so it starts faster
/// than the 500 ms that RFC 8489 has for the general case, and after an outage is back within a second.
const SCHEDULE: Schedule = Schedule {
    initial: Duration::from_millis(250),
    longest: Duration::from_secs(1),
    sends: 6,
    last: Duration::from_secs(1),
};

/// Two transmissions, to find out whether UDP has opened.
const SPARED_SCHEDULE: Schedule = Schedule { sends: 2, last: Duration::from_millis(750), ..SCHEDULE };

/// One, with as much time as the others have together. RFC 8489 waits 39.5 s, far longer than a robot should.
const STREAM_SCHEDULE: Schedule = Schedule { sends: 1, initial: Duration::from_secs(7), ..SCHEDULE };

/// Why a request was sent; there is at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Allocate,
    Refresh,
    /// A refresh of an allocation that the server may have held while nothing came through.
    Reclaim,
    /// A refresh signed with the new credentials: the server may let them take over the allocation.
    Adopt,
    /// Ends the allocation, or one that an earlier run of this agent left behind on the same port.
    Release,
    Bind {
        channel: u16,
        peer: SocketAddr,
    },
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: TransactionId,
    pub(super) purpose: Purpose,
    pub(super) bytes: Vec<u8>,
    pub(super) signer: Option<Signer>,
    pub(super) challenges: u8,
    pub(super) timer: Retransmission,
    /// Whether anything came from the server since it was sent.
    pub(super) heard: bool,
}

impl RelayClient {
    fn signer_for(&mut self, purpose: Purpose) -> Option<Signer> {
        let challenge = self.challenge.as_ref()?;
        if purpose == Purpose::Adopt {
            return self.next_credentials.as_ref().map(|credentials| Signer::new(credentials, challenge));
        }
        if self.signer.is_none() {
            self.signer = Some(Signer::new(&self.credentials, challenge));
        }
        self.signer.clone()
    }

    pub(super) fn send(&mut self, purpose: Purpose, challenges: u8, now: Instant) {
        let id = self.randomness.transaction_id();
        let signer = self.signer_for(purpose);
        let written: Result<_, StunWriteError> = message::request(purpose.ask(self.v6), id, signer.as_ref());
        let Ok(bytes) = written else {
            self.handle_unusable(purpose, now);
            return;
        };
        self.requests.retain(|request| request.purpose != purpose);
        self.outbox.push_back(Outgoing { to: self.server, payload: bytes.clone() });
        if self.deaf_since().is_none() {
            self.deaf_since = Some(now);
        }
        let timer = Retransmission::sent(self.pace.schedule(), now);
        self.requests.push(Request { id, purpose, bytes, signer, challenges, timer, heard: false });
    }

    /// A user name, realm or nonce too long for STUN: without a signature no request can be made.
    fn handle_unusable(&mut self, purpose: Purpose, now: Instant) {
        if self.state == State::Releasing {
            self.state = State::Released;
            return;
        }
        match purpose {
            Purpose::Adopt => self.next_credentials = None,
            Purpose::Allocate
            | Purpose::Refresh
            | Purpose::Reclaim
            | Purpose::Release
            | Purpose::Bind { .. } => {
                self.challenge = None;
                self.signer = None;
                self.wait(RelayFailure::Unusable, now);
            }
        }
    }

    pub(super) fn handle_request_timers(&mut self, now: Instant) {
        let mut unanswered = Vec::new();
        let (outbox, server) = (&mut self.outbox, self.server);
        self.requests.retain_mut(|request| match request.timer.handle_timeout(now) {
            Due::Nothing => true,
            Due::Resend => {
                outbox.push_back(Outgoing { to: server, payload: request.bytes.clone() });
                true
            }
            Due::GiveUp => {
                unanswered.push((request.purpose, request.heard));
                false
            }
        });
        for (purpose, heard) in unanswered {
            if heard && purpose == Purpose::Refresh {
                // It was lost on the way, but the server is there: after an outage data may be back before the answer.
                self.send(purpose, 0, now);
            } else {
                self.handle_failure(purpose, RelayFailure::NoAnswer, now);
            }
        }
    }
}

impl Pace {
    const fn schedule(self) -> Schedule {
        match self {
            Self::Steady => SCHEDULE,
            Self::Spared => SPARED_SCHEDULE,
            Self::Reliable => STREAM_SCHEDULE,
        }
    }
}

impl Purpose {
    const fn ask(self, v6: bool) -> Ask {
        match self {
            Self::Allocate => Ask::Allocate { v6 },
            Self::Refresh | Self::Reclaim | Self::Adopt => Ask::Refresh { lifetime: LIFETIME },
            Self::Release => Ask::Refresh { lifetime: 0 },
            Self::Bind { channel, peer } => Ask::Bind { channel, peer },
        }
    }

    pub(super) const fn method(self) -> stun_types::message::Method {
        self.ask(false).method()
    }
}
