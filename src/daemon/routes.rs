//! Local networks behind members: kernel routes to those of others, and this machine's part as a gateway to its own.
//!
//! The map says what is approved. What this machine's administrator has not offered in `[routes] advertise` is not forwarded to,
//! whatever the map says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ria_api::state::Severity;
use ria_core::Command;
use ria_core::lan::Lan;
use ria_protocol::id::NetworkId;
use ria_protocol::message::from_bytes;
use ria_protocol::prefix::Prefix;
use ria_protocol::record::MemberRecord;

use super::control::Control;
use super::network::Network;
use crate::gateway::{Forward, GatewayError};
use crate::netdev::netlink::NetlinkError;
use crate::state::map;

/// A local network behind another member.
struct Behind {
    prefix: Prefix,
    gateway: String,
}

impl Network {
    /// The local networks behind other members.
    fn behind_others(&self) -> Vec<Behind> {
        let Some(map) = &self.membership.map else { return Vec::new() };
        let overlay = [map.network.prefix_v4, map.network.prefix_v6];
        let others = map.members.iter().filter_map(|member| {
            let record: MemberRecord = from_bytes(&member.record.bytes).ok()?;
            (record.node != self.membership.identity.node).then_some((member, record))
        });
        let all = others.flat_map(|(member, record)| {
            // Static peers behind a member have addresses of the overlay itself.
            let networks =
                record.prefixes.into_iter().filter(|prefix| overlay.iter().all(|own| !own.overlaps(prefix)));
            networks.map(|prefix| Behind { prefix, gateway: member.name.to_string() })
        });
        all.filter(|behind| behind.prefix.address().is_ipv4()).collect()
    }

    /// What is approved of this machine's own networks, as far as it offers them.
    fn own_lans(&self, advertised: &[Prefix]) -> Vec<Lan> {
        let own =
            self.membership.map.as_ref().and_then(|map| map::member(map, self.membership.identity.node));
        let Some((member, record)) = own.filter(|_| self.may_run()) else { return Vec::new() };
        let routes = member.routes.iter().flatten();
        let sound =
            routes.filter(|route| record.prefixes.contains(&route.prefix) && advertised.contains(&route.lan));
        sound.map(|route| Lan { prefix: route.prefix, here: route.lan }).collect()
    }
}

impl Control {
    /// Has the kernel know the ways to local networks behind other members, and no others of Ria's.
    pub(super) async fn follow_routes(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get(&id) else { return };
        let Some(interface) = &network.interface else { return };
        let index = interface.index;
        let own = interface.addresses.iter().map(|(address, _)| *address).find(IpAddr::is_ipv4);
        let mut troubles = Vec::new();
        let mut wanted = BTreeSet::new();
        for Behind { prefix, gateway } in network.behind_others() {
            match self.host.in_the_way(prefix, index) {
                None => _ = wanted.insert(prefix),
                Some((net, on)) => troubles.push(format!(
                    "{prefix} behind {gateway} can't be reached from here, since this machine has {net} itself ({on}); an \
                     administrator can give it another prefix (ria-coordinator route approve {gateway} LAN --map auto)"
                )),
            }
        }
        if network.routed != wanted
            && let Some(network) = self.networks.get_mut(&id)
        {
            network.routed.clone_from(&wanted);
            // Before there is a way: a path that led through the tunnel would be its own.
            self.tell_avoided().await;
        }
        if let Err(error) = self.set_routes(index, &wanted, own).await {
            troubles.push(format!("networks behind members can't be reached from here: {error}"));
        }
        let Some(network) = self.networks.get_mut(&id) else { return };
        self.changed |= if troubles.is_empty() {
            network.conditions.clear("route-conflict")
        } else {
            network.conditions.set("route-conflict", Severity::Warning, troubles.join("; "))
        };
    }

