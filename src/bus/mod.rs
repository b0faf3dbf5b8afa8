//! The agent behind the local API: passes calls on to the daemon's loop and its changes on to the clients.
//!
//! Holds no state of the agent. Finds networks and peers by what people call them, and judges arguments.

mod lookup;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ria_api::environment::DOMAIN_VARIABLE;
use ria_api::error::ApiError;
use ria_api::server::{Backend, Caller, Notice, Probe, Server, serve_on_bus};
use ria_api::state::{
    AgentStatus, JoinOptions, Joined, NetworkReport, NetworkStatus, PeerKind, PeerStatus, PingReply,
};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::join_key::JoinKey;
use ria_protocol::name::Name;
use tokio::sync::{Semaphore, broadcast};
use tracing::info;

use crate::daemon::demand;
use crate::daemon::handle::{DaemonHandle, NetworkView, PingPlan, State};
use crate::dds::Profiles;

/// Notices that a slow client may lag behind before it is told that it has missed some.
const BACKLOG: usize = 256;

/// Pings that run at the same time; each may take long.
const PINGS_AT_ONCE: usize = 128;

/// Bounds of a ping.
const MAX_COUNT: u32 = 1000;
const SECONDS: std::ops::RangeInclusive<f64> = 0.01..=3600.0;
const LONGEST: f64 = 3600.0;

/// Serves the local API until the daemon's loop ends: on the private socket, and on the system bus where that is
/// wanted and possible.
pub async fn serve(server: Server, handle: DaemonHandle, profiles: Profiles, on_system_bus: bool) {
    let notices = broadcast::Sender::new(BACKLOG);
    let pings = Semaphore::new(PINGS_AT_ONCE);
    let backend = Arc::new(LocalApi { handle: handle.clone(), notices: notices.clone(), profiles, pings });
    let reports = handle.clone();
    let on_bus = serve_on_bus(None, backend.clone(), move |state| reports.note_bus(state));
    tokio::select! {
        () = server.run(backend) => {}
        () = on_bus, if on_system_bus => {}
        () = watch::pass_on(&handle, &notices) => {}
    }
}

struct LocalApi {
    handle: DaemonHandle,
    notices: broadcast::Sender<Notice>,
    profiles: Profiles,
    pings: Semaphore,
}

impl LocalApi {
    /// A peer that answers probes; in an on-demand network also one that is not held yet.
    async fn find(&self, network: NetworkId, wanted: &str) -> Result<NodeId, ApiError> {
        let found = || self.with_network(network, |_, view| probed(view, lookup::peer(view, wanted)?));
        let unknown = match found().await {
            Err(unknown @ ApiError::NoSuchPeer(_)) => unknown,
            other => return other,
        };
        let Some(sought) = demand::sought(wanted) else { return Err(unknown) };
        match self.handle.seek(network, sought).await {
            Ok(()) => found().await,
            Err(ApiError::NoSuchPeer(_)) => Err(unknown),
            Err(other) => Err(other),
        }
    }

    /// Does something with one network as it is now.
    async fn with_network<T>(
        &self,
        id: NetworkId,
        work: impl FnOnce(&State, &NetworkView) -> Result<T, ApiError> + Send,
    ) -> Result<T, ApiError> {
        let state = self.handle.state().await?;
        let network = state.networks.get(&id).ok_or_else(|| lookup::no_network(&state, id))?;
        work(&state, network)
    }
}

#[async_trait]
impl Backend for LocalApi {
    async fn agent_status(&self) -> Result<AgentStatus, ApiError> {
        Ok(self.handle.state().await?.agent.clone())
    }

    async fn join(&self, key: JoinKey, options: JoinOptions, caller: Caller) -> Result<Joined, ApiError> {
        if let Some(name) = &options.name {
            name.parse::<Name>().map_err(|error| ApiError::InvalidArgument(error.to_string()))?;
        }
        info!(by = %Shown(&caller), key = %key.key_id, "asked to join a network");
        self.handle.join(key, options, caller.into()).await
    }

    async fn network_status(&self, network: NetworkId) -> Result<NetworkStatus, ApiError> {
        self.with_network(network, |_, view| Ok(view.status.clone())).await
    }

    async fn peers(&self, network: NetworkId) -> Result<Vec<PeerStatus>, ApiError> {
        self.with_network(network, |_, view| Ok(view.peers.iter().map(|(_, p)| p.clone()).collect())).await
    }

    async fn ping(&self, network: NetworkId, peer: &str, probe: Probe) -> Result<Vec<PingReply>, ApiError> {
        let plan = plan(probe)?;
        let _turn = self.pings.try_acquire().map_err(|_| {
            ApiError::Failed(format!(
                "{PINGS_AT_ONCE} pings are running already; try again when some have ended"
            ))
        })?;
        let id = self.find(network, peer).await?;
        self.handle.ping(network, id, plan).await
    }

