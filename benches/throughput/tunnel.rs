//! Contenders: a tunnel between hosts `a` and `b`, one at a time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use netlab::{Host, Process};

use crate::support::{Agent, Site, until};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// No tunnel: the bound.
    Raw,
    /// Ria, MTU 1420 like the others.
    Ria,
    /// Ria as it comes, MTU 1280.
    Ria1280,
    /// Ria by the coordinator's relay, MTU 1420.
    RiaRelayed,
    /// wireguard-go of Debian 13, which uses the kernel's offloads.
    WireguardGo,
    /// boringtun-cli.
    Boringtun,
    /// gotatun-cli.
    Gotatun,
}

impl Contender {
    /// In the order in which they are measured.
    pub const ALL: [Self; 7] = [
        Self::Raw,
        Self::Ria,
        Self::WireguardGo,
        Self::Gotatun,
        Self::Boringtun,
        Self::Ria1280,
        Self::RiaRelayed,
    ];

    /// As in the metrics' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ria => "ria",
            Self::Ria1280 => "ria_1280",
            Self::RiaRelayed => "ria_relayed",
            Self::WireguardGo => "wireguard_go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
        }
    }

    /// The program of a rival with its arguments, and what its environment must say.
    fn rival(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Raw | Self::Ria | Self::Ria1280 | Self::RiaRelayed => None,
            Self::WireguardGo => Some(("wireguard-go", &["-f", INTERFACE])),
            Self::Boringtun => Some(("boringtun-cli", &["-f", "--disable-drop-privileges", INTERFACE])),
            Self::Gotatun => Some(("gotatun", &["-f", "--disable-drop-privileges", INTERFACE])),
        }
    }
}

const INTERFACE: &str = "wg0";
const PORT: &str = "51820";

/// A tunnel that is up. Dropping it ends its programs.
pub struct Tunnel {
    /// The end that sends.
    pub a: Host,
    /// The end that receives.
    pub b: Host,
    /// Address of `b` in the tunnel.
    pub address: String,
    /// Whether programs of both ends may have socket buffers of some megabytes.
    pub has_large_buffers: bool,
    programs: Vec<Process>,
    agents: Vec<Agent>,
}

impl Tunnel {
    /// Brings a contender's tunnel up and waits until it carries packets.
    pub fn start(site: &Site, contender: Contender) -> Result<Self> {
        let (a, b) = (site.lab.host("a")?, site.lab.host("b")?);
        let address = b.address().to_string();
        let has_large_buffers = allows_large_buffers(&a) && allows_large_buffers(&b);
        let (programs, agents) = (Vec::new(), Vec::new());
        let mut tunnel = Self { a, b, address, has_large_buffers, programs, agents };
        tunnel.cut_direct_path(site, contender == Contender::RiaRelayed)?;
        match contender {
            Contender::Raw => {}
            Contender::Ria => tunnel.start_ria(site, "wide", "direct")?,
            Contender::Ria1280 => tunnel.start_ria(site, "lab", "direct")?,
            Contender::RiaRelayed => tunnel.start_ria(site, "wide", "relay_udp")?,
            Contender::WireguardGo | Contender::Boringtun | Contender::Gotatun => {
                let (program, arguments) = contender.rival().context("a rival has a program")?;
                tunnel.start_rival(site, &rival(program)?, arguments)?;
            }
        }
        until("the tunnel", || Ok(tunnel.a.run(&["ping", "-c1", "-W1", &tunnel.address]).is_ok()))?;
        Ok(tunnel)
    }

    /// Leaves `a` nobody to speak to but the coordinator; or does not.
    fn cut_direct_path(&self, site: &Site, cut: bool) -> Result<()> {
        // Deleting what is not there is an error.
        let mut rules = "add table inet cut; delete table inet cut".to_owned();
        if cut {
            let coordinator = site.lab.host("coordinator")?.address();
            rules += &format!(
                "; add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; \
                 add chain inet cut in {{ type filter hook input priority 0; }}; \
                 add rule inet cut out oifname eth0 ip daddr != {coordinator} drop; \
                 add rule inet cut out oifname eth0 meta nfproto ipv6 drop; \
                 add rule inet cut in iifname eth0 ip saddr != {coordinator} drop; \
                 add rule inet cut in iifname eth0 meta nfproto ipv6 drop"
            );
        }
        self.a.run(&["nft", &rules])?;
        Ok(())
    }

