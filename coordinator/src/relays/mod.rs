//! Which relays nodes are told of, with credentials of their own: the one within the coordinator, and those that an
//! administrator has added. Those that run Ria's relay elsewhere connect here ([`crate::session`]) and hear whom they serve.

pub mod deny;
pub mod presence;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map;
use ria_protocol::relay::tls_name;
use ria_protocol::time::UnixTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::RelaySettings;
use crate::relay::{
    Outside, Relay, RelayConfig, RelayCounters, RelayCredentials, RelayHandle, StreamDoor, Terms,
};
use crate::state::relay::{RelayEntry, RelayKind, StandaloneRelay, TurnServer};
use deny::Denials;
use presence::RelayPresences;

/// The relay can't be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "the relay can't be started: {0}; set relay.listen to another address, or switch it off with relay.enabled = false"
)]
pub struct RelayStartError(#[from] io::Error);

impl RelaySettings {
    /// What a relay needs to know.
    pub(crate) fn to_config(&self, terms: Terms) -> io::Result<RelayConfig> {
        let mut config = RelayConfig::new(self.listen.clone(), terms);
        config.external.clone_from(&self.external);
        if let Some(ports) = &self.outside_ports {
            let allowed = self.outside_allow.clone();
            config.outside = Some(Outside::of_this_machine(ports.clone(), &self.external, allowed)?);
        }
        Ok(config)
    }

    /// Terms with this key and the bounds of these settings.
    pub(crate) fn terms(&self, secret: [u8; 32]) -> Terms {
        let usual = Terms::new(secret);
        Terms {
            bytes_per_second_of_node: self.node_bytes_per_second,
            allocations_per_node: self.node_allocations.unwrap_or(usual.allocations_per_node),
            ..usual
        }
    }
}

/// Name of the relay within the coordinator.
pub const OWN_NAME: &str = "coordinator";

/// The relays of this coordinator.
pub struct Relays {
    own: Option<Own>,
    /// Settings of the relay here, whose bounds hold for those elsewhere, too.
    settings: RelaySettings,
    /// Whom all of them refuse.
    pub denials: Denials,
    /// Which of those that run by themselves are connected.
    pub presences: RelayPresences,
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
            return Ok((Self::new(None, settings), None));
        }
        let relay = Relay::bind(settings.to_config(settings.terms(*secret))?)?;
        let own = Own { handle: relay.handle(), port: relay.local_port(), tls_port, secret };
        let task = tokio::spawn(relay.run(stop));
        Ok((Self::new(Some(own), settings), Some(task)))
    }

    fn new(own: Option<Own>, settings: &RelaySettings) -> Self {
        let (denials, presences) = (Denials::default(), RelayPresences::default());
        Self { own, settings: settings.clone(), denials, presences, changed: watch::Sender::new(()) }
    }

    /// Bounds of each relay.
    pub fn settings(&self) -> &RelaySettings {
        &self.settings
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
        let expires = now.plus(self.settings.credentials);
        let own =
            self.own.as_ref().zip(self.own()).map(|(own, place)| {
                listed(place, &RelayCredentials::issue(&own.secret, network, node, expires))
            });
        let others = others.iter().filter_map(|relay| match &relay.kind {
            RelayKind::Turn(server) => Some(turn_server(relay, server, (node, expires))),
            RelayKind::Standalone(own) => standalone(relay, own, (network, node), expires),
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
        let now = UnixTime::from(SystemTime::now());
        let until = now.plus(self.settings.credentials);
        self.denials.deny(node, until, now);
        if let Some(own) = &self.own {
            own.handle.revoke(node, until);
        }
    }

    /// A node may take part again: its credentials are good again.
    pub fn readmit(&self, node: NodeId) {
        self.denials.admit(node);
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
        self.settings.credentials / 2
    }

    /// Nodes that were removed after this time may still have credentials that look good.
    pub fn credentials_since(&self, now: UnixTime) -> UnixTime {
        UnixTime(now.0.saturating_sub(self.settings.credentials.as_secs()))
    }
}

/// As nodes are told of it.
fn turn_server(relay: &RelayEntry, server: &TurnServer, (node, expires): (NodeId, UnixTime)) -> map::Relay {
    let place = Place {
        name: relay.name.to_string(),
        host: map::RelayHost::Name(server.host.clone()),
        udp_port: server.udp_port,
        tls_port: server.tls.as_ref().map(|tls| tls.port),
    };
    let credentials = RelayCredentials::issue_turn(&server.secret, node, expires);
    let tls = server
        .tls
        .as_ref()
        .map(|tls| map::RelayTls { name: server.host.clone(), authorities: Some(tls.authorities.clone()) });
    map::Relay { tls, ..listed(place, &credentials) }
}

/// As nodes are told of it: once it has said where it is, and those of its networks.
fn standalone(
    relay: &RelayEntry,
    own: &StandaloneRelay,
    (network, node): (NetworkId, NodeId),
    expires: UnixTime,
) -> Option<map::Relay> {
    let known = own.place.as_ref().filter(|_| own.serves(network))?;
    let place = Place {
        name: relay.name.to_string(),
        host: map::RelayHost::Name(known.host.clone()),
        udp_port: known.udp_port,
        tls_port: known.tls_port,
    };
    let credentials = RelayCredentials::issue(&own.secret.0, network, node, expires);
    let tls = map::RelayTls { name: tls_name(&relay.name), authorities: None };
    Some(map::Relay { tls: Some(tls), ..listed(place, &credentials) })
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
        tls: None,
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
