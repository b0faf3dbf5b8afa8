//! The overlay node: a thin face of the Ria agent in ROS 2.
//!
//! ```text
//! agent ◄── D-Bus socket ──► Link ──► Face ──► topics, diagnostics
//!                              └────► services       ▲
//!                     parameters ────────────────────┘        one more thread spins the ROS node
//! ```
//!
//! It has no rights and owns nothing: whatever happens to it, tunnel and membership stay as they are. When its ROS
//! context is of no use any more (`interfaces`), or broke, the process replaces itself (`replace`).

mod constants;
mod control;
mod convert;
mod diagnostics;
mod environment;
mod face;
mod interfaces;
mod join;
mod link;
mod outcome;
mod pace;
mod parameters;
mod replace;
mod ros;
mod services;
mod start;
mod topics;
mod view;

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::replace::Carried;
use crate::ros::log;
use crate::start::StartError;

/// A run this long counts as a good one.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// SIGINT (Ctrl-C) and SIGTERM: end well.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        let stop =
            Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
        replace::release_signals()?;
        Ok(stop)
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let carried = Carried::take();
    let began = std::time::Instant::now();
    let next = match start::start(&carried) {
        Ok(mut running) => {
            let end = tokio::select! {
                () = stop.asked() => None,
                end = running.run() => Some(end),
            };
            running.finish(end)
        }
        Err(StartError::Later(reason)) => Some(carried.failed(reason)),
        Err(error @ StartError::Never(_)) => return Err(error.into()),
    };
    let Some(mut next) = next else { return Ok(()) };
    if began.elapsed() > GOOD_RUN {
        next.failures = next.failures.min(1);
    }
    log::warn(format!("starting the ROS context anew: {}", next.reason));
    tokio::select! {
        () = stop.asked() => return Ok(()),
        () = tokio::time::sleep(pause(next.failures)) => {}
    }
    replace::hold_signals()?;
    // A signal that came before it was held has been noted, but not looked at.
    if tokio::time::timeout(Duration::from_millis(1), stop.asked()).await.is_ok() {
        return Ok(());
    }
    match replace::replace(&next)? {}
}

/// How long to wait after this many failures in a row.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => Duration::from_millis(500).saturating_mul(1 << n.min(6)).min(Duration::from_secs(30)),
    }
}
