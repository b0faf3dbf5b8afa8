//! What tests ask of the world: where hosts are, what they say of each other, pings and streams.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_core::{
    Command, DropReason, EngineStatus, Event, LinkState, PathKind, PeerStatus, PingId, PingOutcome,
};

use super::{World, ms, network, node, packet};

impl World {
    /// A host's address as others see it, behind a port-preserving NAT; behind a symmetric one, as the relay sees it.
    pub fn public(&mut self, host: usize) -> SocketAddr {
        let (address, relay) = (self.hosts[host].address, self.turn.address);
        match self.hosts[host].nat {
            Some(nat) => self.nats[nat].outbound(address, relay),
            None => address,
        }
    }

    pub fn peer(&self, host: usize, other: usize) -> PeerStatus {
        let status = self.hosts[host].engine.status(self.clock(host));
        let peers = &status.networks[0].peers;
        peers.iter().find(|peer| peer.node == node(other)).cloned().expect("no such peer")
    }

    pub fn engine_status(&self, host: usize) -> EngineStatus {
        self.hosts[host].engine.status(self.clock(host))
    }

    pub fn is_up(&self, host: usize, other: usize) -> bool {
        matches!(self.peer(host, other).link_state, LinkState::Up | LinkState::Degraded)
    }

    pub fn both_up(&self) -> bool {
        self.is_up(0, 1) && self.is_up(1, 0)
    }

    pub fn path(&self, host: usize, other: usize) -> PathKind {
        self.peer(host, other).path
    }

    pub fn both_on(&self, path: PathKind) -> bool {
        self.both_up() && self.path(0, 1) == path && self.path(1, 0) == path
    }

    pub fn drops(&self, host: usize, reason: DropReason) -> u64 {
        self.hosts[host].engine.status(self.now).drops.get(reason)
    }

    /// Asks for a ping and waits for its end.
    pub fn ping(&mut self, host: usize, other: usize) -> PingOutcome {
        self.pings += 1;
        let (id, peer, timeout) = (PingId(self.pings), node(other), ms(2000));
        self.command(host, Command::StartPing { network: network(), peer, id, timeout });
        let outcome = move |world: &Self| {
            world.hosts[host].events.iter().find_map(|(_, event)| {
                let Event::PingFinished { id: ended, outcome, .. } = event else { return None };
                (*ended == id).then_some(*outcome)
            })
        };
        self.run_till("a ping ends", ms(2100), |world| outcome(world).is_some());
        outcome(self).unwrap()
    }

    /// Sends a numbered packet every `every`, from 0 to 1, for a while. Returns the longest time between two arrivals.
    pub fn stream(&mut self, every: Duration, duration: Duration) -> Duration {
        let first = self.hosts[1].received.len();
        let (begin, mut number) = (self.now, 0);
        while self.now < begin + duration {
            self.send(0, &packet(0, 1, number, 200));
            number += 1;
            self.run(every);
        }
        let arrivals = self.hosts[1].received[first..].iter().map(|(at, _)| *at);
        let ends: Vec<Instant> = arrivals.chain([self.now]).collect();
        let gaps = ends.iter().scan(begin, |before, at| Some(*at - std::mem::replace(before, *at)));
        gaps.max().unwrap_or(duration)
    }

    /// Both hosts send every 10 ms; the longest time in which nothing came at host 0 and at host 1, by their order.
    pub fn stream_both_ways(&mut self, steps: u32) -> [Duration; 2] {
        let (mut last, mut longest) = ([self.now; 2], [Duration::ZERO; 2]);
        for number in 0..steps {
            self.send(0, &packet(0, 1, number, 200));
            self.send(1, &packet(1, 0, number, 200));
            self.run(super::ms(10));
            for host in 0..2 {
                let arrived = self.hosts[host].received.last().map_or(last[host], |(at, _)| *at);
                last[host] = last[host].max(arrived);
                longest[host] = longest[host].max(self.now - last[host]);
            }
        }
        longest
    }
}
