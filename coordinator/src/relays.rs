//! Which relays nodes are told of, with credentials of their own; today the one within the coordinator.

use std::fmt;
use std::io;
use std::time::Duration;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map;
use ria_protocol::time::UnixTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::RelaySettings;
use crate::relay::{Relay, RelayConfig, RelayCounters, RelayCredentials, RelayHandle};

/// The relay can't be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "the relay can't be started: {0}; set relay.listen to another address, or switch it off with relay.enabled = false"
)]
pub struct RelayStartError(#[from] io::Error);

/// The relays of this coordinator.
pub struct Relays {
    own: Option<Own>,
    credentials: Duration,
}

struct Own {
    handle: RelayHandle,
    port: u16,
    secret: Zeroizing<[u8; 32]>,
}

impl Relays {
    /// Starts the relay within the coordinator, unless it is switched off. It runs until `stop`.
    pub fn start(
        settings: &RelaySettings,
        secret: Zeroizing<[u8; 32]>,
        stop: CancellationToken,
    ) -> Result<(Self, Option<JoinHandle<()>>), RelayStartError> {
        if !settings.enabled {
            return Ok((Self { own: None, credentials: settings.credentials }, None));
        }
        let mut config = RelayConfig::new(settings.listen.clone(), *secret);
        config.external.clone_from(&settings.external);
        config.credentials = settings.credentials;
        let relay = Relay::bind(config)?;
        let own = Own { handle: relay.handle(), port: relay.local_port(), secret };
        let task = tokio::spawn(relay.run(stop));
        Ok((Self { own: Some(own), credentials: settings.credentials }, Some(task)))
    }

    /// Fresh credentials of a node for each relay.
    pub fn issue(&self, network: NetworkId, node: NodeId, now: UnixTime) -> Vec<map::Relay> {
        let entry = |own: &Own| {
            let issued = RelayCredentials::issue(&own.secret, network, node, now.plus(self.credentials));
            map::Relay {
                name: "coordinator".to_owned(),
                host: map::RelayHost::Coordinator,
                udp_port: own.port,
                username: issued.username.clone(),
                password: issued.password.clone(),
                expires: issued.expires,
                tls_port: None,
            }
        };
        self.own.iter().map(entry).collect()
    }

    /// A node is no member any more, or disabled: its credentials are refused from now on.
    pub fn revoke(&self, node: NodeId) {
        if let Some(own) = &self.own {
            own.handle.revoke(node);
        }
    }

    /// A node may take part again: its credentials are good again.
    pub fn readmit(&self, node: NodeId) {
        if let Some(own) = &self.own {
            own.handle.readmit(node);
        }
    }

    /// What the relay has done, where there is one.
    pub fn counters(&self) -> Option<RelayCounters> {
        self.own.as_ref().map(|own| own.handle.counters())
    }

    /// How often a node is given fresh credentials.
    pub fn renewed_every(&self) -> Duration {
        self.credentials / 2
    }

    /// Nodes that were removed after this time may still have credentials that look good.
    pub fn credentials_since(&self, now: UnixTime) -> UnixTime {
        UnixTime(now.0.saturating_sub(self.credentials.as_secs()))
    }
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relays({self})")
    }
}

impl fmt::Display for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.own {
            Some(own) => write!(f, "UDP port {}", own.port),
            None => f.write_str("off"),
        }
    }
}
