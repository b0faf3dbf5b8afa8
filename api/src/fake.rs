//! A made-up agent: the real server with invented data, steered by lines of text. For tests of the API and for
//! trying out programs that use it; it has no tunnel and talks to no coordinator.
//!
//! This machine is in the network `lab` after a line `join` or after any valid join key, and in others that `join` names.
//! Lines speak of the network that was joined last, or that `network` names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::join_key::JoinKey;
use serde::Deserialize;
use serde::de::value::{Error as WordError, StrDeserializer};
use tokio::sync::broadcast;

use crate::error::ApiError;
use crate::network_path;
use crate::server::{Backend, Caller, Notice, Probe};
use crate::state::{
    AgentStatus, Condition, Connectivity, CoordinatorState, Event, JoinOptions, Joined, LinkState,
    NetworkReport, NetworkState, NetworkStatus, NetworkSummary, PathKind, PeerKind, PeerStatus, PingReply,
    RelayReport, Severity, Uplink, UplinkKind,
};

/// The commands, one a line.
pub const HELP: &str = "\
join [NAME [NETWORK]]                    this machine joins the network (lab), as NAME
network NETWORK                          lines speak of this network from now on
leave                                    it leaves
interface [NAME ADDRESS]                 the interface appears (ria0 10.213.0.1/16); `interface none` removes it
approval                                 joins wait for an administrator from now on, until `state up`
state joining|up|disabled|refused|failed|waiting
coordinator connecting|connected|unreachable|refused
peer NAME [LINK_STATE [PATH [RTT [LOSS]]]]   adds or changes a peer
traffic NAME RX_BYTES TX_BYTES           what was received from it and sent to it, in packets of 1000 bytes
clock NAME OFFSET ERROR                  its clock is ahead by so many seconds, within ERROR
wifi SSID ACCESS_POINT SIGNAL            the machine is connected by this Wi-Fi, as wlan0, at SIGNAL dBm
remove NAME                              removes a peer
condition CODE SEVERITY TEXT...          adds or changes a health condition; without a text, removes it
report [udp|isolation|portal=yes|no mapping|filtering=WORD relay=RTT finding=CODE ...]   what netchecks find
slow SECONDS                             netchecks take this long
event KIND PEER BEFORE AFTER [GAP]       `-` for nothing
";

/// The network that join keys are for.
const LAB: &str = "lab";

/// The first network has the addresses 10.213.0.0/16, the next 10.214.0.0/16.
const FIRST_BLOCK: usize = 213;

/// The made-up agent.
#[derive(Debug)]
pub struct FakeAgent {
    world: Mutex<World>,
    notices: broadcast::Sender<Notice>,
}

#[derive(Debug)]
struct World {
    networks: BTreeMap<NetworkId, Lab>,
    /// The network that lines speak of.
    current: NetworkId,
    uplink: Uplink,
    events: u64,
}

/// One network, before and after it was joined.
#[derive(Debug, Default)]
struct Lab {
    /// Which network it is among those that were spoken of, for interface and addresses.
    number: usize,
    network: Option<NetworkStatus>,
    peers: BTreeMap<String, PeerStatus>,
    found: NetworkReport,
    /// Joins wait for an administrator.
    needs_approval: bool,
    /// How long a netcheck takes.
    netcheck_takes: Duration,
}

impl Default for FakeAgent {
    fn default() -> Self {
        let (networks, uplink) = (BTreeMap::new(), Uplink::default());
        let world = World { networks, current: network_id(), uplink, events: 0 };
        Self { world: Mutex::new(world), notices: broadcast::channel(64).0 }
    }
}

impl FakeAgent {
    /// Carries out one line of [`HELP`].
    pub fn command(&self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut world = self.world();
        let notice = match words.as_slice() {
            [] => return Ok(()),
            ["join", names @ ..] => {
                let network = names.get(1).copied().unwrap_or(LAB);
                world.current = id_of(network)?;
                world.lab().join(names.first().copied().unwrap_or("robot-1"), network);
                Some(Notice::NetworksChanged)
            }
            ["network", name] => {
                world.current = id_of(name)?;
                None
            }
            _ => world.told(&words)?,
        };
        drop(world);
        if let Some(notice) = notice {
            self.notify(notice);
        }
        Ok(())
    }

