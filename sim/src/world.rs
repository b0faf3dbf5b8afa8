//! The world: hosts with their agents, the internet between them, the coordinator, and time.
//!
//! It moves from one moment at which something is due to the next, hands each engine what arrives, and holds what comes
//! out against the [`Ledger`]. Everything is noted in the [`Trace`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ria_core::{DatagramBatch, Event, PacketBatch, Received, Warning};
use ria_protocol::id::NodeId;
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{Member, MemberKind, NetworkInfo, Patch};
use ria_protocol::message::{CoordinatorMessage, NodeMessage, from_bytes, to_bytes};
use ria_protocol::prefix::Prefix;
use ria_protocol::record::{MemberRecord, SignedRecord};

use crate::agent::{Agent, Say, records};
use crate::coordinator::{Coordinator, StreamId, network};
use crate::happening::Plan;
use crate::internet::{HostId, Internet, Place};
use crate::ledger::{Ledger, Party, Wrong};
use crate::random::Random;
use crate::session::Clock;
use crate::trace::Trace;

/// How long an end waits for a stream on which nothing comes through.
const SILENCE: Duration = Duration::from_secs(10);

/// Wake-ups of one engine at one moment after which it is taken to turn in a circle.
const CIRCLE: u32 = 50;

/// The wall clocks of hosts that have the right time: 2027, in microseconds.
const RIGHT_TIME: u64 = 1_800_000_000_000_000;

/// What is due in the world outside the engines.
enum Due {
    /// A node's words reach the coordinator.
    Up(StreamId, Vec<u8>),
    /// The coordinator's words reach a host.
    Down(StreamId, Vec<u8>),
    /// The coordinator learns that a stream has ended.
    ClosedUp(StreamId),
    /// The host does.
    ClosedDown(StreamId),
    /// An application sends its next packet.
    Talk(Talk),
}

/// An application that talks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    pub(crate) left: u16,
    pub(crate) every: Duration,
}

/// The world.
pub struct World {
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) internet: Internet,
    pub(crate) coordinator: Coordinator,
    pub(crate) agents: Vec<Agent>,
    /// How long words on a stream take.
    pub(crate) news_delay: Duration,
    /// What happened.
    pub trace: Trace,
    /// Inner packets.
    pub ledger: Ledger,
    clock: Clock,
    due: BTreeMap<(Instant, u64), Due>,
    streams: BTreeMap<StreamId, HostId>,
    /// Streams on which words were lost: nothing comes through any more, which shows by their silence.
    dead: BTreeSet<StreamId>,
    /// Words on one stream don't overtake each other.
    last_words: BTreeMap<StreamId, Instant>,
    order: u64,
    pub(crate) random: Random,
    /// Names and addresses given so far.
    given: u16,
    wrong: Option<Wrong>,
    tun: PacketBatch,
    udp: DatagramBatch,
    /// Time that agents have run, in all.
    pub node_time: Duration,
}

impl World {
    /// The world at the beginning of a plan.
    pub fn new(plan: &Plan, trace: Trace) -> Self {
        let mut random = Random::new(plan.seed);
        // Virtual time has to begin somewhere.
        let start = Instant::now();
        let clock = Clock::default();
        let internet = Internet::new(plan.places.clone(), Random::new(random.number()));
        let mut world = Self {
            now: start,
            start,
            internet,
            coordinator: Coordinator::new(info("lab"), plan.has_relay),
            agents: Vec::new(),
            news_delay: Duration::from_millis(20),
            trace,
            ledger: Ledger::default(),
            clock,
            due: BTreeMap::new(),
            streams: BTreeMap::new(),
            dead: BTreeSet::new(),
            last_words: BTreeMap::new(),
            order: 0,
            random,
            given: 0,
            wrong: None,
            tun: PacketBatch::default(),
            udp: DatagramBatch::default(),
            node_time: Duration::ZERO,
        };
        world.internet.set_relay(plan.has_relay);
        for host in 0..plan.places.len() {
            let agent = world.fresh_agent(host);
            world.agents.push(agent);
        }
        for host in 0..plan.members.min(plan.places.len()) {
            world.join(host);
        }
        world
    }

    /// Time since the beginning.
    pub fn age(&self) -> Duration {
        self.now.saturating_duration_since(self.start)
    }

