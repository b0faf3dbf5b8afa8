//! Verification of an enrolment request: everything that can be checked without the state (see
//! [`ria_protocol::enrol`]). Only this module makes a [`ProvenEnrolment`].

use std::net::IpAddr;

use ria_protocol::enrol::{Enrol, Transcript, proof_holds};
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::{KeyId, NodeId};
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::name::Name;
use ria_protocol::rotation::{self, Rotate};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x25519_dalek::{EphemeralSecret, PublicKey};

use crate::audit::Actor;
use crate::person::Reported;

/// The private half of a connection's challenge; good for one proof.
pub struct Challenge {
    secret: EphemeralSecret,
    public: WgPublicKey,
}

impl Challenge {
    /// Draws a new one.
    pub fn new() -> Self {
        let secret = EphemeralSecret::random();
        let public = WgPublicKey(PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// What the node is told.
    pub fn public(&self) -> WgPublicKey {
        self.public
    }
}

impl std::fmt::Debug for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Challenge({})", self.public)
    }
}

impl Default for Challenge {
    fn default() -> Self {
        Self::new()
    }
}

/// The connection that a request came over.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// TLS exporter value, see [`ria_protocol::enrol::EXPORTER_LABEL`].
    pub exporter: &'a [u8; 32],
    /// SHA-256 of the public key that the node's certificate holds.
    pub tls_key: SpkiHash,
    pub from: IpAddr,
    pub agent_version: &'a str,
}

/// A request by a node that holds the private halves of both keys.
#[derive(Debug, Clone)]
pub struct ProvenEnrolment {
    pub key_id: KeyId,
    pub secret_digest: [u8; 32],
    pub name: Name,
    pub name_required: bool,
    pub wg_key: WgPublicKey,
    pub tls_key: SpkiHash,
    pub agent_version: String,
    pub from: IpAddr,
    /// Whether nobody new is meant.
    pub only_known: bool,
    /// Who had the node join, as it says.
    pub reported: Option<Reported>,
}

impl ProvenEnrolment {
    /// Who does what follows from it, once the node has its identity.
    pub fn actor(&self, node: NodeId) -> Actor {
        match &self.reported {
            Some(reported) => Actor::NodeFor(node, reported.clone()),
            None => Actor::Node(node),
        }
    }
}

/// Checks the proof of the WireGuard key and the certificate request.
pub fn verify(
    request: &Enrol,
    challenge: Challenge,
    connection: Connection<'_>,
) -> Result<ProvenEnrolment, Refusal> {
    let public = challenge.public;
    let shared = challenge.secret.diffie_hellman(&PublicKey::from(request.wg_key.0));
    let transcript = Transcript {
        exporter: connection.exporter,
        challenge: &public,
        wg_key: &request.wg_key,
        csr: &request.csr,
    };
    if !proof_holds(shared.as_bytes(), &transcript, &request.proof) {
        return Err(ErrorCode::ProofFailed.into());
    }
    check_request(&request.csr, connection.tls_key)?;
    Ok(ProvenEnrolment {
        key_id: request.key_id,
        secret_digest: request.secret.digest(),
        name: request.name.clone(),
        name_required: request.name_required,
        wg_key: request.wg_key,
        tls_key: connection.tls_key,
        agent_version: connection.agent_version.to_owned(),
        from: connection.from,
        only_known: request.only_known.unwrap_or(false),
        reported: request.requester.as_ref().map(Reported::of),
    })
}

/// Checks the proof that a member holds the WireGuard key that it wants to be known by.
pub fn verify_rotation(request: &Rotate, challenge: Challenge, exporter: &[u8; 32]) -> Result<(), Refusal> {
    let public = challenge.public;
    let shared = challenge.secret.diffie_hellman(&PublicKey::from(request.wg_key.0));
    let transcript = rotation::Transcript { exporter, challenge: &public, wg_key: &request.wg_key };
    if rotation::proof_holds(shared.as_bytes(), &transcript, &request.proof) {
        Ok(())
    } else {
        Err(ErrorCode::ProofFailed.into())
    }
}

/// Whether a certificate request is signed by its own key, and that is the key of this connection.
pub fn check_request(csr: &[u8], tls_key: SpkiHash) -> Result<(), Refusal> {
    let malformed = |_| Refusal {
        code: ErrorCode::BadMessage,
        text: "the certificate request can't be read; update the older one of agent and coordinator"
            .to_owned(),
    };
    let (_, request) = X509CertificationRequest::from_der(csr).map_err(malformed)?;
    request.verify_signature().map_err(|_| ErrorCode::ProofFailed)?;
    if SpkiHash::of(request.certification_request_info.subject_pki.raw) != tls_key {
        return Err(ErrorCode::ProofFailed.into());
    }
    Ok(())
}
