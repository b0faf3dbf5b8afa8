//! The publishers and their QoS, as the design's table has them.

use r2r::diagnostic_msgs::msg::DiagnosticArray;
use r2r::rcl_interfaces::msg::ParameterEvent;
use r2r::ria_msgs::msg::{Event, LinkStats, PeerArray, Status};
use r2r::{Node, Publisher, QosProfile};

use crate::log;
use crate::ros::Spinner;

/// State topics: a late subscriber gets the last message of each publisher.
const LATCHED: QosProfile = QosProfile::default().reliable().transient_local().keep_last(1);
const EVENTS: QosProfile = QosProfile::default().reliable().volatile().keep_last(50);
const LINK_STATS: QosProfile = QosProfile::default().best_effort().volatile().keep_last(5);

/// Topics that a node has once.
pub struct Topics {
    events: Publisher<Event>,
    diagnostics: Publisher<DiagnosticArray>,
    link_stats: Publisher<LinkStats>,
    /// One pair for each network, since a publisher keeps one message only; at least one, for the status without any.
    networks: Vec<NetworkTopics>,
}

/// Topics of a network.
#[derive(Clone)]
struct NetworkTopics {
    status: Publisher<Status>,
    peers: Publisher<PeerArray>,
}

impl NetworkTopics {
    fn create(node: &mut Node) -> r2r::Result<Self> {
        Ok(Self {
            status: node.create_publisher("/overlay/status", LATCHED)?,
            peers: node.create_publisher("/overlay/peers", LATCHED)?,
        })
    }

    fn destroy(self, node: &mut Node) {
        node.destroy_publisher(self.status);
        node.destroy_publisher(self.peers);
    }
}

impl Topics {
    /// Creates them.
    pub fn create(node: &mut Node) -> r2r::Result<Self> {
        Ok(Self {
            events: node.create_publisher("/overlay/events", EVENTS)?,
            diagnostics: node.create_publisher("/diagnostics", QosProfile::default())?,
            link_stats: node.create_publisher("/overlay/link_stats", LINK_STATS)?,
            networks: vec![NetworkTopics::create(node)?],
        })
    }

    /// Makes room for this many networks. Publishers of networks that are gone go with their last messages.
    pub async fn resize(&mut self, networks: usize, spinner: &Spinner) {
        let wanted = networks.max(1);
        while self.networks.len() < wanted {
            match spinner.with(NetworkTopics::create).await {
                Some(Ok(topics)) => self.networks.push(topics),
                Some(Err(error)) => return log::error(format!("no publisher for another network: {error}")),
                None => return,
            }
        }
        while self.networks.len() > wanted {
            if let Some(topics) = self.networks.pop() {
                spinner.with(|node| topics.destroy(node)).await;
            }
        }
    }

    /// How many publishers of a kind there are.
    pub fn len(&self) -> usize {
        self.networks.len()
    }

    /// The status of the n-th network.
    pub fn publish_status(&self, n: usize, message: &Status) {
        if let Some(topics) = self.networks.get(n) {
            said("/overlay/status", topics.status.publish(message));
        }
    }

    /// The peers of the n-th network.
    pub fn publish_peers(&self, n: usize, message: &PeerArray) {
        if let Some(topics) = self.networks.get(n) {
            said("/overlay/peers", topics.peers.publish(message));
        }
    }

    pub fn publish_event(&self, message: &Event) {
        said("/overlay/events", self.events.publish(message));
    }

    pub fn publish_link_stats(&self, message: &LinkStats) {
        said("/overlay/link_stats", self.link_stats.publish(message));
    }

    pub fn publish_diagnostics(&self, message: &DiagnosticArray) {
        said("/diagnostics", self.diagnostics.publish(message));
    }
}

/// `/parameter_events`.
pub fn parameter_events(node: &mut Node) -> r2r::Result<Publisher<ParameterEvent>> {
    node.create_publisher("/parameter_events", QosProfile::parameter_events())
}

fn said(topic: &str, result: r2r::Result<()>) {
    if let Err(error) = result {
        log::warn(format!("can't publish on {topic}: {error}"));
    }
}
