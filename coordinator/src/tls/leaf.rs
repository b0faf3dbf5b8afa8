//! The coordinator's own server certificates, renewed while it runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use ria_protocol::keys::SpkiHash;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::authority::Authority;
use super::succession::Authorities;

const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
const RENEWED_AFTER: Duration = Duration::from_secs(10 * 24 * 3600);

/// A certificate can't be made.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    #[error("making the server's certificate failed: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("the server's certificate is of no use: {0}")]
    Key(#[from] rustls::Error),
}

/// A server certificate with its chain, always fresh enough.
#[derive(Debug)]
pub struct Leaf {
    authorities: Authorities,
    names: Vec<String>,
    current: watch::Sender<Issued>,
}

#[derive(Debug)]
struct Issued {
    key: Arc<CertifiedKey>,
    at: SystemTime,
    by: SpkiHash,
}

impl Leaf {
    /// A certificate for `names`.
    pub fn new(authorities: Authorities, names: Vec<String>) -> Result<Self, LeafError> {
        let (current, _) = watch::channel(issue(&authorities.current(), &names)?);
        Ok(Self { authorities, names, current })
    }

    /// The certificate that is shown now.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.current.borrow().key.cert.first().cloned()
    }

    /// Issues another one when the present one has had a third of its life, was issued in what the clock now says is the
    /// future, or by an authority that is in use no more. To be called now and then.
    pub fn renew_if_due(&self, now: SystemTime) -> Result<(), LeafError> {
        let authority = self.authorities.current();
        let (issued_at, by) = {
            let issued = self.current.borrow();
            (issued.at, issued.by)
        };
        if by == authority.pin() && now.duration_since(issued_at).is_ok_and(|age| age < RENEWED_AFTER) {
            return Ok(());
        }
        self.current.send_replace(issue(&authority, &self.names)?);
        tracing::info!("the server's certificate was renewed");
        Ok(())
    }
}

fn issue(authority: &Authority, names: &[String]) -> Result<Issued, LeafError> {
    let key = KeyPair::generate()?;
    // The chain includes the authorities, for joining nodes know only the hash of a key.
    let own = authority.issue_server(&key, names, LIFE)?;
    let chain = std::iter::once(own).chain(authority.chain().cloned()).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let key = Arc::new(CertifiedKey::new(chain, key));
    Ok(Issued { key, at: SystemTime::now(), by: authority.pin() })
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.borrow().key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::authority::Identity;

    #[test]
    fn the_certificate_is_replaced_in_time_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Identity::load_or_create(dir.path(), None).unwrap().authority;
        let authorities = Authorities::new(Identity::directory(dir.path()).unwrap(), authority);
        let leaf = Leaf::new(authorities.clone(), vec!["coordinator.ria.internal".into()]).unwrap();
        let serving = || leaf.current.borrow().key.cert[0].clone();
        let first = serving();
        leaf.renew_if_due(SystemTime::now()).unwrap();
        assert_eq!(serving(), first);
        leaf.renew_if_due(SystemTime::now() + RENEWED_AFTER).unwrap();
        let second = serving();
        assert_ne!(second, first);
        leaf.renew_if_due(SystemTime::now() - RENEWED_AFTER).unwrap();
        let third = serving();
        assert_ne!(third, second, "a clock that was set back makes the certificate one of the future");
        authorities.roll().unwrap();
        leaf.renew_if_due(SystemTime::now()).unwrap();
        assert_ne!(serving(), third, "another authority is in use");
    }
}
