//! Which servers are believed, and at what time.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

use super::*;

struct Ca {
    cert: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pin: SpkiHash,
}

fn ca() -> Ca {
    let key = KeyPair::generate().unwrap();
    let pin = SpkiHash::of(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    params.not_before = at(2020);
    params.not_after = at(2040);
    let cert = params.self_signed(&key).unwrap().der().clone();
    Ca { cert, issuer: Issuer::new(params, key), pin }
}

fn at(year: i32) -> OffsetDateTime {
    time::Date::from_calendar_date(year, time::Month::January, 1).unwrap().midnight().assume_utc()
}

/// A server certificate that is valid in 2027.
fn leaf(ca: &Ca, name: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = at(2027);
    params.not_after = at(2028);
    params.signed_by(&KeyPair::generate().unwrap(), &ca.issuer).unwrap().der().clone()
}

fn verify(
    trust: Trust,
    floor: i64,
    chain: &[CertificateDer<'_>],
    clock: OffsetDateTime,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = CoordinatorVerifier { trust, floor: floor as u64, provider };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(clock.unix_timestamp() as u64));
    let dialled = ServerName::try_from("ria.lab.example").unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &dialled, &[], now).map(|_| ())
}

fn is_other_authority(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(e)) if e.0.is::<OtherAuthority>())
}

#[test]
fn the_pinned_authority_is_believed_and_no_other() {
    let (mine, other) = (ca(), ca());
    let chain = [leaf(&mine, COORDINATOR_TLS_NAME), mine.cert.clone()];
    let summer = at(2027) + Duration::days(180);
    assert_eq!(verify(Trust::Pin(mine.pin), 0, &chain, summer), Ok(()));
    assert!(is_other_authority(&verify(Trust::Pin(other.pin), 0, &chain, summer).unwrap_err()));
    // The pinned certificate in the chain is no help to a leaf that it did not sign.
    let forged = [leaf(&other, COORDINATOR_TLS_NAME), mine.cert.clone()];
    assert!(is_other_authority(&verify(Trust::Pin(mine.pin), 0, &forged, summer).unwrap_err()));
    assert!(is_other_authority(&verify(Trust::Pin(mine.pin), 0, &chain[..1], summer).unwrap_err()));
}

#[test]
fn stored_authorities_are_believed_and_no_other() {
    let (mine, other) = (ca(), ca());
    let chain = [leaf(&mine, COORDINATOR_TLS_NAME), mine.cert.clone()];
    let trust = |ca: &Ca| Trust::Authorities(vec![Authority(ca.cert.to_vec())]);
    let summer = at(2027) + Duration::days(180);
    assert_eq!(verify(trust(&mine), 0, &chain, summer), Ok(()));
    assert!(is_other_authority(&verify(trust(&other), 0, &chain, summer).unwrap_err()));
}

#[test]
fn only_a_certificate_for_the_coordinators_fixed_name_is_taken() {
    let ca = ca();
    // Such as another node's certificate, or a public name of the same authority.
    let chain = [leaf(&ca, "ria.lab.example"), ca.cert.clone()];
    let error = verify(Trust::Pin(ca.pin), 0, &chain, at(2027) + Duration::days(1)).unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn a_clock_in_1970_does_not_lock_a_robot_out_and_an_ended_certificate_stays_ended() {
    let ca = ca();
    let chain = [leaf(&ca, COORDINATOR_TLS_NAME), ca.cert.clone()];
    let boot = at(1970);
    let check = |floor: i64, clock| verify(Trust::Pin(ca.pin), floor, &chain, clock);
    assert_eq!(check(0, boot), Ok(()), "first join");
    assert_eq!(
        check(at(2026).unix_timestamp() + 5, boot),
        Ok(()),
        "the leaf was renewed since the last contact"
    );
    assert!(check(at(2029).unix_timestamp(), boot).is_err(), "the last contact was after its end");
    assert!(check(0, at(2029)).is_err(), "expired");
    assert!(check(0, at(2026)).is_err(), "a clock that may be right finds it not yet valid");
}