    async fn set_routes(
        &self,
        index: u32,
        wanted: &BTreeSet<Prefix>,
        own: Option<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let made: BTreeSet<Prefix> = self.netlink.own_routes(index).await?.into_iter().collect();
        for gone in made.difference(wanted) {
            self.netlink.delete_route(index, *gone).await?;
        }
        let Some(own) = own else { return Ok(()) };
        for new in wanted.difference(&made) {
            self.netlink.add_route(index, *new, own).await?;
        }
        Ok(())
    }

    /// Has engine and kernel forward to those of this machine's networks that are approved.
    pub(super) async fn follow_gateway(&mut self) {
        if self.advertised.is_empty() && self.gateway.has(&BTreeSet::new()) {
            return;
        }
        let mut wanted = BTreeSet::new();
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            let Some(network) = self.networks.get(&id) else { continue };
            let lans = network.own_lans(&self.advertised);
            self.tell_lans(id, &lans).await;
            wanted.extend(self.forwards(id, &lans));
        }
        if self.gateway.has(&wanted) || !self.gateway.may_try() {
            return;
        }
        let done = self.gateway.set(wanted).await;
        self.note_gateway(done);
    }

    fn note_gateway(&mut self, done: Result<(), GatewayError>) {
        self.changed |= match done {
            Ok(()) => self.conditions.clear("gateway-failed"),
            Err(error) => {
                let text = format!("approved local networks can't be reached through this machine: {error}");
                self.conditions.set("gateway-failed", Severity::Error, text)
            }
        };
    }

    async fn tell_lans(&mut self, id: NetworkId, lans: &[Lan]) {
        let Some(network) = self.networks.get_mut(&id).filter(|network| network.in_engine) else { return };
        if network.lans_told != lans {
            network.lans_told = lans.to_vec();
            self.engine(Command::SetLans { network: id, lans: lans.to_vec() }).await;
        }
    }

    /// What the kernel has to forward for a network; what can't be, and what waits, is told.
    fn forwards(&mut self, id: NetworkId, lans: &[Lan]) -> Vec<Forward> {
        let Some(network) = self.networks.get_mut(&id) else { return Vec::new() };
        let (mut forwards, mut shown, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let members = network.membership.map.as_ref().map(|map| map.network.prefix_v4);
        let overlay = network.interface.as_ref().map(|interface| interface.name.clone());
        for (lan, (members, overlay)) in
            lans.iter().filter_map(|lan| Some((lan, members.zip(overlay.clone())?)))
        {
            match self.host.interface_of(lan.here) {
                Some(interface) => {
                    let interface = interface.to_owned();
                    shown.push(if lan.prefix == lan.here {
                        format!("{} ({interface})", lan.here)
                    } else {
                        format!("{} as {} ({interface})", lan.here, lan.prefix)
                    });
                    forwards.push(Forward { overlay, members, lan: lan.here, interface });
                }
                None => missing.push(lan.here.to_string()),
            }
        }
        let approved = |prefix: &&Prefix| lans.iter().any(|lan| lan.here == **prefix);
        let waiting: Vec<String> =
            self.advertised.iter().filter(|prefix| !approved(prefix)).map(ToString::to_string).collect();
        let name = network.membership.identity.name.clone();
        let told = [
            (
                "gateway",
                Severity::Info,
                shown,
                "members reach through this machine: ".to_owned(),
                String::new(),
            ),
            (
                "route-proposed",
                Severity::Info,
                waiting,
                "offered, and not approved: ".to_owned(),
                format!(" (ria-coordinator route approve {name} NETWORK)"),
            ),
            (
                "gateway-lan-missing",
                Severity::Warning,
                missing,
                "approved, but on none of this machine's interfaces: ".to_owned(),
                String::new(),
            ),
        ];
        for (code, severity, networks, before, after) in told {
            self.changed |= if networks.is_empty() {
                network.conditions.clear(code)
            } else {
                network.conditions.set(code, severity, format!("{before}{}{after}", networks.join(", ")))
            };
        }
        forwards
    }
}
