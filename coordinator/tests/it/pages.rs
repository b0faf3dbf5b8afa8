//! Pages, as people's browsers meet them: who gets in, what forms do, and what those do not who try otherwise.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::web::{Answer, Browser};
use crate::support::{Robot, Server};

pub const PASSWORD: &str = "correct horse battery";

/// The code that an authenticator shows, `later` steps from now.
pub fn code(secret: &str, later: u64) -> String {
    let key = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let step = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30 + later;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = ring::hmac::sign(&key, &step.to_be_bytes());
    let offset = usize::from(tag.as_ref()[19] & 0xf);
    let number = u32::from_be_bytes(tag.as_ref()[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let start = text.find(before).unwrap_or_else(|| panic!("no {before} in {text}")) + before.len();
    &text[start..start + text[start..].find(after).unwrap()]
}

pub fn csrf(page: &Answer) -> String {
    between(&page.text, "name=\"csrf\" value=\"", "\"").to_owned()
}

pub fn cookie(answer: &Answer, name: &str) -> String {
    let all = answer.headers.get_all("set-cookie");
    let own = all.iter().map(|value| value.to_str().unwrap()).find(|value| value.starts_with(name));
    let own = own.unwrap_or_else(|| panic!("no {name} in {}: {}", answer.status, answer.text));
    own.split(';').next().unwrap().to_owned()
}

/// Somebody who has taken an invitation, logged in.
pub struct Person {
    pub browser: Browser,
    pub secret: String,
    session: String,
    /// The code that the welcome took.
    used: String,
}

impl Person {
    pub async fn by_link(server: &Server, link: &str, name: Option<&str>) -> Self {
        Self::across([server, server], link, name).await
    }

    /// Who is shown the page by one coordinator, and sends it to another.
    pub async fn across([one, other]: [&Server; 2], link: &str, name: Option<&str>) -> Self {
        let path = format!("/welcome/{}", link.trim().rsplit('/').next().unwrap());
        let page = Browser::new(one.address).get(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let secret = between(&page.text, "<code class=\"secret\">", "<").to_owned();
        let browser = Browser::new(other.address).with("cookie", &cookie(&page, "__Host-ria-form"));
        let (csrf, code) = (csrf(&page), code(&secret, 0));
        let mut fields = vec![("csrf", csrf.as_str()), ("password", PASSWORD), ("code", code.as_str())];
        fields.extend(name.map(|name| ("name", name)));
        let done = browser.form(&path, &fields).await;
        assert_eq!((done.status.as_u16(), done.header("location")), (303, "/"), "{}", done.text);
        let session = cookie(&done, "__Host-ria-session");
        Self { browser: Browser::new(other.address).with("cookie", &session), secret, session, used: code }
    }

    pub async fn owner(server: &Server) -> Self {
        Self::by_link(server, &server.text(&["user", "owner-link"]), Some("ada")).await
    }

    /// Their browser at another coordinator that has the same people.
    pub fn at(&self, server: &Server) -> Browser {
        Browser::new(server.address).with("cookie", &self.session)
    }

    /// Sends a form as the page `from` would.
    pub async fn post(&self, from: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = csrf(&self.browser.get(from).await);
        let mut all = vec![("csrf", token.as_str())];
        all.extend(fields);
        self.browser.form(path, &all).await
    }
}

async fn login(server: &Server, name: &str, password: &str, code: &str) -> Answer {
    login_across([server, server], (name, password, code)).await
}

/// By the page of one coordinator, at another.
pub async fn login_across([one, other]: [&Server; 2], (name, password, code): (&str, &str, &str)) -> Answer {
    let page = Browser::new(one.address).get("/login").await;
    let browser = Browser::new(other.address).with("cookie", &cookie(&page, "__Host-ria-form"));
    let csrf = csrf(&page);
    browser.form("/login", &[("csrf", &csrf), ("name", name), ("password", password), ("code", code)]).await
}

fn actions(server: &Server) -> Vec<String> {
    let rows = server.json(&["audit", "list", "--limit", "1000"])["rows"].clone();
    rows.as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_first_hour_from_the_link_to_a_key_that_a_robot_joins_by() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    let overview = ada.browser.get("/").await;
    assert!(overview.text.contains("No robot has joined yet"), "{}", overview.text);
    assert!(overview.header("content-security-policy").contains("default-src 'none'"));
    assert_eq!(
        (overview.header("cache-control"), overview.header("referrer-policy")),
        ("no-store", "no-referrer")
    );
    assert!(!overview.text.contains(" style=") && !overview.text.contains("<script>"), "something is inline");
    let chosen = ada.post("/start", "/start/network", &[("network", ""), ("name", "field")]).await;
    assert_eq!(chosen.header("location"), "/start?network=field");
    let made = ada.post("/start?network=field", "/start/key", &[("network", "field")]).await;
    assert!(made.text.contains("<svg") && made.text.contains("sudo ria join -"), "{}", made.text);
    let key = between(&made.text, "value=\"echo ", " |").parse_key();
    Robot::new("robot", &key).join(server.address, &key).await;
    let nodes = ada.browser.get("/nodes?network=field").await;
    assert!(nodes.text.contains(">robot</a>"), "{}", nodes.text);
    let made = actions(&server);
    for action in
        ["user.owner-link-made", "user.owner-added", "network.created", "key.created", "node.joined"]
    {
        assert!(made.iter().any(|a| a == action), "{action} is not in the audit log: {made:?}");
    }
}

trait ParseKey {
    fn parse_key(&self) -> ria_protocol::join_key::JoinKey;
}

impl ParseKey for &str {
    fn parse_key(&self) -> ria_protocol::join_key::JoinKey {
        ria_protocol::join_key::JoinKey::parse(self).unwrap()
    }
}

#[tokio::test]
async fn links_are_good_once_and_weak_passwords_and_wrong_codes_are_not_taken() {
    let server = Server::start();
    let link = server.text(&["user", "owner-link"]);
    let path = format!("/welcome/{}", link.trim().rsplit('/').next().unwrap());
    let page = Browser::new(server.address).get(&path).await;
    let secret = between(&page.text, "<code class=\"secret\">", "<").to_owned();
    let browser = Browser::new(server.address).with("cookie", &cookie(&page, "__Host-ria-form"));
    let token = csrf(&page);
    let attempt = async |name: &str, password: &str, code: &str| {
        let fields = [("csrf", token.as_str()), ("name", name), ("password", password), ("code", code)];
        browser.form(&path, &fields).await
    };
    let good = code(&secret, 0);
    for (name, password, code, says) in [
        ("ada", "short", good.as_str(), "too short"),
        ("Ada!", PASSWORD, good.as_str(), "lower-case"),
        ("<script>", PASSWORD, good.as_str(), "lower-case"),
        ("ada", PASSWORD, "000000x", "not the code"),
    ] {
        let answer = attempt(name, password, code).await;
        assert!(answer.status == 422 && answer.text.contains(says), "{} {}", answer.status, answer.text);
        assert!(!answer.text.contains("<script>\""), "what was typed is text");
    }
    assert_eq!(attempt("ada", PASSWORD, &good).await.status, 303);
    let again = Browser::new(server.address).get(&path).await;
    assert!(again.status == 404 && again.text.contains("used already"), "{}", again.text);
    let database = std::fs::read(server.data_dir().join("coordinator.db")).unwrap();
    assert!(!database.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()));
}

#[tokio::test]
async fn logins_are_noted_codes_are_good_once_and_guessing_gets_slow() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    // The code of the welcome is used up; the next one is good, once.
    assert_eq!(login(&server, "ada", PASSWORD, &ada.used).await.status, 401);
    let next = code(&ada.secret, 1);
    assert_eq!(login(&server, "ada", PASSWORD, &next).await.status, 303);
    let replayed = login(&server, "ada", PASSWORD, &next).await;
    assert!(
        replayed.status == 401 && replayed.text.contains("does not belong together"),
        "{}",
        replayed.text
    );
    let texts = [
        login(&server, "ada", "wrong password wrong", &next).await.text,
        login(&server, "nobody", PASSWORD, &next).await.text,
    ];
    assert!(texts.iter().all(|text| text.contains("does not belong together")), "what was wrong is told");
    let mut slow = false;
    for _ in 0..12 {
        let answer = login(&server, "ada", "wrong password wrong", "123456").await;
        slow = slow || (answer.status == 429 && answer.text.contains("wait"));
    }
    assert!(slow, "guessing goes on and on");
    let rows = server.json(&["audit", "list", "--limit", "1000"])["rows"].to_string();
    assert!(
        rows.contains("login.succeeded")
            && rows.contains("login.failed")
            && rows.contains("address:127.0.0.1")
    );
    assert!(!rows.contains("wrong password wrong"), "a password is in the log");
}

#[tokio::test]
async fn forms_from_elsewhere_and_sessions_that_were_planted_do_nothing() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    let form = [("csrf", "guessed"), ("name", "evil")];
    assert_eq!(ada.browser.form("/networks", &form).await.status, 403);
    assert_eq!(ada.browser.form("/networks", &form[1..]).await.status, 403);
    let token = csrf(&ada.browser.get("/networks").await);
    let good = [("csrf", token.as_str()), ("name", "evil")];
    for (name, value) in
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        assert_eq!(
            ada.browser.clone().with(name, value).form("/networks", &good).await.status,
            403,
            "{name}: {value}"
        );
    }
    assert_eq!(server.json(&["network", "list"]).as_array().unwrap().len(), 1);
    // By cookie the API only reads.
    assert_eq!(ada.browser.get("/api/v1/networks").await.status, 200);
    let body = serde_json::json!({ "name": "evil" });
    assert_eq!(ada.browser.post("/api/v1/networks", &body).await.status, 401);
    // A session that somebody else has chosen is not the one that begins.
    let page = Browser::new(server.address).get("/login").await;
    let planted = format!("{}; __Host-ria-session=planted", cookie(&page, "__Host-ria-form"));
    let browser = Browser::new(server.address).with("cookie", &planted);
    let (csrf, code) = (csrf(&page), code(&ada.secret, 1));
    let fields = [("csrf", csrf.as_str()), ("name", "ada"), ("password", PASSWORD), ("code", code.as_str())];
    let done = browser.form("/login", &fields).await;
    assert_eq!(done.status, 303, "{}", done.text);
    assert!(!cookie(&done, "__Host-ria-session").contains("planted"));
    let all: Vec<_> = done.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
    let own = all.iter().find(|value| value.starts_with("__Host-ria-session=")).unwrap();
    for word in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(own.contains(word), "{own}");
    }
    let planted = Browser::new(server.address).with("cookie", "__Host-ria-session=planted");
    assert_eq!(planted.get("/").await.header("location"), "/login");
    // After a login nobody is sent elsewhere.
    let page = Browser::new(server.address).get("/login?next=https%3A%2F%2Fevil.example").await;
    assert!(!page.text.contains("evil.example"), "{}", page.text);
}

