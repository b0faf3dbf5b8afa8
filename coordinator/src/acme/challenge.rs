//! What proves that a name leads here (RFC 8737): a certificate with the digest that the server expects, shown to who asks
//! for `acme-tls/1` and that name, and to nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::order::OrderError;

/// By which TLS clients ask for it.
pub const ALPN_ACME: &[u8] = b"acme-tls/1";

/// The proofs of the order that is under way, by name.
#[derive(Debug, Clone, Default)]
pub struct Challenges {
    shown: watch::Sender<BTreeMap<String, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// Shows the proof for a name.
    pub(super) fn show(&self, name: &str, digest: &[u8]) -> Result<(), OrderError> {
        let key = KeyPair::generate()?;
        let mut wanted = CertificateParams::new(vec![name.to_owned()])?;
        wanted.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
        let certificate = wanted.self_signed(&key)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        let shown = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key));
        self.shown.send_modify(|all| drop(all.insert(name.to_owned(), shown)));
        Ok(())
    }

    /// There is no order any more.
    pub(super) fn clear(&self) {
        self.shown.send_modify(BTreeMap::clear);
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, asked: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown.borrow().get(asked.server_name()?).cloned()
    }
}
