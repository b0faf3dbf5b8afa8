//! What the policy stops of one peer's packets, told to control now and then: once at first, then once a minute.

use std::time::{Duration, Instant};

use super::message::{Denied, ShardEvent, Slot};
use crate::filter::destination_port;
use crate::ip::IpPacket;

const TELL_EVERY: Duration = Duration::from_secs(60);

/// Packets that were stopped since this was told.
#[derive(Debug, Default)]
pub(super) struct Denials {
    count: u64,
    told: Option<Instant>,
}

impl Denials {
    /// Counts one packet; there is an event when it is time for one.
    pub(super) fn note(
        &mut self,
        packet: &IpPacket<'_>,
        outbound: bool,
        slot: Slot,
        now: Instant,
    ) -> Option<ShardEvent> {
        self.count += 1;
        if self.told.is_some_and(|at| now.saturating_duration_since(at) < TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        let (protocol, port) = destination_port(packet);
        let denied = Denied { outbound, protocol, port, count: std::mem::take(&mut self.count) };
        Some(ShardEvent::Denied { slot, denied })
    }
}
