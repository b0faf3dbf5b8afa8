//! A made-up agent: the real server with invented data, steered by lines of text. For tests of the API and for
//! trying out programs that use it; it has no tunnel and talks to no coordinator.
//!
//! It knows one network, `lab`, which this machine is in after a line `join` or after any valid join key.

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
join [NAME]                              this machine joins the network lab, as NAME
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

/// The made-up agent.
#[derive(Debug)]
pub struct FakeAgent {
    lab: Mutex<Lab>,
    notices: broadcast::Sender<Notice>,
}

#[derive(Debug, Default)]
struct Lab {
    network: Option<NetworkStatus>,
    peers: BTreeMap<String, PeerStatus>,
    uplink: Uplink,
    events: u64,
    found: NetworkReport,
    /// Joins wait for an administrator.
    needs_approval: bool,
    /// How long a netcheck takes.
    netcheck_takes: Duration,
}

impl Default for FakeAgent {
    fn default() -> Self {
        Self { lab: Mutex::default(), notices: broadcast::channel(64).0 }
    }
}

impl FakeAgent {
    /// Carries out one line of [`HELP`].
    pub fn command(&self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut lab = self.lab();
        let notice = match words.as_slice() {
            [] => return Ok(()),
            ["join", name @ ..] => {
                lab.join(name.first().copied().unwrap_or("robot-1"));
                Notice::NetworksChanged
            }
            ["leave"] => {
                *lab = Lab { events: lab.events, ..Lab::default() };
                Notice::NetworksChanged
            }
            ["peer", name, rest @ ..] => {
                lab.set_peer(name, rest)?;
                changed()
            }
            ["approval"] => {
                lab.needs_approval = true;
                return Ok(());
            }
            ["slow", seconds] => {
                let seconds = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
                lab.netcheck_takes = seconds.ok_or("SECONDS is a number of seconds")?;
                return Ok(());
            }
            ["traffic", name, received, sent] => {
                lab.set_traffic(name, [received, sent])?;
                changed()
            }
            ["clock", name, offset, error] => lab.set_clock(name, [offset, error])?,
            ["wifi", ssid, access_point, signal] => lab.set_wifi(ssid, access_point, signal)?,
            ["report", facts @ ..] => return lab.set_report(facts),
            ["remove", name] => {
                lab.peers.remove(*name).ok_or("no such peer")?;
                changed()
            }
            ["event", kind, peer, before, after, gap @ ..] => {
                Notice::Happened(lab.event([kind, peer, before, after], gap.first().copied())?)
            }
            _ => lab.set_network(&words)?,
        };
        drop(lab);
        let notice = match notice {
            // Counters are brought up to date on the way.
            Notice::Changed(id, _) => match self.network(id) {
                Ok(status) => Notice::Changed(id, Arc::new(status)),
                Err(_) => return Ok(()),
            },
            other @ (Notice::NetworksChanged | Notice::Happened(_)) => other,
        };
        // Nobody listening is fine.
        let _ = self.notices.send(notice);
        Ok(())
    }

    fn lab(&self) -> MutexGuard<'_, Lab> {
        self.lab.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self, id: NetworkId) -> Result<NetworkStatus, ApiError> {
        let mut lab = self.lab();
        let up = lab.peers.values().filter(|p| p.link_state == LinkState::Up).count();
        let total = lab.peers.len();
        let none = || ApiError::NoSuchNetwork("this machine is in no such network".into());
        let network = lab.network.as_mut().filter(|_| id == network_id()).ok_or_else(none)?;
        network.peers_total = u32::try_from(total).unwrap_or(u32::MAX);
        network.peers_up = u32::try_from(up).unwrap_or(u32::MAX);
        Ok(network.clone())
    }
}

