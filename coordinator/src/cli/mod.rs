//! The command line: what can be typed, and what comes of it.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 no coordinator is running here.

mod audit;
mod authorities;
mod commands;
mod enrolment;
mod links;
mod people;
mod policy;
mod relays;
pub(crate) mod routes;
mod serve;
mod standalone;
mod stock;
mod table;
mod upkeep;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ria_protocol::demand::PeerMode;
use ria_protocol::keys::WgPublicKey;
use ria_protocol::multicast::MulticastGroups;
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;

use crate::config::Flags;
use crate::duration::Lifetime;
use crate::state::domains::WantedDomains;

/// Coordinator of Ria networks: decides who is a member, tells nodes of each other, and relays for them.
#[derive(Debug, Parser)]
#[command(name = "ria-coordinator", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Begin with:\n  \
    sudo ria-coordinator serve --public-url https://ria.lab.example\n  \
    sudo ria-coordinator key create > robot.key\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 no coordinator is running here")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the coordinator
    #[command(
        after_help = "Without arguments it works: data in /var/lib/ria-coordinator, port 443, own authority, \
        own relay on UDP port 3478, and a network named lab.\n\n\
        Examples:\n  ria-coordinator serve --public-url https://ria.lab.example\n  \
        ria-coordinator serve --listen 192.0.2.7:8443 --public-url https://192.0.2.7:8443 --data-dir ./data\n\n\
        Each setting is taken from its flag, else its RIA_* variable, else the configuration file, else the default."
    )]
    Serve(ServeArgs),
    /// Check the settings that `serve` would use, without starting anything
    #[command(after_help = "Example:\n  ria-coordinator check-config --config ./coordinator.toml")]
    CheckConfig {
        #[command(flatten)]
        serve: ServeArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Networks: each has its own members and addresses
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Join keys: what a node needs to become a member
    #[command(subcommand)]
    Key(KeyCommand),
    /// Nodes: the members of networks
    #[command(subcommand)]
    Node(NodeCommand),
    /// Links: how members reach each other
    #[command(subcommand)]
    Link(links::LinkCommand),
    /// Local networks behind nodes, such as a robot's LiDAR: offered by nodes, approved here
    #[command(subcommand)]
    Route(routes::RouteCommand),
    /// Policies: who may begin what with whom in a network
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// People who log in to the pages, their roles, and API tokens
    #[command(subcommand)]
    User(people::UserCommand),
    /// The audit log: who changed what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Certification authorities: the one in use, and those before it
    #[command(subcommand)]
    Ca(authorities::CaCommand),
    /// Where nodes are told to find this coordinator, besides the public_url of its settings
    #[command(subcommand)]
    Url(UrlCommand),
    /// Relays: where nodes meet that find no direct path, besides the coordinator's own; without a verb, run one here
    #[command(
        after_help = "Without a verb it runs a relay on this machine, which needs nothing but a key of the coordinator's.\n\n\
        Examples:\n  on the coordinator: ria-coordinator relay add vps > relay.key\n  \
        on the other machine: ria-coordinator relay --key-file relay.key\n\n\
        Each setting is taken from its flag, else its RIA_* variable, else the configuration file, else the default.\n\
        Exit codes of a relay that runs: 0 stopped, 1 failed, 2 wrong usage or settings, 4 refused by the coordinator"
    )]
    Relay(relays::RelayArgs),
    /// Write all that the coordinator is into one file; it may serve meanwhile
    #[command(
        after_help = "Examples:\n  ria-coordinator backup /mnt/safe/ria.backup --passphrase-file /root/ria-passphrase\n  \
        ria-coordinator backup - --passphrase-file /root/ria-passphrase | ssh safe 'cat > ria.backup'"
    )]
    Backup(upkeep::BackupArgs),
    /// Put a backup in place, here or on another machine; no coordinator may run on the data directory
    #[command(
        after_help = "A restore begins a new epoch: nodes get the whole map, those that joined after the backup was made\n\
        come back, and those that were removed after it go again. The old coordinator must not run any more.\n\n\
        Example:\n  ria-coordinator restore /mnt/safe/ria.backup --passphrase-file /root/ria-passphrase"
    )]
    Restore(upkeep::RestoreArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  ria-coordinator completions bash > /etc/bash_completion.d/ria-coordinator"
    )]
    Completions { shell: Shell },
    /// Write the manual pages, one for each command, into a directory
    #[command(after_help = "Example:\n  ria-coordinator man /usr/local/share/man/man1")]
    Man { directory: PathBuf },
}

