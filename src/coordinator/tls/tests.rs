//! Which servers are believed, and at what time.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use time::{Duration, OffsetDateTime};

use super::*;

struct Ca {
    cert: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pin: SpkiHash,
    params: CertificateParams,
}

fn ca() -> Ca {
    let key = KeyPair::generate().unwrap();
    let pin = SpkiHash::of(&rcgen::PublicKeyData::subject_public_key_info(&key));
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, pin.to_string());
    params.not_before = at(2020);
    params.not_after = at(2040);
    let cert = params.self_signed(&key).unwrap().der().clone();
    Ca { cert, issuer: Issuer::new(params.clone(), key), pin, params }
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

fn verify(trust: Trust, chain: &[CertificateDer<'_>], clock: OffsetDateTime) -> Result<(), rustls::Error> {
    verify_as(COORDINATOR_TLS_NAME, trust, chain, clock)
}

fn verify_as(
    name: &str,
    trust: Trust,
    chain: &[CertificateDer<'_>],
    clock: OffsetDateTime,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = CoordinatorVerifier { trust, name: name.to_owned(), provider };
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
    assert_eq!(verify(Trust::Pin(mine.pin), &chain, summer), Ok(()));
    assert!(is_other_authority(&verify(Trust::Pin(other.pin), &chain, summer).unwrap_err()));
    // The pinned certificate in the chain is no help to a leaf that it did not sign.
    let forged = [leaf(&other, COORDINATOR_TLS_NAME), mine.cert.clone()];
    assert!(is_other_authority(&verify(Trust::Pin(mine.pin), &forged, summer).unwrap_err()));
    assert!(is_other_authority(&verify(Trust::Pin(mine.pin), &chain[..1], summer).unwrap_err()));
}

#[test]
fn stored_authorities_are_believed_and_no_other() {
    let (mine, other) = (ca(), ca());
    let chain = [leaf(&mine, COORDINATOR_TLS_NAME), mine.cert.clone()];
    let trust = |ca: &Ca| Trust::Authorities(vec![Authority(ca.cert.to_vec())]);
    let summer = at(2027) + Duration::days(180);
    assert_eq!(verify(trust(&mine), &chain, summer), Ok(()));
    assert!(is_other_authority(&verify(trust(&other), &chain, summer).unwrap_err()));
}

#[test]
fn a_relay_elsewhere_is_believed_in_its_own_name_only_and_is_never_the_coordinator() {
    let ca = ca();
    let trust = || Trust::Authorities(vec![Authority(ca.cert.to_vec())]);
    let chain = [leaf(&ca, "vps.relay.ria.internal"), ca.cert.clone()];
    let summer = at(2027) + Duration::days(180);
    assert_eq!(verify_as("vps.relay.ria.internal", trust(), &chain, summer), Ok(()));
    for other in ["other.relay.ria.internal", COORDINATOR_TLS_NAME] {
        assert!(verify_as(other, trust(), &chain, summer).is_err(), "{other}");
    }
}

#[test]
fn a_foreign_server_may_have_signed_its_certificate_itself() {
    let signed_by_itself = |names: &[&str], is_ca| {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.is_ca = is_ca;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    };
    // As openssl req -x509 makes it, and as others do.
    for is_ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::NoCa] {
        let own = signed_by_itself(&["192.0.2.9", "turn.example"], is_ca);
        let trust = || Trust::Authorities(vec![Authority(own.to_vec())]);
        for name in ["192.0.2.9", "turn.example"] {
            assert_eq!(verify_as(name, trust(), std::slice::from_ref(&own), at(2027)), Ok(()), "{name}");
        }
        assert!(verify_as("192.0.2.10", trust(), std::slice::from_ref(&own), at(2027)).is_err());
        let other = signed_by_itself(&["turn.example"], IsCa::NoCa);
        assert!(verify_as("turn.example", trust(), &[other], at(2027)).is_err());
    }
}

#[test]
fn only_a_certificate_for_the_coordinators_fixed_name_is_taken() {
    let ca = ca();
    // Such as another node's certificate, or a public name of the same authority.
    let chain = [leaf(&ca, "ria.lab.example"), ca.cert.clone()];
    let error = verify(Trust::Pin(ca.pin), &chain, at(2027) + Duration::days(1)).unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn an_authority_vouches_for_the_one_that_takes_over_and_nobody_else_does() {
    let (old, new, other) = (ca(), ca(), ca());
    let cross = |by: &Ca| new.params.signed_by(&new.issuer.key(), &by.issuer).unwrap().der().clone();
    let chain =
        |by: &Ca| vec![leaf(&new, COORDINATOR_TLS_NAME), cross(by), new.cert.clone(), old.cert.clone()];
    let summer = at(2027) + Duration::days(180);
    let stored = |ca: &Ca| Trust::Authorities(vec![Authority(ca.cert.to_vec())]);
    for trust in [Trust::Pin(old.pin), Trust::Pin(new.pin), stored(&old), stored(&new)] {
        assert_eq!(verify(trust.clone(), &chain(&old), summer), Ok(()), "{trust:?}");
    }
    for trust in [Trust::Pin(old.pin), stored(&old)] {
        assert!(is_other_authority(&verify(trust, &chain(&other), summer).unwrap_err()));
    }
}
