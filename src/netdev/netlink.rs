//! rtnetlink: reads interfaces, addresses and routes, sets up the overlay interface, and tells of changes.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink has dozens of attributes, of which a few matter"
)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};
use tokio::sync::watch;

use super::exclusions::Exclusions;
use super::host::{Host, Interface, Neighbour, Resolution, Route};

/// Changes come in bursts: a Wi-Fi association is a dozen messages, over a second or more. The first is passed on at once ...
const FIRST: Duration = Duration::from_millis(10);

/// ... and others of the burst after this time each.
const SETTLE: Duration = Duration::from_millis(40);

/// The kernel said no.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket.
    #[error("the kernel's network configuration can't be opened: {0}")]
    Open(#[from] std::io::Error),
    /// A request failed.
    #[error("the kernel refused to {what}: {source}")]
    Request {
        /// What was asked.
        what: String,
        /// Why not.
        source: rtnetlink::Error,
    },
}

/// What becomes of a request's failure.
pub(super) fn request(what: impl Into<String>) -> impl Fn(rtnetlink::Error) -> NetlinkError {
    let what = what.into();
    move |source| NetlinkError::Request { what: what.clone(), source }
}

/// An open netlink socket.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    exclusions: Arc<Exclusions>,
}

impl Netlink {
    /// Opens a socket for requests; pictures of the host are judged by these exclusions.
    pub fn open(exclusions: Exclusions) -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle, exclusions: Arc::new(exclusions) })
    }

    /// For requests about routes.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What the user has excluded.
    pub fn exclusions(&self) -> &Exclusions {
        &self.exclusions
    }

    /// Reads everything.
    pub async fn host(&self) -> Result<Host, NetlinkError> {
        let read = |source| NetlinkError::Request { what: "list interfaces".into(), source };
        let mut host = Host::default();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(read)? {
            let name = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            let changes = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::CarrierChanges(count) => Some(*count),
                _ => None,
            });
            host.interfaces.push(Interface {
                index: link.header.index,
                name: name.unwrap_or_default(),
                carrier: link.header.flags.contains(LinkFlags::LowerUp),
                carrier_changes: changes.unwrap_or_default(),
                up: link.header.flags.contains(LinkFlags::Up),
                loopback: link.header.flags.contains(LinkFlags::Loopback),
                kind: kind(&link.attributes),
                controller: link.attributes.iter().find_map(|a| match a {
                    LinkAttribute::Controller(index) => Some(*index),
                    _ => None,
                }),
                foreign: false,
                broadcast: link.header.flags.contains(LinkFlags::Broadcast),
                alias: alias(&link.attributes),
            });
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(read)? {
            // On a point-to-point link `Address` is the other end and `Local` this one.
            let local = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            if let Some(net) = local.or(any).and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok()) {
                host.addresses.push((message.header.index, net));
                host.unfit.extend(is_passing(&message).then(|| net.addr()));
            }
        }
        for query in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let mut routes = self.handle.route().get(query).execute();
            while let Some(message) = routes.try_next().await.map_err(read)? {
                host.routes.extend(of_main_table(&message));
            }
        }
        host.judge(&self.exclusions);
        Ok(host)
    }

    /// What the kernel knows of the machines on its links.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let read = |source| NetlinkError::Request { what: "list neighbours".into(), source };
        let mut messages = self.handle.neighbours().get().execute();
        let mut found = Vec::new();
        while let Some(message) = messages.try_next().await.map_err(read)? {
            found.extend(neighbour(&message));
        }
        Ok(found)
    }

    /// Sets MTU and queue length, and brings an interface up.
    pub async fn set_up(&self, index: u32, mtu: u16, queue: u32) -> Result<(), NetlinkError> {
        let message =
            LinkUnspec::new_with_index(index).mtu(mtu.into()).txqueuelen(queue).multicast(true).up().build();
        let what = format!("bring the overlay interface up with MTU {mtu}");
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|source| NetlinkError::Request { what, source })
    }

    /// Writes on an interface what it is for.
    pub async fn label(&self, index: u32, label: &str) -> Result<(), NetlinkError> {
        let alias = LinkAttribute::IfAlias(label.to_owned());
        let message = LinkUnspec::new_with_index(index).append_extra_attribute(alias).build();
        let what = "label the overlay interface".to_owned();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|source| NetlinkError::Request { what, source })
    }

    /// Gives an interface an address; the kernel adds the route to its prefix.
    pub async fn add_address(&self, index: u32, address: IpAddr, length: u8) -> Result<(), NetlinkError> {
        let what = format!("add the overlay address {address}/{length}");
        self.handle
            .address()
            .add(index, address, length)
            .replace()
            .execute()
            .await
            .map_err(|source| NetlinkError::Request { what, source })
    }
}

/// Starts to watch: the number grows whenever interfaces, addresses or routes have changed, at most twenty times a second.
pub fn watch_changes() -> Result<watch::Receiver<u64>, NetlinkError> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    let (count, changes) = watch::channel(0);
    tokio::spawn(async move {
        while messages.next().await.is_some() {
            tokio::time::sleep(FIRST).await;
            while let Some(Some(_)) = futures_util::FutureExt::now_or_never(messages.next()) {}
            count.send_modify(|n| *n += 1);
            if count.is_closed() {
                return;
            }
            tokio::time::sleep(SETTLE).await;
        }
    });
    Ok(changes)
}

/// What somebody has written on a link.
fn alias(attributes: &[LinkAttribute]) -> String {
    let found = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.clone()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// What the kernel calls a link's kind; empty for hardware.
fn kind(attributes: &[LinkAttribute]) -> String {
    let infos = attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let kinds = infos.flatten().filter_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    });
    kinds.into_iter().next().unwrap_or_default()
}

/// Whether an address is on its way out (its preferred time ends, or has ended), or was not proven to be unique yet.
fn is_passing(message: &AddressMessage) -> bool {
    /// A peer that is told of an address shall have something of it.
    const LEAST_SECONDS: u32 = 120;
    let passing = AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Flags(flags) => flags.intersects(passing),
        AddressAttribute::CacheInfo(info) => {
            message.header.family == AddressFamily::Inet6 && info.ifa_preferred < LEAST_SECONDS
        }
        _ => false,
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::from(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::from(*v6)),
        _ => None,
    })?;
    let resolution = match message.header.state {
        NeighbourState::Failed => Resolution::Failed,
        NeighbourState::Incomplete => Resolution::Sought,
        // Permanent entries and links without addresses tell nothing of who is there.
        NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => {
            Resolution::Known
        }
        _ => return None,
    };
    Some(Neighbour { interface: message.header.ifindex, address, resolution })
}

/// A route as the rest of the program sees it; of other tables than the main one nothing.
pub(super) fn of_main_table(message: &RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut destination = None;
    let mut interface = None;
    let mut gateway = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(to),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(to) => gateway = ip(to),
            _ => {}
        }
    }
    let unspecified = match message.header.address_family {
        rtnetlink::packet_route::AddressFamily::Inet => IpAddr::from([0; 4]),
        rtnetlink::packet_route::AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let to = destination.unwrap_or(unspecified);
    // Link-local and multicast destinations exist on every interface and collide with nothing.
    if matches!(to, IpAddr::V6(v6) if v6.is_unicast_link_local()) || to.is_multicast() {
        return None;
    }
    let destination = IpNet::new(to, message.header.destination_prefix_length).ok()?;
    Some(Route { destination, interface, gateway })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
