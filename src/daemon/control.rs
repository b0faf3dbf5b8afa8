//! The agent's loop: owns all networks and everything slow, and takes turns at what comes in.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ria_api::state::{NetworkReport, Severity};
use ria_core::{MulticastPolicy, PingOutcome, RelayServer};
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::prefix::Prefix;
use ria_protocol::requester::Requester;
use ria_service::{Watchdog, notify};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::conditions::Conditions;
use super::demand::PeersConfig;
use super::events::EventLog;
use super::farewell::Leaving;
use super::handle::{Command, DaemonHandle, Reply, State};
use super::join::{JoinOutcome, Origin};
use super::machine::Machine;
use super::netchecks::Netchecks;
use super::network::{Network, random_boot};
use super::packets::{Packets, Settings};
use super::pending::{Pending, PendingEvent};
use super::pings::Pings;
use super::port_mapping::PortMapping;
use super::storage::Storage;
use super::suspension::Suspension;
use super::times::Look;
use crate::beacon::Beacons;
use crate::config::Config;
use crate::coordinator::reach::Reach;
use crate::coordinator::session::SessionEvent;
use crate::dds::Profiles;
use crate::gateway::Gateway;
use crate::machine::News;
use crate::metrics::listen::{self, MetricsConfig};
use crate::names::{Names, Place};
use crate::netdev::host::Host;
use crate::netdev::netlink::Netlink;
use crate::netdev::udp::{self, BoundUdp};
use crate::relay::RelayStreams;
use crate::state::StateDir;
use crate::state::saver::{Saved, Saver};

/// Listeners are told of changes at most four times a second.
const CHANGES_INTERVAL: Duration = Duration::from_millis(250);

/// Deadlines, unsaved live state and failed interfaces are looked at this often.
const TICK: Duration = Duration::from_secs(1);

/// Messages that a session may be ahead of the loop; then it waits, and the coordinator with it.
const SESSION_BACKLOG: usize = 64;

const COMMAND_BACKLOG: usize = 64;

/// What the loop is made of.
pub struct Parts {
    /// Configuration.
    pub config: Config,
    /// Locked state directory.
    pub state: Arc<StateDir>,
    /// Bound socket.
    pub udp: BoundUdp,
    /// Netlink for requests.
    pub netlink: Netlink,
    /// This host as it is.
    pub host: Host,
    /// Moves when the host's network changes.
    pub host_changes: watch::Receiver<u64>,
    /// For the engine's randomness.
    pub seed: [u8; 32],
}

/// From the tasks that the loop itself has started.
pub enum Input {
    /// An attempt to join has ended.
    Joined(Box<JoinOutcome>, Origin),
    /// What became of a provisioning file: a problem, or none any more.
    JoinFile(Option<String>),
    /// A request to join that waits for approval tells something.
    Pending(NetworkId, PendingEvent),
    /// A coordinator has heard that this machine left.
    FarewellHeard(NetworkId, NodeId),
    /// A network has said good-bye, heard or not.
    Left { network: NetworkId, untold: Option<Requester>, reply: Reply<()> },
    /// The session of a network that was switched off has ended without telling this.
    /// The coordinator answers at the URL that a person has set.
    UrlFound { network: NetworkId, url: String, by: Requester, reply: Reply<()> },
    /// Addresses of relays are known.
    Relays(NetworkId, Vec<RelayServer>),
    /// A measurement of the network below has ended.
    Netchecked(NetworkId, Box<NetworkReport>),
    /// The router has opened a port for the tunnel, or has closed it.
    PortMapped(crate::portmap::State),
    /// A service of the machine tells something.
    Machine(News),
    /// Whether names of members could be made known.
    NamesPut(Result<Place, io::Error>),
    /// A program asks for the address of a member by this name, which is not known.
    NameSought(String),
    /// One probe of a ping.
    StartPing { network: NetworkId, peer: NodeId, timeout: Duration, reply: oneshot::Sender<PingOutcome> },
}

