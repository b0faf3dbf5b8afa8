//! The command line as clap reads it (docs/cli.md).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 no daemon, 4 not joined, 5 timed out, 6 refused by the coordinator, 7 not \
permitted.
With --json each command prints one JSON object, also when it fails. Manual: docs/cli.md.";

const LOGIN_HELP: &str = "\
The coordinator's own authority is recognised by the PIN behind #; without one, its certificate has to be by an authority that
this machine knows, as for browsers. The membership is yours: it ends when you leave the lab, and asks you to log in again from
time to time, by the same command.";

/// Secure overlay network for teams of ROS 2 robots.
#[derive(Debug, Parser)]
#[command(name = "ria", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// The agent's socket [default: bus in RIA_RUN_DIR or /run/ria].
    #[arg(long, global = true, value_name = "PATH", env = ria_api::SOCKET_ENV, hide_env_values = true)]
    pub socket: Option<PathBuf>,
    /// What to log on stderr: error, warn, info, debug, trace, or a filter such as ria=debug.
    #[arg(long, global = true, value_name = "LEVEL", env = "RIA_LOG", hide_env_values = true)]
    pub log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the agent in the foreground.
    Daemon(DaemonArgs),
    #[command(flatten)]
    Client(ClientVerb),
}

/// What the agent is asked to do.
#[derive(Debug, Subcommand)]
pub enum ClientVerb {
    /// Join a network with a key from its administrator.
    Join(JoinArgs),
    /// Bring this laptop into a network as yours, by a code that you type at the coordinator; again when it asks for that.
    #[command(after_help = LOGIN_HELP)]
    Login(LoginArgs),
    /// Take this laptop out again; its keys are erased.
    Logout(LogoutArgs),
    /// Switch a network on again.
    Up(NetworkArg),
    /// Switch a network off, keeping the membership.
    Down(NetworkArg),
    /// Leave a network for good.
    Leave(LeaveArgs),
    /// Tell this machine where its coordinator is now, when it finds it nowhere by itself.
    SetUrl(SetUrlArgs),
    /// Change this machine's WireGuard key, keeping its addresses and links.
    RotateKey(NetworkArg),
    /// Does it work, and if not, what to do?
    Status(NetworkArg),
    /// List the other members and the links to them.
    Peers(NetworkArg),
    /// Probe a peer through the tunnel.
    Ping(PingArgs),
    /// Measure the network that this machine is in: why are paths relayed, what is blocked?
    Netcheck(NetworkArg),
    /// Print what happens, as it happens: links lost and back, changes of path, members that come and go.
    Events(EventsArgs),
    /// Print figures for Prometheus: networks, peers, traffic, drops by reason.
    Metrics(MetricsArgs),
    /// Watch peers, paths, latency and throughput live; q ends.
    Top(TopArgs),
    /// Wait until the network is up and peers answer.
    Wait(WaitArgs),
    /// Why do ROS 2 nodes not find each other? Looks along the whole way and tells the one thing to do next.
    Doctor(DoctorArgs),
    /// Collect state, log and network of this machine into an archive for somebody who helps; no secrets.
    DebugBundle(BundleArgs),
    /// Print the environment that ROS 2 processes need: eval "$(ria env)".
    Env(EnvArgs),
    /// Make this program a service of the machine, where it did not come as a package.
    Install(InstallArgs),
    /// Take the service away again; the membership stays unless --purge.
    Uninstall(UninstallArgs),
    /// Fetch a signed release, try it, and go back by itself when the agent does not reconnect with it.
    Update(UpdateArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each verb, into a directory.
    Man {
        /// The directory, which exists.
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Join with the key in this file when this machine is in no network yet.
    #[arg(long, value_name = "FILE")]
    pub join_file: Option<PathBuf>,
    /// Configuration; also RIA_CONFIG [default: /etc/ria/agent.toml when it exists].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keys, certificates and maps; also RIA_STATE_DIR [default: /var/lib/ria].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Socket and generated files; also RIA_RUN_DIR [default: /run/ria].
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// UDP port of the tunnels; also RIA_UDP_PORT [default: 41820, or any when that is taken].
    #[arg(long, value_name = "PORT")]
    pub udp_port: Option<u16>,
}

#[derive(Debug, Args)]
pub struct NetworkArg {
    /// The network, by name or id; needed only when this machine is in several. Without it, status, peers and env are
    /// about all of them.
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
}

#[derive(Debug, Args)]
pub struct JoinArgs {
    /// `-` reads the key from standard input. Without it and without --file, RIA_JOIN_KEY is used.
    #[arg(value_name = "-", conflicts_with = "file")]
    pub source: Option<OsString>,
    /// Read the key from a file.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Name of this machine in the network, such as robot-7 [default: from the host name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where an administrator has to approve: wait for that, for ever or so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "inf",
          value_parser = patience)]
    pub wait: Option<f64>,
}

