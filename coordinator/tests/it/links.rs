//! How members reach each other, as they tell it: in REST, live, on the pages, on the command line.

use ria_protocol::id::NodeId;
use ria_protocol::links::{Happened, LinkNews, LinkPath, LinkReport, PathChange, Uplink, What};
use ria_protocol::message::NodeMessage;
use serde_json::{Value, json};

use crate::api::{check_answer, program};
use crate::laptops::laptop_key;
use crate::pages::Person;
use crate::support::{Robot, Server, eventually};

fn link(peer: NodeId, path: LinkPath, rtt: u32) -> LinkReport {
    let relay = (path != LinkPath::Direct).then(|| "vps".to_owned());
    LinkReport { peer, path, rtt: Some(rtt), relay }
}

fn whole(links: Vec<LinkReport>) -> NodeMessage {
    NodeMessage::Links(LinkNews { whole: true, links, ..LinkNews::default() })
}

fn wifi(point: &str) -> What {
    What::Uplink(Uplink {
        interface: "wlan0".into(),
        kind: "wifi".into(),
        ssid: Some("lab-wifi".into()),
        access_point: Some(point.into()),
    })
}

async fn the_topology_is_a_page(server: &Server) {
    let ada = Person::by_link(server, &server.text(&["user", "owner-link"]), Some("grace")).await;
    let page = ada.browser.get("/topology").await;
    assert_eq!(page.status, 200);
    for wanted in [
        "2 links: 0 direct, 2 over a relay, 0 without a path",
        "over a relay, the other way direct",
        "class=\"relayed\"",
        "80 ms",
    ] {
        assert!(page.text.contains(wanted), "{wanted} is missing in {}", page.text);
    }
    assert!(ada.browser.get("/topology?node=nobody").await.status == 404);
}

#[tokio::test]
async fn members_tell_how_they_reach_each_other() {
    let server = Server::start();
    let owner = program(&server, "ada", "owner");
    let key = server.key(&["--reusable"]);
    let [mut a, mut b, mut c] = ["arm", "base", "cam"].map(|name| Robot::new(name, &key));
    let (mut at_a, _) = a.join(server.address, &key).await;
    let (mut at_b, _) = b.join(server.address, &key).await;
    let _at_c = c.join(server.address, &key).await;
    assert_eq!(owner.get("/api/v1/links").await.json(), json!([]));

    // Live, as soon as it is told.
    let stranger = NodeId::from_bytes([0xee; 10]);
    at_b.send(&whole(vec![link(a.node, LinkPath::RelayUdp, 42_500), link(stranger, LinkPath::Direct, 1)]))
        .await;
    let links = || server.json(&["link", "list"]);
    eventually("one end is known", || links().as_array().is_some_and(|all| all.len() == 1)).await;
    let told = links()[0].clone();
    assert_eq!((&told["a"], &told["b"], &told["path"]), (&json!("arm"), &json!("base"), &json!("relay_udp")));
    assert_eq!(
        (&told["rtt_ms"], &told["relay"], &told["from_a"]),
        (&json!(42.5), &json!("vps"), &Value::Null)
    );

    let (sender, told_now) = std::sync::mpsc::channel();
    let listening = owner.listen(
        "/api/v1/events",
        move || {
            // The other end waits for it.
            let _ = sender.send(());
        },
        "event: link",
    );
    let telling = async {
        eventually("somebody listens", || told_now.try_recv().is_ok()).await;
        at_a.send(&whole(vec![
            link(b.node, LinkPath::Direct, 1_500),
            link(c.node, LinkPath::RelayTls, 80_000),
        ]))
        .await;
    };
    let (text, ()) = tokio::join!(listening, telling);
    assert!(text.contains("\"path\":\"direct\"") && text.contains("\"peer_name\":\"base\""), "{text}");

    eventually("both links are known", || links().as_array().is_some_and(|all| all.len() == 2)).await;
    let answer = owner.get("/api/v1/links?network=lab").await.json();
    check_answer("listLinks", &answer);
    // Each end chooses its own path; what is further from direct is what people should know of.
    assert_eq!(answer[0]["path"], "relay_udp");
    assert_eq!(
        (&answer[0]["from_a"]["path"], &answer[0]["from_b"]["path"]),
        (&json!("direct"), &json!("relay_udp"))
    );
    assert_eq!(answer[1]["path"], "relay_tls");
    let of_c = owner.get("/api/v1/links?node=cam").await.json();
    assert_eq!(of_c.as_array().unwrap().len(), 1);
    assert_eq!(owner.get("/api/v1/links?network=elsewhere").await.status, 404);
    let text = server.text(&["link", "list"]);
    assert!(text.contains("arm  base  lab      relay_udp (one way)"), "{text}");

    the_topology_is_a_page(&server).await;

    // Who is gone says nothing any more; what others say of them stays.
    drop(at_a);
    eventually("one end is known", || links().as_array().is_some_and(|all| all.len() == 1)).await;
    server.text(&["node", "remove", "arm"]);
    eventually("none is", || links() == json!([])).await;
}

