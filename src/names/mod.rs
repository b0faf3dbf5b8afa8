//! Names of members for all programs of this machine: `robot-7.lab.ria.internal`, and `robot-7`.
//!
//! Owns what names there are (a [`Table`]) and the task that keeps them in force; [`hosts`] and [`resolved`] are how. Knows
//! nothing of peers beyond name and address.

mod config;
mod dns;
mod hosts;
mod resolved;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ria_api::state::NetworkState;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::daemon::handle::NetworkView;
pub use config::{Mode, NamesConfig};
use hosts::HostsFile;
pub use hosts::{HOSTS, are_known, clear};
use resolved::Resolved;

/// Below this are the names of all networks.
pub const DOMAIN: &str = "ria.internal";

/// Whether the names are still there is looked at this often: others write to that file, too.
const CHECK: Duration = Duration::from_secs(30);

/// Longest wait for the last change when the agent stops.
const LAST: Duration = Duration::from_secs(3);

/// All names with their addresses, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    entries: Vec<Entry>,
    zones: Vec<Zone>,
}

/// A network's part of the names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Zone {
    interface: String,
    /// `lab.ria.internal`, in which bare names are searched, and the reverse domains of its addresses, to which questions are
    /// only routed.
    domains: Vec<(String, bool)>,
    /// Whether members that have no name here may be had by asking for them.
    on_demand: bool,
}

/// A member's names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    addresses: Vec<IpAddr>,
    /// `robot-7.lab.ria.internal`
    full: String,
    /// `robot-7`; absent where a network before this one has such a member.
    bare: Option<String>,
}

impl Table {
    /// Names of the members of all networks that are up, this machine among them.
    pub fn of<'a>(networks: impl IntoIterator<Item = &'a NetworkView>) -> Self {
        let is_up = |network: &&NetworkView| network.status.state == NetworkState::Up;
        // Where two networks have a member of the same name, that of the lower interface has the bare one.
        let number = |network: &NetworkView| {
            let name = &network.status.interface;
            (name.len(), name.clone(), network.status.network_id.clone())
        };
        let up: BTreeMap<_, _> = networks.into_iter().filter(is_up).map(|n| (number(n), n)).collect();
        let mut taken = BTreeSet::new();
        let (mut entries, mut zones) = (Vec::new(), Vec::new());
        for network in up.values() {
            zones.push(zone(network));
            let own = (&network.status.name, &network.status.addresses);
            let peers = network.peers.iter().map(|(_, peer)| (&peer.name, &peer.addresses));
            for (name, addresses) in std::iter::once(own).chain(peers) {
                let addresses: Vec<IpAddr> = addresses.iter().filter_map(|text| address(text)).collect();
                if addresses.is_empty() {
                    continue;
                }
                entries.push(Entry {
                    addresses,
                    full: format!("{name}.{}.{DOMAIN}", network.status.network),
                    bare: taken.insert(name.clone()).then(|| name.clone()),
                });
            }
        }
        Self { entries, zones }
    }

    /// The names of the members.
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The parts that networks have of it.
    fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// Whether it is a network's own name.
    fn is_zone(&self, name: &str) -> bool {
        self.zones
            .iter()
            .flat_map(|zone| &zone.domains)
            .any(|(domain, only_routes)| !only_routes && domain == name)
    }

    /// Whether this may be the name of a member that is not known yet.
    fn may_come(&self, full: &str) -> bool {
        let mut zones = self.zones.iter().filter(|zone| zone.on_demand);
        let is_below = |domain: &str| {
            let label = full.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
            label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
        };
        self.addresses_of(full).is_none()
            && zones
                .any(|zone| zone.domains.iter().any(|(domain, only_routes)| !only_routes && is_below(domain)))
    }

    fn addresses_of(&self, full: &str) -> Option<&[IpAddr]> {
        self.entries.iter().find(|entry| entry.full == full).map(|entry| entry.addresses.as_slice())
    }

    fn name_of(&self, address: IpAddr) -> Option<&str> {
        self.entries.iter().find(|entry| entry.addresses.contains(&address)).map(|entry| entry.full.as_str())
    }
}

fn zone(network: &NetworkView) -> Zone {
    let status = &network.status;
    let reverse = status.addresses.iter().filter_map(|text| {
        let (address, length) = text.split_once('/')?;
        Some((dns::reverse_domain(address.parse().ok()?, length.parse().ok()?), true))
    });
    let own = (format!("{}.{DOMAIN}", status.network), false);
    let domains = std::iter::once(own).chain(reverse).collect();
    Zone { interface: status.interface.clone(), domains, on_demand: network.on_demand }
}

fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

/// Body of the fuzz target `dns_query`: whatever is asked, the answer is one, to this question, and none to an answer.
#[cfg(any(test, feature = "fuzz"))]
pub fn fuzz(data: &[u8]) {
    let full = "robot-2.lab.ria.internal".to_owned();
    let addresses = vec![IpAddr::from([10, 213, 0, 2]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2])];
    let domains = vec![(format!("lab.{DOMAIN}"), false), ("213.10.in-addr.arpa".to_owned(), true)];
    let table = Table {
        entries: vec![Entry { addresses, full, bare: None }],
        zones: vec![Zone { interface: "ria0".into(), domains, on_demand: true }],
    };
    let sought = dns::sought(data, &table);
    assert!(sought.is_none_or(|name| name.ends_with(DOMAIN) && table.addresses_of(&name).is_none()));
    let Some(reply) = dns::answer(data, &table) else { return };
    assert!(reply.len() <= dns::MAX_QUERY && data.starts_with(reply.get(..2).unwrap_or_default()));
    assert!(dns::answer(&reply, &table).is_none(), "an answer was answered");
}

/// Keeps the names in force until the agent ends.
pub struct Names {
    mode: Mode,
    wanted: Option<watch::Sender<Option<Table>>>,
    task: Option<JoinHandle<()>>,
}

impl Names {
    /// Those of the run before stay until it is known which there are now. `tell` hears how it goes, and `seek` which names
    /// are asked for that an on-demand network may have.
    pub fn start(
        config: &NamesConfig,
        state_dir: &Path,
        tell: impl Fn(Result<Place, io::Error>) + Send + Sync + 'static,
        seek: impl Fn(String) + Send + Sync + 'static,
    ) -> Self {
        let mode = config.mode;
        if mode == Mode::Off {
            return Self { mode, wanted: None, task: None };
        }
        let (wanted, orders) = watch::channel(None);
        let file = HostsFile::new(Path::new(HOSTS), state_dir);
        Self {
            mode,
            wanted: Some(wanted),
            task: Some(tokio::spawn(keep(Keeper::new(mode, file, Box::new(seek)), orders, tell))),
        }
    }

    /// How names are made known, as it is set.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// These are the members now.
    pub fn follow<'a>(&self, networks: impl IntoIterator<Item = &'a NetworkView>) {
        if let Some(wanted) = &self.wanted {
            let table = Some(Table::of(networks));
            wanted.send_if_modified(|old| {
                let changed = *old != table;
                *old = table;
                changed
            });
        }
    }

    /// Ends, as the interfaces do: the names stay for the next run, or go.
    pub async fn end(&mut self, stay: bool) {
        if let Some(wanted) = self.wanted.take().filter(|_| !stay) {
            wanted.send_replace(Some(Table::default()));
        }
        if let Some(task) = self.task.take()
            && timeout(LAST, task).await.is_err()
        {
            tracing::warn!("names of peers may be left in {HOSTS}; the next start sees to them");
        }
    }
}

/// Where names are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the hosts file.
    Hosts,
    /// Systemd-resolved asks the agent.
    Resolved,
}

impl Place {
    /// The word in the local API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hosts => "hosts",
            Self::Resolved => "resolved",
        }
    }
}

/// Puts names where they belong, and answers questions about them.
struct Keeper {
    mode: Mode,
    file: HostsFile,
    resolved: Option<Resolved>,
    /// Whether an earlier run's unfinished write was looked for.
    mended: bool,
    seek: Seek,
}

/// Tells that a name is asked for which may be somebody's.
type Seek = Box<dyn Fn(String) + Send + Sync>;

impl Keeper {
    fn new(mode: Mode, file: HostsFile, seek: Seek) -> Self {
        Self { mode, file, resolved: None, mended: false, seek }
    }

