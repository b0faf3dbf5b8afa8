//! What a release says about itself: a signed list of programs. Nothing in it counts before its signature has been checked.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// The list, and its signature: 64 bytes of Ed25519 (RFC 8032) over the list as it is.
pub const MANIFEST: &str = "ria-release.json";
pub const SIGNATURE: &str = "ria-release.json.sig";

/// What these may have.
pub const LONGEST_MANIFEST: u64 = 64 * 1024;
pub const LONGEST_SIGNATURE: u64 = 64;

/// The largest program that is fetched.
const LARGEST_PROGRAM: u64 = 256 << 20;

/// The form of the list that this program reads.
const FORMAT: u32 = 1;

/// Why a release is not to be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReleaseError {
    #[error(
        "the release is not signed by a key of /etc/ria/update.toml: it comes from somebody else, or was damaged on its \
         way; nothing was changed"
    )]
    Unsigned,
    #[error("{MANIFEST} can't be read ({0}), though it is signed; tell whoever made the release")]
    Malformed(String),
    #[error(
        "the release is made for a newer way of updating (format {0}); install it by hand: sudo ./ria install"
    )]
    Newer(u32),
    #[error("release {version} has no program for this machine ({arch}), only for {there}")]
    OtherArch { version: Version, arch: String, there: String },
}

/// A public key that releases are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseKey([u8; 32]);

impl FromStr for ReleaseKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = BASE64.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Self)
            .ok_or_else(|| format!("{text} is no key (44 characters of base64, as scripts/release prints)"))
    }
}

/// A version as Ria's releases have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version([u32; 3]);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |part: &str| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| part.parse().ok()).flatten()
        };
        let parts: Option<Vec<u32>> = text.split('.').map(part).collect();
        let parts = parts.and_then(|parts| parts.try_into().ok());
        parts.map(Self).ok_or_else(|| format!("{text:?} is no version (as 1.2.3)"))
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// A release whose signature is good.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Release {
    pub version: Version,
    /// By architecture, as Rust calls it: `x86_64`, `aarch64`.
    programs: BTreeMap<String, Program>,
}

/// The program for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Program {
    /// Name of the file beside the list.
    pub file: String,
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
}

/// What every format says.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Release {
    /// Reads a list that one of the keys has signed.
    pub fn verify(manifest: &[u8], signature: &[u8], keys: &[ReleaseKey]) -> Result<Self, ReleaseError> {
        let is_by =
            |key: &ReleaseKey| UnparsedPublicKey::new(&ED25519, key.0).verify(manifest, signature).is_ok();
        if !keys.iter().any(is_by) {
            return Err(ReleaseError::Unsigned);
        }
        Self::read(manifest)
    }

    /// Reads a list.
    pub fn read(manifest: &[u8]) -> Result<Self, ReleaseError> {
        let malformed = |error: serde_json::Error| ReleaseError::Malformed(error.to_string());
        let Format { format } = serde_json::from_slice(manifest).map_err(malformed)?;
        if format > FORMAT {
            return Err(ReleaseError::Newer(format));
        }
        let release: Self = serde_json::from_slice(manifest).map_err(malformed)?;
        match release.programs.values().find_map(Program::mistake) {
            Some(mistake) => Err(ReleaseError::Malformed(mistake)),
            None => Ok(release),
        }
    }

    /// The program for an architecture.
    pub fn program(&self, arch: &str) -> Result<&Program, ReleaseError> {
        self.programs.get(arch).ok_or_else(|| ReleaseError::OtherArch {
            version: self.version,
            arch: arch.to_owned(),
            there: self.programs.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }
}

impl Program {
    fn mistake(&self) -> Option<String> {
        let is_plain = !self.file.is_empty()
            && !self.file.starts_with('.')
            && self.file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let is_digest = self.sha256.len() == 64 && self.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_plain {
            Some(format!("{:?} is no name of a file", self.file))
        } else if !is_digest {
            Some(format!("the SHA-256 of {} has no 64 digits", self.file))
        } else if self.size == 0 || self.size > LARGEST_PROGRAM {
            Some(format!("{} has {} bytes", self.file, self.size))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    const LIST: &str = r#"{"format": 1, "version": "0.2.0", "programs": {"x86_64": {"file": "ria-0.2.0-x86_64",
        "size": 5, "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}}, "later": true}"#;

    fn pair() -> (Ed25519KeyPair, ReleaseKey) {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let key = BASE64.encode(pair.public_key().as_ref()).parse().unwrap();
        (pair, key)
    }

    #[test]
    fn only_what_a_known_key_has_signed_is_read() {
        let ((ours, key), (theirs, other)) = (pair(), pair());
        let good = ours.sign(LIST.as_bytes());
        let release = Release::verify(LIST.as_bytes(), good.as_ref(), &[other.clone(), key.clone()]).unwrap();
        assert_eq!((release.version, release.program("x86_64").unwrap().size), ("0.2.0".parse().unwrap(), 5));
        let forged = theirs.sign(LIST.as_bytes());
        let changed = LIST.replace("0.2.0", "0.2.1");
        let keys = [key];
        for (list, signature) in [
            (LIST, forged.as_ref()),
            (changed.as_str(), good.as_ref()),
            (LIST, &good.as_ref()[..63]),
            (LIST, &[]),
        ] {
            assert_eq!(Release::verify(list.as_bytes(), signature, &keys), Err(ReleaseError::Unsigned));
        }
        assert_eq!(Release::verify(LIST.as_bytes(), good.as_ref(), &[]), Err(ReleaseError::Unsigned));
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused_in_words() {
        let error = |list: &str| Release::read(list.as_bytes()).unwrap_err();
        assert_eq!(error(r#"{"format": 2, "all": "else"}"#), ReleaseError::Newer(2));
        for (from, to) in [
            ("ria-0.2.0-x86_64\"", "../ria\""),
            ("ria-0.2.0-x86_64\"", ".ria\""),
            ("\"size\": 5", "\"size\": 0"),
            ("\"size\": 5", "\"size\": 99999999999"),
            ("\"size\": 5", "\"size\": -1"),
            ("2cf24", "2cf2"),
            ("\"version\": \"0.2.0\"", "\"version\": \"0.2\""),
            ("\"format\": 1", "\"format\": \"1\""),
        ] {
            let list = LIST.replace(from, to);
            assert_ne!(list, LIST, "{from}");
            assert!(matches!(error(&list), ReleaseError::Malformed(_)), "{to}");
        }
        let release = Release::read(LIST.as_bytes()).unwrap();
        let missing = release.program("riscv64").unwrap_err().to_string();
        assert!(missing.contains("riscv64") && missing.contains("x86_64"), "{missing}");
    }

    #[test]
    fn versions_are_ordered_by_number() {
        let version = |text: &str| text.parse::<Version>();
        assert!(version("0.10.0").unwrap() > version("0.9.12").unwrap());
        assert_eq!(version("1.2.3").unwrap().to_string(), "1.2.3");
        for bad in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.+3", "1.2.3-rc1", "99999999999.0.0"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
