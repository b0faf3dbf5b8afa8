//! The verdict of a policy on a packet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ria_protocol::id::NodeId;
use ria_protocol::policy::Traffic;

use super::Verdict;
use super::flows::{Flow, Flows};
use super::headers::{Carried, Ends, TcpFlags, carried};
use super::rules::Rules;
use crate::ip::IpPacket;
use crate::multicast::is_discovery;

/// For so long after its beginning a filter takes a TCP packet that is no beginning for one of a connection from before: an
/// agent that is restarted must not break what goes on. The connection has to be one that may be begun.
const SETTLING: Duration = Duration::from_secs(60);

/// A network's policy at work.
pub(crate) struct PolicyFilter {
    rules: Arc<Rules>,
    /// Numbers the rules.
    epoch: u32,
    flows: Flows,
    settled: Instant,
}

impl PolicyFilter {
    pub(super) fn new(rules: Arc<Rules>, seed: [u64; 2], now: Instant) -> Self {
        Self { rules, epoch: 0, flows: Flows::new(seed, now), settled: now + SETTLING }
    }

    /// Other rules hold from now on, for flows that are under way as well.
    pub(super) fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// A packet of, for or from anybody; `to` is the peer that it goes to, and absent for one that has come.
    pub(super) fn judge(&mut self, packet: &IpPacket<'_>, to: Option<NodeId>, now: Instant) -> Verdict {
        let allowed = if packet.is_multicast() {
            packet.udp().is_some_and(|udp| {
                let group = SocketAddr::new(packet.destination, udp.destination_port);
                self.rules.allow_group(packet.source, to, group, is_discovery(packet.destination))
            })
        } else {
            self.allows(packet, now)
        };
        if allowed { Verdict::Allow } else { Verdict::Deny }
    }

    fn allows(&mut self, packet: &IpPacket<'_>, now: Instant) -> bool {
        match carried(packet) {
            Carried::Packet(ends, flags) => self.allows_packet(&ends, flags, now),
            // About something that its receiver has sent.
            Carried::Error(ends) => {
                let second = self.flows.second(now);
                ends.source.0 == packet.destination && self.known(&ends, second).is_some()
            }
            Carried::LaterFragment => self.rules.connect(packet.source, packet.destination),
            Carried::Malformed => false,
        }
    }

    fn allows_packet(&mut self, ends: &Ends, flags: TcpFlags, now: Instant) -> bool {
        let second = self.flows.second(now);
        if let Some(flow) = self.known(ends, second) {
            flow.touch(flags, second);
            return true;
        }
        let begins = may_begin(&self.rules, ends);
        let goes_on = || flags.goes_on && now < self.settled && may_begin(&self.rules, &reversed(ends));
        if !begins && !goes_on() {
            return false;
        }
        self.flows.insert(ends, begins, self.epoch, second);
        true
    }

    /// The flow of a packet with these ends, if the rules of now allow it.
    fn known(&mut self, ends: &Ends, second: u32) -> Option<&mut Flow> {
        let flow = self.flows.find(ends, second)?;
        if flow.epoch != self.epoch {
            let begun = if flow.begun_by_source_of(ends) { *ends } else { reversed(ends) };
            if !may_begin(&self.rules, &begun) {
                flow.end();
                return None;
            }
            flow.epoch = self.epoch;
        }
        Some(flow)
    }
}

fn may_begin(rules: &Rules, ends: &Ends) -> bool {
    let port = ends.has_ports().then_some(ends.destination.1);
    rules.allow(ends.source.0, ends.destination.0, Traffic { protocol: ends.protocol, port })
}

fn reversed(ends: &Ends) -> Ends {
    Ends { protocol: ends.protocol, source: ends.destination, destination: ends.source }
}
