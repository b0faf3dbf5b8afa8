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

mod actions;
mod constants;
mod control;
mod convert;
mod diagnostics;
mod environment;
mod face;
mod interfaces;
mod join;
mod lifecycle;
mod link;
mod log;
mod log_level;
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
use crate::start::StartError;

/// A run this long counts as a good one.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// One shorter than this is hasty: usual at the first join, a fault when it goes on and on (an interface that flaps).
const HASTY_RUN: Duration = Duration::from_secs(5);

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
    ros::shorten_panics();
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
    let (began, hasty) = (std::time::Instant::now(), carried.hasty);
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
    let lasted = began.elapsed();
    if lasted > GOOD_RUN {
        next.failures = next.failures.min(1);
    }
    next.hasty = if lasted < HASTY_RUN { hasty + 1 } else { 0 };
    log::warn(format!("starting the ROS context anew: {}", next.reason));
    tokio::select! {
        () = stop.asked() => return Ok(()),
        () = tokio::time::sleep(pause(&next)) => {}
    }
    replace::hold_signals()?;
    // A signal that came before it was held has been noted, but not looked at.
    if tokio::time::timeout(Duration::from_millis(1), stop.asked()).await.is_ok() {
        return Ok(());
    }
    match replace::replace(&next)? {}
}

/// How long to wait before the next run: longer after each failure in a row, a little when runs are short.
fn pause(next: &Carried) -> Duration {
    match (next.failures, next.hasty) {
        (0, 0..=3) => Duration::ZERO,
        (0, _) => Duration::from_secs(2),
        (n, _) => Duration::from_millis(500).saturating_mul(1 << n.min(6)).min(Duration::from_secs(30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_comes_costs_no_pause_and_one_that_flaps_does() {
        assert_eq!(pause(&Carried { hasty: 2, ..Carried::default() }), Duration::ZERO);
        assert_eq!(pause(&Carried { hasty: 9, ..Carried::default() }), Duration::from_secs(2));
    }

    #[test]
    fn the_pause_grows_with_failures_up_to_a_bound() {
        let after = |failures| pause(&Carried { failures, ..Carried::default() });
        assert!(after(1) < after(2) && after(2) < after(4));
        assert_eq!(after(1000), Duration::from_secs(30));
    }
}