    fn fresh_agent(&mut self, host: HostId) -> Agent {
        let clock = self.clock.neighbour(RIGHT_TIME);
        let mut id: [u8; 10] = self.random.bytes();
        id[9] = host.to_le_bytes()[0];
        Agent::new(NodeId::from_bytes(id), clock, Random::new(self.random.number()))
    }

    /// A host enrols as a new node and its agent starts.
    pub(crate) fn join(&mut self, host: HostId) {
        self.stop(host);
        self.agents[host] = self.fresh_agent(host);
        let member = self.new_member(host);
        self.change(Patch::MemberSet(member));
        self.start(host);
    }

    fn new_member(&mut self, host: HostId) -> Member {
        self.given += 1;
        let name = format!("robot-{}", self.given);
        let (key, prefixes) = (self.agents[host].public_key(), self.new_prefixes());
        self.member(host, &name, (key, prefixes))
    }

    /// Addresses that nobody had before, as the real coordinator holds freed ones back.
    pub(crate) fn new_prefixes(&mut self) -> Vec<Prefix> {
        self.given += 1;
        let [high, low] = self.given.to_be_bytes();
        let v6: [u8; 16] = [0xfd, 0x5a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low];
        vec![Prefix::host(IpAddr::from([10, 213, high, low])), Prefix::host(IpAddr::from(v6))]
    }

    /// A host as a member, with this key and these addresses.
    pub(crate) fn member(
        &self,
        host: HostId,
        name: &str,
        (wg_key, prefixes): (WgPublicKey, Vec<Prefix>),
    ) -> Member {
        let record = MemberRecord {
            network: network(),
            node: self.agents[host].node,
            wg_key,
            prefixes,
            tags: vec![],
            expires: None,
        };
        Member {
            record: SignedRecord::unsigned(&record),
            name: valid(name.parse()),
            kind: MemberKind::Node,
            stock: None,
            ros_domain: None,
            routes: None,
        }
    }

    /// The coordinator's data changes.
    pub(crate) fn change(&mut self, patch: Patch) {
        self.coordinator.change(patch);
        self.flush_coordinator();
    }

    /// Another policy comes into force.
    pub(crate) fn set_policy(&mut self, policy: u8) {
        self.coordinator.set_policy(policy);
        self.flush_coordinator();
    }

    /// Whether a host is a member, as the coordinator knows.
    pub(crate) fn is_member(&self, host: HostId) -> bool {
        self.coordinator.member(self.agents[host].node).is_some()
    }

    /// An agent starts, unless it runs.
    pub(crate) fn start(&mut self, host: HostId) {
        if self.agents[host].run.is_some() {
            return;
        }
        self.tell_time();
        let address = self.internet.address(host);
        if let Err(error) = self.agents[host].start(address, self.now) {
            self.fail(format!("host {host} could not begin: {error}"));
        }
        self.flush(host);
    }

    /// An agent stops without a word.
    pub(crate) fn stop(&mut self, host: HostId) {
        if self.agents.get_mut(host).and_then(|agent| agent.run.take()).is_some() {
            self.break_stream(host);
        }
    }

    /// The streams of a host end; both ends learn it.
    pub(crate) fn break_stream(&mut self, host: HostId) {
        let of_host: Vec<StreamId> =
            self.streams.iter().filter(|(_, owner)| **owner == host).map(|(stream, _)| *stream).collect();
        let wait = if self.internet.is_isolated(host) { SILENCE } else { self.news_delay };
        for stream in of_host {
            self.plan(self.now + wait, Due::ClosedUp(stream));
            self.plan(self.now + wait, Due::ClosedDown(stream));
        }
    }

    /// The coordinator's process stops or starts.
    pub(crate) fn set_coordinator(&mut self, runs: bool) {
        if runs {
            self.coordinator.start();
        } else {
            self.coordinator.stop();
            self.flush_coordinator();
        }
    }

    /// A host moves, and its agent learns of its new address.
    pub(crate) fn roam(&mut self, host: HostId, place: Place) {
        self.internet.roam(host, place);
        let (address, now) = (self.internet.address(host), self.now);
        self.tell_time();
        let Some(run) = &mut self.agents[host].run else { return };
        let told = run.engine.handle_command(ria_core::Command::SetHostCandidates(vec![address]), now);
        if let Err(error) = told {
            self.fail(format!("host {host} refused its addresses: {error}"));
        }
        if let Some(old) = self.agents[host].reconnect(now) {
            self.plan(now + SILENCE, Due::ClosedUp(old));
        }
        self.flush(host);
    }

