//! People and their tokens: who may do what, in which networks. How they prove who they are is [`crate::people`]'s
//! business.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ria_protocol::id::{KeyId, NetworkId};
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

/// Longest name of a person.
const LONGEST_NAME: usize = 64;

/// What somebody is called, and logs in as: lower-case letters, digits, and `.`, `_`, `-`, `@` within.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// A text is no name of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a person's name has 1 to {LONGEST_NAME} characters: lower-case letters, digits, and . _ - @ between them; such as ada or ada@lab.example"
)]
pub struct BadUserName;

impl UserName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = BadUserName;

    fn from_str(text: &str) -> Result<Self, BadUserName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let inner = |b: u8| plain(b) || b"._-@".contains(&b);
        let bytes = text.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        let good = bytes.len() <= LONGEST_NAME
            && bytes.iter().all(|b| inner(*b))
            && ends.iter().all(|end| end.is_some_and(|b| plain(*b)));
        if good { Ok(Self(text.to_owned())) } else { Err(BadUserName) }
    }
}

impl TryFrom<String> for UserName {
    type Error = BadUserName;

    fn try_from(text: String) -> Result<Self, BadUserName> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What somebody may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Lets nodes in and out: keys, approvals, names, tags.
    Operator,
    /// Changes networks: removes nodes, adds devices, relays, URLs.
    Admin,
    /// Decides who may do what.
    Owner,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Admin, Self::Owner];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| format!("{text:?} is no role; there are viewer, operator, admin and owner"))
    }
}

/// Somebody's roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// In all networks, also those that are still to come, and in what belongs to none.
    pub everywhere: Option<Role>,
    /// In single networks, beyond that.
    #[serde(default)]
    pub networks: BTreeMap<NetworkId, Role>,
}

/// In which networks something may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// In all, and in what belongs to none.
    All,
    Only(BTreeSet<NetworkId>),
}

impl Roles {
    /// Where somebody with these roles may do what needs `least`.
    pub fn reach(&self, least: Role) -> Reach {
        if self.everywhere.is_some_and(|role| role >= least) {
            return Reach::All;
        }
        let enough = self.networks.iter().filter(|(_, role)| **role >= least);
        Reach::Only(enough.map(|(network, _)| *network).collect())
    }

    /// Whether somebody with these roles may do in a network what needs `least`.
    pub fn has(&self, least: Role, network: NetworkId) -> bool {
        [self.everywhere, self.networks.get(&network).copied()]
            .into_iter()
            .flatten()
            .any(|role| role >= least)
    }
}

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEntry {
    pub name: UserName,
    pub roles: Roles,
    /// Absent until the invitation was taken.
    pub login: Option<LocalLogin>,
    /// By whose word this person logs in, too.
    pub federated: Option<Federated>,
    pub invitation: Option<Invitation>,
    pub created: UnixTime,
    /// Since when the person may not log in any more.
    pub disabled: Option<UnixTime>,
    /// Counts changes: who changes a person says which they have seen.
    pub version: u64,
    /// Counts what ends sessions.
    pub era: u64,
}

/// How somebody logs in here.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalLogin {
    /// Argon2id, in PHC form.
    pub password_hash: String,
    /// What one-time codes are made of.
    pub totp_secret: Vec<u8>,
}

impl fmt::Debug for LocalLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalLogin")
    }
}

/// Somebody as a provider knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federated {
    pub issuer: String,
    /// The provider's name for the person: never given to another.
    pub subject: String,
    /// What it said of them at their last login.
    pub groups: Vec<String>,
}

impl Federated {
    /// Whether both are about the same person.
    pub fn is_same_person(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.subject == other.subject
    }
}

/// A link by which somebody sets a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// SHA-256 of what the link holds.
    pub digest: [u8; 32],
    pub expires: UnixTime,
}

impl UserEntry {
    /// Whether this person may do anything at all.
    pub fn is_active(&self) -> bool {
        self.disabled.is_none() && self.has_login()
    }

    /// Whether there is a way in, by password or by a provider.
    pub fn has_login(&self) -> bool {
        self.login.is_some() || self.federated.is_some()
    }
}

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    Networks,
    Nodes,
    Keys,
    Policies,
    Relays,
    Audit,
    Users,
    System,
    Metrics,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Networks,
        Self::Nodes,
        Self::Keys,
        Self::Policies,
        Self::Relays,
        Self::Audit,
        Self::Users,
        Self::System,
        Self::Metrics,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Networks => "networks",
            Self::Nodes => "nodes",
            Self::Keys => "keys",
            Self::Policies => "policies",
            Self::Relays => "relays",
            Self::Audit => "audit",
            Self::Users => "users",
            Self::System => "system",
            Self::Metrics => "metrics",
        }
    }
}

