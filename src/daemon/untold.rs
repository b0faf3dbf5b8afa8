//! What was changed on this machine, told to the coordinator: now, or as soon as it is there, also after a restart.

use ria_protocol::id::NetworkId;
use ria_protocol::requester::{LocalDeed, Requester};

use super::control::Control;
use super::network::Network;
use super::times::Look;
use crate::coordinator::session::Order;
use crate::state::Part;

impl Network {
    /// Tells the session what the coordinator does not know; it leaves out what it has told already.
    pub(super) fn tell_untold(&self) {
        for note in self.membership.untold.notes() {
            self.order(Order::Note(note.clone()));
        }
    }
}

impl Control {
    /// Has the coordinator told of a change.
    pub(super) fn note(&mut self, id: NetworkId, deed: LocalDeed, by: Requester) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let now = network.time(&Look::now());
        let note = network.membership.untold.add(deed, by, now);
        network.order(Order::Note(note));
        self.saver.put(id, Part::Untold, &network.membership.untold, 0);
    }

    /// The coordinator was told of all notes up to this one.
    pub(super) fn handle_told(&mut self, id: NetworkId, number: u64) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.membership.untold.forget(number) {
            self.saver.put(id, Part::Untold, &network.membership.untold, 0);
        }
    }
}
