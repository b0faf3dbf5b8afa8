//! The certificate for the pages that is in files: the operator's, or one by ACME. Read anew when the files change.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::leaf::Leaf;
use crate::config::PageCertificate;

/// Said when a certificate ends so soon.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// The operator's certificate can't be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate of the pages ({0}) can't be used: {1}; give PEM files as pages.certificate and pages.key"
)]
pub struct OperatorError(String, String);

/// The certificate as it was read last.
#[derive(Debug)]
pub struct Operator {
    files: PageCertificate,
    current: watch::Sender<Option<Loaded>>,
    /// Shown while there are no files.
    meanwhile: Option<Arc<Leaf>>,
}

#[derive(Debug, Clone)]
struct Loaded {
    key: Arc<CertifiedKey>,
    changed: [Option<SystemTime>; 2],
}

impl Operator {
    /// Reads the files.
    pub fn load(files: PageCertificate) -> Result<Self, OperatorError> {
        let (current, _) = watch::channel(Some(read(&files)?));
        Ok(Self { files, current, meanwhile: None })
    }

    /// Files that are yet to come, or can't be used; until then, `meanwhile` is shown.
    pub fn awaited(files: PageCertificate, meanwhile: Arc<Leaf>) -> Self {
        let (current, _) = watch::channel(read(&files).ok());
        Self { files, current, meanwhile: Some(meanwhile) }
    }

    /// Reads them again if they were changed. What can't be used changes nothing.
    pub fn renew_if_changed(&self) {
        let now = changed(&self.files);
        let known = self.current.borrow().as_ref().map_or([None; 2], |loaded| loaded.changed);
        if now == known {
            return;
        }
        match read(&self.files) {
            Ok(loaded) => {
                self.current.send_replace(Some(loaded));
                tracing::info!("the certificate of the pages was read anew");
            }
            Err(error) => {
                tracing::warn!(%error, "the certificate of the pages was changed; the one from before is used on");
            }
        }
    }
}

impl ResolvesServerCert for Operator {
    fn resolve(&self, asked: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = self.current.borrow().as_ref().map(|loaded| loaded.key.clone());
        known.or_else(|| self.meanwhile.as_ref()?.resolve(asked))
    }
}

fn changed(files: &PageCertificate) -> [Option<SystemTime>; 2] {
    let time = |path: &Path| fs::metadata(path).and_then(|known| known.modified()).ok();
    [time(&files.certificate), time(&files.key)]
}

fn read(files: &PageCertificate) -> Result<Loaded, OperatorError> {
    // Taken first: what is changed while it is read is read again.
    let changed = changed(files);
    let wrong = |path: &Path, text: String| OperatorError(path.display().to_string(), text);
    let text = |path: &Path| fs::read(path).map_err(|error: io::Error| wrong(path, error.to_string()));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text(&files.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(&files.certificate, error.to_string()))?;
    let first =
        chain.first().ok_or_else(|| wrong(&files.certificate, "it holds no certificate".to_owned()))?;
    let (_, parsed) =
        X509Certificate::from_der(first).map_err(|e| wrong(&files.certificate, e.to_string()))?;
    let left = parsed.validity().time_to_expiration();
    let left = left.map_or(Duration::ZERO, |left| Duration::from_secs(left.whole_seconds().unsigned_abs()));
    if left < SOON {
        let days = left.as_secs() / 86400;
        tracing::warn!(days, "the certificate of the pages ends soon, or has ended; renew it in its files");
    }
    let key = PrivateKeyDer::from_pem_slice(&text(&files.key)?)
        .map_err(|error| wrong(&files.key, error.to_string()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|error| wrong(&files.key, error.to_string()))?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(wrong(&files.key, "the key does not belong to the certificate".to_owned())),
    }
    Ok(Loaded { key: Arc::new(key), changed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn write(directory: &Path, name: &str) -> PageCertificate {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let files = PageCertificate { certificate: directory.join("c.pem"), key: directory.join("k.pem") };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::load(write(directory.path(), "a.example")).unwrap();
        let serving = || operator.current.borrow().as_ref().unwrap().key.cert[0].clone();
        let first = serving();
        operator.renew_if_changed();
        assert_eq!(serving(), first);
        let files = write(directory.path(), "b.example");
        // Clocks of file systems are coarse.
        let later = SystemTime::now() + Duration::from_secs(10);
        fs::File::options().write(true).open(&files.key).unwrap().set_modified(later).unwrap();
        operator.renew_if_changed();
        let second = serving();
        assert_ne!(second, first);
        fs::write(&files.certificate, "rubbish").unwrap();
        operator.renew_if_changed();
        assert_eq!(serving(), second);
        let error = Operator::load(files).unwrap_err().to_string();
        assert!(error.contains("c.pem") && error.contains("pages.certificate"), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let (files, stranger) = (write(directory.path(), "a.example"), write(other.path(), "b.example"));
        fs::copy(stranger.key, &files.key).unwrap();
        assert!(Operator::load(files).unwrap_err().to_string().contains("does not belong"));
    }
}
