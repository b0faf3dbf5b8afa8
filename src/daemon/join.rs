//! Joining: keys, enrolment, and the first store, in an order in which a crash at any point loses nothing.
//!
//! 1. Can an interface be made at all?
//! 2. The keys are stored.
//! 3. The coordinator is asked.
//! 4. The network is stored, whole.
//! 5. The keys of step 2 are forgotten.
//!
//! A crash before 4 leads to the same question with the same keys, which the coordinator answers the same way. Only
//! what is stored is used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ria_api::error::ApiError;
use ria_api::state::{JoinOptions, Joined};
use ria_protocol::error::ErrorCode;
use ria_protocol::id::{BootId, NetworkId};
use ria_protocol::join_key::JoinKey;
use ria_protocol::name::Name;
use ria_protocol::requester::Requester;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::control::Input;
use super::handle::{DaemonHandle, Reply};
use crate::coordinator::backoff::Backoff;
use crate::coordinator::enrol::{self, EnrolError, Enrolment};
use crate::coordinator::farewell::Farewell;
use crate::netdev::tun;
use crate::state::membership::{Contact, Identity, Membership};
use crate::state::{SaveError, StateDir};

/// How often a join file is looked at that can't work as it is.
const FILE_CHECK: Duration = Duration::from_secs(5);

/// What an attempt needs.
#[derive(Debug)]
pub struct JoinTask {
    /// The key.
    pub key: JoinKey,
    /// How.
    pub options: JoinOptions,
    /// This run.
    pub boot: BootId,
    /// Where to store.
    pub state: Arc<StateDir>,
    /// Networks that this machine is in.
    pub known: Vec<NetworkId>,
    /// Who asked, for the coordinator.
    pub requester: Requester,
    /// Which `riaN` is free.
    pub interface: u16,
}

/// Who asked.
pub struct Origin(pub Reply<Joined>);

/// How an attempt ended.
#[derive(Debug)]
pub enum JoinOutcome {
    /// Member, and stored.
    Member(Box<Membership>),
    /// The key leads to a network that this machine is in.
    Already(NetworkId),
    /// No.
    Failed(ApiError),
}

/// The name that this machine would take.
pub fn suggested_name() -> Option<Name> {
    let host = nix::unistd::gethostname().ok()?;
    Name::from_host_name(&host.to_string_lossy())
}

/// Joins.
pub async fn run(task: JoinTask) -> JoinOutcome {
    match try_join(task).await {
        Ok(outcome) => outcome,
        Err(error) => JoinOutcome::Failed(error),
    }
}

async fn try_join(task: JoinTask) -> Result<JoinOutcome, ApiError> {
    let JoinTask { key, options, boot, state, known, requester, interface } = task;
    let (name, name_required) = wanted_name(&options)?;
    tun::check().map_err(|error| ApiError::Failed(error.to_string()))?;
    let keys = {
        let (state, key) = (state.clone(), key.key_id);
        blocking(move || state.pending_keys(key)).await?
    };
    let request = enrol::Request { key: &key, keys: &keys, name, name_required, boot, requester: &requester };
    let Enrolment { enrolled, address, time } = enrol::enrol(&request).await.map_err(api_error)?;
    if known.contains(&enrolled.network) {
        // Another key of a network that this machine is in already: the second identity is given back.
        let farewell = Farewell {
            network: enrolled.network,
            node: enrolled.node,
            boot,
            urls: key.urls.clone(),
            keys,
            certificate: enrolled.certificate,
            time,
            notes: Vec::new(),
        };
        farewell.say().await;
        state.forget_pending(key.key_id);
        return Ok(JoinOutcome::Already(enrolled.network));
    }
    let membership = Membership {
        identity: Identity {
            network: enrolled.network,
            network_name: enrolled.network_name,
            node: enrolled.node,
            name: enrolled.name,
            urls: key.urls.clone(),
            ca_pin: key.ca_pin,
            key_id: key.key_id,
            enabled: true,
            interface,
            refused: None,
            suspended: None,
        },
        keys,
        certificate: enrolled.certificate,
        map: None,
        live: Vec::new(),
        contact: Contact { address: Some(address), time, ..Contact::default() },
        kept: Default::default(),
    };
    let membership = blocking(move || {
        state.admit(&membership)?;
        state.forget_pending(membership.identity.key_id);
        Ok(membership)
    })
    .await?;
    Ok(JoinOutcome::Member(Box::new(membership)))
}