    /// Somebody asks a running agent for another key.
    pub(crate) fn rotate_key(&mut self, host: HostId) {
        if self.agents[host].run.is_some() {
            self.agents[host].rotate_key();
            self.poll_stream(host);
        }
    }

    /// An application begins to talk.
    pub(crate) fn talk(&mut self, talk: Talk) {
        self.plan(self.now, Due::Talk(talk));
    }

    fn plan(&mut self, at: Instant, due: Due) {
        self.order += 1;
        self.due.insert((at, self.order), due);
    }

    fn fail(&mut self, what: String) {
        self.wrong.get_or_insert(Wrong(what));
    }

    fn tell_time(&self) {
        self.clock.set(u64::try_from(self.age().as_micros()).unwrap_or(u64::MAX));
    }

    /// Lets time pass; an error is the first thing that was wrong.
    pub fn run(&mut self, duration: Duration) -> Result<(), Wrong> {
        let until = self.now + duration;
        let running = self.agents.iter().filter(|agent| agent.run.is_some()).count();
        self.node_time += duration * u32::try_from(running).unwrap_or(0);
        let (mut woken, mut at_once) = (self.start, 0);
        while self.wrong.is_none() {
            let Some((at, source)) = self.next().filter(|(at, _)| *at <= until) else { break };
            self.now = self.now.max(at);
            self.tell_time();
            match source {
                Source::Internet => self.arrive(),
                Source::Due => self.handle_due(),
                Source::Stream(host) => self.poll_stream(host),
                Source::Engine(host) => {
                    at_once = if self.now == woken { at_once + 1 } else { 0 };
                    woken = self.now;
                    if at_once > CIRCLE {
                        self.fail(format!("host {host} wakes up again and again without time passing"));
                    }
                    let now = self.now;
                    if let Some(run) = &mut self.agents[host].run {
                        run.engine.handle_timeout(now);
                    }
                    self.flush(host);
                }
            }
        }
        self.now = until;
        self.tell_time();
        self.wrong.take().map_or(Ok(()), Err)
    }

    fn next(&self) -> Option<(Instant, Source)> {
        let flight = self.internet.next().map(|at| (at, Source::Internet));
        let due = self.due.first_key_value().map(|((at, _), _)| (*at, Source::Due));
        let agents = self.agents.iter().enumerate().flat_map(|(host, agent)| {
            let engine = agent.run.as_ref().and_then(|run| run.engine.poll_timeout());
            let stream = agent.next().map(|at| (at, Source::Stream(host)));
            [engine.map(|at| (at, Source::Engine(host))), stream]
        });
        agents.chain([flight, due]).flatten().min_by_key(|(at, source)| (*at, *source))
    }

    fn arrive(&mut self) {
        let Some(arrival) = self.internet.arrive(self.now) else { return };
        let (host, now) = (arrival.host, self.now);
        let at = self.age();
        self.trace.mark(at, &arrival.bytes, format_args!("host {host} <- {}", arrival.from));
        let Some(run) = self.agents[host].run.as_mut() else { return };
        self.tun.clear();
        self.udp.clear();
        let received =
            Received { from: arrival.from, local: None, ecn: ria_core::Ecn::NotEct, data: &arrival.bytes };
        run.engine.handle_udp([received], now, &mut self.tun, &mut self.udp);
        let agent = &self.agents[host];
        for (_, packets) in self.tun.networks_mut() {
            for packet in packets.iter() {
                let map = agent.map().filter(|_| !agent.is_refused());
                if let Err(wrong) = self.ledger.arrive(host, map, packet, now) {
                    self.wrong.get_or_insert(wrong);
                }
            }
        }
        self.transmit(host);
        self.flush(host);
    }

    fn transmit(&mut self, host: HostId) {
        for transmit in self.udp.transmits() {
            for datagram in transmit.datagrams() {
                self.internet.send(host, transmit.to, datagram, self.now);
            }
        }
    }

