//! The beginning of a session: first words, enrolment, and the step to being a member.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::enrol::{Enrol, Enrolled};
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::message::{CoordinatorMessage, NodeMessage, Resume, Welcome};
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;
use ria_protocol::witness::Testimony;
use tokio::time::Instant;

use super::socket::Socket;
use super::{End, Peer, Services, refused, waiting};
use crate::enrol::{self, Challenge, Connection, ProvenEnrolment};
use crate::registry::{Admission, AdmitError, Admitted, Former};
use crate::state::{MemberEntry, Network};
use crate::store::Departure;
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
    /// For a proof of possession, if none was given on this connection yet.
    pub challenge: Option<Challenge>,
}

/// Leads a node to the point where it is a member.
pub(super) async fn run(socket: &mut Socket, peer: &Peer, services: &Services) -> Result<Joined, End> {
    let (agent_version, challenge) = greet(socket, peer, services).await?;
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
                let admission = match prove(&request, challenge, peer, services, &agent_version).await {
                    Ok(proven) => services.registry.admit(proven).await,
                    Err(refusal) => Err(refusal.into()),
                };
                if let Err(AdmitError::Refused(refusal)) = &admission {
                    refused::note(services, peer, &request, refusal).await;
                }
                let admission = admission.map_err(not_admitted)?;
                let admitted = settle(socket, peer, services, admission).await?;
                enrolled = true;
                let answer = enrolled_as(services, &admitted, &request.csr)?;
                socket.send(&CoordinatorMessage::Enrolled(answer)).await?;
            }
            NodeMessage::Resume(resume) => {
                let member = match authorise(&resume, peer.identity, enrolled, services).await? {
                    Standing::Member(member) => member,
                    Standing::Ended => {
                        let former = Former {
                            network: resume.network,
                            node: resume.node,
                            from: peer.address.ip(),
                            agent_version: agent_version.clone(),
                        };
                        let admission = services.registry.come_back(former).await.map_err(not_admitted)?;
                        settle(socket, peer, services, admission).await?.member
                    }
                };
                peer.slot.release();
                return Ok(Joined { member, resume, agent_version, challenge });
            }
            NodeMessage::Testify(testimony) => {
                handle_testimony(&testimony, peer, services, &agent_version).await?
            }
            NodeMessage::Hello(_)
            | NodeMessage::Ack(_)
            | NodeMessage::Report(_)
            | NodeMessage::Renew(_)
            | NodeMessage::Rotate(_)
            | NodeMessage::Links(_)
            | NodeMessage::Changed(_)
            | NodeMessage::Seek(_)
            | NodeMessage::Release(_)
            | NodeMessage::Hold(_)
            | NodeMessage::Leave => return Err(ErrorCode::BadMessage.into()),
        }
    }
}

async fn greet(socket: &mut Socket, peer: &Peer, services: &Services) -> Result<(String, Challenge), End> {
    let NodeMessage::Hello(hello) = socket.next_before(Instant::now() + PATIENCE).await? else {
        return Err(ErrorCode::BadMessage.into());
    };
    let protocol = Protocol::common(&hello).ok_or(ErrorCode::ProtocolVersion)?;
    let challenge = Challenge::new();
    let time = UnixTime::from(SystemTime::now());
    let welcome = Welcome {
        protocol: protocol.number(),
        coordinator_version: env!("CARGO_PKG_VERSION").to_owned(),
        challenge: challenge.public(),
        time,
        epoch: Some(services.registry.world().epoch()),
        authority_proof: attested(peer, services, time),
    };
    socket.send(&CoordinatorMessage::Welcome(welcome)).await?;
    socket.agree_on(protocol);
    Ok((shown_version(&hello.agent_version), challenge))
}

/// The proof that lets a node whose clock is wrong believe the certificate of this connection. Without it, only such
/// nodes have to go away.
fn attested(peer: &Peer, services: &Services, time: UnixTime) -> Option<Vec<u8>> {
    let proof = services.authorities.current().attest(&peer.exporter, time);
    proof.inspect_err(|error| tracing::warn!(%error, "the authority can't sign its proof")).ok()
}

