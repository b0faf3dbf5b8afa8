//! A node that waits for an administrator's approval, on its connection: it hears of the decision at once.

use std::sync::Arc;

use ria_protocol::enrol::{MembershipNews, Waiting};
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::message::{CoordinatorMessage, NodeMessage};
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;

use super::socket::Socket;
use super::{End, Peer, Services};
use crate::registry::{Admitted, Queued};
use crate::state::World;

/// Where a waiting node stands.
enum Place {
    Waits,
    Member(Admitted),
    Rejected,
    /// It was forgotten, or has withdrawn on another connection.
    Gone,
}

/// Waits until the node is a member. One that speaks an older protocol comes back and asks again.
pub(super) async fn until_approved(
    socket: &mut Socket,
    peer: &Peer,
    services: &Services,
    queued: Queued,
) -> Result<Admitted, End> {
    let (network, node) = (queued.network.info.id, queued.entry.node);
    if socket.protocol() < Protocol::V2 {
        return Err(Refusal {
            code: ErrorCode::ApprovalPending,
            text: format!(
                "an administrator must approve this node first (ria-coordinator node approve {}); this is tried again \
                 by itself",
                queued.entry.fingerprint()
            ),
        }
        .into());
    }
    // It has shown a good key, and the queue is bounded.
    peer.slot.release();
    let mut replaced = services.hub.wait((network, node)).await.map_err(|_| End::Drained)?;
    let mut world = services.registry.watch();
    let news = Waiting {
        network,
        network_name: queued.network.info.name.clone(),
        node,
        name: queued.network.name_for(&queued.entry),
        since: queued.entry.asked,
    };
    socket.send(&CoordinatorMessage::Membership(MembershipNews::Waiting(news))).await?;
    loop {
        let place = place(&world.borrow_and_update(), network, node);
        match place {
            Place::Member(admitted) => return Ok(admitted),
            Place::Rejected => return Err(ErrorCode::Rejected.into()),
            Place::Gone => return Err(gone().into()),
            Place::Waits => {}
        }
        tokio::select! {
            changed = world.changed() => changed.map_err(|_| End::Drained)?,
            _ = &mut replaced => return Err(End::Replaced),
            () = services.draining.cancelled() => return Err(End::Drained),
            message = socket.next() => {
                let leaves = message? == NodeMessage::Leave;
                return Err(if leaves {
                    withdraw(services, network, node).await
                } else {
                    ErrorCode::BadMessage.into()
                });
            }
        }
    }
}

fn place(world: &World, network: NetworkId, node: NodeId) -> Place {
    let Some(network) = world.networks.get(&network) else { return Place::Gone };
    let now = UnixTime::from(std::time::SystemTime::now());
    match (network.members.get(&node), network.waiting.get(&node)) {
        (Some(member), _) if member.expires(network.membership) > now => {
            Place::Member(Admitted { network: Arc::clone(network), member: member.clone() })
        }
        (_, Some(entry)) if entry.rejected.is_some() => Place::Rejected,
        (_, Some(_)) => Place::Waits,
        (_, None) => Place::Gone,
    }
}

async fn withdraw(services: &Services, network: NetworkId, node: NodeId) -> End {
    match services.registry.withdraw(network, node).await {
        Ok(()) => End::Left,
        Err(error) => End::Refused(Refusal { code: ErrorCode::Unavailable, text: error.to_string() }),
    }
}

fn gone() -> Refusal {
    Refusal {
        code: ErrorCode::Rejected,
        text: "this node does not wait for approval any more; join again with a key".to_owned(),
    }
}