#[tokio::test]
async fn what_happens_to_a_node_is_on_its_page() {
    let server = Server::start();
    let owner = program(&server, "ada", "owner");
    let key = server.key(&["--reusable"]);
    let [mut a, mut b] = ["arm", "base"].map(|name| Robot::new(name, &key));
    let (mut at_a, _) = a.join(server.address, &key).await;
    let _at_b = b.join(server.address, &key).await;
    let change = PathChange {
        peer: b.node,
        before: LinkPath::RelayUdp,
        after: LinkPath::Direct,
        gap: Some(640),
        reason: "<b>it answered</b>".into(),
    };
    let happened = vec![
        Happened { ago: 90_000, what: wifi("02:00:00:00:00:01") },
        Happened { ago: 60_000, what: What::Path(change) },
        Happened { ago: 1_000, what: wifi("02:00:00:00:00:02") },
    ];
    at_a.send(&NodeMessage::Links(LinkNews { happened, ..LinkNews::default() })).await;
    let history = || server.json(&["node", "history", "arm"]);
    eventually("all has arrived", || history().as_array().is_some_and(|all| all.len() == 3)).await;
    let answer = owner.get("/api/v1/nodes/arm/history?network=lab").await.json();
    check_answer("nodeHistory", &answer);
    assert_eq!(answer, history());
    assert_eq!(
        (&answer[1]["peer"], &answer[1]["gap_ms"], &answer[1]["after"]),
        (&json!("base"), &json!(640), &json!("direct"))
    );
    let times: Vec<u64> =
        answer.as_array().unwrap().iter().map(|entry| entry["time"].as_u64().unwrap()).collect();
    assert!((28..=32).contains(&(times[1] - times[0])) && times.is_sorted(), "{times:?}");
    assert_eq!(answer[2]["uplink"]["access_point"], "02:00:00:00:00:02");
    let text = server.text(&["node", "history", "arm"]);
    assert!(text.contains("path to base: relay_udp -> direct, after 0.6 s without contact"), "{text}");

    let ada = Person::by_link(&server, &server.text(&["user", "owner-link"]), Some("grace")).await;
    let page = ada.browser.get("/nodes/lab/arm").await;
    for wanted in [
        "Paths and hand-overs",
        "class=\"uplink other\"",
        "access point 02:00:00:00:00:02",
        "&lt;b&gt;it answered",
    ] {
        assert!(page.text.contains(wanted), "{wanted} is missing in {}", page.text);
    }
    assert!(!page.text.contains("<b>it answered"), "{}", page.text);
    let other = ada.browser.get("/nodes/lab/base").await;
    assert!(other.text.contains("Nothing has happened since the coordinator was started"), "{}", other.text);
    assert_eq!(server.json(&["node", "history", "base"]), json!([]));
}

#[tokio::test]
async fn where_a_persons_laptop_is_is_nobodys_business() {
    let server = Server::start();
    let ada = Person::owner(&server).await;
    let key = laptop_key(&server, &ada, "laptop").await;
    let mut laptop = Robot::new("laptop", &key);
    let (mut stream, _) = laptop.join(server.address, &key).await;
    let happened = vec![Happened { ago: 0, what: wifi("02:00:00:00:00:01") }];
    stream.send(&NodeMessage::Links(LinkNews { happened, ..LinkNews::default() })).await;
    let history = || server.json(&["node", "history", "laptop"]);
    eventually("it has arrived", || history().as_array().is_some_and(|all| all.len() == 1)).await;
    let uplink = history()[0]["uplink"].clone();
    assert_eq!(
        (&uplink["kind"], &uplink["ssid"], &uplink["access_point"]),
        (&json!("wifi"), &Value::Null, &Value::Null)
    );
}
