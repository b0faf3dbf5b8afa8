//! How members reach each other: the topology, live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use ria_protocol::links::LinkPath;
use ria_protocol::name::Name;

use super::drawing::{self, Dot, Line, latency};
use super::frame::{Fields, Frame, Visitor, field};
use super::read::answer;
use super::rows::now;
use crate::admin::api::{NetworkView, NodeView, Problem};
use crate::admin::api_links::{HistoryView, LinkEndView, LinkView};
use crate::admin::client::escaped;
use crate::duration::{shown, shown_relative};
use crate::rest::gate::Gate;

/// Links that are told one by one.
const MOST_ROWS: usize = 500;

struct LinkRow {
    a: Name,
    a_id: String,
    b: Name,
    b_id: String,
    path: String,
    class: &'static str,
    rtt: String,
    relay: String,
    since: String,
}

impl LinkRow {
    fn of(link: &LinkView) -> Self {
        let differs = |end: &Option<LinkEndView>| end.as_ref().is_some_and(|end| end.path != link.path);
        let back = if differs(&link.from_a) || differs(&link.from_b) { ", the other way " } else { "" };
        let other = [&link.from_a, &link.from_b].into_iter().flatten().find(|end| end.path != link.path);
        let other = other.filter(|_| !back.is_empty()).map(|end| words(end.path)).unwrap_or_default();
        Self {
            a: link.a.clone(),
            a_id: link.a_id.to_string(),
            b: link.b.clone(),
            b_id: link.b_id.to_string(),
            path: format!("{}{back}{other}", words(link.path)),
            class: match link.path {
                LinkPath::Direct => "on",
                LinkPath::RelayUdp | LinkPath::RelayTls => "wait",
                LinkPath::None => "off",
            },
            rtt: link.rtt_ms.map_or_else(|| "–".to_owned(), latency),
            relay: link.relay.clone().unwrap_or_else(|| "–".to_owned()),
            since: shown_relative(link.since, now()),
        }
    }
}

const fn words(path: LinkPath) -> &'static str {
    match path {
        LinkPath::None => "no path",
        LinkPath::Direct => "direct",
        LinkPath::RelayUdp => "over a relay",
        LinkPath::RelayTls => "over a relay by TLS",
    }
}

struct Drawn {
    name: String,
    summary: String,
    drawing: String,
    rows: Vec<LinkRow>,
    more: usize,
}

#[derive(Template)]
#[template(path = "topology.html")]
struct Topology {
    frame: Frame,
    network: String,
    node: String,
    nodes: Vec<String>,
    networks: Vec<Drawn>,
}

pub(super) async fn topology(
    State(gate): State<Arc<Gate>>,
    visitor: Visitor,
    Query(query): Query<Fields>,
) -> Response {
    let made = async {
        let (network, node) = (field(&query, "network").to_owned(), field(&query, "node").to_owned());
        let networks: Vec<NetworkView> = gate.get(&visitor.who, "/v1/networks").await?;
        let nodes: Vec<NodeView> = gate.get(&visitor.who, "/v1/nodes").await?;
        let links = links(&gate, &visitor, (&network, &node)).await?;
        let is_shown = |one: &&NetworkView| network.is_empty() || one.name.as_str() == network;
        let of = |one: &NetworkView| {
            let own: Vec<&LinkView> = links.iter().filter(|link| link.network == one.name).collect();
            drawn(one.name.as_str(), &nodes, &own)
        };
        Ok(Topology {
            frame: visitor.live_frame("Topology", "topology"),
            networks: networks.iter().filter(is_shown).map(of).collect(),
            nodes: nodes
                .iter()
                .map(|node| node.name.to_string())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            network,
            node,
        })
    };
    answer(&visitor, made.await)
}

async fn links(
    gate: &Gate,
    visitor: &Visitor,
    (network, node): (&str, &str),
) -> Result<Vec<LinkView>, Problem> {
    let wanted = [("network", network), ("node", node)].into_iter().filter(|(_, value)| !value.is_empty());
    let query: Vec<String> = wanted.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    gate.get(&visitor.who, &format!("/v1/links?{}", query.join("&"))).await
}

fn drawn(network: &str, nodes: &[NodeView], links: &[&LinkView]) -> Drawn {
    let online: BTreeMap<&Name, bool> =
        nodes.iter().filter(|n| n.network.as_str() == network).map(|n| (&n.name, n.online)).collect();
    let names: BTreeSet<&Name> = links.iter().flat_map(|link| [&link.a, &link.b]).collect();
    let names: Vec<&Name> = names.into_iter().collect();
    let dots: Vec<Dot<'_>> = names
        .iter()
        .map(|name| Dot { name: name.as_str(), online: online.get(*name).copied().unwrap_or(false) })
        .collect();
    let place = |name: &Name| names.binary_search(&name).unwrap_or(0);
    let line = |link: &&LinkView| Line {
        between: (place(&link.a), place(&link.b)),
        path: link.path,
        rtt: link.rtt_ms,
    };
    let lines: Vec<Line> = links.iter().map(line).collect();
    let count = |is: fn(LinkPath) -> bool| links.iter().filter(|link| is(link.path)).count();
    let direct = count(|path| path == LinkPath::Direct);
    let none = count(|path| path == LinkPath::None);
    let relayed = links.len() - direct - none;
    let summary = format!(
        "{} {}: {direct} direct, {relayed} over a relay, {none} without a path",
        links.len(),
        if links.len() == 1 { "link" } else { "links" }
    );
    Drawn {
        name: network.to_owned(),
        drawing: drawing::mesh(
            &dots,
            &lines,
            &format!("Links of {network}. {summary}; the table below has each"),
        ),
        summary,
        rows: links.iter().take(MOST_ROWS).map(|link| LinkRow::of(link)).collect(),
        more: links.len().saturating_sub(MOST_ROWS),
    }
}

/// What has happened on a node, as its page tells it.
pub(super) struct Happened {
    pub time: String,
    pub what: String,
}

impl Happened {
    /// The latest first.
    pub fn all(history: &[HistoryView]) -> Vec<Self> {
        let row = |entry: &HistoryView| Self { time: shown(entry.time), what: entry.text() };
        history.iter().rev().map(row).collect()
    }
}
