//! This machine as a gateway to its own local networks: what its kernel has to be told so that approved ones are reached.
//!
//! The engine translates addresses; the kernel forwards between `riaN` and the local network, and puts its own address there in the
//! place of the overlay's (masquerading), since devices know no way back. Rules are in a table of Ria's own, made anew as a
//! whole at each change. Nothing is touched while nothing is to be forwarded.

pub mod config;
mod forwarding;
mod rules;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ria_protocol::prefix::Prefix;
use tokio::time::Instant;

/// In the run directory: which interfaces forward because of Ria. There while anything is to be taken back.
const TRACE: &str = "gateway";

/// Until what has failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Something that is forwarded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// The overlay's interface, `riaN`.
    pub overlay: String,
    /// The addresses of its members.
    pub members: Prefix,
    /// The local network.
    pub lan: Prefix,
    /// The interface that it is on.
    pub interface: String,
}

/// The kernel can't be told.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No program.
    #[error("the program nft is missing; install it (apt install nftables)")]
    NoNft,
    /// It failed.
    #[error("nft refused the rules: {0}; on a kernel without nftables' NAT this machine can't be a gateway")]
    Nft(String),
    /// A switch.
    #[error(
        "forwarding can't be switched on for {interface}: {source}; the agent needs CAP_NET_ADMIN and /proc/sys/net/ipv4/conf \
         to be writable"
    )]
    Switch {
        /// Whose.
        interface: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The trace.
    #[error("{} can't be written: {source}", path.display())]
    Trace {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// What is in force.
#[derive(Debug)]
pub struct Gateway {
    trace: PathBuf,
    /// What the kernel was told; `None` when that is not known, as after a start.
    told: Option<BTreeSet<Forward>>,
    /// When it said no last.
    failed: Option<Instant>,
}

impl Gateway {
    /// Takes over what an earlier run has left.
    pub fn new(run_dir: &Path) -> Self {
        let trace = run_dir.join(TRACE);
        let told = (!trace.exists()).then(BTreeSet::new);
        Self { trace, told, failed: None }
    }

    /// Whether it is worth trying: what has failed is left for a while.
    pub fn may_try(&self) -> bool {
        self.failed.is_none_or(|at| at.elapsed() > RETRY)
    }

    /// Whether these are in force already.
    pub fn has(&self, wanted: &BTreeSet<Forward>) -> bool {
        self.told.as_ref() == Some(wanted)
    }

    /// Has the kernel forward these and nothing else for the overlay.
    pub async fn set(&mut self, wanted: BTreeSet<Forward>) -> Result<(), GatewayError> {
        self.told = None;
        let done = self.put(wanted).await;
        self.failed = done.is_err().then(Instant::now);
        done
    }

    async fn put(&mut self, wanted: BTreeSet<Forward>) -> Result<(), GatewayError> {
        let before = forwarding::read(&self.trace);
        if wanted.is_empty() {
            rules::remove().await?;
            forwarding::keep_only(&before, &BTreeSet::new());
            forget(&self.trace)?;
            self.told = Some(wanted);
            return Ok(());
        }
        let interfaces: BTreeSet<String> = wanted.iter().map(|forward| forward.interface.clone()).collect();
        let switched = forwarding::needed(&before, &interfaces);
        // Before anything is done, so that all of it can be taken back whatever happens.
        let all: BTreeSet<String> = before.union(&switched).cloned().collect();
        forwarding::write(&self.trace, &all)?;
        // The rules first: what is switched on must forward nothing else at any time.
        rules::install(&rules::text(&wanted, &switched)).await?;
        for interface in wanted.iter().map(|forward| &forward.overlay).chain(&switched) {
            forwarding::switch_on(interface)?;
        }
        forwarding::keep_only(&before, &switched);
        forwarding::write(&self.trace, &switched)?;
        self.told = Some(wanted);
        Ok(())
    }
}

/// Takes everything back that an agent with this run directory has left; whether there was anything.
pub async fn clear(run_dir: &Path) -> Result<bool, GatewayError> {
    let mut gateway = Gateway::new(run_dir);
    if gateway.has(&BTreeSet::new()) {
        return Ok(false);
    }
    gateway.set(BTreeSet::new()).await.map(|()| true)
}

fn forget(trace: &Path) -> Result<(), GatewayError> {
    match std::fs::remove_file(trace) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(GatewayError::Trace { path: trace.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
