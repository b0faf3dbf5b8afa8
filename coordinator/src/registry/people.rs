//! Who may do what: changes of people and of their tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::id::KeyId;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::laptops::Swept;
use super::writer::Writer;
use super::{Command, Registry, Reply, Unavailable};
use crate::audit::{Actor, Event};
use crate::state::people::{
    Federated, Invitation, LocalLogin, People, Role, Roles, TokenEntry, UserEntry, UserName,
};
use crate::store::StoreError;

/// Tokens that one person may have.
const MOST_TOKENS: usize = 32;
/// People there may be.
const MOST_USERS: usize = 1000;

/// People or tokens can't be changed so.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("there is somebody named {0} already; choose another name, or remove that one first")]
    NameTaken(UserName),
    #[error("there is nobody named {0}; `ria-coordinator user list` shows all")]
    NoUser(UserName),
    #[error("there is no token {0}")]
    NoToken(KeyId),
    #[error("{0} is the last owner who can log in; make somebody else an owner first")]
    LastOwner(UserName),
    #[error("somebody else has changed {0} meanwhile; look again, then decide")]
    Changed(UserName),
    #[error("{0} has {MOST_TOKENS} tokens, which is as many as there may be; remove some first")]
    TooManyTokens(UserName),
    #[error("there are {MOST_USERS} people, which is as many as there may be")]
    TooManyUsers,
    #[error("that account is {0}'s already; log in as {0}, or ask an owner of this coordinator")]
    LinkedElsewhere(UserName),
    #[error("this link was used already, or is too old; ask for another")]
    NoInvitation,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<StoreError> for PeopleError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// A change of somebody.
#[derive(Debug)]
pub struct UserChange {
    pub name: UserName,
    pub deed: UserDeed,
    /// What whoever changes it has seen; absent: does not matter.
    pub seen: Option<u64>,
}

/// What is changed.
#[derive(Debug)]
pub enum UserDeed {
    /// Somebody new, who sets a password by this invitation.
    Add(Roles, Invitation),
    /// Somebody new, by a provider's word.
    AddFederated(Roles, Federated),
    /// Somebody logs in by a provider's word from now on, or it says something else of them.
    Link(Federated),
    /// The first owner, or one more where none can log in any more.
    AddOwner(LocalLogin),
    SetRoles(Roles),
    /// Another password has to be set by this invitation; until then nothing of the old one works.
    Reset(Invitation),
    /// By the invitation with this digest.
    Accept([u8; 32], LocalLogin),
    /// Another password, by who has the old one.
    ChangeLogin(LocalLogin),
    SetEnabled(bool),
    /// All sessions end.
    LogOut,
    Remove,
}

impl UserDeed {
    fn action(&self) -> &'static str {
        match self {
            Self::Add(..) => "user.added",
            Self::AddFederated(..) => "user.came-by-provider",
            Self::Link(_) => "user.linked",
            Self::AddOwner(_) => "user.owner-added",
            Self::SetRoles(_) => "user.roles-set",
            Self::Reset(_) => "user.reset",
            Self::Accept(..) => "user.invitation-taken",
            Self::ChangeLogin(_) => "user.login-changed",
            Self::SetEnabled(true) => "user.enabled",
            Self::SetEnabled(false) => "user.disabled",
            Self::LogOut => "user.logged-out",
            Self::Remove => "user.removed",
        }
    }
}

/// What the writer can be asked for.
#[derive(Debug)]
pub(super) enum PeopleCommand {
    Change(UserChange, Actor, Reply<Arc<UserEntry>, PeopleError>),
    AddToken(TokenEntry, Actor, Reply<(), PeopleError>),
    RemoveToken(KeyId, Actor, Reply<Arc<TokenEntry>, PeopleError>),
    /// Laptops whose people have not logged in for so long are kept out.
    SweepLaptops(Duration, Reply<Vec<Swept>, Unavailable>),
}

