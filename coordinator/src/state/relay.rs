//! Relays that nodes are told of besides the coordinator's own.

use std::fmt;

use ria_protocol::enrol::Authority;
use ria_protocol::id::NetworkId;
use ria_protocol::keys::SpkiHash;
use ria_protocol::name::Name;
use ria_protocol::relay::CredentialKey;
use ria_protocol::time::UnixTime;
use zeroize::Zeroizing;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayEntry {
    pub name: Name,
    pub kind: RelayKind,
    pub added: UnixTime,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayKind {
    /// A TURN server that knows nothing of Ria, such as coturn.
    Turn(TurnServer),
    /// Ria's own relay on another machine.
    Standalone(StandaloneRelay),
}

/// A TURN server that knows nothing of Ria.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    /// Where nodes find it: a name or an address.
    pub host: String,
    pub udp_port: u16,
    /// Where it speaks TURN over TLS.
    pub tls: Option<TurnTls>,
    /// What credentials for it are made of: the secret that a TURN server shares with those who issue them
    /// (coturn's `static-auth-secret`).
    pub secret: Zeroizing<String>,
}

/// TURN over TLS at a server that is not Ria's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnTls {
    pub port: u16,
    /// The authorities of which one has issued its certificate, which is for its host.
    pub authorities: Vec<Authority>,
}

impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TurnServer({}:{})", self.host, self.udp_port)
    }
}

/// Ria's own relay on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandaloneRelay {
    /// SHA-256 of the secret in its key.
    pub key_digest: [u8; 32],
    /// Until when the key is good for the first connection; `None` for ever.
    pub key_expires: Option<UnixTime>,
    /// By which it is known since then.
    pub tls_key: Option<SpkiHash>,
    /// The networks that it serves; `None` for all.
    pub networks: Option<Vec<NetworkId>>,
    /// Where it is, once it has said so.
    pub place: Option<Place>,
    /// What credentials for it are made of.
    pub secret: CredentialKey,
}

/// Where a relay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A name or an address.
    pub host: String,
    pub udp_port: u16,
    pub tls_port: Option<u16>,
}

impl StandaloneRelay {
    /// Whether it serves a network.
    pub fn serves(&self, network: NetworkId) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.contains(&network))
    }
}
