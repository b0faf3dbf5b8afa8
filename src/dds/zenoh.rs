//! The configuration of rmw_zenoh's router (`rmw_zenohd`), which ROS 2 processes of a machine speak to by themselves, over
//! loopback, and which connects to the routers of the other members over the overlay.
//!
//! One of two routers has to know the other, so a running one need not be restarted when members join: they connect to it.

use serde_json::json;

use super::Overlay;

/// Where routers listen.
const PORT: u16 = 7447;

pub(super) fn router(overlay: &Overlay) -> String {
    let local = overlay.interfaces.iter().map(|interface| interface.address.to_string());
    let listen: Vec<_> =
        ["127.0.0.1".to_owned()].into_iter().chain(local).map(|address| endpoint(&address)).collect();
    let peers = overlay.peers.iter().filter(|_| overlay.is_up());
    let connect: Vec<_> = peers.map(|address| endpoint(&address.to_string())).collect();
    let config = json!({
        "mode": "router",
        // An address may be gone, and then ROS 2 shall still work inside the machine.
        "listen": { "endpoints": listen, "exit_on_failure": false },
        "connect": {
            "endpoints": connect,
            // For ever, and without waiting for those that are away.
            "timeout_ms": { "router": -1 },
            "exit_on_failure": { "router": false },
            "retry": { "period_init_ms": 1000, "period_max_ms": 4000, "period_increase_factor": 2 },
        },
        // Others are found by the list; no multicast beside the overlay's.
        "scouting": { "multicast": { "enabled": false }, "gossip": { "enabled": true } },
        // Latched topics need times.
        "timestamping": { "enabled": { "router": true } },
    });
    format!("// Written by the Ria agent; changes are overwritten.\n{config:#}\n")
}

fn endpoint(address: &str) -> String {
    format!("tcp/{address}:{PORT}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::overlay;
    use super::*;

    fn read(text: &str) -> serde_json::Value {
        serde_json::from_str(text.split_once('\n').unwrap().1).unwrap()
    }

    #[test]
    fn routers_listen_on_the_overlay_and_connect_to_all_peers() {
        let config = read(&router(&overlay(2)));
        assert_eq!(config["listen"]["endpoints"], json!(["tcp/127.0.0.1:7447", "tcp/10.213.0.1:7447"]));
        assert_eq!(config["connect"]["endpoints"], json!(["tcp/10.213.1.0:7447", "tcp/10.213.1.1:7447"]));
    }

    #[test]
    fn without_a_network_the_machine_keeps_to_itself() {
        let config = read(&router(&Overlay { peers: overlay(2).peers, ..Overlay::default() }));
        assert_eq!(config["listen"]["endpoints"], json!(["tcp/127.0.0.1:7447"]));
        assert_eq!(config["connect"]["endpoints"], json!([]));
    }
}
