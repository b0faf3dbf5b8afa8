//! What a stand-alone relay keeps: who it is, and what its coordinator said last.
//!
//! ```text
//! <data dir>/identity     name, TLS key, how to find and know the coordinator     0600
//!            terms        the last terms, with the nodes to refuse                0600
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use rcgen::KeyPair;
use ria_protocol::join_key::JoinSecret;
use ria_protocol::keys::SpkiHash;
use ria_protocol::message::{from_bytes, to_bytes};
use ria_protocol::name::Name;
use ria_protocol::relay::{RelayKey, RelayTerms};
use zeroize::Zeroizing;

use super::StandaloneError;
use crate::backup::files::write_private;

/// Who it is.
pub const IDENTITY_FILE: &str = "identity";
/// What its coordinator said last.
pub const TERMS_FILE: &str = "terms";

/// Who a relay is.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub(super) struct Identity {
    #[n(0)]
    pub name: Name,
    /// Where the coordinator was when the key was made, best first.
    #[n(1)]
    pub urls: Vec<String>,
    #[n(2)]
    pub ca_pin: SpkiHash,
    /// The secret of the key.
    #[n(3)]
    pub secret: JoinSecret,
    /// PKCS #8.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub tls_key: Vec<u8>,
}

/// Both files.
pub(super) struct Stored {
    directory: PathBuf,
    pub identity: Identity,
    pub terms: Option<RelayTerms>,
}

impl Stored {
    /// Reads what is there. Another key than the one that is known begins anew.
    pub fn open(directory: &Path, key: Option<RelayKey>) -> Result<Self, StandaloneError> {
        let path = directory.join(IDENTITY_FILE);
        let known = match read(&path)? {
            Some(bytes) => {
                let known = from_bytes::<Identity>(&bytes);
                // Who shows a key can begin anew.
                if known.is_err() && key.is_none() {
                    return Err(StandaloneError::Damaged(path));
                }
                known.ok()
            }
            None => None,
        };
        let (identity, is_known) = match (known, key) {
            (Some(known), None) => (known, true),
            (Some(known), Some(key)) if known.secret == key.secret => (known, true),
            (_, Some(key)) => (Identity::new(key)?, false),
            (None, None) => return Err(StandaloneError::NoKey),
        };
        let mut stored = Self { directory: directory.to_owned(), identity, terms: None };
        if is_known {
            stored.terms = stored.read_terms()?;
        } else {
            stored.forget_terms()?;
            let bytes = Zeroizing::new(to_bytes(&stored.identity));
            write_private(&path, &bytes).map_err(|source| stored.failed(source))?;
        }
        Ok(stored)
    }

    fn read_terms(&self) -> Result<Option<RelayTerms>, StandaloneError> {
        let Some(bytes) = read(&self.directory.join(TERMS_FILE))? else { return Ok(None) };
        let terms = from_bytes::<RelayTerms>(&bytes);
        if terms.is_err() {
            tracing::warn!(
                "what the coordinator said last can't be read; nobody is served until it says it again"
            );
        }
        Ok(terms.ok())
    }

    /// Keeps the terms, as they are now.
    pub fn keep_terms(&self) -> io::Result<()> {
        let Some(terms) = &self.terms else { return Ok(()) };
        write_private(&self.directory.join(TERMS_FILE), &Zeroizing::new(to_bytes(terms)))
    }

