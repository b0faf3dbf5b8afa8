//! The certificate for the pages that is in files: the operator's, or one by ACME. Read anew when the files change.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ria_protocol::time::UnixTime;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::leaf::Leaf;
use crate::config::PageCertificate;
use crate::duration::shown_relative;

/// Said when a certificate ends so soon, or has less than a quarter of its life left, whichever is later.
const SOON: u64 = 14 * DAY;
/// How often it is said.
const SAID_EVERY: Duration = Duration::from_secs(DAY);
const DAY: u64 = 86_400;

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
    /// When it was said last that it ends soon.
    said: watch::Sender<Option<Instant>>,
    /// Shown while there are no files.
    meanwhile: Option<Arc<Leaf>>,
}

#[derive(Debug, Clone)]
struct Loaded {
    key: Arc<CertifiedKey>,
    changed: [Option<SystemTime>; 2],
    life: Life,
}

/// When a certificate begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    begins: UnixTime,
    ends: UnixTime,
}

impl Life {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let at = |time: ASN1Time| UnixTime(u64::try_from(time.timestamp()).unwrap_or(0));
        let validity = certificate.validity();
        Self { begins: at(validity.not_before), ends: at(validity.not_after) }
    }

    /// Whether it is time to say that it ends. One that lives for days only is renewed days before.
    fn ends_soon(self, now: UnixTime) -> bool {
        self.ends.since(now).as_secs() < SOON.min(self.ends.since(self.begins).as_secs() / 4)
    }
}

impl Operator {
    /// Reads the files.
    pub fn load(files: PageCertificate) -> Result<Self, OperatorError> {
        let (current, _) = watch::channel(Some(read(&files)?));
        Ok(Self { files, current, said: watch::Sender::default(), meanwhile: None })
    }

    /// Files that are yet to come, or can't be used; until then, `meanwhile` is shown.
    pub fn awaited(files: PageCertificate, meanwhile: Arc<Leaf>) -> Self {
        let (current, _) = watch::channel(read(&files).ok());
        Self { files, current, said: watch::Sender::default(), meanwhile: Some(meanwhile) }
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

    /// When the certificate ends; absent while there is none.
    pub fn ends(&self) -> Option<UnixTime> {
        self.current.borrow().as_ref().map(|loaded| loaded.life.ends)
    }

    /// Says once a day that the certificate ends soon, where that is so; returns whether it was said.
    pub fn warn_when_it_ends(&self, now: UnixTime, instant: Instant) -> bool {
        let Some(life) = self.current.borrow().as_ref().map(|loaded| loaded.life) else { return false };
        let said = *self.said.borrow();
        let lately = said.is_some_and(|said| instant.saturating_duration_since(said) < SAID_EVERY);
        if lately || !life.ends_soon(now) {
            return false;
        }
        self.said.send_replace(Some(instant));
        tracing::warn!(
            ends = shown_relative(life.ends, now),
            "the certificate of the pages ends soon, or has ended; renew it in its files"
        );
        true
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
    let life = Life::of(&parsed);
    let key = PrivateKeyDer::from_pem_slice(&text(&files.key)?)
        .map_err(|error| wrong(&files.key, error.to_string()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|error| wrong(&files.key, error.to_string()))?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(_) => return Err(wrong(&files.key, "the key does not belong to the certificate".to_owned())),
    }
    Ok(Loaded { key: Arc::new(key), changed, life })
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
    fn that_it_ends_is_said_in_time_and_once_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let operator = Operator::load(write(directory.path(), "a.example")).unwrap();
        let life = |days: u64| Life { begins: UnixTime(0), ends: UnixTime(days * DAY) };
        operator.current.send_modify(|loaded| loaded.as_mut().unwrap().life = life(90));
        assert_eq!(operator.ends(), Some(UnixTime(90 * DAY)));
        let (start, day) = (Instant::now(), UnixTime(77 * DAY));
        assert!(!operator.warn_when_it_ends(UnixTime(75 * DAY), start));
        let hours = |n: u64| start + Duration::from_secs(n * 3600);
        let said = [0, 1, 23, 25, 30, 50].map(|n| operator.warn_when_it_ends(day, hours(n)));
        assert_eq!(said, [true, false, false, true, false, true]);
        assert!(operator.warn_when_it_ends(UnixTime(200 * DAY), hours(90)), "it has ended");
        // One of six days is renewed days before, and not warned of from its first minute on.
        assert!(!life(6).ends_soon(UnixTime(0)) && life(6).ends_soon(UnixTime(5 * DAY)));
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
