//! Enrolment: shows a join key, proves both node keys, and comes back as a member, at once or after an administrator's
//! approval.

use std::net::IpAddr;

use ria_protocol::enrol::{Enrol, Enrolled, MembershipNews, Transcript, Waiting, proof};
use ria_protocol::error::ErrorCode;
use ria_protocol::id::BootId;
use ria_protocol::join_key::JoinKey;
use ria_protocol::message::{CoordinatorMessage, NodeMessage, Welcome};
use ria_protocol::name::Name;
use ria_protocol::requester::Requester;
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;

use super::dial::DialError;
use super::greet::{GreetError, Greeted, greet};
use super::reach::Reach;
use super::stream::{Stream, StreamError, unexpected};
use super::tls::{self, TlsSetupError, Trust};
use crate::state::membership::NodeKeys;

/// What to enrol with.
#[derive(Debug)]
pub struct Request<'a> {
    /// How this machine gets out.
    pub reach: &'a Reach,
    /// The join key.
    pub key: &'a JoinKey,
    /// Keys of the node, stored already.
    pub keys: &'a NodeKeys,
    /// The name that the node would like.
    pub name: Name,
    /// Whether a person chose it.
    pub name_required: bool,
    /// This run of the agent.
    pub boot: BootId,
    /// Who asked.
    pub requester: &'a Requester,
    /// Whether only a node is meant that is a member by these keys already. A coordinator that is too old to know of
    /// this is not asked at all.
    pub only_known: bool,
}

/// What the coordinator says.
pub enum Answer {
    /// The node is a member.
    Enrolled(Box<Enrolment>),
    /// An administrator has to approve first.
    Waiting(Box<Held>),
}

/// A connection on which the decision of an administrator is waited for.
pub struct Held {
    stream: Stream,
    /// The node's place in the queue.
    pub place: Waiting,
    /// Which URL answered.
    pub url: String,
    address: Option<IpAddr>,
    time: UnixTime,
}

impl Held {
    /// Waits for the decision. May be dropped at any time.
    #[expect(clippy::wildcard_enum_match_arm, reason = "of all messages only these belong here")]
    pub async fn decision(&mut self) -> Result<Enrolment, EnrolError> {
        loop {
            match self.stream.receive().await? {
                CoordinatorMessage::Enrolled(enrolled) => {
                    return Ok(Enrolment { enrolled, address: self.address, time: self.time });
                }
                CoordinatorMessage::Membership(_) => {}
                CoordinatorMessage::Drain(_) => return Err(StreamError::Closed.into()),
                CoordinatorMessage::Refused(refusal) => return Err(StreamError::Refused(refusal).into()),
                _ => return Err(unexpected("a decision").into()),
            }
        }
    }

    /// Gives up the place in the queue.
    pub async fn withdraw(mut self) -> bool {
        let told = async {
            self.stream.send(&NodeMessage::Leave).await?;
            self.stream.answer().await
        };
        matches!(told.await, Ok(CoordinatorMessage::Left))
    }
}

/// The node is a member.
#[derive(Debug)]
pub struct Enrolment {
    /// What the coordinator said.
    pub enrolled: Enrolled,
    /// Its address, unless a proxy hides it.
    pub address: Option<IpAddr>,
    /// Its clock.
    pub time: UnixTime,
}

/// Enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The coordinator can't be reached or is another one.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended before the answer.
    #[error("the coordinator was reached, but {0}; try again, the key is not used up by this")]
    Stream(StreamError),
    /// The coordinator said no.
    #[error("{}: {text}", code.name())]
    Refused {
        /// Why.
        code: ErrorCode,
        /// What to do.
        text: String,
    },
    /// TLS.
    #[error(transparent)]
    Setup(#[from] TlsSetupError),
}

impl From<StreamError> for EnrolError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Refused(refusal) => Self::Refused { code: refusal.code, text: refusal.text },
            other @ (StreamError::Closed
            | StreamError::Broken(_)
            | StreamError::Silent
            | StreamError::Malformed(_)) => Self::Stream(other),
        }
    }
}

impl From<GreetError> for EnrolError {
    fn from(error: GreetError) -> Self {
        match error {
            GreetError::Dial(error) => Self::Dial(error),
            GreetError::Stream(error) => error.into(),
        }
    }
}

/// Enrols with the coordinator of the join key.
#[expect(clippy::wildcard_enum_match_arm, reason = "of all messages only these belong here")]
pub async fn enrol(request: &Request<'_>) -> Result<Answer, EnrolError> {
    let trust = Trust::Pin(request.key.ca_pin);
    let tls = tls::client_config(trust, UnixTime::default(), request.keys, None)?;
    let Greeted { mut stream, welcome, url, address, exporter, .. } =
        greet(request.reach, &request.key.urls, &tls).await?;
    if request.only_known && stream.protocol() < Protocol::V2 {
        return Err(StreamError::Refused(ErrorCode::NotAMember.into()).into());
    }
    let message = enrol_message(request, &welcome, &exporter)?;
    stream.send(&NodeMessage::Enrol(message)).await?;
    match stream.answer().await? {
        CoordinatorMessage::Enrolled(enrolled) => {
            stream.close().await;
            Ok(Answer::Enrolled(Box::new(Enrolment { enrolled, address, time: welcome.time })))
        }
        CoordinatorMessage::Membership(MembershipNews::Waiting(place)) => {
            Ok(Answer::Waiting(Box::new(Held { stream, place, url, address, time: welcome.time })))
        }
        _ => Err(unexpected("the answer to an enrolment").into()),
    }
}

fn enrol_message(request: &Request<'_>, welcome: &Welcome, exporter: &[u8; 32]) -> Result<Enrol, EnrolError> {
    let csr = certificate_request(request.keys)?;
    let wg_key = request.keys.wg_public();
    let challenge = x25519_dalek::PublicKey::from(welcome.challenge.0);
    let shared = request.keys.wg_secret().diffie_hellman(&challenge);
    let transcript = Transcript { exporter, challenge: &welcome.challenge, wg_key: &wg_key, csr: &csr };
    Ok(Enrol {
        key_id: request.key.key_id,
        secret: request.key.secret.clone(),
        name: request.name.clone(),
        name_required: request.name_required,
        wg_key,
        proof: proof(shared.as_bytes(), &transcript),
        csr,
        boot: request.boot,
        only_known: request.only_known.then_some(true),
        requester: Some(request.requester.clone()),
    })
}

/// PKCS #10 request for the node's TLS key. It names nobody: the coordinator decides who the node is.
pub fn certificate_request(keys: &NodeKeys) -> Result<Vec<u8>, TlsSetupError> {
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(&keys.tls()?)?.der().to_vec())
}
