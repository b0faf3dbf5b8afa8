//! Which relays nodes are told of, with credentials of their own: the one within the coordinator, and those that an
//! administrator has added.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map;
use ria_protocol::time::UnixTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::RelaySettings;
use crate::relay::{Outside, Relay, RelayConfig, RelayCounters, RelayCredentials, RelayHandle, StreamDoor};
use crate::state::relay::RelayEntry;

/// The relay can't be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "the relay can't be started: {0}; set relay.listen to another address, or switch it off with relay.enabled = false"
)]
pub struct RelayStartError(#[from] io::Error);

impl RelaySettings {
    /// What a relay needs to know.
    fn to_config(&self, secret: [u8; 32]) -> io::Result<RelayConfig> {
        let mut config = RelayConfig::new(self.listen.clone(), secret);
        config.external.clone_from(&self.external);
        config.credentials = self.credentials;
        if let Some(ports) = &self.outside_ports {
            let allowed = self.outside_allow.clone();
            config.outside = Some(Outside::of_this_machine(ports.clone(), &self.external, allowed)?);
        }
        config.limits.bytes_per_second_of_node = self.node_bytes_per_second;
        if let Some(most) = self.node_allocations {
            config.limits.allocations_per_node = most;
        }
        Ok(config)
    }
}

/// Name of the relay within the coordinator.
pub const OWN_NAME: &str = "coordinator";

/// The relays of this coordinator.
pub struct Relays {
    own: Option<Own>,
    credentials: Duration,
    /// Sessions hear through it that there are others.
    changed: watch::Sender<()>,
}

/// Where a relay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    pub host: map::RelayHost,
    pub udp_port: u16,
    pub tls_port: Option<u16>,
}

struct Own {
    handle: RelayHandle,
    port: u16,
    tls_port: u16,
    secret: Zeroizing<[u8; 32]>,
}

impl Relays {
    /// Starts the relay within the coordinator, unless it is switched off. It runs until `stop`. `tls_port` is where nodes
    /// find the coordinator, and so the relay over TLS.
    pub fn start(
        settings: &RelaySettings,
        tls_port: u16,
        secret: Zeroizing<[u8; 32]>,
        stop: CancellationToken,
    ) -> Result<(Self, Option<JoinHandle<()>>), RelayStartError> {
        if !settings.enabled {
            return Ok((Self::new(None, settings.credentials), None));
        }
        let relay = Relay::bind(settings.to_config(*secret)?)?;
        let own = Own { handle: relay.handle(), port: relay.local_port(), tls_port, secret };
        let task = tokio::spawn(relay.run(stop));
        Ok((Self::new(Some(own), settings.credentials), Some(task)))
    }

    fn new(own: Option<Own>, credentials: Duration) -> Self {
        Self { own, credentials, changed: watch::Sender::new(()) }
    }

    /// Where the relay within the coordinator is, unless it is switched off.
    pub fn own(&self) -> Option<Place> {
        let place = |own: &Own| Place {
            name: OWN_NAME.to_owned(),
            host: map::RelayHost::Coordinator,
            udp_port: own.port,
            tls_port: Some(own.tls_port),
        };
        self.own.as_ref().map(place)
    }

    /// Fresh credentials of a node for each relay: the coordinator's own and the others, in this order for all nodes.
    pub fn issue(
        &self,
        others: &[Arc<RelayEntry>],
        (network, node): (NetworkId, NodeId),
        now: UnixTime,
    ) -> Vec<map::Relay> {
        let expires = now.plus(self.credentials);
        let own =
            self.own.as_ref().zip(self.own()).map(|(own, place)| {
                listed(place, &RelayCredentials::issue(&own.secret, network, node, expires))
            });
        let others = others.iter().map(|relay| {
            let place = Place {
                name: relay.name.to_string(),
                host: map::RelayHost::Name(relay.host.clone()),
                udp_port: relay.udp_port,
                tls_port: None,
            };
            listed(place, &RelayCredentials::issue_turn(&relay.secret, node, expires))
        });
        own.into_iter().chain(others).collect()
    }

    /// Tells all sessions that there are other relays now.
    pub fn set_changed(&self) {
        self.changed.send_replace(());
    }

    /// Hears of it.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Where clients of the relay come in that speak to it over streams, where there is a relay.
    pub fn door(&self) -> Option<&StreamDoor> {
        self.own.as_ref().map(|own| own.handle.door())
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

fn listed(place: Place, issued: &RelayCredentials) -> map::Relay {
    map::Relay {
        name: place.name,
        host: place.host,
        udp_port: place.udp_port,
        username: issued.username.clone(),
        password: issued.password.clone(),
        expires: issued.expires,
        tls_port: place.tls_port,
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
            Some(own) => write!(f, "UDP port {}, TLS as port {}", own.port, own.tls_port),
            None => f.write_str("off"),
        }
    }
}
