//! Who calls, and who may change something: root, the agent's own user and members of the group `ria`.
//!
//! On the private socket the kernel tells (`SO_PEERCRED`, `SO_PEERGROUPS`: what the process had when it connected);
//! on a bus the bus does.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Group, Uid, User};
use ria_protocol::requester::Requester;
use zbus::Connection;
use zbus::message::Header;

use crate::CONTROL_GROUP;
use crate::error::ApiError;

/// No login: a service, or a process from before anybody logged in.
const NO_LOGIN: u32 = u32::MAX;

/// A process on this machine that calls the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its effective user.
    pub uid: u32,
    /// All of its groups.
    pub gids: Vec<u32>,
    /// Its process id; 0 when it can't be seen from here.
    pub pid: u32,
    /// The way that it came.
    pub via: Via,
    /// Names, as far as they are known; looked up only for who may change something.
    pub names: CallerNames,
}

/// A way to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The private socket.
    Socket,
    /// The system bus.
    Bus,
}

impl Via {
    /// The word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Bus => "bus",
        }
    }
}

/// Names of a caller, for people who read logs. They decide nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallerNames {
    /// Its user's.
    pub user: Option<String>,
    /// That of the user who logged in; with `sudo` it is another one.
    pub login: Option<String>,
    /// Its program's, which each program chooses for itself.
    pub program: Option<String>,
}

/// Where an object finds out who calls.
#[derive(Debug, Clone)]
pub(super) enum Access {
    /// One process holds the other end of the connection.
    Peer(Caller),
    /// Everybody is on the bus; it knows each sender.
    Bus,
}

impl Access {
    /// The sender of a message.
    pub(super) async fn caller(
        &self,
        connection: &Connection,
        header: &Header<'_>,
    ) -> Result<Caller, ApiError> {
        match self {
            Self::Peer(caller) => Ok(caller.clone()),
            Self::Bus => {
                let unknown = || ApiError::NotPermitted("the bus does not tell who is calling".into());
                let sender = header.sender().ok_or_else(unknown)?.clone().into();
                let bus = zbus::fdo::DBusProxy::new(connection).await?;
                let known = bus.get_connection_credentials(sender).await.map_err(zbus::Error::from)?;
                let uid = known.unix_user_id().ok_or_else(unknown)?;
                let gids = match known.unix_group_ids() {
                    Some(gids) => gids.clone(),
                    // Older buses don't tell.
                    None => tokio::task::spawn_blocking(move || groups_of(uid)).await.unwrap_or_default(),
                };
                Ok(Caller {
                    uid,
                    gids,
                    pid: known.process_id().unwrap_or_default(),
                    via: Via::Bus,
                    names: CallerNames::default(),
                })
            }
        }
    }
}

/// Groups of a user by the user database; none when it does not know.
fn groups_of(uid: u32) -> Vec<u32> {
    let Some(user) = User::from_uid(Uid::from_raw(uid)).ok().flatten() else { return Vec::new() };
    let Ok(name) = CString::new(user.name) else { return Vec::new() };
    let groups = nix::unistd::getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(nix::unistd::Gid::as_raw).collect()
}

impl Caller {
    /// The process at the other end of a socket.
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let peer = getsockopt(&socket, PeerCredentials)?;
        let mut gids = peer_groups(socket)?;
        if !gids.contains(&peer.gid()) {
            gids.push(peer.gid());
        }
        Ok(Self {
            uid: peer.uid(),
            gids,
            pid: u32::try_from(peer.pid()).unwrap_or_default(),
            via: Via::Socket,
            names: CallerNames::default(),
        })
    }

    /// Whether it may change something; if not, the error says how it could. Asks the group database, so it may block.
    pub fn may_change(&self) -> Result<(), ApiError> {
        if self.uid == 0 || self.uid == Uid::effective().as_raw() {
            return Ok(());
        }
        // A broken group database gives nobody more rights.
        let group = Group::from_name(CONTROL_GROUP).ok().flatten();
        match group {
            Some(group) if self.gids.contains(&group.gid.as_raw()) => Ok(()),
            Some(_) => Err(ApiError::NotPermitted(format!(
                "only root and members of the group \"{CONTROL_GROUP}\" may do this: use sudo, or join the group \
                 (sudo usermod -aG {CONTROL_GROUP} $USER) and log in again"
            ))),
            None => Err(ApiError::NotPermitted(format!(
                "only root may do this, because this machine has no group \"{CONTROL_GROUP}\": use sudo, or make the \
                 group (sudo groupadd --system {CONTROL_GROUP}; sudo usermod -aG {CONTROL_GROUP} $USER) and log in again"
            ))),
        }
    }
}

impl CallerNames {
    /// As they are now. Asks the user database, so it may block.
    pub(super) fn look_up(uid: u32, pid: u32) -> Self {
        let user = |uid| Some(User::from_uid(Uid::from_raw(uid)).ok()??.name);
        let of_process =
            |file| Some(std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?.trim().to_owned());
        let login = of_process("loginuid").and_then(|text| text.parse().ok()).filter(|uid| *uid != NO_LOGIN);
        Self { user: user(uid), login: login.and_then(user), program: of_process("comm") }
    }
}

impl From<Caller> for Requester {
    fn from(caller: Caller) -> Self {
        let CallerNames { user, login, program } = caller.names;
        Self { via: caller.via.as_str().into(), uid: Some(caller.uid), user, login, program }
    }
}

/// Supplementary groups of the process at the other end.
#[allow(unsafe_code, reason = "no safe wrapper has SO_PEERGROUPS")]
fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    /// More than this (the kernel allows 65536) no sane account has.
    const MAX: usize = 4096;
    let mut gids: Vec<libc::gid_t> = vec![0; MAX];
    let bytes = gids.len() * size_of::<libc::gid_t>();
    let mut length = libc::socklen_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: `socket` is open for the whole call; the pointer and `length` describe `gids`, which is initialised,
    // aligned for gid_t and not touched by anybody else; the kernel writes at most `length` bytes and updates it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            gids.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    gids.truncate(length as usize / size_of::<libc::gid_t>());
    Ok(gids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_who_is_at_the_other_end() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let caller = Caller::of(socket.as_fd()).unwrap();
        assert_eq!(caller.uid, Uid::effective().as_raw());
        assert_eq!(caller.pid, std::process::id());
        let mut own: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        own.push(nix::unistd::getegid().as_raw());
        assert!(own.iter().all(|gid| caller.gids.contains(gid)));
    }

    #[test]
    fn strangers_may_not_change_anything_and_learn_how_they_could() {
        let (via, names) = (Via::Socket, CallerNames::default());
        let stranger = Caller { uid: 65_533, gids: vec![65_533], pid: 1, via, names };
        let ApiError::NotPermitted(text) = stranger.may_change().unwrap_err() else { panic!("wrong error") };
        assert!(text.contains("sudo"), "{text}");
        let own = Caller { uid: Uid::effective().as_raw(), gids: vec![], ..stranger.clone() };
        assert!(own.may_change().is_ok());
        assert!(Caller { uid: 0, ..stranger }.may_change().is_ok());
    }
}
