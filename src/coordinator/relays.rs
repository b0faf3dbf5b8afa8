//! From the coordinator's relay list to addresses that the engine can use.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ria_core::RelayServer;
use ria_protocol::map::{Relay, RelayHost};
use tokio::time::timeout;

/// A name that takes longer is left out; the list is resolved again with the next one.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Resolves relays; `coordinator` is the address under which the coordinator was reached last.
pub async fn resolve(relays: &[Relay], coordinator: Option<IpAddr>) -> Vec<RelayServer> {
    let mut resolved = Vec::new();
    for relay in relays {
        let address = match &relay.host {
            RelayHost::Coordinator => coordinator.map(|ip| SocketAddr::new(ip, relay.udp_port)),
            RelayHost::Name(name) => lookup(name, relay.udp_port).await,
        };
        match address {
            Some(address) => resolved.push(RelayServer {
                name: relay.name.clone(),
                address,
                username: relay.username.clone(),
                password: relay.password.clone(),
            }),
            None => tracing::warn!(relay = relay.name, "the relay's address can't be found; it is left out"),
        }
    }
    resolved
}

async fn lookup(name: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port));
    }
    timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name, port))).await.ok()?.ok()?.next()
}
