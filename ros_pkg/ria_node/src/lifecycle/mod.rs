//! The node's state as ROS 2 manages nodes: which there are, and what leads from one to another. Pure.
//!
//! Only what is published depends on it. Tunnel and membership are the agent's, and services are answered in every state.

mod serve;

pub use serve::{Managed, serve};

use crate::constants::{states, transitions};

/// All states, as a stock node lists them.
pub const STATES: [(u8, &str); 11] = [
    (states::PRIMARY_STATE_UNKNOWN, "unknown"),
    (states::PRIMARY_STATE_UNCONFIGURED, "unconfigured"),
    (states::PRIMARY_STATE_INACTIVE, "inactive"),
    (states::PRIMARY_STATE_ACTIVE, "active"),
    (states::PRIMARY_STATE_FINALIZED, "finalized"),
    (states::TRANSITION_STATE_CONFIGURING, "configuring"),
    (states::TRANSITION_STATE_CLEANINGUP, "cleaningup"),
    (states::TRANSITION_STATE_SHUTTINGDOWN, "shuttingdown"),
    (states::TRANSITION_STATE_ACTIVATING, "activating"),
    (states::TRANSITION_STATE_DEACTIVATING, "deactivating"),
    (states::TRANSITION_STATE_ERRORPROCESSING, "errorprocessing"),
];

/// A way from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub id: u8,
    pub label: &'static str,
    pub start: u8,
    pub goal: u8,
}

const fn way(id: u8, label: &'static str, start: u8, goal: u8) -> Transition {
    Transition { id, label, start, goal }
}

const SUCCESS: &str = "transition_success";
const FAILURE: &str = "transition_failure";
const ERROR: &str = "transition_error";

/// All ways, as a stock node lists them. Those that failures would take are never taken: nothing here can fail.
pub const GRAPH: [Transition; 25] = {
    use states::{
        PRIMARY_STATE_ACTIVE as ACTIVE, PRIMARY_STATE_FINALIZED as FINALIZED,
        PRIMARY_STATE_INACTIVE as INACTIVE, PRIMARY_STATE_UNCONFIGURED as UNCONFIGURED,
        TRANSITION_STATE_ACTIVATING as ACTIVATING, TRANSITION_STATE_CLEANINGUP as CLEANINGUP,
        TRANSITION_STATE_CONFIGURING as CONFIGURING, TRANSITION_STATE_DEACTIVATING as DEACTIVATING,
        TRANSITION_STATE_ERRORPROCESSING as ERRORPROCESSING, TRANSITION_STATE_SHUTTINGDOWN as SHUTTINGDOWN,
    };
    use transitions as t;
    [
        way(t::TRANSITION_CONFIGURE, "configure", UNCONFIGURED, CONFIGURING),
        way(t::TRANSITION_ON_CONFIGURE_SUCCESS, SUCCESS, CONFIGURING, INACTIVE),
        way(t::TRANSITION_ON_CONFIGURE_FAILURE, FAILURE, CONFIGURING, UNCONFIGURED),
        way(t::TRANSITION_ON_CONFIGURE_ERROR, ERROR, CONFIGURING, ERRORPROCESSING),
        way(t::TRANSITION_CLEANUP, "cleanup", INACTIVE, CLEANINGUP),
        way(t::TRANSITION_ON_CLEANUP_SUCCESS, SUCCESS, CLEANINGUP, UNCONFIGURED),
        way(t::TRANSITION_ON_CLEANUP_FAILURE, FAILURE, CLEANINGUP, INACTIVE),
        way(t::TRANSITION_ON_CLEANUP_ERROR, ERROR, CLEANINGUP, ERRORPROCESSING),
        way(t::TRANSITION_ACTIVATE, "activate", INACTIVE, ACTIVATING),
        way(t::TRANSITION_ON_ACTIVATE_SUCCESS, SUCCESS, ACTIVATING, ACTIVE),
        way(t::TRANSITION_ON_ACTIVATE_FAILURE, FAILURE, ACTIVATING, INACTIVE),
        way(t::TRANSITION_ON_ACTIVATE_ERROR, ERROR, ACTIVATING, ERRORPROCESSING),
        way(t::TRANSITION_DEACTIVATE, "deactivate", ACTIVE, DEACTIVATING),
        way(t::TRANSITION_ON_DEACTIVATE_SUCCESS, SUCCESS, DEACTIVATING, INACTIVE),
        way(t::TRANSITION_ON_DEACTIVATE_FAILURE, FAILURE, DEACTIVATING, ACTIVE),
        way(t::TRANSITION_ON_DEACTIVATE_ERROR, ERROR, DEACTIVATING, ERRORPROCESSING),
        way(t::TRANSITION_UNCONFIGURED_SHUTDOWN, "shutdown", UNCONFIGURED, SHUTTINGDOWN),
        way(t::TRANSITION_INACTIVE_SHUTDOWN, "shutdown", INACTIVE, SHUTTINGDOWN),
        way(t::TRANSITION_ACTIVE_SHUTDOWN, "shutdown", ACTIVE, SHUTTINGDOWN),
        way(t::TRANSITION_ON_SHUTDOWN_SUCCESS, SUCCESS, SHUTTINGDOWN, FINALIZED),
        way(t::TRANSITION_ON_SHUTDOWN_FAILURE, FAILURE, SHUTTINGDOWN, FINALIZED),
        way(t::TRANSITION_ON_SHUTDOWN_ERROR, ERROR, SHUTTINGDOWN, ERRORPROCESSING),
        way(t::TRANSITION_ON_ERROR_SUCCESS, SUCCESS, ERRORPROCESSING, UNCONFIGURED),
        way(t::TRANSITION_ON_ERROR_FAILURE, FAILURE, ERRORPROCESSING, FINALIZED),
        way(t::TRANSITION_ON_ERROR_ERROR, ERROR, ERRORPROCESSING, FINALIZED),
    ]
};