impl Registry {
    /// Changes somebody.
    pub async fn change_user(&self, change: UserChange, actor: Actor) -> Result<Arc<UserEntry>, PeopleError> {
        self.ask(|reply| Command::People(PeopleCommand::Change(change, actor, reply))).await
    }

    /// Adds a token.
    pub async fn add_token(&self, token: TokenEntry, actor: Actor) -> Result<(), PeopleError> {
        self.ask(|reply| Command::People(PeopleCommand::AddToken(token, actor, reply))).await
    }

    /// Takes one away.
    pub async fn remove_token(&self, id: KeyId, actor: Actor) -> Result<Arc<TokenEntry>, PeopleError> {
        self.ask(|reply| Command::People(PeopleCommand::RemoveToken(id, actor, reply))).await
    }
}

impl Writer {
    pub(super) async fn handle_people(&mut self, command: PeopleCommand) {
        // Whoever asked may have gone away; what was done stays done.
        match command {
            PeopleCommand::Change(change, actor, reply) => {
                let _ = reply.send(self.change_user(change, actor).await);
            }
            PeopleCommand::AddToken(token, actor, reply) => {
                let _ = reply.send(self.add_token(token, actor).await);
            }
            PeopleCommand::SweepLaptops(period, reply) => {
                let _ = reply.send(self.sweep_laptops(period).await);
            }
            PeopleCommand::RemoveToken(id, actor, reply) => {
                let _ = reply.send(self.remove_token(id, actor).await);
            }
        }
    }

    async fn change_user(&mut self, change: UserChange, actor: Actor) -> Result<Arc<UserEntry>, PeopleError> {
        let world = self.world();
        let now = UnixTime::from(SystemTime::now());
        let before = world.people.users.get(&change.name);
        let Some(user) = changed(&world.people, &change, now)? else {
            return before.cloned().ok_or(PeopleError::NoUser(change.name));
        };
        let event = event(&change, before, actor, now);
        let user = Arc::new(user);
        let mut people = People::clone(&world.people);
        let removed = matches!(change.deed, UserDeed::Remove);
        if removed {
            people.users.remove(&user.name);
            people.tokens.retain(|_, token| token.user != user.name);
        } else {
            people.users.insert(user.name.clone(), user.clone());
        }
        if world.people.has_owner() && !people.has_owner() {
            return Err(PeopleError::LastOwner(user.name.clone()));
        }
        let stored = user.clone();
        let made = self.change(async move |draft| {
            if removed {
                draft.write().user_removed(&stored.name).await?;
            } else {
                draft.write().user(&stored).await?;
            }
            draft.world.people = Arc::new(people);
            draft.audit(&event).await
        });
        made.await?;
        Ok(user)
    }

    async fn add_token(&mut self, token: TokenEntry, actor: Actor) -> Result<(), PeopleError> {
        let world = self.world();
        if !world.people.users.contains_key(&token.user) {
            return Err(PeopleError::NoUser(token.user));
        }
        if world.people.tokens.values().filter(|other| other.user == token.user).count() >= MOST_TOKENS {
            return Err(PeopleError::TooManyTokens(token.user));
        }
        let event = token_event(&token, "token.created", actor, token.created);
        let mut people = People::clone(&world.people);
        people.tokens.insert(token.id, Arc::new(token.clone()));
        let made = self.change(async move |draft| {
            draft.write().token(&token).await?;
            draft.world.people = Arc::new(people);
            draft.audit(&event).await
        });
        Ok(made.await?)
    }

    async fn remove_token(&mut self, id: KeyId, actor: Actor) -> Result<Arc<TokenEntry>, PeopleError> {
        let world = self.world();
        let mut people = People::clone(&world.people);
        let token = people.tokens.remove(&id).ok_or(PeopleError::NoToken(id))?;
        let event = token_event(&token, "token.removed", actor, UnixTime::from(SystemTime::now()));
        let made = self.change(async move |draft| {
            draft.write().token_removed(id).await?;
            draft.world.people = Arc::new(people);
            draft.audit(&event).await
        });
        made.await?;
        Ok(token)
    }
}

