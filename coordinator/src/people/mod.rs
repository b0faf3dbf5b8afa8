//! How people and their programs prove who they are: passwords with one-time codes, links, sessions, tokens; and how
//! guessing is slowed down. Who may do what is in [`crate::state::people`].

pub mod device;
pub mod guard;
pub mod login;
pub mod owner_link;
pub mod password;
pub mod secret;
pub mod sessions;
pub mod totp;

use device::Devices;
use guard::Guard;
use owner_link::OwnerLink;
use password::Passwords;
use sessions::Sessions;

/// What logging in works with. Nothing of it outlives the process: a restart ends all sessions.
#[derive(Debug)]
pub struct Logins {
    pub sessions: Sessions,
    pub guard: Guard,
    pub passwords: Passwords,
    pub owner_link: OwnerLink,
    /// Laptops that ask to be let in.
    pub devices: Devices,
    /// What is only good while this process runs is derived from it.
    pub process_key: [u8; 32],
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            sessions: Sessions::default(),
            guard: Guard::default(),
            passwords: Passwords::default(),
            owner_link: OwnerLink::default(),
            devices: Devices::default(),
            process_key: crate::random::bytes(),
        }
    }
}
