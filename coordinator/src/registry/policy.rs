//! Changes of a network's policy. Each makes a version: the text, the revision by which nodes are told, and the audit row
//! in one transaction.

use std::sync::Arc;
use std::time::SystemTime;

use ria_protocol::id::NetworkId;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::writer::Writer;
use super::{Command, Registry, Reply, Unavailable};
use crate::audit::{Actor, Event};
use crate::policy::ask::{Failed, Resolved, Roster, run_tests};
use crate::policy::difference::{Difference, difference};
use crate::policy::grant::{Grant, append};
use crate::policy::lockout::{Hands, LockOut, lock_out};
use crate::policy::text::{Problem, parse};
use crate::policy::{Policy, Who};
use crate::state::Network;
use crate::state::people::{People, Role, UserEntry};
use crate::state::policy::{InForce, PolicyVersion};
use crate::store::{Store, StoreError};

/// A change of a policy.
#[derive(Debug, Clone)]
pub struct PolicyEdit {
    pub what: PolicyChange,
    /// The version that it was made from; where that is not the last any more, it is refused.
    pub base: Option<u64>,
    /// Why, for people.
    pub note: String,
    /// Also where it locks its author, or everybody, out.
    pub force: bool,
}

/// What is changed.
#[derive(Debug, Clone)]
pub enum PolicyChange {
    /// This text is in force.
    Set(String),
    /// The text of this version is in force again.
    Rollback(u64),
    /// There is none: everything is allowed.
    Clear,
    /// One more rule, for a time.
    Grant(Box<Grant>),
}

/// A policy that was changed.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The network as it is now.
    pub network: Arc<Network>,
    pub checked: Checked,
}

/// A policy can't be changed so.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("there is no such network")]
    NoNetwork,
    #[error("the policy has mistakes, and nothing was changed:\n{}", lines(.0))]
    Mistakes(Vec<Problem>),
    #[error("tests of the policy fail, and nothing was changed:\n{}", failed(.0))]
    TestsFail(Vec<Failed>),
    #[error(
        "this policy would lock out who sets it, and nothing was changed: {0}. Add a rule that keeps it, or confirm that it is \
         meant (`--force`, or \"force\": true)"
    )]
    LocksOut(LockOut),
    #[error(
        "somebody else has changed the policy meanwhile: it was version {base}, and is version {now}; look at it \
         (`ria-coordinator policy show`), and make your change again"
    )]
    Changed { base: u64, now: u64 },
    #[error("there is no version {0} of the policy; `ria-coordinator policy history` shows all")]
    NoVersion(u64),
    #[error(
        "the network has no policy, so everything is allowed already; `ria-coordinator policy set` makes one"
    )]
    NoPolicy,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<StoreError> for PolicyError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

fn failed(tests: &[Failed]) -> String {
    let text = |test: &Failed| format!("  line {}: {}", test.line, test.text);
    tests.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// What could be in force in a network as it is now.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The policy with its text; absent where everything would be allowed.
    pub policy: Option<(String, Policy)>,
    /// What changes for whom against what is in force.
    pub difference: Difference,
    /// What may be a mistake.
    pub warnings: Vec<String>,
}

impl Checked {
    /// Whom it would lock out.
    fn lock_out(&self, network: &Network, hands: &Hands, now: UnixTime) -> Option<LockOut> {
        let roster = Roster::of(network);
        let before = network.resolved_policy();
        let before = before.as_ref().map(|(in_force, resolved)| (&in_force.policy, &**resolved));
        let (_, policy) = self.policy.as_ref()?;
        let resolved = Resolved::of(policy, &roster);
        lock_out(hands, &roster, (before, Some((policy, &resolved))), now)
    }
}

/// Whose hold counts when somebody changes the policy of a network.
fn hands(people: &People, network: NetworkId, actor: &Actor) -> Hands {
    let administers = |user: &&Arc<UserEntry>| user.roles.has(Role::Admin, network);
    let active = people.users.values().filter(|user| user.disabled.is_none());
    let author = if let Actor::User(name, _) = actor { Some(name.clone()) } else { None };
    Hands { author, admins: active.filter(administers).map(|user| user.name.clone()).collect() }
}

