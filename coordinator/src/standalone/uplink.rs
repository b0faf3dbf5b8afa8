//! The conversation with the coordinator (see [`ria_protocol::relay`]): kept up for as long as the relay runs, begun again
//! whenever it breaks.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rcgen::{CertificateParams, KeyPair};
use ria_protocol::message::{from_bytes, to_bytes};
use ria_protocol::relay::{FromRelay, RELAY_PROTOCOL, RelayHello, RelayPlace, RelayRefusal, ToRelay};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::client::{Link, LinkError, Trust, connect, floor_of};
use super::load;
use super::terms::Obedience;
use crate::random;
use crate::relay::RelayHandle;

/// How often the coordinator hears what there is to do.
const LOAD_EVERY: Duration = Duration::from_secs(2);
/// The coordinator pings every 5 s; one that was silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(14);
/// What can't be handed to the kernel for so long goes to nobody.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits between attempts, doubling.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the connection to the coordinator broke: {0}")]
    Broken(String),
    #[error("the coordinator says nothing any more")]
    Silent,
    #[error("the coordinator can't be understood ({0}); update the older of the two")]
    Malformed(String),
    #[error("the coordinator stops, and says to come back")]
    Drained(Duration),
    #[error("{}", .0.text)]
    Refused(RelayRefusal),
    #[error("what the coordinator says can't be followed: {0}")]
    Terms(String),
    #[error("this relay's own key is of no use: {0}")]
    Key(String),
}

/// Keeps a relay in touch with its coordinator.
pub(super) struct Uplink {
    obedience: Obedience,
    relay: RelayHandle,
    place: RelayPlace,
    /// What was said in the log last of why there is no connection.
    complaint: String,
    /// Whether this connection has come as far as to terms.
    connected: bool,
}

impl Uplink {
    pub fn new(obedience: Obedience, relay: RelayHandle, place: RelayPlace) -> Self {
        Self { obedience, relay, place, complaint: String::new(), connected: false }
    }

