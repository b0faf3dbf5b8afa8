//! Logging in by somebody else's word: a provider that speaks OpenID Connect. This is the client's part (authorization
//! code with PKCE); what comes of it is [`login`]'s business.
//!
//! ```text
//! browser -- begin --> provider's page ... -- back, with a code --> finish:
//!     code --> token endpoint --> ID token: signature (jws), for whom and when (claims) --> user info --> Someone
//! ```
//!
//! The provider's word is taken only for what it has signed, and only from the address in the settings.

mod attempts;
pub mod claims;
pub mod jws;
pub mod login;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ria_protocol::time::UnixTime;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::admin::client::escaped;
use crate::config::{Config, OidcSettings};
use crate::https::{Answer, HttpError, Https, RootsError};
use crate::people::secret;
use crate::people::shelf::Shelf;
use crate::state::people::UserName;
use crate::store::StoreError;
use attempts::Attempts;
pub use attempts::{Attempt, LIFE};
use claims::{ClaimsError, IdToken, NotAdmitted, Someone};
use jws::{JwsError, Keys};

/// Where the provider sends people back to.
pub const BACK: &str = "/login/oidc/back";

/// What the provider says of itself is asked for again after that.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Keys are asked for no more often than that, however many tokens come with unknown ones.
const KEYS_EVERY: Duration = Duration::from_secs(5);

/// The settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OidcStartError {
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("oidc.client_secret_file ({path}) can't be read: {source}")]
    Secret { path: String, source: io::Error },
    #[error("oidc.client_secret_file ({0}) is empty; put the secret there that the provider has given")]
    NoSecret(String),
}

/// Nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("the login provider can't be asked: {0}; try again later, or log in by password")]
    Unreachable(#[from] HttpError),
    #[error("the login provider's answer can't be used: {0}; tell an administrator of this coordinator")]
    Misbehaved(String),
    #[error("the login provider did not let you in: {0}")]
    Refused(String),
    #[error("logins are not possible at the moment, since the database does not answer; try again later")]
    Unavailable,
    #[error("this login was finished already, is too old, or began in another browser; begin anew")]
    Stale,
    #[error("the login provider's token can't be trusted: {0}; tell an administrator of this coordinator")]
    Token(#[from] JwsError),
    #[error("the login provider's token can't be trusted: {0}; tell an administrator of this coordinator")]
    Claims(#[from] ClaimsError),
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
}

/// What the provider says of itself (OpenID Connect Discovery 1.0).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Whether it is this issuer's, and every place in it may be asked.
    fn check(&self, issuer: &str) -> Result<(), String> {
        if self.issuer != issuer {
            let own: String = self.issuer.chars().take(100).collect();
            return Err(format!("it calls itself {own:?}, and oidc.issuer is {issuer:?}"));
        }
        let places = [&self.authorization_endpoint, &self.token_endpoint, &self.jwks_uri];
        match places.into_iter().chain(&self.userinfo_endpoint).find(|place| !crate::https::is_https(place)) {
            Some(place) => {
                Err(format!("{:?} is no https address", place.chars().take(100).collect::<String>()))
            }
            None => Ok(()),
        }
    }

    /// Whether these bytes describe this issuer.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn is_usable(bytes: &[u8], issuer: &str) -> bool {
        serde_json::from_slice::<Self>(bytes).is_ok_and(|read| read.check(issuer).is_ok())
    }

    fn takes(&self, method: &str) -> bool {
        // Unless it is said otherwise, only this one (section 3 of the specification).
        self.token_endpoint_auth_methods_supported
            .as_ref()
            .map_or(method == "client_secret_basic", |all| all.iter().any(|own| own == method))
    }
}

#[derive(Debug, Default)]
struct Cache {
    metadata: Option<(UnixTime, Metadata)>,
    keys: Option<(UnixTime, Keys)>,
}

