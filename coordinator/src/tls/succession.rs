//! One authority after another: the new one is vouched for by the one before it, so nodes that know only that one, and
//! join keys that pin it, still find their coordinator; then the old private key is erased.
//!
//! ```text
//! authorities.pem   private key and certificate of the authority in use
//!                   certificates of those before it, the latest first; RETIRED CERTIFICATE: nodes shall not trust it
//!                   cross certificates: the key of the one after it, signed by an older one
//! ```
//!
//! The file is replaced as a whole, so a roll-over has happened or has not.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use rcgen::{KeyPair, PublicKeyData};
use ria_protocol::keys::SpkiHash;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::authority::{
    Authority, AuthorityError, CA_CERTIFICATE, CA_KEY, ca_params, damaged, read, short_name,
};

const FILE: &str = "authorities.pem";
const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";
const RETIRED: &str = "RETIRED CERTIFICATE";

/// The longest way that nodes follow from an authority they know to the one in use; each roll-over adds a step.
const MAX_STEPS: usize = 6;

/// An authority before the one in use.
#[derive(Debug, Clone)]
pub struct Older {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) spki: Vec<u8>,
    /// SHA-256 of its public key, as in join keys.
    pub pin: SpkiHash,
    /// Whether nodes are told not to trust it any more.
    pub retired: bool,
}

impl Older {
    fn new(certificate: CertificateDer<'static>, retired: bool) -> Result<Self, String> {
        let spki = parse(&certificate)?.public_key().raw.to_vec();
        Ok(Self { pin: SpkiHash::of(&spki), certificate, spki, retired })
    }

    /// Its short name, as in its certificate.
    pub fn short_name(&self) -> String {
        short_name(self.pin)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

/// An authority can't be retired.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    #[error("there is no authority {0}; `ria-coordinator ca list` shows all")]
    Unknown(String),
    #[error(
        "authority {0} is the one in use; put another in its place first, with `ria-coordinator ca roll`"
    )]
    InUse(String),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The authority in use, and the way to put another in its place.
#[derive(Debug, Clone)]
pub struct Authorities {
    directory: PathBuf,
    current: watch::Sender<Arc<Authority>>,
}

impl Authorities {
    /// The authority of this identity, kept in `directory`.
    pub fn new(directory: PathBuf, authority: Authority) -> Self {
        Self { directory, current: watch::Sender::new(Arc::new(authority)) }
    }

    /// The one in use.
    pub fn current(&self) -> Arc<Authority> {
        self.current.borrow().clone()
    }

    /// Tells when another has taken over, or one was retired.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Authority>> {
        self.current.subscribe()
    }

    /// Makes a new authority, has the present one vouch for it, and puts it in its place. The old private key is erased.
    pub fn roll(&self) -> Result<Arc<Authority>, AuthorityError> {
        let present = self.current();
        let key = KeyPair::generate()?;
        let params = ca_params(&key);
        let own = params.self_signed(&key)?.der().clone();
        let cross = params.signed_by(&key, &present.issuer)?.der().clone();
        let serialized = Zeroizing::new(key.serialize_pem());
        let broken = |reason| damaged(&self.directory.join(FILE), reason);
        let mut next = Authority::from_parts(own, key).map_err(broken)?;
        let before = Older::new(present.certificate.clone(), false).map_err(broken)?;
        next.older = std::iter::once(before).chain(present.older.iter().cloned()).collect();
        next.crosses =
            std::iter::once(cross).chain(present.crosses.iter().cloned()).take(MAX_STEPS).collect();
        self.put(&serialized, next)
    }

    /// Has nodes no longer trust an authority, named by its short name or its pin.
    pub fn retire(&self, wanted: &str) -> Result<Arc<Authority>, RetireError> {
        let present = self.current();
        let is_it = |pin: SpkiHash| short_name(pin) == wanted || pin.to_string() == wanted;
        if is_it(present.pin()) {
            return Err(RetireError::InUse(wanted.to_owned()));
        }
        let mut older = present.older.clone();
        let found = older.iter_mut().find(|older| is_it(older.pin));
        found.ok_or_else(|| RetireError::Unknown(wanted.to_owned()))?.retired = true;
        let (path, text) = read(&self.directory, FILE)?;
        let key = key_of(&text).map_err(|reason| damaged(&path, reason))?;
        let serialized = Zeroizing::new(key.serialize_pem());
        let next = Authority::from_parts(present.certificate.clone(), key);
        let mut next = next.map_err(|reason| damaged(&path, reason))?;
        (next.older, next.crosses) = (older, present.crosses.clone());
        Ok(self.put(&serialized, next)?)
    }

    fn put(&self, key: &str, next: Authority) -> Result<Arc<Authority>, AuthorityError> {
        let path = self.directory.join(FILE);
        let failed = |source| AuthorityError::File { path: path.clone(), source };
        write(&path, text_of(key, &next).as_bytes()).map_err(failed)?;
        remove_replaced(&self.directory).map_err(failed)?;
        let next = Arc::new(next);
        self.current.send_replace(next.clone());
        Ok(next)
    }
}

