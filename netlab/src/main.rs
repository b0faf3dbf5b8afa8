//! `netlab`: runs a described lab in the foreground, and works in running ones.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[expect(clippy::print_stderr, reason = "where errors belong")]
fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("netlab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
