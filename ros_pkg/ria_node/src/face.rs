//! The node's one owner loop: takes what the link tells, publishes it, and sees when the ROS context has to be made anew.

use std::time::{Duration, Instant};

use r2r::diagnostic_msgs::msg::DiagnosticArray;
use r2r::std_msgs::msg::Header;
use ria_api::state::{Event, NetworkStatus};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use crate::convert::{self, Own, Rates};
use crate::diagnostics::diagnostics;
use crate::environment::{Variables, missing};
use crate::interfaces::{Hearing, Interfaces};
use crate::join;
use crate::lifecycle::Lifecycle;
use crate::link::{Absence, Message, NetworkView, Snapshot};
use crate::log;
use crate::pace::Pace;
use crate::parameters::Parameters;
use crate::ros::{RosClock, Spinner, unix_now};
use crate::topics::Topics;
use crate::view::{Seen, View, differs};

/// How long calls that are under way may put off that the context is made anew.
const ANSWERING: Duration = Duration::from_secs(3);

/// How long a node that publishes nothing sleeps when nothing happens.
const QUIET: Duration = Duration::from_secs(60);

/// How the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The context is to be made anew, for this reason and with these variables.
    Outdated(String, Variables),
    /// The spin thread died.
    Failed(String),
}

/// What the loop listens to.
pub struct Inputs {
    pub link: mpsc::Receiver<Message>,
    pub join: mpsc::Receiver<join::Message>,
    pub failure: oneshot::Receiver<String>,
    pub parameters: watch::Receiver<Parameters>,
    pub lifecycle: watch::Receiver<Lifecycle>,
    /// How many calls are under way that must not be interrupted.
    pub interruptible: watch::Receiver<usize>,
}

/// The owner of what is known and shown.
pub struct Face {
    pub spinner: Spinner,
    pub topics: Topics,
    pub clock: RosClock,
    pub view: View,
    /// The interfaces as they were when the context was made.
    pub baseline: Interfaces,
    /// Variables that this run was given by the one before.
    pub given: Variables,
    /// Whether joining by key file is over, well or not.
    pub joined: bool,
    /// Whether anything is published.
    pub active: bool,
    pub pace: Pace,
    pub rates: Rates,
    /// When link statistics are due.
    pub link_stats_due: Instant,
    /// When diagnostics are due.
    pub diagnostics_due: Instant,
}

impl Face {
    /// Runs until the context has to be made anew.
    pub async fn run(&mut self, mut inputs: Inputs) -> End {
        loop {
            let periods = inputs.parameters.borrow_and_update().periods();
            let publish_due = self.pace.due(periods.publish).unwrap_or_else(Instant::now);
            let due =
                if self.active { publish_due.min(self.diagnostics_due) } else { Instant::now() + QUIET };
            tokio::select! {
                Some(message) = inputs.link.recv() => {
                    let is_fresh = matches!(message, Message::Snapshot(_));
                    if let Some(end) = self.handle_link(message).await {
                        let idle = inputs.interruptible.wait_for(|calls| *calls == 0);
                        // Whether they have ended or not: the robot is to be heard again.
                        let _ = tokio::time::timeout(ANSWERING, idle).await;
                        return end;
                    }
                    if is_fresh {
                        self.publish_link_stats(periods.link_stats);
                    }
                }
                Some(message) = inputs.join.recv() => self.handle_join(message),
                failure = &mut inputs.failure => {
                    return End::Failed(failure.unwrap_or_else(|_| "the ROS thread ended".into()));
                }
                _ = inputs.parameters.changed() => {}
                Ok(()) = inputs.lifecycle.changed() => {
                    let node = *inputs.lifecycle.borrow_and_update();
                    self.handle_lifecycle(node);
                }
                () = sleep_until(due.into()) => {}
            }
            self.publish_due(&inputs.parameters.borrow());
        }
    }

