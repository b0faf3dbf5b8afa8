//! Bodies of the fuzz targets for what the coordinator reads. The fuzzer runs them, and the tests replay its corpora.

use axum::http::{HeaderMap, HeaderValue, Method};
use ria_protocol::keys::SpkiHash;
use ria_protocol::policy::{Permit, PermitKind};
use ria_protocol::time::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::api::{
    AddRelay, AddTurn, AuditView, CreateKey, CreateNetwork, KeyView, NetworkView, NodeView, RelayView,
    Rename, Tag,
};
use crate::admin::api_people::{AddUser, CreateToken, SetRoles, UserView};
use crate::config::{Config, OidcSettings, Standalone};
use crate::duration::Lifetime;
use crate::enrol::check_request;
use crate::fellows::hear;
use crate::hub::Heard;
use crate::oidc::Metadata;
use crate::oidc::claims::IdToken;
use crate::oidc::jws::{self, Keys};
use crate::people::{secret, totp};
use crate::policy::Who;
use crate::policy::api::{ChangePolicy, Explain, Explained, PolicyChanged, PolicyView, VersionView};
use crate::policy::ask::{Resolved, Roster, run_tests};
use crate::policy::grant::{Grant, append};
use crate::policy::text::parse;
use crate::policy::valid::Period;
use crate::policy::words::{self, Question};
pub use crate::relay::fuzz::{relay_server, relay_stream};
use crate::rest::caller::{SESSION_COOKIE, cookie, is_cross_site};
use crate::rest::operations;
use crate::state::people::{Scope, UserName};

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: [Target; 9] = [
    ("coordinator_config", coordinator_config),
    ("admin_json", admin_json),
    ("web_request", web_request),
    ("login_provider", login_provider),
    ("certificate_request", certificate_request),
    ("relay_server", relay_server),
    ("relay_stream", relay_stream),
    ("policy_text", policy_text),
    ("fellow_words", fellow_words),
];

/// `coordinator.toml`: read, or each mistake told; and durations as people type them.
pub fn coordinator_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Config::from_text("coordinator.toml", text) {
        assert!(!error.mistakes.is_empty() && error.mistakes.iter().all(|mistake| !mistake.is_empty()));
    }
    if let Err(error) = Standalone::from_text("relay.toml", text) {
        assert!(!error.mistakes.is_empty() && error.mistakes.iter().all(|mistake| !mistake.is_empty()));
    }
    if let Ok(lifetime) = text.parse::<Lifetime>() {
        assert_ne!(lifetime.seconds(), Some(0));
    }
}

/// What the admin socket and its clients read.
pub fn admin_json(data: &[u8]) {
    json::<CreateNetwork>(data);
    json::<CreateKey>(data);
    json::<Rename>(data);
    json::<Tag>(data);
    json::<NetworkView>(data);
    json::<KeyView>(data);
    json::<NodeView>(data);
    json::<AuditView>(data);
    json::<RelayView>(data);
    json::<AddRelay>(data);
    json::<AddTurn>(data);
    json::<ChangePolicy>(data);
    json::<PolicyChanged>(data);
    json::<PolicyView>(data);
    json::<VersionView>(data);
    json::<Explain>(data);
    json::<Explained>(data);
    json::<AddUser>(data);
    json::<SetRoles>(data);
    json::<CreateToken>(data);
    json::<UserView>(data);
}

/// What was read is written to a text that reads back to the same text.
fn json<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return };
    let text = serde_json::to_string(&value).unwrap_or_default();
    let again = serde_json::from_str::<T>(&text).map(|again| serde_json::to_string(&again));
    assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == text)), "{text}");
}

/// What strangers' browsers and programs send: tokens, cookies, paths, names, scopes; and what is drawn of their texts.
pub fn web_request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    if let Some((id, digest)) = secret::read_token(first) {
        assert!(!id.to_string().is_empty() && digest != [0; 32]);
    }
    if let Ok(name) = first.parse::<UserName>() {
        assert_eq!(name.as_str(), first);
    }
    if let Ok(scope) = first.parse::<Scope>() {
        assert_eq!(scope.to_string(), first);
    }
    for method in [Method::GET, Method::POST, Method::DELETE] {
        if let Ok(operation) = operations::find(&method, first) {
            assert_eq!(operation.path.split('/').count(), first.split('/').count());
        }
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(first) {
        for name in ["cookie", "origin", "host", "sec-fetch-site"] {
            headers.insert(name, value.clone());
        }
        if let Some(found) = cookie(&headers, SESSION_COOKIE) {
            assert!(!found.contains(';'));
        }
        is_cross_site(&headers);
    }
    totp::step_of(first.as_bytes(), rest, UnixTime(1_000_000));
    let uri = totp::uri(&[7; totp::SECRET], first);
    assert!(uri.is_ascii() && !uri.contains(['<', '"', ' ']));
}