    /// Sends what an engine wants sent, and notes what it tells.
    fn flush(&mut self, host: HostId) {
        let (now, at) = (self.now, self.age());
        let Some(run) = self.agents[host].run.as_mut() else { return };
        self.udp.clear();
        run.engine.poll_transmit(now, &mut self.udp);
        let mut events = Vec::new();
        events.extend(std::iter::from_fn(|| run.engine.poll_event()));
        self.transmit(host);
        for event in events {
            self.trace.note(at, format_args!("host {host}: {event:?}"));
            match event {
                Event::CandidatesChanged { candidates, .. } => {
                    self.agents[host].handle_candidates(candidates)
                }
                Event::Warned { warning: Warning::NotListed, .. } => {}
                Event::Warned { warning, .. } => self.fail(format!("host {host} warned: {warning}")),
                Event::MapChanged { .. } => self.check_map(host),
                Event::PeerAdded { .. }
                | Event::PeerRemoved { .. }
                | Event::PeerWanted { .. }
                | Event::LinkStateChanged { .. }
                | Event::PathChanged { .. }
                | Event::RelayUp { .. }
                | Event::RelayStreamWanted { .. }
                | Event::RelayStreamUnwanted { .. }
                | Event::RelayDown { .. }
                | Event::BeaconDue { .. }
                | Event::Denied { .. }
                | Event::PingFinished { .. } => {}
            }
        }
        self.poll_stream(host);
    }

    /// Whatever an engine folded is what the coordinator had at that revision.
    fn check_map(&mut self, host: HostId) {
        let agent = &self.agents[host];
        let Some(run) = &agent.run else { return };
        let status = run.engine.status(self.now);
        let Some(folded) = status.networks.first() else { return };
        let truth = folded.revision.and_then(|revision| self.coordinator.past(revision));
        let Some(truth) = truth else { return self.fail(format!("host {host} has a map that never was")) };
        let members = truth.members.iter().zip(records(truth));
        let others: Vec<_> = members.filter(|(_, record)| record.node != agent.node).collect();
        // Members with which the policy lets nothing pass come behind the others.
        let mut peers: Vec<_> = folded.peers.iter().collect();
        peers.sort_by_key(|peer| peer.node);
        let policy = self.coordinator.policy(truth.revision, agent.node);
        let in_force = policy.filter(|policy| policy.rules.is_some()).map(|policy| policy.version);
        let same = folded.policy == in_force
            && folded.info.as_ref() == Some(&truth.network)
            && others.len() == peers.len()
            && peers.into_iter().zip(others).all(|(peer, (member, record))| {
                peer.node == record.node
                    && peer.name == member.name
                    && peer.kind == member.kind
                    && peer.public_key == record.wg_key
                    && peer.prefixes == record.prefixes
                    && peer.tags == record.tags
            });
        if !same {
            self.fail(format!("host {host} folded {:?} to something else than it is", folded.revision));
        }
    }

    fn poll_stream(&mut self, host: HostId) {
        while let Some(say) = self.agents[host].poll_stream(self.now) {
            let (stream, message) = match say {
                Say::On(stream, message) => (stream, message),
                Say::Open(message) => {
                    self.order += 1;
                    let stream = StreamId(self.order);
                    self.streams.insert(stream, host);
                    self.agents[host].handle_opened(stream);
                    (stream, message)
                }
            };
            self.say(stream, Due::Up(stream, to_bytes(&message)));
        }
    }

    fn say(&mut self, stream: StreamId, words: Due) {
        let last = self.last_words.get(&stream).copied().unwrap_or(self.start);
        let at = (self.now + self.news_delay).max(last);
        self.last_words.insert(stream, at);
        self.plan(at, words);
    }

    fn handle_due(&mut self) {
        let Some((_, due)) = self.due.pop_first() else { return };
        match due {
            Due::Up(stream, words) => self.hear_up(stream, &words),
            Due::Down(stream, words) => self.hear_down(stream, &words),
            Due::ClosedUp(stream) => {
                self.coordinator.handle_closed(stream);
                self.flush_coordinator();
            }
            Due::ClosedDown(stream) => {
                let Some(host) = self.streams.remove(&stream) else { return };
                self.last_words.remove(&stream);
                self.dead.remove(&stream);
                self.agents[host].handle_closed(stream, self.now);
            }
            Due::Talk(talk) => self.say_packet(talk),
        }
    }

