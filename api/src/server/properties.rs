//! Properties of the objects, and `PropertiesChanged` when they change: one signal for all that changed together.
//!
//! They are the few things that desktop programs and scripts watch; everything else is in the structures that the
//! methods return.

use std::borrow::Cow;
use std::collections::HashMap;

use ria_protocol::id::NetworkId;
use zbus::fdo;
use zbus::names::InterfaceName;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{ObjectPath, Variant};

use super::objects::{AgentObject, NetworkObject};
use crate::network_path;
use crate::state::NetworkStatus;

/// Properties of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Properties {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) interface: String,
    pub(super) addresses: Vec<String>,
    pub(super) coordinator_state: String,
    pub(super) peers_total: u32,
    pub(super) peers_up: u32,
}

impl Properties {
    /// Those of a network in this status.
    pub(super) fn of(status: &NetworkStatus) -> Self {
        Self {
            name: status.network.clone(),
            state: status.state.to_string(),
            interface: status.interface.clone(),
            addresses: status.addresses.clone(),
            coordinator_state: status.coordinator_state.to_string(),
            peers_total: status.peers_total,
            peers_up: status.peers_up,
        }
    }

    /// Tells what is other than before, if anything is.
    pub(super) async fn tell_changes(&self, emitter: &SignalEmitter<'_>, before: &Self) -> zbus::Result<()> {
        let changed = self.differences(before);
        if changed.is_empty() {
            return Ok(());
        }
        emit(emitter, NetworkObject::name(), changed).await
    }

    fn differences<'a>(&'a self, before: &Self) -> HashMap<&'static str, Variant<'a>> {
        let texts = [
            ("Name", &self.name, &before.name),
            ("State", &self.state, &before.state),
            ("Interface", &self.interface, &before.interface),
            ("CoordinatorState", &self.coordinator_state, &before.coordinator_state),
        ];
        let numbers = [
            ("PeersTotal", self.peers_total, before.peers_total),
            ("PeersUp", self.peers_up, before.peers_up),
        ];
        let texts = texts
            .into_iter()
            .filter(|(_, now, old)| now != old)
            .map(|(n, now, _)| (n, Variant::from(now.as_str())));
        let numbers =
            numbers.into_iter().filter(|(_, now, old)| now != old).map(|(n, now, _)| (n, Variant::from(now)));
        let addresses =
            (self.addresses != before.addresses).then(|| ("Addresses", Variant::from(&self.addresses)));
        texts.chain(numbers).chain(addresses).collect()
    }
}

/// Tells which networks there are now.
pub(super) async fn tell_networks<'n>(
    emitter: &SignalEmitter<'_>,
    networks: impl Iterator<Item = &'n NetworkId>,
) -> zbus::Result<()> {
    let paths: Vec<ObjectPath<'static>> =
        networks.filter_map(|id| ObjectPath::try_from(network_path(*id)).ok()).collect();
    emit(emitter, AgentObject::name(), [("Networks", Variant::from(paths))].into()).await
}

async fn emit(
    emitter: &SignalEmitter<'_>,
    interface: InterfaceName<'static>,
    changed: HashMap<&str, Variant<'_>>,
) -> zbus::Result<()> {
    fdo::Properties::properties_changed(emitter, interface, changed, Cow::Borrowed(&[])).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let before = Properties { state: "up".into(), peers_up: 1, ..Properties::default() };
        assert!(before.differences(&before).is_empty());
        let now = Properties { peers_up: 2, addresses: vec!["10.213.0.1/16".into()], ..before.clone() };
        let mut names: Vec<_> = now.differences(&before).into_keys().collect();
        names.sort_unstable();
        assert_eq!(names, ["Addresses", "PeersUp"]);
    }
}