    /// A node that becomes active tells all that it knows at once.
    fn handle_lifecycle(&mut self, node: Lifecycle) {
        if node.is_active() && !self.active {
            self.pace = Pace::default();
            self.diagnostics_due = Instant::now();
        }
        self.active = node.is_active();
    }

    /// Takes what the link tells; returns whether the context must be made anew.
    async fn handle_link(&mut self, message: Message) -> Option<End> {
        match message {
            Message::Absent(absence) => {
                self.handle_absence(absence);
                self.topics.resize(0, &self.spinner).await;
                None
            }
            Message::Happened(event) => {
                self.publish_happened(&event);
                None
            }
            Message::Snapshot(snapshot) => {
                let end = self.outdated(&snapshot);
                self.handle_snapshot(*snapshot).await;
                end
            }
        }
    }

    fn handle_absence(&mut self, absence: Absence) {
        let had_agent = matches!(self.view.seen, Seen::Agent(_));
        let text = absence.text.clone();
        self.publish_left(&[]);
        if self.view.handle_absence(absence, unix_now()) {
            log::error(&text);
            self.pace.handle_change();
            self.diagnostics_due = Instant::now();
        }
        if had_agent {
            self.publish_agent_event(false, &text);
        }
    }

    async fn handle_snapshot(&mut self, snapshot: Snapshot) {
        let had_agent = matches!(self.view.seen, Seen::Agent(_));
        let (old, new) = (self.view.networks(), &snapshot.networks);
        let changed = old.len() != new.len() || old.iter().zip(new).any(|(old, new)| differs(old, new));
        let count = new.len();
        let greeting = format!("the Ria agent {} is there", snapshot.agent.version);
        self.publish_left(new);
        self.view.handle_snapshot(snapshot);
        if !had_agent {
            log::info(&greeting);
            self.publish_agent_event(true, &greeting);
        }
        if changed || !had_agent {
            self.pace.handle_change();
            self.diagnostics_due = Instant::now();
        }
        self.topics.resize(count, &self.spinner).await;
    }

    fn handle_join(&mut self, message: join::Message) {
        self.pace.handle_change();
        match message {
            join::Message::Joined(joined) => {
                self.joined = true;
                self.view.join = None;
                if let Some(joined) = joined {
                    let how = match (joined.waiting, joined.already) {
                        (true, _) => "waits to be let into",
                        (false, true) => "was in",
                        (false, false) => "joined",
                    };
                    log::info(format!("this robot {how} the network {} as {}", joined.network, joined.name));
                }
            }
            join::Message::Failed(failure) => {
                log::error(&failure.text);
                let since = self.view.join.as_ref().map_or_else(unix_now, |(_, since)| *since);
                self.view.join = Some((failure, since));
            }
        }
    }

    /// Whether the participant that was made when the context was is of no use on an overlay's interface: it came
    /// later, or DDS was not told of it.
    fn outdated(&self, snapshot: &Snapshot) -> Option<End> {
        let now = match Interfaces::now() {
            Ok(now) => now,
            Err(error) => {
                log::warn(format!("can't list the network interfaces: {error}"));
                return None;
            }
        };
        let distro = std::env::var("ROS_DISTRO").ok();
        let set = |name: &str| std::env::var(name).ok();
        snapshot.networks.iter().find_map(|network| {
            let (interface, name) = (&network.status.interface, &network.status.network);
            let mut variables = missing(&network.environment, distro.as_deref(), set);
            // Each is given once: what did not help then does not help now.
            variables.retain(|name, value| self.given.get(name) != Some(value));
            let reason = match self.baseline.hearing(&now, interface, &network.status.addresses) {
                Hearing::NothingThere => return None,
                Hearing::Deaf => format!("{interface} of the network {name} is new"),
                Hearing::Hears if variables.is_empty() => return None,
                Hearing::Hears => format!("the DDS profile of the network {name} was not in force"),
            };
            Some(End::Outdated(reason, variables))
        })
    }

