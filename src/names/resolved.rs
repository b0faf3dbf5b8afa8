//! Names by systemd-resolved: each overlay interface has its domains there, and a server at 127.0.0.1 for them, which is this
//! agent. Bare names are found because the network's domain is one to search in.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout};
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;
use zbus::{Connection, Proxy};

use super::dns::{MAX_QUERY, answer, sought};
use super::{Seek, Table};

const NAME: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const INTERFACE: &str = "org.freedesktop.resolve1.Manager";
const PATIENCE: Duration = Duration::from_secs(5);

/// Address family of IPv4 in resolved's words.
const INET: i32 = 2;

/// How long an answer waits for a member to come to be known; resolved asks again after five seconds.
const LATE: Duration = Duration::from_secs(2);

/// Most of those that wait at a time.
const MOST_LATE: usize = 64;

/// Where its stub answers; programs that ask there ask resolved.
const STUBS: [&str; 2] = ["127.0.0.53", "127.0.0.54"];

/// A server of the agent's own, and the way to tell resolved of it.
pub struct Resolved {
    connection: Connection,
    socket: UdpSocket,
    port: u16,
    buffer: [u8; MAX_QUERY],
    late: Vec<Late>,
}

/// A question about a member that may come to be known.
struct Late {
    query: Vec<u8>,
    from: SocketAddr,
    deadline: Instant,
}

impl Resolved {
    /// When resolved runs and programs of this machine ask it. `None` where they don't.
    pub async fn find() -> Option<Self> {
        if !is_asked(&read("/etc/resolv.conf"), &read("/etc/nsswitch.conf")) {
            return None;
        }
        Self::open().await.inspect_err(|error| tracing::debug!(%error, "systemd-resolved")).ok()?
    }

    async fn open() -> io::Result<Option<Self>> {
        let building = Builder::system().method_timeout(PATIENCE).build();
        let connection =
            timeout(PATIENCE, building).await.map_err(|_| silent())?.map_err(io::Error::other)?;
        let bus = DBusProxy::new(&connection).await.map_err(io::Error::other)?;
        let name = BusName::from_static_str(NAME).map_err(io::Error::other)?;
        if !bus.name_has_owner(name).await.map_err(io::Error::other)? {
            return Ok(None);
        }
        let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let port = socket.local_addr()?.port();
        Ok(Some(Self { connection, socket, port, buffer: [0; MAX_QUERY], late: Vec::new() }))
    }

    /// Has resolved ask here about these names. What an interface had that is gone, resolved forgets with it.
    pub async fn put(&self, table: &Table) -> io::Result<()> {
        let resolved = self.manager().await?;
        for zone in table.zones() {
            let Ok(index) = if_nametoindex(zone.interface.as_str()) else { continue };
            let index = index.cast_signed();
            let server = [(INET, Ipv4Addr::LOCALHOST.octets().to_vec(), self.port, "")];
            let domains: Vec<(&str, bool)> =
                zone.domains.iter().map(|(domain, only_routes)| (domain.as_str(), *only_routes)).collect();
            let calls = async {
                resolved.call::<_, _, ()>("SetLinkDNSEx", &(index, &server[..])).await?;
                resolved.call::<_, _, ()>("SetLinkDomains", &(index, domains)).await?;
                resolved.call::<_, _, ()>("SetLinkDefaultRoute", &(index, false)).await?;
                // Nobody signs these names, and the way to them does not leave this machine.
                resolved.call::<_, _, ()>("SetLinkDNSSEC", &(index, "no")).await?;
                resolved.call::<_, _, ()>("SetLinkDNSOverTLS", &(index, "no")).await?;
                resolved.call::<_, _, ()>("SetLinkLLMNR", &(index, "no")).await?;
                resolved.call::<_, _, ()>("SetLinkMulticastDNS", &(index, "no")).await
            };
            calls.await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Has it ask here no more.
    pub async fn withdraw(&self, table: &Table) {
        let Ok(resolved) = self.manager().await else { return };
        for zone in table.zones() {
            if let Ok(index) = if_nametoindex(zone.interface.as_str()) {
                // One whose interface went meanwhile has nothing left.
                let _ = resolved.call::<_, _, ()>("RevertLink", &index.cast_signed()).await;
            }
        }
    }

    /// Answers what is asked, until it is dropped. What may be answered better soon, because `seek` was told of it, waits.
    pub async fn serve(&mut self, table: &Table, seek: &Seek) {
        self.answer_late(table).await;
        loop {
            let due = self.late.iter().map(|late| late.deadline).min();
            let received = tokio::select! {
                received = self.socket.recv_from(&mut self.buffer) => received,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.answer_late(table).await;
                    continue;
                }
            };
            let Ok((length, from)) = received else { return };
            let Some(query) = self.buffer.get(..length) else { continue };
            if let Some(name) = sought(query, table).filter(|_| self.late.len() < MOST_LATE) {
                self.late.push(Late { query: query.to_vec(), from, deadline: Instant::now() + LATE });
                seek(name);
            } else if let Some(reply) = answer(query, table) {
                // A reply that does not get away is asked for again.
                let _ = self.socket.send_to(&reply, from).await;
            }
        }
    }

    /// Answers what can be answered now, and what has waited long enough.
    async fn answer_late(&mut self, table: &Table) {
        let now = Instant::now();
        for Late { query, from, deadline } in std::mem::take(&mut self.late) {
            if deadline > now && sought(&query, table).is_some() {
                self.late.push(Late { query, from, deadline });
            } else if let Some(reply) = answer(&query, table) {
                let _ = self.socket.send_to(&reply, from).await;
            }
        }
    }

    async fn manager(&self) -> io::Result<Proxy<'_>> {
        Proxy::new(&self.connection, NAME, PATH, INTERFACE).await.map_err(io::Error::other)
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the system bus does not answer")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(path)).unwrap_or_default()
}

/// Whether programs ask resolved: through its stub, or by its module of the C library.
fn is_asked(resolv_conf: &str, nsswitch: &str) -> bool {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let by_stub = servers.map(str::trim).any(|server| STUBS.contains(&server));
    let hosts = nsswitch.lines().filter_map(|line| line.trim().strip_prefix("hosts:"));
    by_stub || hosts.flat_map(str::split_whitespace).any(|service| service == "resolve")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolved_counts_where_programs_ask_it() {
        assert!(is_asked("# by hand\nnameserver 127.0.0.53\nsearch lab\n", "hosts: files dns\n"));
        assert!(is_asked(
            "nameserver 192.0.2.1\n",
            "passwd: files\nhosts:  files resolve [!UNAVAIL=return] dns\n"
        ));
        assert!(!is_asked("nameserver 192.0.2.1\n", "hosts: files dns\n# resolve\n"));
        assert!(!is_asked("# nameserver 127.0.0.53\n", ""));
    }
}
