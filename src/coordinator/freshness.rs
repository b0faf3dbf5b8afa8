//! Whether a coordinator's certificate is good *now*, for a robot whose clock may stand in 1970 or a year ahead.
//!
//! The certificate is checked against the later of the system's clock and the coordinator's clock at the last contact.
//! A system clock that stands before that is known to be wrong, and then nothing is held against a certificate for being
//! newer. Where the clocks still disagree, the authority itself has to prove that it is at the other end of this very
//! connection ([`ria_protocol::authority`]), which is worth more than a date: then the certificate is taken, and the
//! coordinator's time is the time. A stolen key of an old certificate gets nobody past this.

use std::time::SystemTime;

use ria_protocol::authority::proof_holds;
use ria_protocol::message::Welcome;
use ria_protocol::time::UnixTime;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tls::{CoordinatorTls, validity};

/// No Ria existed before this moment (2026-01-01), so a clock that stands before it was never set.
pub const CLOCK_UNSET_BEFORE: UnixTime = UnixTime(1_767_225_600);

/// By this machine's clock the certificate is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untimely {
    /// It has ended.
    #[error("expired {0} ago")]
    Ended(Span),
    /// It has not begun.
    #[error("is valid only in {0}")]
    NotBegun(Span),
    /// It says nothing of time.
    #[error("says nothing of its time")]
    Unreadable,
}

/// A time span for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub u64);

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            seconds @ 0..7200 => write!(f, "{seconds} s"),
            seconds @ 7200..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// Judges the certificate of a connection and the coordinator's greeting on it. Tells whether the authority has proved
/// itself, so that its time may be believed whatever was known before.
pub fn judge(
    tls: &CoordinatorTls,
    chain: &[CertificateDer<'_>],
    exporter: &[u8; 32],
    welcome: &Welcome,
) -> Result<bool, Untimely> {
    let proof = welcome.authority_proof.as_deref();
    let proven = proof.is_some_and(|proof| {
        let holds = |key: &Vec<u8>| proof_holds(key, exporter, welcome.time, proof);
        issuers(tls, chain).iter().any(holds)
    });
    match timely(chain, SystemTime::now().into(), tls.floor) {
        Err(doubt) if !proven => Err(doubt),
        Ok(()) | Err(_) => Ok(proven),
    }
}

/// The check by clocks alone.
fn timely(chain: &[CertificateDer<'_>], system: UnixTime, floor: UnixTime) -> Result<(), Untimely> {
    let leaf = chain.first().ok_or(Untimely::Unreadable)?;
    let (begin, end) = validity(leaf).ok_or(Untimely::Unreadable)?;
    let now = system.max(floor);
    let clock_is_wrong = system < floor.max(CLOCK_UNSET_BEFORE);
    if now.0 > end {
        return Err(Untimely::Ended(Span(now.0 - end)));
    }
    if now.0 < begin && !clock_is_wrong {
        return Err(Untimely::NotBegun(Span(begin - now.0)));
    }
    Ok(())
}

/// Public keys of the authorities that may have issued the certificate of this connection: those that are believed, and
/// those for which one of these vouches, directly or by others.
fn issuers(tls: &CoordinatorTls, chain: &[CertificateDer<'_>]) -> Vec<Vec<u8>> {
    let anchors = tls.trust.anchors(chain);
    let mut believed: Vec<X509Certificate<'_>> = anchors.iter().filter_map(|der| parse(der)).collect();
    let mut others: Vec<X509Certificate<'_>> = chain.iter().skip(1).filter_map(|der| parse(der)).collect();
    loop {
        let vouched =
            |other: &X509Certificate<'_>| other.is_ca() && believed.iter().any(|known| is_by(other, known));
        let Some(index) = others.iter().position(vouched) else { break };
        believed.push(others.swap_remove(index));
    }
    let leaf = chain.first().and_then(|der| parse(der));
    let has_issued = |known: &&X509Certificate<'_>| leaf.as_ref().is_some_and(|leaf| is_by(leaf, known));
    let issuers = believed.iter().filter(has_issued);
    issuers.map(|known| known.public_key().subject_public_key.data.to_vec()).collect()
}

fn is_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

fn parse<'d>(der: &'d CertificateDer<'_>) -> Option<X509Certificate<'d>> {
    X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed)
}

#[cfg(test)]
mod tests;
