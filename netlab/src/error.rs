//! What can go wrong while a lab is built or changed.

use std::io;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use std::net::Ipv4Addr;

/// An error of [`crate::Lab`] and [`crate::Host`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces need root.
    #[error("netlab makes network namespaces and needs root: run it with sudo")]
    NotRoot,
    /// A program of the system is missing.
    #[error("'{tool}' is missing: install the Debian package '{package}' (apt-get install {package})")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// `ip`, `nft` or `tc` refused something.
    #[error("{node}: '{command}' failed: {stderr}")]
    Tool {
        /// The node it ran in.
        node: String,
        /// The command and, for batches, its input.
        command: String,
        /// What it said.
        stderr: String,
    },
    /// A program run in a host by [`crate::Host::run`] failed.
    #[error("{host}: '{command}' ended with {status}: {stderr}")]
    Program {
        /// The host it ran in.
        host: String,
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// The kernel refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A private directory can't be mounted over.
    #[error("'{}' can't be private to a host: {source}; name an existing directory", path.display())]
    Private {
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Names become host names and socket names.
    #[error("'{0}' is no usable name: use 1 to 40 of a-z, 0-9 and '-', beginning with a letter")]
    BadName(String),
    /// One name, two things.
    #[error("there are two nodes named '{0}'; names of networks, routers and hosts are unique")]
    Duplicate(String),
    /// A name that nothing in the lab has.
    #[error("no {kind} named '{name}' in this lab; there are: {known}")]
    Unknown {
        /// Network, host or link.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A network has one gateway.
    #[error(
        "network '{0}' has a gateway already; a network is the downlink of one router, and 'internet' of none"
    )]
    SecondGateway(String),
    /// A host got an address that its network doesn't have or has given away.
    #[error("address {address} is not free in network '{network}' ({prefix}, gateway at the first address)")]
    Address {
        /// The address asked for.
        address: Ipv4Addr,
        /// The network.
        network: String,
        /// Its prefix.
        prefix: Ipv4Net,
    },
    /// All addresses are given away.
    #[error("network '{network}' has no free address left in {prefix}")]
    Full {
        /// The network.
        network: String,
        /// Its prefix.
        prefix: IpNet,
    },
    /// A network needs addresses.
    #[error("network '{0}' has no addresses: give it a prefix, a prefix6, or both")]
    NoPrefix(String),
    /// An IPv4 address was asked for on a network that has none.
    #[error("network '{0}' has no IPv4: leave the address out, or give the network a prefix")]
    NoIpv4(String),
    /// Emulated translators know IPv4 only.
    #[error(
        "router '{0}' can't carry IPv6: an emulated nat knows IPv4 only; use 'port-preserving', 'symmetric' or 'none'"
    )]
    NoIpv6(String),
    /// Black-outs are for tests of minutes.
    #[error("a black-out lasts at most an hour; 'cut=on' has no end")]
    BlackOut,
    /// Only the emulated translators can be looked into and reset.
    #[error(
        "router '{0}' leaves translation to the kernel, which can't do that: give it an emulated nat \
         (endpoint-independent, port-restricted, address-dependent, address-and-port-dependent, or a table)"
    )]
    KernelNat(String),
    /// A description that can't be read.
    #[error("{0}")]
    Description(String),
    /// A link setting that can't be read.
    #[error(transparent)]
    Link(#[from] crate::link::LinkError),
}

impl Error {
    /// Wraps an I/O error with what was attempted.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}
