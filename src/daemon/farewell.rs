//! Networks that were left while their coordinator could not be told: it is told as soon as that can be, also after a
//! restart, and then the keys are erased.

use ria_api::state::Severity;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::requester::LocalDeed;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::control::{Control, Input};
use crate::coordinator::backoff::Backoff;
use crate::coordinator::farewell::Farewell;
use crate::state::enrolment::StoredFarewell;
use crate::state::untold::Note;

/// A farewell under way.
pub struct Leaving {
    text: String,
    task: JoinHandle<()>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Control {
    /// Goes on with farewells that were not heard before this run.
    pub(super) fn begin_farewells(&mut self) {
        for farewell in self.state.load_farewells() {
            self.start_farewell(farewell);
        }
    }

    /// Tells a coordinator that this node has left, again and again until it hears.
    pub(super) fn start_farewell(&mut self, farewell: StoredFarewell) {
        let key = (farewell.network, farewell.node);
        let text = format!(
            "network {} was left while its coordinator could not be told; it is told as soon as it can be reached, and \
             this machine's keys for it are erased then (it is listed there as {} until that)",
            farewell.network_name, farewell.name
        );
        let inputs = self.inputs.clone();
        let notes = farewell.notes.unwrap_or_else(|| {
            // Stored by an older agent, which did not say when.
            vec![Note { number: 0, deed: LocalDeed::Left, by: farewell.by, at: farewell.time }]
        });
        let farewell = Farewell {
            reach: self.reach.clone(),
            network: farewell.network,
            node: farewell.node,
            boot: self.boot,
            urls: farewell.urls,
            keys: farewell.keys,
            certificate: farewell.certificate,
            time: farewell.time,
            notes,
        };
        let task = tokio::spawn(async move {
            let mut backoff = Backoff::default();
            while !farewell.say().await {
                sleep(backoff.next()).await;
            }
            let _ = inputs.send(Input::FarewellHeard(key.0, key.1));
        });
        self.leaving.insert(key, Leaving { text, task });
        self.tell_farewells();
    }

    pub(super) fn handle_farewell_heard(&mut self, network: NetworkId, node: NodeId) {
        self.state.forget_farewell(network, node);
        self.leaving.remove(&(network, node));
        tracing::info!("a coordinator has heard that this machine left");
        self.tell_farewells();
    }

    fn tell_farewells(&mut self) {
        let texts: Vec<&str> = self.leaving.values().map(|leaving| leaving.text.as_str()).collect();
        self.changed |= if texts.is_empty() {
            self.conditions.clear("left-untold")
        } else {
            self.conditions.set("left-untold", Severity::Info, texts.join("; "))
        };
    }
}