#[tokio::test]
async fn every_page_shows_what_was_typed_as_text() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    const EVIL: &str = "\"><script>alert(1)</script>";
    type Post = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
    let posts: [Post; 8] = [
        ("/networks", "/networks", &[("name", EVIL)]),
        ("/networks", "/networks", &[("name", "ok"), ("prefix", EVIL)]),
        ("/keys", "/keys", &[("network", EVIL)]),
        ("/keys", "/keys", &[("network", "lab"), ("tags", EVIL), ("expires", "60")]),
        ("/people", "/people", &[("name", EVIL), ("role", "viewer")]),
        ("/people", "/people", &[("name", "bob"), ("role", EVIL)]),
        ("/account", "/account/tokens", &[("label", EVIL), ("scopes", "nodes:read")]),
        ("/settings", "/settings/urls", &[("url", EVIL)]),
    ];
    for (from, path, fields) in posts {
        let answer = ada.post(from, path, fields).await;
        assert!(!answer.text.contains("<script>alert"), "{path}: {}", answer.text);
        assert!(answer.status.is_client_error() || path == "/account/tokens", "{path}: {}", answer.status);
    }
    for page in [
        "/account",
        "/audit?text=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "/nodes?network=%3Cscript%3Ealert",
        "/nope/%3Cscript%3Ealert",
    ] {
        let answer = ada.browser.get(page).await;
        assert!(!answer.text.contains("<script>alert"), "{page}: {}", answer.text);
    }
}

