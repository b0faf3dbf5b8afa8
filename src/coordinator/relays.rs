//! From the coordinator's relay list to addresses that the engine can use.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ria_core::RelayServer;
use ria_protocol::map::RelayHost;
use tokio::time::timeout;

use super::dial::parse_url;
use crate::state::membership::Contact;

/// A name that takes longer is left out; the list is resolved again with the next one.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Resolves the relays of a network.
pub async fn resolve(contact: &Contact) -> Vec<RelayServer> {
    let mut resolved = Vec::new();
    for relay in &contact.relays {
        let address = match &relay.host {
            RelayHost::Coordinator => coordinator(contact, relay.udp_port).await,
            RelayHost::Name(name) => lookup(name, relay.udp_port).await,
        };
        match address {
            Some(address) => resolved.push(RelayServer {
                name: relay.name.clone(),
                address,
                tls_port: relay.tls_port,
                username: relay.username.clone(),
                password: relay.password.clone(),
            }),
            None => tracing::warn!(relay = relay.name, "the relay's address can't be found; it is left out"),
        }
    }
    resolved
}

/// Where the coordinator was reached; behind a proxy that is found out by its name.
async fn coordinator(contact: &Contact, port: u16) -> Option<SocketAddr> {
    if let Some(ip) = contact.address {
        return Some(SocketAddr::new(ip, port));
    }
    let (host, _) = parse_url(contact.reached.as_deref()?)?;
    lookup(&host, port).await
}

async fn lookup(name: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, port));
    }
    timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name, port))).await.ok()?.ok()?.next()
}
