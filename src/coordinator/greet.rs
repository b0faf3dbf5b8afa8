//! From URLs to a coordinator that is believed: connection, greeting, and the judgement of its certificate's time.

use std::net::IpAddr;

use ria_protocol::message::Welcome;
use ria_protocol::time::UnixTime;
use tokio::time::Instant;

use super::dial::{DialError, Dialled, dial};
use super::freshness;
use super::reach::Reach;
use super::stream::{Stream, StreamError};
use super::tls::CoordinatorTls;

/// A coordinator that has greeted.
pub struct Greeted {
    /// Where to go on.
    pub stream: Stream,
    /// Its first words.
    pub welcome: Welcome,
    /// Which URL answered.
    pub url: String,
    /// Its address, unless a proxy hides it.
    pub address: Option<IpAddr>,
    /// What binds proofs to this connection.
    pub exporter: [u8; 32],
    /// Its clock.
    pub time: CoordinatorTime,
}

/// The coordinator's clock, as it was told at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoordinatorTime {
    told: UnixTime,
    at: Instant,
    proven: bool,
}

impl CoordinatorTime {
    /// What was told just now; `proven` when the authority has signed it.
    pub fn new(told: UnixTime, at: Instant, proven: bool) -> Self {
        Self { told, at, proven }
    }

    /// What the coordinator's clock shows by now.
    pub fn now(&self, now: Instant) -> UnixTime {
        self.told.plus(now.saturating_duration_since(self.at))
    }

    /// The time to remember, where `known` was remembered before: only the authority's word puts it back.
    pub fn remembered(&self, known: UnixTime, now: Instant) -> UnixTime {
        if self.proven { self.now(now) } else { self.now(now).max(known) }
    }
}

/// No coordinator that is believed.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    /// No connection, or not with the right one.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Connects to the first URL that answers, and greets.
pub async fn greet(reach: &Reach, urls: &[String], tls: &CoordinatorTls) -> Result<Greeted, GreetError> {
    let Dialled { socket, url, address, exporter, chain } = dial(reach, urls, &tls.config).await?;
    let (stream, welcome) = Stream::open(socket).await?;
    let proven = freshness::judge(tls, &chain, &exporter, &welcome)
        .map_err(|how| DialError::WrongTime { host: url.clone(), how: how.to_string() })?;
    let time = CoordinatorTime::new(welcome.time, Instant::now(), proven);
    Ok(Greeted { stream, welcome, url, address, exporter, time })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_remembered_time_is_put_back_by_the_authority_only() {
        let at = Instant::now();
        let later = at + Duration::from_secs(60);
        let told = |proven| CoordinatorTime::new(UnixTime(1000), at, proven);
        assert_eq!(told(false).remembered(UnixTime(500), later), UnixTime(1060));
        assert_eq!(told(false).remembered(UnixTime(5000), later), UnixTime(5000));
        assert_eq!(told(true).remembered(UnixTime(5000), later), UnixTime(1060));
    }
}