    /// Carries out a line that speaks of this network.
    fn command_for(&self, network: NetworkId, line: &str) -> Result<(), ApiError> {
        self.world().current = network;
        self.command(line).map_err(ApiError::Failed)
    }

    fn notify(&self, notice: Notice) {
        let notice = match notice {
            // Counters are brought up to date on the way.
            Notice::Changed(id, _) => match self.network(id) {
                Ok(status) => Notice::Changed(id, Arc::new(status)),
                Err(_) => return,
            },
            other @ (Notice::NetworksChanged | Notice::Happened(_)) => other,
        };
        // Nobody listening is fine.
        let _ = self.notices.send(notice);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self, id: NetworkId) -> Result<NetworkStatus, ApiError> {
        let mut world = self.world();
        let none = || ApiError::NoSuchNetwork("this machine is in no such network".into());
        let lab = world.networks.get_mut(&id).ok_or_else(none)?;
        let up = lab.peers.values().filter(|p| p.link_state == LinkState::Up).count();
        let total = lab.peers.len();
        let network = lab.network.as_mut().ok_or_else(none)?;
        network.peers_total = u32::try_from(total).unwrap_or(u32::MAX);
        network.peers_up = u32::try_from(up).unwrap_or(u32::MAX);
        Ok(network.clone())
    }

    /// The peers of a network that this machine is in.
    fn peers_of(&self, id: NetworkId) -> Result<BTreeMap<String, PeerStatus>, ApiError> {
        self.network(id)?;
        Ok(self.world().networks.get(&id).map(|lab| lab.peers.clone()).unwrap_or_default())
    }
}

impl World {
    /// The network that lines speak of.
    fn lab(&mut self) -> &mut Lab {
        let number = self.networks.len();
        self.networks.entry(self.current).or_insert_with(|| Lab { number, ..Lab::default() })
    }

    /// A line about the network that was joined last or named; what clients are to be told of it.
    fn told(&mut self, words: &[&str]) -> Result<Option<Notice>, String> {
        let changed = Some(changed(self.current));
        let lab = self.lab();
        match words {
            ["leave"] => {
                *lab = Lab { number: lab.number, ..Lab::default() };
                return Ok(Some(Notice::NetworksChanged));
            }
            ["peer", name, rest @ ..] => lab.set_peer(name, rest)?,
            ["approval"] => {
                lab.needs_approval = true;
                return Ok(None);
            }
            ["slow", seconds] => {
                let seconds = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
                lab.netcheck_takes = seconds.ok_or("SECONDS is a number of seconds")?;
                return Ok(None);
            }
            ["traffic", name, received, sent] => lab.set_traffic(name, [received, sent])?,
            ["clock", name, offset, error] => lab.set_clock(name, [offset, error])?,
            ["wifi", ssid, access_point, signal] => self.set_wifi(ssid, access_point, signal)?,
            ["report", facts @ ..] => {
                lab.set_report(facts)?;
                return Ok(None);
            }
            ["remove", name] => drop(lab.peers.remove(*name).ok_or("no such peer")?),
            ["event", kind, peer, before, after, gap @ ..] => {
                let event = self.event([kind, peer, before, after], gap.first().copied())?;
                return Ok(Some(Notice::Happened(event)));
            }
            _ => {
                lab.set_network(words)?;
                // The list of networks tells state and interface, too.
                if matches!(words[0], "interface" | "state") {
                    return Ok(Some(Notice::NetworksChanged));
                }
            }
        }
        Ok(changed)
    }

    fn set_wifi(&mut self, ssid: &str, access_point: &str, signal: &str) -> Result<(), String> {
        self.uplink = Uplink {
            source: "NetworkManager".into(),
            interface: "wlan0".into(),
            kind: UplinkKind::Wifi,
            connectivity: Connectivity::Full,
            ssid: Some(ssid.into()),
            access_point: Some(access_point.into()),
            signal: Some(signal.parse().map_err(|_| "SIGNAL is a number of dBm")?),
            ..Uplink::default()
        };
        Ok(())
    }

