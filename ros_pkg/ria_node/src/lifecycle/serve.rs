//! The five services of a managed node, and `~/transition_event`.

use futures_util::stream::StreamExt;
use r2r::lifecycle_msgs::{msg, srv};
use r2r::{Node, Publisher, QosProfile};
use tokio::sync::watch;

use super::{GRAPH, Lifecycle, STATES, Transition, label};
use crate::log;
use crate::ros::unix_now;
use crate::services::{Requests, respond};

/// The services, created and not served yet.
pub struct Managed {
    change: Requests<srv::ChangeState::Service>,
    state: Requests<srv::GetState::Service>,
    states: Requests<srv::GetAvailableStates::Service>,
    available: Requests<srv::GetAvailableTransitions::Service>,
    graph: Requests<srv::GetAvailableTransitions::Service>,
    events: Publisher<msg::TransitionEvent>,
}

impl Managed {
    /// Creates them.
    pub fn create(node: &mut Node) -> r2r::Result<Self> {
        let qos = QosProfile::services_default();
        Ok(Self {
            change: Box::new(node.create_service("~/change_state", qos.clone())?),
            state: Box::new(node.create_service("~/get_state", qos.clone())?),
            states: Box::new(node.create_service("~/get_available_states", qos.clone())?),
            available: Box::new(node.create_service("~/get_available_transitions", qos.clone())?),
            graph: Box::new(node.create_service("~/get_transition_graph", qos)?),
            events: node.create_publisher("~/transition_event", QosProfile::default())?,
        })
    }

    /// The state of a node that is started for the first time; one that starts by itself is active at once.
    pub fn first(&self, autostart: bool) -> Lifecycle {
        let mut node = Lifecycle::default();
        if autostart {
            self.change(&mut node, 0, "configure");
            self.change(&mut node, 0, "activate");
        }
        node
    }

    fn tell(&self, transition: &Transition) {
        let event = msg::TransitionEvent {
            timestamp: (unix_now() * 1e9) as u64,
            transition: message(transition),
            start_state: state(transition.start),
            goal_state: state(transition.goal),
        };
        if let Err(error) = self.events.publish(&event) {
            log::warn(format!("can't publish on ~/transition_event: {error}"));
        }
    }

    /// Whether the node went there.
    fn change(&self, node: &mut Lifecycle, id: u8, wanted: &str) -> bool {
        let Some(steps) = node.change(id, wanted) else {
            let names: Vec<_> = node.available().map(|way| way.label).collect();
            log::warn(format!(
                "no transition {id} \"{wanted}\" leads out of the state {}; there are: {}",
                label(node.state()),
                names.join(", ")
            ));
            return false;
        };
        for step in steps {
            self.tell(step);
        }
        log::info(format!("the node is {}; the overlay itself is not touched by that", label(node.state())));
        true
    }
}

/// Answers for as long as the services are there. The one owner of the state; others watch.
pub async fn serve(mut managed: Managed, live: watch::Sender<Lifecycle>) {
    let mut node = *live.borrow();
    loop {
        tokio::select! {
            Some(request) = managed.change.next() => {
                let asked = &request.message.transition;
                let success = managed.change(&mut node, asked.id, &asked.label);
                live.send_replace(node);
                respond(request, srv::ChangeState::Response { success });
            }
            Some(request) = managed.state.next() => {
                respond(request, srv::GetState::Response { current_state: state(node.state()) });
            }
            Some(request) = managed.states.next() => {
                let available_states = STATES.iter().map(|(id, _)| state(*id)).collect();
                respond(request, srv::GetAvailableStates::Response { available_states });
            }
            Some(request) = managed.available.next() => respond(request, listed(node.available())),
            Some(request) = managed.graph.next() => respond(request, listed(GRAPH.iter())),
            else => return,
        }
    }
}

fn state(id: u8) -> msg::State {
    msg::State { id, label: label(id).into() }
}

fn message(transition: &Transition) -> msg::Transition {
    msg::Transition { id: transition.id, label: transition.label.into() }
}

fn listed(ways: impl Iterator<Item = &'static Transition>) -> srv::GetAvailableTransitions::Response {
    let described = |way: &'static Transition| msg::TransitionDescription {
        transition: message(way),
        start_state: state(way.start),
        goal_state: state(way.goal),
    };
    srv::GetAvailableTransitions::Response { available_transitions: ways.map(described).collect() }
}