    /// The host of a stream, when words come through on it.
    fn hears(&mut self, stream: StreamId) -> Option<HostId> {
        let host = self.streams.get(&stream).copied()?;
        if self.dead.contains(&stream) {
            return None;
        }
        if self.internet.is_isolated(host) {
            self.dead.insert(stream);
            self.plan(self.now + SILENCE, Due::ClosedUp(stream));
            self.plan(self.now + SILENCE, Due::ClosedDown(stream));
            return None;
        }
        Some(host)
    }

    fn hear_up(&mut self, stream: StreamId, words: &[u8]) {
        let Some(host) = self.hears(stream) else { return };
        if !self.coordinator.runs() {
            return self.plan(self.now + self.news_delay, Due::ClosedDown(stream));
        }
        match from_bytes::<NodeMessage>(words) {
            Ok(message) => self.coordinator.handle_message(stream, message),
            Err(error) => self.fail(format!("host {host} said what can't be read: {error}")),
        }
        self.flush_coordinator();
    }

    fn hear_down(&mut self, stream: StreamId, words: &[u8]) {
        let Some(host) = self.hears(stream) else { return };
        let at = self.age();
        self.trace.mark(at, words, format_args!("host {host} <- coordinator"));
        let message = match from_bytes::<CoordinatorMessage>(words) {
            Ok(message) => message,
            Err(error) => return self.fail(format!("host {host} can't read its coordinator: {error}")),
        };
        if let Err(error) = self.agents[host].handle_message(stream, message, self.now) {
            self.fail(format!("host {host} refused what its coordinator said: {error}"));
        }
        self.flush(host);
    }

    /// The coordinator's words set out.
    pub(crate) fn flush_coordinator(&mut self) {
        for (stream, message) in self.coordinator.take_messages() {
            self.say(stream, Due::Down(stream, to_bytes(&message)));
        }
        for stream in self.coordinator.take_closed() {
            self.say(stream, Due::ClosedDown(stream));
        }
    }

    fn say_packet(&mut self, talk: Talk) {
        self.send_packet(talk.from, talk.to);
        if talk.left > 1 {
            let at = self.now + talk.every;
            self.plan(at, Due::Talk(Talk { left: talk.left - 1, ..talk }));
        }
    }

    /// An application sends one packet; its number is how to ask for it. `None` when it has no address to send from, or
    /// none to send to.
    pub(crate) fn send_packet(&mut self, from: HostId, to: HostId) -> Option<u64> {
        let agent = &self.agents[from];
        let map = agent.map().filter(|_| agent.run.is_some() && !agent.is_refused())?;
        let family = self.random.index(2);
        let prefixes =
            |map, node| records(map).find(|record| record.node == node).map(|record| record.prefixes);
        let source = prefixes(map, agent.node)?.get(family)?.address();
        // Applications know the others by what the coordinator says now, be it ahead of their own agent's map.
        let latest = self.coordinator.past(self.coordinator.revision())?;
        let target = prefixes(latest, self.agents[to].node)?.get(family)?.address();
        let sender = Party { host: from, node: agent.node };
        let (number, bytes) = self.ledger.send(sender, map, (source, target, to), self.now);
        let now = self.now;
        self.udp.clear();
        let run = self.agents[from].run.as_mut()?;
        run.engine.handle_tun(network(), [bytes.as_slice()], now, &mut self.udp);
        self.transmit(from);
        self.flush(from);
        Some(number)
    }
}

/// Where the next thing that is due comes from, in the order in which they go first at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Internet,
    Due,
    Stream(HostId),
    Engine(HostId),
}

/// The network's settings under a name.
pub(crate) fn info(name: &str) -> NetworkInfo {
    NetworkInfo {
        id: network(),
        name: valid(name.parse()),
        prefix_v4: valid("10.213.0.0/16".parse()),
        prefix_v6: valid("fd5a::/64".parse()),
        mtu: 1280,
        lock_keys: vec![],
        urls: vec![],
        ros_domains: None,
        multicast: None,
        peers: None,
    }
}

/// Names and prefixes that stand in this file are valid.
#[allow(clippy::expect_used, reason = "a constant of the simulation that is not valid shows in every run")]
fn valid<T, E: std::fmt::Debug>(parsed: Result<T, E>) -> T {
    parsed.expect("valid")
}
