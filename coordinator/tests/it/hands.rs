//! Administrators who get in each other's way, or in their own: two who change a node at once, a policy that locks its author
//! out, and somebody who leaves.

use serde_json::{Value, json};

use crate::api::{check_answer, program};
use crate::laptops::laptop_key;
use crate::pages::Person;
use crate::support::{Robot, Server};

#[tokio::test]
async fn of_two_who_change_a_node_at_once_the_second_is_told() {
    let server = Server::start();
    let admin = program(&server, "adam", "admin");
    let key = server.key(&["--reusable"]);
    Robot::new("robot", &key).join(server.address, &key).await;
    let shown = admin.get("/api/v1/nodes/robot").await;
    let seen = shown.header("etag").to_owned();
    assert_eq!(seen, format!("\"{}\"", shown.json()["etag"].as_str().unwrap()));
    let send = async |seen: &str, method: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = if body.is_empty() { "" } else { "application/json" };
        admin.clone().with("if-match", seen).send(method, &format!("/api/v1/nodes/{path}"), kind, &body).await
    };
    let tagged = send(&seen, "POST", "robot/tag", json!({ "add": ["arm"], "remove": [] })).await;
    let now = tagged.header("etag").to_owned();
    assert!(tagged.status == 200 && now != seen, "{} {now}", tagged.text);
    // All that can be done about it, by somebody who has not seen that.
    let late = [
        ("POST", "robot/rename", json!({ "name": "other" })),
        ("POST", "robot/tag", json!({ "add": [], "remove": ["arm"] })),
        ("POST", "robot/disable", Value::Null),
        ("POST", "robot/enable", Value::Null),
        ("DELETE", "robot", Value::Null),
    ];
    for (method, path, body) in late.clone() {
        for wrong in [seen.as_str(), "arm", "\"\"", "W/\"x\""] {
            let refused = send(wrong, method, path, body.clone()).await;
            assert!(refused.status == 412 && refused.json()["code"] == "changed", "{path}: {}", refused.text);
            assert!(refused.text.contains("robot now, taking part, with tags arm"), "{}", refused.text);
        }
    }
    let node = server.json(&["node", "show", "robot"]);
    assert_eq!(
        (&node["tags"], &node["disabled"]),
        (&json!(["arm"]), &Value::Null),
        "nothing of that was done"
    );
    assert_eq!(send("*", "POST", "robot/disable", Value::Null).await.status, 200);
    assert_eq!(send(&now, "POST", "robot/enable", Value::Null).await.status, 412, "it is kept out by now");
    assert_eq!(
        admin.delete("/api/v1/nodes/robot").await.status,
        200,
        "who has seen nothing may all the same"
    );

    // The same on the page.
    Robot::new("base", &key).join(server.address, &key).await;
    let ada = Person::owner(&server).await;
    let page = ada.browser.get("/nodes/lab/base").await;
    let word =
        page.text.split("name=\"seen\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    server.text(&["node", "rename", "base", "arm-7"]);
    let id = server.json(&["node", "show", "arm-7"])["id"].as_str().unwrap().to_owned();
    let here = format!("/nodes/lab/{id}");
    let fields = [("seen", word.as_str()), ("name", "other")];
    let late = ada.post(&here, &format!("{here}/rename"), &fields).await;
    assert_eq!(late.status, 412, "{}", late.text);
    assert!(
        late.text.contains("Somebody else was quicker") && late.text.contains("it is arm-7 now"),
        "{}",
        late.text
    );
}

#[tokio::test]
async fn of_two_who_give_a_device_another_gateway_at_once_one_is_told() {
    let server = Server::start();
    let admin = program(&server, "adam", "admin");
    let key = server.key(&["--reusable"]);
    for name in ["one", "two", "three"] {
        Robot::new(name, &key).join(server.address, &key).await;
    }
    let endpoint = ["--endpoint", "gate.example:41820"];
    server.text(&[&["node", "add-static", "phone", "--via", "one"][..], &endpoint].concat());
    let seen = admin.get("/api/v1/nodes/phone").await.header("etag").to_owned();
    let give = async |via: &str, seen: &str| {
        let way = json!({ "via": via, "endpoints": ["gate.example:41820"], "psk": null }).to_string();
        let path = "/api/v1/static-peers/phone/gateway";
        admin.clone().with("if-match", seen).send("POST", path, "application/json", &way).await
    };
    let (a, b) = tokio::join!(give("two", &seen), give("three", &seen));
    let (done, late) = if a.status == 200 { (a, b) } else { (b, a) };
    assert_eq!((done.status.as_u16(), late.status.as_u16()), (200, 412), "{} {}", done.text, late.text);
    let now = server.json(&["node", "show", "phone"])["gateway"].as_str().unwrap().to_owned();
    assert_eq!(done.json()["node"]["gateway"], json!(now));
    let told = format!("it is phone now, reached through {now}");
    assert!(late.json()["code"] == "changed" && late.text.contains(&told), "{}", late.text);
    let gone = admin.clone().with("if-match", &seen).send("DELETE", "/api/v1/nodes/phone", "", "").await;
    assert_eq!(gone.status, 412, "{}", gone.text);
    // Who has seen what it is may; and of two who do so at once, one does.
    let seen = format!("\"{}\"", done.json()["node"]["etag"].as_str().unwrap());
    let delete =
        async || admin.clone().with("if-match", &seen).send("DELETE", "/api/v1/nodes/phone", "", "").await;
    let (a, b) = tokio::join!(delete(), delete());
    assert_eq!(std::cmp::min(a.status, b.status).as_u16(), 200);
    assert_eq!(std::cmp::max(a.status, b.status).as_u16(), 404);
}

