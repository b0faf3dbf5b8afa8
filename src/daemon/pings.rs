//! Pings under way: numbers them for the engine and brings the outcomes back to who asked.

use std::collections::BTreeMap;

use ria_api::state::{PathKind, PingReply};
use ria_core::{PingId, PingOutcome};
use ria_protocol::id::{NetworkId, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::control::Input;
use super::handle::PingPlan;
use super::status::path_kind;

/// Outcomes that are waited for.
#[derive(Debug, Default)]
pub struct Pings {
    last: u64,
    waiting: BTreeMap<PingId, oneshot::Sender<PingOutcome>>,
}

impl Pings {
    /// A number for a new ping.
    pub fn begin(&mut self, reply: oneshot::Sender<PingOutcome>) -> PingId {
        self.last += 1;
        self.waiting.insert(PingId(self.last), reply);
        PingId(self.last)
    }

    /// A ping has ended.
    pub fn end(&mut self, id: PingId, outcome: PingOutcome) {
        if let Some(reply) = self.waiting.remove(&id) {
            // Whoever asked may have gone away.
            let _ = reply.send(outcome);
        }
    }
}

/// Sends the pings of a plan, each at its time whatever became of those before, and collects the answers.
pub async fn run(
    network: NetworkId,
    peer: NodeId,
    plan: PingPlan,
    inputs: mpsc::UnboundedSender<Input>,
) -> Vec<PingReply> {
    let mut sent = Vec::new();
    for number in 0..plan.count {
        if number > 0 {
            sleep(plan.interval).await;
        }
        let (reply, outcome) = oneshot::channel();
        if inputs.send(Input::StartPing { network, peer, timeout: plan.timeout, reply }).is_err() {
            break;
        }
        sent.push(outcome);
    }
    let mut replies = Vec::new();
    for (seq, outcome) in (1..).zip(sent) {
        replies.push(reply(seq, outcome.await.unwrap_or(PingOutcome::NoAnswer)));
    }
    replies
}

fn reply(seq: u32, outcome: PingOutcome) -> PingReply {
    match outcome {
        PingOutcome::Answered { rtt, path, endpoint } => PingReply {
            seq,
            ok: true,
            path: path_kind(path),
            endpoint: endpoint.to_string(),
            rtt: Some(rtt.as_secs_f64()),
        },
        PingOutcome::NoAnswer | PingOutcome::NoPath | PingOutcome::UnknownPeer | PingOutcome::NoAgent => {
            PingReply { seq, ok: false, path: PathKind::None, ..PingReply::default() }
        }
    }
}
