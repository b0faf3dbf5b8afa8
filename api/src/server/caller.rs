//! Who calls, and who may change something: root, the agent's own user and members of the group `ria`.
//!
//! On the private socket the kernel tells (`SO_PEERCRED`, `SO_PEERGROUPS`: what the process had when it connected);
//! on a bus the bus does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Group, Uid};
use zbus::Connection;
use zbus::message::Header;

use crate::CONTROL_GROUP;
use crate::error::ApiError;

/// A process on this machine that calls the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its effective user.
    pub uid: u32,
    /// All of its groups.
    pub gids: Vec<u32>,
    /// Its process id; 0 when it can't be seen from here.
    pub pid: u32,
}

/// Where an object finds out who calls.
#[derive(Debug, Clone)]
pub(super) enum Access {
    /// One process holds the other end of the connection.
    Peer(Caller),
    /// Everybody is on the bus; it knows each sender.
    #[allow(dead_code, reason = "constructed once the agent is on the system bus too")]
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
                Ok(Caller {
                    uid: known.unix_user_id().ok_or_else(unknown)?,
                    gids: known.unix_group_ids().cloned().unwrap_or_default(),
                    pid: known.process_id().unwrap_or_default(),
                })
            }
        }
    }
}

impl Caller {
    /// The process at the other end of a socket.
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let peer = getsockopt(&socket, PeerCredentials)?;
        let mut gids = peer_groups(socket)?;
        if !gids.contains(&peer.gid()) {
            gids.push(peer.gid());
        }
        Ok(Self { uid: peer.uid(), gids, pid: u32::try_from(peer.pid()).unwrap_or_default() })
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
        let stranger = Caller { uid: 65_533, gids: vec![65_533], pid: 1 };
        let ApiError::NotPermitted(text) = stranger.may_change().unwrap_err() else { panic!("wrong error") };
        assert!(text.contains("sudo"), "{text}");
        let own = Caller { uid: Uid::effective().as_raw(), gids: vec![], pid: 1 };
        assert!(own.may_change().is_ok());
        assert!(Caller { uid: 0, ..stranger }.may_change().is_ok());
    }
}