/// What somebody is after a change; `None` where that is what they are already.
fn changed(people: &People, change: &UserChange, now: UnixTime) -> Result<Option<UserEntry>, PeopleError> {
    let name = &change.name;
    let known = people.users.get(name);
    let new = match &change.deed {
        UserDeed::Add(roles, invitation) => Some((roles.clone(), None, Some(invitation.clone()))),
        UserDeed::AddFederated(roles, _) => Some((roles.clone(), None, None)),
        UserDeed::AddOwner(login) => {
            let everywhere = Roles { everywhere: Some(Role::Owner), ..Roles::default() };
            Some((everywhere, Some(login.clone()), None))
        }
        UserDeed::SetRoles(_)
        | UserDeed::Reset(_)
        | UserDeed::Accept(..)
        | UserDeed::ChangeLogin(_)
        | UserDeed::Link(_)
        | UserDeed::SetEnabled(_)
        | UserDeed::LogOut
        | UserDeed::Remove => None,
    };
    let federated = if let UserDeed::AddFederated(_, federated) | UserDeed::Link(federated) = &change.deed {
        Some(federated)
    } else {
        None
    };
    let is_theirs = |user: &&Arc<UserEntry>| {
        let own = user.federated.as_ref().zip(federated);
        user.name != *name && own.is_some_and(|(own, new)| own.is_same_person(new))
    };
    if let Some(other) = people.users.values().find(is_theirs) {
        return Err(PeopleError::LinkedElsewhere(other.name.clone()));
    }
    if let Some((roles, login, invitation)) = new {
        if known.is_some() {
            return Err(PeopleError::NameTaken(name.clone()));
        }
        if people.users.len() >= MOST_USERS {
            return Err(PeopleError::TooManyUsers);
        }
        return Ok(Some(UserEntry {
            name: name.clone(),
            roles,
            login,
            federated: federated.cloned(),
            invitation,
            created: now,
            disabled: None,
            version: 1,
            era: 1,
        }));
    }
    let known = known.ok_or_else(|| PeopleError::NoUser(name.clone()))?;
    if change.seen.is_some_and(|seen| seen != known.version) {
        return Err(PeopleError::Changed(name.clone()));
    }
    let mut user = UserEntry::clone(known);
    apply(&mut user, &change.deed, now)?;
    if user == **known && !matches!(change.deed, UserDeed::Remove) {
        return Ok(None);
    }
    user.version += 1;
    Ok(Some(user))
}

fn apply(user: &mut UserEntry, deed: &UserDeed, now: UnixTime) -> Result<(), PeopleError> {
    match deed {
        UserDeed::SetRoles(roles) => user.roles = roles.clone(),
        UserDeed::Link(federated) => user.federated = Some(federated.clone()),
        UserDeed::Reset(invitation) => {
            // Whoever had the one way in may have made the other.
            (user.login, user.federated) = (None, None);
            user.invitation = Some(invitation.clone());
            user.era += 1;
        }
        UserDeed::Accept(digest, login) => {
            let theirs = user.invitation.as_ref();
            if !theirs.is_some_and(|own| own.digest == *digest && now < own.expires) {
                return Err(PeopleError::NoInvitation);
            }
            (user.login, user.invitation) = (Some(login.clone()), None);
            user.era += 1;
        }
        UserDeed::ChangeLogin(login) => {
            user.login = Some(login.clone());
            user.era += 1;
        }
        UserDeed::SetEnabled(true) => user.disabled = None,
        UserDeed::SetEnabled(false) => {
            user.disabled = user.disabled.or(Some(now));
            user.era += 1;
        }
        UserDeed::LogOut => user.era += 1,
        // Those above made somebody new, and who is removed is what they were.
        UserDeed::Add(..) | UserDeed::AddFederated(..) | UserDeed::AddOwner(_) | UserDeed::Remove => {}
    }
    Ok(())
}

