//! Joining: keys, enrolment, and the first store, in an order in which a crash at any point loses nothing.
//!
//! 1. Can an interface be made at all?
//! 2. The keys are stored.
//! 3. The coordinator is asked.
//! 4. The network is stored, whole.
//! 5. The keys of step 2 are forgotten.
//!
//! Where an administrator has to approve, the request is stored between 3 and 4, and `pending` goes on from there.
//!
//! A crash before 4 leads to the same question with the same keys, which the coordinator answers the same way. Only
//! what is stored is used.

use std::sync::Arc;

use ria_api::error::ApiError;
use ria_api::state::{JoinOptions, Joined};
use ria_protocol::error::ErrorCode;
use ria_protocol::id::{BootId, NetworkId};
use ria_protocol::join_key::JoinKey;
use ria_protocol::name::Name;
use ria_protocol::requester::Requester;

use super::handle::Reply;
use crate::coordinator::enrol::{self, Answer, EnrolError, Enrolment, Held};
use crate::coordinator::farewell::Farewell;
use crate::coordinator::reach::Reach;
use crate::netdev::tun;
use crate::state::enrolment::WaitingJoin;
use crate::state::membership::{Contact, Identity, Membership, NodeKeys};
use crate::state::{SaveError, StateDir};

/// What an attempt needs.
#[derive(Debug)]
pub struct JoinTask {
    /// How this machine gets out.
    pub reach: Reach,
    /// The key.
    pub key: JoinKey,
    /// How.
    pub options: JoinOptions,
    /// This run.
    pub boot: BootId,
    /// Where to store.
    pub state: Arc<StateDir>,
    /// Networks that this machine is in.
    pub known: Vec<Known>,
    /// Who asked, for the coordinator.
    pub requester: Requester,
    /// Which `riaN` is free.
    pub interface: u16,
}

/// A network that this machine is in.
#[derive(Debug)]
pub struct Known {
    /// Which.
    pub network: NetworkId,
    /// Its keys there, where its coordinator is the one of the join key.
    pub keys: Option<NodeKeys>,
}

/// Who asked.
pub struct Origin(pub Reply<Joined>);

/// How an attempt ended.
pub enum JoinOutcome {
    /// Member, and stored.
    Member(Box<Membership>),
    /// The key leads to a network that this machine is in.
    Already(NetworkId),
    /// An administrator has to approve; the request is stored.
    Waiting(Box<WaitingJoin>, NodeKeys, Box<Held>),
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
    let (name, name_required) = wanted_name(&task.options)?;
    tun::check().map_err(|error| ApiError::Failed(error.to_string()))?;
    if let Some(network) = known_by(&task, &name).await? {
        return Ok(JoinOutcome::Already(network));
    }
    let JoinTask { reach, key, boot, state, known, requester, interface, .. } = task;
    let key_id = key.key_id;
    let keys = {
        let state = state.clone();
        blocking(move || state.pending_keys(key_id)).await?
    };
    let request = enrol::Request {
        reach: &reach,
        key: &key,
        keys: &keys,
        name: name.clone(),
        name_required,
        boot,
        requester: &requester,
        only_known: false,
    };
    let answer = match enrol::enrol(&request).await {
        Ok(answer) => answer,
        Err(error) => {
            if is_final(&error) {
                state.forget_pending(key_id);
            }
            return Err(api_error(error));
        }
    };
    match answer {
        Answer::Enrolled(enrolment) => {
            let new = NewMembership { key, keys, interface };
            admitted(*enrolment, new, &known, boot, state, reach).await
        }
        Answer::Waiting(held) => {
            let waiting = waiting_join(&key, name, name_required, &held);
            let stored = waiting.clone();
            blocking(move || state.put_waiting(&stored)).await?;
            Ok(JoinOutcome::Waiting(Box::new(waiting), keys, held))
        }
    }
}

