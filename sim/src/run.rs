//! Makes the run of a plan: lets its happenings happen and holds the world to what must be true.
//!
//! At all times ([`World`] and [`crate::ledger`] see to it): a packet comes out once, unchanged, where it was meant for, under
//! an address of its sender, between members only, never against the policy of either end; every map that an engine folds is one that the coordinator had; no
//! engine turns in a circle or refuses what the coordinator says. When all has [`Happening::Settled`]: maps are the latest,
//! links of all members that can reach each other come up in time, and every packet over them arrives. At the end:
//! nothing was logged as an error, nothing was dropped for a reason that can't be, and quiet hosts are quiet.

use std::time::Duration;

use ria_core::{DropReason, Engine, LinkState};
use ria_protocol::map::Patch;
use ria_protocol::record::MemberRecord;

use crate::happening::{Happening, Plan};
use crate::internet::{End, HostId, Weather};
use crate::ledger::Wrong;
use crate::trace::Trace;
use crate::watch::Watch;
use crate::world::{Talk, World, info};

/// Within this time after all trouble has ended all links are up. A relay that was away for long is asked again within
/// half a minute, and the addresses that it gives have to get around.
pub const RECOVERY: Duration = Duration::from_secs(45);

/// Datagrams that a host may send in an idle minute for each peer that it has a link to: probes, refreshes, keepalives.
const IDLE_DATAGRAMS: u64 = 100;

/// For each member that it has no link to and seeks: each address once a second in the first minutes.
const SEEKING_DATAGRAMS: u64 = 500;

/// What never happens, whatever the network does.
const IMPOSSIBLE: [DropReason; 6] = [
    DropReason::TooLarge,
    DropReason::BatchFull,
    DropReason::NoSuchNetwork,
    DropReason::FilteredIn,
    DropReason::FilteredOut,
    DropReason::Multicast,
];

/// What happens only where a policy is.
const FILTERED: [DropReason; 2] = [DropReason::FilteredIn, DropReason::FilteredOut];

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Hash of all that happened.
    pub trace: u64,
    /// Virtual time.
    pub age: Duration,
    /// Virtual time that agents have run, in all.
    pub node_time: Duration,
    /// Inner packets that arrived.
    pub packets: u64,
    /// Datagrams that hosts sent.
    pub datagrams: u64,
    /// The longest that anybody waited for all links after trouble had ended.
    pub recovery: Duration,
}

/// A run that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// What was wrong.
    pub wrong: Wrong,
    /// During which happening, by its place in the plan.
    pub at: usize,
    /// The trace, where it was asked for.
    pub lines: Vec<String>,
}

/// Makes the run of a plan.
pub fn run(plan: &Plan) -> Result<Report, Failure> {
    run_traced(plan, Trace::default())
}

/// The same with a trace that was begun elsewhere.
pub fn run_traced(plan: &Plan, trace: Trace) -> Result<Report, Failure> {
    let watch = Watch::default();
    watch.over(|| Runner::new(plan, trace, watch.clone()).run())
}

/// Makes the run of a plan and hands out a host's engine at its end, for somebody to measure.
pub fn run_measured<T>(
    plan: &Plan,
    host: HostId,
    measure: impl FnOnce(Option<Engine>) -> T,
) -> Result<T, Failure> {
    let watch = Watch::default();
    watch.over(|| {
        let mut runner = Runner::new(plan, Trace::default(), watch.clone());
        runner.live()?;
        let run = runner.world.agents.get_mut(host).and_then(|agent| agent.run.take());
        Ok(measure(run.map(|run| run.engine)))
    })
}

struct Runner<'a> {
    plan: &'a Plan,
    world: World,
    watch: Watch,
    recovery: Duration,
}

impl<'a> Runner<'a> {
    fn new(plan: &'a Plan, trace: Trace, watch: Watch) -> Self {
        Self { plan, world: World::new(plan, trace), watch, recovery: Duration::ZERO }
    }

    fn run(mut self) -> Result<Report, Failure> {
        self.live()?;
        Ok(Report {
            trace: self.world.trace.hash(),
            age: self.world.age(),
            node_time: self.world.node_time,
            packets: self.world.ledger.arrived,
            datagrams: self.world.internet.sent,
            recovery: self.recovery,
        })
    }

    fn live(&mut self) -> Result<(), Failure> {
        for (at, happening) in self.plan.happenings.iter().enumerate() {
            let age = self.world.age();
            self.world.trace.note(age, format_args!("{happening:?}"));
            if let Err(wrong) = self.apply(*happening).and_then(|()| self.check()) {
                let lines = std::mem::take(&mut self.world.trace).into_lines();
                return Err(Failure { wrong, at, lines });
            }
        }
        Ok(())
    }