#[derive(Debug, Default, Args)]
struct ServeArgs {
    /// Configuration file [RIA_COORDINATOR_CONFIG; default: /etc/ria/coordinator.toml if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept [RIA_DATA_DIR; default: /var/lib/ria-coordinator]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port of all TLS connections [RIA_LISTEN; default: all addresses, port 443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where nodes reach this coordinator: https://NAME or https://NAME:PORT; may be given several times, best first
    /// [RIA_PUBLIC_URL, with commas]
    #[arg(long, value_name = "URL")]
    public_url: Vec<String>,
    /// Database [RIA_DATABASE; default: SQLite in the data directory]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Socket of the admin commands [RIA_ADMIN_SOCKET; default: /run/ria/coordinator.sock]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
}

impl ServeArgs {
    fn into_flags(self) -> Flags {
        Flags {
            config: self.config,
            data_dir: self.data_dir,
            listen: self.listen,
            public_url: self.public_url,
            database: self.database,
            admin_socket: self.admin_socket,
        }
    }
}

/// What all commands have that talk to a running coordinator.
#[derive(Debug, Args)]
struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Socket of the coordinator [RIA_ADMIN_SOCKET; default: /run/ria/coordinator.sock]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// Make a network
    #[command(after_help = "Example:\n  ria-coordinator network create field-team --prefix 10.220.0.0/16")]
    Create {
        name: Name,
        /// IPv4 prefix of its addresses [default: the first free one of 10.213.0.0/16, 10.214.0.0/16 ...]
        #[arg(long)]
        prefix: Option<Prefix>,
        /// MTU of the overlay interfaces in bytes, 1280 to 8900; more than 1280 only where every path between members,
        /// relayed ones too, carries 84 bytes more than that [default: 1280]
        #[arg(long)]
        mtu: Option<u16>,
        /// ROS domains of its members: 'shared' (one for all, that no other network here has), 'per-robot' (one for each,
        /// 1 to 101), or a list such as 7 or 7,8 or 10-19 for all, the first being the usual one. They are handed out by
        /// 'ria env', and discovery of others is not carried [default: everybody's own choice, all are carried]
        #[arg(long, value_name = "shared|per-robot|LIST")]
        ros_domains: Option<WantedDomains>,
        /// Multicast groups with their UDP ports that members get each other's packets of, beside the discovery of ROS 2:
        /// mdns, 239.1.2.3:5000, 239.1.2.3:5000-5010, several with a comma between [default: none]
        #[arg(long, value_name = "GROUPS")]
        multicast: Option<MulticastGroups>,
        /// Of whom its members are told: 'push' (everybody), or 'on-demand' (those that they have to do with), as 'network
        /// peers' has it [default: push]
        #[arg(long, value_name = "push|on-demand")]
        peers: Option<PeerMode>,
        #[command(flatten)]
        common: Common,
    },
    /// Change of whom the members of a network are told
    #[command(after_help = "Examples:\n  ria-coordinator network peers fleet on-demand\n  \
        ria-coordinator network peers fleet push\n\n\
        push: each member is told of all others. on-demand, for networks of many hundreds: of those that it sends something \
        to or that send something to it, until both have had nothing to say to each other for some minutes. Robots there do \
        not discover each other's ROS nodes by themselves. Members connect anew within some seconds.")]
    Peers {
        /// Its name
        name: String,
        /// push or on-demand
        mode: PeerMode,
        #[command(flatten)]
        common: Common,
    },
    /// Change which multicast groups a network carries beside the discovery of ROS 2
    #[command(after_help = "Examples:\n  ria-coordinator network multicast lab mdns\n  \
        ria-coordinator network multicast lab mdns,239.1.2.3:5000-5010\n  \
        ria-coordinator network multicast lab none\n\n\
        Members follow within a second. Where a policy is in force, it has to allow a group as well; one that a rule \
        names is carried without this.")]
    Multicast {
        /// Its name
        name: String,
        /// mdns, 239.1.2.3:5000, 239.1.2.3:5000-5010, several with a comma between; or none
        groups: MulticastGroups,
        #[command(flatten)]
        common: Common,
    },
    /// List the networks
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show a network
    Show {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a join key and print it; it is shown only once
    #[command(after_help = "The key is all that is printed on standard output. Treat it as a password.\n\n\
        Examples:\n  ria-coordinator key create > robot.key\n  \
        ria-coordinator key create --reusable --expires 30d --tag arm --network lab\n  \
        ria-coordinator key create --reusable --approve > image.key\n  \
        ria-coordinator key create --reusable --ephemeral=30m")]
    Create {
        /// The network that it admits to [default: the only one]
        #[arg(long)]
        network: Option<Name>,
        /// Admit any number of nodes, not just one
        #[arg(long)]
        reusable: bool,
        /// How long it is good for: 30m, 12h, 7d or never
        #[arg(long, value_name = "DURATION", default_value = "7d")]
        expires: Lifetime,
        /// Tag of the nodes that join by it; may be given several times
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<Name>,
        /// Remove nodes that joined by it once they were away for so long [10m unless a duration is given]
        #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "10m")]
        ephemeral: Option<Lifetime>,
        /// Let each node wait until `node approve`
        #[arg(long)]
        approve: bool,
        #[command(flatten)]
        common: Common,
    },
    /// List the join keys, without their secrets
    List {
        /// Only those of this network
        #[arg(long)]
        network: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show a join key, and who has used it
    #[command(after_help = "Example:\n  ria-coordinator key show $ID    (IDs: ria-coordinator key list)")]
    Show {
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Revoke a join key: nobody joins by it any more; who has joined stays
    #[command(after_help = "Example:\n  ria-coordinator key revoke $ID    (IDs: ria-coordinator key list)")]
    Revoke {
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

/// A node, and the network where its name is not enough.
#[derive(Debug, Args)]
struct NodeArgs {
    /// Name or id of the node
    node: String,
    /// Its network, where several have a node of this name
    #[arg(long)]
    network: Option<String>,
}

/// A node that waits for approval.
#[derive(Debug, Args)]
struct PendingArgs {
    /// Fingerprint, name or id of the node
    node: String,
    /// Its network, where several have such a node
    #[arg(long)]
    network: Option<String>,
}

/// How a static peer reaches the network.
#[derive(Debug, Args)]
struct StaticWayArgs {
    /// The member that forwards for it, and sees what it says; without this all members talk to it themselves
    #[arg(long, value_name = "MEMBER")]
    via: Option<String>,
    /// Where the device reaches its gateway, or a member [default: as the coordinator knows it]; may be given several times
    #[arg(long = "endpoint", value_name = "[MEMBER=]HOST:PORT")]
    endpoints: Vec<String>,
    /// Add a pre-shared key
    #[arg(long)]
    psk: bool,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// List the nodes
    List {
        /// Only those of this network
        #[arg(long)]
        network: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show a node
    #[command(after_help = "Example:\n  ria-coordinator node show robot-7")]
    Show {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Show what has happened to a node's links since the coordinator was started: other paths, other Wi-Fi
    #[command(after_help = "Example:\n  ria-coordinator node history robot-7")]
    History {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Give a node another name; it keeps its addresses
    #[command(after_help = "Example:\n  ria-coordinator node rename robot-2 robot-7")]
    Rename {
        #[command(flatten)]
        node: NodeArgs,
        /// The new name, such as robot-7
        name: Name,
        #[command(flatten)]
        common: Common,
    },
    /// Add tags to a node, or remove some
    #[command(after_help = "Example:\n  ria-coordinator node tag robot-7 --add arm --remove spare")]
    Tag {
        #[command(flatten)]
        node: NodeArgs,
        /// A tag to add; may be given several times
        #[arg(long, value_name = "TAG", required_unless_present = "remove")]
        add: Vec<Name>,
        /// A tag to remove; may be given several times
        #[arg(long, value_name = "TAG")]
        remove: Vec<Name>,
        #[command(flatten)]
        common: Common,
    },
    /// List the nodes that wait for approval, and those that were rejected
    Pending {
        /// Only those of this network
        #[arg(long)]
        network: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Let a node in that waits for approval; compare its fingerprint with `ria status` on the machine first
    #[command(after_help = "Example:\n  ria-coordinator node approve k3vq-7mzc-2dhf-pa6x")]
    Approve {
        #[command(flatten)]
        node: PendingArgs,
        /// Give it this name, not the one that it asked for
        #[arg(long, value_name = "NAME")]
        name: Option<Name>,
        #[command(flatten)]
        common: Common,
    },
    /// Do not let a node in that waits for approval; `approve` still can
    #[command(after_help = "Example:\n  ria-coordinator node reject k3vq-7mzc-2dhf-pa6x")]
    Reject {
        #[command(flatten)]
        node: PendingArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Keep a node out for the time being: nothing of it gets through, at once; it keeps its name and address
    #[command(after_help = "Example:\n  ria-coordinator node disable robot-7    (back: node enable robot-7)")]
    Disable {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Let a disabled node take part again; it comes back by itself
    #[command(after_help = "Example:\n  ria-coordinator node enable robot-7")]
    Enable {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Add a device with stock WireGuard, such as a phone, and print its configuration file
    #[command(
        after_help = "The file is all that is printed on standard output. It holds secrets that are shown this once.\n\n\
        Examples:\n  ria-coordinator node add-static phone --via robot-1 > phone.conf\n  \
        ria-coordinator node add-static scanner --public-key $KEY --via gate --endpoint ria.lab.example:41820 --psk\n  \
        ria-coordinator node add-static server --listens-at 192.0.2.9:51820"
    )]
    AddStatic {
        /// Name of the device
        name: Name,
        /// Its network [default: the only one]
        #[arg(long)]
        network: Option<Name>,
        #[command(flatten)]
        way: StaticWayArgs,
        /// Public key of a pair that the device made itself; without this a pair is made and printed in the file
        #[arg(long, value_name = "KEY")]
        public_key: Option<WgPublicKey>,
        /// Address and port where the device itself listens, if they never change: members may then begin
        #[arg(long, value_name = "ADDRESS:PORT")]
        listens_at: Option<SocketAddr>,
        /// Seconds between keepalives, which keep NATs open; 0 for none
        #[arg(long, value_name = "SECONDS", default_value_t = 25)]
        keepalive: u16,
        /// Tag of the device; may be given several times
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<Name>,
        #[command(flatten)]
        common: Common,
    },
    /// Give a static peer another gateway, or none, and print its new configuration file
    #[command(after_help = "The device needs the new file; its own private key stays as it is.\n\n\
        Example:\n  ria-coordinator node set-gateway phone --via robot-2")]
    SetGateway {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        way: StaticWayArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a node from its network for good; it can come back only with a new join key
    #[command(after_help = "Example:\n  ria-coordinator node remove robot-7")]
    Remove {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum UrlCommand {
    /// List the URLs, in the order in which nodes try them
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Tell nodes of one more
    #[command(
        after_help = "Nodes keep the list. Before the coordinator moves, add its new URL and wait until `node list`\n\
        shows that all have heard of it.\n\nExample:\n  ria-coordinator url add https://ria-2.lab.example"
    )]
    Add {
        url: String,
        #[command(flatten)]
        common: Common,
    },
    /// Take away one that was added
    Remove {
        url: String,
        #[command(flatten)]
        common: Common,
    },
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_RUNNING: u8 = 3;
const REFUSED: u8 = 4;

/// A variable of the environment.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(args) => serve::serve(args),
        Command::CheckConfig { serve, json } => serve::check_config(serve, json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ria-coordinator", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man { directory } => manual(&directory),
        Command::Network(command) => commands::run(commands::Request::Network(command)),
        Command::Key(command) => commands::run(commands::Request::Key(command)),
        Command::Node(command) => commands::run(commands::Request::Node(command)),
        Command::Link(command) => commands::run(commands::Request::Link(command)),
        Command::Audit(audit::AuditCommand::Verify(args)) => upkeep::verify(args),
        Command::Audit(command) => commands::run(commands::Request::Audit(command)),
        Command::Policy(command) => commands::run(commands::Request::Policy(Box::new(command))),
        Command::Route(command) => commands::run(commands::Request::Route(command)),
        Command::User(command) => commands::run(commands::Request::User(command)),
        Command::Ca(command) => commands::run(commands::Request::Ca(command)),
        Command::Url(command) => commands::run(commands::Request::Url(command)),
        Command::Relay(args) => relays::dispatch(args),
        Command::Backup(args) => upkeep::backup(args),
        Command::Restore(args) => upkeep::restore(args),
    }
}

fn manual(directory: &Path) -> ExitCode {
    match clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("can't write to {}: {error}", directory.display()));
            ExitCode::from(FAILED)
        }
    }
}

/// Prints a result. A reader that has gone away has seen enough.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("can't write the result: {error}"));
            ExitCode::from(FAILED)
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Says on standard error what went wrong.
fn complain(message: &str) {
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr(), "ria-coordinator: {message}");
}
