//! Live events (SSE): what changed, as soon as it did, for as long as somebody listens and may.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Method};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::name::Name;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::caller::{ClientAddress, who_asks};
use super::gate::{Gate, Who, refuse};
use crate::admin::api::ProblemCode;
use crate::links::board::Changed;
use crate::state::World;
use crate::state::people::{Area, Role};

/// Listeners at a time; each costs a connection.
static LISTENERS: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(MOST_LISTENERS)));
const MOST_LISTENERS: usize = 128;
/// A listener comes back after so long, and is asked again who it is.
const LIFE: Duration = Duration::from_secs(3600);
/// What happens at once is told at once.
const GATHERED: Duration = Duration::from_millis(150);
/// Proxies and browsers end connections that are silent.
const KEPT_ALIVE: Duration = Duration::from_secs(15);

/// What was told last of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    name: Name,
    revision: u64,
    waiting: usize,
    nodes: BTreeMap<NodeId, (Name, bool)>,
}

struct Listener {
    gate: Arc<Gate>,
    who: Who,
    world: watch::Receiver<Arc<World>>,
    presence: watch::Receiver<u64>,
    links: watch::Receiver<u64>,
    /// The last change of links that was told.
    link: u64,
    told: Option<(u64, BTreeMap<NetworkId, Told>)>,
    ends: Instant,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn stream(
    State(gate): State<Arc<Gate>>,
    Extension(from): Extension<ClientAddress>,
    headers: HeaderMap,
) -> Response {
    let who = match who_asks(&gate, &Method::GET, &headers, from).await {
        Ok(who) => who,
        Err(problem) => return super::unauthorised(problem),
    };
    if who.reach(Area::Nodes, false, Role::Viewer).is_none() {
        return refuse(ProblemCode::NotPermitted, "this takes the role viewer and the scope nodes:read")
            .into_response();
    }
    let Ok(permit) = LISTENERS.clone().try_acquire_owned() else {
        return refuse(ProblemCode::Unavailable, "too many listen already; try again later").into_response();
    };
    let services = &gate.admin.services;
    let listener = Listener {
        world: services.registry.watch(),
        presence: services.hub.watch(),
        links: services.links.watch(),
        link: 0,
        who,
        told: None,
        ends: Instant::now() + LIFE,
        _permit: permit,
        gate: gate.clone(),
    };
    let keep = KeepAlive::new().interval(KEPT_ALIVE);
    let mut response = Sse::new(events(listener)).keep_alive(keep).into_response();
    // Proxies that gather answers would hold them back.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

fn events(listener: Listener) -> impl Stream<Item = Result<Event, Infallible>> {
    let batches = stream::unfold(listener, |mut listener| async move {
        let batch = listener.next().await?;
        Some((stream::iter(batch.into_iter().map(Ok)), listener))
    });
    futures_util::StreamExt::flatten(batches)
}

impl Listener {
    /// The next events; `None` when the listener has to come back, or may listen no more.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            if self.told.is_some() {
                let draining = self.gate.admin.services.draining.clone();
                let news = async {
                    tokio::select! {
                        changed = self.world.changed() => changed.is_ok(),
                        changed = self.presence.changed() => changed.is_ok(),
                        changed = self.links.changed() => changed.is_ok(),
                        () = draining.cancelled() => false,
                    }
                };
                if !timeout_at(self.ends, news).await.unwrap_or(false) {
                    return None;
                }
                sleep(GATHERED).await;
            }
            let events = self.look().await?;
            if !events.is_empty() {
                return Some(events);
            }
        }
    }

    async fn look(&mut self) -> Option<Vec<Event>> {
        let world = self.world.borrow_and_update().clone();
        self.presence.borrow_and_update();
        self.links.borrow_and_update();
        // Whoever may not any more hears nothing more.
        let user = world.people.users.get(&self.who.user.name)?;
        let may = match &self.who.token {
            Some((id, _)) => user.disabled.is_none() && world.people.tokens.contains_key(id),
            None => user.is_active() && user.era == self.who.user.era,
        };
        if !may {
            return None;
        }
        self.who.user = user.clone();
        let reach = self.who.reach(Area::Nodes, false, Role::Viewer)?;
        let hears_audit = self.who.reach(Area::Audit, false, Role::Admin).is_some();
        let presence = self.gate.admin.services.hub.presence().await.ok()?;
        let online = |network, node| presence.get(&(network, node)).is_some_and(|known| known.online);
        let (link, links) = self.gate.admin.services.links.since(self.link).await.ok()?;
        self.link = link;
        let head = world.audit_head.seq;
        let now: BTreeMap<NetworkId, Told> = world
            .within(&reach)
            .networks
            .values()
            .map(|network| {
                let id = network.info.id;
                let node = |m: &crate::state::MemberEntry| (m.node, (m.name.clone(), online(id, m.node)));
                let told = Told {
                    name: network.info.name.clone(),
                    revision: network.revision.0,
                    waiting: network.waiting.len(),
                    nodes: network.members.values().map(|member| node(member)).collect(),
                };
                (id, told)
            })
            .collect();
        let mut events = Vec::new();
        match &self.told {
            None => events.push(named("hello", &json!({ "version": env!("CARGO_PKG_VERSION") }))),
            Some((seq, before)) => {
                differences(before, &now, &mut events);
                events.extend(links.iter().filter_map(|changed| link_event(&now, changed)));
                if hears_audit && *seq != head {
                    events.push(named("audit", &json!({ "seq": head })));
                }
            }
        }
        self.told = Some((head, now));
        Some(events)
    }
}

fn named(name: &str, data: &serde_json::Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

fn differences(before: &BTreeMap<NetworkId, Told>, now: &BTreeMap<NetworkId, Told>, events: &mut Vec<Event>) {
    for (id, told) in now {
        let was = before.get(id);
        if was.is_none_or(|was| was.revision != told.revision || was.waiting != told.waiting) {
            let data = json!({ "network": told.name, "revision": told.revision, "waiting": told.waiting });
            events.push(named("network", &data));
        }
        for (node, (name, online)) in &told.nodes {
            if was.and_then(|was| was.nodes.get(node)).is_none_or(|(_, before)| before != online) {
                let data = json!({ "network": told.name, "node": node, "name": name, "online": online });
                events.push(named("presence", &data));
            }
        }
    }
    for (_, gone) in before.iter().filter(|(id, _)| !now.contains_key(*id)) {
        events.push(named("network", &json!({ "network": gone.name, "gone": true })));
    }
}

/// A change of links, for somebody who has to do with these networks.
fn link_event(now: &BTreeMap<NetworkId, Told>, changed: &Changed) -> Option<Event> {
    let told = now.get(&changed.network())?;
    let name = |node: &NodeId| told.nodes.get(node).map(|(name, _)| name);
    Some(match changed {
        Changed::Link { node, peer, path, rtt, .. } => {
            let rtt_ms = rtt.map(|rtt| f64::from(rtt) / 1000.0);
            let data = json!({
                "network": told.name, "node": node, "name": name(node), "peer": peer, "peer_name": name(peer),
                "path": path, "rtt_ms": rtt_ms,
            });
            named("link", &data)
        }
        Changed::Links { node, .. } => {
            named("link", &json!({ "network": told.name, "node": node, "name": name(node) }))
        }
        Changed::Uplink { node, .. } => {
            named("uplink", &json!({ "network": told.name, "node": node, "name": name(node) }))
        }
    })
}
