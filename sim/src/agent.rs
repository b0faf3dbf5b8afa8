//! An agent around its engine: what it keeps on disk, its stream to the coordinator, and what it does with both.
//!
//! The real agent is asynchronous and owns sockets and interfaces; what it tells its engine, and when, is the same.

use std::time::{Duration, Instant};

use ria_core::{AddNetwork, Command, CommandError, Engine, EngineConfig, PrivateKey, RelayServer};
use ria_protocol::error::ErrorCode;
use ria_protocol::id::{BootId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{Candidate, Live, Patch, PatchSet, Relay, RelayHost, Revision, Snapshot};
use ria_protocol::message::{CoordinatorMessage, LiveUpdate, NodeMessage, Resume, from_bytes};
use ria_protocol::record::MemberRecord;
use ria_protocol::rotation::Rotate;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::coordinator::{StreamId, network};
use crate::random::Random;
use crate::session::{Clock, SimSessions};

/// First and longest wait between two attempts to reach the coordinator.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// What survives a crash.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// The map as acknowledged.
    pub map: Option<Snapshot>,
    live: Vec<Live>,
    relays: Vec<Relay>,
    refused: bool,
    key: [u8; 32],
    /// The key that takes over once the map says so.
    next_key: Option<[u8; 32]>,
}

/// The stream to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Waiting {
        until: Instant,
    },
    Open(StreamId),
    /// The coordinator said that this is no member.
    Refused,
}

/// A run of an agent.
pub struct Run {
    /// Its engine.
    pub engine: Engine,
    boot: BootId,
    in_engine: bool,
    stream: Stream,
    failures: u32,
    report: Option<Vec<Candidate>>,
    told: Option<Vec<Candidate>>,
    /// The key that was asked for on this stream.
    asked: Option<WgPublicKey>,
}

/// An agent, running or not.
pub struct Agent {
    /// Its node id.
    pub node: NodeId,
    /// Its clocks.
    pub clock: Clock,
    /// What it has stored.
    pub disk: Disk,
    /// The same before the last write.
    before: Disk,
    /// Absent while it is stopped.
    pub run: Option<Run>,
    random: Random,
}

/// What an agent wants of the stream.
#[derive(Debug)]
pub enum Say {
    /// Open a new one, with these first words.
    Open(NodeMessage),
    /// This, on the one that is open.
    On(StreamId, NodeMessage),
}

impl Agent {
    /// A node that has just enrolled.
    pub fn new(node: NodeId, clock: Clock, mut random: Random) -> Self {
        let disk = Disk { key: random.bytes(), ..Disk::default() };
        let before = disk.clone();
        Self { node, clock, disk, before, run: None, random }
    }

    /// Its WireGuard key.
    pub fn public_key(&self) -> WgPublicKey {
        public(self.disk.key)
    }

    /// It takes another key; an agent that runs has to be started anew with it.
    pub fn change_key(&mut self) {
        self.disk.key = self.random.bytes();
        self.disk.next_key = None;
        // That is no write of the agent's own.
        (self.before.key, self.before.next_key) = (self.disk.key, None);
    }

    /// It is asked for another key, which it makes and stores, unless one waits already.
    pub fn rotate_key(&mut self) {
        if self.disk.next_key.is_none() && !self.disk.refused {
            let next = self.random.bytes();
            self.store(|disk| disk.next_key = Some(next));
        }
    }

    /// The key that its map has for it, when that is not the one that it wants.
    fn wants_key(&self) -> Option<WgPublicKey> {
        let wanted = public(self.disk.next_key.unwrap_or(self.disk.key));
        self.listed_key(self.map()).filter(|listed| *listed != wanted).map(|_| wanted)
    }

    fn listed_key(&self, map: Option<&Snapshot>) -> Option<WgPublicKey> {
        let own = map.into_iter().flat_map(records).find(|record| record.node == self.node);
        own.map(|record| record.wg_key)
    }

