//! The reading services `~/ping`, `~/netcheck`, `~/get_peer` and `~/get_status`: asked from the agent at the time of the call.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt};
use r2r::ria_msgs::{msg, srv};
use r2r::{Node, QosProfile, ServiceRequest, WrappedServiceTypeSupport};
use ria_api::client::Agent;
use ria_api::state::{NetworkReport, PeerStatus, PingReply};
use tokio::sync::{Semaphore, watch};

use crate::constants::calls;
use crate::convert::{self, Own, Reporter};
use crate::link::{Absence, Current};
use crate::log;
use crate::outcome;
use crate::ros::RosClock;

/// Calls answered at the same time; more wait their turn.
const AT_ONCE: usize = 16;

/// How long a call waits for the node's first look for the agent: a little longer than an agent may take for its answer.
const FIRST_LOOK: Duration = Duration::from_secs(6);

/// How long an answer takes to leave.
const LINGER: Duration = Duration::from_millis(300);

/// How long a measurement may take.
pub const LONGEST_NETCHECK: Duration = Duration::from_secs(60);

/// What answering needs.
#[derive(Clone)]
pub struct Calls {
    /// The agent to ask.
    pub current: Current,
    /// For stamps.
    pub clock: RosClock,
    /// The node's name as long as the agent gives it none.
    pub fallback_name: Arc<str>,
    /// How many calls are under way that must not be interrupted.
    pub in_work: Arc<watch::Sender<usize>>,
}

/// A call that must not be interrupted, until this is dropped and a little longer: its answer is still on the way then.
pub struct Work(Arc<watch::Sender<usize>>);

impl Drop for Work {
    fn drop(&mut self) {
        let in_work = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            in_work.send_modify(|calls| *calls -= 1);
        });
    }
}

/// Requests of a service that one task answers.
pub type Requests<S> = Box<dyn Stream<Item = ServiceRequest<S>> + Unpin + Send>;

/// Answers one of them.
pub fn respond<S: WrappedServiceTypeSupport + 'static>(request: ServiceRequest<S>, response: S::Response) {
    if let Err(error) = request.respond(response) {
        log::warn(format!("can't answer a service call: {error}"));
    }
}

/// A request that went wrong before its answer.
pub type Failed = msg::CallResult;

impl Calls {
    /// The agent, or the answer that there is none. Services are there a moment before the node has looked for it.
    pub async fn agent(&self) -> Result<Agent, Failed> {
        let mut current = self.current.clone();
        let has_looked = |found: &Result<Agent, Absence>| !matches!(found, Err(a) if a.is_not_asked());
        // Whatever came of the waiting, what is known then is the answer.
        let _ = tokio::time::timeout(FIRST_LOOK, current.wait_for(has_looked)).await;
        let found = current.borrow().clone();
        found.map_err(|absence| outcome::no_agent(absence.text))
    }

    /// Begins a call that must not be interrupted.
    pub fn begin(&self) -> Work {
        self.in_work.send_modify(|calls| *calls += 1);
        Work(Arc::clone(&self.in_work))
    }

    fn reporter(&self, name: &str, id: &str) -> Reporter {
        Reporter { stamp: self.clock.now(), name: name.into(), id: id.into() }
    }
}

/// Creates the services and answers them in the background.
pub fn create(node: &mut Node, calls: &Calls) -> r2r::Result<()> {
    offer::<srv::Ping::Service, _>(node, "~/ping", calls, ping)?;
    offer::<srv::Netcheck::Service, _>(node, "~/netcheck", calls, netcheck)?;
    offer::<srv::GetPeer::Service, _>(node, "~/get_peer", calls, get_peer)?;
    offer::<srv::GetStatus::Service, _>(node, "~/get_status", calls, get_status)
}

/// Offers one service: requests are answered beside each other, a few at a time.
pub fn offer<S, F>(
    node: &mut Node,
    name: &str,
    calls: &Calls,
    handle: fn(Calls, S::Request) -> F,
) -> r2r::Result<()>
where
    S: WrappedServiceTypeSupport + 'static,
    S::Request: Clone + Send,
    S::Response: Send,
    F: Future<Output = S::Response> + Send + 'static,
{
    let requests = node.create_service::<S>(name, QosProfile::services_default())?;
    tokio::spawn(answer_all(requests, calls.clone(), handle));
    Ok(())
}

