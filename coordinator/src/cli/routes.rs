//! `route`: local networks behind nodes.

use clap::Subcommand;
use ria_protocol::prefix::Prefix;

use super::commands::{Outcome, with_network};
use super::table::{or_dash, table};
use super::{Common, NodeArgs, complain};
use crate::admin::client::escaped;
use crate::admin::routes::{ApproveRoute, RouteState, RouteView, WithdrawRoute};

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// List the local networks that nodes offer to forward to, and which of them are approved
    List {
        /// Only those of this network
        #[arg(long)]
        network: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Have members reach a local network behind a node, such as a robot's LiDAR
    #[command(
        after_help = "The node has to offer it: [routes] advertise in its agent's configuration. Where robots have the same\n\
        local network, map each to a prefix of its own of the same size: 192.168.10.7 is 10.66.3.7 then.\n\
        Once a policy is in force, a rule has to name it: to = [\"route:10.66.3.0/24\"].\n\n\
        Examples:\n  ria-coordinator route approve robot-3 192.168.10.0/24 --map 10.66.3.0/24\n  \
        ria-coordinator route approve robot-4 192.168.10.0/24 --map auto"
    )]
    Approve {
        #[command(flatten)]
        node: NodeArgs,
        /// What the network is there
        lan: Prefix,
        /// The prefix under which members reach it, or auto for a free one of 10.64.0.0/12 [default: its own addresses]
        #[arg(long, value_name = "PREFIX|auto")]
        map: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Have nobody reach a local network any more, at once
    #[command(after_help = "Example:\n  ria-coordinator route withdraw robot-3 192.168.10.0/24")]
    Withdraw {
        #[command(flatten)]
        node: NodeArgs,
        /// What the network is there
        lan: Prefix,
        #[command(flatten)]
        common: Common,
    },
}

fn path(node: &NodeArgs, verb: &str) -> String {
    with_network(&format!("/v1/nodes/{}/routes/{verb}", escaped(&node.node)), node.network.as_deref())
}

pub(super) async fn run(command: RouteCommand) -> Outcome {
    match command {
        RouteCommand::List { network, common } => {
            let all: Vec<RouteView> =
                common.client().get(&with_network("/v1/routes", network.as_deref())).await?;
            common.show(&all, |all| text(all))
        }
        RouteCommand::Approve { node, lan, map, common } => {
            let route: RouteView =
                common.client().post(&path(&node, "approve"), &ApproveRoute { lan, map }).await?;
            if let (Some(false), Some(prefix)) = (route.in_policy, route.prefix) {
                complain(&format!(
                    "no rule of the policy is about it, so nobody may reach it yet; add one with to = [\"route:{prefix}\"]"
                ));
            }
            common.show(&route, |route| {
                let prefix = route.prefix.unwrap_or(route.lan);
                format!("{} behind {} is reached at {prefix} now.\n", route.lan, route.node)
            })
        }
        RouteCommand::Withdraw { node, lan, common } => {
            let route: RouteView =
                common.client().post(&path(&node, "withdraw"), &WithdrawRoute { lan }).await?;
            common.show(&route, |route| format!("{} behind {} is reached no more.\n", route.lan, route.node))
        }
    }
}

/// How it stands, in words.
pub(crate) fn state(state: RouteState) -> &'static str {
    match state {
        RouteState::Proposed => "proposed",
        RouteState::Approved => "approved",
        RouteState::NotOffered => "approved, not offered",
    }
}

fn text(all: &[RouteView]) -> String {
    if all.is_empty() {
        return "No node offers a local network ([routes] advertise in its agent's configuration).\n"
            .to_owned();
    }
    let rows: Vec<_> = all
        .iter()
        .map(|route| {
            vec![
                route.node.to_string(),
                route.network.to_string(),
                route.lan.to_string(),
                state(route.state).to_owned(),
                or_dash(route.prefix.map(|prefix| prefix.to_string())),
            ]
        })
        .collect();
    table(&["node", "network", "local network", "state", "reached at"], &rows)
}