    /// Takes the new key into use if this map says that it is this node's. Before the map is stored.
    fn adopt_key(&mut self, map: Option<&Snapshot>, now: Instant) -> Result<(), CommandError> {
        let listed = self.listed_key(map);
        let Some(next) = self.disk.next_key.filter(|next| Some(public(*next)) == listed) else {
            return Ok(());
        };
        self.store(|disk| (disk.key, disk.next_key) = (next, None));
        let private_key = PrivateKey(Zeroizing::new(next));
        self.command(Command::SetPrivateKey { network: network(), private_key }, now)
    }

    /// The map as this agent knows it.
    pub fn map(&self) -> Option<&Snapshot> {
        self.disk.map.as_ref()
    }

    /// Whether the coordinator has told it that it is out.
    pub fn is_refused(&self) -> bool {
        self.disk.refused
    }

    /// The last write was lost, as in a power cut.
    pub fn forget_last_write(&mut self) {
        self.disk.clone_from(&self.before);
    }

    /// The process starts, with what is on disk.
    pub fn start(&mut self, host: std::net::SocketAddr, now: Instant) -> Result<(), CommandError> {
        // The process ended between two steps of a change of keys.
        self.adopt_key(self.disk.map.clone().as_ref(), now)?;
        let config = EngineConfig { seed: self.random.bytes() };
        let sessions = SimSessions::new(self.clock.clone(), self.random.number());
        let mut engine = Engine::with_sessions(config, Box::new(sessions));
        // Nobody can tell how many shards a node has, so there are nodes with one, two and three.
        engine.set_shards(1 + usize::from(self.node.as_bytes()[0]) % 3);
        engine.handle_command(Command::SetHostCandidates(vec![host]), now)?;
        self.run = Some(Run {
            engine,
            boot: BootId::from_bytes(self.random.bytes()),
            in_engine: false,
            stream: if self.disk.refused { Stream::Refused } else { Stream::Waiting { until: now } },
            failures: 0,
            report: None,
            told: None,
            asked: None,
        });
        if self.disk.refused { Ok(()) } else { self.start_engine(now) }
    }

    fn start_engine(&mut self, now: Instant) -> Result<(), CommandError> {
        let (Some(run), Some(snapshot)) = (&mut self.run, self.disk.map.clone()) else { return Ok(()) };
        run.in_engine = true;
        let add = AddNetwork {
            id: network(),
            private_key: Zeroizing::new(self.disk.key),
            node: self.node,
            boot: run.boot,
            mtu: snapshot.network.mtu,
        };
        let mut members = self.disk.live.clone();
        members.iter_mut().for_each(|live| live.online = false);
        let update = LiveUpdate { whole: true, members };
        for command in [
            Command::AddNetwork(add),
            Command::SetMap { network: network(), snapshot },
            Command::ApplyLive { network: network(), update },
            Command::SetRelays { network: network(), relays: resolve(&self.disk.relays) },
        ] {
            run.engine.handle_command(command, now)?;
        }
        Ok(())
    }

    /// When it wants to do something about its stream.
    pub fn next(&self) -> Option<Instant> {
        match self.run.as_ref()?.stream {
            Stream::Waiting { until } => Some(until),
            Stream::Open(_) | Stream::Refused => None,
        }
    }

    /// What it wants to say now.
    pub fn poll_stream(&mut self, now: Instant) -> Option<Say> {
        let revision = self.disk.map.as_ref().map(|map| map.revision);
        let (node, wanted) = (self.node, self.wants_key());
        let run = self.run.as_mut()?;
        match run.stream {
            Stream::Waiting { until } if until <= now => {
                (run.told, run.asked) = (None, None);
                Some(Say::Open(NodeMessage::Resume(resume(node, revision, run.boot))))
            }
            Stream::Open(stream) if run.report.is_some() && run.report != run.told => {
                run.told.clone_from(&run.report);
                Some(Say::On(stream, NodeMessage::Report(run.report.clone()?)))
            }
            Stream::Open(stream) if wanted.is_some() && wanted != run.asked => {
                run.asked = wanted;
                let request = Rotate { wg_key: wanted?, proof: vec![] };
                Some(Say::On(stream, NodeMessage::Rotate(request)))
            }
            Stream::Open(_) | Stream::Waiting { .. } | Stream::Refused => None,
        }
    }

