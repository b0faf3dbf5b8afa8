//! Runs a made-up agent on a socket, steered by lines on standard input: real server code, invented data.
//!
//! ```text
//! cargo run -p ria-api --example fake-agent -- /tmp/ria/bus
//! join robot-1
//! peer robot-2 up direct 0.012
//! ```
//!
//! Programs find it by `RIA_SOCKET=/tmp/ria/bus`. It ends when standard input does.
#![allow(clippy::print_stderr, reason = "a program for terminals")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use ria_api::fake::{FakeAgent, HELP};
use ria_api::server::Server;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fake-agent SOCKET\n\nThen lines on standard input:\n{HELP}");
        return ExitCode::from(2);
    };
    let server = match Server::bind(&path) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let agent = Arc::new(FakeAgent::default());
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let steered = Arc::clone(&agent);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if let Err(error) = steered.command(&line) {
                eprintln!("{error}");
            }
        }
        drop(ended);
    });
    tokio::select! {
        () = server.run(agent) => {}
        _ = end => {}
    }
    ExitCode::SUCCESS
}
