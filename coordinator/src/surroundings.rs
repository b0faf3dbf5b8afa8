//! What an administrator should know of the coordinator's place: whether its public URLs lead to it, and whether it sees where
//! nodes come from, or a bridge that hides them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rcgen::KeyPair;
use ria_protocol::time::UnixTime;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::PublicUrl;
use crate::session::Services;
use crate::standalone::client::{LinkError, Trust, connect_tls};

/// How often it is looked where nodes come from.
const EVERY: Duration = Duration::from_secs(30);
/// Fewer nodes may well be behind one router.
const ENOUGH: usize = 2;
const ROUTES: &str = "/proc/net/route";

/// Works until the coordinator drains.
pub async fn run(services: Arc<Services>, urls: Vec<PublicUrl>) {
    let draining = services.draining.clone();
    let watch = async {
        check_urls(&services, &urls).await;
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            look_for_bridge(&services).await;
        }
    };
    // There is no other end of it.
    let _: Option<()> = draining.run_until_cancelled(watch).await;
}

/// Dials each URL as a node does.
async fn check_urls(services: &Services, urls: &[PublicUrl]) {
    let Ok(key) = KeyPair::generate() else { return };
    for url in urls {
        let url = url.as_str();
        let pins = services.authorities.current().trusted_pins();
        let trust = Trust { pins, floor: UnixTime(0) };
        match connect_tls(url, &key, trust).await {
            Ok(_) => tracing::info!(url, "the public URL leads here"),
            Err(LinkError::Unreachable { source, .. }) => tracing::warn!(
                url,
                error = %source,
                "the public URL can't be reached from this machine; if that is not because a NAT does not lead back \
                 inside, robots won't find the coordinator there: look at name, port forwarding and firewall"
            ),
            Err(error) => tracing::error!(
                url,
                %error,
                "something else answers at the public URL: another machine, or a proxy that ends TLS; a proxy has to pass \
                 TLS through untouched (by port or SNI)"
            ),
        }
    }
}

async fn look_for_bridge(services: &Services) {
    let Ok(presence) = services.hub.presence().await else { return };
    let sources: Vec<IpAddr> = presence.values().filter(|p| p.online).map(|p| p.from).collect();
    let hidden = gateway().is_some_and(|gateway| all_from(&sources, gateway));
    let known = services.counters.behind_bridge.swap(hidden, Ordering::Relaxed);
    if hidden && !known {
        tracing::warn!(
            nodes = sources.len(),
            "all nodes seem to come from this machine's gateway: a container's bridge translates their addresses, so that \
             STUN tells robots wrong ones and limits per address hit all of them; give the container the host's network"
        );
    }
}

/// Whether so many nodes come from the gateway that it can't be where they are.
fn all_from(sources: &[IpAddr], gateway: Ipv4Addr) -> bool {
    let distinct: BTreeSet<IpAddr> = sources.iter().map(IpAddr::to_canonical).collect();
    sources.len() >= ENOUGH && gateway.is_private() && distinct == [IpAddr::V4(gateway)].into()
}

fn gateway() -> Option<Ipv4Addr> {
    default_gateway(&std::fs::read_to_string(ROUTES).ok()?)
}

/// The gateway of the default route, in the kernel's table: addresses in hexadecimal, as they lie in memory.
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    let mut lines = routes.lines().skip(1).map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut fields| {
        let (destination, gateway) = (fields.nth(1)?, fields.next()?);
        let raw = u32::from_str_radix(gateway, 16).ok()?;
        (destination == "00000000" && raw != 0).then(|| Ipv4Addr::from(raw.to_ne_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";

    #[test]
    fn a_bridge_is_known_by_the_one_address_that_all_come_from() {
        let gateway = default_gateway(TABLE).unwrap();
        assert_eq!(gateway, Ipv4Addr::new(172, 17, 0, 1));
        let from = |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        assert!(all_from(&from(&["172.17.0.1", "::ffff:172.17.0.1"]), gateway));
        assert!(!all_from(&from(&["172.17.0.1"]), gateway), "one node may be on the gateway");
        assert!(!all_from(&from(&["172.17.0.1", "192.0.2.9"]), gateway));
        assert!(
            !all_from(&from(&["198.51.100.1", "198.51.100.1"]), Ipv4Addr::new(198, 51, 100, 1)),
            "a NAT outside"
        );
        assert_eq!(default_gateway("Iface\tDestination\n"), None);
    }
}