    /// The stream that it asked for is this.
    pub fn handle_opened(&mut self, stream: StreamId) {
        if let Some(run) = &mut self.run {
            run.stream = Stream::Open(stream);
        }
    }

    /// A stream has ended. One that it does not use any more is none of its business.
    pub fn handle_closed(&mut self, stream: StreamId, now: Instant) {
        let Some(run) = self.run.as_mut().filter(|run| run.stream == Stream::Open(stream)) else { return };
        let wait = BACK_OFF.0.saturating_mul(1 << run.failures.min(8)).min(BACK_OFF.1);
        run.failures += 1;
        let half = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX) / 2;
        let wait = Duration::from_micros(half + self.random.below(half));
        run.stream = Stream::Waiting { until: now + wait };
    }

    /// The host's network is another: the stream is opened anew at once. Returns the old one.
    pub fn reconnect(&mut self, now: Instant) -> Option<StreamId> {
        let run = self.run.as_mut()?;
        let old = match run.stream {
            Stream::Open(stream) => Some(stream),
            Stream::Waiting { .. } => None,
            Stream::Refused => return None,
        };
        run.failures = 0;
        run.stream = Stream::Waiting { until: now };
        old
    }

    /// Its engine's candidates have changed.
    pub fn handle_candidates(&mut self, candidates: Vec<Candidate>) {
        if let Some(run) = &mut self.run {
            run.report = Some(candidates);
        }
    }

    /// The coordinator said something on a stream.
    #[allow(clippy::wildcard_enum_match_arm, reason = "only what concerns the engine is modelled")]
    pub fn handle_message(
        &mut self,
        stream: StreamId,
        message: CoordinatorMessage,
        now: Instant,
    ) -> Result<(), CommandError> {
        if self.run.as_ref().is_none_or(|run| run.stream != Stream::Open(stream)) {
            return Ok(());
        }
        match message {
            CoordinatorMessage::Snapshot(snapshot) => self.handle_snapshot(snapshot, now),
            CoordinatorMessage::Patches(patches) => self.handle_patches(patches, now),
            CoordinatorMessage::Live(update) => {
                self.store_live(&update);
                self.command(Command::ApplyLive { network: network(), update }, now)
            }
            CoordinatorMessage::Relays(relays) => {
                self.store(|disk| disk.relays.clone_from(&relays));
                self.command(Command::SetRelays { network: network(), relays: resolve(&relays) }, now)
            }
            CoordinatorMessage::Refused(refusal) if refusal.code == ErrorCode::NotAMember => {
                self.store(|disk| disk.refused = true);
                let Some(run) = &mut self.run else { return Ok(()) };
                run.stream = Stream::Refused;
                let was = std::mem::take(&mut run.in_engine);
                if was { run.engine.handle_command(Command::RemoveNetwork(network()), now) } else { Ok(()) }
            }
            // Nothing else is said in a simulation.
            _ => Ok(()),
        }
    }

    fn handle_snapshot(&mut self, snapshot: Snapshot, now: Instant) -> Result<(), CommandError> {
        self.adopt_key(Some(&snapshot), now)?;
        self.store(|disk| disk.map = Some(snapshot.clone()));
        self.keep_listed();
        let Some(run) = &mut self.run else { return Ok(()) };
        run.failures = 0;
        if run.in_engine {
            self.command(Command::SetMap { network: network(), snapshot }, now)
        } else {
            self.start_engine(now)
        }
    }

    fn handle_patches(&mut self, patches: PatchSet, now: Instant) -> Result<(), CommandError> {
        let mut map = self.disk.map.clone();
        let fits = map.as_mut().is_some_and(|map| fold(map, &patches));
        if !fits {
            // The real agent asks for a whole map; here only a mistake in the simulation leads to this.
            return Err(CommandError::RevisionGap { have: map.map(|map| map.revision), from: patches.from });
        }
        self.adopt_key(map.as_ref(), now)?;
        self.store(|disk| disk.map = map);
        self.keep_listed();
        if let Some(run) = &mut self.run {
            run.failures = 0;
        }
        self.command(Command::ApplyPatches { network: network(), patches }, now)
    }

    fn command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        match &mut self.run {
            Some(run) if run.in_engine => run.engine.handle_command(command, now),
            _ => Ok(()),
        }
    }

    fn store(&mut self, change: impl FnOnce(&mut Disk)) {
        self.before.clone_from(&self.disk);
        change(&mut self.disk);
    }

    fn store_live(&mut self, update: &LiveUpdate) {
        self.store(|disk| {
            for news in &update.members {
                let before = disk.live.iter().position(|live| live.node == news.node);
                match before.and_then(|at| disk.live.get_mut(at)) {
                    Some(live) if news.candidates.is_empty() => live.boot = news.boot,
                    Some(live) => live.clone_from(news),
                    None => disk.live.push(news.clone()),
                }
            }
        });
    }

    fn keep_listed(&mut self) {
        let listed: Vec<NodeId> =
            self.map().into_iter().flat_map(records).map(|record| record.node).collect();
        self.disk.live.retain(|live| listed.contains(&live.node));
    }
}

