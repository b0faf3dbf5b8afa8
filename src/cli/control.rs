//! `ria up`, `ria down`, `ria leave`, `ria set-url`.

use serde_json::json;

use super::Context;
use super::args::{LeaveArgs, NetworkArg, SetUrlArgs};
use super::failure::{Failure, USAGE};
use super::output::with_progress;

pub async fn set_enabled(context: &Context, wanted: &NetworkArg, enabled: bool) -> Result<(), Failure> {
    let network = context.network(wanted).await?;
    network.proxy.set_enabled(enabled).await?;
    let name = &network.summary.name;
    if context.output.json {
        context.output.value(&json!({ "network": name, "enabled": enabled }))?;
    } else if enabled {
        context.output.line(format_args!("{name} is switched on; see: ria status"))?;
    } else {
        context.output.line(format_args!(
            "{name} is switched off, also after a restart; this machine stays a member. On again: ria up"
        ))?;
    }
    Ok(())
}

pub async fn rotate_key(context: &Context, wanted: &NetworkArg) -> Result<(), Failure> {
    let network = context.network(wanted).await?;
    let name = network.summary.name;
    with_progress(&format!("Changing the key in {name}"), network.proxy.rotate_key()).await?;
    let public_key = network.proxy.status().await?.public_key;
    if context.output.json {
        context.output.value(&json!({ "network": name, "public_key": public_key }))?;
    } else {
        context.output.line(format_args!("{name}: this machine's WireGuard key is {public_key} now"))?;
    }
    Ok(())
}

pub async fn leave(context: &Context, args: &LeaveArgs) -> Result<(), Failure> {
    let network = context.network(&args.network).await?;
    let name = network.summary.name;
    if !args.yes {
        return Err(Failure::new(
            USAGE,
            format!(
                "leaving {name} erases this machine's keys for it and takes its address out of use; coming back needs \
                 a new join key. To do so: ria leave --yes --network {name}. To pause only: ria down"
            ),
        ));
    }
    with_progress(&format!("Leaving {name}"), network.proxy.leave()).await?;
    if context.output.json {
        context.output.value(&json!({ "network": name, "left": true }))?;
    } else {
        context.output.line(format_args!("left {name}; its keys on this machine are erased"))?;
    }
    Ok(())
}

pub async fn set_url(context: &Context, args: &SetUrlArgs) -> Result<(), Failure> {
    let network = context.network(&args.network).await?;
    let name = network.summary.name;
    let asking = format!("Looking for the coordinator of {name}");
    with_progress(&asking, network.proxy.set_url(&args.url)).await?;
    if context.output.json {
        context.output.value(&json!({ "network": name, "url": args.url }))?;
    } else {
        context.output.line(format_args!(
            "the coordinator of {name} answers at {}; it is used from now on",
            args.url
        ))?;
    }
    Ok(())
}