/// A state's name.
pub fn label(state: u8) -> &'static str {
    STATES.iter().find(|(id, _)| *id == state).map_or("unknown", |(_, label)| label)
}

/// The state that the node is in: a primary one, since nothing here takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle(u8);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(states::PRIMARY_STATE_UNCONFIGURED)
    }
}

impl Lifecycle {
    /// The state of the run before.
    pub fn restored(state: u8) -> Option<Self> {
        let primary = states::PRIMARY_STATE_UNCONFIGURED..=states::PRIMARY_STATE_FINALIZED;
        primary.contains(&state).then_some(Self(state))
    }

    pub fn state(self) -> u8 {
        self.0
    }

    /// Whether anything is published.
    pub fn is_active(self) -> bool {
        self.0 == states::PRIMARY_STATE_ACTIVE
    }

    /// What may be asked for now.
    pub fn available(self) -> impl Iterator<Item = &'static Transition> {
        GRAPH.iter().filter(move |transition| transition.start == self.0)
    }

    /// Goes another way, named by its label, or by its number where there is none. Gives both steps: out, and in.
    pub fn change(&mut self, id: u8, label: &str) -> Option<[&'static Transition; 2]> {
        let wanted = |way: &Transition| if label.is_empty() { way.id == id } else { way.label == label };
        let out = self.available().find(|way| wanted(way))?;
        let into = GRAPH.iter().find(|way| way.start == out.goal && way.label == SUCCESS)?;
        self.0 = into.goal;
        Some([out, into])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_leads_between_states_that_there_are() {
        for way in GRAPH {
            assert!(label(way.start) != "unknown" && label(way.goal) != "unknown", "{way:?}");
            assert_eq!(GRAPH.iter().filter(|other| other.id == way.id).count(), 1, "{way:?}");
        }
    }

    #[test]
    fn the_usual_way_there_and_back() {
        let mut node = Lifecycle::default();
        let labels = ["configure", "activate", "deactivate", "cleanup", "configure", "activate", "shutdown"];
        let goals = labels.map(|wanted| {
            let [out, into] = node.change(0, wanted).unwrap();
            assert_eq!((out.label, into.start, into.goal), (wanted, out.goal, node.state()));
            label(node.state())
        });
        let expected = ["inactive", "active", "inactive", "unconfigured", "inactive", "active", "finalized"];
        assert_eq!(goals, expected);
        assert_eq!(node.available().count(), 0);
    }

    #[test]
    fn what_is_out_of_order_changes_nothing() {
        let mut node = Lifecycle::default();
        for (id, label) in [
            (transitions::TRANSITION_ACTIVATE, ""),
            (transitions::TRANSITION_ACTIVE_SHUTDOWN, ""),
            (transitions::TRANSITION_ON_CONFIGURE_SUCCESS, ""),
            (transitions::TRANSITION_CONFIGURE, "nonsense"),
            (0, ""),
            (255, ""),
        ] {
            assert_eq!(node.change(id, label), None, "{id} {label}");
        }
        assert_eq!(node, Lifecycle::default());
        assert!(node.change(transitions::TRANSITION_CONFIGURE, "").is_some() && !node.is_active());
    }

    #[test]
    fn only_a_state_that_lasts_is_restored() {
        let restored: Vec<u8> = (0..=255).filter(|state| Lifecycle::restored(*state).is_some()).collect();
        assert_eq!(restored, [1, 2, 3, 4]);
    }
}