/// What a token is good for: `AREA:read`, `AREA:write` (which may read, too), `*:read`, `*:write`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    /// Absent: all.
    area: Option<Area>,
    write: bool,
}

impl Scope {
    /// Whether it allows this.
    pub fn allows(&self, area: Area, write: bool) -> bool {
        self.area.is_none_or(|own| own == area) && (self.write || !write)
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all: Vec<&str> = Area::ALL.iter().map(|area| area.name()).collect();
        let wrong = || {
            format!(
                "{text:?} is no scope; write AREA:read or AREA:write, where AREA is * or one of {}",
                all.join(", ")
            )
        };
        let (area, access) = text.split_once(':').ok_or_else(wrong)?;
        let area = match area {
            "*" => None,
            named => Some(Area::ALL.into_iter().find(|area| area.name() == named).ok_or_else(wrong)?),
        };
        match access {
            "read" => Ok(Self { area, write: false }),
            "write" => Ok(Self { area, write: true }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.write { "write" } else { "read" };
        write!(f, "{}:{access}", self.area.map_or("*", Area::name))
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

/// A token by which a program acts for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    pub id: KeyId,
    pub user: UserName,
    /// What it is for, in its owner's words.
    pub label: String,
    /// SHA-256 of its secret.
    pub digest: [u8; 32],
    pub scopes: Vec<Scope>,
    pub created: UnixTime,
    pub expires: Option<UnixTime>,
}

impl TokenEntry {
    /// Whether it is good for anything at this time.
    pub fn is_valid(&self, now: UnixTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// All people and tokens.
#[derive(Debug, Clone, Default)]
pub struct People {
    pub users: BTreeMap<UserName, Arc<UserEntry>>,
    pub tokens: BTreeMap<KeyId, Arc<TokenEntry>>,
}

impl People {
    /// Whether anybody can log in who may decide on everything.
    pub fn has_owner(&self) -> bool {
        self.users.values().any(|user| user.is_active() && user.roles.everywhere == Some(Role::Owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["ada", "ada.l@lab.example", "a", "r2-d2"] {
            assert_eq!(good.parse::<UserName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(LONGEST_NAME + 1);
        for bad in ["", "Ada", "a b", "<b>", ".a", "a-", "ä", "a\n", "user:ada", long.as_str()] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_role_reaches_as_far_as_it_was_given() {
        let (lab, field) = (NetworkId::from_bytes([1; 10]), NetworkId::from_bytes([2; 10]));
        let roles = Roles {
            everywhere: Some(Role::Viewer),
            networks: [(lab, Role::Admin), (field, Role::Operator)].into(),
        };
        assert_eq!(roles.reach(Role::Viewer), Reach::All);
        assert_eq!(roles.reach(Role::Operator), Reach::Only([lab, field].into()));
        assert_eq!(roles.reach(Role::Admin), Reach::Only([lab].into()));
        assert_eq!(roles.reach(Role::Owner), Reach::Only([].into()));
        assert!(roles.has(Role::Admin, lab) && roles.has(Role::Operator, field));
        assert!(!roles.has(Role::Admin, field) && !roles.has(Role::Owner, lab));
    }

    #[test]
    fn scopes_allow_what_they_say_and_are_written_as_they_are_read() {
        let scope = |text: &str| text.parse::<Scope>().unwrap();
        assert!(
            scope("nodes:write").allows(Area::Nodes, false) && scope("nodes:write").allows(Area::Nodes, true)
        );
        assert!(
            !scope("nodes:read").allows(Area::Nodes, true) && !scope("nodes:write").allows(Area::Keys, false)
        );
        assert!(scope("*:read").allows(Area::Audit, false) && !scope("*:read").allows(Area::Audit, true));
        for area in Area::ALL {
            let text = format!("{}:read", area.name());
            assert_eq!(scope(&text).to_string(), text);
        }
        for bad in ["", "nodes", "nodes:all", ":read", "robots:read", "*"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad:?}");
        }
    }
}
