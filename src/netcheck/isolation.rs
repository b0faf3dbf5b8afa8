//! Does the access point keep its clients apart? It does where a peer of the same local network works by the relay, and
//! yet not even its hardware address can be found, while the router's can.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use ria_api::state::Answer;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use crate::netdev::host::{Host, Neighbour, Resolution};
use crate::netdev::netlink::Netlink;

/// Peers that are looked at.
const MOST: usize = 8;

/// The kernel gives a neighbour up after three seconds.
const PATIENCE: Duration = Duration::from_millis(3600);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// "Discard" (RFC 863): what is sent there does nothing but have the neighbour looked for.
const DISCARD: u16 = 9;

/// A peer whose link works, but not directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// Its name.
    pub name: String,
    /// Addresses of its interfaces.
    pub host: Vec<SocketAddr>,
    /// Its outer addresses; empty when they are those of its interfaces.
    pub outer: Vec<IpAddr>,
}

/// A peer that should be a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suspect {
    name: String,
    interface: u32,
    address: IpAddr,
    gateway: IpAddr,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Whether clients are kept apart; unknown without a peer in the same local network.
    pub answer: Answer,
    /// Peers that are not found.
    pub peers: Vec<String>,
    /// Peers that are found and yet not reached directly.
    pub blocked: Vec<String>,
}

/// Looks for the peers in this machine's own network.
pub async fn measure(netlink: &Netlink, host: &Host, own_outer: &[IpAddr], peers: &[Relayed]) -> Isolation {
    let suspects = suspects(host, own_outer, peers);
    if suspects.is_empty() {
        return Isolation::default();
    }
    for suspect in &suspects {
        knock(suspect.address).await;
        knock(suspect.gateway).await;
    }
    let end = Instant::now() + PATIENCE;
    loop {
        sleep(LOOK_EVERY).await;
        let Ok(neighbours) = netlink.neighbours().await else { return Isolation::default() };
        let settled = suspects.iter().all(|suspect| {
            resolution(&neighbours, suspect.interface, suspect.address) != Some(Resolution::Sought)
        });
        if settled || Instant::now() >= end {
            return judge(&suspects, &neighbours);
        }
    }
}

/// Has the kernel look for a neighbour's hardware address.
async fn knock(address: IpAddr) {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    if let Ok(socket) = UdpSocket::bind(any).await {
        // Whether it arrives is what is asked of the neighbour table.
        let _ = socket.send_to(&[], (address, DISCARD)).await;
    }
}

/// Peers behind the same outer address, or like this machine behind none, with an address in the network that leads
/// out. Only there: robots have equal networks on board, which are not one network.
fn suspects(host: &Host, own_outer: &[IpAddr], peers: &[Relayed]) -> Vec<Suspect> {
    let outs = host.gateways();
    let net_of = |interface: u32, ip: IpAddr| -> Option<IpNet> {
        let mut on_it = host.addresses.iter().filter(|(index, _)| *index == interface).map(|(_, net)| *net);
        on_it.find(|net| net.contains(&ip) && net.addr() != ip && net.prefix_len() < net.max_prefix_len())
    };
    let together = |peer: &Relayed| {
        peer.outer.iter().any(|ip| own_outer.contains(ip)) || (peer.outer.is_empty() && own_outer.is_empty())
    };
    let mut found: Vec<Suspect> = Vec::new();
    for peer in peers.iter().filter(|peer| together(peer)) {
        let near = peer.host.iter().find_map(|candidate| {
            let ip = candidate.ip();
            let out = outs
                .iter()
                .find(|(interface, gateway)| *gateway != ip && net_of(*interface, ip).is_some())?;
            Some(Suspect { name: peer.name.clone(), interface: out.0, address: ip, gateway: out.1 })
        });
        found.extend(near);
    }
    found.truncate(MOST);
    found
}

fn resolution(neighbours: &[Neighbour], interface: u32, address: IpAddr) -> Option<Resolution> {
    let is_it = |n: &&Neighbour| n.interface == interface && n.address == address;
    neighbours.iter().find(is_it).map(|neighbour| neighbour.resolution)
}

