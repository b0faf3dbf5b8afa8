//! Settings of a login by somebody else: a provider that speaks OpenID Connect.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ria_protocol::name::Name;

use super::sources::{Found, Sources};
use crate::state::people::Role;

/// The keys of the section, as they are shown.
pub(super) const KEYS: &[&str] = &[
    "oidc.issuer",
    "oidc.client_id",
    "oidc.client_secret_file",
    "oidc.ca",
    "oidc.label",
    "oidc.scopes",
    "oidc.name_claim",
    "oidc.groups_claim",
    "oidc.domains",
    "oidc.groups",
    "oidc.claims",
    "oidc.anybody",
    "oidc.role",
    "oidc.role_in",
];

/// Whom to ask who somebody is, and whom to let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcSettings {
    /// The provider, as it calls itself.
    pub issuer: String,
    pub client_id: String,
    /// Where the secret is; without one the client is a public one, and PKCE alone protects the code.
    pub client_secret_file: Option<PathBuf>,
    /// Authorities that may vouch for the provider's server; those of the system without it.
    pub ca: Option<PathBuf>,
    /// What the button says.
    pub label: String,
    pub scopes: Vec<String>,
    /// What people are called after.
    pub name_claim: String,
    pub groups_claim: String,
    pub admits: Admits,
    /// What somebody may do who comes for the first time.
    pub role: Role,
    /// In these networks only; everywhere if there are none.
    pub role_in: Vec<Name>,
}

/// Who may come in. Each kind that is given has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admits {
    /// Of the e-mail address, which the provider has verified.
    pub domains: Vec<String>,
    /// Any of these.
    pub groups: Vec<String>,
    /// All of these.
    pub claims: BTreeMap<String, String>,
}

fn find(sources: &mut Sources<'_>, key: &str) -> Option<Found> {
    sources.find(None, &format!("RIA_OIDC_{}", key.to_uppercase()), Some("oidc"), key)
}

fn word(sources: &mut Sources<'_>, key: &str, usual: &str) -> String {
    let found = find(sources, key);
    sources.text(found).map_or_else(|| usual.to_owned(), |(text, _)| text)
}

fn path(sources: &mut Sources<'_>, key: &str) -> Option<PathBuf> {
    let found = find(sources, key);
    sources.text(found).map(|(text, _)| text.into())
}

fn list<T>(
    sources: &mut Sources<'_>,
    key: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let found = find(sources, key);
    sources.parsed_list(found, parse)
}

impl OidcSettings {
    /// Reads the section; nothing unless there is an issuer, and an address of this coordinator to come back to.
    pub(super) fn read(sources: &mut Sources<'_>, can_come_back: bool) -> Option<Self> {
        let (issuer, client_id) = (find(sources, "issuer"), find(sources, "client_id"));
        let (issuer, client_id) = (sources.text(issuer), sources.text(client_id));
        let anybody = find(sources, "anybody");
        let anybody = sources.flag(anybody).unwrap_or(false);
        let usual_scopes = || ["openid", "email", "profile"].map(str::to_owned).to_vec();
        let name = |text: &str| text.parse::<Name>().map_err(|error| format!("{text:?}: {error}"));
        let settings = Self {
            issuer: issuer.as_ref().map(|(text, _)| text.clone()).unwrap_or_default(),
            client_id: client_id.as_ref().map(|(text, _)| text.clone()).unwrap_or_default(),
            client_secret_file: path(sources, "client_secret_file"),
            ca: path(sources, "ca"),
            label: word(sources, "label", "Log in with the university's account"),
            scopes: list(sources, "scopes", scope).unwrap_or_else(usual_scopes),
            name_claim: word(sources, "name_claim", "email"),
            groups_claim: word(sources, "groups_claim", "groups"),
            admits: Admits {
                domains: list(sources, "domains", domain).unwrap_or_default(),
                groups: list(sources, "groups", nonempty).unwrap_or_default(),
                claims: list(sources, "claims", claim).unwrap_or_default().into_iter().collect(),
            },
            role: list(sources, "role", first_role)
                .and_then(|all| all.first().copied())
                .unwrap_or(Role::Viewer),
            role_in: list(sources, "role_in", name).unwrap_or_default(),
        };
        let something = anybody || settings.admits != Admits::default();
        let Some((issuer, place)) = issuer else {
            let lonely = client_id.map(|(_, place)| place).or_else(|| something.then(|| "[oidc]".to_owned()));
            return lonely
                .and_then(|place| sources.wrong(&place, "give oidc.issuer (RIA_OIDC_ISSUER) as well"));
        };
        if let Err(problem) = issuer_url(&issuer) {
            return sources.wrong(&place, problem);
        }
        if client_id.is_none() {
            let text =
                "give oidc.client_id (RIA_OIDC_CLIENT_ID), which the provider has for this coordinator";
            return sources.wrong(&place, text);
        }
        if !something {
            let text = "say who may come in, by oidc.domains, oidc.groups or oidc.claims; or oidc.anybody = true for \
                        everybody whom the provider knows";
            return sources.wrong(&place, text);
        }
        if !can_come_back {
            let text = "give public_url (RIA_PUBLIC_URL) as well: the provider sends people back there";
            return sources.wrong("[oidc]", text);
        }
        Some(settings)
    }
}