async fn answer_all<S, F>(
    mut requests: impl Stream<Item = ServiceRequest<S>> + Unpin + Send,
    calls: Calls,
    handle: fn(Calls, S::Request) -> F,
) where
    S: WrappedServiceTypeSupport + 'static,
    S::Request: Clone + Send,
    F: Future<Output = S::Response> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(request) = requests.next().await {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let calls = calls.clone();
        tokio::spawn(async move {
            let response = handle(calls, request.message.clone()).await;
            respond(request, response);
            drop(turn);
        });
    }
}

/// An empty name is none.
pub fn named(name: &str) -> Option<&str> {
    Some(name).filter(|n| !n.is_empty())
}

async fn ping(calls: Calls, asked: srv::Ping::Request) -> srv::Ping::Response {
    try_ping(&calls, &asked).await.unwrap_or_else(|result| srv::Ping::Response {
        result,
        rtt_min: f32::NAN,
        rtt_mean: f32::NAN,
        rtt_max: f32::NAN,
        ..srv::Ping::Response::default()
    })
}

async fn try_ping(calls: &Calls, asked: &srv::Ping::Request) -> Result<srv::Ping::Response, Failed> {
    let probes = Probes::of(asked)?;
    let agent = calls.agent().await?;
    let network = agent.network(named(&asked.network)).await.map_err(|e| outcome::of_error(&e))?;
    let status = network.proxy.status().await.map_err(|e| outcome::of_error(&e))?;
    let call = network.proxy.ping(&asked.peer, probes.count, probes.interval, probes.timeout);
    let replies = match tokio::time::timeout(probes.longest(), call).await {
        Ok(replies) => replies.map_err(|e| outcome::of_error(&e))?,
        Err(_) => {
            let text = "the agent did not finish the ping in time; look at its log (journalctl -u ria)";
            return Err(outcome::failed(calls::TIMED_OUT, "TimedOut", text));
        }
    };
    Ok(srv::Ping::Response {
        reporter: status.name,
        network: status.network,
        ..answered(&asked.peer, &replies)
    })
}

/// How to probe: what was asked for, or the defaults.
struct Probes {
    count: u32,
    interval: f64,
    timeout: f64,
}

impl Probes {
    fn of(asked: &srv::Ping::Request) -> Result<Self, Failed> {
        if asked.peer.is_empty() {
            return Err(outcome::invalid(
                "peer is empty: give the name, ROS name, id or overlay address of a peer",
            ));
        }
        if asked.count > 1000 {
            return Err(outcome::invalid(format!("count is at most 1000, not {}", asked.count)));
        }
        let seconds = |name: &str, value: f32, default: f64| match value {
            0.0 => Ok(default),
            v if (0.01..=60.0).contains(&v) => Ok(f64::from(v)),
            v => Err(outcome::invalid(format!("{name} is 0 (default) or from 0.01 to 60 seconds, not {v}"))),
        };
        Ok(Self {
            count: if asked.count == 0 { 3 } else { asked.count },
            interval: seconds("interval", asked.interval, 0.2)?,
            timeout: seconds("timeout", asked.timeout, 1.0)?,
        })
    }

    fn longest(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.count) * self.interval + self.timeout + 5.0)
    }
}

fn answered(peer: &str, replies: &[PingReply]) -> srv::Ping::Response {
    let rtts: Vec<f64> = replies.iter().filter(|r| r.ok).filter_map(|r| r.rtt).collect();
    let received = replies.iter().filter(|r| r.ok).count();
    let of = |value: fn(&[f64]) -> f64| if rtts.is_empty() { f32::NAN } else { value(&rtts) as f32 };
    let result = if received > 0 {
        outcome::done()
    } else {
        let text = format!("{peer} did not answer; see its link_state and path_reason on /overlay/peers");
        outcome::failed(calls::TIMED_OUT, "TimedOut", text)
    };
    srv::Ping::Response {
        result,
        sent: replies.len() as u32,
        received: received as u32,
        rtt_min: of(|r| r.iter().copied().fold(f64::INFINITY, f64::min)),
        rtt_mean: of(|r| r.iter().sum::<f64>() / r.len() as f64),
        rtt_max: of(|r| r.iter().copied().fold(0.0, f64::max)),
        probes: replies.iter().map(probe).collect(),
        ..srv::Ping::Response::default()
    }
}

