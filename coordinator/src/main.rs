//! `ria-coordinator`: everything is in the library; this hands the command line to it.

use std::process::ExitCode;

use clap::Parser;
use ria_coordinator::cli;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
