//! The admin socket's side of static peers: making them, giving them a gateway, and what their files have to say.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as UrlPath, Query};
use ria_protocol::keys::PresharedKey;
use ria_protocol::map::CandidateKind;
use ria_protocol::version::Protocol;

use super::api::{AddStatic, NodeView, Problem, ProblemCode, StaticPeerView, StaticView, StaticWay};
use super::desk::Shared;
use super::seen::Seen;
use super::server::{
    Answer, Body, By, NetworkFilter, choose_network, find_network, find_node, presence, problem,
};
use super::views::{self, PresenceTable};
use crate::registry::stock::{NewStaticPeer, StaticPeerError, StaticPeerRoute};
use crate::state::etag::Etag;
use crate::state::stock::StaticEntry;
use crate::state::{MemberEntry, Network, World};

impl From<StaticPeerError> for Problem {
    fn from(error: StaticPeerError) -> Self {
        match error {
            StaticPeerError::Unavailable(error) => error.into(),
            StaticPeerError::Changed(_) => problem(ProblemCode::Changed, error),
            StaticPeerError::NoNetwork | StaticPeerError::NoPeer | StaticPeerError::NoGateway => {
                problem(ProblemCode::NotFound, error)
            }
            StaticPeerError::NameTaken(_) | StaticPeerError::KeyTaken | StaticPeerError::NetworkFull => {
                problem(ProblemCode::Conflict, error)
            }
        }
    }
}

/// A static peer and its network.
type Found<'w> = (&'w Arc<Network>, &'w Arc<StaticEntry>);

/// The static peer of this name or identity, if there is one.
pub(super) fn find_static<'w>(
    world: &'w World,
    wanted: &str,
    network: Option<&str>,
) -> Result<Option<Found<'w>>, Problem> {
    let only = network.map(|network| find_network(world, network)).transpose()?;
    let networks = world.networks.values().filter(|n| only.is_none_or(|only| only.info.id == n.info.id));
    let is_it = |p: &&Arc<StaticEntry>| {
        p.name.as_str() == wanted || wanted.parse().is_ok_and(|id: ria_protocol::id::NodeId| p.node == id)
    };
    let mut found = networks.filter_map(|n| n.static_peers.values().find(is_it).map(|p| (n, p)));
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => Err(problem(
            ProblemCode::BadRequest,
            format!("several networks have a static peer {wanted:?}; name one with --network"),
        )),
        (one, _) => Ok(one),
    }
}

pub(super) async fn add_static(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<AddStatic>,
) -> Answer<StaticView> {
    let presence = presence(&admin).await?;
    let world = admin.world();
    let network = choose_network(&world, request.network.as_ref().map(ria_protocol::name::Name::as_str))?;
    // All that can be wrong is found before anything is made.
    let plan = Plan::make(&world, network, &request.way, &presence)?;
    let mut tags: Vec<String> = request.tags.into_iter().map(String::from).collect();
    tags.sort();
    tags.dedup();
    let new = NewStaticPeer {
        network: network.info.id,
        name: request.name,
        wg_key: request.public_key,
        tags,
        psk: psk(&request.way)?,
        gateway: plan.gateway.as_ref().map(|gateway| gateway.node),
        endpoint: request.listens_at,
        keepalive: Some(request.keepalive).filter(|seconds| *seconds > 0),
    };
    let entry = admin.services.registry.add_static_peer(new, actor).await?;
    let network = admin.services.registry.network(network.info.id).unwrap_or_else(|| network.clone());
    Ok(Json(plan.view(&network, &entry)))
}

pub(super) async fn set_gateway(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    axum::Extension(actor): By,
    Seen(seen): Seen,
    Body(way): Body<StaticWay>,
) -> Answer<StaticView> {
    let presence = presence(&admin).await?;
    let world = admin.world();
    let found = find_static(&world, &wanted, filter.network.as_deref())?;
    let (network, entry) = found.ok_or_else(|| problem(ProblemCode::NotFound, StaticPeerError::NoPeer))?;
    let plan = Plan::make(&world, network, &way, &presence)?;
    let route = StaticPeerRoute {
        network: network.info.id,
        node: entry.node,
        gateway: plan.gateway.as_ref().map(|gateway| gateway.node),
        psk: psk(&way)?,
        seen,
    };
    let entry = admin.services.registry.route_static_peer(route, actor).await?;
    let network = admin.services.registry.network(network.info.id).unwrap_or_else(|| network.clone());
    Ok(Json(plan.view(&network, &entry)))
}

