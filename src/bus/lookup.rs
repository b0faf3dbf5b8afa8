//! Finding what people mean.

use std::net::IpAddr;

use ria_api::error::ApiError;
use ria_api::state::PeerStatus;
use ria_protocol::id::{NetworkId, NodeId};

use crate::daemon::handle::{NetworkView, State};

/// Domain below which every member has a name.
const DOMAIN: &str = ".ria.internal";

/// A peer by name, ROS name, host name, id or overlay address.
pub fn peer(view: &NetworkView, wanted: &str) -> Result<NodeId, ApiError> {
    let wanted = wanted.trim();
    let status = &view.status;
    let host = format!(".{}{DOMAIN}", status.network);
    let short = wanted.strip_suffix(&host).unwrap_or(wanted);
    let address: Option<IpAddr> = wanted.parse().ok();
    let names =
        |name: &str, ros_name: &str, id: &str| !short.is_empty() && [name, ros_name, id].contains(&short);
    let has = |addresses: &[String]| {
        address.is_some()
            && addresses.iter().any(|a| a.split('/').next().and_then(|a| a.parse().ok()) == address)
    };
    let is = |p: &PeerStatus| names(&p.name, &p.ros_name, &p.id) || has(&p.addresses);
    if let Some((id, _)) = view.peers.iter().find(|(_, p)| is(p)) {
        return Ok(*id);
    }
    if names(&status.name, &status.ros_name, &status.node_id) || has(&status.addresses) {
        return Err(ApiError::InvalidArgument(format!(
            "{wanted} is this machine itself; name another member"
        )));
    }
    let advice = if view.peers.is_empty() { "it has no other members yet" } else { "see: ria peers" };
    Err(ApiError::NoSuchPeer(format!(
        "network {} has no member \"{wanted}\" (by name, id or overlay address); {advice}",
        status.network
    )))
}

/// Why there is no such network here.
pub fn no_network(state: &State, id: NetworkId) -> ApiError {
    if state.networks.is_empty() {
        return ApiError::NotJoined(
            "this machine is in no network; join one with a key from its administrator: ria join -".into(),
        );
    }
    ApiError::NoSuchNetwork(format!("this machine is not in network {id} any more; see: ria status"))
}

#[cfg(test)]
mod tests {
    use ria_api::state::NetworkStatus;

    use super::*;

    fn view() -> NetworkView {
        let id = NodeId::from_bytes([2; 10]);
        let peer = PeerStatus {
            id: id.to_string(),
            name: "robot-2".into(),
            ros_name: "robot_2".into(),
            addresses: vec!["10.213.0.2".into(), "fd12:3456::2".into()],
            ..PeerStatus::default()
        };
        let status = NetworkStatus {
            network: "lab".into(),
            name: "robot-1".into(),
            addresses: vec!["10.213.0.1/16".into()],
            ..NetworkStatus::default()
        };
        NetworkView { status, on_demand: false, peers: vec![(id, peer)] }
    }

    #[test]
    fn a_peer_goes_by_many_names() {
        let id = NodeId::from_bytes([2; 10]);
        for name in [
            "robot-2",
            "robot_2",
            " robot-2 ",
            "robot-2.lab.ria.internal",
            &id.to_string(),
            "10.213.0.2",
            "fd12:3456:0::2",
        ] {
            assert_eq!(peer(&view(), name).unwrap(), id, "{name}");
        }
    }

    #[test]
    fn itself_and_strangers_are_told_apart() {
        for own in ["robot-1", "10.213.0.1"] {
            assert!(matches!(peer(&view(), own), Err(ApiError::InvalidArgument(_))));
        }
        for stranger in ["robot-3", "", "10.213.0.20", "robot-2.field.ria.internal"] {
            assert!(matches!(peer(&view(), stranger), Err(ApiError::NoSuchPeer(_))), "{stranger:?}");
        }
    }
}
