//! Relays that nodes are told of besides the coordinator's own.

use std::fmt;

use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use zeroize::Zeroizing;

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayEntry {
    pub name: Name,
    /// Where nodes find it: a name or an address.
    pub host: String,
    pub udp_port: u16,
    /// What credentials for it are made of: the secret that a TURN server shares with those who issue them
    /// (coturn's `static-auth-secret`).
    pub secret: Zeroizing<String>,
    pub added: UnixTime,
}

impl fmt::Debug for RelayEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayEntry({} at {}:{})", self.name, self.host, self.udp_port)
    }
}