/// A version as people may be shown it: a stranger's text ends up on an administrator's terminal.
pub(super) fn shown_version(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

async fn prove(
    request: &Enrol,
    challenge: Challenge,
    peer: &Peer,
    services: &Services,
    agent_version: &str,
) -> Result<ProvenEnrolment, Refusal> {
    let connection = Connection {
        exporter: &peer.exporter,
        tls_key: peer.identity.tls_key(),
        from: peer.address.ip(),
        agent_version,
    };
    let proven = enrol::verify(request, challenge, connection);
    if proven.is_err() {
        services.registry.note_failed_proof(peer.address.ip()).await;
    }
    proven
}

fn not_admitted(error: AdmitError) -> End {
    match error {
        AdmitError::Refused(refusal) => End::Refused(refusal),
        AdmitError::Unavailable(error) => {
            tracing::debug!(%error, "a node can't be admitted at the moment");
            ErrorCode::Unavailable.into()
        }
    }
}

/// The membership, at once or after an administrator's approval.
async fn settle(
    socket: &mut Socket,
    peer: &Peer,
    services: &Services,
    admission: Admission,
) -> Result<Admitted, End> {
    match admission {
        Admission::Member(admitted) => {
            if admitted.member.is_active() {
                // One whose person has logged in again was refused until now.
                services.relays.readmit(admitted.member.node);
            }
            Ok(admitted)
        }
        Admission::Waiting(queued) => waiting::until_approved(socket, peer, services, queued).await,
    }
}

fn enrolled_as(services: &Services, admitted: &Admitted, csr: &[u8]) -> Result<Enrolled, End> {
    let (network, member) = (&admitted.network.info, &admitted.member);
    let certificate = services.certificate((network.id, member.node), csr)?;
    Ok(Enrolled {
        network: network.id,
        node: member.node,
        name: member.name.clone(),
        certificate,
        network_name: network.name.clone(),
    })
}

/// What a connection may speak for.
enum Standing {
    Member(Arc<MemberEntry>),
    /// A member that was away for so long that an administrator has to approve its return.
    Ended,
}

/// A node that has known another epoch of this coordinator hands back what it was given to keep. Nothing is believed but
/// what this coordinator sealed itself; whether the node is a member shows when it resumes.
async fn handle_testimony(
    testimony: &Testimony,
    peer: &Peer,
    services: &Services,
    agent_version: &str,
) -> Result<(), End> {
    let testified = services.witness.examine(testimony, peer.identity.tls_key(), agent_version);
    let learnt = services.registry.testify(testified).await.map_err(|error| {
        tracing::debug!(%error, "what a node has kept can't be stored at the moment");
        ErrorCode::Unavailable
    })?;
    learnt.buried.into_iter().for_each(|node| services.relays.revoke(node));
    Ok(())
}

/// The one place that decides whether a connection speaks for a member: by the key that was proved in the handshake
/// and the key that the member is registered with. An expired certificate is as good as a fresh one, for it is renewed
/// by the same proof; what ends a membership is the registry. A self-signed one will do only where the member has
/// just enrolled.
async fn authorise(
    resume: &Resume,
    identity: Identity,
    enrolled: bool,
    services: &Services,
) -> Result<Standing, Refusal> {
    let network: Option<Arc<Network>> = services.registry.network(resume.network);
    let Some(member) = network.as_ref().and_then(|n| n.members.get(&resume.node)) else {
        return Err(no_member(resume, identity, services).await.into());
    };
    let holds_key = member.tls_key == identity.tls_key();
    let holds_certificate = enrolled || matches!(identity, Identity::Issued(_));
    if !holds_key || !holds_certificate {
        return Err(ErrorCode::Certificate.into());
    }
    if member.disabled.is_some() {
        return Err(ErrorCode::Disabled.into());
    }
    if member.is_login_due() {
        return Err(ErrorCode::LoginDue.into());
    }
    let ended = member.expires(services.lifetimes.membership) <= UnixTime::from(SystemTime::now());
    Ok(if ended { Standing::Ended } else { Standing::Member(member.clone()) })
}

/// Why a node is no member. Strangers are not worth a look into the database.
async fn no_member(resume: &Resume, identity: Identity, services: &Services) -> ErrorCode {
    if matches!(identity, Identity::SelfSigned(_)) {
        return ErrorCode::NotAMember;
    }
    match services.registry.departure(resume.network, resume.node).await {
        Some(Departure::Ended) => ErrorCode::MembershipEnded,
        Some(Departure::Left | Departure::Removed) | None => ErrorCode::NotAMember,
    }
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
