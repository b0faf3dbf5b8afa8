//! Certificates as people compare and copy them.

use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;

/// SHA-256 of a certificate, as browsers and openssl show it: `AB:CD:…`.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let bytes = digest(&SHA256, certificate);
    let bytes: Vec<String> = bytes.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

/// A certificate as text (RFC 7468).
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    const LINE: usize = 64;
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = &*BASE64.encode(certificate);
    while !rest.is_empty() {
        let (line, later) = rest.split_at(rest.len().min(LINE));
        text.extend([line, "\n"]);
        rest = later;
    }
    text + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn a_certificate_is_read_back_from_its_text() {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let text = pem(made.der());
        assert_eq!(&CertificateDer::from_pem_slice(text.as_bytes()).unwrap(), made.der());
        assert!(text.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn fingerprints_are_those_of_other_programs() {
        // SHA-256 of "abc" (FIPS 180-2, B.1).
        let shown = fingerprint(&CertificateDer::from(b"abc".to_vec()));
        assert!(shown.starts_with("BA:78:16:BF:8F:01:CF:EA:") && shown.ends_with(":F2:00:15:AD"), "{shown}");
        assert_eq!(shown.len(), 95);
    }
}
