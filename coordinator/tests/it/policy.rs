//! Policies: what administrators set, and what each node is told of it.

use ria_protocol::id::NodeId;
use ria_protocol::map::Patch;
use ria_protocol::policy::NodePolicy;

use serde_json::{Value, json};

use crate::api::program;
use crate::laptops::laptop_key;
use crate::pages::Person;
use crate::support::web::{Answer, Browser};
use crate::support::{Robot, Server};

const ONE_WAY: &str = "[[rule]]\nfrom = [\"one\"]\nto = [\"two\", \"tag:arm\"]\nallow = [\"tcp/22\"]\n";

fn policy_of(patches: &[Patch]) -> Option<&NodePolicy> {
    patches.iter().find_map(|patch| if let Patch::PolicySet(policy) = patch { Some(policy) } else { None })
}

fn nodes_of(policy: &NodePolicy) -> Vec<(Vec<NodeId>, Vec<NodeId>)> {
    let rules = policy.rules.iter().flatten();
    rules.map(|rule| (rule.from.nodes.clone(), rule.to.nodes.clone())).collect()
}

#[tokio::test]
async fn each_node_is_told_its_own_part_and_only_news() {
    let mut server = Server::start();
    let key = server.key(&["--reusable"]);
    let (mut one, mut two) = (Robot::new("one", &key), Robot::new("two", &key));
    let (mut to_one, start) = one.join(server.address, &key).await;
    assert_eq!(start.map.snapshot().policy, None, "there is none yet");
    let (mut to_two, _) = two.join(server.address, &key).await;
    to_one.patches().await;

    let file = server.path().join("policy");
    std::fs::write(&file, ONE_WAY).unwrap();
    let path = file.to_str().unwrap();
    let dry = server.command(&["policy", "set", "--file", path, "--dry-run"]);
    assert!(dry.status.success(), "{dry:?}");
    assert!(server.command(&["policy", "set", "--file", path, "--base", "4"]).status.code() == Some(1));
    let set = server.command(&["policy", "set", "--file", path]);
    assert!(set.status.success(), "{set:?}");
    let (at_one, at_two) = (to_one.patches().await.patches, to_two.patches().await.patches);
    let (of_one, of_two) = (policy_of(&at_one).unwrap(), policy_of(&at_two).unwrap());
    assert_eq!((of_one.version, of_two.version), (1, 1), "the dry run made no version");
    assert_eq!(nodes_of(of_one), [(vec![one.node], vec![two.node])]);
    assert_eq!(nodes_of(of_two), [(vec![one.node], vec![two.node])]);

    // A third one comes, about whom the policy says nothing: nobody needs to hear of it again.
    let mut three = Robot::new("three", &key);
    let (to_three, start) = three.join(server.address, &key).await;
    assert_eq!(start.map.snapshot().policy.unwrap().rules, Some(vec![]), "nothing is allowed");
    let news = to_one.patches().await.patches;
    assert!(policy_of(&news).is_none() && news.len() == 1, "{news:?}");
    to_two.patches().await;
    // It gets the tag that is named: it alone has something to learn.
    assert!(server.command(&["node", "tag", "three", "--add", "arm"]).status.success());
    let last = to_one.patches().await;
    assert!(policy_of(&last.patches).is_none());
    drop(to_three);

    // Over a restart each has what it had, and who was away hears what is new.
    drop((to_one, to_two));
    server.kill();
    server.start_again();
    let (_, start) = one.come_back(server.address, Some(last.to.0)).await;
    assert!(start.map.patches().patches.is_empty(), "it has all that there is");
    let shown = server.json(&["policy", "show"]);
    assert_eq!((&shown["version"], &shown["text"]), (&1.into(), &ONE_WAY.into()));
    assert!(server.command(&["policy", "clear", "--note", "all may talk"]).status.success());
    assert_eq!(server.command(&["policy", "clear"]).status.code(), Some(1), "there is none any more");
    let (_, start) = one.come_back(server.address, Some(last.to.0)).await;
    let cleared = start.map.patches().patches;
    assert_eq!(policy_of(&cleared), Some(&NodePolicy { version: 2, rules: None }));
    let history = server.json(&["policy", "history"]);
    assert_eq!((history.as_array().unwrap().len(), &history[1]["note"]), (2, &"all may talk".into()));
    let rows = server.json(&["audit", "list"])["rows"].clone();
    let actions: Vec<_> = rows.as_array().unwrap().iter().filter_map(|row| row["action"].as_str()).collect();
    assert!(actions.contains(&"policy.set") && actions.contains(&"policy.cleared"), "{actions:?}");
}

const MENTIONS: &str = "[groups]\ncrew = [\"tag:crew\"]\n\
    [[rule]]\nfrom = [\"tag:operators\", \"console\", \"group:crew\"]\nto = [\"*\"]\nallow = [\"any\"]\n\
    [[test]]\nfrom = \"tag:guest\"\nto = \"tag:robot\"\nport = \"22\"\nexpect = \"deny\"\n";

/// Refused for what the policy mentions, and told whom to ask.
fn is_refused(answer: &Answer, what: &str) {
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(answer.status == 403 && detail.contains(what), "{what}: {} {}", answer.status, answer.text);
    assert!(detail.contains("the role admin in lab") && detail.ends_with("ask adam"), "{detail}");
}