/// The provider, as this coordinator sees it.
#[derive(Debug)]
pub struct Provider {
    pub settings: OidcSettings,
    /// This coordinator's address, for people to come back to.
    back: String,
    secret: Option<String>,
    https: Https,
    attempts: Attempts,
    cache: watch::Sender<Cache>,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

/// With what somebody comes back.
#[derive(Debug, Default, Deserialize)]
pub struct Back {
    #[serde(default)]
    pub state: String,
    pub code: Option<String>,
    pub iss: Option<String>,
    pub error: Option<String>,
    pub error_description: Option<String>,
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn unavailable(error: StoreError) -> OidcError {
    tracing::warn!(%error, "logins by the provider are not possible at the moment");
    OidcError::Unavailable
}

impl Provider {
    /// By the settings, if they name one.
    pub fn of(config: &Config, shelf: Arc<Shelf>) -> Result<Option<Self>, OidcStartError> {
        let (Some(settings), Some(url)) = (config.oidc.clone(), config.public_urls.first()) else {
            return Ok(None);
        };
        let secret = match &settings.client_secret_file {
            None => None,
            Some(path) => {
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|source| OidcStartError::Secret { path: shown.clone(), source })?;
                let text = text.trim().to_owned();
                Some(text).filter(|text| !text.is_empty()).ok_or(OidcStartError::NoSecret(shown)).map(Some)?
            }
        };
        let https = Https::new("oidc.ca", settings.ca.as_deref())?;
        let back = format!("{}{BACK}", url.as_str());
        let (attempts, cache) = (Attempts::new(shelf), watch::Sender::default());
        Ok(Some(Self { settings, back, secret, https, attempts, cache }))
    }

    /// Begins a login: where the browser has to go, and what its cookie has to hold.
    pub async fn begin(&self, next: &str, link: Option<UserName>) -> Result<(String, String), OidcError> {
        let metadata = self.metadata().await?;
        let begun = self.attempts.begin(next, link, now()).await.map_err(unavailable)?;
        let challenge = BASE64URL_NOPAD.encode(&secret::digest(begun.attempt.verifier.as_bytes()));
        let fields = [
            ("response_type", "code"),
            ("client_id", &self.settings.client_id),
            ("redirect_uri", &self.back),
            ("scope", &self.settings.scopes.join(" ")),
            ("state", &begun.state),
            ("nonce", &begun.attempt.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let joint = if metadata.authorization_endpoint.contains('?') { '&' } else { '?' };
        Ok((format!("{}{joint}{}", metadata.authorization_endpoint, form(&fields)), begun.browser))
    }

    /// The login that somebody comes back from; it can't be come back from again.
    pub async fn take(&self, state: &str, browser: &str) -> Result<Attempt, OidcError> {
        self.attempts.take(state, browser, now()).await.map_err(unavailable)?.ok_or(OidcError::Stale)
    }

    /// Who it is that comes back.
    pub async fn finish(&self, attempt: &Attempt, back: &Back) -> Result<Someone, OidcError> {
        let metadata = self.metadata().await?;
        // RFC 9207: another provider's answer is not taken for this one's.
        match &back.iss {
            Some(iss) if *iss != self.settings.issuer => {
                return Err(ClaimsError::Issuer(iss.chars().take(100).collect()).into());
            }
            None if metadata.authorization_response_iss_parameter_supported => {
                return Err(OidcError::Misbehaved("it does not say who it is (iss)".to_owned()));
            }
            Some(_) | None => {}
        }
        if let Some(error) = &back.error {
            let text = back.error_description.as_deref().unwrap_or(error);
            return Err(OidcError::Refused(plain(text)));
        }
        let missing = || OidcError::Misbehaved("there is no code in it".to_owned());
        let code = back.code.as_deref().filter(|code| !code.is_empty()).ok_or_else(missing)?;
        let tokens = self.tokens(&metadata, code, &attempt.verifier).await?;
        let token = self.id_token(&metadata, &tokens.id_token).await?;
        token.check(&self.settings, &attempt.nonce, now())?;
        let added = match (&metadata.userinfo_endpoint, &tokens.access_token) {
            (Some(place), Some(access)) => {
                let answer = self.https.get(place, Some(access)).await?;
                Some(read::<Map<String, Value>>(answer, "user info")?)
            }
            (_, _) => None,
        };
        let someone = token.someone(added)?;
        someone.check(&self.settings)?;
        Ok(someone)
    }

    async fn tokens(&self, metadata: &Metadata, code: &str, verifier: &str) -> Result<Tokens, OidcError> {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.back.as_str()),
            ("code_verifier", verifier),
        ];
        let id = self.settings.client_id.as_str();
        let mut authorization = None;
        match &self.secret {
            Some(secret) if metadata.takes("client_secret_basic") => {
                let pair = format!("{}:{}", escaped(id), escaped(secret));
                authorization = Some(format!("Basic {}", BASE64.encode(pair.as_bytes())));
            }
            Some(secret) => fields.extend([("client_id", id), ("client_secret", secret)]),
            None => fields.push(("client_id", id)),
        }
        let answer = self.https.post(&metadata.token_endpoint, authorization, form(&fields)).await?;
        read(answer, "tokens")
    }

