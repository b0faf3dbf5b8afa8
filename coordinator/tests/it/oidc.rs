//! People who log in at a provider: one that tells the truth, one that lies, one that is away.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::pages::{Person, cookie};
use crate::support::Server;
use crate::support::provider::Provider;
use crate::support::web::{Answer, Browser};

/// A login that was sent to the provider's page.
pub struct Away {
    pub query: BTreeMap<String, String>,
    pub browser: String,
}

fn pairs(url: &str) -> BTreeMap<String, String> {
    let query = url.split_once('?').unwrap_or_else(|| panic!("no query in {url:?}")).1;
    let plain = |text: &str| text.replace("%3A", ":").replace("%2F", "/").replace("%20", " ");
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n.to_owned(), plain(v))).collect()
}

fn away(answer: &Answer) -> Away {
    assert_eq!(answer.status, 303, "{}", answer.text);
    Away { query: pairs(answer.header("location")), browser: cookie(answer, "__Host-ria-provider") }
}

pub async fn begin(server: &Server) -> Away {
    away(&Browser::new(server.address).get("/login/oidc?next=/nodes").await)
}

pub async fn come_back(server: &Server, login: &Away, code: &str) -> Answer {
    let path = format!("/login/oidc/back?state={}&code={code}", login.query["state"]);
    Browser::new(server.address).with("cookie", &login.browser).get(&path).await
}

async fn log_in(server: &Server, provider: &Provider) -> Answer {
    let login = begin(server).await;
    come_back(server, &login, &provider.code(&login.query)).await
}

pub fn session(server: &Server, answer: &Answer) -> Browser {
    Browser::new(server.address).with("cookie", &cookie(answer, "__Host-ria-session"))
}

fn users(server: &Server) -> Vec<Value> {
    server.json(&["user", "list"]).as_array().unwrap().clone()
}

fn log(server: &Server) -> String {
    server.json(&["audit", "list", "--limit", "1000"])["rows"].to_string()
}

pub const DOMAIN: &str = "domains = [\"uni.example\"]";

#[tokio::test]
async fn somebody_from_the_university_comes_in_becomes_a_viewer_and_is_the_same_person_later() {
    let provider = Provider::start().await;
    let server = Server::start_configured(&provider.settings(DOMAIN));
    let page = Browser::new(server.address).get("/login").await;
    assert!(page.text.contains("Log in at Uni") && page.text.contains("name=\"password\""), "{}", page.text);

    let login = begin(&server).await;
    assert_eq!(login.query["redirect_uri"], "https://coordinator.lab.example/login/oidc/back");
    assert_eq!(
        (login.query["client_id"].as_str(), login.query["scope"].as_str()),
        ("ria", "openid email profile")
    );
    let code = provider.code(&login.query);
    let done = come_back(&server, &login, &code).await;
    assert_eq!((done.status.as_u16(), done.header("location")), (303, "/nodes"), "{}", done.text);
    let ada = session(&server, &done);
    assert_eq!(ada.get("/nodes").await.status, 200);
    assert_eq!(ada.get("/people").await.status, 403, "a viewer decides nothing");

    // The address is another one by now, and the person the same.
    provider.change(|mind| {
        mind.userinfo = json!({ "sub": "4711", "email": "lovelace@uni.example", "email_verified": true,
                                "groups": ["robotics"] });
    });
    assert_eq!(log_in(&server, &provider).await.status, 303);
    let all = users(&server);
    assert_eq!((all.len(), all[0]["name"].as_str()), (1, Some("ada@uni.example")));
    assert_eq!((&all[0]["groups"], &all[0]["everywhere"]), (&json!(["robotics"]), &json!("viewer")));
    assert_eq!(all[0]["provider"], json!(provider.issuer));
    for action in ["user.came-by-provider", "user.linked", "login.succeeded"] {
        assert!(log(&server).contains(action), "{action}");
    }
    // Somebody who may not any more: neither by the session nor by another login.
    server.text(&["user", "leave", "ada@uni.example"]);
    assert_eq!(ada.get("/nodes").await.status, 303);
    let refused = log_in(&server, &provider).await;
    assert!(refused.status == 403 && refused.text.contains("not log in here any more"), "{}", refused.text);
}

#[tokio::test]
async fn a_provider_that_lies_lets_nobody_in_and_the_reason_is_told() {
    let provider = Provider::start().await;
    let server = Server::start_configured(&provider.settings(DOMAIN));
    let now = ria_protocol::time::UnixTime::from(std::time::SystemTime::now()).0;
    let lies: [(Value, Value, &str); 9] = [
        (json!({ "iss": "https://evil.example" }), json!({}), "issued by"),
        (json!({ "aud": "another" }), json!({}), "another client"),
        (json!({ "aud": ["ria", "another"] }), json!({}), "another client"),
        (json!({ "nonce": "another" }), json!({}), "another login"),
        (json!({ "exp": now - 3600 }), json!({}), "has ended"),
        (json!({ "iat": now - 86400, "exp": now + 86400 }), json!({}), "not issued just now"),
        (json!({}), json!({ "alg": "none" }), "not taken here"),
        (json!({}), json!({ "alg": "HS256" }), "not taken here"),
        (json!({ "sub": "4712" }), json!({}), "somebody else"),
    ];
    for (claims, header, says) in lies {
        provider.change(|mind| (mind.claims, mind.header) = (claims.clone(), header.clone()));
        let refused = log_in(&server, &provider).await;
        assert_eq!(refused.status, 502, "{claims} {header}: {}", refused.text);
        assert!(refused.text.contains(says), "{claims} {header}: {}", refused.text);
        assert!(
            refused.headers.get_all("set-cookie").iter().all(|c| !c.to_str().unwrap().contains("-session="))
        );
    }
    provider.change(|mind| (mind.claims, mind.header) = (json!({}), json!({})));
    provider.change(|mind| mind.userinfo["email"] = json!("eve@evil.example"));
    let refused = log_in(&server, &provider).await;
    assert!(refused.status == 403 && refused.text.contains("people of uni.example only"), "{}", refused.text);
    provider.change(|mind| mind.userinfo["email_verified"] = json!(false));
    assert_eq!(log_in(&server, &provider).await.status, 403);
    assert_eq!(users(&server).len(), 0);
    let rows = log(&server);
    assert!(rows.contains("login.failed") && rows.contains("another client"), "{rows}");
}