    fn apply(&mut self, happening: Happening) -> Result<(), Wrong> {
        let world = &mut self.world;
        let hosts = world.agents.len();
        match happening {
            Happening::Paused(ms) => return world.run(Duration::from_millis(ms.into())),
            Happening::Settled => return self.settle(),
            Happening::Talked { from, to, packets, every } => {
                let (from, to, every) = (from % hosts, to % hosts, Duration::from_millis(every.into()));
                if from != to {
                    world.talk(Talk { from, to, left: packets, every });
                }
            }
            Happening::WeatherChanged(weather) => world.internet.weather = weather,
            Happening::Cut(a, b) => {
                let within = |end| if let End::Host(host) = end { End::Host(host % hosts) } else { end };
                world.internet.cut(within(a), within(b));
            }
            Happening::Isolated(host) => world.internet.isolate(host % hosts),
            Happening::Mended => world.internet.mend(),
            Happening::Rebound(nat) => world.internet.rebind(nat),
            Happening::RelaySet(runs) => world.internet.set_relay(runs && self.plan.has_relay),
            Happening::CoordinatorSet(runs) => world.set_coordinator(runs),
            Happening::NewsDelayed(ms) => world.news_delay = Duration::from_millis(ms.into()),
            Happening::NetworkChanged => {
                let name = format!("lab-{}", world.coordinator.revision().0);
                world.change(Patch::NetworkChanged(info(&name)));
            }
            Happening::Replayed(count) => world.internet.replay(count.into(), world.now),
            Happening::Garbage { host, len } => world.internet.garbage(host % hosts, len.into(), world.now),
            Happening::Stopped(host) => world.stop(host % hosts),
            Happening::Started(host) => world.start(host % hosts),
            Happening::Crashed { host, write_lost } => self.crash(host % hosts, write_lost),
            Happening::StreamBroken(host) => world.break_stream(host % hosts),
            Happening::StreamsBroken => (0..hosts).for_each(|host| world.break_stream(host)),
            Happening::PolicySet(policy) => world.set_policy(policy),
            Happening::Joined(host) => world.join(host % hosts),
            Happening::Roamed { host, place } => world.roam(host % hosts, place),
            Happening::ClockSet { host, seconds } => {
                world.agents[host % hosts].clock.set_wall(seconds.saturating_mul(1_000_000));
            }
            Happening::Removed(host) => self.remove(host % hosts),
            Happening::KeyChanged(host) => self.change_key(host % hosts),
            Happening::KeyRotated(host) => world.rotate_key(host % hosts),
            Happening::Readdressed(host) => {
                let prefixes = world.new_prefixes();
                self.change_member(host % hosts, |_, record| record.prefixes = prefixes);
            }
            Happening::Renamed(host) => {
                let new = format!("renamed-{}", world.coordinator.revision().0);
                self.change_member(host % hosts, |name, _| *name = new);
            }
        }
        self.world.run(Duration::ZERO)
    }

    fn crash(&mut self, host: HostId, write_lost: bool) {
        if self.world.agents[host].run.is_none() {
            return;
        }
        self.world.stop(host);
        if write_lost {
            self.world.agents[host].forget_last_write();
        }
        self.world.start(host);
    }

    fn remove(&mut self, host: HostId) {
        let node = self.world.agents[host].node;
        if self.world.is_member(host) {
            self.world.change(Patch::MemberRemoved(node));
        }
    }

    fn change_key(&mut self, host: HostId) {
        let ran = self.world.agents[host].run.is_some();
        self.world.stop(host);
        self.world.agents[host].change_key();
        let key = self.world.agents[host].public_key();
        self.change_member(host, |_, record| record.wg_key = key);
        if ran {
            self.world.start(host);
        }
    }

    /// What the coordinator knows of a member changes.
    fn change_member(&mut self, host: HostId, change: impl FnOnce(&mut String, &mut MemberRecord)) {
        let world = &mut self.world;
        let Some(member) = world.coordinator.member(world.agents[host].node) else { return };
        let Ok(mut record) = member.record.open(world.coordinator.info().id, &[]) else { return };
        let mut name = member.name.to_string();
        change(&mut name, &mut record);
        let member = world.member(host, &name, (record.wg_key, record.prefixes));
        world.change(Patch::MemberSet(member));
    }

    /// What must be true after every happening.
    fn check(&self) -> Result<(), Wrong> {
        if let Some(line) = self.watch.take().first() {
            return Err(Wrong(format!("logged: {line}")));
        }
        for (host, agent) in self.world.agents.iter().enumerate() {
            let Some(run) = &agent.run else { continue };
            let drops = run.engine.status(self.world.now).drops;
            let filters = self.has_policies();
            let possible = |reason| filters && FILTERED.contains(&reason);
            for reason in IMPOSSIBLE.into_iter().filter(|reason| !possible(*reason)) {
                if drops.get(reason) > 0 {
                    return Err(Wrong(format!("host {host} dropped {} for {reason}", drops.get(reason))));
                }
            }
        }
        Ok(())
    }

    fn has_policies(&self) -> bool {
        self.plan.happenings.iter().any(|happening| matches!(happening, Happening::PolicySet(_)))
    }