/// The loop's state. Its parts are handled in `overlay` (interfaces and engine), `uplink` (coordinator) and `requests`
/// (local API).
pub struct Control {
    pub(super) state: Arc<StateDir>,
    pub(super) saver: Saver,
    pub(super) packets: Packets,
    pub(super) relay_streams: RelayStreams,
    pub(super) beacons: Beacons,
    pub(super) netlink: Netlink,
    pub(super) host: Host,
    /// The same when it was connected last.
    pub(super) connected_host: Host,
    pub(super) profiles: Profiles,
    pub(super) names: Names,
    /// Where names are now.
    pub(super) names_place: Option<Place>,
    /// Whether they were in the hosts file before.
    pub(super) names_in_hosts: bool,
    pub(super) multicast: MulticastPolicy,
    /// Whom on-demand networks hold.
    pub(super) peers: PeersConfig,
    /// When clashes between robots are looked for next.
    pub(super) clashes_at: Option<Instant>,
    pub(super) udp_port: u16,
    pub(super) reach: Reach,
    /// Local networks that this machine offers to forward to.
    pub(super) advertised: Vec<Prefix>,
    pub(super) gateway: Gateway,
    pub(super) boot: BootId,
    pub(super) networks: BTreeMap<NetworkId, Network>,
    /// Networks that this machine waits to be let into.
    pub(super) pending: BTreeMap<NetworkId, Pending>,
    /// Networks that were left and whose coordinator was not told yet.
    pub(super) leaving: BTreeMap<(NetworkId, NodeId), Leaving>,
    pub(super) conditions: Conditions,
    pub(super) storage: Storage,
    suspension: Suspension,
    pub(super) machine: Machine,
    /// Of the service manager.
    watchdog: Option<Watchdog>,
    pub(super) events: EventLog,
    pub(super) pings: Pings,
    pub(super) netchecks: Netchecks,
    pub(super) port_mapping: PortMapping,
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) session_events: mpsc::Sender<(NetworkId, SessionEvent)>,
    pub(super) changed: bool,
    pub(super) look: Look,
    changes: watch::Sender<u64>,
    inbox: Inbox,
}

struct Inbox {
    commands: mpsc::Receiver<Command>,
    inputs: mpsc::UnboundedReceiver<Input>,
    sessions: mpsc::Receiver<(NetworkId, SessionEvent)>,
    engine: mpsc::UnboundedReceiver<ria_core::Event>,
    saved: mpsc::UnboundedReceiver<Saved>,
    host: watch::Receiver<u64>,
}

enum Turn {
    Command(Command),
    Input(Input),
    Session(NetworkId, SessionEvent),
    Engine(ria_core::Event),
    Saved(Saved),
    HostChanged,
    TellChanges,
    Tick,
    Stop(Ending),
}

/// What is to come after the end of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Another one, as after an update: the interfaces stay, so that nobody who uses them has to start anew.
    ForTheNext,
    /// Nothing that is known of: the interfaces go.
    ForGood,
}

impl Control {
    /// Starts the threads. Nothing comes up before [`Self::run`].
    pub fn new(parts: Parts) -> io::Result<(Self, DaemonHandle)> {
        let Parts { config, state, udp, netlink, host, host_changes, seed } = parts;
        let (commands_in, commands) = mpsc::channel(COMMAND_BACKLOG);
        let (inputs_in, inputs) = mpsc::unbounded_channel();
        let (sessions_in, sessions) = mpsc::channel(SESSION_BACKLOG);
        let (engine_in, engine) = mpsc::unbounded_channel();
        let (saved_in, saved) = mpsc::unbounded_channel();
        let (changes, changes_out) = watch::channel(0);
        let events = EventLog::new();
        let handle = DaemonHandle::new(commands_in, changes_out, events.sender());
        let udp_port = udp.port;
        let mut conditions = Conditions::default();
        note_socket(&udp, config.udp_port, &mut conditions);
        serve_metrics(&config.metrics, &handle, &mut conditions);
        let settings =
            Settings { seed, copies_dscp: config.copy_dscp, threads: config.packet_threads.count() };
        let packets = Packets::start(udp, &settings, engine_in)?;
        let beacons = start_beacons(config.beacon, &packets, &mut conditions);
        let control = Self {
            saver: Saver::start(state.clone(), saved_in)?,
            packets,
            beacons,
            relay_streams: RelayStreams::default(),
            profiles: Profiles::new(&config.run_dir, &config.dds),
            names: super::naming::start(&config, &inputs_in),
            names_place: None,
            names_in_hosts: false,
            multicast: config.dds.multicast(),
            peers: config.peers,
            clashes_at: None,
            state,
            netlink,
            connected_host: host.clone(),
            host,
            udp_port,
            reach: config.reach,
            advertised: config.routes.advertise,
            gateway: Gateway::new(&config.run_dir),
            boot: random_boot(),
            networks: BTreeMap::new(),
            pending: BTreeMap::new(),
            leaving: BTreeMap::new(),
            conditions,
            storage: Storage::default(),
            suspension: Suspension::new(),
            machine: Machine::start(config.system_bus, &inputs_in),
            watchdog: Watchdog::of_this_process(),
            events,
            pings: Pings::default(),
            netchecks: Netchecks::default(),
            port_mapping: PortMapping::start(config.port_mapping, udp_port, &inputs_in),
            inputs: inputs_in,
            session_events: sessions_in,
            changed: true,
            look: Look::now(),
            changes,
            inbox: Inbox { commands, inputs, sessions, engine, saved, host: host_changes },
        };
        Ok((control, handle))
    }