    /// Works until `stop`, or until the coordinator refuses this relay for good.
    pub async fn run(mut self, stop: CancellationToken) -> Option<RelayRefusal> {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let ended = stop.run_until_cancelled(self.converse()).await?;
            self.connected = false;
            if begun.elapsed() > LONGEST_WAIT {
                failures = 0;
            }
            let wait = match ended {
                Ended::Refused(refusal) if !refusal.code.is_temporary() => {
                    self.obedience.forget();
                    return Some(refusal);
                }
                Ended::Drained(after) => {
                    tracing::info!("the coordinator stops; this relay goes on by what it said last");
                    after
                }
                other @ (Ended::Link(_)
                | Ended::Broken(_)
                | Ended::Silent
                | Ended::Malformed(_)
                | Ended::Refused(_)
                | Ended::Terms(_)
                | Ended::Key(_)) => {
                    self.complain(&other.to_string());
                    backoff(failures)
                }
            };
            failures += 1;
            stop.run_until_cancelled(tokio::time::sleep(wait)).await?;
        }
    }

    /// Says why there is no connection, once as long as it stays the same.
    fn complain(&mut self, why: &str) {
        if self.complaint == why {
            tracing::debug!(why, "no connection to the coordinator");
            return;
        }
        let meanwhile = if self.obedience.has_terms() {
            "this relay goes on by what it said last"
        } else {
            "this relay serves nobody yet"
        };
        tracing::warn!(why, "no connection to the coordinator; {meanwhile}, and tries again");
        why.clone_into(&mut self.complaint);
    }

    async fn converse(&mut self) -> Ended {
        match self.try_converse().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_converse(&mut self) -> Result<Never, Ended> {
        let key =
            self.obedience.stored().identity.key_pair().map_err(|error| Ended::Key(error.to_string()))?;
        let mut link = self.connect(&key).await?;
        send(&mut link, &FromRelay::Hello(self.hello(&key)?)).await?;
        let mut report = interval(LOAD_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_at = Instant::now() + SILENCE;
        loop {
            let received = tokio::select! {
                biased;
                received = link.next() => received,
                () = tokio::time::sleep_until(silent_at) => return Err(Ended::Silent),
                _ = report.tick() => {
                    send(&mut link, &FromRelay::Load(load(&self.relay))).await?;
                    continue;
                }
            };
            silent_at = Instant::now() + SILENCE;
            let message = received.ok_or_else(|| Ended::Broken("it was closed".to_owned()))?;
            match message.map_err(|error| Ended::Broken(error.to_string()))? {
                Message::Binary(bytes) => {
                    let said = from_bytes(&bytes).map_err(|error| Ended::Malformed(error.to_string()))?;
                    self.handle(said)?;
                }
                Message::Close(_) => return Err(Ended::Broken("it was closed".to_owned())),
                Message::Text(_) => return Err(Ended::Malformed("text".to_owned())),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Connects where the coordinator answers first; the error is that of the first URL.
    async fn connect(&self, key: &KeyPair) -> Result<Link, Ended> {
        let stored = self.obedience.stored();
        let mut failed: Option<LinkError> = None;
        for url in stored.urls() {
            let trust = Trust { pins: stored.trusts(), floor: floor_of(stored.terms.as_ref()) };
            match connect(&url, key, trust).await {
                Ok(link) => return Ok(link),
                Err(error) => _ = failed.get_or_insert(error),
            }
        }
        Err(failed.unwrap_or_else(|| LinkError::Url("this relay knows no URL".to_owned())).into())
    }

    fn hello(&self, key: &KeyPair) -> Result<RelayHello, Ended> {
        let request = CertificateParams::default().serialize_request(key);
        let identity = &self.obedience.stored().identity;
        Ok(RelayHello {
            protocol_min: RELAY_PROTOCOL,
            protocol_max: RELAY_PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: identity.name.clone(),
            // Once it is known by its TLS key, the secret has no use; it still tells a lost key from a wrong one.
            secret: Some(identity.secret.clone()),
            csr: request.map_err(|error| Ended::Key(error.to_string()))?.der().to_vec(),
            place: self.place.clone(),
        })
    }

    fn handle(&mut self, said: ToRelay) -> Result<(), Ended> {
        match said {
            ToRelay::Terms(terms) => {
                self.obedience.handle_terms(terms).map_err(|error| Ended::Terms(error.to_string()))?;
                if !std::mem::replace(&mut self.connected, true) {
                    tracing::info!("connected to the coordinator; serving");
                }
                self.complaint.clear();
            }
            ToRelay::Deny(nodes) => self.obedience.deny(&nodes),
            ToRelay::Admit(nodes) => self.obedience.admit(&nodes),
            ToRelay::Refused(refusal) => return Err(Ended::Refused(refusal)),
            ToRelay::Drain(after) => return Err(Ended::Drained(Duration::from_millis(after.into()))),
        }
        Ok(())
    }
}

/// A conversation has no result but its end.
enum Never {}

async fn send(link: &mut Link, message: &FromRelay) -> Result<(), Ended> {
    let sending = link.send(Message::Binary(to_bytes(message).into()));
    let sent = timeout(SEND_TIMEOUT, sending).await.map_err(|_| Ended::Silent)?;
    sent.map_err(|error| Ended::Broken(error.to_string()))
}

/// Between half and all of a wait that doubles.
fn backoff(failures: u32) -> Duration {
    let full = FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT);
    full.mul_f64(0.5 + f64::from(u16::from_le_bytes(random::bytes())) / f64::from(u16::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_never_overflow() {
        assert!((FIRST_WAIT / 2..=FIRST_WAIT).contains(&backoff(0)));
        for failures in [5, 10, 1000, u32::MAX] {
            assert!((LONGEST_WAIT / 2..=LONGEST_WAIT).contains(&backoff(failures)), "{failures}");
        }
    }
}
