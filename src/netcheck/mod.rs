//! Measures the network that this machine is in: `ria netcheck`.
//!
//! ```text
//!  Plan  (from the agent's loop: relays, coordinator, interfaces, peers)
//!    ├─ nat          UDP by IPv4 and IPv6: relays, mapping, filtering, hairpin, packet size
//!    ├─ coordinator  TCP, proxy, captive portal                                             ──► Found ──► verdict ──► report
//!    └─ isolation    peers in the same local network that are not found there
//! ```
//!
//! The parts run side by side with sockets of their own and are bounded in time; the engine and its paths are left alone.
//! Only the lab's own coordinator, its relays, and neighbours that are peers are spoken to.

mod classify;
pub mod coordinator;
pub mod isolation;
pub mod nat;
mod prober;
pub mod stun;
mod verdict;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ria_api::state::{Answer, NetworkReport, RelayReport};
use tokio::time::{Instant, timeout};

use self::coordinator::{Found as FoundCoordinator, Places};
use self::isolation::{Isolation, Relayed};
use self::nat::{Nat, Server};
use crate::netdev::host::Host;
use crate::netdev::netlink::Netlink;

/// A name that takes longer is left out.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(800);

/// What is to be measured.
pub struct Plan {
    /// How the relays are found.
    pub relays: Vec<RelayPlace>,
    /// Where the coordinator may be; `None` when it is known to be reached directly.
    pub coordinator: Option<Places>,
    /// This machine.
    pub host: Host,
    /// For the neighbours.
    pub netlink: Netlink,
    /// Whether the router has opened a port for the tunnel.
    pub port_mapped: bool,
    /// Outer addresses of the tunnel's socket that servers have told.
    pub reflexive: Vec<SocketAddr>,
    /// Peers that are not reached directly.
    pub relayed: Vec<Relayed>,
}

/// A relay, and by which names or addresses it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPlace {
    /// Its name in status.
    pub name: String,
    /// Names and addresses.
    pub hosts: Vec<String>,
    /// Its UDP port.
    pub port: u16,
}

/// All that was found.
#[derive(Debug, Default)]
struct Found {
    servers: Vec<Server>,
    v4: Nat,
    v6: Nat,
    coordinator: FoundCoordinator,
    isolation: Isolation,
    has_route: bool,
    /// Addresses by which the world could reach this machine without NAT.
    global_v6: bool,
}

/// Measures; takes five seconds at most.
pub async fn run(plan: Plan) -> NetworkReport {
    let begin = Instant::now();
    let servers = resolve(&plan.relays).await;
    let own: Vec<IpAddr> = plan.host.addresses.iter().map(|(_, net)| net.addr()).collect();
    let (v6, v4): (Vec<Server>, Vec<Server>) =
        servers.into_iter().partition(|server| server.address.is_ipv6());
    let own_outer: Vec<IpAddr> = outer(plan.reflexive.iter().map(SocketAddr::ip), &own);
    let coordinator = async {
        match &plan.coordinator {
            Some(places) => coordinator::measure(places).await,
            None => {
                FoundCoordinator { direct: Answer::Yes, portal: Answer::No, ..FoundCoordinator::default() }
            }
        }
    };
    let (nat_v4, nat_v6, coordinator, isolation) = tokio::join!(
        nat::measure(&v4, &own),
        nat::measure(&v6, &own),
        coordinator,
        isolation::measure(&plan.netlink, &plan.host, &own_outer, &plan.relayed),
    );
    let found = Found {
        servers: v4.into_iter().chain(v6).collect(),
        v4: nat_v4,
        v6: nat_v6,
        coordinator,
        isolation,
        has_route: plan.host.leads_out(),
        global_v6: plan.host.candidates(1).iter().any(|c| matches!(c.ip(), IpAddr::V6(v6) if is_global(v6))),
    };
    report(&plan, &found, begin)
}

fn report(plan: &Plan, found: &Found, begin: Instant) -> NetworkReport {
    let works = |nat: &Nat| nat.works == Answer::Yes;
    let any = works(&found.v4) || works(&found.v6);
    let main = if works(&found.v4) { &found.v4 } else { &found.v6 };
    let mut report = NetworkReport {
        time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        took: begin.elapsed().as_secs_f64(),
        udp: match (any, found.coordinator.reached()) {
            (true, _) => Answer::Yes,
            // Where nothing at all comes through, it is not UDP that is to blame.
            (false, true) if !found.servers.is_empty() => Answer::No,
            (false, _) => Answer::Unknown,
        },
        ipv4: found.v4.works,
        ipv6: if found.v6.works == Answer::Unknown && !found.global_v6 { Answer::No } else { found.v6.works },
        mapping: main.mapping,
        filtering: main.filtering,
        hairpin: main.hairpin,
        public_ipv4: public(&plan.reflexive, found.v4.outer),
        public_ipv6: public(&plan.reflexive, found.v6.outer),
        port_mapping: if plan.port_mapped { Answer::Yes } else { Answer::Unknown },
        captive_portal: found.coordinator.portal,
        client_isolation: found.isolation.answer,
        isolated_peers: found.isolation.peers.clone(),
        coordinator_tcp: found.coordinator.direct,
        coordinator_proxy: found.coordinator.proxy,
        relays: relays(found),
        mtu: main.mtu,
        ..NetworkReport::default()
    };
    report.findings = verdict::findings(&report, found);
    report.verdict = verdict::verdict(&report);
    report
}