    /// For tasks that report to the loop.
    pub fn inputs(&self) -> mpsc::UnboundedSender<Input> {
        self.inputs.clone()
    }

    /// Runs until `stop` is done, which says whether the interfaces stay for the next run.
    pub async fn run(mut self, stop: impl Future<Output = Ending>) {
        self.begin().await;
        notify("READY=1");
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tell_at = Instant::now();
        let ending = loop {
            let turn = tokio::select! {
                ending = &mut stop => Turn::Stop(ending),
                Some(event) = self.inbox.engine.recv() => Turn::Engine(event),
                Some(command) = self.inbox.commands.recv() => Turn::Command(command),
                Some(input) = self.inbox.inputs.recv() => Turn::Input(input),
                Some((network, event)) = self.inbox.sessions.recv() => Turn::Session(network, event),
                Some(saved) = self.inbox.saved.recv() => Turn::Saved(saved),
                Ok(()) = self.inbox.host.changed() => Turn::HostChanged,
                () = sleep_until(tell_at), if self.changed => Turn::TellChanges,
                _ = tick.tick() => Turn::Tick,
            };
            if let Turn::Stop(ending) = turn {
                break ending;
            }
            if matches!(turn, Turn::TellChanges) {
                tell_at = Instant::now() + CHANGES_INTERVAL;
            }
            self.take(turn).await;
        };
        notify("STOPPING=1");
        self.names.end(ending == Ending::ForTheNext).await;
        self.port_mapping.give_back().await;
        if ending == Ending::ForGood {
            self.remove_interfaces().await;
            self.follow_gateway().await;
        }
        self.end();
    }

