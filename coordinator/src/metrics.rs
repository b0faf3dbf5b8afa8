//! Figures for Prometheus, in its text format: what the coordinator and its relay have to do. They name networks and relays,
//! never nodes or people.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ria_protocol::time::UnixTime;
use ria_service::exposition::{CONTENT, Exposition, Kind};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admission::Line;
use crate::hub::Present;
use crate::relay::{RelayCounters, RelayHandle};
use crate::session::Services;
use crate::state::World;
use crate::state::relay::RelayKind;

/// A relay's figures, of the coordinator's own or of one that runs by itself.
pub fn relay(out: &mut Exposition, counters: &RelayCounters) {
    use Kind::{Counter, Gauge};
    out.single(("ria_relay_allocations", Gauge), "Allocations now.", counters.allocations);
    out.single(("ria_relay_streams", Gauge), "Clients over TCP or TLS now.", counters.streams);
    out.single(("ria_relay_packets_total", Counter), "Packets relayed.", counters.relayed_packets);
    out.single(("ria_relay_bytes_total", Counter), "Bytes relayed.", counters.relayed_bytes);
    out.single(("ria_relay_requests_total", Counter), "STUN and TURN requests.", counters.requests);
    out.single(("ria_relay_refusals_total", Counter), "Requests refused.", counters.refusals);
    let drops = counters.drops.iter().map(|(reason, count)| (reason.name(), *count));
    out.family(("ria_relay_dropped_total", Counter), "Datagrams that went nowhere.", "reason", drops);
}

/// Which version runs.
pub fn build(out: &mut Exposition) {
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    out.family(("ria_build_info", Kind::Gauge), "The version that runs.", "version", version);
}

/// All figures of a coordinator. `None` when it is stopping.
pub async fn coordinator(services: &Services) -> Option<String> {
    let present = services.hub.present().await.ok()?;
    let world = services.registry.world();
    let mut out = Exposition::default();
    build(&mut out);
    networks(&mut out, &world, &present);
    use Kind::{Counter, Gauge};
    let writable = u64::from(services.registry.is_writable());
    out.single(("ria_storage_writable", Gauge), "1 while changes can be stored.", writable);
    let errors = services.registry.store_errors();
    out.single(("ria_storage_errors_total", Counter), "Changes that could not be stored.", errors);
    out.single(("ria_audit_rows_total", Counter), "Rows of the audit log.", world.audit_head.seq);
    let (malformed, lagged) = (services.counters.malformed(), services.counters.lagged());
    out.single(
        ("ria_malformed_messages_total", Counter),
        "Messages of nodes that could not be read.",
        malformed,
    );
    out.single(
        ("ria_lagged_sessions_total", Counter),
        "Sessions closed because a node read too slowly.",
        lagged,
    );
    admission(&mut out, services);
    upkeep(&mut out, services);
    let refused = services.counters.joins_refused.load(Ordering::Relaxed);
    let help = "Nodes that wanted to join and were not admitted.";
    out.single(("ria_joins_refused_total", Counter), help, refused);
    let logins = &services.logins;
    out.single(
        ("ria_login_failures_total", Counter),
        "Wrong passwords, codes, links and tokens.",
        logins.guard.failures(),
    );
    let sessions = logins.sessions.count(UnixTime::from(SystemTime::now())).await.unwrap_or_default();
    out.single(("ria_page_sessions", Gauge), "People's sessions now.", sessions as u64);
    let up = |relay: &crate::state::relay::RelayEntry| {
        services.relays.presences.of(&relay.name).is_some_and(|known| known.connected)
    };
    let standalone = world.relays.iter().filter(|relay| matches!(relay.kind, RelayKind::Standalone(_)));
    let standalone = standalone.map(|relay| (relay.name.as_str(), u64::from(up(relay))));
    out.family(
        ("ria_relay_connected", Gauge),
        "1 while a stand-alone relay is connected.",
        "relay",
        standalone,
    );
    if let Some(counters) = services.relays.counters() {
        relay(&mut out, &counters);
    }
    Some(out.finish())
}

