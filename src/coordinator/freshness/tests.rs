//! Clocks that are wrong, certificates that are old, and proofs that are somebody else's.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SigningKey};
use ria_protocol::COORDINATOR_TLS_NAME;
use ria_protocol::authority::statement;
use ria_protocol::keys::{SpkiHash, WgPublicKey};

use super::*;
use crate::coordinator::tls::{Trust, client_config};
use crate::state::membership::NodeKeys;

const EXPORTER: [u8; 32] = [7; 32];
const YEAR: u64 = 31_536_000;
/// Somewhere in 2027.
const NOW: u64 = CLOCK_UNSET_BEFORE.0 + YEAR + 100 * 86_400;

struct Ca {
    params: CertificateParams,
    issuer: Issuer<'static, KeyPair>,
    cert: CertificateDer<'static>,
    pin: SpkiHash,
}

fn ca() -> Ca {
    let key = KeyPair::generate().unwrap();
    let pin = SpkiHash::of(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, pin.to_string());
    let cert = params.self_signed(&key).unwrap().der().clone();
    Ca { cert, issuer: Issuer::new(params.clone(), key), pin, params }
}

/// A server certificate that is valid for a month around [`NOW`].
fn leaf(ca: &Ca) -> CertificateDer<'static> {
    let at = |seconds: u64| time::OffsetDateTime::from_unix_timestamp(seconds as i64).unwrap();
    let mut params = CertificateParams::new(vec![COORDINATOR_TLS_NAME.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (at(NOW - 86_400), at(NOW + 30 * 86_400));
    params.signed_by(&KeyPair::generate().unwrap(), &ca.issuer).unwrap().der().clone()
}

#[test]
fn by_clocks_alone_1970_is_no_hindrance_and_an_ended_certificate_stays_ended() {
    let chain = [leaf(&ca())];
    let check = |system: u64, floor: u64| timely(&chain, UnixTime(system), UnixTime(floor));
    assert_eq!(check(NOW, NOW - 100), Ok(()));
    assert_eq!(check(10, 0), Ok(()), "first join in 1970");
    assert_eq!(check(10, NOW - 60 * 86_400), Ok(()), "the certificate was renewed since the last contact");
    assert_eq!(check(10, NOW + 40 * 86_400), Err(Untimely::Ended(Span(10 * 86_400))));
    assert_eq!(check(NOW + YEAR, 0).unwrap_err().to_string(), "expired 335 days ago");
    assert_eq!(check(NOW - 3 * 86_400, 0).unwrap_err().to_string(), "is valid only in 2 days");
}

#[test]
fn the_authority_in_person_is_believed_whatever_the_clocks_say() {
    let (ours, other) = (ca(), ca());
    let chain = [leaf(&ours), ours.cert.clone()];
    let welcome = |proof: Option<Vec<u8>>| Welcome {
        protocol: 2,
        coordinator_version: String::new(),
        challenge: WgPublicKey([0; 32]),
        time: UnixTime(NOW),
        authority_proof: proof,
        epoch: None,
    };
    let sign = |by: &Ca, exporter| by.issuer.key().sign(&statement(exporter, UnixTime(NOW))).unwrap();
    // The last contact was by a clock that was years ahead.
    let keys = NodeKeys::generate().unwrap();
    let floor = UnixTime(NOW + 3 * YEAR);
    let tls = client_config(Trust::Pin(ours.pin), floor, &keys, None).unwrap();
    let check = |chain: &[CertificateDer<'_>], proof| judge(&tls, chain, &EXPORTER, &welcome(proof));
    assert_eq!(check(&chain, Some(sign(&ours, &EXPORTER))), Ok(true));
    assert!(check(&chain, None).is_err());
    assert!(check(&chain, Some(sign(&other, &EXPORTER))).is_err(), "another authority");
    assert!(check(&chain, Some(sign(&ours, &[8; 32]))).is_err(), "a proof of another connection");

    // The same where another has taken over: the pinned one vouches for it.
    let next = ca();
    let cross = next.params.signed_by(next.issuer.key(), &ours.issuer).unwrap().der().clone();
    let chain = [leaf(&next), cross, next.cert.clone(), ours.cert.clone()];
    assert_eq!(check(&chain, Some(sign(&next, &EXPORTER))), Ok(true));
    let unvouched = [leaf(&next), next.cert.clone(), ours.cert.clone()];
    assert!(check(&unvouched, Some(sign(&next, &EXPORTER))).is_err(), "nobody vouches for it");
}