fn issuer_url(text: &str) -> Result<(), String> {
    let wrong =
        |reason| format!("{text:?} is no issuer: {reason}; write it as https://login.uni.example[/path]");
    let uri: axum::http::Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
    if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
        return Err(wrong("it must begin with https:// and name a host"));
    }
    if text.contains(['?', '#', '@']) {
        return Err(wrong("it has a query, a fragment or a user"));
    }
    Ok(())
}

fn nonempty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected texts that are not empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn scope(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if !text.is_empty() && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no scope"))
    }
}

fn domain(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    if text.contains('.') && !text.starts_with('.') && text.bytes().all(plain) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("{text:?} is no domain; write it as uni.example"))
    }
}

fn claim(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        Some(_) | None => Err(format!("{text:?} is no claim; write NAME=VALUE, such as department=robotics")),
    }
}

fn first_role(text: &str) -> Result<Role, String> {
    match text.parse()? {
        Role::Owner => Err("nobody becomes an owner by logging in; owners make owners".to_owned()),
        role @ (Role::Viewer | Role::Operator | Role::Admin) => Ok(role),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn read(section: &str) -> Result<Option<OidcSettings>, String> {
        let text = format!("public_url = \"https://ria.lab.example\"\n[oidc]\n{section}");
        Config::from_text("c.toml", &text).map(|config| config.oidc).map_err(|error| error.to_string())
    }

    #[test]
    fn a_provider_needs_an_issuer_a_client_and_a_word_on_who_may_come_in() {
        let whole = "issuer = \"https://login.uni.example/realms/main\"\nclient_id = \"ria\"\n";
        let oidc =
            read(&format!("{whole}domains = [\"Uni.example\"]\nclaims = \"department=robotics\"")).unwrap();
        let oidc = oidc.unwrap();
        assert_eq!((oidc.role, oidc.name_claim.as_str()), (Role::Viewer, "email"));
        assert_eq!(oidc.admits.domains, ["uni.example"]);
        assert_eq!(oidc.admits.claims["department"], "robotics");
        assert!(read(&format!("{whole}anybody = true")).unwrap().is_some());
        for (section, says) in [
            (whole.to_owned(), "say who may come in"),
            ("client_id = \"ria\"".to_owned(), "oidc.issuer"),
            ("issuer = \"https://login.uni.example\"\nanybody = true".to_owned(), "oidc.client_id"),
            (
                "issuer = \"http://login.uni.example\"\nclient_id = \"x\"\nanybody = true".to_owned(),
                "https://",
            ),
            (format!("{whole}anybody = true\nrole = \"owner\""), "owners make owners"),
            (format!("{whole}domains = [\"@uni\"]"), "no domain"),
            (format!("{whole}claims = [\"x\"]"), "NAME=VALUE"),
            (format!("{whole}anybody = true\nsecret = \"x\""), "unknown key \"oidc.secret\""),
        ] {
            let error = read(&section).unwrap_err();
            assert!(error.contains(says), "{section}: {error}");
        }
    }

    #[test]
    fn a_provider_needs_an_address_to_send_people_back_to() {
        let text = "[oidc]\nissuer = \"https://login.uni.example\"\nclient_id = \"ria\"\nanybody = true";
        let error = Config::from_text("c.toml", text).unwrap_err().to_string();
        assert!(error.contains("public_url"), "{error}");
    }
}
