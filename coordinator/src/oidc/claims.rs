//! What a provider says of somebody, whether it is meant for this coordinator, and whom the settings let in.

use ria_protocol::time::UnixTime;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::OidcSettings;
use crate::people::secret;
use crate::state::people::UserName;

/// Clocks may differ by so many seconds.
const LEEWAY: u64 = 60;
/// A token that is older than that is not the one that was asked for just now.
const OLDEST: u64 = 600;
const LONGEST_SUBJECT: usize = 255;
/// Groups that are kept of somebody.
const MOST_GROUPS: usize = 200;
const LONGEST_GROUP: usize = 200;

/// A token is not for this login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    #[error("it was issued by {0:?}, not by the provider that was asked")]
    Issuer(String),
    #[error("it is meant for another client than this coordinator")]
    Audience,
    #[error("it has ended; check the clocks of provider and coordinator")]
    Expired,
    #[error("it was not issued just now; check the clocks of provider and coordinator")]
    NotNow,
    #[error("it belongs to another login")]
    Nonce,
    #[error("it names nobody")]
    Subject,
    #[error("the particulars are somebody else's")]
    OtherSubject,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The content of an ID token. Times of another type than a number make it unreadable, rather than endless.
#[derive(Debug, Clone, Deserialize)]
pub struct IdToken {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    iat: f64,
    nonce: Option<String>,
    azp: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl IdToken {
    /// Whether it answers the login with this nonce, now.
    pub fn check(&self, settings: &OidcSettings, nonce: &str, now: UnixTime) -> Result<(), ClaimsError> {
        if self.iss != settings.issuer {
            return Err(ClaimsError::Issuer(self.iss.chars().take(100).collect()));
        }
        let is_ours = |client: &String| *client == settings.client_id;
        let meant = match &self.aud {
            Audience::One(client) => is_ours(client),
            // For several, the one who has asked for it has to be this one.
            Audience::Many(clients) => {
                clients.iter().any(is_ours) && (clients.len() == 1 || self.azp.is_some())
            }
        };
        if !meant || self.azp.as_ref().is_some_and(|azp| !is_ours(azp)) {
            return Err(ClaimsError::Audience);
        }
        let (now, leeway, oldest) = (now.0 as f64, LEEWAY as f64, OLDEST as f64);
        // What is no number fits nowhere, and is refused.
        let (lasts, is_new) =
            (now < self.exp + leeway, (self.iat - leeway..=self.iat + oldest).contains(&now));
        if !lasts {
            return Err(ClaimsError::Expired);
        }
        if !is_new {
            return Err(ClaimsError::NotNow);
        }
        let own = self.nonce.as_ref().is_some_and(|own| secret::same(own.as_bytes(), nonce.as_bytes()));
        if !own {
            return Err(ClaimsError::Nonce);
        }
        if self.sub.is_empty() || self.sub.len() > LONGEST_SUBJECT {
            return Err(ClaimsError::Subject);
        }
        Ok(())
    }

    /// Somebody, with what the token says and what the provider adds when it is asked.
    pub fn someone(self, added: Option<Map<String, Value>>) -> Result<Someone, ClaimsError> {
        let mut claims = self.more;
        if let Some(added) = added {
            if added.get("sub").and_then(Value::as_str) != Some(&self.sub) {
                return Err(ClaimsError::OtherSubject);
            }
            // What is signed counts more.
            for (name, value) in added {
                claims.entry(name).or_insert(value);
            }
        }
        Ok(Someone { subject: self.sub, claims })
    }
}

/// Whom the provider speaks of.
#[derive(Debug, Clone, PartialEq)]
pub struct Someone {
    pub subject: String,
    claims: Map<String, Value>,
}

/// Somebody may not come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    #[error("the provider tells no verified e-mail address, which this coordinator goes by")]
    NoAddress,
    #[error("this coordinator lets in people of {0} only")]
    Domain(String),
    #[error("you are in none of the groups that this coordinator lets in")]
    Group,
    #[error("this coordinator lets in only people whose {0} is another than yours")]
    Claim(String),
    #[error("the provider tells no {0}, which people are called after here; see oidc.name_claim")]
    NoName(String),
    #[error("{0:?} can't be somebody's name here; see oidc.name_claim")]
    BadName(String),
}

