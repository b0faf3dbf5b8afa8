//! NATs in the words of RFC 4787: how they map and what they let in.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// How a NAT chooses the public port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// The same for all destinations, and the private one where that is free (port preservation).
    EndpointIndependent,
    /// A new one for each destination: a symmetric NAT.
    AddressAndPortDependent,
}

/// From whom a NAT lets datagrams in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// From addresses to which something went out.
    AddressDependent,
    /// From addresses and ports to which something went out.
    AddressAndPortDependent,
}

/// A NAT with one public address.
#[derive(Debug)]
pub struct Nat {
    public: IpAddr,
    mapping: Mapping,
    filtering: Filtering,
    next_port: u16,
    /// Until it has restarted once: mappings of a lease before may stand in the way then.
    preserves_ports: bool,
    /// Private endpoint (and destination, for a symmetric NAT) to public port.
    ports: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    /// Public port to private endpoint.
    back: BTreeMap<u16, SocketAddr>,
    /// What went out from which public port.
    sent: Vec<(u16, SocketAddr)>,
}

impl Nat {
    /// A NAT with this public address.
    pub fn new(public: IpAddr, mapping: Mapping, filtering: Filtering) -> Self {
        Self {
            public,
            mapping,
            filtering,
            next_port: 20_000,
            preserves_ports: true,
            ports: BTreeMap::new(),
            back: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    /// Its public address.
    pub fn public(&self) -> IpAddr {
        self.public
    }

    /// Forgets all mappings, as a router does that restarts; what goes out then comes from other ports.
    pub fn rebind(&mut self) {
        self.next_port += 100;
        self.ports.clear();
        self.back.clear();
        self.sent.clear();
        self.preserves_ports = false;
    }

    /// A datagram goes out; returns its public source.
    pub fn outbound(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let symmetric = self.mapping == Mapping::AddressAndPortDependent;
        let key = (from, symmetric.then_some(to));
        let port = match self.ports.get(&key) {
            Some(port) => *port,
            None => {
                let port = if symmetric || !self.preserves_ports || self.back.contains_key(&from.port()) {
                    self.next_port += 1;
                    self.next_port
                } else {
                    from.port()
                };
                self.ports.insert(key, port);
                self.back.insert(port, from);
                port
            }
        };
        if !self.sent.contains(&(port, to)) {
            self.sent.push((port, to));
        }
        SocketAddr::new(self.public, port)
    }

    /// A datagram comes in; returns the private endpoint that gets it.
    pub fn inbound(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let allowed = self.sent.iter().any(|(port, sent)| {
            *port == to.port()
                && match self.filtering {
                    Filtering::AddressDependent => sent.ip() == from.ip(),
                    Filtering::AddressAndPortDependent => *sent == from,
                }
        });
        allowed.then(|| self.back.get(&to.port()).copied()).flatten()
    }
}
