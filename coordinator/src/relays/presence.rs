//! Which stand-alone relays are connected, and what they say of themselves. Nothing of it is stored.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ria_protocol::name::Name;
use ria_protocol::relay::RelayLoad;
use ria_protocol::time::UnixTime;
use tokio::sync::watch;

/// One connection of a relay; a later one has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelaySession(u64);

/// What is known of a relay that has connected since the coordinator was started.
#[derive(Debug, Clone)]
pub struct RelayPresence {
    session: RelaySession,
    pub connected: bool,
    /// Since when it is connected, or is not any more.
    pub since: UnixTime,
    pub version: String,
    /// From where it is connected, or was last.
    pub from: IpAddr,
    /// What it had to do, as it said last.
    pub load: RelayLoad,
}

/// All of them.
#[derive(Debug, Default)]
pub struct RelayPresences {
    all: watch::Sender<BTreeMap<Name, RelayPresence>>,
}

impl RelayPresences {
    /// A relay has connected; a connection that it had is to end, as [`Self::is_current`] tells.
    pub fn begin(&self, name: &Name, version: String, from: IpAddr, now: UnixTime) -> RelaySession {
        let mut session = RelaySession(0);
        self.all.send_modify(|all| {
            session = RelaySession(all.values().map(|known| known.session.0).max().unwrap_or(0) + 1);
            let presence = RelayPresence {
                session,
                connected: true,
                since: now,
                version,
                from,
                load: RelayLoad::default(),
            };
            all.insert(name.clone(), presence);
        });
        session
    }

    /// Whether a connection is its relay's latest one.
    pub fn is_current(&self, name: &Name, session: RelaySession) -> bool {
        self.all.borrow().get(name).is_some_and(|known| known.session == session)
    }

    /// Tells when some relay has come or gone.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<Name, RelayPresence>> {
        self.all.subscribe()
    }

    /// What a relay has to do.
    pub fn report(&self, name: &Name, session: RelaySession, load: RelayLoad) {
        self.all.send_if_modified(|all| {
            if let Some(known) = all.get_mut(name).filter(|known| known.session == session) {
                known.load = load;
            }
            // Nobody waits for that.
            false
        });
    }

    /// A connection has ended.
    pub fn end(&self, name: &Name, session: RelaySession, now: UnixTime) {
        self.all.send_if_modified(|all| {
            let Some(known) = all.get_mut(name).filter(|known| known.session == session) else {
                return false;
            };
            (known.connected, known.since) = (false, now);
            true
        });
    }

    /// A relay was removed.
    pub fn forget(&self, name: &str) {
        self.all.send_if_modified(|all| {
            let before = all.len();
            all.retain(|known, _| known.as_str() != name);
            all.len() != before
        });
    }

    /// What is known of a relay.
    pub fn of(&self, name: &Name) -> Option<RelayPresence> {
        self.all.borrow().get(name).cloned()
    }
}