/// Checks a text (absent: no policy) against the members of now, without changing anything; its tests have to hold.
pub fn check(network: &Network, text: Option<String>, now: UnixTime) -> Result<Checked, PolicyError> {
    let roster = Roster::of(network);
    let before = network.resolved_policy();
    let before = before.as_ref().map(|(in_force, resolved)| (&in_force.policy, &**resolved));
    let Some(text) = text else {
        let difference = difference(before, None, &roster, now);
        return Ok(Checked { policy: None, difference, warnings: Vec::new() });
    };
    let policy = parse(&text).map_err(PolicyError::Mistakes)?;
    let resolved = Resolved::of(&policy, &roster);
    let failed = run_tests(&policy, &resolved, &roster);
    if !failed.is_empty() {
        return Err(PolicyError::TestsFail(failed));
    }
    let difference = difference(before, Some((&policy, &resolved)), &roster, now);
    let warnings = warnings(&policy, &roster, now);
    Ok(Checked { policy: Some((text, policy)), difference, warnings })
}

/// The text that a change puts in force; absent: none.
async fn wanted(
    store: &Store,
    network: &Network,
    what: &PolicyChange,
) -> Result<Option<String>, PolicyError> {
    let in_force = network.policy.in_force.as_ref().ok_or(PolicyError::NoPolicy);
    Ok(match what {
        PolicyChange::Set(text) => Some(text.clone()),
        PolicyChange::Clear => in_force.map(|_| None)?,
        PolicyChange::Grant(grant) => Some(append(&in_force?.text, grant)),
        PolicyChange::Rollback(version) => {
            let found = store.policy_version(network.info.id, *version).await?;
            found.ok_or(PolicyError::NoVersion(*version))?.text
        }
    })
}

impl PolicyChange {
    /// What it is called in the audit log.
    fn action(&self) -> &'static str {
        match self {
            Self::Set(_) => "policy.set",
            Self::Rollback(_) => "policy.rolled-back",
            Self::Clear => "policy.cleared",
            Self::Grant(_) => "policy.granted",
        }
    }
}

fn warnings(policy: &Policy, roster: &Roster, now: UnixTime) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in policy.names().filter(|name| roster.named(name).is_none()) {
        all.push(format!("{name} is no member (yet)"));
    }
    let has_laptop = |who: &Who| {
        roster.iter().any(|entry| match who {
            Who::Person(name) => entry.owner.as_ref() == Some(name),
            Who::People(group) => entry.groups.contains(group),
            Who::Everybody | Who::Node(_) | Who::Tag(_) | Who::Group(_) | Who::Route(_) => true,
        })
    };
    all.extend(
        policy.people().filter(|who| !has_laptop(who)).map(|who| format!("{who} has no laptop here (yet)")),
    );
    for prefix in policy.routes().filter(|prefix| roster.devices(*prefix).is_none()) {
        all.push(format!("nothing is reached at {prefix} (yet): ria-coordinator route list"));
    }
    let has = |tag: &str| roster.iter().any(|entry| entry.tags.iter().any(|own| own == tag));
    for tag in policy.tags().filter(|tag| !has(tag)) {
        all.push(format!("nobody has tag {tag} (yet)"));
    }
    let ended = policy.rules.iter().filter(|rule| rule.period.is_some_and(|period| period.until <= now));
    all.extend(ended.map(|rule| format!("{rule} has ended; it can be taken out")));
    let used = |group: &str| {
        let sides = policy.rules.iter().flat_map(|rule| rule.from.iter().chain(&rule.to));
        let tests = policy.tests.iter().flat_map(|test| [&test.from, &test.to]);
        sides.chain(tests).any(|who| matches!(who, Who::Group(named) if named == group))
    };
    all.extend(
        policy.groups.keys().filter(|g| !used(g)).map(|group| format!("group {group} is used nowhere")),
    );
    all.sort();
    all.dedup();
    all
}

impl Registry {
    /// Changes a network's policy.
    pub async fn set_policy(
        &self,
        network: NetworkId,
        edit: PolicyEdit,
        actor: Actor,
    ) -> Result<Changed, PolicyError> {
        self.ask(|reply| Command::SetPolicy(Box::new(Wanted { network, edit, actor, reply }))).await
    }

