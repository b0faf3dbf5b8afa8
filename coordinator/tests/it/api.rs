//! REST, as programs meet it: tokens, roles, scopes, problem documents, lists in parts, events, and a document that is true.

use ria_coordinator::rest::openapi;
use ria_coordinator::rest::operations::{Gives, OPERATIONS};
use serde_json::{Value, json};

use crate::support::web::Browser;
use crate::support::{Robot, Server};

fn token(server: &Server, user: &str, scopes: &[&str]) -> String {
    let mut arguments = vec!["user", "token", "create", user, "--label", "test"];
    scopes.iter().for_each(|scope| arguments.extend(["--scope", scope]));
    server.text(&arguments).trim().to_owned()
}

/// Somebody with a role everywhere, and a token that may do all that they may.
pub fn program(server: &Server, user: &str, role: &str) -> Browser {
    server.text(&["user", "add", user, "--role", role]);
    Browser::token(server.address, &token(server, user, &["*:write"]))
}

/// Holds a value against a schema of the document.
fn check(value: &Value, schema: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let all = openapi::schemas();
        let name = reference.rsplit('/').next().unwrap();
        return check(value, &all[name], &format!("{at} ({name})"));
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let other = any.iter().find(|schema| schema["type"] != "null").unwrap();
        return if value.is_null() {
        } else {
            check(value, other, at)
        };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = &schema["type"];
    let allowed = types == kind || types.as_array().is_some_and(|all| all.iter().any(|t| t == kind));
    assert!(allowed, "{at}: {value} is no {types}");
    if let Some(all) = schema["enum"].as_array() {
        assert!(all.contains(value), "{at}: {value} is none of {all:?}");
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(item, &schema["items"], &format!("{at}[{index}]"));
    }
    let Some(object) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(object.contains_key(name.as_str().unwrap()), "{at}: {name} is missing in {value}");
    }
    for (name, inner) in object {
        let known = &schema["properties"][name];
        let more = &schema["additionalProperties"];
        let schema = if known.is_null() { more } else { known };
        assert!(schema.is_object(), "{at}: {name} is not in the document");
        check(inner, schema, &format!("{at}.{name}"));
    }
}

