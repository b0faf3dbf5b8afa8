//! The changing services `~/join`, `~/leave` and `~/set_enabled`: offered only when `allow_control` is set, because the
//! ROS graph can't tell who calls.

use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use r2r::Node;
use r2r::ria_msgs::srv;
use ria_api::state::JoinOptions;

use crate::constants::{calls, statuses};
use crate::convert;
use crate::join;
use crate::outcome;
use crate::services::{Calls, Failed, named, offer};

/// Where join keys may be taken from: a caller must not make the node read any file it likes.
const KEYS: &str = "/etc/ria/keys";

/// Creates the services.
pub fn create(node: &mut Node, calls: &Calls) -> r2r::Result<()> {
    offer::<srv::Join::Service, _>(node, "~/join", calls, join)?;
    offer::<srv::Leave::Service, _>(node, "~/leave", calls, leave)?;
    offer::<srv::SetEnabled::Service, _>(node, "~/set_enabled", calls, set_enabled)
}

async fn join(calls: Calls, asked: srv::Join::Request) -> srv::Join::Response {
    try_join(&calls, &asked)
        .await
        .unwrap_or_else(|result| srv::Join::Response { result, ..srv::Join::Response::default() })
}

async fn try_join(calls: &Calls, asked: &srv::Join::Request) -> Result<srv::Join::Response, Failed> {
    let path = key_path(&asked.key_file)?;
    let agent = calls.agent()?;
    // A link could lead out of the folder.
    let file = join::open(&path, OFlag::O_NOFOLLOW).map_err(|error| {
        outcome::failed(calls::FAILED, "Failed", format!("can't open {}: {error}", path.display()))
    })?;
    let options = JoinOptions { name: named(&asked.name).map(str::to_owned) };
    let joined = agent.proxy().join((&file).into(), options).await.map_err(|e| outcome::of_error(&e))?;
    let result = if joined.waiting {
        let text = format!(
            "an administrator has to let this robot in: ria-coordinator node approve {}; the agent goes on by itself",
            joined.fingerprint
        );
        outcome::failed(calls::TIMED_OUT, "WaitingForApproval", text)
    } else {
        outcome::done()
    };
    Ok(srv::Join::Response {
        result,
        network: joined.network,
        network_id: joined.network_id,
        name: joined.name,
        already: joined.already,
    })
}

/// A file directly in the keys' folder, by name or by path.
fn key_path(asked: &str) -> Result<PathBuf, Failed> {
    let relative = asked.strip_prefix(KEYS).map_or(asked, |rest| rest.trim_start_matches('/'));
    let mut components = Path::new(relative).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) => Ok(Path::new(KEYS).join(name)),
        _ => Err(outcome::invalid(format!(
            "key_file must name a file directly in {KEYS}; put the key there on the robot, or use: ria join --file F"
        ))),
    }
}

async fn leave(calls: Calls, asked: srv::Leave::Request) -> srv::Leave::Response {
    let result = try_leave(&calls, &asked).await.map_or_else(|result| result, |()| outcome::done());
    srv::Leave::Response { result }
}

async fn try_leave(calls: &Calls, asked: &srv::Leave::Request) -> Result<(), Failed> {
    let wanted = named(&asked.network).ok_or_else(|| {
        outcome::invalid("network is empty: name the network that this robot is to leave for good")
    })?;
    let agent = calls.agent()?;
    let network = agent.network(Some(wanted)).await.map_err(|e| outcome::of_error(&e))?;
    network.proxy.leave().await.map_err(|e| outcome::of_error(&e))
}

async fn set_enabled(calls: Calls, asked: srv::SetEnabled::Request) -> srv::SetEnabled::Response {
    match try_set_enabled(&calls, &asked).await {
        Ok(state) => srv::SetEnabled::Response { result: outcome::done(), state },
        Err(result) => srv::SetEnabled::Response { result, state: statuses::STATE_UNKNOWN },
    }
}

async fn try_set_enabled(calls: &Calls, asked: &srv::SetEnabled::Request) -> Result<u8, Failed> {
    let agent = calls.agent()?;
    let network = agent.network(named(&asked.network)).await.map_err(|e| outcome::of_error(&e))?;
    network.proxy.set_enabled(asked.enabled).await.map_err(|e| outcome::of_error(&e))?;
    let status = network.proxy.status().await.map_err(|e| outcome::of_error(&e))?;
    Ok(convert::state(status.state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_their_folder_only() {
        for good in ["lab.key", "/etc/ria/keys/lab.key"] {
            assert_eq!(key_path(good).unwrap(), Path::new("/etc/ria/keys/lab.key"), "{good}");
        }
        let bad = [
            "",
            "..",
            "/etc/shadow",
            "../shadow",
            "/etc/ria/keys/../x",
            "/etc/ria/keys",
            "a/b",
            "/etc/ria/keysx/y",
        ];
        for bad in bad {
            assert_eq!(key_path(bad).unwrap_err().code, calls::INVALID, "{bad}");
        }
    }
}
