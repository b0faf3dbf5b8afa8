//! Joining by a key file at start-up: opens the file itself and hands its descriptor to the agent.
//!
//! The path is start-up configuration; the key is never read here. Done once in the life of a node.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use ria_api::client::Agent;
use ria_api::error::ApiError;
use ria_api::state::{JoinOptions, Joined};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::link::Current;

/// What the joining tells.
#[derive(Debug)]
pub enum Message {
    /// It is done, or needless.
    Joined(Option<Joined>),
    /// It did not work.
    Failed(Failure),
}

/// Why the machine did not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable name, for the condition.
    pub code: &'static str,
    /// What it is and what to do.
    pub text: String,
    /// Whether it is tried again by itself.
    pub again: bool,
}

/// Joins with the key in `file`, trying again while that may help.
pub async fn run(file: PathBuf, mut current: Current, out: mpsc::Sender<Message>) {
    let mut pause = Duration::from_secs(1);
    loop {
        let Some(agent) = next_agent(&mut current).await else { return };
        match attempt(&agent, &file).await {
            Ok(joined) => {
                let _ = out.send(Message::Joined(joined)).await;
                return;
            }
            Err(failure) => {
                let again = failure.again;
                if out.send(Message::Failed(failure)).await.is_err() || !again {
                    return;
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

async fn next_agent(current: &mut Current) -> Option<Agent> {
    let agent = current.wait_for(Result::is_ok).await.ok()?;
    agent.as_ref().ok().cloned()
}

async fn attempt(agent: &Agent, path: &Path) -> Result<Option<Joined>, Failure> {
    let file = match open(path) {
        Ok(file) => file,
        // Keys are often removed once they are used.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_member(agent).await => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let joined = agent.proxy().join((&file).into(), JoinOptions::default()).await;
    joined.map(Some).map_err(|error| refused(path, &error))
}

/// Opens a key file for the agent to read. A pipe that nobody writes to must not hold the node.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

async fn is_member(agent: &Agent) -> bool {
    agent.proxy().status().await.is_ok_and(|status| !status.networks.is_empty())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let text = format!(
        "can't open the join key file {}: {error}; put the key from the network's administrator there, readable for \
         the user of this node, or change join_key_file",
        path.display()
    );
    Failure { code: "join-key-file", text, again: true }
}

fn refused(path: &Path, error: &ApiError) -> Failure {
    let (code, again) = match error {
        ApiError::InvalidJoinKey(_) => ("join-key-invalid", false),
        ApiError::Refused(_) => ("join-refused", false),
        ApiError::NotPermitted(_) => ("join-not-permitted", false),
        ApiError::Unreachable(_) | ApiError::TimedOut(_) => ("join-coordinator-unreachable", true),
        ApiError::Bus(_)
        | ApiError::Failed(_)
        | ApiError::InvalidArgument(_)
        | ApiError::NotJoined(_)
        | ApiError::NoSuchNetwork(_)
        | ApiError::NoSuchPeer(_) => ("join-failed", true),
    };
    let then = if again { "trying again" } else { "start the node again when this is put right" };
    let text = format!("joining with the key in {} failed: {}; {then}", path.display(), error.text());
    Failure { code, text, again }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waiting_can_cure_is_tried_again_and_the_rest_is_not() {
        let path = Path::new("/etc/ria/keys/lab");
        assert!(refused(path, &ApiError::Unreachable("x".into())).again);
        for hopeless in [
            ApiError::InvalidJoinKey("x".into()),
            ApiError::Refused("key_used: x".into()),
            ApiError::NotPermitted("x".into()),
        ] {
            let failure = refused(path, &hopeless);
            assert!(!failure.again && failure.text.contains("start the node again"), "{failure:?}");
        }
    }

    #[test]
    fn a_pipe_without_a_writer_does_not_hold_the_node() {
        let folder = std::env::temp_dir().join(format!("ria_node-join-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let pipe = folder.join("key");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let opened = open(&pipe);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(opened.is_ok());
    }
}