#[tokio::test]
async fn nodes_keys_and_people_are_changed_by_forms() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    let key = server.key(&["--reusable"]);
    Robot::new("robot", &key).enrol(server.address, &key).await;
    let id = server.json(&["node", "show", "robot"])["id"].as_str().unwrap().to_owned();
    let here = format!("/nodes/lab/{id}");
    assert_eq!(ada.post(&here, &format!("{here}/rename"), &[("name", "robot-7")]).await.status, 303);
    // Somebody else adds a tag meanwhile: what was not on the page stays.
    server.text(&["node", "tag", "robot-7", "--add", "theirs"]);
    let tags = [("before", ""), ("tags", "arm mobile")];
    assert_eq!(ada.post(&here, &format!("{here}/tag"), &tags).await.status, 303);
    let node = server.json(&["node", "show", "robot-7"]);
    assert_eq!(node["tags"], serde_json::json!(["arm", "mobile", "theirs"]));
    assert_eq!(ada.post(&here, &format!("{here}/disable"), &[]).await.status, 303);
    assert!(ada.browser.get(&here).await.text.contains("kept out"));
    assert_eq!(ada.post(&here, &format!("{here}/remove"), &[]).await.status, 400, "it was not ticked");
    assert_eq!(ada.post(&here, &format!("{here}/remove"), &[("sure", "yes")]).await.status, 303);
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 0);

    let invited =
        ada.post("/people", "/people", &[("name", "bob"), ("role", "operator"), ("where", "lab")]).await;
    let link = between(&invited.text, "readonly value=\"", "\"").to_owned();
    let bob = Person::by_link(&server, &link, None).await;
    assert!(!bob.browser.get("/").await.text.contains(">People<"));
    assert_eq!(bob.browser.get("/people").await.status, 403);
    let made =
        bob.post("/keys", "/keys", &[("network", "lab"), ("expires", "3600"), ("reusable", "yes")]).await;
    let bobs = between(&made.text, "value=\"echo ", " |").parse_key();
    Robot::new("bobs-robot", &bobs).enrol(server.address, &bobs).await;
    let token = bob
        .post("/account", "/account/tokens", &[("label", "x"), ("scopes", "nodes:read"), ("expires", "")])
        .await;
    let token = between(&token.text, "readonly value=\"", "\"").to_owned();
    assert_eq!(Browser::token(server.address, &token).get("/api/v1/nodes").await.status, 200);

    // Two owners at once: the second one has not seen what the first did.
    let page = ada.browser.get("/people").await;
    let theirs = page.text.split("id=\"p-bob\"").nth(1).unwrap();
    let version = between(theirs, "name=\"version\" value=\"", "\"").to_owned();
    server.text(&["user", "roles", "bob", "--role", "viewer"]);
    let late = ada
        .post("/people", "/people/bob/roles", &[("version", &version), ("role", "admin"), ("where", "")])
        .await;
    assert!(late.status == 412 && late.text.contains("somebody else has changed bob"), "{}", late.text);

    let left = ada.post("/people", "/people/bob/leave", &[("sure", "yes")]).await;
    assert!(left.text.contains("bob has left") && left.text.contains("lab/bobs-robot"), "{}", left.text);
    assert_eq!(bob.browser.get("/").await.header("location"), "/login", "{}", bob.session);
    assert_eq!(Browser::token(server.address, &token).get("/api/v1/nodes").await.status, 401);
    assert_eq!(server.json(&["key", "show", &bobs.key_id.to_string()])["status"], "revoked");
    // The last owner stays.
    let last = ada.post("/people", "/people/ada/leave", &[("sure", "yes")]).await;
    assert!(last.status == 409 && last.text.contains("last owner"), "{}", last.text);
    let out = ada.post("/", "/logout", &[]).await;
    assert_eq!((out.status.as_u16(), out.header("location")), (303, "/login"));
    assert_eq!(ada.browser.get("/").await.header("location"), "/login");
}