/// The tunnel's own outer address where a server has told it, else that of the measurement without a port.
fn public(told: &[SocketAddr], measured: Option<SocketAddr>) -> String {
    let Some(measured) = measured else { return String::new() };
    let same = told.iter().find(|told| told.ip() == measured.ip());
    same.map_or_else(|| measured.ip().to_string(), ToString::to_string)
}

/// Each relay once, by the address that answers fastest.
fn relays(found: &Found) -> Vec<RelayReport> {
    let rtts = found.v4.rtts.iter().chain(&found.v6.rtts);
    let mut listed: Vec<RelayReport> = Vec::new();
    for (server, rtt) in found.servers.iter().zip(rtts) {
        let rtt = rtt.map(|rtt| rtt.as_secs_f64());
        let new = RelayReport { name: server.relay.clone(), address: server.address.to_string(), rtt };
        match listed.iter_mut().find(|old| old.name == new.name) {
            Some(old) if better(new.rtt, old.rtt) => *old = new,
            Some(_) => {}
            None => listed.push(new),
        }
    }
    let order = |rtt: Option<f64>| rtt.unwrap_or(f64::INFINITY);
    listed.sort_by(|a, b| order(a.rtt).total_cmp(&order(b.rtt)));
    listed
}

fn better(new: Option<f64>, old: Option<f64>) -> bool {
    new.is_some_and(|new| old.is_none_or(|old| new < old))
}

/// Outer addresses that are not this machine's own.
fn outer(told: impl Iterator<Item = IpAddr>, own: &[IpAddr]) -> Vec<IpAddr> {
    told.filter(|ip| !own.contains(ip)).collect()
}

/// Whether an address is reached from everywhere (RFC 4291: 2000::/3).
fn is_global(ip: std::net::Ipv6Addr) -> bool {
    ip.segments()[0] & 0xe000 == 0x2000
}

async fn resolve(relays: &[RelayPlace]) -> Vec<Server> {
    let lookups = relays.iter().flat_map(|relay| relay.hosts.iter().map(move |host| (relay, host)));
    let lookups = lookups.map(async |(relay, host)| {
        let found = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, relay.port)],
            Err(_) => {
                let lookup = tokio::net::lookup_host((host.as_str(), relay.port));
                let found = timeout(LOOKUP_PATIENCE, lookup).await;
                found.ok().and_then(Result::ok).map(Iterator::collect).unwrap_or_default()
            }
        };
        found.into_iter().map(|address| Server { relay: relay.name.clone(), address }).collect::<Vec<_>>()
    });
    let mut servers: Vec<Server> = futures_util::future::join_all(lookups).await.concat();
    let mut known: Vec<Server> = Vec::new();
    servers.retain(|server| {
        let new = !known.contains(server);
        known.push(server.clone());
        new
    });
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_relay_is_listed_once_by_its_fastest_address() {
        let server =
            |relay: &str, address: &str| Server { relay: relay.into(), address: address.parse().unwrap() };
        let ms = |n| Some(Duration::from_millis(n));
        let found = Found {
            servers: vec![
                server("far", "198.51.100.1:3478"),
                server("near", "198.51.100.2:3478"),
                server("dead", "198.51.100.3:3478"),
                server("near", "[2001:db8::2]:3478"),
            ],
            v4: Nat { rtts: vec![ms(50), ms(20), None], ..Nat::default() },
            v6: Nat { rtts: vec![ms(10)], ..Nat::default() },
            ..Found::default()
        };
        let listed: Vec<_> = relays(&found).into_iter().map(|r| (r.name, r.rtt)).collect();
        assert_eq!(
            listed,
            [("near".into(), Some(0.01)), ("far".into(), Some(0.05)), ("dead".into(), None::<f64>)]
        );
    }

    #[test]
    fn the_outer_address_has_the_tunnels_port_where_it_is_known() {
        let told: Vec<SocketAddr> = vec!["198.51.100.7:41820".parse().unwrap()];
        let measured = |text: &str| Some(text.parse().unwrap());
        assert_eq!(public(&told, measured("198.51.100.7:9999")), "198.51.100.7:41820");
        assert_eq!(public(&told, measured("198.51.100.8:9999")), "198.51.100.8");
        assert_eq!(public(&told, None), "");
    }
}