#[tokio::test]
async fn a_policy_that_locks_its_author_out_takes_a_confirmation() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    let key = laptop_key(&server, &ada, "ada-1").await;
    Robot::new("ada-1", &key).join(server.address, &key).await;
    let robots = server.key(&["--reusable", "--tag", "robot"]);
    for name in ["robot-1", "robot-2"] {
        Robot::new(name, &robots).join(server.address, &robots).await;
    }
    let rule = |from: &str, to: &str| {
        format!("[[rule]]\nfrom = [\"{from}\"]\nto = [\"{to}\"]\nallow = [\"tcp/22\"]\n")
    };
    let set = async |text: &str, more: &[(&str, &str)]| {
        let fields = [&[("network", "lab"), ("deed", "set"), ("text", text)], more].concat();
        ada.post("/policy", "/policy", &fields).await
    };
    let one = rule("person:ada", "robot-1");
    let refused = set(&one, &[]).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    for wanted in
        ["your own laptop could open no connection any more to robot-2", "name=\"force\"", "robot-1"]
    {
        assert!(refused.text.contains(wanted), "{wanted} is missing in {}", refused.text);
    }
    assert_eq!(server.json(&["policy", "show"])["version"], 0, "nothing was changed");
    assert_eq!(set(&rule("person:ada", "tag:robot"), &[]).await.status, 303, "what keeps a hold is fine");
    assert_eq!(set(&one, &[]).await.status, 409);
    assert_eq!(set(&one, &[("force", "yes")]).await.status, 303, "it is meant");
    let rows = server.json(&["audit", "list"])["rows"].clone();
    let told = |row: &Value| row["detail"].as_str().unwrap().contains("locks_out");
    assert_eq!(rows.as_array().unwrap().iter().filter(|row| told(row)).count(), 1, "{rows:#}");

    // Who sits at the coordinator has no laptop to lose, but does not leave all administrators without.
    let file = server.data_dir().join("other.policy");
    std::fs::write(&file, rule("robot-1", "robot-2")).unwrap();
    let path = file.to_str().unwrap();
    let refused = server.command(&["policy", "set", "--file", path]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("no administrator's laptop"), "{said}");
    let tried = server.json(&["policy", "set", "--file", path, "--dry-run"]);
    assert!(tried["warnings"][0].as_str().unwrap().contains("--force"), "{tried}");
    server.text(&["policy", "set", "--file", path, "--force"]);
}

#[tokio::test]
async fn bookings_and_static_peers_go_with_whom_they_belong_to() {
    let server = Server::start();
    let grace = Person::owner(&server).await;
    let key = laptop_key(&server, &grace, "grace-1").await;
    Robot::new("grace-1", &key).join(server.address, &key).await;
    let bob = program(&server, "bob", "admin");
    let robots = server.key(&["--reusable"]);
    Robot::new("robot-1", &robots).join(server.address, &robots).await;
    let device = |name: &str, byte: u8| {
        json!({
            "network": "lab", "name": name, "public_key": data_encoding::BASE64.encode(&[byte; 32]), "tags": [],
            "listens_at": null, "keepalive": 25,
            "way": { "via": "robot-1", "endpoints": ["ria.lab.example:41820"], "psk": null },
        })
    };
    assert_eq!(bob.post("/api/v1/static-peers", &device("phone", 9)).await.status, 200);
    let owner = program(&server, "olga", "owner");
    assert_eq!(owner.post("/api/v1/static-peers", &device("scanner", 8)).await.status, 200);
    let text = "# The lab's.\n[[rule]]\nfrom = [\"*\"]\nto = [\"*\"]\nallow = [\"tcp/22\"]\n\n# Bob, too.\n[[rule]]\n\
                from = [\"person:bob\"]\nto = [\"robot-1\"]\nallow = [\"icmp\"]\n";
    assert_eq!(
        owner
            .send("PUT", "/api/v1/policy", "application/json", &json!({ "text": text }).to_string())
            .await
            .status,
        200
    );
    for who in ["person:bob", "person:olga"] {
        server.text(&["policy", "grant", who, "robot-1", "--for", "2h", "--reason", "a demo"]);
    }
    let left = owner.post("/api/v1/users/bob/leave", &Value::Null).await.json();
    check_answer("userLeaves", &left);
    assert_eq!(left["static_peers_removed"], json!(["lab/phone"]));
    let booked = left["bookings_removed"][0].as_str().unwrap();
    assert!(booked.contains("person:bob to robot-1") && booked.contains("a demo"), "{left:#}");
    let stays = left["rules_left"].as_array().unwrap();
    assert!(stays.len() == 1 && stays[0].as_str().unwrap().contains("rule 2"), "{left:#}");
    let policy = server.json(&["policy", "show"])["text"].as_str().unwrap().to_owned();
    assert!(policy.starts_with(text), "what is not theirs alone stays as it was: {policy}");
    assert!(!policy[text.len()..].contains("bob") && policy.contains("person:olga"), "{policy}");
    assert_eq!(server.command(&["node", "show", "phone"]).status.code(), Some(1));
    assert_eq!(server.json(&["node", "show", "scanner"])["kind"], "static");
    let versions = server.json(&["policy", "history"]);
    assert_eq!(versions.as_array().unwrap().last().unwrap()["note"], "bob has left");

    // In words, on the page and in the shell.
    assert_eq!(grace.post("/people", "/people/olga/leave", &[("sure", "yes")]).await.status, 200);
    assert_eq!(server.command(&["node", "show", "scanner"]).status.code(), Some(1));
    let said = server.text(&["user", "leave", "bob"]);
    assert!(said.contains("These parts of policies name this person still"), "{said}");
}
