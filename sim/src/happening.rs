//! Everything that can happen to a network, as one enum, and plans of it drawn from a seed.
//!
//! A plan is plain data: what is printed for a run that failed can be pasted into a test. Hosts and NATs are taken modulo
//! their number, so a plan stays one whatever is left out of it.

use crate::internet::{End, HostId, NATS, Place, Weather};
use crate::random::Random;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// Time passes: this many milliseconds.
    Paused(u32),
    /// An application on one host begins to send packets to another, this many, one each so many milliseconds.
    Talked { from: HostId, to: HostId, packets: u16, every: u16 },
    /// Datagrams fare like this from now on.
    WeatherChanged(Weather),
    /// Nothing passes between two hosts, or between a host and the relay.
    Cut(End, End),
    /// A host reaches nobody, the coordinator included.
    Isolated(HostId),
    /// All cuts are mended.
    Mended,
    /// An agent is stopped.
    Stopped(HostId),
    /// It runs again.
    Started(HostId),
    /// An agent is killed and started at once; the last write to its disk may be lost.
    Crashed { host: HostId, write_lost: bool },
    /// A host is in another place and has another address.
    Roamed { host: HostId, place: Place },
    /// A NAT forgot its mappings.
    Rebound(usize),
    /// The relay runs, or doesn't. Starting it while it runs is a restart.
    RelaySet(bool),
    /// The coordinator runs, or doesn't.
    CoordinatorSet(bool),
    /// An agent's stream to the coordinator breaks.
    StreamBroken(HostId),
    /// What is said on streams takes this many milliseconds.
    NewsDelayed(u16),
    /// A host becomes a member, as a new node.
    Joined(HostId),
    /// An administrator removes a member.
    Removed(HostId),
    /// A member gets another WireGuard key.
    KeyChanged(HostId),
    /// The agent of a member is asked for another WireGuard key, and goes on working meanwhile.
    KeyRotated(HostId),
    /// A member gets other addresses.
    Readdressed(HostId),
    /// A member gets another name.
    Renamed(HostId),
    /// The network's name changes.
    NetworkChanged,
    /// Another policy is in force: of 0 everybody may begin anything with everybody, of others some may not with some.
    PolicySet(u8),
    /// The streams of all agents break at the same moment.
    StreamsBroken,
    /// A host's wall clock is set to this many seconds after 1970.
    ClockSet { host: HostId, seconds: u64 },
    /// So many datagrams of the recent past are sent again by somebody.
    Replayed(u16),
    /// A stranger sends a host so many bytes of anything.
    Garbage { host: HostId, len: u16 },
    /// All trouble ends and all must be well in time. Each plan ends with this.
    Settled,
}

/// A run to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of all randomness below the plan: keys, losses, delays.
    pub seed: u64,
    /// Where the hosts are at first.
    pub places: Vec<Place>,
    /// How many of them are members at first.
    pub members: usize,
    /// Whether there is a relay at all.
    pub has_relay: bool,
    /// What happens.
    pub happenings: Vec<Happening>,
}

