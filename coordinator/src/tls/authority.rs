//! The coordinator's own certification authority and what else must never change or be lost: kept as one directory,
//! made whole or not at all.
//!
//! ```text
//! <data dir>/identity/ca.key        private key, PEM          all 0600, directory 0700
//!                     ca.crt        certificate, PEM
//!                     relay.secret  32 bytes, base64
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ria_protocol::enrol::{Authority as AuthorityCertificate, Certificate};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::SpkiHash;
use ria_protocol::time::UnixTime;
use rustls::pki_types::CertificateDer;
use zeroize::{Zeroize, Zeroizing};

use crate::random;

const DIRECTORY: &str = "identity";
const CA_KEY: &str = "ca.key";
const CA_CERTIFICATE: &str = "ca.crt";
const RELAY_SECRET: &str = "relay.secret";

/// Life of a node's certificate.
pub const NODE_CERTIFICATE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Certificates begin this much earlier than now, for clocks that are a little behind.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// The authority can't be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{path} is damaged ({reason}); restore the directory from a backup, for all nodes have pinned this authority",
        path = path.display()
    )]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{path} is missing, and all nodes have pinned the authority that was there; restore the directory from a backup",
        path = path.display()
    )]
    Missing { path: PathBuf },
    #[error("making the certification authority failed: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The certification authority, with its private key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pin: SpkiHash,
    spki: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.pin)
    }
}

/// What the directory holds.
#[derive(Debug)]
pub struct Identity {
    pub authority: Authority,
    pub relay_secret: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// The directory, if there is one: then this coordinator has run before.
    pub fn directory(data_dir: &Path) -> Option<PathBuf> {
        Some(data_dir.join(DIRECTORY)).filter(|directory| directory.is_dir())
    }

    /// Reads the directory; makes it when there is none, unless a database belongs to one that there should be.
    pub fn load_or_create(data_dir: &Path, expected: Option<SpkiHash>) -> Result<Self, AuthorityError> {
        remove_leftovers(data_dir)?;
        let directory = data_dir.join(DIRECTORY);
        match fs::symlink_metadata(&directory) {
            Ok(_) => Self::load(&directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound && expected.is_some() => {
                Err(AuthorityError::Missing { path: directory })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(data_dir, &directory)?;
                Self::load(&directory)
            }
            Err(source) => Err(AuthorityError::File { path: directory, source }),
        }
    }

    fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = directory.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok((path, Zeroizing::new(text))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(AuthorityError::Missing { path })
                }
                Err(source) => Err(AuthorityError::File { path, source }),
            }
        };
        let damaged = |path: &Path, reason: String| AuthorityError::Damaged { path: path.to_owned(), reason };

        let (path, text) = read(CA_KEY)?;
        let key = KeyPair::from_pem(&text).map_err(|e| damaged(&path, e.to_string()))?;
        let (path, text) = read(CA_CERTIFICATE)?;
        let authority = Authority::new(&text, key).map_err(|reason| damaged(&path, reason))?;
        let (path, text) = read(RELAY_SECRET)?;
        let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|e| damaged(&path, e.to_string()))?;
        let secret = <[u8; 32]>::try_from(bytes).map_err(|_| damaged(&path, "wrong length".to_owned()))?;
        Ok(Self { authority, relay_secret: Zeroizing::new(secret) })
    }
}

/// A directory under another name is what a start that was interrupted left behind: nobody has seen it yet.
fn remove_leftovers(data_dir: &Path) -> Result<(), AuthorityError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| AuthorityError::File { path, source }
    };
    let unfinished = data_dir.join(format!("{DIRECTORY}.new"));
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&unfinished)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn create(data_dir: &Path, directory: &Path) -> Result<(), AuthorityError> {
    let key = KeyPair::generate()?;
    let certificate = ca_params(&key).self_signed(&key)?;
    let mut secret = random::bytes::<32>();
    let files = [
        (CA_KEY, Zeroizing::new(key.serialize_pem())),
        (CA_CERTIFICATE, Zeroizing::new(certificate.pem())),
        (RELAY_SECRET, Zeroizing::new(BASE64.encode(&secret) + "\n")),
    ];
    secret.zeroize();
    let unfinished = data_dir.join(format!("{DIRECTORY}.new"));
    let written = write_all(data_dir, &unfinished, directory, &files);
    written.map_err(|source| AuthorityError::File { path: directory.to_owned(), source })
}