pub(super) async fn remove_static(
    admin: &super::server::Admin,
    (network, entry): (&Arc<Network>, &Arc<StaticEntry>),
    seen: Option<Etag>,
    actor: crate::audit::Actor,
) -> Answer<NodeView> {
    let peer = (network.info.id, entry.node);
    let removed = admin.services.registry.remove_static_peer(peer, seen, actor).await?;
    Ok(Json(views::static_node(network, &removed)))
}

fn psk(way: &StaticWay) -> Result<Option<PresharedKey>, Problem> {
    let parse = |text: &String| text.parse().map_err(|e| problem(ProblemCode::BadRequest, e));
    way.psk.as_ref().map(parse).transpose()
}

/// Whom the device will talk to, and where.
struct Plan {
    gateway: Option<Arc<MemberEntry>>,
    peers: Vec<StaticPeerView>,
    notes: Vec<String>,
}

impl Plan {
    fn make(
        world: &World,
        network: &Arc<Network>,
        way: &StaticWay,
        presence: &PresenceTable,
    ) -> Result<Self, Problem> {
        let gateway = way.via.as_deref().map(|via| find_node(world, via, Some(network.info.name.as_str())));
        let gateway = gateway.transpose()?.map(|(_, member)| member.clone());
        let mut plan = Self { gateway, peers: Vec::new(), notes: Vec::new() };
        let named = Endpoints::parse(&way.endpoints)?;
        match plan.gateway.clone() {
            Some(gateway) => {
                let id = (network.info.id, gateway.node);
                if presence.get(&id).is_some_and(|p| p.online && p.protocol < Protocol::V2) {
                    let text =
                        format!("{}'s agent is too old to be a gateway; update it first", gateway.name);
                    return Err(problem(ProblemCode::Conflict, text));
                }
                let all = vec![network.info.prefix_v4, network.info.prefix_v6];
                if !plan.add(network, &gateway, all, &named, presence) {
                    return Err(problem(ProblemCode::NotReady, no_endpoint(&gateway)));
                }
            }
            None => {
                for member in network.active_members() {
                    let own = network.listed(member);
                    let own = own.record.open(network.info.id, &[]);
                    let own = own.map(|record| record.own_prefixes().collect()).unwrap_or_default();
                    if !plan.add(network, member, own, &named, presence) {
                        plan.notes.push(format!("{} is left out: {}", member.name, no_endpoint(member)));
                    }
                }
                if plan.peers.is_empty() {
                    let text = "no member has a known address, so the device could reach nobody; name a gateway with \
                                --via, or addresses with --endpoint MEMBER=HOST:PORT";
                    return Err(problem(ProblemCode::NotReady, text));
                }
                plan.notes.push(
                    "members that join later are not in this file; with a gateway (--via) it would never change"
                        .to_owned(),
                );
            }
        }
        Ok(plan)
    }

    /// Adds a member to the file; `false` when nobody knows where it is.
    fn add(
        &mut self,
        network: &Network,
        member: &MemberEntry,
        allowed: Vec<ria_protocol::prefix::Prefix>,
        named: &Endpoints,
        presence: &PresenceTable,
    ) -> bool {
        let candidates = presence.get(&(network.info.id, member.node)).map(|p| &p.candidates[..]);
        let known = known_endpoint(candidates.unwrap_or_default());
        let given = named.of(member.name.as_str(), self.gateway.is_some());
        let behind_nat = known.as_ref().and_then(|known| known.seen_as).filter(|_| given.is_none());
        let Some(endpoint) = given.or(known.map(|known| known.endpoint.to_string())) else { return false };
        if let Some(seen) = behind_nat {
            self.notes.push(format!(
                "{} is behind a NAT (its public address is {}): from outside its own network, have UDP port 41820 \
                 forwarded to it and name that address with --endpoint",
                member.name,
                seen.ip()
            ));
        }
        self.peers.push(StaticPeerView {
            name: member.name.clone(),
            wg_key: member.wg_key,
            endpoint,
            allowed,
        });
        true
    }

    fn view(self, network: &Network, entry: &StaticEntry) -> StaticView {
        StaticView {
            node: views::static_node(network, entry),
            mtu: network.info.mtu,
            listen_port: entry.endpoint.map(|endpoint| endpoint.port()),
            keepalive: entry.keepalive,
            peers: self.peers,
            notes: self.notes,
        }
    }
}