/// Who comes, and has to wait.
fn admission(out: &mut Exposition, services: &Services) {
    use Kind::{Counter, Gauge};
    let lines = services.admission.lines();
    let of = |figure: fn(&Line) -> u64| lines.map(|(name, line)| (name, figure(line)));
    let at_work = of(|line| line.at_work() as u64);
    out.family(("ria_admission_at_work", Gauge), "Handshakes and resumes under way.", "line", at_work);
    let waiting = of(|line| line.waiting() as u64);
    out.family(("ria_admission_waiting", Gauge), "Those that wait for their turn.", "line", waiting);
    let away = of(Line::turned_away);
    out.family(("ria_admission_turned_away_total", Counter), "Those told to come again.", "line", away);
    let refused = services.counters.refused.load(Ordering::Relaxed);
    let help = "Connections closed at once: too many had not shown yet whose they are.";
    out.single(("ria_connections_refused_total", Counter), help, refused);
}

fn upkeep(out: &mut Exposition, services: &Services) {
    let last = services.counters.last_backup.load(Ordering::Relaxed);
    let help = "When the last scheduled backup was made, seconds since 1970; 0: none was.";
    out.single(("ria_backup_timestamp_seconds", Kind::Gauge), help, last);
    let ends = services.counters.page_certificate_ends.load(Ordering::Relaxed);
    let help = "When the certificate of the pages ends, seconds since 1970; 0: it is the own authority's.";
    out.single(("ria_pages_certificate_expiry_timestamp_seconds", Kind::Gauge), help, ends);
    let hidden = services.counters.behind_bridge.load(Ordering::Relaxed);
    let help = "1 while all nodes seem to come from this machine's gateway, as behind a container's bridge.";
    out.single(("ria_behind_bridge", Kind::Gauge), help, u64::from(hidden));
    let failing = services.counters.backup_failing.load(Ordering::Relaxed);
    let help = "1 while a backup that is due can't be made.";
    out.single(("ria_backup_failing", Kind::Gauge), help, u64::from(failing));
}

fn networks(out: &mut Exposition, world: &World, present: &Present) {
    let count = |wanted: &dyn Fn(&crate::state::Network) -> u64| -> Vec<(String, u64)> {
        world.networks.values().map(|network| (network.info.name.to_string(), wanted(network))).collect()
    };
    let mut family = |name: &str, help: &str, wanted: &dyn Fn(&crate::state::Network) -> u64| {
        let figures = count(wanted);
        let figures = figures.iter().map(|(network, figure)| (network.as_str(), *figure));
        out.family((name, Kind::Gauge), help, "network", figures);
    };
    family("ria_nodes", "Members.", &|n| n.members.len() as u64);
    family("ria_nodes_connected", "Members that are connected.", &|n| {
        n.members.keys().filter(|node| present.online.contains(&(n.info.id, **node))).count() as u64
    });
    family("ria_nodes_waiting", "Nodes that wait for approval.", &|n| {
        n.waiting.values().filter(|entry| entry.rejected.is_none()).count() as u64
    });
    family("ria_static_peers", "Devices with stock WireGuard.", &|n| n.static_peers.len() as u64);
    family("ria_map_revision", "Revision of the map.", &|n| n.revision.0);
}

/// Serves figures and health without TLS and without a token, for a listener that only Prometheus should reach.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the listener for metrics failed");
    }
}

/// What the listener of a coordinator serves.
pub fn coordinator_router(services: Arc<Services>) -> Router {
    Router::new()
        .route("/metrics", get(answer))
        .merge(crate::web::health_routes(services.clone()))
        .with_state(services)
}

/// What the listener of a stand-alone relay serves.
pub fn relay_router(handle: RelayHandle) -> Router {
    let answer = move || {
        let mut out = Exposition::default();
        build(&mut out);
        relay(&mut out, &handle.counters());
        std::future::ready(([(CONTENT_TYPE, CONTENT)], out.finish()))
    };
    let health = || std::future::ready(([(CONTENT_TYPE, "application/json")], "{\"status\":\"ok\"}"));
    Router::new().route("/metrics", get(answer)).route("/healthz", get(health))
}

async fn answer(State(services): State<Arc<Services>>) -> Response {
    match coordinator(&services).await {
        Some(text) => ([(CONTENT_TYPE, CONTENT)], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut out = Exposition::default();
        out.family(("ria_x", Kind::Gauge), "X.", "network", [("lab", 3), ("a\"b\\\n", 4)]);
        out.single(("ria_y_total", Kind::Counter), "Y.", 5);
        let expected = "# HELP ria_x X.\n# TYPE ria_x gauge\nria_x{network=\"lab\"} 3\nria_x{network=\"a\\\"b\\\\\\n\"} 4\n\
                        # HELP ria_y_total Y.\n# TYPE ria_y_total counter\nria_y_total 5\n";
        assert_eq!(out.finish(), expected);
    }
}