#[tokio::test]
async fn codes_states_and_keys_are_good_for_what_they_were_made_for() {
    let provider = Provider::start().await;
    let server = Server::start_configured(&provider.settings(DOMAIN));
    // Of another browser, guessed, and used before.
    let login = begin(&server).await;
    let code = provider.code(&login.query);
    let stolen = Away { browser: begin(&server).await.browser, query: login.query.clone() };
    let refused = come_back(&server, &stolen, &code).await;
    assert!(refused.status == 400 && refused.text.contains("began in another browser"), "{}", refused.text);
    assert_eq!(come_back(&server, &login, &code).await.status, 303, "the thief has taken nothing away");
    assert_eq!(come_back(&server, &login, &code).await.status, 400);
    // A code that was used already, in a login of its own.
    let other = begin(&server).await;
    let replayed = come_back(&server, &other, &code).await;
    assert!(replayed.status == 502 && replayed.text.contains("invalid_grant"), "{}", replayed.text);
    // A code of another login: PKCE does not fit.
    let (one, two) = (begin(&server).await, begin(&server).await);
    let foreign = come_back(&server, &two, &provider.code(&one.query)).await;
    assert!(foreign.status == 502 && foreign.text.contains("invalid_grant"), "{}", foreign.text);
    // The provider says no, in words that are text on the page.
    let login = begin(&server).await;
    let path = format!(
        "/login/oidc/back?state={}&error=access_denied&error_description=%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        login.query["state"]
    );
    let denied = Browser::new(server.address).with("cookie", &login.browser).get(&path).await;
    assert!(denied.status == 403 && !denied.text.contains("<script>alert"), "{}", denied.text);
    // Keys that change are read anew. Those that can't be known are asked for once in a while only.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    provider.change(|mind| mind.rotate("two"));
    assert_eq!(log_in(&server, &provider).await.status, 303);
    provider.change(|mind| mind.kid = "three".into());
    let before = provider.mind.lock().unwrap().key_requests;
    for _ in 0..3 {
        assert_eq!(log_in(&server, &provider).await.status, 502);
    }
    assert!(provider.mind.lock().unwrap().key_requests <= before + 1);
}

#[tokio::test]
async fn a_provider_that_is_away_or_another_hinders_nobody_with_a_password() {
    let provider = Provider::start().await;
    let server = Server::start_configured(&provider.settings(DOMAIN));
    provider.change(|mind| mind.issuer = "https://evil.example".into());
    let other = Browser::new(server.address).get("/login/oidc").await;
    assert!(other.status == 502 && other.text.contains("oidc.issuer"), "{}", other.text);
    provider.stop();
    let gone = Browser::new(server.address).get("/login/oidc").await;
    assert!(gone.status == 502 && gone.text.contains("log in by password"), "{}", gone.text);
    let ada = Person::owner(&server).await;
    assert_eq!(ada.browser.get("/people").await.status, 200);
}

#[tokio::test]
async fn who_has_a_password_connects_the_account_and_nobody_takes_a_name_that_is_taken() {
    let provider = Provider::start().await;
    let settings = provider.settings("anybody = true\nname_claim = \"nickname\"");
    let server = Server::start_configured(&settings);
    let ada = Person::owner(&server).await;
    provider.change(|mind| mind.userinfo["nickname"] = json!("ada"));
    let taken = log_in(&server, &provider).await;
    assert!(taken.status == 409 && taken.text.contains("Account"), "{}", taken.text);
    let login = away(&ada.post("/account", "/account/connect", &[]).await);
    let code = provider.code(&login.query);
    let done = come_back(&server, &login, &code).await;
    assert_eq!(done.header("location"), "/account?done=linked", "{}", done.text);
    let again = log_in(&server, &provider).await;
    assert_eq!(session(&server, &again).get("/people").await.status, 200, "she is the owner this way, too");
    assert_eq!(users(&server).len(), 1);
    // What somebody else has is not connected to a second person.
    let invited = server.json(&["user", "add", "bob", "--role", "viewer"]);
    let bob = Person::by_link(&server, invited["link"].as_str().unwrap(), None).await;
    let login = away(&bob.post("/account", "/account/connect", &[]).await);
    let refused = come_back(&server, &login, &provider.code(&login.query)).await;
    assert!(refused.text.contains("account is ada"), "{}", refused.text);
}