impl Someone {
    fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// The address, if the provider has verified it.
    fn address(&self) -> Option<&str> {
        let verified = match self.claims.get("email_verified") {
            Some(Value::Bool(verified)) => *verified,
            // Some providers write it as a text.
            Some(Value::String(verified)) => verified == "true",
            Some(_) | None => false,
        };
        self.text("email").filter(|_| verified)
    }

    /// Groups, sorted, each once.
    pub fn groups(&self, settings: &OidcSettings) -> Vec<String> {
        let mut groups = texts(self.claims.get(&settings.groups_claim));
        groups.retain(|group| !group.is_empty() && group.len() <= LONGEST_GROUP);
        groups.sort();
        groups.dedup();
        groups.truncate(MOST_GROUPS);
        groups
    }

    /// Whether the settings let this person in.
    pub fn check(&self, settings: &OidcSettings) -> Result<(), NotAdmitted> {
        let admits = &settings.admits;
        if !admits.domains.is_empty() {
            let address = self.address().ok_or(NotAdmitted::NoAddress)?.to_ascii_lowercase();
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
            if !admits.domains.iter().any(|admitted| admitted == domain) {
                return Err(NotAdmitted::Domain(admits.domains.join(", ")));
            }
        }
        let groups = texts(self.claims.get(&settings.groups_claim));
        if !admits.groups.is_empty() && !admits.groups.iter().any(|admitted| groups.contains(admitted)) {
            return Err(NotAdmitted::Group);
        }
        let differs = |(name, wanted): &(&String, &String)| !texts(self.claims.get(*name)).contains(*wanted);
        match admits.claims.iter().find(differs) {
            Some((name, _)) => Err(NotAdmitted::Claim(name.clone())),
            None => Ok(()),
        }
    }

    /// What this person is called here.
    pub fn name(&self, settings: &OidcSettings) -> Result<UserName, NotAdmitted> {
        let claim = settings.name_claim.as_str();
        let text = if claim == "email" { self.address() } else { self.text(claim) };
        let text = text.ok_or_else(|| NotAdmitted::NoName(claim.to_owned()))?;
        let shown = || NotAdmitted::BadName(text.chars().take(80).collect());
        text.to_lowercase().parse().map_err(|_| shown())
    }
}