fn wanted_name(options: &JoinOptions) -> Result<(Name, bool), ApiError> {
    match &options.name {
        Some(name) => {
            let name = name.parse::<Name>().map_err(|error| ApiError::InvalidArgument(error.to_string()))?;
            Ok((name, true))
        }
        None => suggested_name().map(|name| (name, false)).ok_or_else(|| {
            ApiError::InvalidArgument(
                "no name can be made of this machine's host name; choose one with --name".into(),
            )
        }),
    }
}

/// Files are written off the loop's thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SaveError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| ApiError::Failed(format!("not joined: {error}"))),
        Err(error) => Err(ApiError::Failed(format!("not joined: {error}"))),
    }
}

fn api_error(error: EnrolError) -> ApiError {
    match error {
        EnrolError::Refused { code, text } => ApiError::Refused(format!("{}: {text}", code.name())),
        EnrolError::Dial(_) | EnrolError::Stream(_) => ApiError::Unreachable(error.to_string()),
        EnrolError::Setup(_) => ApiError::Failed(error.to_string()),
    }
}

/// `--join-file`: joins at the first start, and tries again for as long as that may help. A key that can't work is
/// looked at again when the file has changed.
pub async fn from_file(path: PathBuf, handle: DaemonHandle, inputs: mpsc::UnboundedSender<Input>) {
    let mut backoff = Backoff::default();
    loop {
        let text = tokio::fs::read_to_string(&path).await;
        let problem = match &text {
            Ok(text) => match JoinKey::parse(text) {
                Ok(key) => match handle.join(key, JoinOptions::default(), by_file()).await {
                    Ok(_) => {
                        let _ = inputs.send(Input::JoinFile(None));
                        return;
                    }
                    Err(error) => Problem { retry: is_temporary(&error), text: error.text() },
                },
                Err(error) => Problem { retry: false, text: error.to_string() },
            },
            Err(error) => Problem { retry: true, text: error.to_string() },
        };
        let shown = format!("joining with {} failed: {}", path.display(), problem.text);
        if inputs.send(Input::JoinFile(Some(shown))).is_err() {
            return;
        }
        if problem.retry {
            sleep(backoff.next()).await;
        } else {
            let before = text.ok();
            while tokio::fs::read_to_string(&path).await.ok() == before {
                sleep(FILE_CHECK).await;
            }
        }
    }
}

/// The agent itself, told so where it is started.
fn by_file() -> Requester {
    let uid = nix::unistd::geteuid().as_raw();
    Requester { via: "join-file".into(), uid: Some(uid), ..Requester::default() }
}

struct Problem {
    retry: bool,
    text: String,
}

fn is_temporary(error: &ApiError) -> bool {
    match error {
        ApiError::Unreachable(_) | ApiError::TimedOut(_) | ApiError::Failed(_) => true,
        ApiError::Refused(text) => {
            [ErrorCode::RateLimited, ErrorCode::ApprovalPending, ErrorCode::Unavailable]
                .iter()
                .any(|code| text.starts_with(code.name()))
        }
        ApiError::Bus(_)
        | ApiError::InvalidArgument(_)
        | ApiError::InvalidJoinKey(_)
        | ApiError::NotJoined(_)
        | ApiError::NoSuchNetwork(_)
        | ApiError::NoSuchPeer(_)
        | ApiError::NotPermitted(_) => false,
    }
}
