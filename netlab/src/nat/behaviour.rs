//! How a translator behaves, in the words of RFC 4787 (UDP), 5382 (TCP) and 5508 (ICMP).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What of the other end a decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependence {
    /// Nothing.
    EndpointIndependent,
    /// Its address.
    AddressDependent,
    /// Its address and port.
    AddressAndPortDependent,
}

/// Which outside port a mapping gets. Two mappings never share one (no overloading).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// That of the host while it is free, else another.
    Preserving,
    /// Any.
    Random,
}

/// What happens to packets from inside to the translator's own outside address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hairpin {
    /// They are dropped.
    Off,
    /// They come back with their outside address and port as source (REQ-9).
    ExternalSource,
    /// They come back with the inside address and port as source, as some poor translators do.
    InternalSource,
}

/// How a translator behaves. The default keeps to RFC 4787 and filters by address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Behaviour {
    /// Which packets of one host's port share a mapping.
    pub mapping: Dependence,
    /// Whose packets come in by a mapping.
    pub filtering: Dependence,
    /// Which port a mapping gets.
    pub ports: Ports,
    /// An even port gets an even one, an odd port an odd one.
    pub parity: bool,
    /// Packets from inside to the own outside address.
    pub hairpin: Hairpin,
    /// Packets from outside keep a UDP mapping alive, too; those from inside always do.
    pub inbound_refresh: bool,
    /// Seconds that an idle UDP mapping lives.
    pub udp_timeout: u32,
    /// Seconds that the mapping of an echo lives.
    pub icmp_timeout: u32,
    /// Seconds that an idle, established TCP connection is remembered.
    pub tcp_timeout: u32,
    /// The same for one that is not established yet, or is ending.
    pub tcp_transitory_timeout: u32,
}

impl Behaviour {
    /// Mapping and filtering of one kind ("full cone" to "symmetric"). What depends on the other end takes random ports:
    /// a port that could be foretold would make the dependence vain.
    pub const fn all(kind: Dependence) -> Self {
        let ports = match kind {
            Dependence::EndpointIndependent => Ports::Preserving,
            Dependence::AddressDependent | Dependence::AddressAndPortDependent => Ports::Random,
        };
        Self {
            mapping: kind,
            filtering: kind,
            ports,
            parity: false,
            hairpin: Hairpin::ExternalSource,
            inbound_refresh: false,
            udp_timeout: 300,
            icmp_timeout: 60,
            tcp_timeout: 7440,
            tcp_transitory_timeout: 240,
        }
    }

    /// What the default is: endpoint-independent mapping, address- and port-dependent filtering.
    pub const PORT_RESTRICTED: Self =
        Self { filtering: Dependence::AddressAndPortDependent, ..Self::all(Dependence::EndpointIndependent) };

    pub(super) fn udp(&self) -> Duration {
        seconds(self.udp_timeout)
    }

    pub(super) fn icmp(&self) -> Duration {
        seconds(self.icmp_timeout)
    }

    pub(super) fn tcp(&self, is_established: bool) -> Duration {
        seconds(if is_established { self.tcp_timeout } else { self.tcp_transitory_timeout })
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::PORT_RESTRICTED
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}
