//! Limits on connections that have not shown yet that they belong to a member: in all, and per source address. Owned
//! by the accept loop; slots come back to it by message.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc;

/// Anonymous connections at a time, each good for some tens of KiB.
const IN_ALL: usize = 2048;
/// From one address; a whole lab may come back at once from behind one NAT.
const PER_ADDRESS: usize = 512;

/// The right to be an anonymous connection.
#[derive(Debug)]
pub struct AnonymousSlot {
    from: IpAddr,
    released: AtomicBool,
    back: mpsc::UnboundedSender<IpAddr>,
}

impl AnonymousSlot {
    /// Gives the slot back early: the connection is anonymous no more.
    pub fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            // An accept loop that is gone counts nothing.
            let _ = self.back.send(self.from);
        }
    }
}

impl Drop for AnonymousSlot {
    fn drop(&mut self) {
        self.release();
    }
}

/// Who is connected anonymously.
#[derive(Debug)]
pub struct Gate {
    counts: BTreeMap<IpAddr, usize>,
    in_all: usize,
    back: mpsc::UnboundedSender<IpAddr>,
    returned: mpsc::UnboundedReceiver<IpAddr>,
    refused: Arc<AtomicU64>,
}

impl Gate {
    /// Nobody is connected. Those that are not let in are counted in `refused`.
    pub fn new(refused: Arc<AtomicU64>) -> Self {
        let (back, returned) = mpsc::unbounded_channel();
        Self { counts: BTreeMap::new(), in_all: 0, back, returned, refused }
    }

    /// A slot for a new connection, unless there are too many.
    pub fn enter(&mut self, from: IpAddr) -> Option<AnonymousSlot> {
        while let Ok(from) = self.returned.try_recv() {
            self.leave(from);
        }
        let from = from.to_canonical();
        let count = self.counts.entry(from).or_default();
        if *count >= PER_ADDRESS || self.in_all >= IN_ALL {
            let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if refused.is_power_of_two() {
                tracing::warn!(refused, "too many connections at once; some are refused");
            }
            return None;
        }
        *count += 1;
        self.in_all += 1;
        Some(AnonymousSlot { from, released: AtomicBool::new(false), back: self.back.clone() })
    }

    fn leave(&mut self, from: IpAddr) {
        self.in_all = self.in_all.saturating_sub(1);
        if let Some(count) = self.counts.get_mut(&from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&from);
            }
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_limited_per_address_and_come_back() {
        let mut gate = Gate::default();
        let (a, b) = ("192.0.2.1".parse().unwrap(), "::ffff:192.0.2.2".parse().unwrap());
        let slots: Vec<_> = (0..PER_ADDRESS).map(|_| gate.enter(a).unwrap()).collect();
        assert!(gate.enter(a).is_none());
        let other = gate.enter(b).unwrap();
        slots[0].release();
        slots[0].release();
        let again = gate.enter(a).unwrap();
        assert!(gate.enter(a).is_none(), "a slot that is released twice counts once");
        drop((slots, other, again));
        gate.enter(a).unwrap();
        assert_eq!((gate.in_all, gate.counts.len(), gate.refused.load(Ordering::Relaxed)), (1, 1, 2));
    }
}