#[test]
fn the_link_for_the_first_owner_is_printed_while_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("coordinator.toml"), "").unwrap();
    let mut child = crate::support::server::program(directory.path())
        .arg("serve")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let first = lines.next().unwrap().unwrap();
    let link = lines.next().unwrap().unwrap();
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    child.wait().unwrap();
    assert!(first.contains("Nobody can log in yet"), "{first}");
    assert!(link.trim().starts_with("https://coordinator.lab.example/welcome/"), "{link}");
}

#[tokio::test]
async fn people_change_their_own_login_by_the_old_one_and_all_other_sessions_end() {
    const NEW: &str = "another horse entirely";
    let mut server = Server::start();
    let ada = Person::owner(&server).await;
    let page = ada.browser.get("/account").await;
    let other = between(&page.text, "<code class=\"secret\">", "<").to_owned();
    assert_ne!(other, ada.secret);
    let change = async |password: &str, code: &str, new: &str, new_code: &str| {
        let fields = [("password", password), ("code", code), ("new-password", new), ("new-code", new_code)];
        ada.post("/account", "/account/login", &fields).await
    };
    let (next, shows) = (code(&ada.secret, 1), code(&other, 0));
    for (password, present, new, new_code, status) in [
        ("wrong password wrong", next.as_str(), NEW, "", 401),
        (PASSWORD, ada.used.as_str(), NEW, "", 401),
        (PASSWORD, next.as_str(), "short", "", 422),
        (PASSWORD, next.as_str(), NEW, "000000x", 422),
        (PASSWORD, next.as_str(), "", "", 422),
    ] {
        let answer = change(password, present, new, new_code).await;
        assert!(
            answer.status == status && answer.text.contains("role=\"alert\""),
            "{status}: {}",
            answer.text
        );
    }
    let done = change(PASSWORD, &next, NEW, &shows).await;
    assert_eq!(
        (done.status.as_u16(), done.header("location")),
        (303, "/account?done=login"),
        "{}",
        done.text
    );
    assert_eq!(ada.browser.get("/").await.header("location"), "/login", "the session from before goes on");
    let fresh = Browser::new(server.address).with("cookie", &cookie(&done, "__Host-ria-session"));
    assert!(fresh.get("/account?done=login").await.text.contains("Your login is changed"));
    let rows = server.json(&["audit", "list", "--action", "user.login-changed"])["rows"].clone();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["actor"]), (1, &"user:ada".into()));
    // Codes that were used are forgotten with the process, so that none has to be waited for.
    server.kill();
    server.start_again();
    assert_eq!(login(&server, "ada", PASSWORD, &code(&other, 0)).await.status, 401);
    assert_eq!(login(&server, "ada", NEW, &code(&ada.secret, 0)).await.status, 401);
    assert_eq!(login(&server, "ada", NEW, &code(&other, 0)).await.status, 303);
}

#[tokio::test]
async fn a_role_is_taken_away_on_the_page_of_people() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    ada.post("/people", "/people", &[("name", "bob"), ("role", "operator"), ("where", "lab")]).await;
    let set = async |role: &str, place: &str| {
        let version = server.json(&["user", "list"])[1]["version"].to_string();
        let fields = [("version", version.as_str()), ("role", role), ("where", place)];
        ada.post("/people", "/people/bob/roles", &fields).await
    };
    assert_eq!(set("viewer", "").await.status, 303);
    assert_eq!(set("none", "lab").await.status, 303);
    let bob = server.json(&["user", "list"])[1].clone();
    assert_eq!((&bob["everywhere"], &bob["networks"]), (&"viewer".into(), &serde_json::json!({})));
    let last = set("none", "").await;
    assert!(last.status == 400 && last.text.contains("give a role"), "{}", last.text);
    assert_eq!(set("operator", "lab").await.status, 303);
    assert_eq!(set("none", "").await.status, 303);
    assert_eq!(server.json(&["user", "list"])[1]["everywhere"], serde_json::Value::Null);
}
