//! Devices with stock WireGuard, as administrators add them and nodes hear of them.

use ria_protocol::map::{Candidate, CandidateKind};
use ria_protocol::map::{Member, MemberKind, Patch};
use ria_protocol::message::NodeMessage;
use serde_json::Value;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::support::{Robot, Server};

fn line<'t>(file: &'t str, name: &str) -> &'t str {
    let found = file.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix("= "));
    found.unwrap_or_else(|| panic!("no {name} in {file}"))
}

fn key_of(text: &str) -> [u8; 32] {
    data_encoding::BASE64.decode(text.as_bytes()).unwrap().try_into().unwrap()
}

fn device(members: &[Member]) -> Option<&Member> {
    members.iter().find(|member| member.kind == MemberKind::Static)
}

#[tokio::test]
async fn a_file_is_printed_once_and_members_hear_what_they_need() {
    let mut server = Server::start();
    let key = server.key(&["--reusable"]);
    let (mut gate, mut arm) = (Robot::new("gate", &key), Robot::new("arm", &key));
    let (mut to_gate, _) = gate.join(server.address, &key).await;
    let (mut to_arm, _) = arm.join(server.address, &key).await;
    let address = "198.51.100.7:41820".parse().unwrap();
    let candidates = [CandidateKind::Host, CandidateKind::ServerReflexive];
    let candidates = candidates.map(|kind| Candidate { kind, address }).to_vec();
    to_gate.send(&NodeMessage::Report(candidates)).await;
    // The report is known once others hear of it.
    to_arm.news(gate.node, |live| !live.candidates.is_empty()).await;
    to_gate.patches().await;

    let output = server.command(&["node", "add-static", "phone", "--via", "gate", "--psk"]);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("gate") && told.contains("sees what it says"), "{told}");
    let file = String::from_utf8(output.stdout).unwrap();
    let private = line(&file, "PrivateKey").to_owned();
    let psk = line(&file, "PresharedKey").to_owned();
    assert_eq!(line(&file, "Endpoint"), "198.51.100.7:41820");
    assert_eq!(line(&file, "PublicKey"), gate.wg_key().to_string());
    let network = &server.json(&["network", "list"])[0];
    let prefixes =
        format!("{}, {}", network["prefix_v4"].as_str().unwrap(), network["prefix_v6"].as_str().unwrap());
    assert_eq!(line(&file, "AllowedIPs"), prefixes);
    assert_eq!((line(&file, "PersistentKeepalive"), line(&file, "MTU")), ("25", "1280"));

    // Everybody hears of the device, and the gateway alone of its pre-shared key.
    let shown = server.json(&["node", "show", "phone"]);
    let public = PublicKey::from(&StaticSecret::from(key_of(&private)));
    assert_eq!(shown["wg_key"], data_encoding::BASE64.encode(public.as_bytes()));
    assert_eq!(
        (&shown["kind"], &shown["gateway"], &shown["psk"]),
        (&"static".into(), &"gate".into(), &true.into())
    );
    for (stream, knows) in [(&mut to_gate, true), (&mut to_arm, false)] {
        let set = stream.patches().await;
        let [Patch::MemberSet(phone), Patch::MemberSet(gateway)] = &set.patches[..] else {
            panic!("{set:?}")
        };
        let stock = phone.stock.clone().unwrap();
        assert_eq!((phone.kind, stock.gateway), (MemberKind::Static, Some(gate.node)));
        assert_eq!(stock.psk.map(|psk| psk.reveal()), knows.then(|| psk.clone()));
        assert_eq!(gateway.kind, MemberKind::Gateway);
    }
    // A restart later it is all the same; and nothing of the coordinator's holds the private key.
    server.kill();
    server.start_again();
    let (_, start) = gate.come_back(server.address, None).await;
    let members = start.map.snapshot().members;
    let stock = device(&members).unwrap().stock.clone().unwrap();
    assert_eq!(stock.psk.map(|psk| psk.reveal()), Some(psk.clone()));
    let (_, start) = arm.come_back(server.address, None).await;
    let members = start.map.snapshot().members;
    assert_eq!(device(&members).unwrap().stock.clone().unwrap().psk, None);
    let audit = server.json(&["audit", "list"]).to_string();
    assert!(audit.contains("static-peer.added") && !audit.contains(&psk) && !audit.contains(&private));
    assert!(!server.json(&["node", "list"]).to_string().contains(&psk));
    for entry in std::fs::read_dir(server.data_dir()).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let holds = bytes.windows(private.len()).any(|window| window == private.as_bytes());
        assert!(!holds, "{} holds the private key", entry.path().display());
    }
}