fn event(change: &UserChange, before: Option<&Arc<UserEntry>>, actor: Actor, time: UnixTime) -> Event {
    let linked = before.and_then(|user| user.federated.as_ref());
    let before = before.map(|user| &user.roles);
    let detail = match &change.deed {
        UserDeed::Add(roles, invitation) => {
            json!({ "after": roles, "invitation_expires": invitation.expires })
        }
        UserDeed::AddFederated(roles, federated) => json!({ "after": roles, "provider": federated }),
        UserDeed::Link(federated) => json!({ "before": linked, "after": federated }),
        UserDeed::SetRoles(roles) => json!({ "before": before, "after": roles }),
        UserDeed::Reset(invitation) => json!({ "invitation_expires": invitation.expires }),
        UserDeed::Remove => json!({ "before": before }),
        UserDeed::AddOwner(_)
        | UserDeed::Accept(..)
        | UserDeed::ChangeLogin(_)
        | UserDeed::SetEnabled(_)
        | UserDeed::LogOut => json!({}),
    };
    let (action, subject) = (change.deed.action(), change.name.to_string());
    Event { time, actor, action, network: None, subject, detail }
}

fn token_event(token: &TokenEntry, action: &'static str, actor: Actor, time: UnixTime) -> Event {
    Event {
        time,
        actor,
        action,
        network: None,
        subject: token.id.to_string(),
        detail: json!({
            "user": token.user, "label": token.label, "scopes": token.scopes, "expires": token.expires,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const NOW: UnixTime = UnixTime(1000);

    fn change(name: &str, deed: UserDeed) -> UserChange {
        UserChange { name: name.parse().unwrap(), deed, seen: None }
    }

    fn login() -> LocalLogin {
        LocalLogin { password_hash: "hash".into(), totp_secret: vec![7; 20] }
    }

    fn with(user: UserEntry) -> People {
        People { users: [(user.name.clone(), Arc::new(user))].into(), ..People::default() }
    }

    #[test]
    fn an_invitation_is_good_once_and_for_its_time() {
        let invitation = Invitation { digest: [1; 32], expires: NOW.plus(Duration::from_secs(10)) };
        let add = change("ada", UserDeed::Add(Roles::default(), invitation));
        let invited = changed(&People::default(), &add, NOW).unwrap().unwrap();
        assert!(!invited.is_active());
        let people = with(invited);
        assert!(matches!(changed(&people, &add, NOW), Err(PeopleError::NameTaken(_))));
        let accept = |digest| change("ada", UserDeed::Accept(digest, login()));
        let wrong = changed(&people, &accept([2; 32]), NOW);
        assert!(matches!(wrong, Err(PeopleError::NoInvitation)));
        let late = changed(&people, &accept([1; 32]), UnixTime(1010));
        assert!(matches!(late, Err(PeopleError::NoInvitation)));
        let ada = changed(&people, &accept([1; 32]), NOW).unwrap().unwrap();
        assert!(ada.is_active() && ada.era == 2);
        let again = changed(&with(ada), &accept([1; 32]), NOW);
        assert!(matches!(again, Err(PeopleError::NoInvitation)));
    }

    #[test]
    fn who_has_not_seen_the_latest_changes_nothing_and_what_is_so_already_is_no_change() {
        let ada = changed(&People::default(), &change("ada", UserDeed::AddOwner(login())), NOW).unwrap();
        let people = with(ada.unwrap());
        assert!(people.has_owner());
        let viewer = Roles { everywhere: Some(Role::Viewer), ..Roles::default() };
        let stale = UserChange { seen: Some(7), ..change("ada", UserDeed::SetRoles(viewer.clone())) };
        assert!(matches!(changed(&people, &stale, NOW), Err(PeopleError::Changed(_))));
        let fresh = UserChange { seen: Some(1), ..stale };
        let viewing = changed(&people, &fresh, NOW).unwrap().unwrap();
        assert_eq!(viewing.version, 2);
        let same = changed(&with(viewing), &change("ada", UserDeed::SetRoles(viewer)), NOW).unwrap();
        assert_eq!(same, None);
    }
}