pub fn check_answer(id: &str, value: &Value) {
    let operation = OPERATIONS.iter().find(|operation| operation.id == id).unwrap();
    match operation.gives {
        Gives::One(name) => check(value, &openapi::schemas()[name], id),
        Gives::Many(name) => {
            for item in value.as_array().unwrap() {
                check(item, &openapi::schemas()[name], id);
            }
        }
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list, in which nothing is left out")]
async fn every_operation_works_and_answers_as_the_document_says() {
    let server = Server::start();
    let owner = program(&server, "ada", "owner");
    let key = server.key(&["--reusable"]);
    let mut robot = Robot::new("robot", &key);
    robot.routes = vec!["192.168.10.0/24".parse().unwrap()];
    robot.join(server.address, &key).await;
    let waiting = server.key(&["--approve", "--reusable"]);
    for name in ["late", "later"] {
        let robot = Robot::new(name, &waiting);
        let mut connection = robot.connect(server.address).await;
        let request = robot.enrol_request(&connection, &waiting);
        connection.send(&ria_protocol::message::NodeMessage::Enrol(request)).await;
        connection.next().await;
    }
    let device = json!({
        "network": "lab", "name": "phone", "public_key": data_encoding::BASE64.encode(&[9; 32]), "tags": [], "listens_at": null,
        "keepalive": 25, "way": { "via": "robot", "endpoints": ["ria.lab.example:41820"], "psk": null },
    });
    let steps: Vec<(&str, &str, String, Value)> = vec![
        (
            "createNetwork",
            "POST",
            "/v1/networks".into(),
            json!({ "name": "field", "ros_domains": "per-robot" }),
        ),
        ("listNetworks", "GET", "/v1/networks".into(), Value::Null),
        ("showNetwork", "GET", "/v1/networks/field".into(), Value::Null),
        ("setPeers", "POST", "/v1/networks/field/peers".into(), json!({ "mode": "on-demand" })),
        ("setMulticast", "POST", "/v1/networks/field/multicast".into(), json!({ "groups": "mdns" })),
        ("listNodes", "GET", "/v1/nodes?network=lab".into(), Value::Null),
        ("renameNode", "POST", "/v1/nodes/robot/rename".into(), json!({ "name": "robot-7" })),
        ("tagNode", "POST", "/v1/nodes/robot-7/tag".into(), json!({ "add": ["arm"], "remove": [] })),
        ("disableNode", "POST", "/v1/nodes/robot-7/disable".into(), Value::Null),
        ("enableNode", "POST", "/v1/nodes/robot-7/enable".into(), Value::Null),
        ("nodeHistory", "GET", "/v1/nodes/robot-7/history".into(), Value::Null),
        ("listLinks", "GET", "/v1/links".into(), Value::Null),
        ("listRoutes", "GET", "/v1/routes?network=lab".into(), Value::Null),
        (
            "approveRoute",
            "POST",
            "/v1/nodes/robot-7/routes/approve".into(),
            json!({ "lan": "192.168.10.0/24", "map": "auto" }),
        ),
        (
            "withdrawRoute",
            "POST",
            "/v1/nodes/robot-7/routes/withdraw".into(),
            json!({ "lan": "192.168.10.0/24" }),
        ),
        ("listPending", "GET", "/v1/pending".into(), Value::Null),
        ("approveNode", "POST", "/v1/pending/late/approve".into(), json!({ "name": null })),
        ("rejectNode", "POST", "/v1/pending/later/reject".into(), Value::Null),
        ("addStaticPeer", "POST", "/v1/static-peers".into(), device_through(&device, "robot-7")),
        (
            "setGateway",
            "POST",
            "/v1/static-peers/phone/gateway".into(),
            device_through(&device, "robot-7")["way"].clone(),
        ),
        ("showNode", "GET", "/v1/nodes/phone".into(), Value::Null),
        (
            "createKey",
            "POST",
            "/v1/keys".into(),
            json!({ "network": "lab", "reusable": false, "tags": ["arm"], "expires_after": 60 }),
        ),
        ("listKeys", "GET", "/v1/keys".into(), Value::Null),
        ("showKey", "GET", format!("/v1/keys/{}", key.key_id), Value::Null),
        ("revokeKey", "POST", format!("/v1/keys/{}/revoke", key.key_id), Value::Null),
        ("removeNode", "DELETE", "/v1/nodes/phone".into(), Value::Null),
        (
            "addRelay",
            "POST",
            "/v1/standalone-relays".into(),
            json!({ "name": "vps", "networks": ["lab"], "expires_after": 60 }),
        ),
        ("listRelays", "GET", "/v1/relays".into(), Value::Null),
        ("removeRelay", "DELETE", "/v1/relays/vps".into(), Value::Null),
        ("addUrl", "POST", "/v1/urls".into(), json!({ "url": "https://other.lab.example" })),
        ("listUrls", "GET", "/v1/urls".into(), Value::Null),
        ("removeUrl", "POST", "/v1/urls/remove".into(), json!({ "url": "https://other.lab.example" })),
        ("listAuthorities", "GET", "/v1/ca".into(), Value::Null),
        (
            "listAudit",
            "GET",
            "/v1/audit?limit=5&actor=user&action=node&since=1&whole=true".into(),
            Value::Null,
        ),
        ("auditHead", "GET", "/v1/audit/head".into(), Value::Null),
        (
            "putPolicy",
            "PUT",
            "/v1/policy".into(),
            json!({ "network": "lab", "text": POLICY, "note": "first" }),
        ),
        ("showPolicy", "GET", "/v1/policy?network=lab".into(), Value::Null),
        (
            "changePolicy",
            "POST",
            "/v1/policy".into(),
            json!({ "network": "lab", "what": { "grant": { "from": ["*"], "to": ["robot-7"], "allow": ["tcp/22"],
                    "seconds": 60, "reason": "a look" } } }),
        ),
        ("listPolicies", "GET", "/v1/policy/history?network=lab".into(), Value::Null),
        (
            "explainPolicy",
            "GET",
            "/v1/policy/explain?network=lab&from=robot-7&to=late&question=tcp%2F22".into(),
            Value::Null,
        ),
        (
            "addUser",
            "POST",
            "/v1/users".into(),
            json!({ "name": "bob", "everywhere": null, "networks": { "field": "operator" } }),
        ),
        ("listUsers", "GET", "/v1/users".into(), Value::Null),
        ("showUser", "GET", "/v1/users/bob".into(), Value::Null),
        (
            "setRoles",
            "POST",
            "/v1/users/bob/roles".into(),
            json!({ "everywhere": "viewer", "networks": {}, "version": 1 }),
        ),
        ("resetUser", "POST", "/v1/users/bob/reset".into(), Value::Null),
        ("disableUser", "POST", "/v1/users/bob/disable".into(), Value::Null),
        ("enableUser", "POST", "/v1/users/bob/enable".into(), Value::Null),
        ("userLeaves", "POST", "/v1/users/bob/leave".into(), Value::Null),
        ("removeUser", "DELETE", "/v1/users/bob".into(), Value::Null),
        ("listTokens", "GET", "/v1/tokens".into(), Value::Null),
    ];
    let mut done = Vec::new();
    for (id, method, path, body) in steps {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = if body.is_empty() { "" } else { "application/json" };
        let answer = owner.send(method, &format!("/api{path}"), kind, &body).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text);
        assert_eq!(answer.header("cache-control"), "no-store");
        check_answer(id, &answer.json());
        done.push(id);
    }
    // By the socket: a token makes no tokens; and the last one is removed by itself.
    let made = server.json(&["user", "token", "create", "ada", "--label", "x", "--scope", "nodes:read"]);
    check_answer("createToken", &made);
    let gone = owner.delete(&format!("/api/v1/tokens/{}", made["id"].as_str().unwrap())).await;
    check_answer("removeToken", &gone.json());
    done.extend(["createToken", "removeToken"]);
    for operation in OPERATIONS {
        assert!(done.contains(&operation.id), "{} is not tried", operation.id);
    }
    let served = Browser::new(server.address).get("/api/v1/openapi.json").await.json();
    assert_eq!(served, openapi::build());
    assert_eq!(served["openapi"], "3.1.0");
}

/// Everybody may do everything, as before; but said.
const POLICY: &str = "[[rule]]\nfrom = [\"*\"]\nto = [\"*\"]\nallow = [\"any\"]\n";

#[tokio::test]
async fn of_two_who_change_a_policy_at_once_the_second_is_told_and_mistakes_have_lines() {
    let server = Server::start();
    let admin = program(&server, "adam", "admin");
    let text = json!({ "text": POLICY });
    let put = async |tag: &str, body: &Value| {
        admin
            .clone()
            .with("if-match", tag)
            .send("PUT", "/api/v1/policy", "application/json", &body.to_string())
            .await
    };
    assert_eq!(admin.get("/api/v1/policy").await.header("etag"), "\"0\"");
    assert_eq!(put("\"0\"", &text).await.status, 200);
    let late = put("\"0\"", &json!({ "text": "" })).await;
    assert!(late.status == 412 && late.json()["code"] == "changed", "{}", late.text);
    assert_eq!(put("seven", &text).await.status, 400);
    let shown = admin.get("/api/v1/policy").await;
    assert_eq!((shown.header("etag"), &shown.json()["text"]), ("\"1\"", &json!(POLICY)));
    let dry = put("\"1\"", &json!({ "text": "", "dry_run": true })).await;
    assert_eq!((dry.json()["dry_run"].clone(), dry.json()["version"].clone()), (json!(true), json!(1)));
    let bad = put("\"1\"", &json!({ "text": format!("{POLICY}[[rule]]\nfrom = [\"*\"]\nto = 7\n") })).await;
    assert!(bad.status == 400 && bad.text.contains("line 7"), "{}", bad.text);
    let viewer = program(&server, "vera", "viewer");
    assert_eq!(viewer.get("/api/v1/policy").await.status, 200);
    assert_eq!(viewer.send("PUT", "/api/v1/policy", "application/json", &text.to_string()).await.status, 403);
}

fn device_through(device: &Value, via: &str) -> Value {
    let mut device = device.clone();
    device["way"]["via"] = via.into();
    device
}

#[tokio::test]
async fn roles_and_scopes_bound_what_a_token_may_and_denials_are_in_the_audit_log() {
    let server = Server::start();
    server.text(&["network", "create", "field"]);
    let (viewer, admin) = (program(&server, "vera", "viewer"), program(&server, "adam", "admin"));
    let bob = server.command(&["user", "add", "bob", "--in", "field=operator"]);
    assert!(bob.status.success(), "{bob:?}");
    let bob = Browser::token(server.address, &token(&server, "bob", &["*:write"]));

    assert_eq!(viewer.get("/api/v1/networks").await.json().as_array().unwrap().len(), 2);
    let network = json!({ "name": "third" });
    let denied = viewer.post("/api/v1/networks", &network).await;
    assert_eq!((denied.status.as_u16(), denied.header("content-type")), (403, "application/problem+json"));
    let problem = denied.json();
    check(&problem, &openapi::schemas()["Problem"], "problem");
    assert!(problem["detail"].as_str().unwrap().contains("the role admin everywhere"), "{problem}");
    assert_eq!(admin.post("/api/v1/networks", &network).await.status, 200);
    assert_eq!(admin.get("/api/v1/users").await.status, 403);
    // Who has to do with one network does not learn of the others.
    let seen = bob.get("/api/v1/networks").await.json();
    assert_eq!(seen.as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(bob.get("/api/v1/networks/lab").await.status, 404);
    let key = |network: &str| json!({ "network": network, "reusable": true, "tags": [] });
    assert_eq!(bob.post("/api/v1/keys", &key("lab")).await.status, 404);
    assert_eq!(bob.post("/api/v1/keys", &key("field")).await.status, 200);
    let listed = bob.get("/api/v1/keys").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(bob.get("/api/v1/relays").await.status, 403);
    assert_eq!(bob.get("/metrics").await.status, 403);

    let narrow = Browser::token(server.address, &token(&server, "adam", &["nodes:read", "metrics:read"]));
    assert_eq!(narrow.get("/api/v1/nodes").await.status, 200);
    let denied = narrow.get("/api/v1/keys").await;
    assert!(denied.status == 403 && denied.text.contains("keys:read"), "{}", denied.text);
    assert_eq!(narrow.post("/api/v1/nodes/x/rename", &json!({ "name": "y" })).await.status, 403);
    let metrics = narrow.get("/metrics").await;
    assert!(metrics.text.contains("ria_nodes{network=\"lab\"} 0"), "{}", metrics.text);
    let makes = admin.post("/api/v1/tokens", &json!({ "label": "more", "scopes": ["*:write"] })).await;
    assert_eq!(makes.status, 403, "a token makes no tokens");

    let rows = server.json(&["audit", "list"])["rows"].clone();
    let denials: Vec<_> =
        rows.as_array().unwrap().iter().filter(|r| r["action"] == "access.denied").collect();
    assert!(denials.iter().any(|r| r["actor"] == "user:vera" && r["subject"] == "createNetwork"), "{rows:#}");
    let made = rows.as_array().unwrap().iter().find(|r| r["action"] == "key.created").unwrap();
    assert_eq!(made["actor"], "user:bob");
    assert!(made["detail"].as_str().unwrap().contains("\"token\":"), "{made}");
}

#[tokio::test]
async fn forged_removed_and_expired_tokens_get_nothing_and_guessing_gets_slow() {
    let server = Server::start();
    server.text(&["user", "add", "ada", "--role", "owner"]);
    let good = token(&server, "ada", &["*:read"]);
    let status = async |text: &str| Browser::token(server.address, text).get("/api/v1/networks").await;
    assert_eq!(status(&good).await.status, 200);
    let mut forged = good.clone();
    let last = if forged.pop() == Some('a') { 'b' } else { 'a' };
    forged.push(last);
    let answer = status(&forged).await;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer realm=\"ria\""));
    let id = server.json(&["user", "token", "list"])[0]["id"].as_str().unwrap().to_owned();
    server.text(&["user", "disable", "ada"]);
    assert_eq!(status(&good).await.status, 401, "a token acts for nobody who is disabled");
    server.text(&["user", "enable", "ada"]);
    assert_eq!(status(&good).await.status, 200);
    server.text(&["user", "token", "remove", &id]);
    assert_eq!(status(&good).await.status, 401);
    let anonymous = Browser::new(server.address);
    assert_eq!(anonymous.get("/api/v1/networks").await.status, 401);
    assert_eq!(anonymous.clone().with("authorization", "Basic YTpi").get("/api/v1/nodes").await.status, 401);
    for _ in 0..10 {
        assert_eq!(status("riat_aaaaaaaa_bbbb").await.status, 401);
    }
    assert!(status("riat_aaaaaaaa_bbbb").await.text.contains("wait a while"));
    let database = std::fs::read(server.data_dir().join("coordinator.db")).unwrap();
    let secret = good.rsplit('_').next().unwrap().as_bytes();
    assert!(
        !database.windows(secret.len()).any(|part| part == secret),
        "a token's secret is in the database"
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_by_a_problem_document() {
    let server = Server::start();
    let owner = program(&server, "ada", "owner");
    let cases = [
        ("GET", "/api/v1/nothing", "", "", 404),
        ("POST", "/api/v1/backup", "", "", 404),
        ("POST", "/api/v1/owner-link", "", "", 404),
        ("POST", "/api/v1/ca/roll", "", "", 404),
        ("PUT", "/api/v1/networks", "application/json", "{}", 405),
        ("POST", "/api/v1/networks", "application/json", "{", 400),
        ("POST", "/api/v1/networks", "application/json", "{\"name\":\"<script>\"}", 400),
        ("POST", "/api/v1/networks", "application/json", "{\"name\":\"a\",\"more\":1}", 400),
        ("POST", "/api/v1/networks", "text/plain", "{}", 400),
        ("GET", "/api/v1/nodes?limit=0", "", "", 400),
        ("GET", "/api/v1/nodes?network=%27%3B--", "", "", 404),
        ("GET", "/api/v1/nodes/%2e%2e%2f", "", "", 404),
        ("GET", "/api/v1/audit?limit=x", "", "", 400),
        ("POST", "/api/v1/users", "application/json", "{\"name\":\"ada\",\"everywhere\":\"viewer\"}", 409),
        ("POST", "/api/v1/users", "application/json", "{\"name\":\"A B\",\"everywhere\":\"viewer\"}", 400),
        (
            "POST",
            "/api/v1/users/ada/roles",
            "application/json",
            "{\"everywhere\":\"owner\",\"version\":99}",
            412,
        ),
        ("DELETE", "/api/v1/users/nobody", "", "", 404),
    ];
    for (method, path, kind, body, expected) in cases {
        let answer = owner.send(method, path, kind, body).await;
        assert_eq!(answer.status, expected, "{method} {path} {body}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {path}");
        check(&answer.json(), &openapi::schemas()["Problem"], path);
    }
    let long = "x".repeat(300 * 1024);
    let answer = owner.send("POST", "/api/v1/networks", "application/json", &long).await;
    assert!([400, 413].contains(&answer.status.as_u16()), "{}", answer.status);
}

#[tokio::test]
async fn lists_come_in_parts_and_changes_are_told_as_they_happen() {
    let server = Server::start();
    let owner = program(&server, "ada", "owner");
    for name in ["a", "b", "c"] {
        server.text(&["network", "create", name]);
    }
    let first = owner.get("/api/v1/networks?limit=3").await;
    assert_eq!((first.json().as_array().unwrap().len(), first.header("x-total-count")), (3, "4"));
    let next = first.header("link").strip_prefix('<').unwrap().split_once('>').unwrap().0.to_owned();
    let second = owner.get(&next).await;
    assert_eq!((second.json()[0]["name"].as_str(), second.header("link")), (Some("lab"), ""));

    let make = || drop(server.text(&["network", "create", "made-meanwhile"]));
    let heard = owner.listen("/api/v1/events", make, "event: audit").await;
    assert!(heard.contains("event: network") && heard.contains("made-meanwhile"), "{heard}");
    // Who may not any more hears no more, and who never might hears nothing.
    assert_eq!(Browser::new(server.address).get("/api/v1/events").await.status, 401);
}

#[tokio::test]
async fn health_and_figures_are_there_for_machines() {
    let server = Server::start_with("RIA_METRICS_LISTEN", "127.0.0.1:0");
    let anonymous = Browser::new(server.address);
    assert_eq!(anonymous.get("/healthz").await.json()["status"], "ok");
    assert_eq!(anonymous.get("/readyz").await.json()["status"], "ready");
    assert_eq!(anonymous.get("/metrics").await.status, 401);
}