    fn event(&mut self, words: [&str; 4], gap: Option<&str>) -> Result<Event, String> {
        self.events += 1;
        let [kind, peer, before, after] = words.map(|w| if w == "-" { String::new() } else { w.to_owned() });
        let text = format!("{kind} of {peer}: {before} to {after}");
        Ok(Event {
            seq: self.events,
            time: now(),
            severity: Severity::Info,
            network_id: self.current.to_string(),
            gap: gap.map(str::parse).transpose().map_err(|_| "GAP is a number of seconds")?,
            kind,
            peer,
            before,
            after,
            text,
            ..Event::default()
        })
    }
}

impl Lab {
    fn join(&mut self, name: &str, network: &str) {
        let block = FIRST_BLOCK + self.number;
        self.network = Some(NetworkStatus {
            network_id: id_of(network).map(|id| id.to_string()).unwrap_or_default(),
            network: network.into(),
            state: NetworkState::Up,
            node_id: node_id(name),
            name: name.into(),
            ros_name: name.replace('-', "_"),
            interface: format!("ria{}", self.number),
            addresses: vec![format!("10.{block}.0.1/16"), "fd12:3456:789a::1/64".into()],
            mtu: 1280,
            coordinator_state: CoordinatorState::Connected,
            coordinator_url: "https://ria.lab.example".into(),
            map_revision: 1,
            udp_port: 41820,
            candidates: vec!["host 192.0.2.7:41820".into()],
            relay: "192.0.2.1:3478".into(),
            certificate_expires: now() + 7.0 * 86_400.0,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            coordinator_version: env!("CARGO_PKG_VERSION").into(),
            ..NetworkStatus::default()
        });
    }

    fn set_network(&mut self, words: &[&str]) -> Result<(), String> {
        let network = self.network.as_mut().ok_or("not joined: say `join` first")?;
        match words {
            ["interface", "none"] => {
                network.interface.clear();
                network.addresses.clear();
            }
            ["interface", rest @ ..] => {
                network.interface = rest.first().copied().unwrap_or("ria0").into();
                network.addresses = vec![rest.get(1).copied().unwrap_or("10.213.0.1/16").into()];
            }
            ["state", state] => network.state = word(state)?,
            ["coordinator", state] => network.coordinator_state = word(state)?,
            ["condition", code, rest @ ..] => {
                network.conditions.retain(|c| c.code != *code);
                if let [severity, text @ ..] = rest {
                    let (severity, text) = (word(severity)?, text.join(" "));
                    network.conditions.push(Condition { code: (*code).into(), severity, text, since: now() });
                }
            }
            _ => return Err(format!("unknown command; there are:\n{HELP}")),
        }
        network.map_revision += 1;
        Ok(())
    }

    fn set_report(&mut self, facts: &[&str]) -> Result<(), String> {
        let mut report =
            NetworkReport { took: 1.5, verdict: "nothing hinders".into(), ..NetworkReport::default() };
        for fact in facts {
            let (name, value) = fact.split_once('=').ok_or("facts are NAME=VALUE")?;
            match name {
                "udp" => report.udp = word(value)?,
                "isolation" => report.client_isolation = word(value)?,
                "portal" => report.captive_portal = word(value)?,
                "mapping" => report.mapping = word(value)?,
                "filtering" => report.filtering = word(value)?,
                "relay" => report.relays.push(RelayReport {
                    name: "coordinator".into(),
                    address: "192.0.2.1:3478".into(),
                    rtt: Some(value.parse().map_err(|_| "RTT is a number of seconds")?),
                }),
                "finding" => report.findings.push(Condition {
                    code: value.into(),
                    severity: Severity::Warning,
                    text: format!("{value} was found"),
                    since: now(),
                }),
                _ => return Err(format!("unknown command; there are:\n{HELP}")),
            }
        }
        if let Some(worst) = report.findings.first() {
            report.verdict.clone_from(&worst.text);
        }
        self.found = report;
        Ok(())
    }

