//! The changing services `~/join`, `~/leave` and `~/set_enabled`: offered only when `allow_control` is set, because the
//! ROS graph can't tell who calls.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use r2r::Node;
use r2r::ria_msgs::srv;
use ria_api::state::{JoinOptions, Joined};

use crate::constants::{calls, statuses};
use crate::convert;
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
    // The interface that comes makes the ROS context anew; not before the answer is out.
    let _work = calls.begin();
    let joined = match try_join(&calls, &asked.key_file, &asked.name).await {
        Ok(joined) => joined,
        Err(result) => return srv::Join::Response { result, ..srv::Join::Response::default() },
    };
    let result = if joined.waiting {
        outcome::failed(calls::TIMED_OUT, "WaitingForApproval", approval(&joined.fingerprint))
    } else {
        outcome::done()
    };
    srv::Join::Response {
        result,
        network: joined.network,
        network_id: joined.network_id,
        name: joined.name,
        already: joined.already,
    }
}

/// What an administrator has to do.
pub fn approval(fingerprint: &str) -> String {
    format!(
        "an administrator has to let this robot in: ria-coordinator node approve {fingerprint}; the agent goes on by itself"
    )
}

/// Joins with a key of the folder.
pub async fn try_join(calls: &Calls, key_file: &str, wanted: &str) -> Result<Joined, Failed> {
    let name = key_name(key_file)?;
    let agent = calls.agent().await?;
    let file = open_key(Path::new(KEYS), name).map_err(|error| {
        let name = name.to_string_lossy();
        outcome::failed(calls::FAILED, "Failed", format!("can't open {KEYS}/{name}: {error}"))
    })?;
    let options = JoinOptions { name: named(wanted).map(str::to_owned) };
    agent.proxy().join((&file).into(), options).await.map_err(|e| outcome::of_error(&e))
}

/// Opens a key in a folder for the agent to read, and nothing that is elsewhere: neither the folder nor the file may be
/// a link, and only a plain file will do.
fn open_key(folder: &Path, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = open(folder, flags, Mode::empty())?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(&folder, name, flags, Mode::empty()) {
        Err(Errno::ELOOP) => return Err(io::Error::other("it is a link; put the key itself there")),
        opened => File::from(opened?),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

/// The name of a file directly in the keys' folder, asked for by name or by path.
fn key_name(asked: &str) -> Result<&OsStr, Failed> {
    let relative = asked.strip_prefix(KEYS).map_or(asked, |rest| rest.trim_start_matches('/'));
    let mut components = Path::new(relative).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(name)), None) => Ok(name),
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
    let agent = calls.agent().await?;
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
    let agent = calls.agent().await?;
    let network = agent.network(named(&asked.network)).await.map_err(|e| outcome::of_error(&e))?;
    network.proxy.set_enabled(asked.enabled).await.map_err(|e| outcome::of_error(&e))?;
    let status = network.proxy.status().await.map_err(|e| outcome::of_error(&e))?;
    Ok(convert::state(status.state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_links_nor_folders_nor_pipes_are_keys() {
        use std::os::unix::fs::symlink;
        let home = std::env::temp_dir().join(format!("ria_node-keys-{}", std::process::id()));
        let keys = home.join("keys");
        std::fs::create_dir_all(keys.join("folder")).unwrap();
        std::fs::write(home.join("secret"), "x").unwrap();
        std::fs::write(keys.join("lab.key"), "x").unwrap();
        symlink(home.join("secret"), keys.join("link")).unwrap();
        symlink(&keys, home.join("other")).unwrap();
        nix::unistd::mkfifo(&keys.join("pipe"), Mode::S_IRWXU).unwrap();
        let opened = |folder: &Path, name: &str| open_key(folder, OsStr::new(name)).is_ok();
        let found = ["lab.key", "link", "folder", "pipe", "absent"].map(|name| opened(&keys, name));
        let through_a_link = opened(&home.join("other"), "lab.key");
        std::fs::remove_dir_all(&home).unwrap();
        assert_eq!((found, through_a_link), ([true, false, false, false, false], false));
    }

    #[test]
    fn keys_come_from_their_folder_only() {
        for good in ["lab.key", "/etc/ria/keys/lab.key"] {
            assert_eq!(key_name(good).unwrap(), "lab.key", "{good}");
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
            assert_eq!(key_name(bad).unwrap_err().code, calls::INVALID, "{bad}");
        }
    }
}