impl Lab {
    fn join(&mut self, name: &str) {
        self.network = Some(NetworkStatus {
            network_id: network_id().to_string(),
            network: "lab".into(),
            state: NetworkState::Up,
            node_id: node_id(name),
            name: name.into(),
            ros_name: name.replace('-', "_"),
            interface: "ria0".into(),
            addresses: vec!["10.213.0.1/16".into(), "fd12:3456:789a::1/64".into()],
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

    fn set_network(&mut self, words: &[&str]) -> Result<Notice, String> {
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
        // The list of networks tells state and interface, too.
        Ok(if matches!(words[0], "interface" | "state") { Notice::NetworksChanged } else { changed() })
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
        let number = self.peers.len() + 2;
        let peer = self.peers.entry(name.into()).or_insert_with(|| PeerStatus {
            id: node_id(name),
            name: name.into(),
            ros_name: name.replace('-', "_"),
            kind: PeerKind::Node,
            addresses: vec![format!("10.213.0.{number}"), format!("fd12:3456:789a::{number:x}")],
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

    fn set_clock(&mut self, name: &str, words: [&str; 2]) -> Result<Notice, String> {
        let peer = self.peers.get_mut(name).ok_or("no such peer")?;
        let [offset, error] =
            words.map(|text| text.parse().map_err(|_| "OFFSET and ERROR are numbers of seconds"));
        (peer.clock_offset, peer.clock_error) = (Some(offset?), Some(error?));
        Ok(changed())
    }

    fn set_wifi(&mut self, ssid: &str, access_point: &str, signal: &str) -> Result<Notice, String> {
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
        Ok(changed())
    }

    fn set_traffic(&mut self, name: &str, bytes: [&str; 2]) -> Result<(), String> {
        let peer = self.peers.get_mut(name).ok_or("no such peer")?;
        let [received, sent] = bytes.map(|b| b.parse::<u64>().map_err(|_| "bytes are whole numbers"));
        (peer.rx_bytes, peer.tx_bytes) = (received?, sent?);
        (peer.rx_packets, peer.tx_packets) = (Some(peer.rx_bytes / 1000), Some(peer.tx_bytes / 1000));
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
            network_id: network_id().to_string(),
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

#[async_trait]
impl Backend for FakeAgent {
    async fn agent_status(&self) -> Result<AgentStatus, ApiError> {
        let lab = self.lab();
        let networks = lab.network.iter().map(|n| NetworkSummary {
            id: n.network_id.clone(),
            name: n.network.clone(),
            path: network_path(network_id()),
            interface: n.interface.clone(),
            state: n.state,
        });
        Ok(AgentStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            boot_id: "aaaaaaaaaaaaaaaa".into(),
            suggested_name: "robot-1".into(),
            networks: networks.collect(),
            conditions: Vec::new(),
            uplink: lab.uplink.clone(),
            names: String::new(),
        })
    }

    async fn join(&self, _: JoinKey, options: JoinOptions, _: Caller) -> Result<Joined, ApiError> {
        let already = self.lab().network.is_some();
        if !already {
            let name = options.name.unwrap_or_else(|| "robot-1".into());
            self.command(&format!("join {name}")).map_err(ApiError::Failed)?;
        }
        let waiting = !already && self.lab().needs_approval;
        if waiting {
            self.command("state waiting").map_err(ApiError::Failed)?;
        }
        let network = self.network(network_id())?;
        Ok(Joined {
            network_id: network.network_id,
            network: network.network,
            name: network.name,
            path: network_path(network_id()),
            already,
            waiting,
            fingerprint: if waiting { "ab12-cd34".into() } else { String::new() },
        })
    }

    async fn network_status(&self, network: NetworkId) -> Result<NetworkStatus, ApiError> {
        self.network(network)
    }

    async fn peers(&self, network: NetworkId) -> Result<Vec<PeerStatus>, ApiError> {
        self.network(network)?;
        Ok(self.lab().peers.values().cloned().collect())
    }

    async fn ping(&self, network: NetworkId, peer: &str, probe: Probe) -> Result<Vec<PingReply>, ApiError> {
        self.network(network)?;
        let known = self.lab().peers.get(peer).cloned();
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
        let takes = self.lab().netcheck_takes;
        tokio::time::sleep(takes).await;
        let mut lab = self.lab();
        let report = NetworkReport { time: now(), ..lab.found.clone() };
        if let Some(network) = &mut lab.network {
            network.report = report.clone();
        }
        drop(lab);
        // Nobody listening is fine.
        let _ = self.notices.send(Notice::Changed(network, Arc::new(self.network(network)?)));
        Ok(report)
    }

    async fn environment(&self, network: NetworkId) -> Result<BTreeMap<String, String>, ApiError> {
        self.network(network)?;
        Ok(BTreeMap::new())
    }

    async fn leave(&self, network: NetworkId, _: Caller) -> Result<(), ApiError> {
        self.network(network)?;
        self.command("leave").map_err(ApiError::Failed)
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
        self.command(&format!("state {state}")).map_err(ApiError::Failed)
    }

    async fn rotate_key(&self, network: NetworkId, _: Caller) -> Result<(), ApiError> {
        self.network(network).map(|_| ())
    }

    fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}

/// Its status follows.
fn changed() -> Notice {
    Notice::Changed(network_id(), Arc::default())
}

/// The network `lab`.
pub fn network_id() -> NetworkId {
    NetworkId::from_bytes(*b"ria-lab\0\0\0")
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