/// What a login provider says, and whoever passes for one: keys, then a token. Nothing is signed without a key.
pub fn login_provider(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, token) = text.split_once('\n').unwrap_or((text, text));
    let keys = Keys::read(first.as_bytes()).unwrap_or_default();
    let verified = jws::verified::<IdToken>(token, &keys);
    assert!(jws::verified::<IdToken>(token, &Keys::default()).is_err());
    let Some(settings) = login_settings() else { return };
    for said in [verified.ok(), serde_json::from_str(first).ok()].into_iter().flatten() {
        let said: IdToken = said;
        // Nobody knows the nonce.
        assert!(said.check(&settings, &secret::fresh(), UnixTime(1_800_000_000)).is_err());
        if let Ok(someone) = said.someone(serde_json::from_str(token).ok()) {
            let _ = (someone.check(&settings), someone.name(&settings));
            assert!(someone.groups(&settings).is_sorted());
        }
    }
    Metadata::is_usable(first.as_bytes(), &settings.issuer);
}

fn login_settings() -> Option<OidcSettings> {
    let text = "public_url = \"https://ria.lab.example\"\n[oidc]\nissuer = \"https://a.example\"\nclient_id = \"ria\"\n\
                domains = \"uni.example\"\ngroups = \"robotics\"\nclaims = \"a=b\"";
    Config::from_text("coordinator.toml", text).ok()?.oidc
}

/// Certificate requests of nodes: none is good for a key that is not in it.
pub fn certificate_request(data: &[u8]) {
    assert!(check_request(data, SpkiHash([0; 32])).is_err());
}

/// Policies as people write them: read, or each mistake told with a line of the text; what is read means something for each
/// member, and a grant behind it changes nothing before it.
pub fn policy_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(period) = text.parse::<Period>() {
        assert_eq!(period.to_string().parse(), Ok(period));
    }
    if let Ok(permit) = words::permit(text) {
        assert_eq!(words::permit(&words::permit_text(&permit)), Ok(permit));
    }
    if let Ok(question) = text.parse::<Question>() {
        assert_eq!(question.to_string().parse(), Ok(question));
    }
    let policy = match parse(text) {
        Ok(policy) => policy,
        Err(problems) => {
            let lines = text.lines().count() + 1;
            assert!(!problems.is_empty());
            assert!(problems.iter().all(|p| p.line.is_none_or(|line| (1..=lines).contains(&line))));
            return;
        }
    };
    let period = Period { from: UnixTime(60), until: UnixTime(120) };
    let permits = vec![Permit::plain(PermitKind::ANY)];
    let grant = Grant { from: vec![Who::Everybody], to: vec![Who::Everybody], permits, period, name: None };
    if let Ok(longer) = parse(&append(text, &grant)) {
        assert_eq!(longer.rules.len(), policy.rules.len() + 1);
        assert_eq!(
            (&longer.rules[..policy.rules.len()], &longer.groups),
            (&policy.rules[..], &policy.groups)
        );
    }
    let roster = Roster::default();
    let resolved = Resolved::of(&policy, &roster);
    assert!(resolved.rules(&policy).count() == policy.rules.len());
    let _ = run_tests(&policy, &resolved, &roster);
}

/// What coordinators on one database tell each other, a line each: whoever may write into the database's channel can say anything.
pub fn fellow_words(data: &[u8]) {
    let mut known = Heard::default();
    let bare = data_encoding::BASE64.encode(data);
    let lines = String::from_utf8_lossy(data);
    for text in lines.lines().chain([bare.as_str()]) {
        hear(text, &mut known);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        super::TARGETS.iter().for_each(|(name, body)| ria_corpus::replay(name, *body));
    }
}
