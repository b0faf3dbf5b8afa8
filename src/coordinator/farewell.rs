//! Leaving a network for good without a standing session: connects, says so, and waits until that is done.

use ria_protocol::enrol::Certificate;
use ria_protocol::error::ErrorCode;
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::message::{CoordinatorMessage, NodeMessage, Resume};
use ria_protocol::time::UnixTime;

use tokio::time::Instant;

use super::enrol::EnrolError;
use super::greet::{Greeted, greet};
use super::reach::Reach;
use super::tls::{self, Trust};
use crate::state::membership::NodeKeys;
use crate::state::untold::Note;

/// What it takes.
#[derive(Debug)]
pub struct Farewell {
    /// How this machine gets out.
    pub reach: Reach,
    /// Which network.
    pub network: NetworkId,
    /// Who goes.
    pub node: NodeId,
    /// This run.
    pub boot: BootId,
    /// Where the coordinator answers.
    pub urls: Vec<String>,
    /// The node's keys.
    pub keys: NodeKeys,
    /// Its certificate.
    pub certificate: Certificate,
    /// The coordinator's clock at the last contact.
    pub time: UnixTime,
    /// What the coordinator does not know yet; last, who wants to leave.
    pub notes: Vec<Note>,
}

impl Farewell {
    /// Says good-bye; whether the coordinator heard. When it did not, its administrator sees a node that is away.
    pub async fn say(&self) -> bool {
        match self.attempt().await {
            Ok(()) => true,
            // It is out already.
            Err(EnrolError::Refused {
                code: ErrorCode::NotAMember | ErrorCode::MembershipEnded | ErrorCode::Certificate,
                ..
            }) => true,
            Err(error) => {
                tracing::debug!(%error, node = %self.node, "the coordinator could not be told that this node has left");
                false
            }
        }
    }

    async fn attempt(&self) -> Result<(), EnrolError> {
        let trust = Trust::Authorities(self.certificate.authorities.clone());
        let tls = tls::client_config(trust, self.time, &self.keys, Some(&self.certificate.leaf))?;
        let Greeted { mut stream, time, .. } = greet(&self.reach, &self.urls, &tls).await?;
        let (network, node, boot) = (self.network, self.node, self.boot);
        let resume = Resume {
            network,
            node,
            revision: None,
            boot,
            clock: None,
            trusts: None,
            routes: None,
            holds: Some(Vec::new()),
        };
        stream.send(&NodeMessage::Resume(resume)).await?;
        for note in &self.notes {
            stream.send(&note.message(time.now(Instant::now()))).await?;
        }
        stream.send(&NodeMessage::Leave).await?;
        while stream.answer().await? != CoordinatorMessage::Left {}
        Ok(())
    }
}