#[derive(Debug, Args)]
pub struct LeaveArgs {
    #[command(flatten)]
    pub network: NetworkArg,
    /// Yes, erase this machine's keys; coming back needs a new join key.
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The coordinator's address, as its page "Let a laptop in" shows it: https://HOST[:PORT][#PIN].
    pub url: String,
    /// The network to ask for; you choose on the page.
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// What this machine is to be called [default: its host name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct LogoutArgs {
    #[command(flatten)]
    pub network: NetworkArg,
}

#[derive(Debug, Args)]
pub struct SetUrlArgs {
    /// https://HOST or https://HOST:PORT; the coordinator must answer there.
    pub url: String,
    #[command(flatten)]
    pub network: NetworkArg,
}

#[derive(Debug, Args)]
pub struct PingArgs {
    /// Name, ROS name, id or overlay address.
    pub peer: String,
    #[command(flatten)]
    pub network: NetworkArg,
    /// Exactly so many probes (1 to 1000) [default: until one takes a direct path, 10 at most].
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: Option<u32>,
    /// Seconds between two probes (0.01 to 3600).
    #[arg(short = 'i', long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub interval: f64,
    /// Seconds to wait for an answer (0.01 to 3600).
    #[arg(short = 'W', long = "timeout", value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub timeout: f64,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(flatten)]
    pub network: NetworkArg,
    /// End after so many events.
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub network: NetworkArg,
    /// Seconds between two looks (0.01 to 3600).
    #[arg(short = 'i', long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub interval: f64,
    /// End after so many looks.
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Write them to a file, which is replaced at once and never seen half-written; for node_exporter's textfile collector.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Where to write it; must not exist [default: ria-debug-TIME.tar].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    pub network: NetworkArg,
    /// How many peers must answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub peers: u32,
    /// Give up after this many seconds (0.01 to 3600).
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    pub timeout: f64,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Raise kernel settings that are too low for large messages, now and for later starts (root); the old values are
    /// kept in /etc/sysctl.d/60-ria.conf.
    #[arg(long)]
    pub fix: bool,
}

#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Install into an image that is mounted here, not on this machine.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Start the agent at the next boot only.
    #[arg(long)]
    pub no_start: bool,
    /// Let members of the group ria start an agent themselves, as on machines without systemd: the program gets
    /// CAP_NET_ADMIN, and nobody else may run it.
    #[arg(long)]
    pub file_capability: bool,
}

#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// From an image that is mounted here, not from this machine.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Don't ask, though this machine is in a network.
    #[arg(long)]
    pub yes: bool,
    /// Also leave all networks and erase keys, configuration and the group ria.
    #[arg(long)]
    pub purge: bool,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Where the release is: a directory, here (absolute path) or on a web server [default: `from` in
    /// /etc/ria/update.toml].
    #[arg(long, value_name = "DIR|URL", conflicts_with = "rollback")]
    pub from: Option<String>,
    /// Only tell which release is there.
    #[arg(long, conflicts_with = "rollback")]
    pub check: bool,
    /// Take a release that is older than this program.
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Back to the program from before the last update.
    #[arg(long)]
    pub rollback: bool,
    /// Seconds that the new agent has to be as well as the old one was (0.01 to 3600).
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = seconds)]
    pub timeout: f64,
    /// Of the process that watches over a trial.
    #[arg(long, hide = true)]
    pub watch: bool,
    /// Of the service, before it starts the agent.
    #[arg(long, hide = true)]
    pub guard: bool,
}

#[derive(Debug, Args)]
pub struct EnvArgs {
    #[command(flatten)]
    pub network: NetworkArg,
    /// How to write it; --json is short for --format json.
    #[arg(long, value_enum, default_value_t = EnvFormat::Sh)]
    pub format: EnvFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EnvFormat {
    /// For eval in a shell.
    Sh,
    /// Lines KEY=value, for systemd and Docker.
    File,
    /// One object.
    Json,
    /// The line for a shell's start-up file (~/.bashrc), after which each shell has it without being asked.
    Hook,
}

/// Seconds to wait for a person, who may take days.
fn patience(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if seconds > 0.0 { Ok(seconds) } else { Err("must be more than 0 seconds".into()) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.01..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("must be between 0.01 and 3600 seconds".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn nonsensical_times_and_counts_are_usage_errors() {
        for bad in [
            &["ria", "ping", "robot-2", "-c", "0"][..],
            &["ria", "ping", "robot-2", "-i", "nan"],
            &["ria", "ping", "robot-2", "-W", "-1"],
            &["ria", "wait", "--timeout", "inf"],
            &["ria", "join", "-", "--file", "x"],
            &["ria", "join", "-", "--wait=0"],
            &["ria", "join", "-", "--wait=nan"],
        ] {
            let error = Cli::try_parse_from(bad).expect_err("taken");
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }
}
