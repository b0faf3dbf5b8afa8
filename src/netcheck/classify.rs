//! From what STUN servers saw to the words of RFC 4787 and RFC 5780. Pure functions.

use std::net::SocketAddr;

use ria_api::state::NatBehaviour;

/// One socket as one server saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The server.
    pub server: SocketAddr,
    /// The socket's outer address.
    pub mapped: SocketAddr,
}

/// How outer ports are given out, from what several servers saw of each socket; a list for each.
pub fn mapping(sockets: &[Vec<Seen>]) -> NatBehaviour {
    let pairs = sockets.iter().flat_map(|seen| {
        let rest = |n: usize| seen.get(n + 1..).unwrap_or_default();
        seen.iter().enumerate().flat_map(move |(n, a)| rest(n).iter().map(move |b| (a, b)))
    });
    let (mut by_port, mut by_address) = (None, None);
    for (a, b) in pairs.filter(|(a, b)| a.server != b.server) {
        let differs = a.mapped != b.mapped;
        let fact = if a.server.ip() == b.server.ip() { &mut by_port } else { &mut by_address };
        *fact = Some(fact.unwrap_or(false) || differs);
    }
    match (by_port, by_address) {
        (Some(true), _) => NatBehaviour::AddressAndPortDependent,
        // Servers at other addresses that saw the same had other ports, or would have been told apart by them.
        (_, Some(false)) => NatBehaviour::EndpointIndependent,
        (Some(false), Some(true)) => NatBehaviour::AddressDependent,
        (None, Some(true)) => NatBehaviour::EndpointDependent,
        (Some(false), None) => NatBehaviour::PortIndependent,
        (None, None) => NatBehaviour::Unknown,
    }
}

/// Which uninvited answers came in; `None` where none was asked for, because the server has no such place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uninvited {
    /// From another port of the server.
    pub other_port: Option<bool>,
    /// From another address.
    pub other_address: Option<bool>,
}

/// Whose packets come in.
pub fn filtering(came: Uninvited) -> NatBehaviour {
    match (came.other_port, came.other_address) {
        (_, Some(true)) => NatBehaviour::EndpointIndependent,
        (Some(true), Some(false)) => NatBehaviour::AddressDependent,
        (Some(true), None) => NatBehaviour::PortIndependent,
        (Some(false), _) => NatBehaviour::AddressAndPortDependent,
        (None, Some(false)) => NatBehaviour::EndpointDependent,
        (None, None) => NatBehaviour::Unknown,
    }
}

/// Whether a NAT of this mapping gives each destination another port, as far as it is known.
pub fn is_symmetric(mapping: NatBehaviour) -> bool {
    matches!(
        mapping,
        NatBehaviour::EndpointDependent
            | NatBehaviour::AddressDependent
            | NatBehaviour::AddressAndPortDependent
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(list: &[(&str, u16)]) -> Vec<Seen> {
        let mapped = |port| SocketAddr::new("203.0.113.1".parse().unwrap(), port);
        list.iter()
            .map(|(server, port)| Seen { server: server.parse().unwrap(), mapped: mapped(*port) })
            .collect()
    }

    #[test]
    fn mapping_is_told_as_far_as_the_servers_allow() {
        let (a1, a2, b1) = ("198.51.100.1:3478", "198.51.100.1:50001", "198.51.100.2:3478");
        for (list, wanted) in [
            (vec![(a1, 1)], NatBehaviour::Unknown),
            (vec![(a1, 1), (a1, 1)], NatBehaviour::Unknown),
            (vec![(a1, 1), (a2, 1)], NatBehaviour::PortIndependent),
            (vec![(a1, 1), (a2, 2)], NatBehaviour::AddressAndPortDependent),
            (vec![(a1, 1), (b1, 1)], NatBehaviour::EndpointIndependent),
            (vec![(a1, 1), (b1, 2)], NatBehaviour::EndpointDependent),
            (vec![(a1, 1), (a2, 1), (b1, 1)], NatBehaviour::EndpointIndependent),
            (vec![(a1, 1), (a2, 1), (b1, 2)], NatBehaviour::AddressDependent),
            (vec![(a1, 1), (a2, 2), (b1, 3)], NatBehaviour::AddressAndPortDependent),
        ] {
            assert_eq!(mapping(&[seen(&list)]), wanted, "{list:?}");
        }
        // What one socket did not show, another may; two sockets are never compared.
        let apart = [seen(&[(a1, 1), (a2, 1)]), seen(&[(a1, 9), (b1, 8)])];
        assert_eq!(mapping(&apart), NatBehaviour::AddressDependent);
        assert_eq!(mapping(&[seen(&[(a1, 1)]), seen(&[(b1, 2)])]), NatBehaviour::Unknown);
    }

    #[test]
    fn filtering_is_told_by_what_came_in() {
        for (other_port, other_address, wanted) in [
            (None, None, NatBehaviour::Unknown),
            (Some(true), None, NatBehaviour::PortIndependent),
            (Some(false), None, NatBehaviour::AddressAndPortDependent),
            (Some(true), Some(true), NatBehaviour::EndpointIndependent),
            (Some(true), Some(false), NatBehaviour::AddressDependent),
            (Some(false), Some(false), NatBehaviour::AddressAndPortDependent),
        ] {
            assert_eq!(filtering(Uninvited { other_port, other_address }), wanted);
        }
    }
}
