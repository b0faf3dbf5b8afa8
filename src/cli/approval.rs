//! Waiting for an administrator's approval.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::select;
use ria_api::client::Agent;
use ria_api::state::{Joined, NetworkState, NetworkStatus, Severity};
use tokio::time::{sleep, timeout};

use super::failure::{Failure, REFUSED, TIMED_OUT};
use super::output::{remark, with_progress};

/// Waits until this machine is a member, if that is wanted.
pub async fn wait(agent: &Agent, joined: &mut Joined, patience: Option<f64>) -> Result<(), Failure> {
    let instruction = format!(
        "an administrator of {} has to let this machine in, on the coordinator: ria-coordinator node approve {} (where \
         `ria-coordinator node pending` shows the same fingerprint)",
        joined.network, joined.fingerprint
    );
    let Some(seconds) = patience else {
        let text = format!(
            "{instruction}. The agent waits, also over restarts; see: ria status. To wait here: --wait. To give up: \
             ria leave --yes"
        );
        return Err(Failure::new(TIMED_OUT, text));
    };
    remark(&instruction);
    // More than a duration can hold is for ever.
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let decided = with_progress("Waiting for approval", timeout(limit, until_decided(agent, joined))).await;
    match decided {
        Ok(Ok(status)) => {
            joined.name = status.name;
            joined.waiting = false;
            Ok(())
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) => {
            let text = format!("not approved within {seconds} s; the agent waits on, see: ria status");
            Err(Failure::new(TIMED_OUT, text))
        }
    }
}

async fn until_decided(agent: &Agent, joined: &Joined) -> Result<NetworkStatus, Failure> {
    let network = agent.network_at(&joined.path).await?;
    let networks = agent.proxy().receive_networks_changed().await?.map(|_| ());
    let mut changes = select(networks, network.receive_changed().await?.map(|_| ()));
    loop {
        let listed = agent.proxy().status().await?.networks.iter().any(|n| n.path == joined.path);
        if !listed {
            let text = format!("the request to join {} has ended; see: ria status", joined.network);
            return Err(Failure::new(REFUSED, text));
        }
        let status = network.status().await?;
        match status.state {
            NetworkState::Up => return Ok(status),
            NetworkState::Refused => return Err(Failure::new(REFUSED, worst(&status))),
            NetworkState::Failed => {
                return Err(Failure::new(
                    super::failure::FAILED,
                    format!("approved, but {}", worst(&status)),
                ));
            }
            NetworkState::Joining
            | NetworkState::Waiting
            | NetworkState::Disabled
            | NetworkState::Unknown => {}
        }
        // Also without a signal now and then, so that a lost one costs little.
        if let Ok(None) = timeout(Duration::from_secs(1), changes.next()).await {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn worst(status: &NetworkStatus) -> String {
    let error = status.conditions.iter().find(|c| c.severity == Severity::Error);
    error.map_or_else(|| "the network does not work; see: ria status".to_owned(), |c| c.text.clone())
}