    fn set_peer(&mut self, name: &str, words: &[&str]) -> Result<(), String> {
        let (number, block) = (self.peers.len() + 2, FIRST_BLOCK + self.number);
        let peer = self.peers.entry(name.into()).or_insert_with(|| PeerStatus {
            id: node_id(name),
            name: name.into(),
            ros_name: name.replace('-', "_"),
            kind: PeerKind::Node,
            addresses: vec![format!("10.{block}.0.{number}"), format!("fd12:3456:789a::{number:x}")],
            coordinator_online: true,
            path: PathKind::None,
            link_state: LinkState::Connecting,
            mtu: 1280,
            ..PeerStatus::default()
        });
        if let Some(state) = words.first() {
            peer.link_state = word(state)?;
        }
        if let Some(path) = words.get(1) {
            peer.path = word(path)?;
            let (direct, relayed) = (peer.path == PathKind::Direct, peer.path == PathKind::RelayUdp);
            peer.endpoint = if direct { format!("192.0.2.{number}:41820") } else { String::new() };
            peer.relay = if relayed { "192.0.2.1:3478".into() } else { String::new() };
            peer.path_reason = if direct { "probes answered" } else { "no direct path answered" }.into();
        }
        if let Some(rtt) = words.get(2) {
            peer.rtt = Some(rtt.parse().map_err(|_| "RTT is a number of seconds")?);
            peer.handshake_age = Some(1.0);
        }
        if let Some(loss) = words.get(3) {
            peer.loss = Some(loss.parse().map_err(|_| "LOSS is a number from 0 to 1")?);
        }
        Ok(())
    }

    fn set_clock(&mut self, name: &str, words: [&str; 2]) -> Result<(), String> {
        let peer = self.peers.get_mut(name).ok_or("no such peer")?;
        let [offset, error] =
            words.map(|text| text.parse().map_err(|_| "OFFSET and ERROR are numbers of seconds"));
        (peer.clock_offset, peer.clock_error) = (Some(offset?), Some(error?));
        Ok(())
    }

    fn set_traffic(&mut self, name: &str, bytes: [&str; 2]) -> Result<(), String> {
        let peer = self.peers.get_mut(name).ok_or("no such peer")?;
        let [received, sent] = bytes.map(|b| b.parse::<u64>().map_err(|_| "bytes are whole numbers"));
        (peer.rx_bytes, peer.tx_bytes) = (received?, sent?);
        (peer.rx_packets, peer.tx_packets) = (Some(peer.rx_bytes / 1000), Some(peer.tx_bytes / 1000));
        Ok(())
    }
}

