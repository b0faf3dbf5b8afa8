//! The beginning of a session: first words, enrolment, and the step to being a member.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::enrol::{Enrol, Enrolled};
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::message::{CoordinatorMessage, NodeMessage, Resume, Welcome};
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;
use tokio::time::Instant;

use super::socket::Socket;
use super::{End, Peer, Services};
use crate::enrol::{self, Challenge, Connection};
use crate::registry::AdmitError;
use crate::state::{MemberEntry, Network};
use crate::tls::verifier::Identity;

/// How long a node may take for each of its first words.
const PATIENCE: Duration = Duration::from_secs(10);
/// A joining node that stays on its connection prepares its interface first.
const PATIENCE_AFTER_ENROLMENT: Duration = Duration::from_secs(30);

/// A node that is a member and wants to hear of its network.
#[derive(Debug)]
pub(super) struct Joined {
    pub member: Arc<MemberEntry>,
    pub resume: Resume,
    pub agent_version: String,
}

/// Leads a node to the point where it is a member.
pub(super) async fn run(socket: &mut Socket, peer: &Peer, services: &Services) -> Result<Joined, End> {
    let (agent_version, challenge) = greet(socket).await?;
    let mut challenge = Some(challenge);
    let mut enrolled = false;
    loop {
        let patience = if enrolled { PATIENCE_AFTER_ENROLMENT } else { PATIENCE };
        let message = tokio::select! {
            message = socket.next_before(Instant::now() + patience) => message?,
            () = services.draining.cancelled() => return Err(End::Drained),
        };
        match message {
            NodeMessage::Enrol(request) => {
                // A challenge is good for one proof, so a connection is good for one attempt.
                let challenge = challenge.take().ok_or(ErrorCode::BadMessage)?;
                let answer = handle_enrol(&request, challenge, peer, services, &agent_version).await?;
                enrolled = true;
                socket.send(&CoordinatorMessage::Enrolled(answer)).await?;
            }
            NodeMessage::Resume(resume) => {
                let member = authorise(&resume, peer.identity, enrolled, services)?;
                peer.slot.release();
                return Ok(Joined { member, resume, agent_version });
            }
            // This is the epoch that all nodes know: there is nothing to learn.
            NodeMessage::Testify(_) => {}
            NodeMessage::Hello(_)
            | NodeMessage::Ack(_)
            | NodeMessage::Report(_)
            | NodeMessage::Renew(_)
            | NodeMessage::Leave => return Err(ErrorCode::BadMessage.into()),
        }
    }
}

async fn greet(socket: &mut Socket) -> Result<(String, Challenge), End> {
    let NodeMessage::Hello(hello) = socket.next_before(Instant::now() + PATIENCE).await? else {
        return Err(ErrorCode::BadMessage.into());
    };
    let protocol = Protocol::common(&hello).ok_or(ErrorCode::ProtocolVersion)?;
    let challenge = Challenge::new();
    let welcome = Welcome {
        protocol: protocol.number(),
        coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
        challenge: challenge.public(),
        time: UnixTime::from(SystemTime::now()),
        epoch: None,
    };
    socket.send(&CoordinatorMessage::Welcome(welcome)).await?;
    socket.agree_on(protocol);
    Ok((shown_version(&hello.agent_version), challenge))
}

/// A version as people may be shown it: a stranger's text ends up on an administrator's terminal.
fn shown_version(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

async fn handle_enrol(
    request: &Enrol,
    challenge: Challenge,
    peer: &Peer,
    services: &Services,
    agent_version: &str,
) -> Result<Enrolled, End> {
    let connection = Connection {
        exporter: &peer.exporter,
        tls_key: peer.identity.tls_key(),
        from: peer.address.ip(),
        agent_version,
    };
    let proven = match enrol::verify(request, challenge, connection) {
        Ok(proven) => proven,
        Err(refusal) => {
            services.registry.note_failed_proof(peer.address.ip()).await;
            return Err(refusal.into());
        }
    };
    let admitted = services.registry.admit(proven).await.map_err(|error| match error {
        AdmitError::Refused(refusal) => End::Refused(refusal),
        AdmitError::Unavailable(error) => {
            tracing::debug!(%error, "a node can't be admitted at the moment");
            ErrorCode::Unavailable.into()
        }
    })?;
    let (network, member) = (&admitted.network.info, &admitted.member);
    let issued = services.authority.issue_node(network.id, member.node, &request.csr);
    let certificate = issued.map_err(|error| {
        tracing::debug!(%error, "a certificate request can't be granted");
        ErrorCode::BadMessage
    })?;
    Ok(Enrolled {
        network: network.id,
        node: member.node,
        name: member.name.clone(),
        certificate,
        network_name: network.name.clone(),
    })
}

/// The one place that decides whether a connection speaks for a member: by the key that was proved in the handshake
/// and the key that the member is registered with. An expired certificate is as good as a fresh one, for it is renewed
/// by the same proof; what ends a membership is the registry. A self-signed one will do only where the member has
/// just enrolled.
fn authorise(
    resume: &Resume,
    identity: Identity,
    enrolled: bool,
    services: &Services,
) -> Result<Arc<MemberEntry>, Refusal> {
    let network: Option<Arc<Network>> = services.registry.network(resume.network);
    let member = network.as_ref().and_then(|n| n.members.get(&resume.node)).ok_or(ErrorCode::NotAMember)?;
    let holds_key = member.tls_key == identity.tls_key();
    let holds_certificate = enrolled || matches!(identity, Identity::Issued(_));
    if !holds_key || !holds_certificate {
        return Err(ErrorCode::Certificate.into());
    }
    if member.expires() <= UnixTime::from(SystemTime::now()) {
        return Err(Refusal {
            code: ErrorCode::Certificate,
            text: "this node was away for so long that its membership has ended; join again with a new key"
                .to_owned(),
        });
    }
    Ok(member.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_version_can_do_nothing_to_a_terminal() {
        assert_eq!(shown_version("1.2\x1b[2J\n.3"), "1.2[2J.3");
        assert_eq!(shown_version(&"9".repeat(1000)).len(), 40);
    }
}
