//! Where account, certificate and key are kept.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::PageCertificate;

/// A folder of the data directory, for the coordinator's eyes alone.
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("acme") }
    }

    pub(super) fn certificate(&self) -> PageCertificate {
        PageCertificate { certificate: self.folder.join("certificate.pem"), key: self.folder.join("key.pem") }
    }

    /// What the account is known by at the server, if there is one.
    pub(super) fn account(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("account.json")).ok()
    }

    pub(super) fn store_account(&self, text: &str) -> io::Result<()> {
        self.write("account.json", text)
    }

    /// The key goes first: one that does not belong to the certificate is not shown, and the pair is read again after that.
    pub(super) fn store(&self, chain: &str, key: &str) -> io::Result<()> {
        self.write("key.pem", key)?;
        self.write("certificate.pem", chain)
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let (target, fresh) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        let mut file =
            fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(fresh, target)
    }

    /// Whether there is no certificate for these names, or a third of its life is left.
    pub(super) fn is_due(&self, names: &[String], now: SystemTime) -> bool {
        let Ok(pem) = fs::read(self.certificate().certificate) else { return true };
        let Ok(first) = CertificateDer::from_pem_slice(&pem) else { return true };
        let Ok((_, certificate)) = X509Certificate::from_der(&first) else { return true };
        !names.iter().all(|name| is_for(&certificate, name)) || is_worn(&certificate, now)
    }
}

fn is_for(certificate: &X509Certificate<'_>, name: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|known| matches!(known, GeneralName::DNSName(dns) if *dns == name))
}

fn is_worn(certificate: &X509Certificate<'_>, now: SystemTime) -> bool {
    let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
    let validity = certificate.validity();
    let (from, until) = (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()));
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    now >= from + until.saturating_sub(from) / 3 * 2
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_is_due_when_missing_worn_or_for_other_names() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(directory.path());
        let at = |day: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(day * 86400);
        let names = ["ria.lab.example".to_owned()];
        assert!(files.is_due(&names, at(20_000)));
        let mut wanted = CertificateParams::new(names.to_vec()).unwrap();
        (wanted.not_before, wanted.not_after) = (at(20_000).into(), at(20_090).into());
        let key = KeyPair::generate().unwrap();
        files.store(&wanted.self_signed(&key).unwrap().pem(), &key.serialize_pem()).unwrap();
        assert!(!files.is_due(&names, at(20_001)) && !files.is_due(&names, at(20_059)));
        assert!(files.is_due(&names, at(20_060)) && files.is_due(&names, at(20_100)));
        assert!(files.is_due(&["other.lab.example".to_owned()], at(20_001)));
        fs::write(files.certificate().certificate, "rubbish").unwrap();
        assert!(files.is_due(&names, at(20_001)));
    }
}
