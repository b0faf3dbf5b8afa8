//! The admin socket's answers about links: how members reach each other, and what has happened on a node.

use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query};
use axum::routing::get;
use axum::{Json, Router};
use ria_protocol::id::NodeId;
use ria_protocol::links::{LinkPath, Uplink};
use ria_protocol::name::Name;
use serde::Deserialize;

use super::api_links::{HistoryKind, HistoryView, LinkEndView, LinkView, UplinkView};
use super::desk::Shared;
use super::server::{Admin, Answer, NetworkFilter, find_network, find_node};
use super::stock;
use crate::links::board::{End, Entry, Kept, Pair};
use crate::state::Network;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/v1/links", get(list_links)).route("/v1/nodes/{node}/history", get(show_history))
}

#[derive(Debug, Deserialize)]
struct Which {
    network: Option<String>,
    /// Only links of this node.
    node: Option<String>,
}

async fn list_links(Shared(admin): Shared, Query(which): Query<Which>) -> Answer<Vec<LinkView>> {
    let world = admin.world();
    let only =
        which.network.as_deref().map(|name| find_network(&world, name).map(|n| n.info.id)).transpose()?;
    let node =
        which.node.as_deref().map(|node| find_node(&world, node, which.network.as_deref())).transpose()?;
    let node = node.map(|(network, member)| (network.info.id, member.node));
    let mut all = Vec::new();
    for network in world.networks.values().filter(|n| only.is_none_or(|only| n.info.id == only)) {
        let id = network.info.id;
        if node.is_some_and(|(of, _)| of != id) {
            continue;
        }
        let pairs = admin.services.links.pairs(id).await?;
        let wanted = |pair: &&Pair| node.is_none_or(|(_, node)| pair.a == node || pair.b == node);
        all.extend(pairs.iter().filter(wanted).filter_map(|pair| link(network, pair)));
    }
    all.sort_by(|a, b| (&a.network, &a.a, &a.b).cmp(&(&b.network, &b.a, &b.b)));
    Ok(Json(all))
}

async fn show_history(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
) -> Answer<Vec<HistoryView>> {
    let world = admin.world();
    if stock::find_static(&world, &wanted, filter.network.as_deref())?.is_some() {
        // It tells nothing of itself.
        return Ok(Json(Vec::new()));
    }
    let (network, member) = find_node(&world, &wanted, filter.network.as_deref())?;
    let all = admin.services.links.history((network.info.id, member.node)).await?;
    Ok(Json(all.into_iter().map(|entry| happened(network, entry)).collect()))
}

/// A member's or a static peer's name.
fn name(network: &Network, node: NodeId) -> Option<&Name> {
    let member = network.members.get(&node).map(|member| &member.name);
    member.or_else(|| network.static_peers.get(&node).map(|peer| &peer.name))
}

/// `None` when one of the two is gone by now.
fn link(network: &Network, pair: &Pair) -> Option<LinkView> {
    let (one, other) = (name(network, pair.a)?, name(network, pair.b)?);
    let ends = [(pair.a, one, &pair.from_a), (pair.b, other, &pair.from_b)];
    let [(a_id, a, from_a), (b_id, b, from_b)] = if one <= other { ends } else { [ends[1], ends[0]] };
    let told: Vec<&End> = [from_a, from_b].into_iter().flatten().collect();
    let shown = told.iter().copied().max_by_key(|end| distance(end.path))?;
    Some(LinkView {
        network: network.info.name.clone(),
        a: a.clone(),
        a_id,
        b: b.clone(),
        b_id,
        path: shown.path,
        relay: shown.relay.as_deref().map(str::to_owned),
        rtt_ms: told.iter().filter_map(|end| end.rtt).max().map(millis),
        since: shown.since,
        from_a: from_a.as_ref().map(end),
        from_b: from_b.as_ref().map(end),
    })
}

/// How far a path is from direct.
const fn distance(path: LinkPath) -> u8 {
    match path {
        LinkPath::Direct => 0,
        LinkPath::RelayUdp => 1,
        LinkPath::RelayTls => 2,
        LinkPath::None => 3,
    }
}

fn end(end: &End) -> LinkEndView {
    LinkEndView {
        path: end.path,
        relay: end.relay.as_deref().map(str::to_owned),
        rtt_ms: end.rtt.map(millis),
        since: end.since,
    }
}

/// Microseconds as milliseconds.
fn millis(micros: u32) -> f64 {
    f64::from(micros) / 1000.0
}

fn happened(network: &Network, entry: Entry) -> HistoryView {
    let blank = HistoryView {
        time: entry.at,
        kind: HistoryKind::Path,
        peer: None,
        before: None,
        after: None,
        gap_ms: None,
        reason: String::new(),
        uplink: None,
    };
    match entry.what {
        Kept::Path { peer, before, after, gap, reason } => HistoryView {
            peer: Some(name(network, peer).map_or_else(|| peer.to_string(), ToString::to_string)),
            before: Some(before),
            after: Some(after),
            gap_ms: gap,
            reason: reason.to_string(),
            ..blank
        },
        Kept::Uplink(Uplink { interface, kind, ssid, access_point }) => HistoryView {
            kind: HistoryKind::Uplink,
            uplink: Some(UplinkView { interface, kind, ssid, access_point }),
            ..blank
        },
    }
}
