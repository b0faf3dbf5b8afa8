//! What a program of Ria tells those who watch over it: the service manager how it is (sd_notify(3): ready, alive, stopping; one
//! datagram each, when there is somebody to tell), and Prometheus its figures ([`exposition`]).
//!
//! Owns the datagram and the watchdog's times, and the form of figures. What "alive" means, the program says by when it calls [`Watchdog::feed`].

pub mod exposition;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Sends a state such as `READY=1`.
pub fn notify(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket.to_string_lossy(), state)
    {
        tracing::debug!(%error, "the service manager can't be told");
    }
}

fn send(socket: &str, state: &str) -> std::io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

/// A service manager that restarts this program when it hears nothing for a time (`WatchdogSec=`).
#[derive(Debug)]
pub struct Watchdog {
    every: Duration,
    due: Instant,
}

impl Watchdog {
    /// The one that waits for this process, if one does.
    pub fn of_this_process() -> Option<Self> {
        Self::of(|name| std::env::var(name).ok(), std::process::id())
    }

    fn of(variable: impl Fn(&str) -> Option<String>, process: u32) -> Option<Self> {
        // Children inherit the variables, and must not answer for their parent.
        if variable("WATCHDOG_PID").is_some_and(|pid| pid.parse() != Ok(process)) {
            return None;
        }
        let patience: u64 = variable("WATCHDOG_USEC")?.parse().ok().filter(|usec| *usec > 0)?;
        // Half of its patience, as sd_watchdog_enabled(3) asks for.
        Some(Self { every: Duration::from_micros(patience / 2), due: Instant::now() })
    }

    /// How often it wants to hear something.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Whether it is to hear something now.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Tells it that the program is alive.
    pub fn feed(&mut self) {
        notify("WATCHDOG=1");
        self.due = Instant::now() + self.every;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("ria-notify-test-{}", std::process::id());
        for (bound, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}"),
            ),
        ] {
            send(&address, "READY=1").unwrap();
            let mut buffer = [0; 32];
            let len = bound.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], b"READY=1");
        }
    }

    #[test]
    fn a_watchdog_is_fed_twice_as_often_as_it_bites_and_only_by_whom_it_waits_for() {
        let with = |pid: Option<&str>, usec: Option<&str>| {
            let (pid, usec) = (pid.map(str::to_owned), usec.map(str::to_owned));
            Watchdog::of(
                move |name| match name {
                    "WATCHDOG_PID" => pid.clone(),
                    _ => usec.clone(),
                },
                42,
            )
            .map(|dog| dog.every())
        };
        assert_eq!(with(None, Some("30000000")), Some(Duration::from_secs(15)));
        assert_eq!(with(Some("42"), Some("2000000")), Some(Duration::from_secs(1)));
        assert_eq!(with(Some("43"), Some("2000000")), None);
        for nonsense in [None, Some(""), Some("0"), Some("soon")] {
            assert_eq!(with(Some("42"), nonsense), None, "{nonsense:?}");
        }
        let mut dog = Watchdog { every: Duration::from_secs(3600), due: Instant::now() };
        assert!(dog.is_due());
        dog.feed();
        assert!(!dog.is_due());
    }
}
