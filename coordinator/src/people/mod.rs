//! How people and their programs prove who they are: passwords with one-time codes, links, sessions, tokens; and how
//! guessing is slowed down. Who may do what is in [`crate::state::people`].

pub mod device;
pub mod guard;
pub mod login;
pub mod owner_link;
pub mod password;
pub mod secret;
pub mod sessions;
pub mod shelf;
pub mod totp;

use std::sync::Arc;
use std::time::Duration;

use device::Devices;
use guard::Guard;
use owner_link::OwnerLink;
use password::Passwords;
use ria_protocol::time::UnixTime;
use sessions::Sessions;
use shelf::{Kept, Kind, Shelf};

use crate::state::people::UserName;
use crate::store::{Store, StoreError};

/// A code is good for a step before and after its own, each of 30 s.
const CODE_REMEMBERED: Duration = Duration::from_secs(300);

/// What logging in works with. Where the database is this coordinator's alone, nothing of it outlives the process: a restart
/// ends all sessions.
#[derive(Debug)]
pub struct Logins {
    pub shelf: Arc<Shelf>,
    pub sessions: Sessions,
    pub guard: Guard,
    pub passwords: Passwords,
    pub owner_link: OwnerLink,
    /// Laptops that ask to be let in.
    pub devices: Devices,
    /// From which secrets of forms are derived.
    pub forms_key: [u8; 32],
}

impl Logins {
    /// Of a coordinator with this database.
    pub async fn of(store: &Store) -> Result<Self, StoreError> {
        let shelf = Arc::new(Shelf::of(store));
        let forms_key = match store.instance() {
            Some(_) => store.forms_key().await?,
            None => crate::random::bytes(),
        };
        Ok(Self {
            sessions: Sessions::new(shelf.clone()),
            guard: Guard::default(),
            passwords: Passwords::default(),
            owner_link: OwnerLink::new(shelf.clone()),
            devices: Devices::new(shelf.clone()),
            forms_key,
            shelf,
        })
    }

    /// Whether a one-time code is used for the first time, at whichever coordinator; from now on it was.
    pub async fn uses_code(&self, name: &UserName, step: u64, now: UnixTime) -> Result<bool, StoreError> {
        let id = secret::digest(format!("{name} {step}").as_bytes());
        let expires = now.plus(CODE_REMEMBERED);
        let used = Kept { owner: name.to_string(), value: String::new(), made: now, expires };
        Ok(self.guard.uses_code(name, step) && self.shelf.add(Kind::UsedCode, id, used, now).await?)
    }
}
