//! What is stored, kept in step with what is known: writes that failed are tried again, damage is told of until it is
//! mended. A disk that is full, read-only or broken never stops the overlay.

use std::collections::BTreeSet;
use std::time::Duration;

use ria_api::state::Severity;
use ria_protocol::id::NetworkId;
use ria_protocol::map::Revision;
use tokio::time::Instant;

use super::control::Control;
use super::network::Network;
use crate::coordinator::session::Order;
use crate::state::saver::Saved;
use crate::state::{Damage, Part};

/// News of members are stored after this time at the latest: they change often, and a disk wears.
const LIVE_DELAY: Duration = Duration::from_secs(2);

/// How often a disk that could not be written, or a network that could not be read, is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is not on the disk as it should be.
#[derive(Debug, Default)]
pub struct Storage {
    unsaved: BTreeSet<(NetworkId, Part)>,
    damage: Vec<Damage>,
    retry_at: Option<Instant>,
}

impl Control {
    /// Reads what is stored; gives the networks that can be used.
    pub(super) fn load_state(&mut self) -> Vec<Network> {
        let found = self.state.load();
        if let Some(reason) = self.state.unwritable().map(str::to_owned) {
            // Something to try again with.
            let ids = found.memberships.iter().map(|m| m.identity.network);
            self.storage.unsaved.extend(ids.map(|id| (id, Part::Contact)));
            self.state_not_saved(&reason);
        }
        self.storage.damage = found.damage;
        self.tell_damage();
        found.memberships.into_iter().map(Network::new).collect()
    }

    /// A write has ended. A stored map is acknowledged, no other.
    pub(super) fn handle_saved(&mut self, saved: Saved) {
        let what = (saved.network, saved.part);
        if let Err(error) = &saved.result {
            // One that was left meanwhile has no place to be saved in.
            if self.networks.contains_key(&saved.network) {
                self.storage.unsaved.insert(what);
                self.state_not_saved(&error.to_string());
            }
            return;
        }
        self.storage.unsaved.remove(&what);
        if self.storage.unsaved.is_empty() {
            self.changed |= self.conditions.clear("state-not-saved");
        }
        self.forget_damage(|damage| damage.part == Some(what.1) && damage.network == what.0);
        if saved.part == Part::Keys {
            self.handle_keys_saved(saved.network, saved.ticket);
        }
        if saved.part == Part::Map
            && let Some(network) = self.networks.get(&saved.network)
        {
            network.order(Order::Acknowledge(Revision(saved.ticket)));
        }
    }

    fn state_not_saved(&mut self, reason: &str) {
        self.storage.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        let text = format!(
            "the state can't be saved in {} ({reason}); the overlay works on, but what changes now is forgotten at \
             the next start: free space or make it writable, which is noticed within seconds",
            self.state.path().display()
        );
        self.changed |= self.conditions.set("state-not-saved", Severity::Error, text);
    }

    /// Tries again what could not be saved, and what could not be read.
    pub(super) async fn retry_storage(&mut self, now: Instant) {
        if self.storage.retry_at.is_none_or(|at| now < at) {
            return;
        }
        self.storage.retry_at = None;
        for (id, part) in std::mem::take(&mut self.storage.unsaved) {
            self.save_part(id, part);
        }
        let unusable = self.storage.damage.iter().filter(|d| d.part.is_none()).map(|d| d.network);
        for id in unusable.collect::<Vec<_>>() {
            if let Ok((membership, damage)) = self.state.load_network(id) {
                self.forget_damage(|old| old.network == id);
                self.storage.damage.extend(damage);
                self.networks.insert(id, Network::new(membership));
                self.bring_up(id).await;
            }
        }
        self.tell_damage();
        if self.storage.unsaved.is_empty() {
            // No write will tell.
            match self.state.try_writing() {
                Ok(()) => self.changed |= self.conditions.clear("state-not-saved"),
                Err(error) => self.state_not_saved(&error.to_string()),
            }
        }
    }

    /// Orders a write of what is known now.
    fn save_part(&mut self, id: NetworkId, part: Part) {
        let Some(network) = self.networks.get(&id) else { return };
        self.storage.unsaved.insert((id, part));
        let membership = &network.membership;
        match part {
            Part::Identity => self.saver.put(id, part, &membership.identity, 0),
            Part::Keys => self.saver.put(id, part, &membership.keys, membership.keys.ticket()),
            Part::Certificate => self.saver.put(id, part, &membership.certificate, 0),
            Part::Live => self.saver.put(id, part, &membership.live, 0),
            Part::Contact => self.saver.put(id, part, &membership.contact, 0),
            Part::Kept => self.saver.put(id, part, &membership.kept, 0),
            Part::Untold => self.saver.put(id, part, &membership.untold, 0),
            Part::Map => match &membership.map {
                Some(map) => self.saver.put(id, part, map, map.revision.0),
                None => _ = self.storage.unsaved.remove(&(id, part)),
            },
        }
    }

    /// A network was stored anew, whole, or is no more.
    pub(super) fn forget_storage_of(&mut self, id: NetworkId) {
        self.storage.unsaved.retain(|(network, _)| *network != id);
        self.forget_damage(|damage| damage.network == id);
        self.changed |= self.storage.unsaved.is_empty() && self.conditions.clear("state-not-saved");
    }

    fn forget_damage(&mut self, is_mended: impl Fn(&Damage) -> bool) {
        let before = self.storage.damage.len();
        self.storage.damage.retain(|damage| !is_mended(damage));
        if self.storage.damage.len() != before {
            self.tell_damage();
        }
    }

    fn tell_damage(&mut self) {
        let damage = &self.storage.damage;
        if damage.iter().any(|d| d.part.is_none()) {
            self.storage.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        }
        let texts: Vec<&str> = damage.iter().map(|d| d.text.as_str()).collect();
        self.changed |= if texts.is_empty() {
            self.conditions.clear("state-damaged")
        } else {
            self.conditions.set("state-damaged", Severity::Error, texts.join("; "))
        };
    }

    pub(super) fn save_live_when_due(&mut self, id: NetworkId, now: Instant) {
        let unsaved = self.networks.get(&id).and_then(|n| n.live_unsaved);
        if unsaved.is_some_and(|since| now >= since + LIVE_DELAY) {
            self.save_live(id);
        }
    }

    pub(super) fn save_live(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.live_unsaved.take().is_some() {
            self.saver.put(id, Part::Live, &network.membership.live, 0);
        }
    }
}