    async fn put(&mut self, table: &Table) -> io::Result<Place> {
        if self.resolved.is_none() && self.mode != Mode::Hosts {
            self.resolved = Resolved::find().await;
        }
        if let Some(resolved) = &self.resolved {
            let put = resolved.put(table).await;
            if put.is_err() {
                // It is looked for again; it may have been stopped.
                self.resolved = None;
            }
            match put {
                Err(error) if self.mode == Mode::Resolved => return Err(error),
                Err(error) => tracing::debug!(%error, "systemd-resolved"),
                Ok(()) => {
                    // What was put there before, by a run without resolved, would count more.
                    let _ = self.put_in_file(Table::default()).await;
                    return Ok(Place::Resolved);
                }
            }
        }
        if self.mode == Mode::Resolved {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "systemd-resolved does not run, or no program asks it",
            ));
        }
        self.put_in_file(table.clone()).await.map(|()| Place::Hosts)
    }

    /// Disks may be slow, so not on the agent's own thread.
    async fn put_in_file(&mut self, table: Table) -> io::Result<()> {
        let (file, mended) = (self.file.clone(), std::mem::replace(&mut self.mended, true));
        let work = tokio::task::spawn_blocking(move || {
            if !mended {
                file.mend()?;
            }
            file.put(&table)
        });
        work.await.map_err(io::Error::other)?
    }

    /// Answers questions for ever, where somebody asks them.
    async fn serve(&mut self, table: Option<&Table>) {
        if let (Some(resolved), Some(table)) = (&mut self.resolved, table) {
            resolved.serve(table, &self.seek).await;
        }
        std::future::pending().await
    }
}

async fn keep(
    mut keeper: Keeper,
    mut orders: watch::Receiver<Option<Table>>,
    tell: impl Fn(Result<Place, io::Error>) + Send + Sync,
) {
    loop {
        let table = orders.borrow_and_update().clone();
        if let Some(table) = &table {
            tell(keeper.put(table).await);
        }
        // A moment without news is time for a look.
        let news = tokio::select! {
            news = timeout(CHECK, orders.changed()) => news,
            () = keeper.serve(table.as_ref()) => continue,
        };
        if let Ok(Err(_)) = news {
            if let (Some(resolved), Some(table)) = (&keeper.resolved, &table) {
                // Else whoever has the port next would be asked.
                resolved.withdraw(table).await;
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use ria_api::state::{NetworkStatus, PeerStatus};
    use ria_protocol::id::NodeId;

    use super::*;

    /// A network that is up, with this machine at `.1` and peers from `.2` on.
    pub fn view(network: &str, interface: &str, names: &[&str]) -> NetworkView {
        let octet = interface.len() + interface.bytes().map(usize::from).sum::<usize>() % 7;
        let address = |n: usize| format!("10.{octet}.0.{}", n + 1);
        let peer = |(n, name): (usize, &&str)| {
            let status = PeerStatus {
                name: (*name).into(),
                addresses: vec![address(n), format!("fd00::{}", n + 1)],
                ..PeerStatus::default()
            };
            (NodeId::from_bytes([n as u8; 10]), status)
        };
        let status = NetworkStatus {
            network: network.into(),
            network_id: format!("id-{network}"),
            state: NetworkState::Up,
            name: names[0].into(),
            interface: interface.into(),
            addresses: vec![format!("{}/16", address(0))],
            ..NetworkStatus::default()
        };
        NetworkView { status, on_demand: false, peers: names.iter().enumerate().skip(1).map(peer).collect() }
    }

    fn names(table: &Table) -> Vec<(&str, Option<&str>)> {
        table.entries.iter().map(|entry| (entry.full.as_str(), entry.bare.as_deref())).collect()
    }

    #[test]
    fn every_member_has_its_name_and_a_bare_one_is_given_once() {
        let lab = view("lab", "ria0", &["robot-1", "robot-2"]);
        let field = view("field", "ria10", &["robot-1", "robot-3"]);
        let hall = view("hall", "ria2", &["base", "robot-3"]);
        let table = Table::of([&field, &hall, &lab]);
        assert_eq!(
            names(&table),
            [
                ("robot-1.lab.ria.internal", Some("robot-1")),
                ("robot-2.lab.ria.internal", Some("robot-2")),
                ("base.hall.ria.internal", Some("base")),
                ("robot-3.hall.ria.internal", Some("robot-3")),
                ("robot-1.field.ria.internal", None),
                ("robot-3.field.ria.internal", None),
            ]
        );
        assert_eq!(table.entries[1].addresses.len(), 2, "both families");
    }

    #[test]
    fn a_network_that_is_off_has_no_names() {
        let mut lab = view("lab", "ria0", &["robot-1", "robot-2"]);
        lab.status.state = NetworkState::Disabled;
        assert!(Table::of([&lab]).entries.is_empty());
    }
}