    fn publish_due(&mut self, parameters: &Parameters) {
        let periods = parameters.periods();
        if !self.active {
            return;
        }
        let now = Instant::now();
        // Nothing is said before the agent was asked for the first time, a moment after the start.
        if matches!(self.view.seen, Seen::Nothing) {
            self.diagnostics_due = now + Duration::from_millis(100);
            self.pace.poll(now, periods.publish);
            return;
        }
        if self.pace.poll(now, periods.publish) {
            self.publish_state();
        }
        if self.diagnostics_due <= now {
            self.diagnostics_due = now + periods.diagnostics;
            let header = Header { stamp: self.clock.now(), frame_id: String::new() };
            let status = diagnostics(&self.view, parameters.clock_offset_warning());
            self.topics.publish_diagnostics(&DiagnosticArray { header, status });
        }
    }

    fn publish_state(&self) {
        let conditions = self.view.conditions();
        let agent = match &self.view.seen {
            Seen::Agent(snapshot) => Some(&snapshot.agent),
            Seen::Nothing | Seen::Absent { .. } => None,
        };
        let own = Own { agent, conditions: &conditions };
        let stamp = self.clock.now();
        let networks = self.view.networks();
        if networks.is_empty() {
            let mut reporter = self.view.reporter(None);
            reporter.stamp = stamp;
            self.topics.publish_status(0, &convert::status_without_network(&reporter, own));
            // Instead of the peers of the network that was there last, which a late subscriber would take for those of now.
            self.topics.publish_peers(0, &convert::peer_array(&NetworkStatus::default(), &[], &reporter));
            return;
        }
        for (n, network) in networks.iter().enumerate().take(self.topics.len()) {
            let mut reporter = self.view.reporter(Some(network));
            reporter.stamp = stamp.clone();
            self.topics.publish_status(n, &convert::network_status(&network.status, &reporter, own));
            self.topics.publish_peers(n, &convert::peer_array(&network.status, &network.peers, &reporter));
        }
    }

    /// Networks that are no longer there: who keeps their peers by network hears that there are none, and their publishers
    /// keep nothing else until they have another network's, or go.
    fn publish_left(&self, there: &[NetworkView]) {
        if !self.active {
            return;
        }
        for (n, network) in self.view.networks().iter().enumerate() {
            if there.iter().any(|other| other.status.network_id == network.status.network_id) {
                continue;
            }
            let mut reporter = self.view.reporter(Some(network));
            reporter.stamp = self.clock.now();
            self.topics.publish_peers(n, &convert::peer_array(&network.status, &[], &reporter));
        }
    }

    /// With what the agent has just told, once in a period: rates between two looks at its counters.
    fn publish_link_stats(&mut self, period: Duration) {
        let now = Instant::now();
        // What is told a moment early is not put off to the next time.
        if !self.active || now + period / 10 < self.link_stats_due {
            return;
        }
        self.link_stats_due = now + period;
        self.rates.retain(self.view.networks());
        for network in self.view.networks() {
            let mut reporter = self.view.reporter(Some(network));
            reporter.stamp = self.clock.now();
            self.topics.publish_link_stats(&self.rates.link_stats(network, &reporter, now));
        }
    }

    fn publish_happened(&self, event: &Event) {
        if !self.active {
            return;
        }
        let network = self.view.networks().iter().find(|n| n.status.network_id == event.network_id);
        let name = network.map(|n| n.status.network.as_str()).unwrap_or_default();
        let mut message = convert::event(event, name, &self.view.reporter(network));
        message.header.stamp = self.clock.stamp(message.header.stamp);
        self.topics.publish_event(&message);
    }

    fn publish_agent_event(&self, came: bool, text: &str) {
        if !self.active {
            return;
        }
        let mut reporter = self.view.reporter(self.view.networks().first());
        reporter.stamp = self.clock.now();
        self.topics.publish_event(&convert::agent_event(came, text, &reporter));
    }
}
