//! What the admin socket and the REST API say of people and of tokens. As in [`super::api`], fields are only ever added.

use std::collections::BTreeMap;

use ria_protocol::id::KeyId;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::state::people::{Role, Scope, UserName};

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    pub name: UserName,
    pub state: UserState,
    /// Role in all networks, and in what belongs to none; absent for none.
    pub everywhere: Option<Role>,
    /// Roles in single networks, beyond that.
    pub networks: BTreeMap<Name, Role>,
    pub created: UnixTime,
    pub disabled: Option<UnixTime>,
    /// Until when the invitation is good, where one is open.
    pub invited_until: Option<UnixTime>,
    /// By whose word this person logs in, where that is so.
    #[serde(default)]
    pub provider: Option<String>,
    /// What that provider said of them at their last login.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How many API tokens act for this person.
    pub tokens: usize,
    /// Counts changes: who sends it along changes only what they have seen.
    pub version: u64,
}

/// Whether somebody can log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserState {
    Active,
    /// The invitation was not taken yet.
    Invited,
    Disabled,
}

/// Somebody to invite.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddUser {
    pub name: UserName,
    #[serde(default)]
    pub everywhere: Option<Role>,
    #[serde(default)]
    pub networks: BTreeMap<Name, Role>,
}

/// Other roles for somebody.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRoles {
    #[serde(default)]
    pub everywhere: Option<Role>,
    #[serde(default)]
    pub networks: BTreeMap<Name, Role>,
    /// What was seen; absent: does not matter.
    #[serde(default)]
    pub version: Option<u64>,
}

/// A link by which somebody sets a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// It is shown only once, and good once.
    pub link: String,
    pub expires: UnixTime,
}

/// Somebody with an open invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitedView {
    #[serde(flatten)]
    pub user: UserView,
    #[serde(flatten)]
    pub link: LinkView,
}

/// What was taken back when somebody left, and what stays behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftView {
    pub user: UserView,
    pub tokens_removed: Vec<TokenView>,
    /// Join keys of this person's that were good still, and are no more.
    pub keys_revoked: Vec<KeyId>,
    /// Their laptops, as NETWORK/NAME, which are no members any more.
    #[serde(default)]
    pub laptops_removed: Vec<String>,
    /// Nodes that joined by this person's keys, as NETWORK/NAME: somebody has to look after them.
    pub nodes_left: Vec<String>,
    /// Static peers that this person added, which are no members any more: they know its private key.
    #[serde(default)]
    pub static_peers_removed: Vec<String>,
    /// Access for a time that this person had, which was taken out of the policies.
    #[serde(default)]
    pub bookings_removed: Vec<String>,
    /// Other rules and groups of policies that name this person: somebody has to look after them.
    #[serde(default)]
    pub rules_left: Vec<String>,
}

/// An API token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    pub id: KeyId,
    pub user: UserName,
    pub label: String,
    pub scopes: Vec<Scope>,
    pub created: UnixTime,
    pub expires: Option<UnixTime>,
}

/// A token to make.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// For whom it acts; absent for whoever asks.
    #[serde(default)]
    pub user: Option<UserName>,
    pub label: String,
    pub scopes: Vec<Scope>,
    /// Seconds from now; absent for never.
    #[serde(default)]
    pub expires_after: Option<u64>,
}

/// A token, just made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The token itself. It is shown only once.
    pub token: String,
    #[serde(flatten)]
    pub view: TokenView,
}
