//! How much each node may have relayed, where the operator sets a bound.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ria_protocol::id::NodeId;

/// What a node that was silent may send at once: as much as in this time.
const BURST: Duration = Duration::from_millis(250);

/// A bucket of each node that has sent something lately.
#[derive(Debug)]
pub(super) struct Rates {
    bytes_per_second: f64,
    buckets: HashMap<NodeId, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    bytes: f64,
    at: Instant,
}

impl Rates {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a rate, not an exact number")]
        let bytes_per_second = bytes_per_second.max(1) as f64;
        Self { bytes_per_second, buckets: HashMap::new() }
    }

    fn most(&self) -> f64 {
        // Never less than a datagram.
        (self.bytes_per_second * BURST.as_secs_f64()).max(65_536.0)
    }

    /// Whether so many bytes of a node may pass now.
    pub(super) fn admit(&mut self, node: NodeId, bytes: usize, now: Instant) -> bool {
        let (most, rate) = (self.most(), self.bytes_per_second);
        let bucket = self.buckets.entry(node).or_insert(Bucket { bytes: most, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.bytes = (bucket.bytes + passed * rate).min(most);
        bucket.at = now;
        #[allow(clippy::cast_precision_loss, reason = "less than 64 KiB")]
        let bytes = bytes as f64;
        let admitted = bytes <= bucket.bytes;
        if admitted {
            bucket.bytes -= bytes;
        }
        admitted
    }

    /// Forgets nodes whose buckets are full again.
    pub(super) fn sweep(&mut self, now: Instant) {
        let fill = Duration::from_secs_f64(self.most() / self.bytes_per_second);
        self.buckets.retain(|_, bucket| now < bucket.at + fill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_rate_after_a_burst() {
        let (start, mut rates) = (Instant::now(), Rates::new(1_000_000));
        let [one, other] = [1, 2].map(|n| NodeId::from_bytes([n; 10]));
        let admitted =
            |rates: &mut Rates, node, at| (0..1000).filter(|_| rates.admit(node, 1000, at)).count();
        assert_eq!(admitted(&mut rates, one, start), 250);
        assert_eq!(admitted(&mut rates, other, start), 250);
        assert_eq!(admitted(&mut rates, one, start + Duration::from_millis(100)), 100);
        rates.sweep(start + Duration::from_millis(300));
        assert_eq!(rates.buckets.len(), 1, "only the one that is not full again");
        assert_eq!(admitted(&mut rates, other, start + Duration::from_secs(5)), 250);
    }
}
