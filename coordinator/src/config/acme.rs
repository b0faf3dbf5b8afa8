//! Settings of a certificate for the pages that is ordered and renewed by itself.

use std::path::PathBuf;

use super::sources::{Found, Sources};
use super::{PageCertificate, PublicUrl};

/// The keys of the section, as they are shown.
pub(super) const KEYS: &[&str] = &["acme.accept_terms", "acme.contact", "acme.directory", "acme.ca"];

/// Whom most people order from.
const USUAL: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Where the certificate is ordered, and for which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The server's directory (RFC 8555, section 7.1.1).
    pub directory: String,
    /// Whom it may write to.
    pub contact: Option<String>,
    /// Authorities that may vouch for that server; those of the system without it.
    pub ca: Option<PathBuf>,
    /// Names of the public URLs.
    pub names: Vec<String>,
}

fn find(sources: &mut Sources<'_>, key: &str) -> Option<Found> {
    sources.find(None, &format!("RIA_ACME_{}", key.to_uppercase()), Some("acme"), key)
}

impl AcmeSettings {
    /// Reads the section; nothing unless somebody has agreed to the terms.
    pub(super) fn read(
        sources: &mut Sources<'_>,
        public_urls: &[PublicUrl],
        given: Option<&PageCertificate>,
    ) -> Option<Self> {
        let [agreed, contact, directory, ca] =
            ["accept_terms", "contact", "directory", "ca"].map(|key| find(sources, key));
        let place = agreed.as_ref().map(|found| found.place.clone());
        let agreed = sources.flag(agreed).unwrap_or(false);
        let [contact, directory, ca] = [contact, directory, ca].map(|found| sources.text(found));
        if !agreed {
            let lonely = [&contact, &directory, &ca].into_iter().flatten().next().cloned();
            let asks = "set acme.accept_terms = true (RIA_ACME_ACCEPT_TERMS) if you agree to the terms of the ACME server";
            return lonely.and_then(|(_, place)| sources.wrong(&place, asks));
        }
        let place = place.unwrap_or_default();
        if given.is_some() {
            return sources.wrong(
                &place,
                "the pages have a certificate of yours (pages.certificate); give one of the two",
            );
        }
        let names: Vec<String> =
            public_urls.iter().map(PublicUrl::host).filter(|host| is_name(host)).map(str::to_owned).collect();
        if names.is_empty() {
            return sources.wrong(
                &place,
                "an ACME server certifies names; give a public_url with one, such as https://ria.lab.example",
            );
        }
        let directory = directory.unwrap_or_else(|| (USUAL.to_owned(), place));
        if !crate::https::is_https(&directory.0) {
            return sources.wrong(&directory.1, "this is no https address");
        }
        Some(Self {
            directory: directory.0,
            contact: contact
                .map(|(text, _)| if text.contains(':') { text } else { format!("mailto:{text}") }),
            ca: ca.map(|(text, _)| text.into()),
            names,
        })
    }
}

/// Whether somebody else can resolve it.
fn is_name(host: &str) -> bool {
    host.contains('.') && host.parse::<std::net::Ipv4Addr>().is_err() && !host.starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn read(text: &str) -> Result<Option<AcmeSettings>, String> {
        Config::from_text("c.toml", text).map(|config| config.acme).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_ordered_by_whom_has_agreed() {
        let urls = "public_url = [\"https://ria.lab.example\", \"https://192.0.2.7\"]\n";
        let acme = read(&format!("{urls}[acme]\naccept_terms = true\ncontact = \"a@lab.example\""))
            .unwrap()
            .unwrap();
        assert_eq!(
            (acme.names, acme.contact),
            (vec!["ria.lab.example".to_owned()], Some("mailto:a@lab.example".to_owned()))
        );
        assert_eq!(acme.directory, USUAL);
        assert_eq!(read(&format!("{urls}[acme]\naccept_terms = false")), Ok(None));
        let address = "public_url = \"https://192.0.2.7\"\n";
        for (text, says) in [
            (format!("{urls}[acme]\ncontact = \"a@lab.example\""), "accept_terms = true"),
            (format!("{address}[acme]\naccept_terms = true"), "give a public_url with one"),
            (format!("{urls}[acme]\naccept_terms = true\ndirectory = \"http://x\""), "no https address"),
            (
                format!("{urls}[acme]\naccept_terms = true\n[pages]\ncertificate = \"c\"\nkey = \"k\""),
                "one of the two",
            ),
            (format!("{urls}[acme]\naccept_terms = true\nterms = true"), "unknown key \"acme.terms\""),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