/// Reads the file; `None` when there was never a roll-over.
pub(super) fn load(directory: &Path) -> Result<Option<Authority>, AuthorityError> {
    let (path, text) = match read(directory, FILE) {
        Ok(found) => found,
        Err(AuthorityError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let authority = parse_file(&text).map_err(|reason| damaged(&path, reason))?;
    // What a crash right after a roll-over left behind.
    remove_replaced(directory).map_err(|source| AuthorityError::File { path, source })?;
    Ok(Some(authority))
}

fn parse_file(text: &str) -> Result<Authority, String> {
    let key = key_of(text)?;
    let own_spki = key.subject_public_key_info();
    let (mut own, mut older, mut crosses) = (None, Vec::new(), Vec::new());
    for pem in Pem::iter_from_buffer(text.as_bytes()) {
        let pem = pem.map_err(|error| error.to_string())?;
        if pem.label == KEY {
            continue;
        }
        let certificate = CertificateDer::from(pem.contents);
        let parsed = parse(&certificate)?;
        let is_self_signed = parsed.issuer() == parsed.subject();
        let is_own = parsed.public_key().raw == own_spki.as_slice();
        match (is_self_signed, is_own) {
            (true, true) => own = Some(certificate),
            (true, false) => older.push(Older::new(certificate, pem.label == RETIRED)?),
            (false, _) => crosses.push(certificate),
        }
    }
    let own = own.ok_or_else(|| "there is no certificate for its key".to_owned())?;
    let mut authority = Authority::from_parts(own, key)?;
    (authority.older, authority.crosses) = (older, crosses);
    Ok(authority)
}

fn key_of(text: &str) -> Result<KeyPair, String> {
    let all = Pem::iter_from_buffer(text.as_bytes());
    let key = all.filter_map(Result::ok).find(|pem| pem.label == KEY);
    let key = Zeroizing::new(key.ok_or_else(|| "there is no private key in it".to_owned())?.contents);
    KeyPair::try_from(key.as_slice()).map_err(|error| error.to_string())
}

fn parse<'c>(certificate: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, String> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(|error| error.to_string())
}

fn text_of(key: &str, authority: &Authority) -> Zeroizing<String> {
    let mut text = Zeroizing::new(key.trim_end().to_owned() + "\n");
    push_pem(&mut text, CERTIFICATE, &authority.certificate);
    for older in &authority.older {
        push_pem(&mut text, if older.retired { RETIRED } else { CERTIFICATE }, &older.certificate);
    }
    for cross in &authority.crosses {
        push_pem(&mut text, CERTIFICATE, cross);
    }
    text
}

fn push_pem(text: &mut String, label: &str, der: &[u8]) {
    let encoded = BASE64.encode(der);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// The first authority's files have no more use once another took over, and its private key must not be found.
fn remove_replaced(directory: &Path) -> io::Result<()> {
    for name in [CA_KEY, CA_CERTIFICATE] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    sync_parent(&directory.join(FILE))
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::authority::Identity;

    fn begin(data_dir: &Path) -> Authorities {
        let authority = Identity::load_or_create(data_dir, None).unwrap().authority;
        Authorities::new(Identity::directory(data_dir).unwrap(), authority)
    }

    #[test]
    fn a_roll_over_survives_a_restart_and_the_old_key_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let authorities = begin(dir.path());
        let first = authorities.current().pin();
        let second = authorities.roll().unwrap().pin();
        let third = authorities.roll().unwrap();
        assert_ne!(first, second);
        let directory = dir.path().join("identity");
        assert!(!directory.join(CA_KEY).exists() && !directory.join(CA_CERTIFICATE).exists());
        let again = Identity::load_or_create(dir.path(), Some(third.pin())).unwrap().authority;
        assert_eq!(again.pin(), third.pin());
        assert_eq!(again.trusted_pins(), [third.pin(), second, first]);
        assert_eq!(again.crosses.len(), 2);
        let text = fs::read_to_string(directory.join(FILE)).unwrap();
        assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1, "an old key is kept");
    }

    #[test]
    fn a_retired_authority_is_trusted_no_more_and_still_leads_to_the_present_one() {
        let dir = tempfile::tempdir().unwrap();
        let authorities = begin(dir.path());
        let first = authorities.current().short_name();
        assert!(matches!(authorities.retire(&first), Err(RetireError::InUse(_))));
        let second = authorities.roll().unwrap().pin();
        assert!(matches!(authorities.retire("00000000"), Err(RetireError::Unknown(_))));
        assert_eq!(authorities.retire(&first).unwrap().trusted_pins(), [second]);
        let again = Identity::load_or_create(dir.path(), Some(second)).unwrap().authority;
        assert_eq!(again.trusted_pins(), [second]);
        assert_eq!((again.spkis().count(), again.chain().count()), (2, 3));
    }

    #[test]
    fn a_crash_between_the_steps_leaves_the_old_authority_or_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let authorities = begin(dir.path());
        let directory = dir.path().join("identity");
        let first = authorities.current().pin();
        let files = [CA_KEY, CA_CERTIFICATE].map(|name| (name, fs::read(directory.join(name)).unwrap()));
        // Before the new file has its name.
        fs::write(directory.join(FILE).with_extension("tmp"), "-----BEGIN PRIV").unwrap();
        assert_eq!(Identity::load_or_create(dir.path(), Some(first)).unwrap().authority.pin(), first);
        // After it, before the old ones are gone.
        let second = authorities.roll().unwrap().pin();
        for (name, content) in &files {
            fs::write(directory.join(name), content).unwrap();
        }
        assert_eq!(Identity::load_or_create(dir.path(), Some(first)).unwrap().authority.pin(), second);
        assert!(!directory.join(CA_KEY).exists());
    }
}