    /// Nobody is to be served any more.
    pub fn forget_terms(&mut self) -> Result<(), StandaloneError> {
        self.terms = None;
        match fs::remove_file(self.directory.join(TERMS_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> StandaloneError {
        StandaloneError::DataDir { path: self.directory.clone(), source }
    }

    /// Where the coordinator may be, best first: as it said last, then as the key says.
    pub fn urls(&self) -> Vec<String> {
        let said = self.terms.iter().flat_map(|terms| &terms.urls);
        let mut urls: Vec<String> = Vec::new();
        for url in said.chain(&self.identity.urls) {
            if !urls.contains(url) {
                urls.push(url.clone());
            }
        }
        urls
    }

    /// The authorities by which the coordinator is known.
    pub fn trusts(&self) -> Vec<SpkiHash> {
        match &self.terms {
            Some(terms) if !terms.trusts.is_empty() => terms.trusts.clone(),
            Some(_) | None => vec![self.identity.ca_pin],
        }
    }
}

impl Identity {
    fn new(key: RelayKey) -> Result<Self, StandaloneError> {
        let tls = KeyPair::generate().map_err(|error| StandaloneError::Tls(error.to_string()))?;
        Ok(Self {
            name: key.name.clone(),
            urls: key.urls.clone(),
            ca_pin: key.ca_pin,
            secret: key.secret.clone(),
            tls_key: tls.serialize_der(),
        })
    }

    pub fn key_pair(&self) -> Result<KeyPair, StandaloneError> {
        KeyPair::try_from(self.tls_key.as_slice()).map_err(|error| StandaloneError::Tls(error.to_string()))
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StandaloneError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StandaloneError::DataDir { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ria_protocol::id::NodeId;
    use ria_protocol::relay::{CredentialKey, Denied};
    use ria_protocol::time::UnixTime;

    use super::*;

    fn key(secret: u8) -> RelayKey {
        RelayKey {
            urls: vec!["https://ria.example".into()],
            ca_pin: SpkiHash([1; 32]),
            name: "vps".parse().unwrap(),
            secret: JoinSecret::from_bytes([secret; 16]),
        }
    }

    fn terms() -> RelayTerms {
        RelayTerms {
            key: CredentialKey([7; 32]),
            networks: None,
            denied: vec![Denied { node: NodeId::from_bytes([1; 10]), until: UnixTime(9) }],
            certificate: vec![1],
            chain: Vec::new(),
            trusts: vec![SpkiHash([2; 32])],
            urls: vec!["https://moved.example".into()],
            time: UnixTime(5),
            node_bytes_per_second: None,
            node_allocations: None,
        }
    }

    #[test]
    fn what_was_said_comes_back_and_another_key_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(Stored::open(directory.path(), None), Err(StandaloneError::NoKey)));
        let mut first = Stored::open(directory.path(), Some(key(1))).unwrap();
        assert_eq!(first.trusts(), [SpkiHash([1; 32])]);
        first.terms = Some(terms());
        first.keep_terms().unwrap();
        for file in [IDENTITY_FILE, TERMS_FILE] {
            let mode = fs::metadata(directory.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        for shown in [None, Some(key(1))] {
            let again = Stored::open(directory.path(), shown).unwrap();
            assert_eq!(again.identity.tls_key, first.identity.tls_key);
            assert_eq!(again.terms, Some(terms()));
            assert_eq!(again.urls(), ["https://moved.example", "https://ria.example"]);
            assert_eq!(again.trusts(), [SpkiHash([2; 32])]);
        }
        let other = Stored::open(directory.path(), Some(key(2))).unwrap();
        assert_ne!(other.identity.tls_key, first.identity.tls_key);
        assert_eq!(other.terms, None, "what was said to another relay");
        assert!(!directory.path().join(TERMS_FILE).exists());
    }

    #[test]
    fn damage_is_told_and_a_key_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Stored::open(directory.path(), Some(key(1))).unwrap();
        first.terms = Some(terms());
        first.keep_terms().unwrap();
        fs::write(directory.path().join(TERMS_FILE), "half").unwrap();
        assert_eq!(Stored::open(directory.path(), None).unwrap().terms, None);
        fs::write(directory.path().join(IDENTITY_FILE), "half").unwrap();
        assert!(matches!(Stored::open(directory.path(), None), Err(StandaloneError::Damaged(_))));
        assert!(Stored::open(directory.path(), Some(key(1))).is_ok());
    }
}
