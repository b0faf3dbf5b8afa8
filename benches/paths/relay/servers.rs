//! The two servers, side by side on one host, and what it takes to be their client.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use netlab::{Host, HostSpec, Lab, NetworkSpec, Process};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use ria_core::relay::RelayCredentials;
use ria_protocol::id::{NetworkId, NodeId};
use ring::hmac;

use super::Sample;
use crate::support::{Site, until};

const COTURN_SECRET: &str = "of-the-benchmark";
const COTURN_PORT: u16 = 3480;
const COTURN_TLS_PORT: u16 = 5349;

/// Ticks per second in `/proc/PID/stat`: the same on all Linux machines that users see.
const TICKS: f64 = 100.0;

/// Credentials are good for so long.
const LIFE: Duration = Duration::from_secs(3600);

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Ria,
    Coturn,
}

impl Contender {
    pub const BOTH: [Self; 2] = [Self::Ria, Self::Coturn];
}

/// Where a server is, and who its clients are.
pub struct Place {
    /// STUN and TURN over UDP.
    pub udp: SocketAddr,
    /// TURN over TLS.
    pub tls: SocketAddr,
    /// Of two clients.
    pub credentials: [RelayCredentials; 2],
}

/// What arrived, and how long it took.
pub struct Carried {
    pub payload: u64,
    pub time: Duration,
}

/// Both servers.
pub struct Servers {
    site: Site,
    coturn: Process,
    secret: Vec<u8>,
    /// Where this thread may run when all is over.
    cores: CpuSet,
}

impl Drop for Servers {
    fn drop(&mut self) {
        // It was allowed before.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.cores);
    }
}

impl Servers {
    /// Starts them, on the last core; the calling thread, and what it starts, is on the first one from now on.
    pub fn start() -> Result<Self> {
        let mut lab = Lab::new("bench-relay")?;
        lab.add_network("lan", NetworkSpec::new("198.51.100.0/24".parse()?))?;
        for host in ["coordinator", "load"] {
            lab.add_host(host, HostSpec::on("lan"))?;
        }
        let site = Site::start(lab)?;
        let host = site.lab.host("coordinator")?;
        let secret = std::fs::read_to_string(host.path("/var/lib/ria-coordinator/identity/relay.secret"))?;
        let secret = BASE64.decode(secret.trim().as_bytes())?;
        let coturn = start_coturn(&host, &site.log("coturn"))?;
        let cores = sched_getaffinity(Pid::from_raw(0))?;
        let usable: Vec<usize> =
            (0..CpuSet::count()).filter(|core| cores.is_set(*core) == Ok(true)).collect();
        let (Some(first), Some(last)) = (usable.first(), usable.last().filter(|_| usable.len() > 1)) else {
            bail!("this needs two cores, one for the server and one for the load");
        };
        for process in [site.coordinator()?, &coturn] {
            let pid = process.id().to_string();
            let line = ["taskset", "-a", "-c", "-p", &last.to_string(), &pid];
            let status = std::process::Command::new(line[0]).args(&line[1..]).output()?;
            ensure!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        }
        let mut own = CpuSet::new();
        own.set(*first)?;
        sched_setaffinity(Pid::from_raw(0), &own)?;
        Ok(Self { site, coturn, secret, cores })
    }

    /// One run against one of them.
    pub fn measure(
        &self,
        contender: Contender,
        carry: impl FnOnce(&Host, &Place) -> Result<Carried>,
    ) -> Result<Sample> {
        let place = self.place(contender)?;
        let process = match contender {
            Contender::Ria => self.site.coordinator()?,
            Contender::Coturn => &self.coturn,
        };
        let before = busy_seconds(process)?;
        let carried =
            carry(&self.site.lab.host("load")?, &place).with_context(|| format!("{contender:?}"))?;
        let busy = busy_seconds(process)? - before;
        #[allow(clippy::cast_precision_loss, reason = "some gigabytes")]
        let payload = carried.payload as f64;
        let mbps = payload * 8.0 / 1e6 / carried.time.as_secs_f64();
        Ok(Sample { mbps, cpu_s_per_gb: busy / (payload / 1e9) })
    }

    fn place(&self, contender: Contender) -> Result<Place> {
        let ip = IpAddr::V4(self.site.lab.host("coordinator")?.address());
        let expiry = (SystemTime::now().duration_since(UNIX_EPOCH)? + LIFE).as_secs();
        Ok(match contender {
            Contender::Ria => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
                let network = NetworkId::from_bytes([1; 10]);
                let of = |n: u8| format!("{expiry}:{network}:{}", NodeId::from_bytes([n; 10]));
                Place {
                    udp: (ip, 3478).into(),
                    tls: (ip, 443).into(),
                    credentials: [1, 2].map(|n| signed(&key, of(n))),
                }
            }
            Contender::Coturn => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, COTURN_SECRET.as_bytes());
                Place {
                    udp: (ip, COTURN_PORT).into(),
                    tls: (ip, COTURN_TLS_PORT).into(),
                    credentials: [1, 2].map(|n| signed(&key, format!("{expiry}:{n}"))),
                }
            }
        })
    }
}

fn signed(key: &hmac::Key, username: String) -> RelayCredentials {
    let password = BASE64.encode(hmac::sign(key, username.as_bytes()).as_ref());
    RelayCredentials { username, password }
}

/// A coturn as its manual has it, with one thread that relays.
fn start_coturn(host: &Host, log: &Path) -> Result<Process> {
    let made = rcgen::generate_simple_self_signed(vec!["relay.example".to_owned()])?;
    let (certificate, key) = (host.path("/run/coturn.crt"), host.path("/run/coturn.key"));
    std::fs::write(certificate, made.cert.pem())?;
    std::fs::write(key, made.signing_key.serialize_pem())?;
    let ip = host.address().to_string();
    let (port, tls_port) = (COTURN_PORT.to_string(), COTURN_TLS_PORT.to_string());
    let line = [
        "turnserver",
        "-n",
        "--no-cli",
        "--no-dtls",
        "--relay-threads",
        "1",
        "--listening-ip",
        &ip,
        "--relay-ip",
        &ip,
        "--listening-port",
        &port,
        "--tls-listening-port",
        &tls_port,
        "--realm",
        "bench",
        "--fingerprint",
        "--use-auth-secret",
        "--static-auth-secret",
        COTURN_SECRET,
        "--cert",
        "/run/coturn.crt",
        "--pkey",
        "/run/coturn.key",
        "--log-file",
        "stdout",
        "--simple-log",
        "--pidfile",
        "/run/coturn.pid",
    ];
    let coturn = host.spawn(&line, log).context("coturn is installed: scripts/bench installs it")?;
    let place = SocketAddr::from((host.address(), COTURN_TLS_PORT));
    until("coturn", || Ok(host.enter(|| std::net::TcpStream::connect(place)).is_ok()))?;
    Ok(coturn)
}

/// Processor time of a process so far.
fn busy_seconds(process: &Process) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
    // The name, in parentheses, may have spaces in it.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = (ticks(11).context("utime")?, ticks(12).context("stime")?);
    Ok((user + system) / TICKS)
}
