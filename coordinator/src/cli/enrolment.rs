//! Commands about enrolment: who used a join key, who waits for approval, names and tags.

use ria_protocol::name::Name;

use super::commands::{Outcome, key_kind, now, with_network};
use super::table::{list, or_dash, table};
use super::{Common, NodeArgs, PendingArgs};
use crate::admin::api::{Approve, KeyDetail, KeyUserState, NodeView, PendingState, PendingView, Rename, Tag};
use crate::admin::client::escaped;
use crate::duration::{shown, shown_relative};

fn node_path(node: &NodeArgs, what: &str) -> String {
    with_network(&format!("/v1/nodes/{}/{what}", escaped(&node.node)), node.network.as_deref())
}

fn pending_path(node: &PendingArgs, what: &str) -> String {
    with_network(&format!("/v1/pending/{}/{what}", escaped(&node.node)), node.network.as_deref())
}

pub(super) async fn show_key(id: &str, common: &Common) -> Outcome {
    let key: KeyDetail = common.client().get(&format!("/v1/keys/{}", escaped(id))).await?;
    common.show(&key, key_text)
}

fn key_text(key: &KeyDetail) -> String {
    let KeyDetail { view, used_by } = key;
    let status = format!("{:?}", view.status).to_lowercase();
    let tags: Vec<_> = view.tags.iter().map(Name::as_str).collect();
    let expires = view.expires.map_or_else(|| "never".to_owned(), shown);
    let head = list(&[
        ("id", view.id.to_string()),
        ("network", view.network.to_string()),
        ("status", status),
        ("kind", key_kind(view)),
        ("tags", or_dash(tags.join(", "))),
        ("created", shown(view.created)),
        ("expires", expires),
        ("revoked", or_dash(view.revoked.map(shown))),
        ("uses", view.uses.to_string()),
    ]);
    if used_by.is_empty() {
        return head;
    }
    let state = |state| match state {
        KeyUserState::Member => "member",
        KeyUserState::Waiting => "waits",
        KeyUserState::Rejected => "rejected",
        KeyUserState::Gone => "gone",
    };
    let rows: Vec<_> = used_by
        .iter()
        .map(|by| vec![by.name.to_string(), state(by.state).to_owned(), shown(by.time), by.node.to_string()])
        .collect();
    head + "\n" + &table(&["used by", "now", "at", "id"], &rows)
}

pub(super) async fn rename(node: &NodeArgs, name: Name, common: &Common) -> Outcome {
    let renamed: NodeView = common.client().post(&node_path(node, "rename"), &Rename { name }).await?;
    common.show(&renamed, |n| format!("{} is called {} in {} now.\n", node.node, n.name, n.network))
}

pub(super) async fn tag(node: &NodeArgs, add: Vec<Name>, remove: Vec<Name>, common: &Common) -> Outcome {
    let tagged: NodeView = common.client().post(&node_path(node, "tag"), &Tag { add, remove }).await?;
    common.show(&tagged, |n| format!("{} has the tags: {}\n", n.name, or_dash(n.tags.join(", "))))
}

pub(super) async fn pending(network: Option<&str>, common: &Common) -> Outcome {
    let all: Vec<PendingView> = common.client().get(&with_network("/v1/pending", network)).await?;
    common.show(&all, |all| pending_text(all))
}

fn pending_text(all: &[PendingView]) -> String {
    if all.is_empty() {
        return "No node waits for approval.\n".to_owned();
    }
    let now = now();
    let rows: Vec<_> = all
        .iter()
        .map(|p| {
            let state = match p.state {
                PendingState::Waiting if p.former => "waits, was a member",
                PendingState::Waiting => "waits",
                PendingState::Rejected => "rejected",
            };
            let seen = if p.connected { "now".to_owned() } else { shown_relative(p.heard, now) };
            vec![
                p.name.to_string(),
                p.network.to_string(),
                state.to_owned(),
                p.fingerprint.clone(),
                p.address.to_string(),
                shown_relative(p.asked, now),
                seen,
                p.join_key.to_string(),
            ]
        })
        .collect();
    let text =
        table(&["name", "network", "state", "fingerprint", "from", "asked", "last seen", "key"], &rows);
    text + "Compare the fingerprint with `ria status` on the machine, then: ria-coordinator node approve FINGERPRINT\n"
}

pub(super) async fn approve(node: &PendingArgs, name: Option<Name>, common: &Common) -> Outcome {
    let member: NodeView = common.client().post(&pending_path(node, "approve"), &Approve { name }).await?;
    common.show(&member, |n| format!("{} is a member of {} now.\n", n.name, n.network))
}

pub(super) async fn reject(node: &PendingArgs, common: &Common) -> Outcome {
    let rejected: PendingView = common.client().post(&pending_path(node, "reject"), &()).await?;
    common.show(&rejected, |p| {
        format!("{} is not let into {}; `node approve {}` still can.\n", p.name, p.network, p.fingerprint)
    })
}