fn probe(reply: &PingReply) -> msg::PingProbe {
    msg::PingProbe {
        seq: reply.seq,
        ok: reply.ok,
        rtt: convert::number(reply.rtt),
        path: convert::path(reply.path),
        endpoint: reply.endpoint.clone(),
    }
}

async fn netcheck(calls: Calls, asked: srv::Netcheck::Request) -> srv::Netcheck::Response {
    try_netcheck(&calls, &asked).await.unwrap_or_else(|result| srv::Netcheck::Response {
        result,
        report: convert::report(&NetworkReport::default()),
        ..srv::Netcheck::Response::default()
    })
}

async fn try_netcheck(
    calls: &Calls,
    asked: &srv::Netcheck::Request,
) -> Result<srv::Netcheck::Response, Failed> {
    /// What the definition calls the default, and a little for the way.
    const DEFAULT: f64 = 5.0;
    const MARGIN: f64 = 1.0;
    let patience = match asked.timeout {
        0.0 => DEFAULT + MARGIN,
        v if (0.01..=60.0).contains(&v) => f64::from(v),
        v => {
            return Err(outcome::invalid(format!(
                "timeout is 0 (default) or from 0.01 to 60 seconds, not {v}"
            )));
        }
    };
    measure(calls, &asked.network, Duration::from_secs_f64(patience)).await
}

/// Measures the network that this machine is in.
pub async fn measure(
    calls: &Calls,
    wanted: &str,
    patience: Duration,
) -> Result<srv::Netcheck::Response, Failed> {
    let agent = calls.agent().await?;
    let network = agent.network(named(wanted)).await.map_err(|e| outcome::of_error(&e))?;
    let status = network.proxy.status().await.map_err(|e| outcome::of_error(&e))?;
    let measured = tokio::time::timeout(patience, network.proxy.netcheck()).await;
    let report = match measured {
        Ok(report) => report.map_err(|e| outcome::of_error(&e))?,
        Err(_) => {
            let text = "the measurement takes longer; its result will be on /overlay/status";
            return Err(outcome::failed(calls::TIMED_OUT, "TimedOut", text));
        }
    };
    Ok(srv::Netcheck::Response {
        result: outcome::done(),
        reporter: status.name,
        report: convert::report(&report),
        findings: report.findings.iter().map(convert::condition).collect(),
    })
}

async fn get_peer(calls: Calls, asked: srv::GetPeer::Request) -> srv::GetPeer::Response {
    let empty = convert::peer(&PeerStatus::default());
    try_get_peer(&calls, &asked).await.unwrap_or_else(|result| srv::GetPeer::Response {
        result,
        peer: empty,
        ..srv::GetPeer::Response::default()
    })
}

async fn try_get_peer(
    calls: &Calls,
    asked: &srv::GetPeer::Request,
) -> Result<srv::GetPeer::Response, Failed> {
    let agent = calls.agent().await?;
    let network = agent.network(named(&asked.network)).await.map_err(|e| outcome::of_error(&e))?;
    let status = network.proxy.status().await.map_err(|e| outcome::of_error(&e))?;
    let peers = network.proxy.peers().await.map_err(|e| outcome::of_error(&e))?;
    let found = peers.iter().find(|p| is_called(p, &asked.peer)).ok_or_else(|| {
        let text = format!("the network {} has no other member \"{}\"", status.network, asked.peer);
        outcome::failed(calls::FAILED, "NoSuchPeer", text)
    })?;
    Ok(srv::GetPeer::Response {
        result: outcome::done(),
        stamp: calls.clock.now(),
        reporter: status.name,
        network: status.network,
        peer: convert::peer(found),
    })
}

fn is_called(peer: &PeerStatus, wanted: &str) -> bool {
    [&peer.name, &peer.ros_name, &peer.id].into_iter().chain(&peer.addresses).any(|name| name == wanted)
}