    async fn netcheck(&self, network: NetworkId) -> Result<NetworkReport, ApiError> {
        self.with_network(network, |_, _| Ok(())).await?;
        self.handle.netcheck(network).await
    }

    async fn environment(&self, network: NetworkId) -> Result<BTreeMap<String, String>, ApiError> {
        self.with_network(network, |_, view| {
            let mut variables = self.profiles.environment();
            let domain =
                view.status.ros_domain.map(|domain| (DOMAIN_VARIABLE.to_owned(), domain.to_string()));
            variables.extend(domain);
            Ok(variables)
        })
        .await
    }

    async fn leave(&self, network: NetworkId, caller: Caller) -> Result<(), ApiError> {
        self.with_network(network, |_, _| Ok(())).await?;
        info!(by = %Shown(&caller), %network, "asked to leave a network");
        self.handle.leave(network, caller.into()).await
    }

    async fn set_enabled(&self, network: NetworkId, enabled: bool, caller: Caller) -> Result<(), ApiError> {
        self.with_network(network, |_, _| Ok(())).await?;
        info!(by = %Shown(&caller), %network, enabled, "asked to switch a network");
        self.handle.set_enabled(network, enabled, caller.into()).await
    }

    async fn set_url(&self, network: NetworkId, url: &str, caller: Caller) -> Result<(), ApiError> {
        self.with_network(network, |_, _| Ok(())).await?;
        info!(by = %Shown(&caller), %network, "told where the coordinator is");
        self.handle.set_url(network, url.to_owned(), caller.into()).await
    }

    async fn rotate_key(&self, network: NetworkId, caller: Caller) -> Result<(), ApiError> {
        self.with_network(network, |_, _| Ok(())).await?;
        info!(by = %Shown(&caller), %network, "asked for another WireGuard key");
        self.handle.rotate_key(network, caller.into()).await
    }

    fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}

/// Who asked, for the log: `uid 0 (root, login alice), ria 4711, socket`.
struct Shown<'a>(&'a Caller);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Caller { uid, pid, via, names, .. } = self.0;
        let (user, program) =
            (names.user.as_deref().unwrap_or("?"), names.program.as_deref().unwrap_or("process"));
        write!(f, "uid {uid} ({user}")?;
        if let Some(login) = &names.login {
            write!(f, ", login {login}")?;
        }
        write!(f, "), {program} {pid}, {}", via.as_str())
    }
}

/// A peer that answers probes.
fn probed(view: &NetworkView, id: NodeId) -> Result<NodeId, ApiError> {
    match view.peers.iter().find(|(node, _)| *node == id) {
        Some((_, peer)) if peer.kind == PeerKind::Static => {
            let address = peer.addresses.first().map_or("", String::as_str);
            Err(ApiError::Failed(format!(
                "{} runs stock WireGuard, which answers no probes; send it packets instead: ping {address}",
                peer.name
            )))
        }
        Some(_) | None => Ok(id),
    }
}

fn plan(probe: Probe) -> Result<PingPlan, ApiError> {
    let wrong =
        |what: &str, bounds: &str| ApiError::InvalidArgument(format!("{what} must be between {bounds}"));
    if !(1..=MAX_COUNT).contains(&probe.count) {
        return Err(wrong("the number of probes", "1 and 1000"));
    }
    if f64::from(probe.count) * probe.interval > LONGEST {
        return Err(ApiError::InvalidArgument("all probes together may take an hour at most".into()));
    }
    let time = |what, seconds: f64| {
        if SECONDS.contains(&seconds) {
            Ok(Duration::from_secs_f64(seconds))
        } else {
            Err(wrong(what, "0.01 and 3600 seconds"))
        }
    };
    Ok(PingPlan {
        count: probe.count,
        interval: time("the interval", probe.interval)?,
        timeout: time("the timeout", probe.timeout)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsensical_pings_are_refused_with_the_bounds() {
        let fine = Probe { count: 1, interval: 1.0, timeout: 2.0 };
        assert!(plan(fine).is_ok());
        for bad in [
            Probe { count: 0, ..fine },
            Probe { count: 1001, ..fine },
            Probe { interval: f64::NAN, ..fine },
            Probe { count: 1000, interval: 3600.0, ..fine },
            Probe { interval: 0.0, ..fine },
            Probe { timeout: f64::INFINITY, ..fine },
            Probe { timeout: -1.0, ..fine },
        ] {
            assert!(
                matches!(plan(bad), Err(ApiError::InvalidArgument(t)) if t.contains("between") || t.contains("hour")),
                "{bad:?}"
            );
        }
    }
}
