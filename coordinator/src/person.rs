//! Names of people behind a change, for the audit log: the administrator at the admin socket, by the kernel's word,
//! and whoever had a node do something, by the node's.

use std::time::Duration;

use nix::unistd::{Uid, User};
use ria_protocol::requester::{LocalChange, Requester};
use serde_json::{Value, json};

/// Longest name that is kept of what a node says.
const MAX_NAME: usize = 40;

/// A directory service that is away must not hold up administration.
const PATIENCE: Duration = Duration::from_secs(2);

/// No login: a service, or a process from before anybody logged in.
const NO_LOGIN: u32 = u32::MAX;

/// Somebody at the admin socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub uid: u32,
    /// Name of that user.
    pub user: Option<String>,
    /// Name of the user who logged in; with `sudo` it is another one.
    pub login: Option<String>,
}

impl Person {
    /// Who is behind a process. Unknown names are left out.
    pub async fn of(uid: u32, pid: Option<i32>) -> Self {
        let names = tokio::task::spawn_blocking(move || Self {
            uid,
            user: user_name(uid),
            login: pid.and_then(login_of).and_then(user_name),
        });
        match tokio::time::timeout(PATIENCE, names).await {
            Ok(Ok(person)) => person,
            Ok(Err(_)) | Err(_) => Self { uid, user: None, login: None },
        }
    }

    /// For the detail of an audit row.
    pub fn particulars(&self) -> Value {
        json!({ "uid": self.uid, "user": self.user, "login": self.login })
    }
}

fn user_name(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

fn login_of(pid: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NO_LOGIN)
}

/// What a node says of the one who had it do something: words for people, cleaned of what could harm a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    by: Requester,
    /// How many seconds before it was told.
    ago: u32,
}

impl Reported {
    /// Whoever had a node join.
    pub fn of(by: &Requester) -> Self {
        let name = |text: &Option<String>| text.as_deref().map(shown).filter(|text| !text.is_empty());
        let by = Requester {
            via: shown(&by.via),
            uid: by.uid,
            user: name(&by.user),
            login: name(&by.login),
            program: name(&by.program),
        };
        Self { by, ago: 0 }
    }

    /// Whoever changed something on a node.
    pub fn of_change(change: &LocalChange) -> Self {
        Self { ago: change.ago, ..Self::of(&change.by) }
    }

    /// For the detail of an audit row.
    pub fn particulars(&self) -> Value {
        let Requester { via, uid, user, login, program } = &self.by;
        json!({
            "via": via, "uid": uid, "user": user, "login": login, "program": program, "seconds_ago": self.ago,
        })
    }
}

/// A stranger's text ends up on an administrator's terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_has_a_name_and_a_stranger_has_none() {
        let root = Person::of(0, Some(-1)).await;
        assert_eq!((root.user.as_deref(), root.login), (Some("root"), None));
        let stranger = Person::of(3_999_999_999, None).await;
        assert_eq!(stranger, Person { uid: 3_999_999_999, user: None, login: None });
    }

    #[test]
    fn what_a_node_says_can_do_nothing_to_a_terminal() {
        let by = Requester {
            via: "socket\n".into(),
            user: Some("al\x1b[2Jice".into()),
            program: Some("x".repeat(10_000)),
            login: Some("\u{7}".into()),
            uid: Some(1000),
        };
        let said = Reported::of(&by).particulars();
        assert_eq!(
            (&said["via"], &said["user"], &said["uid"]),
            (&json!("socket"), &json!("al[2Jice"), &json!(1000))
        );
        assert_eq!((said["program"].as_str().unwrap().len(), &said["login"]), (MAX_NAME, &Value::Null));
    }
}