async fn get_status(calls: Calls, asked: srv::GetStatus::Request) -> srv::GetStatus::Response {
    match try_get_status(&calls, &asked).await {
        Ok(statuses) => srv::GetStatus::Response { result: outcome::done(), statuses },
        Err(result) => srv::GetStatus::Response { result, statuses: Vec::new() },
    }
}

async fn try_get_status(calls: &Calls, asked: &srv::GetStatus::Request) -> Result<Vec<msg::Status>, Failed> {
    let agent = calls.agent().await?;
    let status = agent.proxy().status().await.map_err(|e| outcome::of_error(&e))?;
    let own = Own { agent: Some(&status), conditions: &[] };
    if status.networks.is_empty() && asked.network.is_empty() {
        let name = named(&status.suggested_name).unwrap_or(&calls.fallback_name);
        return Ok(vec![convert::status_without_network(&calls.reporter(name, ""), own)]);
    }
    let mut paths: Vec<String> = status.networks.iter().map(|n| n.path.clone()).collect();
    if let Some(wanted) = named(&asked.network) {
        paths = vec![agent.network(Some(wanted)).await.map_err(|e| outcome::of_error(&e))?.summary.path];
    }
    let mut statuses = Vec::with_capacity(paths.len());
    for path in paths {
        let network = agent.network_at(&path).await.map_err(|e| outcome::of_error(&e))?;
        let network = network.status().await.map_err(|e| outcome::of_error(&e))?;
        let reporter = calls.reporter(&network.name, &network.node_id);
        statuses.push(convert::network_status(&network, &reporter, own));
    }
    Ok(statuses)
}

#[cfg(test)]
mod tests {
    use ria_api::state::PathKind;

    use super::*;

    fn asked(count: u32, interval: f32, timeout: f32) -> srv::Ping::Request {
        srv::Ping::Request {
            peer: "robot-2".into(),
            count,
            interval,
            timeout,
            ..srv::Ping::Request::default()
        }
    }

    #[test]
    fn zero_takes_the_default_and_nonsense_is_refused() {
        let probes = Probes::of(&asked(0, 0.0, 0.0)).unwrap();
        assert_eq!((probes.count, probes.interval, probes.timeout), (3, 0.2, 1.0));
        for bad in [asked(1001, 0.0, 0.0), asked(1, -1.0, 0.0), asked(1, f32::NAN, 0.0), asked(1, 0.0, 61.0)]
        {
            let refusal = Probes::of(&bad).map(|_| ()).unwrap_err();
            assert_eq!(refusal.code, calls::INVALID, "{bad:?}");
        }
    }

    #[test]
    fn a_missing_answer_is_reported_and_counts_in_no_mean() {
        let reply = |seq, rtt: Option<f64>| PingReply {
            seq,
            ok: rtt.is_some(),
            rtt,
            path: PathKind::Direct,
            ..PingReply::default()
        };
        let response = answered("robot-2", &[reply(1, Some(0.010)), reply(2, None), reply(3, Some(0.030))]);
        assert!(response.result.success);
        assert_eq!((response.sent, response.received, response.probes.len()), (3, 2, 3));
        assert!((response.rtt_mean - 0.020).abs() < 1e-6 && (response.rtt_min - 0.010).abs() < 1e-6);
        assert!(response.probes[1].rtt.is_nan() && !response.probes[1].ok);
    }

    #[test]
    fn a_ping_without_any_answer_timed_out() {
        let response = answered("robot-2", &[PingReply { seq: 1, ..PingReply::default() }]);
        assert_eq!(response.result.code, calls::TIMED_OUT);
        assert!(response.rtt_mean.is_nan() && response.result.message.contains("robot-2"));
    }

    #[test]
    fn a_peer_is_found_by_each_of_its_names() {
        let peer = PeerStatus {
            id: "n2".into(),
            name: "robot-2".into(),
            ros_name: "robot_2".into(),
            addresses: vec!["10.213.0.2".into()],
            ..PeerStatus::default()
        };
        for name in ["n2", "robot-2", "robot_2", "10.213.0.2"] {
            assert!(is_called(&peer, name), "{name}");
        }
        assert!(!is_called(&peer, "") && !is_called(&peer, "robot-3"));
    }
}