#[async_trait]
impl Backend for FakeAgent {
    async fn agent_status(&self) -> Result<AgentStatus, ApiError> {
        let world = self.world();
        let joined =
            world.networks.iter().filter_map(|(id, lab)| lab.network.as_ref().map(|network| (id, network)));
        let networks = joined.map(|(id, n)| NetworkSummary {
            id: n.network_id.clone(),
            name: n.network.clone(),
            path: network_path(*id),
            interface: n.interface.clone(),
            state: n.state,
        });
        Ok(AgentStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            boot_id: "aaaaaaaaaaaaaaaa".into(),
            suggested_name: "robot-1".into(),
            networks: networks.collect(),
            conditions: Vec::new(),
            uplink: world.uplink.clone(),
            names: String::new(),
        })
    }

    async fn join(&self, _: JoinKey, options: JoinOptions, _: Caller) -> Result<Joined, ApiError> {
        let lab = network_id();
        let already = self.network(lab).is_ok();
        if !already {
            let name = options.name.unwrap_or_else(|| "robot-1".into());
            self.command_for(lab, &format!("join {name}"))?;
        }
        let waiting =
            !already && self.world().networks.get(&lab).is_some_and(|network| network.needs_approval);
        if waiting {
            self.command_for(lab, "state waiting")?;
        }
        let network = self.network(lab)?;
        Ok(Joined {
            network_id: network.network_id,
            network: network.network,
            name: network.name,
            path: network_path(lab),
            already,
            waiting,
            fingerprint: if waiting { "ab12-cd34".into() } else { String::new() },
        })
    }

    async fn network_status(&self, network: NetworkId) -> Result<NetworkStatus, ApiError> {
        self.network(network)
    }

    async fn peers(&self, network: NetworkId) -> Result<Vec<PeerStatus>, ApiError> {
        Ok(self.peers_of(network)?.into_values().collect())
    }

    async fn ping(&self, network: NetworkId, peer: &str, probe: Probe) -> Result<Vec<PingReply>, ApiError> {
        let known = self.peers_of(network)?.remove(peer);
        let peer =
            known.ok_or_else(|| ApiError::NoSuchPeer(format!("the network has no member \"{peer}\"")))?;
        let ok = peer.link_state == LinkState::Up;
        let wait = if ok { peer.rtt.unwrap_or(0.001) } else { probe.timeout };
        let wait = Duration::try_from_secs_f64(wait).map_err(|e| ApiError::InvalidArgument(e.to_string()))?;
        tokio::time::sleep(wait).await;
        let rtt = ok.then(|| peer.rtt.unwrap_or(0.001));
        let reply = |seq| PingReply { seq, ok, path: peer.path, endpoint: peer.endpoint.clone(), rtt };
        Ok((1..=probe.count).map(reply).collect())
    }

    async fn netcheck(&self, network: NetworkId) -> Result<NetworkReport, ApiError> {
        self.network(network)?;
        let takes = self.world().networks.get(&network).map(|lab| lab.netcheck_takes).unwrap_or_default();
        tokio::time::sleep(takes).await;
        let mut report = NetworkReport::default();
        if let Some(lab) = self.world().networks.get_mut(&network) {
            report = NetworkReport { time: now(), ..lab.found.clone() };
            if let Some(status) = &mut lab.network {
                status.report = report.clone();
            }
        }
        self.network(network)?;
        self.notify(changed(network));
        Ok(report)
    }

    async fn environment(&self, network: NetworkId) -> Result<BTreeMap<String, String>, ApiError> {
        self.network(network)?;
        Ok(BTreeMap::new())
    }

    async fn leave(&self, network: NetworkId, _: Caller) -> Result<(), ApiError> {
        self.network(network)?;
        self.command_for(network, "leave")
    }

    async fn set_url(&self, _: NetworkId, url: &str, _: Caller) -> Result<(), ApiError> {
        if url.starts_with("https://") {
            Ok(())
        } else {
            Err(ApiError::InvalidArgument(format!("{url} is no coordinator address")))
        }
    }

    async fn set_enabled(&self, network: NetworkId, enabled: bool, _: Caller) -> Result<(), ApiError> {
        self.network(network)?;
        let state = if enabled { "up" } else { "disabled" };
        self.command_for(network, &format!("state {state}"))
    }

    async fn rotate_key(&self, network: NetworkId, _: Caller) -> Result<(), ApiError> {
        self.network(network).map(|_| ())
    }

    fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}

/// Its status follows.
fn changed(network: NetworkId) -> Notice {
    Notice::Changed(network, Arc::default())
}

/// The network `lab`.
pub fn network_id() -> NetworkId {
    NetworkId::from_bytes(*b"ria-lab\0\0\0")
}

/// The network of this name.
fn id_of(name: &str) -> Result<NetworkId, String> {
    let mut bytes = *b"ria-\0\0\0\0\0\0";
    let room = bytes.get_mut(4..4 + name.len()).ok_or("NETWORK has 6 letters at most")?;
    room.copy_from_slice(name.as_bytes());
    Ok(NetworkId::from_bytes(bytes))
}

fn node_id(name: &str) -> String {
    let mut bytes = [0; NodeId::LEN];
    for (byte, c) in bytes.iter_mut().zip(name.bytes()) {
        *byte = c;
    }
    NodeId::from_bytes(bytes).to_string()
}

fn word<'a, T: Deserialize<'a> + Default + PartialEq>(text: &'a str) -> Result<T, String> {
    let value = T::deserialize(StrDeserializer::<WordError>::new(text)).map_err(|e| e.to_string())?;
    if value == T::default() && text != "unknown" {
        return Err(format!("\"{text}\" is none of the known words"));
    }
    Ok(value)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
