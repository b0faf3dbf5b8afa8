//! `ria events`: what happens, as it happens.

use futures_util::StreamExt;
use futures_util::stream::select_all;
use ria_api::state::{Event, Severity};

use super::Context;
use super::args::EventsArgs;
use super::failure::{Failure, NO_DAEMON};
use super::output::{Colour, Output};

pub async fn run(context: &Context, args: &EventsArgs) -> Result<(), Failure> {
    let agent = context.agent().await?;
    let mut streams = Vec::new();
    for network in context.networks(&args.network).await? {
        let name = network.summary.name;
        let happened = network.proxy.receive_happened().await?;
        streams.push(happened.map(move |signal| signal.args().map(|args| (name.clone(), args.event))));
    }
    let several = streams.len() > 1;
    let mut events = select_all(streams);
    let mut left = args.count.unwrap_or(u32::MAX);
    while left > 0 {
        let (name, event) = tokio::select! {
            event = events.next() => match event {
                Some(event) => event?,
                None => return Err(ended()),
            },
            () = agent.closed() => return Err(ended()),
        };
        show(context.output, several.then_some(name.as_str()), &event)?;
        left -= 1;
    }
    Ok(())
}

fn ended() -> Failure {
    Failure::new(NO_DAEMON, "the agent has ended; start it again and call this again (systemctl start ria)")
}

fn show(output: Output, network: Option<&str>, event: &Event) -> Result<(), Failure> {
    if output.json {
        return Ok(output.line(serde_json::json!(event))?);
    }
    let colour = match event.severity {
        Severity::Error => Colour::Bad,
        Severity::Warning => Colour::Warning,
        Severity::Info | Severity::Unknown => Colour::Plain,
    };
    let network = network.map(|name| format!("{name}: ")).unwrap_or_default();
    Ok(output.line(format_args!("{} {network}{}", clock(event.time), output.paint(colour, &event.text)))?)
}

/// Time of day, UTC, to the millisecond.
fn clock(time: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a moment of these centuries")]
    let ms = (time.max(0.0) * 1000.0) as u64;
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let day = seconds % 86_400;
    format!("{:02}:{:02}:{:02}.{ms:03}Z", day / 3600, day / 60 % 60, day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_told_to_the_millisecond() {
        assert_eq!(clock(1_796_286_991.25), "08:36:31.250Z");
        assert_eq!(clock(-5.0), "00:00:00.000Z");
    }
}