fn judge(suspects: &[Suspect], neighbours: &[Neighbour]) -> Isolation {
    let mut isolation = Isolation::default();
    for suspect in suspects {
        let of = |address| resolution(neighbours, suspect.interface, address);
        match (of(suspect.address), of(suspect.gateway)) {
            (Some(Resolution::Failed | Resolution::Sought), Some(Resolution::Known)) => {
                isolation.peers.push(suspect.name.clone());
            }
            (Some(Resolution::Known), _) => isolation.blocked.push(suspect.name.clone()),
            _ => {}
        }
    }
    isolation.answer = match (isolation.peers.is_empty(), isolation.blocked.is_empty()) {
        (false, _) => Answer::Yes,
        (true, false) => Answer::No,
        (true, true) => Answer::Unknown,
    };
    isolation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::host::{Interface, Route};

    fn host() -> Host {
        let interface = |index, name: &str| Interface {
            index,
            name: name.into(),
            up: true,
            carrier: true,
            ..Interface::default()
        };
        let address = |interface, net: &str| (interface, net.parse().unwrap());
        Host {
            interfaces: vec![interface(1, "wlan0"), interface(2, "eth1")],
            addresses: vec![address(1, "10.1.2.7/16"), address(2, "192.168.1.1/24")],
            routes: vec![Route {
                destination: "0.0.0.0/0".parse().unwrap(),
                interface: Some(1),
                gateway: Some("10.1.0.1".parse().unwrap()),
            }],
            unfit: Vec::new(),
        }
    }

    fn peer(host: &[&str], outer: &[&str]) -> Relayed {
        Relayed {
            name: "robot-2".into(),
            host: host.iter().map(|a| a.parse().unwrap()).collect(),
            outer: outer.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn only_who_shares_the_network_that_leads_out_is_looked_for() {
        let own = ["198.51.100.1".parse().unwrap()];
        let sought =
            |own: &[IpAddr], peer| suspects(&host(), own, &[peer]).first().map(|s| s.address.to_string());
        let near = "10.1.9.9:41820";
        assert_eq!(sought(&own, peer(&[near], &["198.51.100.1"])).as_deref(), Some("10.1.9.9"));
        assert_eq!(sought(&[], peer(&[near], &[])).as_deref(), Some("10.1.9.9"), "no NAT at all");
        assert_eq!(sought(&own, peer(&[near], &["198.51.100.2"])), None, "behind another router");
        assert_eq!(
            sought(&own, peer(&["192.168.1.9:41820"], &["198.51.100.1"])),
            None,
            "its network on board"
        );
        assert_eq!(sought(&own, peer(&["10.1.0.1:41820"], &["198.51.100.1"])), None, "the router itself");
    }

    #[test]
    fn isolation_is_a_router_that_is_found_and_a_peer_that_is_not() {
        let suspects = suspects(&host(), &[], &[peer(&["10.1.9.9:41820"], &[])]);
        let told = |peer: Option<Resolution>, router: Option<Resolution>| {
            let seen = [("10.1.9.9", peer), ("10.1.0.1", router)];
            let neighbours: Vec<Neighbour> = seen
                .iter()
                .filter_map(|(ip, state)| {
                    Some(Neighbour { interface: 1, address: ip.parse().unwrap(), resolution: (*state)? })
                })
                .collect();
            judge(&suspects, &neighbours).answer
        };
        assert_eq!(told(Some(Resolution::Failed), Some(Resolution::Known)), Answer::Yes);
        assert_eq!(told(Some(Resolution::Sought), Some(Resolution::Known)), Answer::Yes);
        assert_eq!(
            told(Some(Resolution::Failed), Some(Resolution::Failed)),
            Answer::Unknown,
            "the link is down"
        );
        assert_eq!(told(Some(Resolution::Known), Some(Resolution::Known)), Answer::No);
        assert_eq!(told(None, Some(Resolution::Known)), Answer::Unknown);
    }
}
