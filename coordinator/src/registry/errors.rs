//! Why the writer says no.

use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::KeyId;
use ria_protocol::name::Name;

use super::mentioned::Mentioned;
use crate::state::address::PrefixError;
use crate::state::etag::NodeChanged;
use crate::store::StoreError;

/// The writer could not do anything.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the coordinator is stopping")]
    Stopping,
}

/// A network can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateNetworkError {
    #[error("there is a network {0} already; choose another name")]
    NameTaken(Name),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error("the MTU {0} is not possible; it must be from 1280 (the least that IPv6 allows) to 8900 bytes")]
    Mtu(u16),
    #[error(
        "other networks have all ROS domains from 0 to 101; share some by naming them, as in --ros-domains 7"
    )]
    NoDomain,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A setting of a network can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum SetNetworkError {
    #[error("there is no such network")]
    NoNetwork,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A join key can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    #[error("there is no such network")]
    NoNetwork,
    #[error(transparent)]
    Mentioned(#[from] Mentioned),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A join key can't be revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeKeyError {
    #[error("there is no join key {0}; `ria-coordinator key list` shows all")]
    NoKey(KeyId),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A node can't be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveNodeError {
    #[error("there is no such node")]
    NoNode,
    #[error(transparent)]
    Changed(#[from] NodeChanged),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A member can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum EditNodeError {
    #[error("there is no such node")]
    NoNode,
    #[error(
        "another node has the name {0}, or the same one in ROS; choose another, or rename that one first"
    )]
    NameTaken(Name),
    #[error("that would be too many tags; remove some with --remove")]
    TooManyTags,
    #[error(transparent)]
    Mentioned(#[from] Mentioned),
    #[error(transparent)]
    Changed(#[from] NodeChanged),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Nothing can be decided about a node that waits.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    #[error("no such node waits any more; `ria-coordinator node pending` shows all")]
    NoNode,
    #[error("another node has the name {0}; give this one another with --name, or rename that one first")]
    NameTaken(Name),
    #[error("the network has no free address; remove nodes first")]
    NetworkFull,
    #[error("{0}; or give it another name with --name")]
    Mentioned(#[from] Mentioned),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A node can't be disabled or enabled.
#[derive(Debug, thiserror::Error)]
pub enum SetNodeEnabledError {
    #[error("there is no such node")]
    NoNode,
    #[error(transparent)]
    Changed(#[from] NodeChanged),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A node's WireGuard key can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateKeyError {
    #[error("there is no such node")]
    NoNode,
    #[error("the key belongs to another member")]
    Taken,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A node is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<ErrorCode> for AdmitError {
    fn from(code: ErrorCode) -> Self {
        Self::Refused(code.into())
    }
}

impl From<StoreError> for AdmitError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

macro_rules! store_error_is_unavailable {
    ($($error:ty),*) => {
        $(impl From<StoreError> for $error {
            fn from(error: StoreError) -> Self {
                Self::Unavailable(error.into())
            }
        })*
    };
}
store_error_is_unavailable!(
    CreateNetworkError,
    SetNetworkError,
    CreateKeyError,
    RevokeKeyError,
    RemoveNodeError,
    EditNodeError,
    DecideError,
    SetNodeEnabledError,
    RotateKeyError
);
