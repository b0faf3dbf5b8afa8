//! What the coordinator says, put into effect: first in the relay, then on the disk.

use std::sync::Arc;
use std::time::SystemTime;

use ria_protocol::id::NodeId;
use ria_protocol::name::Name;
use ria_protocol::relay::{Denied, RelayTerms};
use ria_protocol::time::UnixTime;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::StandaloneError;
use super::port::GivenCertificate;
use super::stored::Stored;
use crate::config::RelaySettings;
use crate::relay::{RelayHandle, Terms};
use crate::relays::deny::{DenyList, difference, whole};

/// Clocks that differ by more make credentials look expired, or good for too long.
const CLOCK_TOLERANCE: u64 = 60;

/// The relay as its coordinator wants it.
pub(super) struct Obedience {
    relay: RelayHandle,
    settings: RelaySettings,
    certificate: Arc<GivenCertificate>,
    stored: Stored,
    denied: DenyList,
}

impl Obedience {
    /// Begins with what was said last.
    pub fn new(
        relay: RelayHandle,
        settings: RelaySettings,
        certificate: Arc<GivenCertificate>,
        stored: Stored,
    ) -> Result<Self, StandaloneError> {
        let mut obedience = Self { relay, settings, certificate, stored, denied: DenyList::new() };
        if let Some(terms) = obedience.stored.terms.clone() {
            obedience.apply(&terms)?;
        }
        Ok(obedience)
    }

    pub fn name(&self) -> &Name {
        &self.stored.identity.name
    }

    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Whether it knows whom to serve.
    pub fn has_terms(&self) -> bool {
        self.stored.terms.is_some()
    }

    /// All of it anew.
    pub fn handle_terms(&mut self, terms: RelayTerms) -> Result<(), StandaloneError> {
        let here = UnixTime::from(SystemTime::now());
        if here.0.abs_diff(terms.time.0) > CLOCK_TOLERANCE {
            tracing::warn!(
                seconds = here.0.abs_diff(terms.time.0),
                "this machine's clock differs from the coordinator's, by which credentials end; set both right (NTP)"
            );
        }
        self.apply(&terms)?;
        self.stored.terms = Some(terms);
        self.keep();
        Ok(())
    }

    fn apply(&mut self, terms: &RelayTerms) -> Result<(), StandaloneError> {
        // Whom to refuse comes first.
        self.follow(terms.denied.iter().map(|denied| (denied.node, denied.until)).collect());
        let ours = self.settings.terms(terms.key.0);
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let theirs = terms.node_allocations.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let allocations = self.settings.node_allocations.into_iter().chain(theirs).min();
        self.relay.set_terms(Terms {
            networks: terms.networks.as_ref().map(|networks| networks.iter().copied().collect()),
            bytes_per_second_of_node: least(ours.bytes_per_second_of_node, terms.node_bytes_per_second),
            allocations_per_node: allocations.unwrap_or(ours.allocations_per_node),
            ..ours
        });
        self.certificate.set(self.certified(terms)?);
        Ok(())
    }

    fn certified(&self, terms: &RelayTerms) -> Result<CertifiedKey, StandaloneError> {
        let failed = |error: &dyn ToString| StandaloneError::Tls(error.to_string());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.stored.identity.tls_key.clone()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|error| failed(&error))?;
        let own = CertificateDer::from(terms.certificate.clone());
        let behind = terms.chain.iter().map(|authority| CertificateDer::from(authority.0.clone()));
        Ok(CertifiedKey::new(std::iter::once(own).chain(behind).collect(), key))
    }

    fn follow(&mut self, wanted: DenyList) {
        let (denied, admitted) = difference(&self.denied, &wanted, UnixTime(0));
        denied.iter().for_each(|denied| self.relay.revoke(denied.node, denied.until));
        admitted.iter().for_each(|node| self.relay.readmit(*node));
        self.denied = wanted;
    }

    /// These are served no more.
    pub fn deny(&mut self, nodes: &[Denied]) {
        tracing::info!(nodes = nodes.len(), "nodes are served no more");
        let mut wanted = self.denied.clone();
        wanted.extend(nodes.iter().map(|denied| (denied.node, denied.until)));
        self.change_denied(wanted);
    }

    /// These are served again.
    pub fn admit(&mut self, nodes: &[NodeId]) {
        let mut wanted = self.denied.clone();
        nodes.iter().for_each(|node| _ = wanted.remove(node));
        self.change_denied(wanted);
    }

    fn change_denied(&mut self, wanted: DenyList) {
        self.follow(wanted);
        // What has ended by itself need not be kept.
        let now = UnixTime::from(SystemTime::now());
        self.denied.retain(|_, until| now <= *until);
        if let Some(terms) = &mut self.stored.terms {
            terms.denied = whole(&self.denied);
        }
        self.keep();
    }

    fn keep(&self) {
        if let Err(error) = self.stored.keep_terms() {
            tracing::error!(
                %error,
                "what the coordinator says can't be kept; after a restart this relay goes by what it said before until it \
                 is reached; make room in the data directory"
            );
        }
    }

    /// The coordinator wants this relay no more.
    pub fn forget(&mut self) {
        if let Err(error) = self.stored.forget_terms() {
            tracing::error!(%error, "remove the data directory");
        }
    }
}
