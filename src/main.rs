//! `ria`: the agent of a robot or laptop, and its command line.

mod bus;
mod cli;
mod daemon;
mod dds;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::args::{Cli, Verb};
use crate::cli::failure::Failure;
use crate::cli::{Context, output};

fn main() -> ExitCode {
    let Cli { global, verb } = Cli::parse();
    let default_level = if matches!(verb, Verb::Daemon(_)) { "info" } else { "warn" };
    if let Err(error) = log_to_stderr(global.log_level.as_deref().unwrap_or(default_level)) {
        output::remark(format_args!("--log-level: {error}"));
        return ExitCode::from(cli::failure::USAGE);
    }
    let context = Context::new(global);
    // `ria env` keeps its output clean for eval.
    let prints_json = !matches!(verb, Verb::Env(_) | Verb::Daemon(_));
    match run(&context, verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::report(&context, &failure, prints_json);
            ExitCode::from(failure.code())
        }
    }
}

fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(cli::failure::FAILED, format!("can't start: {error}")))?;
    let result = runtime.block_on(cli::run(context, verb));
    // A read of standard input that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    result
}

fn log_to_stderr(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        // The journal has its own clock.
        log.without_time().init();
    } else {
        log.init();
    }
    Ok(())
}