    fn start_ria(&mut self, site: &Site, network: &str, path: &str) -> Result<()> {
        for host in ["a", "b"] {
            let state = site.lab.host(host)?.path("/var/lib/ria");
            if state.exists() {
                fs::remove_dir_all(state)?;
            }
            let key = site.log(host).with_extension("key");
            fs::write(&key, site.admin(&["key", "create", "--network", network])?)?;
            self.agents.push(site.agent(host, &["--join-file", &key.to_string_lossy()])?);
        }
        for agent in &self.agents {
            self.address = agent.address()?;
        }
        until(&format!("the path {path}"), || Ok(self.agents.iter().all(|agent| agent.peers_by(path) == 1)))
    }

    fn start_rival(&mut self, site: &Site, program: &Path, arguments: &[&str]) -> Result<()> {
        let hosts = [self.a.clone(), self.b.clone()];
        let keys = [key_pair(&hosts[0])?, key_pair(&hosts[1])?];
        for (n, host) in hosts.iter().enumerate() {
            let other = 1 - n;
            let line = [
                &[program.to_string_lossy().into_owned()],
                &arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>()[..],
            ]
            .concat();
            self.programs.push(host.spawn(&line, &site.log(host.name()))?);
            until("the rival", || Ok(host.run(&["wg", "show", INTERFACE]).is_ok()))?;
            let private = site.log(host.name()).with_extension("wg");
            fs::write(&private, &keys[n].0)?;
            let (private, endpoint) =
                (private.to_string_lossy().into_owned(), format!("{}:{PORT}", hosts[other].address()));
            let (own, allowed) = (format!("10.99.0.{}/24", n + 1), format!("10.99.0.{}/32", other + 1));
            host.run(&[
                "wg",
                "set",
                INTERFACE,
                "listen-port",
                PORT,
                "private-key",
                &private,
                "peer",
                &keys[other].1,
                "endpoint",
                &endpoint,
                "allowed-ips",
                &allowed,
            ])?;
            host.run(&["ip", "address", "add", &own, "dev", INTERFACE])?;
            host.run(&["ip", "link", "set", INTERFACE, "mtu", "1420", "up"])?;
        }
        "10.99.0.2".clone_into(&mut self.address);
        Ok(())
    }

    /// The tunnel's programs.
    pub fn programs(&self) -> impl Iterator<Item = &Process> {
        self.programs.iter().chain(self.agents.iter().map(|agent| &agent.process))
    }

    /// Peak resident memory of the larger of the tunnel's two programs, in MiB; NaN where there is none.
    pub fn peak_rss_mib(&self) -> Result<f64> {
        let mut peak = f64::NAN;
        for program in self.programs() {
            peak = peak.max(crate::support::memory_mib(program, "VmHWM")?);
        }
        Ok(peak)
    }
}

/// Whether this machine's limits allow socket buffers of some megabytes.
fn allows_large_buffers(host: &Host) -> bool {
    let limits =
        ["rmem_max", "wmem_max"].map(|limit| host.run(&["cat", &format!("/proc/sys/net/core/{limit}")]));
    limits
        .iter()
        .flatten()
        .filter_map(|limit| limit.trim().parse::<u64>().ok())
        .filter(|limit| *limit >= 2 << 20)
        .count()
        == 2
}

/// Private and public key.
fn key_pair(host: &Host) -> Result<(String, String)> {
    let private = host.run(&["wg", "genkey"])?.trim().to_owned();
    let public = host.run(&["sh", "-c", &format!("echo '{private}' | wg pubkey")])?.trim().to_owned();
    Ok((private, public))
}

/// Rivals lie where `scripts/lib/rivals` puts them.
/// The program of a rival.
pub fn rival(program: &str) -> Result<PathBuf> {
    let directory = std::env::var("RIA_RIVALS").context("RIA_RIVALS is not set; scripts/bench sets it")?;
    let path = Path::new(&directory).join(program);
    ensure!(path.exists(), "{} is missing; scripts/lib/rivals gets it", path.display());
    Ok(path)
}