fn write_all(
    data_dir: &Path,
    unfinished: &Path,
    directory: &Path,
    files: &[(&str, Zeroizing<String>)],
) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(unfinished)?;
    for (name, content) in files {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished.join(name))?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
    }
    fs::File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, directory)?;
    fs::File::open(data_dir)?.sync_all()
}

fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Several labs on one robot stay apart in its tools, and the name says nothing about the lab.
    let suffix = data_encoding::HEXLOWER.encode(&SpkiHash::of(&key.subject_public_key_info()).0[..4]);
    params.distinguished_name.push(DnType::CommonName, format!("Ria coordinator CA {suffix}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Fixed dates: a coordinator whose clock is wrong at its first start must not make an authority of no use.
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 12, 31);
    params.serial_number = Some(serial());
    params
}

fn serial() -> SerialNumber {
    let mut bytes = random::bytes::<16>();
    // Positive, and of fixed length (RFC 5280 section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

impl Authority {
    fn new(certificate_pem: &str, key: KeyPair) -> Result<Self, String> {
        let spki = key.subject_public_key_info();
        let pem = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).map_err(|e| e.to_string())?.1;
        let parsed = pem.parse_x509().map_err(|e| e.to_string())?;
        if parsed.public_key().raw != spki.as_slice() {
            return Err("it does not belong to the key beside it".to_owned());
        }
        let certificate = CertificateDer::from(pem.contents.clone());
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| e.to_string())?;
        Ok(Self { issuer, certificate, pin: SpkiHash::of(&spki), spki })
    }

    /// SHA-256 of its public key, as in join keys.
    pub fn pin(&self) -> SpkiHash {
        self.pin
    }

    /// Its public key (SubjectPublicKeyInfo, DER).
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A server certificate for `names` and `key`.
    pub fn issue_server(
        &self,
        key: &KeyPair,
        names: &[String],
        life: Duration,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        let name = names.first().map_or("", String::as_str);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, key, SystemTime::now() + life).map(|c| c.der().clone())
    }

    /// A node's certificate, for the key in a request that was checked before.
    pub fn issue_node(
        &self,
        network: NetworkId,
        node: NodeId,
        csr: &[u8],
    ) -> Result<Certificate, rcgen::Error> {
        let request = CertificateSigningRequestParams::from_der(&csr.into())?;
        // Nothing of the request but its key is taken over.
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.subject_alt_names = vec![SanType::URI(format!("ria:{network}/{node}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let end = SystemTime::now() + NODE_CERTIFICATE_LIFE;
        let leaf = self.sign(params, &request.public_key, end)?;
        Ok(Certificate {
            leaf: leaf.der().to_vec(),
            authorities: vec![AuthorityCertificate(self.certificate.to_vec())],
            not_after: UnixTime::from(end),
        })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        end: SystemTime,
    ) -> Result<rcgen::Certificate, rcgen::Error> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        params.not_before = (SystemTime::now() - BACKDATED).into();
        params.not_after = end.into();
        params.signed_by(key, &self.issuer)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_same_authority_comes_back_and_its_files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path(), None).unwrap();
        let again = Identity::load_or_create(dir.path(), Some(first.authority.pin())).unwrap();
        assert_eq!(first.authority.pin(), again.authority.pin());
        assert_eq!(first.relay_secret, again.relay_secret);
        for name in [CA_KEY, CA_CERTIFICATE, RELAY_SECRET] {
            let mode = fs::metadata(dir.path().join(DIRECTORY).join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn an_interrupted_first_start_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let unfinished = dir.path().join("identity.new");
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join(CA_KEY), "half a k").unwrap();
        Identity::load_or_create(dir.path(), None).unwrap();
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_lost_or_damaged_authority_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let pin = Identity::load_or_create(dir.path(), None).unwrap().authority.pin();
        let file = dir.path().join(DIRECTORY).join(CA_KEY);
        let key = fs::read(&file).unwrap();
        fs::write(&file, &key[..key.len() / 2]).unwrap();
        let error = Identity::load_or_create(dir.path(), Some(pin)).unwrap_err();
        assert!(matches!(error, AuthorityError::Damaged { .. }), "{error}");
        // The key of another authority does not pass either.
        fs::write(&file, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = Identity::load_or_create(dir.path(), Some(pin)).unwrap_err();
        assert!(error.to_string().contains("does not belong"), "{error}");
        fs::remove_dir_all(dir.path().join(DIRECTORY)).unwrap();
        let error = Identity::load_or_create(dir.path(), Some(pin)).unwrap_err();
        assert!(matches!(error, AuthorityError::Missing { .. }), "{error}");
        assert!(!dir.path().join(DIRECTORY).exists());
    }
}
