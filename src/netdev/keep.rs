//! Interfaces that outlive the process: what marks them as Ria's, and the kernel's switches for it.
//!
//! Sockets are bound to an interface by its number. One that is made anew, with the same name and addresses, is another to
//! them, so a program that joined a multicast group on the old one hears nothing more. So an interface stays while its network
//! is on, also between two runs of the agent; without an agent it has no carrier, and what is sent to it goes nowhere.
#![allow(unsafe_code, reason = "two ioctls that take one integer each")]

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use ria_protocol::id::NetworkId;

nix::ioctl_write_int_bad!(
    /// `TUNSETPERSIST`: whether the interface outlives the descriptor.
    set_persist,
    nix::request_code_write!(b'T', 203, size_of::<nix::libc::c_int>())
);

nix::ioctl_write_int_bad!(
    /// `TUNSETOWNER`: who may open it again without `CAP_NET_ADMIN`.
    set_owner,
    nix::request_code_write!(b'T', 204, size_of::<nix::libc::c_int>())
);

/// Has an interface stay when its last descriptor is closed.
pub fn keep(device: &impl AsRawFd) -> io::Result<()> {
    let owner = i32::try_from(nix::unistd::geteuid().as_raw()).map_err(io::Error::other)?;
    let fd = device.as_raw_fd();
    // SAFETY: the descriptor is open while it is borrowed, and both calls take an integer and touch no memory. An interface
    // without an owner could be opened by everybody once nobody has it, so the owner comes first.
    unsafe { set_owner(fd, owner).and_then(|_| set_persist(fd, 1)) }?;
    Ok(())
}

/// Has an interface go when its last descriptor is closed.
pub fn release(device: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: as above.
    match unsafe { set_persist(device.as_raw_fd(), 0) } {
        // Somebody has removed it.
        Ok(_) | Err(Errno::EBADFD) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What an interface's alias says: which network it is for, and since when it is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// The network.
    pub network: NetworkId,
    /// Seconds since the machine's start.
    pub since: f64,
}

impl Label {
    /// Of an interface that is made now.
    pub fn now(network: NetworkId) -> Self {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        // As exact as it is written.
        Self { network, since: (now.as_secs_f64() * 1000.0).round() / 1000.0 }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ria {} since {:.3}", self.network, self.since)
    }
}

/// The alias is none of Ria's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign;

impl FromStr for Label {
    type Err = Foreign;

    fn from_str(alias: &str) -> Result<Self, Foreign> {
        let words: Vec<&str> = alias.split(' ').collect();
        let ["ria", network, "since", since] = words[..] else { return Err(Foreign) };
        let since = since.parse().ok().filter(|since: &f64| since.is_finite() && *since >= 0.0);
        let network = network.parse().map_err(|_| Foreign)?;
        since.map(|since| Self { network, since }).ok_or(Foreign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_they_are_written() {
        let label = Label::now(NetworkId::from_bytes([7; 10]));
        assert_eq!(label.to_string().parse(), Ok(label));
        assert!(label.since > 0.0);
        assert!(label.to_string().len() < 256, "the kernel's limit of an alias");
    }

    #[test]
    fn aliases_of_others_are_foreign() {
        let own = Label::now(NetworkId::from_bytes([7; 10])).to_string();
        for alias in ["", "ria", "uplink to the lab", &format!("{own} x"), &own.replace("since ", "since -")]
        {
            assert_eq!(alias.parse::<Label>(), Err(Foreign), "{alias}");
        }
    }
}
