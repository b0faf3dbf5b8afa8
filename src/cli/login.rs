//! `ria login`: somebody lets this machine in by typing a code at the coordinator, where they log in as they always do; and
//! `ria logout`.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Context;
use super::args::{LeaveArgs, LoginArgs, LogoutArgs};
use super::control;
use super::failure::{FAILED, Failure, REFUSED, TIMED_OUT, USAGE};
use super::join::{Joining, finish, pipe};
use super::output::{remark, with_progress};
use crate::coordinator::device::{Code, Device, DeviceError, Granted};
use crate::daemon::suggested_name;

/// RFC 8628, section 3.5: what is added when the coordinator asks for patience.
const SLOWER: Duration = Duration::from_secs(5);

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        let code = match &error {
            DeviceError::BadUrl(_) => USAGE,
            DeviceError::Refused { code, .. } if code == "expired_token" => TIMED_OUT,
            DeviceError::Refused { .. } => REFUSED,
            DeviceError::Late(_) => TIMED_OUT,
            DeviceError::Reach(_)
            | DeviceError::OtherAuthority(_)
            | DeviceError::NoAuthority(_)
            | DeviceError::Foreign { .. }
            | DeviceError::Key(_)
            | DeviceError::Setup(_) => FAILED,
        };
        Self::new(code, error.to_string())
    }
}

pub async fn run(context: &Context, args: LoginArgs) -> Result<(), Failure> {
    let device = Device::new(args.url.parse()?)?;
    // Before anybody is asked to do something.
    let agent = context.agent().await?;
    let own = || suggested_name().map(|name| name.to_string());
    let name = args.name.clone().or_else(own).ok_or_else(|| {
        Failure::new(USAGE, "no name can be made of this machine's host name; choose one with --name")
    })?;
    let code = device.ask(&name, args.network.as_deref()).await?;
    remark(format!(
        "Open {} and type the code\n\n    {}\n\nor open {}\nThe code is good for {} minutes.",
        code.verification_uri,
        code.user_code,
        code.verification_uri_complete,
        code.expires_in / 60
    ));
    let granted = with_progress("Waiting for you to let this machine in", decided(&device, &code)).await?;
    remark(format!("{} lets this machine into {}", granted.user, granted.network));
    let key = pipe(granted.access_token.as_bytes())?;
    finish(context, &agent, Joining { key: key.as_fd(), name: args.name, wait: None }).await
}

async fn decided(device: &Device, code: &Code) -> Result<Granted, Failure> {
    let begin = Instant::now();
    // Hours and milliseconds are both nothing that a coordinator says.
    let end = begin + Duration::from_secs(code.expires_in.min(3600));
    let mut interval = Duration::from_secs(code.interval.clamp(1, 60));
    let mut next = begin + interval;
    while next < end {
        sleep_until(next).await;
        match device.poll(code).await {
            Ok(Some(granted)) => return Ok(granted),
            Ok(None) => {}
            Err(DeviceError::Refused { code, .. }) if code == "slow_down" => interval += SLOWER,
            // Networks come and go; the code stays good.
            Err(error @ (DeviceError::Reach(_) | DeviceError::Late(_))) => {
                tracing::debug!(%error, "not reached; asked again");
            }
            Err(error) => return Err(error.into()),
        }
        next = Instant::now() + interval;
    }
    Err(Failure::new(TIMED_OUT, "nobody has typed the code in time; try again: ria login"))
}

/// This machine is nobody's any more: it leaves.
pub async fn log_out(context: &Context, args: LogoutArgs) -> Result<(), Failure> {
    control::leave(context, &LeaveArgs { network: args.network, yes: true }).await
}
