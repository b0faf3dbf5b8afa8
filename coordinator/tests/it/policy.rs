//! Policies: what administrators set, and what each node is told of it.

use ria_protocol::id::NodeId;
use ria_protocol::map::Patch;
use ria_protocol::policy::NodePolicy;

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