#[tokio::test]
async fn a_device_moves_to_another_gateway_and_is_removed() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let (mut one, mut two) = (Robot::new("one", &key), Robot::new("two", &key));
    one.join(server.address, &key).await;
    two.join(server.address, &key).await;
    let public = data_encoding::BASE64.encode(PublicKey::from(&StaticSecret::from([5; 32])).as_bytes());
    let add = ["node", "add-static", "scanner", "--public-key", &public, "--psk", "--via", "one"];
    let refused = server.command(&add);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--endpoint"), "{refused:?}");
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 2, "nothing was made");

    let file = server.text(&[&add[..], &["--endpoint", "gate.example:41820"]].concat());
    assert!(file.contains("# PrivateKey =") && !file.contains("\nPrivateKey"), "{file}");
    let before = line(&file, "PresharedKey").to_owned();
    let listed = |name: &str| -> Value { server.json(&["node", "show", name]) };
    assert_eq!(listed("one")["kind"], "gateway");
    assert_eq!(listed("one")["forwards_for"], serde_json::json!(["scanner"]));
    // A gateway keeps its part under another name.
    server.text(&["node", "rename", "one", "first"]);
    assert_eq!(listed("scanner")["gateway"], "first");

    let moved = ["node", "set-gateway", "scanner", "--via", "two", "--psk", "--endpoint", "192.0.2.2:7"];
    let file = server.text(&moved);
    assert_eq!(line(&file, "PublicKey"), two.wg_key().to_string());
    assert_ne!(line(&file, "PresharedKey"), before, "what the old gateway knows is of no use");
    assert_eq!((&listed("first")["kind"], &listed("two")["kind"]), (&"node".into(), &"gateway".into()));

    // A gateway that is gone leaves its devices without one, and nobody else learns their secrets.
    server.text(&["node", "remove", "two"]);
    assert_eq!(listed("scanner")["gateway"], Value::Null);
    let (_, start) = one.come_back(server.address, None).await;
    let members = start.map.snapshot().members;
    let stock = device(&members).unwrap().stock.clone().unwrap();
    assert!(stock.gateway.is_some() && stock.psk.is_none(), "{stock:?}");

    let (mut stream, _) = one.come_back(server.address, None).await;
    server.text(&["node", "remove", "scanner"]);
    let set = stream.patches().await;
    assert!(matches!(set.patches[..], [Patch::MemberRemoved(_)]), "{set:?}");
    let actions: Vec<String> = server.json(&["audit", "list", "--limit", "1"])["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["static-peer.removed"]);
}

#[tokio::test]
async fn mistakes_about_devices_are_answered_with_what_to_do() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    Robot::new("robot", &key).join(server.address, &key).await;
    let robot = server.json(&["node", "show", "robot"])["wg_key"].as_str().unwrap().to_owned();
    let via = ["--via", "robot", "--endpoint", "192.0.2.1:41820"];
    server.text(&[&["node", "add-static", "phone"][..], &via].concat());
    for (arguments, code, words) in [
        (vec!["node", "add-static", "tablet"], 1, "--via"),
        (vec!["node", "add-static", "tablet", "--via", "nobody"], 1, "node list"),
        (vec!["node", "add-static", "tablet", "--via", "phone"], 1, "static peer"),
        ([&["node", "add-static", "phone"][..], &via].concat(), 1, "choose another"),
        ([&["node", "add-static", "robot"][..], &via].concat(), 1, "choose another"),
        (
            [&["node", "add-static", "tablet", "--public-key", &robot][..], &via].concat(),
            1,
            "make a new pair",
        ),
        (vec!["node", "add-static", "tablet", "--via", "robot", "--endpoint", "nowhere"], 1, "HOST:PORT"),
        (vec!["node", "add-static", "tablet", "--public-key", "x"], 2, "base64"),
        (vec!["node", "set-gateway", "robot", "--via", "robot"], 1, "no such static peer"),
        (vec!["node", "disable", "phone"], 1, "static peer"),
    ] {
        let output = server.command(&arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    // Without a gateway the file lists the members whose address is known.
    let file = server.text(&["node", "add-static", "tablet", "--endpoint", "robot=192.0.2.1:41820"]);
    let address = &server.json(&["node", "show", "robot"])["addresses"][0];
    assert!(line(&file, "AllowedIPs").starts_with(&format!("{}/32, ", address.as_str().unwrap())), "{file}");
}
