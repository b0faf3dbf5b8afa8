//! Fast numbers of links.

use std::collections::BTreeMap;
use std::time::Instant;

use r2r::ria_msgs::msg;
use ria_api::state::PeerStatus;

use super::{Reporter, number, path};
use crate::link::NetworkView;

/// What was counted last, by network and peer. Rates are taken from there to the next time.
#[derive(Debug, Default)]
pub struct Rates(BTreeMap<String, Counted>);

#[derive(Debug)]
struct Counted {
    at: Instant,
    /// Bytes received and sent.
    peers: BTreeMap<String, (u64, u64)>,
}

impl Rates {
    /// The numbers of a network at this time.
    pub fn link_stats(&mut self, network: &NetworkView, reporter: &Reporter, now: Instant) -> msg::LinkStats {
        let counts = network.peers.iter().map(|peer| (peer.id.clone(), (peer.rx_bytes, peer.tx_bytes)));
        let counted = Counted { at: now, peers: counts.collect() };
        let before = self.0.insert(network.status.network_id.clone(), counted);
        let interval = before.as_ref().map(|before| now.saturating_duration_since(before.at).as_secs_f64());
        let link = |peer: &PeerStatus| {
            let counts = before.as_ref().and_then(|before| before.peers.get(&peer.id)).copied();
            let rate = |now: u64, before: Option<u64>| {
                // Counters begin anew with the agent.
                let grown = now.checked_sub(before?)? as f64;
                interval.filter(|seconds| *seconds > 0.0).map(|seconds| grown / seconds)
            };
            msg::PeerLinkStats {
                id: peer.id.clone(),
                name: peer.name.clone(),
                path: path(peer.path),
                rtt: number(peer.rtt),
                rtt_deviation: number(peer.rtt_deviation),
                loss: number(peer.loss),
                rx_rate: number(rate(peer.rx_bytes, counts.map(|(rx, _)| rx))),
                tx_rate: number(rate(peer.tx_bytes, counts.map(|(_, tx)| tx))),
                rx_bytes: peer.rx_bytes,
                tx_bytes: peer.tx_bytes,
                rx_packets: peer.rx_packets.unwrap_or_default(),
                tx_packets: peer.tx_packets.unwrap_or_default(),
            }
        };
        let mut links: Vec<_> = network.peers.iter().map(link).collect();
        links.sort_by(|a, b| a.name.cmp(&b.name));
        msg::LinkStats {
            header: reporter.header(),
            reporter: reporter.name.clone(),
            reporter_id: reporter.id.clone(),
            network: network.status.network.clone(),
            network_id: network.status.network_id.clone(),
            interval: number(interval),
            links,
        }
    }

    /// Forgets networks that are gone.
    pub fn retain(&mut self, networks: &[NetworkView]) {
        self.0.retain(|id, _| networks.iter().any(|network| network.status.network_id == *id));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn view(rx_bytes: u64, tx_bytes: u64) -> NetworkView {
        let peer = PeerStatus {
            id: "n2".into(),
            name: "robot-2".into(),
            rx_bytes,
            tx_bytes,
            rx_packets: Some(7),
            rtt: Some(0.02),
            rtt_deviation: Some(0.004),
            ..PeerStatus::default()
        };
        NetworkView { peers: vec![peer], ..NetworkView::default() }
    }

    #[test]
    fn rates_are_taken_since_the_last_time_and_unknown_without_one() {
        let (mut rates, reporter, begin) = (Rates::default(), Reporter::default(), Instant::now());
        let first = rates.link_stats(&view(1000, 50), &reporter, begin);
        assert!(first.interval.is_nan() && first.links[0].rx_rate.is_nan(), "{first:?}");
        assert_eq!((first.links[0].rx_bytes, first.links[0].rx_packets), (1000, 7));
        let second = rates.link_stats(&view(3000, 50), &reporter, begin + Duration::from_millis(500));
        let link = &second.links[0];
        assert_eq!((second.interval, link.rx_rate, link.tx_rate), (0.5, 4000.0, 0.0));
        assert!((link.rtt - 0.02).abs() < 1e-6 && (link.rtt_deviation - 0.004).abs() < 1e-6);
    }

    #[test]
    fn an_agent_that_was_started_again_and_a_network_that_is_gone_have_no_rates() {
        let (mut rates, reporter, begin) = (Rates::default(), Reporter::default(), Instant::now());
        rates.link_stats(&view(1000, 50), &reporter, begin);
        let again = rates.link_stats(&view(10, 60), &reporter, begin + Duration::from_secs(1));
        assert!(again.links[0].rx_rate.is_nan() && again.links[0].tx_rate == 10.0);
        rates.retain(&[]);
        let later = rates.link_stats(&view(20, 70), &reporter, begin + Duration::from_secs(2));
        assert!(later.interval.is_nan());
    }
}
