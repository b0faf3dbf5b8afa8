//! Robots whose clocks are apart: tf, message filters and rosbag go by stamps.

use ria_api::state::{CLOCKS_TOO_FAR_APART, Severity};

use super::super::facts::NetworkFacts;
use super::Findings;

pub(super) fn judge(all: &mut Findings, network: &NetworkFacts) {
    let known: Vec<_> = network.peers.iter().filter(|peer| peer.clocks_apart().is_some()).collect();
    let mut far = 0;
    for peer in &known {
        let (Some(apart), Some(offset)) = (peer.clocks_apart(), peer.clock_offset) else { continue };
        if apart <= CLOCKS_TOO_FAR_APART {
            continue;
        }
        far += 1;
        let direction = if offset > 0.0 { "ahead of" } else { "behind" };
        let text = format!(
            "the clock of {} is {:.3} s {direction} this machine's: tf finds no transforms between the two",
            peer.name,
            offset.abs()
        );
        let next = "let both follow one time server (chrony, and for tens of microseconds PTP)".to_owned();
        all.add("clocks", "clocks-apart", Severity::Warning, text, next);
    }
    if far == 0 && !known.is_empty() {
        let text = format!(
            "{}: the clocks of {} peers agree with this machine's",
            network.status.network,
            known.len()
        );
        all.fine("clocks", "clocks", text);
    }
}

#[cfg(test)]
mod tests {
    use ria_api::state::PeerStatus;

    use super::*;

    fn told(clocks: &[Option<(f64, f64)>]) -> Vec<(Severity, String)> {
        let peer = |clock: &Option<(f64, f64)>| PeerStatus {
            name: "robot-2".into(),
            clock_offset: clock.map(|(offset, _)| offset),
            clock_error: clock.map(|(_, error)| error),
            ..PeerStatus::default()
        };
        let network = NetworkFacts { peers: clocks.iter().map(peer).collect(), ..NetworkFacts::default() };
        let mut all = Findings::default();
        judge(&mut all, &network);
        all.0.into_iter().map(|finding| (finding.severity, finding.text)).collect()
    }

    #[test]
    fn clocks_that_are_apart_beyond_doubt_are_told_and_others_counted() {
        assert!(told(&[None]).is_empty());
        let fine = told(&[Some((0.01, 0.001)), Some((0.2, 0.19)), None]);
        assert!(matches!(&fine[..], [(Severity::Info, text)] if text.contains("2 peers agree")), "{fine:?}");
        let far = told(&[Some((-0.2, 0.01)), Some((0.0, 0.001))]);
        assert!(
            matches!(&far[..], [(Severity::Warning, text)] if text.contains("0.200 s behind")),
            "{far:?}"
        );
    }
}