impl Plan {
    /// The plan of a seed. One in eight has no relay.
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7269_6120_7369_6d00);
        let hosts = 2 + random.index(5);
        let places = (0..hosts).map(|_| draw_place(&mut random)).collect();
        let members = 2 + random.index(hosts - 1);
        let has_relay = random.below(8) > 0;
        let count = 10 + random.index(50);
        let mut happenings = Vec::with_capacity(2 * count + 1);
        for _ in 0..count {
            happenings.push(draw(&mut random, hosts));
            happenings.push(Happening::Paused(draw_pause(&mut random)));
        }
        happenings.push(Happening::Settled);
        Self { seed, places, members, has_relay, happenings }
    }

    /// The same with policies that come and go, and mass reconnects.
    pub fn with_policies(seed: u64) -> Self {
        let mut plan = Self::from_seed(seed);
        let mut random = Random::new(seed ^ 0x706f_6c69_6379_0000);
        for _ in 0..2 + random.index(6) {
            let at = random.index(plan.happenings.len());
            let policy = u8::try_from(random.below(256)).unwrap_or_default();
            let happening = match random.below(4) {
                0 => Happening::StreamsBroken,
                1 => Happening::PolicySet(policy % 2),
                _ => Happening::PolicySet(policy),
            };
            plan.happenings.insert(at, happening);
        }
        plan
    }

    /// The plan as it would stand in a test.
    pub fn show(&self) -> String {
        let Self { seed, places, members, has_relay, happenings } = self;
        let lines: String = happenings.iter().map(|happening| format!("        {happening:?},\n")).collect();
        format!(
            "Plan {{\n    seed: {seed},\n    places: vec!{places:?},\n    members: {members},\n    has_relay: {has_relay},\n    \
             happenings: vec![\n{lines}    ],\n}}"
        )
    }
}

/// Mostly short, so that things happen on top of each other; sometimes long enough for keys to end.
fn draw_pause(random: &mut Random) -> u32 {
    let longest = match random.below(20) {
        0 => 200_000,
        1..=4 => 20_000,
        5..=12 => 2000,
        _ => 150,
    };
    u32::try_from(random.below(longest)).unwrap_or_default()
}

fn draw_place(random: &mut Random) -> Place {
    if random.below(4) == 0 { Place::Public } else { Place::Behind(random.index(NATS)) }
}

fn draw_weather(random: &mut Random) -> Weather {
    let mut share = |one_in: u64, most: u64| {
        let value = random.below(most);
        if random.below(one_in) == 0 { u16::try_from(value).unwrap_or_default() } else { 0 }
    };
    Weather {
        loss: share(2, 400),
        duplicates: share(3, 300),
        damage: share(4, 100),
        delay: 1 + share(2, 300),
        jitter: share(2, 100),
    }
}

fn draw(random: &mut Random, hosts: usize) -> Happening {
    let (host, other) = (random.index(hosts), random.index(hosts));
    let some = |random: &mut Random, most: u64| u16::try_from(random.below(most)).unwrap_or_default();
    match random.below(52) {
        0..=13 => Happening::Talked {
            from: host,
            to: other,
            packets: 1 + some(random, 60),
            every: 1 + some(random, 500),
        },
        14..=17 => Happening::WeatherChanged(draw_weather(random)),
        18 | 19 => Happening::Cut(End::Host(host), End::Host(other)),
        20 => Happening::Cut(End::Host(host), End::Relay),
        21 => Happening::Isolated(host),
        22..=24 => Happening::Mended,
        25 => Happening::Stopped(host),
        26 | 27 => Happening::Started(host),
        28 | 29 => Happening::Crashed { host, write_lost: random.below(3) == 0 },
        30..=32 => Happening::Roamed { host, place: draw_place(random) },
        33 => Happening::Rebound(random.index(NATS)),
        34 | 35 => Happening::RelaySet(random.below(3) > 0),
        36 => Happening::CoordinatorSet(random.below(2) > 0),
        37 => Happening::StreamBroken(host),
        38 => Happening::NewsDelayed(some(random, 2000)),
        39 | 40 => Happening::Joined(host),
        41 => Happening::Removed(host),
        42 => Happening::KeyChanged(host),
        43 => Happening::Readdressed(host),
        44 => Happening::Renamed(host),
        45 => Happening::NetworkChanged,
        46 => Happening::ClockSet { host, seconds: draw_clock(random) },
        47 => Happening::Replayed(1 + some(random, 100)),
        48 => Happening::Garbage { host, len: some(random, 300) },
        49 | 50 => Happening::KeyRotated(host),
        _ => Happening::Settled,
    }
}

fn draw_clock(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => 0,
        1 => 1_800_000_000 + random.below(1000),
        _ => random.below(4_000_000_000),
    }
}