/// A claim that is a text, several, or something that is written as one.
fn texts(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Bool(value)) => vec![value.to_string()],
        Some(Value::Number(number)) => vec![number.to_string()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::Null | Value::Object(_)) | None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Admits;
    use crate::state::people::Role;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn settings() -> OidcSettings {
        OidcSettings {
            issuer: "https://login.uni.example".into(),
            client_id: "ria".into(),
            client_secret_file: None,
            ca: None,
            label: String::new(),
            scopes: Vec::new(),
            name_claim: "email".into(),
            groups_claim: "groups".into(),
            admits: Admits::default(),
            role: Role::Viewer,
            role_in: Vec::new(),
        }
    }

    fn token(change: &Value) -> Option<IdToken> {
        let mut claims = json!({
            "iss": "https://login.uni.example", "sub": "4711", "aud": "ria", "exp": NOW.0 + 300, "iat": NOW.0,
            "nonce": "n", "email": "Ada@Uni.example", "email_verified": true, "groups": ["robotics", "staff"],
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        serde_json::from_value(claims).ok()
    }

    fn checked(change: &Value) -> Option<Result<(), ClaimsError>> {
        token(change).map(|token| token.check(&settings(), "n", NOW))
    }

    #[test]
    fn a_token_for_somebody_else_another_time_or_another_login_is_refused() {
        assert_eq!(checked(&json!({})), Some(Ok(())));
        assert_eq!(checked(&json!({ "aud": ["ria"] })), Some(Ok(())));
        assert_eq!(checked(&json!({ "aud": ["other", "ria"], "azp": "ria" })), Some(Ok(())));
        let evil = || Some(Err(ClaimsError::Issuer("https://evil.example".into())));
        assert_eq!(checked(&json!({ "iss": "https://evil.example" })), evil());
        for aud in [
            json!({ "aud": "other" }),
            json!({ "aud": ["other", "ria"] }),
            json!({ "aud": [] }),
            json!({ "aud": ["other", "ria"], "azp": "other" }),
            json!({ "azp": "other" }),
        ] {
            assert_eq!(checked(&aud), Some(Err(ClaimsError::Audience)), "{aud}");
        }
        assert_eq!(checked(&json!({ "exp": NOW.0 - 61 })), Some(Err(ClaimsError::Expired)));
        assert_eq!(checked(&json!({ "iat": NOW.0 - 700 })), Some(Err(ClaimsError::NotNow)));
        assert_eq!(checked(&json!({ "iat": NOW.0 + 120 })), Some(Err(ClaimsError::NotNow)));
        assert_eq!(checked(&json!({ "nonce": "m" })), Some(Err(ClaimsError::Nonce)));
        assert_eq!(checked(&json!({ "nonce": null })), Some(Err(ClaimsError::Nonce)));
        assert_eq!(checked(&json!({ "sub": "" })), Some(Err(ClaimsError::Subject)));
        for unreadable in [json!({ "exp": "never" }), json!({ "exp": null }), json!({ "aud": 7 })] {
            assert_eq!(checked(&unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn who_comes_in_is_said_by_domain_group_and_claim() {
        let someone = |change: Value| token(&change).unwrap().someone(None).unwrap();
        let with = |admits: Admits| OidcSettings { admits, ..settings() };
        let domain = with(Admits { domains: vec!["uni.example".into()], ..Admits::default() });
        assert_eq!(someone(json!({})).check(&domain), Ok(()));
        for address in
            ["ada@evil.example", "ada@uni.example.evil.example", "uni.example", "ada@evil-uni.example"]
        {
            let refused = someone(json!({ "email": address })).check(&domain);
            assert_eq!(refused, Err(NotAdmitted::Domain("uni.example".into())), "{address}");
        }
        let unverified = someone(json!({ "email_verified": false }));
        assert_eq!(unverified.check(&domain), Err(NotAdmitted::NoAddress));
        let group = with(Admits { groups: vec!["robotics".into()], ..Admits::default() });
        assert_eq!(someone(json!({})).check(&group), Ok(()));
        assert_eq!(someone(json!({ "groups": ["robotics2"] })).check(&group), Err(NotAdmitted::Group));
        let claim = with(Admits { claims: [("staff".into(), "true".into())].into(), ..Admits::default() });
        assert_eq!(someone(json!({ "staff": true })).check(&claim), Ok(()));
        assert_eq!(someone(json!({})).check(&claim), Err(NotAdmitted::Claim("staff".into())));
    }

    #[test]
    fn people_are_called_after_a_claim_and_what_is_signed_counts_more() {
        let someone = token(&json!({})).unwrap().someone(None).unwrap();
        assert_eq!(someone.name(&settings()).unwrap().as_str(), "ada@uni.example");
        let other = OidcSettings { name_claim: "preferred_username".into(), ..settings() };
        assert_eq!(someone.name(&other), Err(NotAdmitted::NoName("preferred_username".into())));
        let added = json!({ "sub": "4711", "preferred_username": "Ada L", "email": "eve@evil.example" });
        let added = token(&json!({})).unwrap().someone(added.as_object().cloned()).unwrap();
        assert_eq!(added.name(&settings()).unwrap().as_str(), "ada@uni.example");
        assert_eq!(added.name(&other), Err(NotAdmitted::BadName("Ada L".into())));
        let foreign = json!({ "sub": "4712" }).as_object().cloned();
        assert_eq!(token(&json!({})).unwrap().someone(foreign), Err(ClaimsError::OtherSubject));
        assert_eq!(someone.groups(&settings()), ["robotics", "staff"]);
    }
}
