//! `ria wait`: returns when the network is up and enough peers answer; also waits for an agent that is just starting.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::select;
use ria_api::client::Agent;
use ria_api::state::{NetworkState, NetworkStatus};
use serde_json::json;

use super::Context;
use super::args::WaitArgs;
use super::failure::{Failure, TIMED_OUT, USAGE};
use super::output::with_progress;

/// Between two looks where no signal can tell of a change.
const RETRY: Duration = Duration::from_millis(100);

pub async fn run(context: &Context, args: &WaitArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let mut missing = "nothing could be found out".to_owned();
    let limit = Duration::from_secs_f64(args.timeout);
    let waiting = tokio::time::timeout(limit, until_ready(context, args, &mut missing));
    let ready = with_progress("Waiting", waiting).await;
    let Ok(status) = ready else {
        let text = format!("not ready after {} s: {missing}", args.timeout);
        return Err(Failure::new(TIMED_OUT, text));
    };
    let status = status?;
    let waited = started.elapsed().as_secs_f64();
    if context.output.json {
        context.output.value(&json!({
            "network": status.network,
            "peers_up": status.peers_up,
            "peers_total": status.peers_total,
            "waited": waited,
        }))?;
    } else {
        let NetworkStatus { network, interface, peers_up, .. } = status;
        context.output.line(format_args!(
            "{network} is up on {interface}, {peers_up} peers answer (after {waited:.1} s)"
        ))?;
    }
    Ok(())
}

async fn until_ready(
    context: &Context,
    args: &WaitArgs,
    missing: &mut String,
) -> Result<NetworkStatus, Failure> {
    loop {
        match Agent::connect(context.global.socket.as_deref()).await {
            Ok(agent) => {
                if let Some(ready) = watch(&agent, args, missing).await? {
                    return Ok(ready);
                }
            }
            Err(error) => *missing = error.to_string(),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Watches one network of one agent; `None` when either went away, or when there is none yet and nothing changes.
async fn watch(
    agent: &Agent,
    args: &WaitArgs,
    missing: &mut String,
) -> Result<Option<NetworkStatus>, Failure> {
    let mut networks = agent.proxy().receive_networks_changed().await?.map(|_| ());
    let network = match agent.network(args.network.network.as_deref()).await {
        Ok(network) => network,
        // Can't get better by waiting.
        Err(error) if error.exit_code() == USAGE => return Err(error.into()),
        Err(error) => {
            *missing = error.text();
            let _ = tokio::time::timeout(Duration::from_secs(1), networks.next()).await;
            return Ok(None);
        }
    };
    let changed = network.proxy.receive_changed().await?.map(|_| ());
    let mut changes = select(networks, changed);
    loop {
        let Ok(status) = network.proxy.status().await else { return Ok(None) };
        match lacking(&status, args.peers) {
            None => return Ok(Some(status)),
            Some(text) => *missing = text,
        }
        // Once a second also without a signal, so that a lost one costs little.
        if let Ok(None) = tokio::time::timeout(Duration::from_secs(1), changes.next()).await {
            return Ok(None);
        }
    }
}

fn lacking(status: &NetworkStatus, peers: u32) -> Option<String> {
    let name = &status.network;
    if status.state != NetworkState::Up {
        let advice = if status.state == NetworkState::Disabled {
            "switch it on with: ria up"
        } else {
            "see: ria status"
        };
        return Some(format!("network {name} is {}; {advice}", status.state));
    }
    (status.peers_up < peers).then(|| {
        format!(
            "{} of {peers} wanted peers answer in {name}, which has {} others; see: ria peers",
            status.peers_up, status.peers_total
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_said() {
        let up = NetworkStatus {
            network: "lab".into(),
            state: NetworkState::Up,
            peers_up: 1,
            ..NetworkStatus::default()
        };
        assert_eq!(lacking(&up, 1), None);
        assert!(lacking(&up, 2).unwrap().contains("1 of 2"));
        let off = NetworkStatus { state: NetworkState::Disabled, ..up };
        assert!(lacking(&off, 0).unwrap().contains("ria up"));
    }
}