    /// The ID token, if the provider has signed it. With a key that is not known its keys are read anew, for they change.
    async fn id_token(&self, metadata: &Metadata, token: &str) -> Result<IdToken, OidcError> {
        let known = self.cache.borrow().keys.clone();
        if let Some((_, keys)) = &known {
            match jws::verified(token, keys) {
                Err(JwsError::UnknownKey | JwsError::Signature) => {}
                done => return Ok(done?),
            }
        }
        if let Some((_, keys)) = known.filter(|(read, _)| now().since(*read) < KEYS_EVERY) {
            return Ok(jws::verified(token, &keys)?);
        }
        let answer = self.https.get(&metadata.jwks_uri, None).await?;
        let unusable = |problem: String| OidcError::Misbehaved(format!("keys: {problem}"));
        if answer.status != 200 {
            return Err(unusable(format!("status {}", answer.status)));
        }
        let keys = Keys::read(&answer.body).map_err(|error| unusable(error.to_string()))?;
        self.cache.send_modify(|cache| cache.keys = Some((now(), keys.clone())));
        Ok(jws::verified(token, &keys)?)
    }

    async fn metadata(&self) -> Result<Metadata, OidcError> {
        let known = self.cache.borrow().metadata.clone();
        if let Some((_, metadata)) = known.filter(|(read, _)| now().since(*read) < KNOWN_FOR) {
            return Ok(metadata);
        }
        let place =
            format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
        let metadata: Metadata = read(self.https.get(&place, None).await?, "its description")?;
        metadata.check(&self.settings.issuer).map_err(OidcError::Misbehaved)?;
        self.cache.send_modify(|cache| cache.metadata = Some((now(), metadata.clone())));
        Ok(metadata)
    }
}

/// What a provider says in words, for a page and for the audit log.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    pairs.join("&")
}

/// Reads an answer; a refusal (RFC 6749, section 5.2) is told in the provider's words.
fn read<T: DeserializeOwned>(answer: Answer, what: &str) -> Result<T, OidcError> {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        error_description: Option<String>,
    }
    if answer.status == 200 {
        let unreadable = |error| OidcError::Misbehaved(format!("{what}: {error}"));
        return serde_json::from_slice(&answer.body).map_err(unreadable);
    }
    let words = match serde_json::from_slice::<Refusal>(&answer.body) {
        Ok(refusal) => format!(
            "{} ({})",
            plain(&refusal.error),
            plain(refusal.error_description.as_deref().unwrap_or("no more is said"))
        ),
        Err(_) => format!("status {}", answer.status),
    };
    Err(OidcError::Misbehaved(format!("{what}: {words}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_provider_that_is_another_or_without_tls_is_refused() {
        let described = |change: Value| {
            let mut all = json!({
                "issuer": "https://a.example", "authorization_endpoint": "https://a.example/auth",
                "token_endpoint": "https://a.example/token", "jwks_uri": "https://a.example/keys",
            });
            for (name, value) in change.as_object().unwrap() {
                all[name] = value.clone();
            }
            serde_json::from_value::<Metadata>(all).unwrap()
        };
        let good = described(json!({}));
        assert_eq!(good.check("https://a.example"), Ok(()));
        assert!(good.takes("client_secret_basic") && !good.takes("client_secret_post"));
        assert!(good.check("https://b.example").unwrap_err().contains("oidc.issuer"));
        for place in ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"] {
            let plain = described(json!({ place: "http://a.example/x" }));
            assert!(plain.check("https://a.example").unwrap_err().contains("no https"), "{place}");
        }
    }

    #[test]
    fn refusals_are_told_in_words_that_harm_no_terminal() {
        let body = json!({ "error": "invalid_grant", "error_description": "used\u{1b}[2J already" });
        let answer = Answer { status: 400, body: body.to_string().into() };
        let error = read::<Value>(answer, "tokens").unwrap_err().to_string();
        assert!(error.contains("invalid_grant (used[2J already)"), "{error}");
    }
}
