//! Laptops as the coordinator sees them: who asks for a code, who decides, what ends with a person.

use serde_json::json;

use crate::pages::Person;
use crate::support::web::Browser;
use crate::support::{Robot, Server};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

pub async fn ask(server: &Server, name: &str) -> (String, String) {
    let asked = Browser::new(server.address).form("/login/device/code", &[("name", name)]).await;
    assert_eq!(asked.status, 200, "{}", asked.text);
    let asked = asked.json();
    let text = |name: &str| asked[name].as_str().unwrap().to_owned();
    assert!(text("verification_uri_complete").contains(".lab.example/device?code="));
    (text("device_code"), text("user_code"))
}

pub async fn poll(server: &Server, device_code: &str) -> serde_json::Value {
    let fields = [("grant_type", GRANT), ("device_code", device_code)];
    Browser::new(server.address).form("/login/device/token", &fields).await.json()
}

/// A key by which a laptop of a person's joins, once they have let it in.
pub async fn laptop_key(server: &Server, person: &Person, name: &str) -> ria_protocol::join_key::JoinKey {
    let (long, short) = ask(server, name).await;
    let fields = [("code", short.as_str()), ("network", "lab"), ("deed", "approve")];
    assert_eq!(person.post("/account", "/device", &fields).await.status, 200);
    let granted = poll(server, &long).await;
    ria_protocol::join_key::JoinKey::parse(granted["access_token"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_person_lets_a_laptop_in_which_ends_with_them() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    let (long, short) = ask(&server, "laptop").await;
    assert_eq!(poll(&server, &long).await["error"], "authorization_pending");
    assert_eq!(poll(&server, "guessed").await["error"], "expired_token");
    let page = ada.browser.get(&format!("/device?code={}", short.to_lowercase())).await;
    assert!(
        page.text.contains("<strong>laptop</strong>") && page.text.contains("127.0.0.1"),
        "{}",
        page.text
    );
    assert_eq!(ada.browser.get("/device?code=BCDF-BCDF").await.status, 404);
    let decide = async |person: &Person, code: &str, deed: &str| {
        person.post("/account", "/device", &[("code", code), ("network", "lab"), ("deed", deed)]).await
    };
    // Somebody who may not bring laptops.
    let invited = server.json(&["user", "add", "vera", "--role", "viewer"]);
    let vera = Person::by_link(&server, invited["link"].as_str().unwrap(), None).await;
    assert_eq!(decide(&vera, &short, "approve").await.status, 403);
    assert_eq!(decide(&ada, &short, "approve").await.status, 200);
    assert_eq!(decide(&ada, &short, "approve").await.status, 404, "once");
    let granted = poll(&server, &long).await;
    assert_eq!((&granted["user"], &granted["network"]), (&json!("ada"), &json!("lab")));
    assert_eq!(poll(&server, &long).await["error"], "expired_token", "told once");
    let key = ria_protocol::join_key::JoinKey::parse(granted["access_token"].as_str().unwrap()).unwrap();
    Robot::new("laptop", &key).join(server.address, &key).await;
    let node = server.json(&["node", "show", "laptop"]);
    assert_eq!((&node["owner"], &node["login_due"]), (&json!("ada"), &json!(null)));
    // A laptop that is not theirs.
    let (long, short) = ask(&server, "other").await;
    assert_eq!(decide(&ada, &short, "deny").await.status, 200);
    assert_eq!(poll(&server, &long).await["error"], "access_denied");

    // Another owner, so that this one can leave.
    let grace = Person::by_link(&server, &server.text(&["user", "owner-link"]), Some("grace")).await;
    server.text(&["user", "disable", "ada"]);
    let node = server.json(&["node", "show", "laptop"]);
    assert!(node["login_due"].is_u64(), "{node}");
    server.text(&["user", "enable", "ada"]);
    assert_eq!(server.json(&["node", "show", "laptop"])["login_due"], json!(null));
    let left = server.json(&["user", "leave", "ada"]);
    assert_eq!((&left["laptops_removed"], &left["nodes_left"]), (&json!(["lab/laptop"]), &json!([])));
    assert_eq!(server.command(&["node", "show", "laptop"]).status.code(), Some(1));
    assert_eq!(grace.browser.get("/people").await.status, 200);
}

#[tokio::test]
async fn strangers_can_ask_only_so_much_and_nonsense_is_refused() {
    let server = Server::start();
    let browser = Browser::new(server.address);
    for fields in [vec![("name", "<b>")], vec![], vec![("name", "x"), ("network", "../")]] {
        let refused = browser.form("/login/device/code", &fields).await;
        assert!(refused.status.is_client_error(), "{fields:?}: {}", refused.status);
    }
    let mut slow = false;
    for _ in 0..20 {
        slow = browser.form("/login/device/code", &[("name", "x")]).await.status == 400;
    }
    assert!(slow, "one address has as many codes as it likes");
    let other = [("grant_type", "password"), ("device_code", "x")];
    assert_eq!(browser.form("/login/device/token", &other).await.json()["error"], "unsupported_grant_type");
}

#[tokio::test]
async fn the_policy_page_tries_tells_mistakes_by_line_and_goes_back() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    let key = server.key(&["--reusable"]);
    for name in ["one", "two"] {
        Robot::new(name, &key).enrol(server.address, &key).await;
    }
    let send = async |deed: &str, version: &str, more: &[(&str, &str)]| {
        let mut fields = vec![("network", "lab"), ("version", version), ("deed", deed)];
        fields.extend(more);
        ada.post("/policy?network=lab", "/policy", &fields).await
    };
    let page = ada.browser.get("/policy").await;
    assert!(
        page.text.contains("There is no policy") && page.text.contains("everything, to begin with"),
        "{}",
        page.text
    );
    let bad =
        send("set", "0", &[("text", "[[rule]]\nfrom = [\"*\"]\nto = [\"<b>\"]\nallow = [\"icmp\"]\n")]).await;
    assert!(bad.status == 422 && bad.text.contains("line 3"), "{}", bad.text);
    assert!(!bad.text.contains("<b>"), "what was typed is text");
    let text = "[[rule]]\nfrom = [\"one\"]\nto = [\"two\"]\nallow = [\"tcp/22\"]\n";
    let tried = send("try", "0", &[("text", text)]).await;
    assert!(tried.status == 200 && tried.text.contains("What would change"), "{}", tried.text);
    assert!(tried.text.contains("<th scope=\"row\">two</th>"), "two loses something: {}", tried.text);
    let set = send("set", "0", &[("text", text), ("note", "first")]).await;
    assert_eq!(set.header("location"), "/policy?done=policy&network=lab", "{}", set.text);
    let late = send("set", "0", &[("text", "")]).await;
    assert_eq!(late.status, 412, "somebody else was quicker: {}", late.text);
    let why = ada.browser.get("/policy?network=lab&from=two&to=one&what=tcp%2F22").await;
    assert!(why.text.contains("denied") && why.text.contains("no rule of version 1"), "{}", why.text);
    let grant = [("from", "two"), ("to", "one"), ("allow", "tcp/22"), ("hours", "2"), ("reason", "a look")];
    assert_eq!(send("grant", "1", &grant).await.status, 303);
    let page = ada.browser.get("/policy?network=lab").await;
    assert!(page.text.contains("Version 2") && page.text.contains("a look"), "{}", page.text);
    assert_eq!(send("rollback", "2", &[("to", "1")]).await.status, 303);
    assert_eq!(send("clear", "3", &[]).await.status, 400, "not without a tick");
    assert_eq!(send("clear", "3", &[("sure", "yes")]).await.status, 303);
    assert!(ada.browser.get("/policy").await.text.contains("There is no policy"));
    let invited = server.json(&["user", "add", "vera", "--role", "viewer"]);
    let vera = Person::by_link(&server, invited["link"].as_str().unwrap(), None).await;
    let page = vera.browser.get("/policy").await;
    assert!(page.status == 200 && !page.text.contains("<textarea"), "{}", page.text);
}