    /// All trouble ends; all must be well in time.
    fn settle(&mut self) -> Result<(), Wrong> {
        let world = &mut self.world;
        world.internet.weather = Weather::FAIR;
        world.internet.mend();
        world.news_delay = Duration::from_millis(20);
        world.coordinator.start();
        if self.plan.has_relay && !world.internet.relay_runs() {
            world.internet.set_relay(true);
        }
        for host in 0..world.agents.len() {
            if world.is_member(host) {
                world.start(host);
            }
        }
        let begin = world.now;
        loop {
            // A link that has just died may be taken for a good one for a moment; packets tell.
            let missing = match self.missing() {
                Some(missing) => missing,
                None => match self.exchange_packets()? {
                    Some(lost) => lost,
                    None => break,
                },
            };
            let waited = self.world.now.saturating_duration_since(begin);
            if waited >= RECOVERY {
                return Err(Wrong(format!("{missing}, {} s after all trouble had ended", waited.as_secs())));
            }
            self.world.run(Duration::from_millis(250))?;
        }
        self.recovery = self.recovery.max(self.world.now.saturating_duration_since(begin));
        if let Some(lost) = self.exchange_packets()? {
            return Err(Wrong(format!("{lost}, after all had arrived before")));
        }
        self.idle()
    }

    /// Pairs of members of which the first must be able to talk to the second now.
    fn pairs(&self) -> Vec<(HostId, HostId)> {
        let world = &self.world;
        let members: Vec<HostId> = (0..world.agents.len()).filter(|host| world.is_member(*host)).collect();
        let all = members.iter().flat_map(|a| members.iter().map(|b| (*a, *b)));
        let surely = |(a, b): &(HostId, HostId)| {
            let may = world.coordinator.allows(world.agents[*a].node, world.agents[*b].node);
            a != b && may && (world.internet.surely_relayed(*a, *b) || world.internet.surely_direct(*a, *b))
        };
        all.filter(surely).collect()
    }

    /// What is not as it must become.
    fn missing(&self) -> Option<String> {
        let world = &self.world;
        for (host, agent) in world.agents.iter().enumerate().filter(|(host, _)| world.is_member(*host)) {
            let revision = agent.map().map(|map| map.revision);
            if revision != Some(world.coordinator.revision()) {
                return Some(format!("host {host} has not the latest map but {revision:?}"));
            }
        }
        self.pairs().into_iter().find_map(|(a, b)| {
            let (state, reason) = self.link(a, b);
            let up = matches!(state, LinkState::Up | LinkState::Degraded);
            (!up).then(|| format!("the link from host {a} to {b} is {state:?} ({reason})"))
        })
    }

    fn link(&self, host: HostId, other: HostId) -> (LinkState, &'static str) {
        let node = self.world.agents[other].node;
        let run = self.world.agents[host].run.as_ref();
        let status = run.map(|run| run.engine.status(self.world.now));
        let networks = status.map(|status| status.networks).unwrap_or_default();
        let peers = networks.into_iter().next().map(|network| network.peers).unwrap_or_default();
        let peer = peers.into_iter().find(|peer| peer.node == node);
        peer.map_or((LinkState::Idle, "no such peer"), |peer| (peer.link_state, peer.path_reason))
    }

    /// Packets between all members; tells of one that did not arrive.
    fn exchange_packets(&mut self) -> Result<Option<String>, Wrong> {
        let mut sent = Vec::new();
        for _ in 0..4 {
            for (from, to) in self.pairs() {
                sent.push((from, to, self.world.send_packet(from, to)));
            }
            self.world.run(Duration::from_millis(200))?;
        }
        self.world.run(Duration::from_secs(1))?;
        let has_arrived = |number: Option<u64>| number.is_some_and(|n| self.world.ledger.has_arrived(n));
        let lost = sent.into_iter().find(|(_, _, number)| !has_arrived(*number));
        Ok(lost.map(|(from, to, _)| format!("a packet from host {from} to {to} is lost on a good link")))
    }

    /// Hosts that nobody uses keep still.
    fn idle(&mut self) -> Result<(), Wrong> {
        // What applications began to say before may still go on for half a minute.
        self.world.run(Duration::from_secs(60))?;
        let before = self.world.internet.sent;
        self.world.run(Duration::from_secs(60))?;
        let sent = self.world.internet.sent - before;
        let (hosts, links) = (self.world.agents.len() as u64, self.pairs().len() as u64);
        // Hosts that joined anew left members behind that nobody is any more.
        let sought = (hosts * self.world.coordinator.members() as u64).saturating_sub(links);
        let most = IDLE_DATAGRAMS * links + SEEKING_DATAGRAMS * sought;
        if sent > most {
            return Err(Wrong(format!(
                "{hosts} idle hosts sent {sent} datagrams in a minute; {most} are plenty"
            )));
        }
        Ok(())
    }
}