fn no_endpoint(member: &MemberEntry) -> String {
    format!(
        "where {} is reached is not known, since it was not connected after the coordinator's start; name its address \
         with --endpoint HOST:PORT",
        member.name
    )
}

/// Endpoints that an administrator names.
struct Endpoints(Vec<(Option<String>, String)>);

impl Endpoints {
    fn parse(texts: &[String]) -> Result<Self, Problem> {
        let parse = |text: &String| {
            let (member, endpoint) = match text.split_once('=') {
                Some((member, endpoint)) => (Some(member.to_owned()), endpoint),
                None => (None, text.as_str()),
            };
            let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
            let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
            let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let host_is_good =
                (plain && !host.is_empty()) || v6.is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
            if host_is_good && port.parse::<u16>().is_ok_and(|port| port != 0) {
                return Ok((member, endpoint.to_owned()));
            }
            let text = format!(
                "{text:?} is no endpoint; write HOST:PORT, such as 192.0.2.7:41820 or [2001:db8::7]:41820"
            );
            Err(problem(ProblemCode::BadRequest, text))
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// What was named for a member; an endpoint without a name is the gateway's.
    fn of(&self, member: &str, is_gateway: bool) -> Option<String> {
        let is_it = |named: &Option<String>| named.as_deref().map_or(is_gateway, |named| named == member);
        self.0.iter().find(|(named, _)| is_it(named)).map(|(_, endpoint)| endpoint.clone())
    }
}

/// Where a device reaches a member without anybody's help.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    endpoint: std::net::SocketAddr,
    /// What a server saw, when that is not an address of the member itself.
    seen_as: Option<std::net::SocketAddr>,
}

/// A public address of the member's own is good from everywhere; else one of its own network, since a NAT in front of
/// it lets nobody in who was not asked.
fn known_endpoint(candidates: &[ria_protocol::map::Candidate]) -> Option<Known> {
    let of = |kind| candidates.iter().filter(move |c| c.kind == kind).map(|c| c.address);
    let hosts = || of(CandidateKind::Host);
    let public = of(CandidateKind::ServerReflexive).find(|seen| hosts().any(|host| host == *seen));
    if let Some(endpoint) = public {
        return Some(Known { endpoint, seen_as: None });
    }
    let seen = of(CandidateKind::ServerReflexive).find(std::net::SocketAddr::is_ipv4);
    let host = hosts().find(std::net::SocketAddr::is_ipv4).or_else(|| hosts().next());
    let endpoint = host.or(seen)?;
    Some(Known { endpoint, seen_as: seen.filter(|seen| *seen != endpoint) })
}

#[cfg(test)]
mod tests {
    use ria_protocol::map::Candidate;

    use super::*;

    #[test]
    fn a_public_address_is_preferred_and_a_nat_is_noted() {
        let candidate = |kind, address: &str| Candidate { kind, address: address.parse().unwrap() };
        let lan = candidate(CandidateKind::Host, "192.168.1.5:41820");
        let public = candidate(CandidateKind::Host, "198.51.100.7:41820");
        let seen = |address| candidate(CandidateKind::ServerReflexive, address);
        let known = |candidates: &[Candidate]| {
            known_endpoint(candidates).map(|k| (k.endpoint.to_string(), k.seen_as.is_some()))
        };
        assert_eq!(
            known(&[lan, public, seen("198.51.100.7:41820")]),
            Some(("198.51.100.7:41820".into(), false))
        );
        assert_eq!(known(&[lan, seen("203.0.113.1:5000")]), Some(("192.168.1.5:41820".into(), true)));
        assert_eq!(known(&[lan]), Some(("192.168.1.5:41820".into(), false)));
        assert_eq!(known(&[]), None);
    }

    #[test]
    fn endpoints_are_checked_and_belong_to_whom_they_name() {
        let parse =
            |texts: &[&str]| Endpoints::parse(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        let named = parse(&["robot-1=lab.example:7", "192.0.2.7:41820", "arm=[2001:db8::7]:1"]).unwrap();
        assert_eq!(named.of("robot-1", false).unwrap(), "lab.example:7");
        assert_eq!(named.of("arm", false).unwrap(), "[2001:db8::7]:1");
        assert_eq!(named.of("other", true).unwrap(), "192.0.2.7:41820");
        assert_eq!(named.of("other", false), None);
        for bad in ["", "host", "host:0", ":5", "a b:5", "2001:db8::7:5x", "[::1:7", "h\nPostUp = x:5"] {
            assert!(parse(&[bad]).is_err(), "{bad:?}");
        }
    }
}
