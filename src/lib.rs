//! `ria`: the agent of a robot or laptop, and its command line. A library only so that its readers can be
//! fuzzed, and the manual be held against its command line.

mod beacon;
mod bus;
mod cli;
mod config;
mod coordinator;
mod daemon;
mod dds;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod gateway;
mod machine;
mod metrics;
mod names;
mod netcheck;
mod netdev;
mod portmap;
mod relay;
mod state;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use ria_api::server::Server;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::cli::args::{Cli, ClientVerb, DaemonArgs, Verb};
use crate::cli::failure::{FAILED, Failure, USAGE};
use crate::cli::{Context, output};
use crate::config::{Config, Overrides};
use crate::daemon::Daemon;
use crate::daemon::provision::Places;
use crate::dds::Profiles;

/// The command line as clap reads it, so that the manual can be held against it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The whole program.
pub fn main() -> ExitCode {
    let Cli { global, verb } = Cli::parse();
    let default_level = if matches!(verb, Verb::Daemon(_)) { "info" } else { "warn" };
    if let Err(error) = log_to_stderr(global.log_level.as_deref().unwrap_or(default_level)) {
        output::remark(format_args!(
            "--log-level or RIA_LOG: {error}; give a level, such as debug, or TARGET=LEVEL with commas"
        ));
        return ExitCode::from(USAGE);
    }
    let context = Context::new(global);
    // `ria env` keeps its output clean for eval.
    let prints_json = !matches!(verb, Verb::Client(ClientVerb::Env(_)) | Verb::Daemon(_));
    match run(&context, verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::report(&context, &failure, prints_json);
            ExitCode::from(failure.code())
        }
    }
}

fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    // One thread is enough for both: packets have their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(FAILED, format!("can't start: {error}")))?;
    let result = runtime.block_on(async {
        match verb {
            Verb::Daemon(args) => run_agent(args).await,
            Verb::Client(verb) => cli::run(context, verb).await,
        }
    });
    // A read of standard input that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Takes the socket first: it tells a second agent from the first before anything is touched.
async fn run_agent(args: DaemonArgs) -> Result<(), Failure> {
    let flags = Overrides {
        config: args.config,
        state_dir: args.state_dir,
        run_dir: args.run_dir,
        udp_port: args.udp_port,
    };
    let config = Config::load(&flags, |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .map_err(|errors| Failure::new(USAGE, errors.to_string().trim_end()))?;
    let failed = |error: &dyn std::error::Error| Failure::new(FAILED, error.to_string());
    let server = Server::bind(&config.run_dir.join(ria_api::SOCKET_NAME)).map_err(|e| failed(&e))?;
    let on_system_bus = config.system_bus;
    let profiles = Profiles::new(&config.run_dir, &config.dds);
    let places = match args.join_file {
        Some(path) => Places::Named(path),
        None => Places::AnyOf(config.provisioning_files.clone()),
    };
    let daemon = Daemon::start(config, places).await.map_err(|e| failed(&e))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), socket = %server.path().display(), "the agent runs");
    let api = tokio::spawn(bus::serve(server, daemon.handle(), profiles, on_system_bus));
    let result = daemon.run().await.map_err(|e| failed(&e));
    // The socket's file goes with it.
    api.abort();
    let _ = api.await;
    result
}

/// Libraries that call ordinary things errors: a peer that is away, a packet of a stranger. `--log-level` may name them.
const QUIET: &str = "boringtun=off,stun_types=error";

fn log_to_stderr(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter: Targets = format!("{QUIET},{filter}").parse()?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let log = tracing_subscriber::registry().with(filter);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        // The journal has its own clock.
        log.with(lines.without_time()).init();
    } else {
        log.with(lines).init();
    }
    Ok(())
}