fn public(key: [u8; 32]) -> WgPublicKey {
    WgPublicKey(PublicKey::from(&StaticSecret::from(key)).to_bytes())
}

fn resume(node: NodeId, revision: Option<Revision>, boot: BootId) -> Resume {
    Resume {
        network: network(),
        node,
        revision,
        boot,
        clock: None,
        trusts: None,
        holds: Some(Vec::new()),
        routes: None,
    }
}

/// The records of a map's members.
pub fn records(map: &Snapshot) -> impl Iterator<Item = MemberRecord> + '_ {
    map.members.iter().filter_map(|member| from_bytes(&member.record.bytes).ok())
}

/// Folds patches into a map the plain way. `false` when they don't follow it.
fn fold(map: &mut Snapshot, set: &PatchSet) -> bool {
    if map.revision != set.from {
        return false;
    }
    for patch in &set.patches {
        match patch {
            Patch::NetworkChanged(info) => map.network = info.clone(),
            Patch::PolicySet(policy) => map.policy = Some(policy.clone()),
            Patch::MemberSet(member) => {
                let node = |bytes: &[u8]| from_bytes::<MemberRecord>(bytes).map(|record| record.node).ok();
                map.members.retain(|old| node(&old.record.bytes) != node(&member.record.bytes));
                map.members.push(member.clone());
                map.members.sort_by_key(|member| node(&member.record.bytes));
            }
            Patch::MemberRemoved(node) => {
                map.members.retain(|old| {
                    from_bytes::<MemberRecord>(&old.record.bytes).is_ok_and(|record| record.node != *node)
                });
            }
        }
    }
    map.revision = set.to;
    true
}

fn resolve(relays: &[Relay]) -> Vec<RelayServer> {
    let address = |relay: &Relay| match &relay.host {
        RelayHost::Name(name) => Some(std::net::SocketAddr::new(name.parse().ok()?, relay.udp_port)),
        RelayHost::Coordinator => None,
    };
    let server = |relay: &Relay| {
        Some(RelayServer {
            name: relay.name.clone(),
            address: address(relay)?,
            tls_port: None,
            username: relay.username.clone(),
            password: relay.password.clone(),
        })
    };
    relays.iter().filter_map(server).collect()
}
