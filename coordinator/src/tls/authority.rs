//! The coordinator's own certification authority and what else must never be lost: kept as one directory, made whole or
//! not at all.
//!
//! ```text
//! <data dir>/identity/ca.key           private key, PEM          all 0600, directory 0700
//!                     ca.crt           certificate, PEM
//!                     relay.secret     32 bytes, base64
//!                     authorities.pem  instead of the first two once the authority was rolled over (`succession`)
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey,
};
use ria_protocol::authority::statement;
use ria_protocol::enrol::{Authority as AuthorityCertificate, Certificate};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::SpkiHash;
use ria_protocol::time::UnixTime;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

use super::succession::{self, Older};
use crate::random;

const DIRECTORY: &str = "identity";
pub(super) const CA_KEY: &str = "ca.key";
pub(super) const CA_CERTIFICATE: &str = "ca.crt";
const RELAY_SECRET: &str = "relay.secret";

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

/// The certification authority, with its private key, and those before it.
pub struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pin: SpkiHash,
    spki: Vec<u8>,
    /// Those before it, the latest first. Their private keys are gone.
    pub(super) older: Vec<Older>,
    /// Certificates by which each authority vouches for the one after it.
    pub(super) crosses: Vec<CertificateDer<'static>>,
}

/// How long what a node is given lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLifetimes {
    /// Life of its certificate.
    pub certificate: Duration,
    /// How long it stays a member without being heard of.
    pub membership: Duration,
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
    /// Where the directory is.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(DIRECTORY)
    }

    /// The directory, if there is one: then this coordinator has run before.
    pub fn directory(data_dir: &Path) -> Option<PathBuf> {
        Some(Self::path(data_dir)).filter(|directory| directory.is_dir())
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
        let authority = match succession::load(directory)? {
            Some(authority) => authority,
            None => {
                let (path, text) = read(directory, CA_KEY)?;
                let key = KeyPair::from_pem(&text).map_err(|e| damaged(&path, e.to_string()))?;
                let (path, text) = read(directory, CA_CERTIFICATE)?;
                Authority::new(&text, key).map_err(|reason| damaged(&path, reason))?
            }
        };
        let (path, text) = read(directory, RELAY_SECRET)?;
        let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|e| damaged(&path, e.to_string()))?;
        let secret = <[u8; 32]>::try_from(bytes).map_err(|_| damaged(&path, "wrong length".to_owned()))?;
        Ok(Self { authority, relay_secret: Zeroizing::new(secret) })
    }
}

pub(super) fn damaged(path: &Path, reason: String) -> AuthorityError {
    AuthorityError::Damaged { path: path.to_owned(), reason }
}

/// A file of the directory, which must be there.
pub(super) fn read(directory: &Path, name: &str) -> Result<(PathBuf, Zeroizing<String>), AuthorityError> {
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(AuthorityError::Missing { path }),
        Err(source) => Err(AuthorityError::File { path, source }),
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

/// The short name of an authority.
pub(super) fn short_name(pin: SpkiHash) -> String {
    data_encoding::HEXLOWER.encode(&pin.0[..4])
}

/// When a certificate ends.
pub fn end_of(certificate: &CertificateDer<'_>) -> UnixTime {
    let parsed = X509Certificate::from_der(certificate).ok();
    let end = parsed.map_or(0, |(_, parsed)| parsed.validity().not_after.timestamp());
    UnixTime(u64::try_from(end).unwrap_or(0))
}

/// What the certificate of an authority with this key says.
pub(super) fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Several labs on one robot stay apart in its tools, and the name says nothing about the lab.
    let suffix = short_name(SpkiHash::of(&key.subject_public_key_info()));
    params.distinguished_name.push(DnType::CommonName, format!("Ria coordinator CA {suffix}"));
    // It vouches for the authorities after it as well.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
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
        Self::from_parts(CertificateDer::from(pem.contents.clone()), key)
    }

    /// From a certificate and its key.
    pub(super) fn from_parts(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, String> {
        let spki = key.subject_public_key_info();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| e.to_string())?;
        let pin = SpkiHash::of(&spki);
        Ok(Self { issuer, certificate, pin, spki, older: Vec::new(), crosses: Vec::new() })
    }

    /// SHA-256 of its public key, as in join keys.
    pub fn pin(&self) -> SpkiHash {
        self.pin
    }

    /// Its short name, as in its certificate.
    pub fn short_name(&self) -> String {
        short_name(self.pin)
    }

    /// Public keys (SubjectPublicKeyInfo, DER) of this authority and those before it: each has issued certificates.
    pub fn spkis(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.spki.as_slice()).chain(self.older.iter().map(|older| older.spki.as_slice()))
    }

    /// Those before it, the latest first.
    pub fn older(&self) -> &[Older] {
        &self.older
    }

    /// The certificates that nodes shall trust: its own, and those before it that are not retired.
    pub fn trusted(&self) -> Vec<AuthorityCertificate> {
        let older = self.older.iter().filter(|older| !older.retired).map(|older| &older.certificate);
        std::iter::once(&self.certificate).chain(older).map(|c| AuthorityCertificate(c.to_vec())).collect()
    }

    /// Their public keys, by hash.
    pub fn trusted_pins(&self) -> Vec<SpkiHash> {
        let older = self.older.iter().filter(|older| !older.retired).map(|older| older.pin);
        std::iter::once(self.pin).chain(older).collect()
    }

    /// What a server shows behind its own certificate: whichever authority a node has pinned, there is a way from it
    /// to this one.
    pub fn chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let selves =
            std::iter::once(&self.certificate).chain(self.older.iter().map(|older| &older.certificate));
        self.crosses.iter().rev().chain(selves)
    }

    /// Proof that it is itself at this end of a connection, and of its time (see [`ria_protocol::authority`]).
    pub fn attest(&self, exporter: &[u8; 32], time: UnixTime) -> Result<Vec<u8>, rcgen::Error> {
        self.issuer.key().sign(&statement(exporter, time))
    }

    /// Its signature of a statement that begins with what it is about (ECDSA on P-256 with SHA-256, ASN.1).
    pub fn sign_statement(&self, statement: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.issuer.key().sign(statement)
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A server certificate for `names` and `key`.
    pub fn issue_server(
        &self,
        key: &impl PublicKeyData,
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
        lifetimes: NodeLifetimes,
    ) -> Result<Certificate, rcgen::Error> {
        let request = CertificateSigningRequestParams::from_der(&csr.into())?;
        // Nothing of the request but its key is taken over.
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.subject_alt_names = vec![SanType::URI(format!("ria:{network}/{node}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        let end = now + lifetimes.certificate;
        let leaf = self.sign(params, &request.public_key, end)?;
        Ok(Certificate {
            leaf: leaf.der().to_vec(),
            authorities: self.trusted(),
            not_after: UnixTime::from(end),
            issued: Some(UnixTime::from(now)),
            membership: Some(lifetimes.membership.as_secs()),
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
