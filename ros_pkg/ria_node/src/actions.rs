//! The actions `~/netcheck` and, where control is allowed, `~/join`: the services of these names with feedback, and with an
//! end when the caller does not want to wait any more.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{Stream, StreamExt};
use r2r::ria_msgs::action::{Join, Netcheck};
use r2r::{
    ActionServerCancelRequest, ActionServerGoal, ActionServerGoalRequest, Node, WrappedActionTypeSupport,
};
use ria_api::state::NetworkReport;
use tokio::sync::{Semaphore, mpsc};

use crate::constants::{calls, statuses};
use crate::control;
use crate::convert;
use crate::log;
use crate::outcome;
use crate::services::{self, Calls, Failed};

/// Goals under way at the same time; more are refused.
const AT_ONCE: usize = 8;

/// How often feedback comes, and the network's state is asked for.
const STEP: Duration = Duration::from_millis(500);

/// How long rcl may take to note that a goal is to be cancelled.
const CANCELLING: Duration = Duration::from_secs(1);

/// Where a goal's work puts its feedback.
type Feedback<A> = mpsc::UnboundedSender<<A as WrappedActionTypeSupport>::Feedback>;

/// Whether a goal was reached, and its result.
type Outcome<A> = (bool, <A as WrappedActionTypeSupport>::Result);

/// Offers the reading action.
pub fn create(node: &mut Node, calls: &Calls) -> r2r::Result<()> {
    offer::<Netcheck::Action, _>(node, "~/netcheck", calls, netcheck, |result| netcheck_failed(result).1)
}

/// Offers the changing action.
pub fn create_changing(node: &mut Node, calls: &Calls) -> r2r::Result<()> {
    offer::<Join::Action, _>(node, "~/join", calls, join, |result| Join::Result {
        result,
        ..Join::Result::default()
    })
}

fn offer<A, F>(
    node: &mut Node,
    name: &str,
    calls: &Calls,
    handle: fn(Calls, A::Goal, Feedback<A>) -> F,
    result: fn(Failed) -> A::Result,
) -> r2r::Result<()>
where
    A: WrappedActionTypeSupport + 'static,
    A::Goal: Clone + Send,
    A::Feedback: Send,
    A::Result: Send,
    F: Future<Output = Outcome<A>> + Send + 'static,
{
    let mut requests = node.create_action_server::<A>(name)?;
    let (calls, turns) = (calls.clone(), Arc::new(Semaphore::new(AT_ONCE)));
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let Ok(turn) = Arc::clone(&turns).try_acquire_owned() else {
                said(request.reject());
                continue;
            };
            let goal = request.goal.clone();
            let Some((accepted, cancels)) = accept(request) else { continue };
            let (say, feedback) = mpsc::unbounded_channel();
            let work = handle(calls.clone(), goal, say);
            tokio::spawn(async move {
                pursue(accepted, cancels, work, feedback, result).await;
                drop(turn);
            });
        }
    });
    Ok(())
}

type Accepted<A, C> = (ActionServerGoal<A>, C);

fn accept<A: WrappedActionTypeSupport + 'static>(
    request: ActionServerGoalRequest<A>,
) -> Option<Accepted<A, impl Stream<Item = ActionServerCancelRequest> + Unpin>> {
    match request.accept() {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            log::warn(format!("can't accept a goal: {error}"));
            None
        }
    }
}

/// Works on one goal until it is reached, can't be, or is not wanted any more.
async fn pursue<A: WrappedActionTypeSupport + 'static>(
    mut goal: ActionServerGoal<A>,
    mut cancels: impl Stream<Item = ActionServerCancelRequest> + Unpin,
    work: impl Future<Output = Outcome<A>>,
    mut feedback: mpsc::UnboundedReceiver<A::Feedback>,
    result: fn(Failed) -> A::Result,
) {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            Some(request) = cancels.next() => {
                request.accept();
                let asked = Instant::now();
                while !goal.is_cancelling().unwrap_or(true) && asked.elapsed() < CANCELLING {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let cancelled = outcome::failed(calls::FAILED, "Cancelled", "cancelled by the caller");
                return said(goal.cancel(result(cancelled)));
            }
            Some(message) = feedback.recv() => said(goal.publish_feedback(message)),
            (reached, message) = &mut work => {
                return said(if reached { goal.succeed(message) } else { goal.abort(message) });
            }
        }
    }
}

fn said(result: r2r::Result<()>) {
    if let Err(error) = result {
        log::warn(format!("can't answer about a goal: {error}"));
    }
}

async fn netcheck(
    calls: Calls,
    goal: Netcheck::Goal,
    say: Feedback<Netcheck::Action>,
) -> Outcome<Netcheck::Action> {
    let began = Instant::now();
    let work = services::measure(&calls, &goal.network, services::LONGEST_NETCHECK);
    tokio::pin!(work);
    loop {
        tokio::select! {
            measured = &mut work => return measured.map_or_else(netcheck_failed, |measured| {
                (true, Netcheck::Result {
                    result: measured.result,
                    reporter: measured.reporter,
                    report: measured.report,
                    findings: measured.findings,
                })
            }),
            () = tokio::time::sleep(STEP) => {
                drop(say.send(Netcheck::Feedback { elapsed: began.elapsed().as_secs_f32() }));
            }
        }
    }
}

fn netcheck_failed(result: Failed) -> Outcome<Netcheck::Action> {
    let report = convert::report(&NetworkReport::default());
    (false, Netcheck::Result { result, report, ..Netcheck::Result::default() })
}

async fn join(calls: Calls, goal: Join::Goal, say: Feedback<Join::Action>) -> Outcome<Join::Action> {
    // The interface that comes makes the ROS context anew; not before the answer is out.
    let _work = calls.begin();
    match try_join(&calls, &goal, &say).await {
        Ok(result) => (result.result.success, result),
        Err(result) => (false, Join::Result { result, ..Join::Result::default() }),
    }
}

async fn try_join(
    calls: &Calls,
    goal: &Join::Goal,
    say: &Feedback<Join::Action>,
) -> Result<Join::Result, Failed> {
    let tell = |state: u8, text: &str| drop(say.send(Join::Feedback { state, text: text.into() }));
    tell(statuses::STATE_JOINING, "asks the coordinator");
    let joined = control::try_join(calls, &goal.key_file, &goal.name).await?;
    let mut result = Join::Result {
        result: outcome::done(),
        network: joined.network,
        network_id: joined.network_id,
        name: joined.name,
        already: joined.already,
    };
    if !joined.waiting {
        return Ok(result);
    }
    let text = control::approval(&joined.fingerprint);
    loop {
        let agent = calls.agent().await?;
        let network = agent.network(Some(&result.network_id)).await.map_err(|e| outcome::of_error(&e))?;
        let status = network.proxy.status().await.map_err(|e| outcome::of_error(&e))?;
        match convert::state(status.state) {
            statuses::STATE_UP => {
                result.name = status.name;
                return Ok(result);
            }
            statuses::STATE_REFUSED | statuses::STATE_FAILED | statuses::STATE_DISABLED => {
                let why =
                    status.conditions.first().map_or_else(|| status.state.to_string(), |c| c.text.clone());
                return Err(outcome::failed(calls::REFUSED, "Refused", why));
            }
            state => tell(state, &text),
        }
        tokio::time::sleep(STEP).await;
    }
}