    async fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Engine(event) => self.handle_engine_event(event),
            Turn::Command(command) => self.handle_command(command).await,
            Turn::Input(input) => self.handle_input(input).await,
            Turn::Session(network, event) => self.handle_session_event(network, event).await,
            Turn::Saved(saved) => self.handle_saved(saved),
            Turn::HostChanged => self.handle_host_change().await,
            Turn::Tick => self.handle_tick().await,
            Turn::TellChanges => self.tell_changes().await,
            Turn::Stop(_) => {}
        }
    }

    /// Brings up what is stored.
    async fn begin(&mut self) {
        self.tell_set_aside();
        // Before the networks: one whose leaving was cut off is not to come up again.
        self.begin_farewells();
        let networks = self.load_state();
        self.tell_host_candidates().await;
        self.follow_places().await;
        self.networks.extend(networks.into_iter().map(|network| (network.id(), network)));
        self.begin_pending();
        self.sweep_interfaces().await;
        // Of two networks with the same addresses, the one that has been here longer goes first.
        let mut ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        ids.sort_by_key(|id| self.networks.get(id).map(|n| n.membership.identity.interface));
        for id in ids {
            self.bring_up(id).await;
        }
    }

    /// Stores what is not stored yet.
    fn end(mut self) {
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        let look = Look::now();
        for id in ids {
            self.save_live(id);
            self.store_time(id, &look);
        }
        self.networks.clear();
    }

    async fn handle_input(&mut self, input: Input) {
        match input {
            Input::Joined(outcome, origin) => self.handle_joined(*outcome, origin).await,
            Input::JoinFile(problem) => self.tell_join_file(problem),
            Input::Pending(network, event) => self.handle_pending(network, event).await,
            Input::FarewellHeard(network, node) => self.handle_farewell_heard(network, node),
            Input::Left { network, untold, reply } => self.handle_left(network, untold, reply).await,
            Input::UrlFound { network, url, by, reply } => self.handle_url_found(network, url, by, reply),
            Input::Relays(network, relays) => {
                let command = ria_core::Command::SetRelays { network, relays };
                self.engine(command).await;
            }
            Input::Machine(news) => self.handle_machine_news(news).await,
            Input::NamesPut(done) => self.handle_names(done),
            Input::NameSought(name) => self.handle_name_sought(&name),
            Input::PortMapped(state) => self.handle_port_mapped(state).await,
            Input::Netchecked(network, report) => self.handle_netchecked(network, *report).await,
            Input::StartPing { network, peer, timeout, reply } => {
                if let Some(network) = self.networks.get_mut(&network) {
                    network.demand.touch(peer);
                }
                let id = self.pings.begin(reply);
                if !self.engine(ria_core::Command::StartPing { network, peer, id, timeout }).await {
                    self.pings.end(id, PingOutcome::UnknownPeer);
                }
            }
        }
    }

    async fn handle_tick(&mut self) {
        if let Some(slept) = self.suspension.take() {
            tracing::info!(seconds = slept.as_secs(), "this machine was suspended");
            self.handle_resume().await;
        }
        let now = Instant::now();
        self.check_times();
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            self.expire_waiting(id, now);
            self.expire_rotating(id, now);
            self.save_live_when_due(id, now);
            self.release_when_due(id, now).await;
            self.retry_interface(id).await;
        }
        self.follow_gateway().await;
        self.retry_storage(now).await;
        self.follow_router();
        self.netcheck_when_due(now).await;
        self.clashes_when_due(now).await;
        self.tell_links().await;
        self.feed_watchdog().await;
    }

    /// Somebody else has told of a sleep.
    pub(super) fn forget_suspension(&mut self) {
        let _ = self.suspension.take();
    }

    /// Tells the service manager that the agent is alive: this loop takes its turns, and packets are moved.
    async fn feed_watchdog(&mut self) {
        let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.is_due()) else { return };
        if self.packets.status().await.is_ok() {
            watchdog.feed();
        }
    }

    /// Tells listeners that something has changed, after the DDS files fit it.
    async fn tell_changes(&mut self) {
        self.changed = false;
        self.read_state().await;
        self.changes.send_modify(|n| *n += 1);
    }

    /// All that can be told now, after the DDS files fit it: whoever sees a network up may start ROS 2 at once, and
    /// DDS reads its profile only once.
    pub(super) async fn read_state(&mut self) -> State {
        let packets = self.packets.status().await;
        let known = packets.is_ok();
        if let Ok(packets) = &packets {
            self.follow_clashes(&packets.engine);
        }
        let state = super::status::state(self, &packets.unwrap_or_default());
        if known {
            self.names.follow(state.networks.values());
            self.changed |= match self.profiles.update(state.networks.values()) {
                Ok(_) => self.conditions.clear("dds-files"),
                Err(error) => {
                    let text =
                        format!("the DDS profiles can't be written: {error}; ROS 2 stays on its defaults");
                    self.conditions.set("dds-files", Severity::Warning, text)
                }
            };
        }
        state
    }

    /// Has the engine do something; `false` when it refuses, which it logs.
    pub(super) async fn engine(&mut self, command: ria_core::Command) -> bool {
        match self.packets.engine(command).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the engine refused a command");
                false
            }
            Err(error) => {
                tracing::error!(%error, "no packets can be moved any more; restart the agent");
                false
            }
        }
    }
}

/// Members that look for each other on the local network, where that is wanted and possible.
fn note_socket(udp: &BoundUdp, wanted: u16, conditions: &mut Conditions) {
    if udp.displaced {
        let text = format!(
            "UDP port {wanted} is taken by another program, so {} is used; firewalls that were opened for the first do \
             not help now (set udp_port, or stop the other program)",
            udp.port
        );
        conditions.set("udp-port-taken", Severity::Warning, text);
    }
    if let Some(text) = udp::shortage(udp.granted) {
        conditions.set("small-buffers", Severity::Warning, text);
    }
}

/// Serves figures where that is wanted. Without them everything else works.
fn serve_metrics(config: &MetricsConfig, agent: &DaemonHandle, conditions: &mut Conditions) {
    let Some(address) = config.listen else { return };
    if let Err(error) = listen::start(address, agent.clone()) {
        let text = format!(
            "Prometheus can't ask for metrics at {address}: {error} (choose another address in [metrics] of agent.toml)"
        );
        conditions.set("no-metrics", Severity::Warning, text);
    }
}

fn start_beacons(wanted: bool, packets: &Packets, conditions: &mut Conditions) -> Beacons {
    let started = wanted.then(|| Beacons::start(&packets.beacon_door()));
    match started {
        None => Beacons::default(),
        Some(Ok(beacons)) => beacons,
        Some(Err(error)) => {
            let text = format!(
                "UDP port {} can't be opened ({error}), so members on the local network are not found while the \
                 coordinator is out of reach (stop the program that has the port, or set beacon = false)",
                crate::beacon::PORT
            );
            conditions.set("no-beacon", Severity::Warning, text);
            Beacons::default()
        }
    }
}