/// The network of this key, when this machine is in it already: it is known there by its own keys, so that a second key
/// does not make it a second node.
async fn known_by(task: &JoinTask, name: &Name) -> Result<Option<NetworkId>, ApiError> {
    for known in &task.known {
        let Some(keys) = &known.keys else { continue };
        let request = enrol::Request {
            reach: &task.reach,
            key: &task.key,
            keys,
            name: name.clone(),
            name_required: false,
            boot: task.boot,
            requester: &task.requester,
            only_known: true,
        };
        match enrol::enrol(&request).await {
            Ok(Answer::Enrolled(enrolment)) => return Ok(Some(enrolment.enrolled.network)),
            Ok(Answer::Waiting(_)) | Err(EnrolError::Refused { code: ErrorCode::NotAMember, .. }) => {}
            Err(error) => return Err(api_error(error)),
        }
    }
    Ok(None)
}

/// What a membership is made of besides the coordinator's answer.
pub struct NewMembership {
    /// The join key.
    pub key: JoinKey,
    /// The keys that were proved.
    pub keys: NodeKeys,
    /// Which `riaN` is free.
    pub interface: u16,
}

impl NewMembership {
    /// As it is stored.
    pub fn with(self, enrolment: Enrolment) -> Membership {
        let Enrolment { enrolled, address, time } = enrolment;
        Membership {
            identity: Identity {
                network: enrolled.network,
                network_name: enrolled.network_name,
                node: enrolled.node,
                name: enrolled.name,
                urls: self.key.urls,
                ca_pin: self.key.ca_pin,
                key_id: self.key.key_id,
                enabled: true,
                interface: self.interface,
                refused: None,
                suspended: None,
                ended: None,
            },
            keys: self.keys,
            certificate: enrolled.certificate,
            map: None,
            live: Vec::new(),
            contact: Contact { address, time, ..Contact::default() },
            kept: Default::default(),
            untold: Default::default(),
        }
    }
}

async fn admitted(
    enrolment: Enrolment,
    new: NewMembership,
    known: &[Known],
    boot: BootId,
    state: Arc<StateDir>,
    reach: Reach,
) -> Result<JoinOutcome, ApiError> {
    let membership = new.with(enrolment);
    let (network, key_id) = (membership.identity.network, membership.identity.key_id);
    if known.iter().any(|known| known.network == network) {
        // A coordinator that can't tell who is known made this machine a second node of its network; that is given back.
        let farewell = Farewell {
            reach,
            network,
            node: membership.identity.node,
            boot,
            urls: membership.identity.urls,
            keys: membership.keys,
            certificate: membership.certificate,
            time: membership.contact.time,
            notes: Vec::new(),
        };
        farewell.say().await;
        state.forget_pending(key_id);
        return Ok(JoinOutcome::Already(network));
    }
    let membership = blocking(move || store(&state, membership)).await?;
    Ok(JoinOutcome::Member(Box::new(membership)))
}

/// Stores a new membership; what led to it is forgotten.
pub fn store(state: &StateDir, membership: Membership) -> Result<Membership, SaveError> {
    state.admit(&membership)?;
    state.forget_waiting(membership.identity.key_id);
    Ok(membership)
}

fn waiting_join(key: &JoinKey, wanted: Name, name_required: bool, held: &Held) -> WaitingJoin {
    let place = &held.place;
    WaitingJoin {
        key_id: key.key_id,
        urls: key.urls.clone(),
        ca_pin: key.ca_pin,
        wanted,
        name_required,
        network: place.network,
        network_name: place.network_name.clone(),
        node: place.node,
        name: place.name.clone(),
        since: place.since,
    }
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

/// Whether the keys of this attempt are of no use any more. A rejected request may still be approved.
fn is_final(error: &EnrolError) -> bool {
    matches!(error, EnrolError::Refused { code, .. } if !code.is_temporary() && *code != ErrorCode::Rejected)
}

fn api_error(error: EnrolError) -> ApiError {
    match error {
        EnrolError::Refused { code, text } => ApiError::Refused(format!("{}: {text}", code.name())),
        EnrolError::Dial(_) | EnrolError::Stream(_) => ApiError::Unreachable(error.to_string()),
        EnrolError::Setup(_) => ApiError::Failed(error.to_string()),
    }
}

/// Whether trying again may help without anybody doing anything.
pub fn is_temporary(error: &ApiError) -> bool {
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