    /// What a change of a network's policy would do, without doing it.
    pub async fn preview_policy(
        &self,
        network: NetworkId,
        what: &PolicyChange,
        actor: &Actor,
    ) -> Result<Checked, PolicyError> {
        let world = self.world();
        let network = world.networks.get(&network).ok_or(PolicyError::NoNetwork)?;
        let text = wanted(&self.store, network, what).await?;
        let now = UnixTime::from(SystemTime::now());
        let mut checked = check(network, text, now)?;
        let hands = hands(&world.people, network.info.id, actor);
        if let Some(out) = checked.lock_out(network, &hands, now) {
            checked.warnings.insert(0, PolicyError::LocksOut(out).to_string());
        }
        Ok(checked)
    }

    /// All versions of a network's policy, oldest first.
    pub async fn policy_versions(&self, network: NetworkId) -> Result<Vec<PolicyVersion>, StoreError> {
        self.store.policy_versions(network).await
    }

    /// One version of a network's policy.
    pub async fn policy_version(
        &self,
        network: NetworkId,
        version: u64,
    ) -> Result<Option<PolicyVersion>, StoreError> {
        self.store.policy_version(network, version).await
    }
}

/// A change that somebody wants, and waits for.
#[derive(Debug)]
pub(super) struct Wanted {
    network: NetworkId,
    edit: PolicyEdit,
    actor: Actor,
    reply: Reply<Changed, PolicyError>,
}

impl Writer {
    pub(super) async fn handle_policy(&mut self, wanted: Wanted) {
        let Wanted { network, edit, actor, reply } = wanted;
        // Whoever asked may have gone away; what was done stays done.
        let _ = reply.send(self.set_policy(network, edit, actor).await);
    }

    async fn set_policy(
        &mut self,
        network: NetworkId,
        edit: PolicyEdit,
        actor: Actor,
    ) -> Result<Changed, PolicyError> {
        let world = self.world();
        let network = world.networks.get(&network).ok_or(PolicyError::NoNetwork)?;
        let last = network.policy.version;
        if let Some(base) = edit.base.filter(|base| *base != last) {
            return Err(PolicyError::Changed { base, now: last });
        }
        let now = UnixTime::from(SystemTime::now());
        let text = wanted(self.store(), network, &edit.what).await?;
        let checked = check(network, text, now)?;
        let out = checked.lock_out(network, &hands(&world.people, network.info.id, &actor), now);
        if let Some(out) = out.as_ref().filter(|_| !edit.force) {
            return Err(PolicyError::LocksOut(out.clone()));
        }
        let version = PolicyVersion {
            version: last + 1,
            text: checked.policy.as_ref().map(|(text, _)| text.clone()),
            time: now,
            actor: actor.to_string(),
            note: edit.note,
        };
        let mut event = event(network, &version, &checked, (actor, edit.what.action()));
        if let (Some(out), Some(detail)) = (out, event.detail.as_object_mut()) {
            detail.insert("locks_out".to_owned(), json!(out.to_string()));
        }
        let mut changed = Network::clone(network);
        changed.policy.version = version.version;
        changed.policy.in_force = checked
            .policy
            .clone()
            .map(|(text, policy)| Arc::new(InForce { version: version.version, text, policy, since: now }));
        let made = self.change(async move |draft| {
            draft.write().policy(changed.info.id, &version).await?;
            let made = draft.change_network(changed, Vec::new()).await?;
            draft.audit(&event).await?;
            Ok(made)
        });
        Ok(Changed { network: made.await?, checked })
    }
}

/// The texts themselves are kept with the versions; the row has what they hash to, so that they can't be exchanged.
fn event(
    network: &Network,
    version: &PolicyVersion,
    checked: &Checked,
    (actor, action): (Actor, &'static str),
) -> Event {
    let digest = |text: &str| {
        data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
    };
    let before = network.policy.in_force.as_ref();
    Event {
        time: version.time,
        actor,
        action,
        network: Some(network.info.id),
        subject: network.info.name.to_string(),
        detail: json!({
            "version": version.version,
            "note": version.note,
            "before": before.map(|before| json!({ "version": before.version, "sha256": digest(&before.text) })),
            "after": version.text.as_deref().map(|text| json!({ "sha256": digest(text) })),
            "rules": checked.policy.as_ref().map(|(_, policy)| policy.rules.len()),
            "pairs_changed": checked.difference.pairs,
            "device_pairs_changed": checked.difference.device_pairs,
        }),
    }
}
