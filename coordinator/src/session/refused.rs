//! Joins that are refused: counted, and kept in the audit log, so that it can be told who keeps trying, and by which key.

use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use ria_protocol::enrol::Enrol;
use ria_protocol::error::Refusal;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::{Peer, Services};
use crate::audit::{Actor, Event};
use crate::site::whole_site;

/// Notes that a node was not admitted. Nothing of what it says is proved, not even that it has a secret of the key.
pub(super) async fn note(services: &Services, peer: &Peer, request: &Enrol, refusal: &Refusal) {
    let (from, key, code) = (peer.address.ip(), request.key_id, refusal.code);
    services.counters.joins_refused.fetch_add(1, Ordering::Relaxed);
    tracing::info!(%code, %key, from = %from.to_canonical(), "a node was not admitted");
    let who = format!("join {}", whole_site(from));
    if !services.logins.guard.keeps_row(&who, Instant::now()) {
        return;
    }
    let known = services.registry.world().keys.get(&key).cloned();
    let event = Event {
        time: UnixTime::from(SystemTime::now()),
        actor: Actor::Stranger(from),
        action: "node.refused",
        network: known.as_ref().map(|known| known.network),
        subject: key.to_string(),
        detail: json!({ "code": code.to_string(), "key": key, "known_key": known.is_some(), "name": request.name }),
    };
    if let Err(error) = services.registry.record(event).await {
        tracing::debug!(%error, "a refused join is not in the audit log");
    }
}
