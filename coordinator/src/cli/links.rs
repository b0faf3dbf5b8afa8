//! Links on the command line: how members reach each other, and what has happened on a node.

use clap::Subcommand;

use super::commands::{Outcome, now, with_network};
use super::table::{or_dash, table};
use super::{Common, NodeArgs};
use crate::admin::api_links::{HistoryView, LinkEndView, LinkView};
use crate::admin::client::escaped;
use crate::duration::{shown, shown_relative};

#[derive(Debug, Subcommand)]
pub(super) enum LinkCommand {
    /// List how members reach each other now, as they tell
    #[command(
        after_help = "Examples:\n  ria-coordinator link list\n  ria-coordinator link list --node robot-7\n\n\
        Members tell of another path within seconds, and of round-trip times when they are quite other ones."
    )]
    List {
        /// Only those of this network
        #[arg(long)]
        network: Option<String>,
        /// Only those of this node
        #[arg(long)]
        node: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) async fn run(command: LinkCommand) -> Outcome {
    let LinkCommand::List { network, node, common } = command;
    let pairs = [("network", network), ("node", node)];
    let query: Vec<String> =
        pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(&value?)))).collect();
    let all: Vec<LinkView> = common.client().get(&format!("/v1/links?{}", query.join("&"))).await?;
    common.show(&all, |all| links_text(all))
}

fn links_text(all: &[LinkView]) -> String {
    let now = now();
    let row = |link: &LinkView| {
        let differs = |end: &Option<LinkEndView>| end.as_ref().is_some_and(|end| end.path != link.path);
        let other = if differs(&link.from_a) || differs(&link.from_b) { " (one way)" } else { "" };
        vec![
            link.a.to_string(),
            link.b.to_string(),
            link.network.to_string(),
            format!("{}{other}", link.path),
            or_dash(link.rtt_ms.map(|rtt| format!("{rtt:.1} ms"))),
            or_dash(link.relay.clone()),
            shown_relative(link.since, now),
        ]
    };
    table(&["a", "b", "network", "path", "rtt", "relay", "since"], &all.iter().map(row).collect::<Vec<_>>())
}

/// What has happened on a node.
pub(super) async fn history(node: &NodeArgs, common: &Common) -> Outcome {
    let path = with_network(&format!("/v1/nodes/{}/history", escaped(&node.node)), node.network.as_deref());
    let all: Vec<HistoryView> = common.client().get(&path).await?;
    common.show(&all, |all| {
        let row = |entry: &HistoryView| vec![shown(entry.time), entry.text()];
        table(&["time", "what"], &all.iter().map(row).collect::<Vec<_>>())
    })
}