async fn tag(who: &Browser, node: &str, add: &[&str], remove: &[&str]) -> Answer {
    let body = json!({ "add": add, "remove": remove });
    who.post(&format!("/api/v1/nodes/{node}/tag"), &body).await
}

#[tokio::test]
async fn tags_and_names_that_the_policy_mentions_take_who_may_change_the_policy() {
    let server = Server::start();
    let (operator, admin) = (program(&server, "oskar", "operator"), program(&server, "adam", "admin"));
    // Nobody can ask who can't log in.
    let link = server.json(&["user", "reset", "adam"])["link"].as_str().unwrap().to_owned();
    Person::by_link(&server, &link, None).await;
    let key = server.key(&["--reusable"]);
    for name in ["my-laptop", "console"] {
        Robot::new(name, &key).enrol(server.address, &key).await;
    }
    assert_eq!(
        tag(&operator, "my-laptop", &["operators"], &["operators"]).await.status,
        200,
        "no policy yet"
    );
    let text = json!({ "text": MENTIONS }).to_string();
    assert_eq!(admin.send("PUT", "/api/v1/policy", "application/json", &text).await.status, 200);

    for word in ["operators", "crew", "guest", "robot"] {
        is_refused(&tag(&operator, "my-laptop", &[word], &[]).await, &format!("the tag {word}"));
    }
    assert_eq!(
        tag(&operator, "my-laptop", &["mine"], &["operators"]).await.status,
        200,
        "it has none to take"
    );
    let rename = async |who: &Browser, node: &str, name: &str| {
        who.post(&format!("/api/v1/nodes/{node}/rename"), &json!({ "name": name })).await
    };
    is_refused(&rename(&operator, "console", "desk").await, "the name console");
    assert_eq!(rename(&admin, "console", "desk").await.status, 200);
    is_refused(&rename(&operator, "my-laptop", "console").await, "the name console");
    assert_eq!(rename(&operator, "my-laptop", "laptop").await.status, 200);
    let new_key = |tags: &[&str]| json!({ "network": "lab", "reusable": true, "tags": tags });
    is_refused(&operator.post("/api/v1/keys", &new_key(&["operators"])).await, "the tag operators");
    assert_eq!(operator.post("/api/v1/keys", &new_key(&["mine"])).await.status, 200);
    assert_eq!(admin.post("/api/v1/keys", &new_key(&["operators"])).await.status, 200);

    assert_eq!(tag(&admin, "laptop", &["operators"], &[]).await.status, 200);
    is_refused(&tag(&operator, "laptop", &[], &["operators"]).await, "the tag operators");
    // Who sits at the coordinator itself may do everything.
    assert!(server.command(&["node", "tag", "laptop", "--remove", "operators"]).status.success());

    let denials = admin.get("/api/v1/audit?action=access.denied&actor=user:oskar").await;
    assert!(denials.text.contains("tagNode") && denials.text.contains("createKey"), "{}", denials.text);
    assert_eq!(admin.post("/api/v1/policy", &json!({ "what": { "clear": {} } })).await.status, 200);
    assert_eq!(
        tag(&operator, "laptop", &["operators"], &[]).await.status,
        200,
        "nothing mentions it any more"
    );
}

#[tokio::test]
async fn pages_laptops_and_approvals_keep_to_what_the_policy_mentions() {
    let server = Server::start();
    let (operator, admin) = (program(&server, "oskar", "operator"), program(&server, "adam", "admin"));
    let text = json!({ "text": MENTIONS }).to_string();
    assert_eq!(admin.send("PUT", "/api/v1/policy", "application/json", &text).await.status, 200);
    let key = server.key(&[]);
    Robot::new("laptop", &key).enrol(server.address, &key).await;
    let link = server.json(&["user", "reset", "oskar"])["link"].as_str().unwrap().to_owned();
    let oskar = Person::by_link(&server, &link, None).await;
    let id = server.json(&["node", "show", "laptop"])["id"].as_str().unwrap().to_owned();
    let here = format!("/nodes/lab/{id}");
    let fields = [("before", ""), ("tags", "mine operators")];
    let page = oskar.post(&here, &format!("{here}/tag"), &fields).await;
    assert!(page.status == 403 && page.text.contains("mentions the tag operators"), "{}", page.text);
    // A laptop does not choose such a name for itself either, and one that waits is not approved under it.
    let own = laptop_key(&server, &oskar, "console").await;
    Robot::new("console", &own).enrol(server.address, &own).await;
    assert_eq!(server.json(&["node", "show", "console-2"])["owner"], "oskar");
    let waiting = server.key(&["--approve"]);
    let robot = Robot::new("console", &waiting);
    let mut connection = robot.connect(server.address).await;
    let request = robot.enrol_request(&connection, &waiting);
    connection.send(&ria_protocol::message::NodeMessage::Enrol(request)).await;
    connection.next().await;
    let approve = async |who: &Browser, name: Value| {
        who.post("/api/v1/pending/console/approve", &json!({ "name": name })).await
    };
    let refused = approve(&operator, Value::Null).await;
    assert!(refused.status == 403 && refused.text.contains("the name console"), "{}", refused.text);
    assert_eq!(approve(&operator, "robot-9".into()).await.status, 200);
}
