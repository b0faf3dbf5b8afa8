//! Answers to those who have shown no credentials are bounded per address, so that nobody uses the relay to flood an
//! address that he forges.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::site::whole_site;

/// Addresses counted at once; when more turn up within a second, they get no answer.
const MOST: usize = 16_384;

/// Counts of the current second.
#[derive(Debug)]
pub(super) struct Strangers {
    per_second: u32,
    second: Option<Instant>,
    counts: HashMap<IpAddr, u32>,
}

impl Strangers {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, second: None, counts: HashMap::new() }
    }

    /// Whether this address may have one more answer.
    pub(super) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        let over = |second: Instant| now.saturating_duration_since(second) >= Duration::from_secs(1);
        if self.second.is_none_or(over) {
            self.second = Some(now);
            self.counts.clear();
        }
        let known = self.counts.len();
        let address = whole_site(address);
        if known >= MOST && !self.counts.contains_key(&address) {
            return false;
        }
        let count = self.counts.entry(address).or_insert(0);
        *count = count.saturating_add(1);
        *count <= self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_budget_each_second() {
        let start = Instant::now();
        let mut strangers = Strangers::new(2);
        let ask = |strangers: &mut Strangers, ip: &str, ms| {
            strangers.admit(ip.parse().unwrap(), start + Duration::from_millis(ms))
        };
        assert!(ask(&mut strangers, "192.0.2.1", 0) && ask(&mut strangers, "192.0.2.1", 1));
        assert!(!ask(&mut strangers, "192.0.2.1", 999));
        assert!(ask(&mut strangers, "192.0.2.2", 999));
        assert!(ask(&mut strangers, "192.0.2.1", 1000));
        assert!(ask(&mut strangers, "2001:db8::1", 1001) && ask(&mut strangers, "2001:db8::2", 1002));
        assert!(!ask(&mut strangers, "2001:db8::3", 1003), "one /64 is one site");
    }
}
