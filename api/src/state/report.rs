//! What stands between this machine and the others: the report of `ria netcheck`.

use serde::{Deserialize, Serialize};
use zbus::Type;

use super::Condition;
use crate::dict;

words! {
    /// The answer to a question that may not have been asked.
    Answer {
        /// Yes.
        Yes = "yes",
        /// No.
        No = "no",
    }
}

words! {
    /// How a NAT gives out outer ports, or whose packets it lets in (RFC 4787, RFC 5780).
    NatBehaviour {
        /// There is no NAT; or nothing is filtered by it.
        None = "none",
        /// The same for all destinations.
        EndpointIndependent = "endpoint_independent",
        /// Does not depend on the port of the other end; whether on its address, one server alone can't tell.
        PortIndependent = "port_independent",
        /// Depends on the other end; whether on its address only, could not be told.
        EndpointDependent = "endpoint_dependent",
        /// Depends on the address of the other end.
        AddressDependent = "address_dependent",
        /// Depends on address and port of the other end ("symmetric").
        AddressAndPortDependent = "address_and_port_dependent",
    }
}

dictionary! {
    /// What was measured of the network that this machine is in.
    NetworkReport {
        /// When, seconds since 1970; 0 = never.
        time: f64,
        /// How long it took, seconds.
        took: f64,
        /// In one sentence: what matters most, and the one thing to do about it.
        verdict: String,
        /// All that hinders direct paths or the coordinator, worst first.
        findings: Vec<Condition>,
        /// Whether UDP gets to a relay and back.
        udp: Answer,
        /// Whether that works by IPv4.
        ipv4: Answer,
        /// Whether that works by IPv6.
        ipv6: Answer,
        /// How the NAT gives out outer ports.
        mapping: NatBehaviour,
        /// Whose packets it, or a firewall, lets in.
        filtering: NatBehaviour,
        /// Whether the NAT passes packets from inside to its own outer address.
        hairpin: Answer,
        /// Outer IPv4 address, with the outer port of the tunnel where it is known.
        public_ipv4: String,
        /// The same for IPv6.
        public_ipv6: String,
        /// Whether the router opens a port when asked.
        port_mapping: Answer,
        /// The protocols by which it does: `pcp`, `nat-pmp`, `upnp`.
        port_mapping_protocols: Vec<String>,
        /// The outer address and port that it has opened; empty without.
        port_mapping_address: String,
        /// Whether something answers in the coordinator's place.
        captive_portal: Answer,
        /// Whether the access point keeps its clients apart.
        client_isolation: Answer,
        /// Peers in the same local network that are not reached through it.
        isolated_peers: Vec<String>,
        /// Whether the coordinator is reached by TCP.
        coordinator_tcp: Answer,
        /// Whether it is reached by the proxy; unknown where none is set.
        coordinator_proxy: Answer,
        /// Relays, best first.
        relays: Vec<RelayReport>,
        /// Local UDP port of the tunnel.
        udp_port: u32,
        /// Own candidates: `host 192.0.2.7:41820`.
        candidates: Vec<String>,
        /// The relay in use; empty without one.
        relay: String,
        ; optional
        /// Largest IPv4 packet that reaches the best relay whole, bytes.
        mtu: u32,
    }
}

dictionary! {
    /// A relay as it was measured.
    RelayReport {
        /// Its name.
        name: String,
        /// The address that answered, or was asked.
        address: String,
        ; optional
        /// Round-trip time by UDP, seconds; absent without an answer.
        rtt: f64,
    }
}
