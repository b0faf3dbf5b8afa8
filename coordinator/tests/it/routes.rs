//! Local networks behind nodes: offered, approved, told to members, withdrawn, and kept over restarts.

use ria_protocol::map::{Member, MemberKind, Patch};
use ria_protocol::prefix::Prefix;

use crate::support::{Robot, Server};

const LAN: &str = "192.168.10.0/24";

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// The member that patches set.
fn set(patches: &[Patch]) -> &Member {
    patches
        .iter()
        .find_map(|patch| if let Patch::MemberSet(member) = patch { Some(member) } else { None })
        .unwrap()
}

fn offering(name: &'static str, key: &ria_protocol::join_key::JoinKey) -> Robot {
    let mut robot = Robot::new(name, key);
    robot.routes = vec![prefix(LAN)];
    robot
}

#[tokio::test]
async fn what_is_approved_is_in_the_map_and_stays_while_it_is_offered() {
    let mut server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut laptop = Robot::new("laptop", &key);
    let (mut to_laptop, _) = laptop.join(server.address, &key).await;
    let mut robot = offering("robot-3", &key);
    let (to_robot, start) = robot.join(server.address, &key).await;
    let own = |members: &[Member]| members.iter().find(|m| m.name.as_str() == "robot-3").unwrap().clone();
    assert_eq!(own(&start.map.snapshot().members).routes, None, "nobody has approved it");
    to_laptop.patches().await;
    assert_eq!(server.json(&["route", "list"])[0]["state"], "proposed");

    server.text(&["route", "approve", "robot-3", LAN, "--map", "10.66.3.0/24"]);
    let news = to_laptop.patches().await;
    let member = set(&news.patches);
    let record = member.record.open(robot.network, &[]).unwrap();
    assert_eq!((member.kind, record.prefixes.last()), (MemberKind::Gateway, Some(&prefix("10.66.3.0/24"))));
    let routes = member.routes.clone().unwrap();
    assert_eq!((routes[0].prefix, routes[0].lan), (prefix("10.66.3.0/24"), prefix(LAN)));
    // The same again is no change; another prefix is one.
    server.text(&["route", "approve", "robot-3", LAN, "--map", "10.66.3.0/24"]);
    server.text(&["route", "approve", "robot-3", LAN, "--map", "auto"]);
    let news = to_laptop.patches().await;
    assert_eq!(set(&news.patches).routes.clone().unwrap()[0].prefix, prefix("10.64.0.0/24"));

    // Over a restart; and when the node offers it no more, and again.
    drop((to_laptop, to_robot));
    server.kill();
    server.start_again();
    let (to_robot, start) = robot.come_back(server.address, None).await;
    assert_eq!(own(&start.map.snapshot().members).routes.unwrap()[0].lan, prefix(LAN));
    drop(to_robot);
    robot.routes.clear();
    let (to_robot, start) = robot.come_back(server.address, None).await;
    assert_eq!(own(&start.map.snapshot().members).routes, None);
    assert_eq!(server.json(&["route", "list"])[0]["state"], "not-offered");
    drop(to_robot);
    robot.routes = vec![prefix(LAN)];
    let (_, start) = robot.come_back(server.address, None).await;
    assert!(own(&start.map.snapshot().members).routes.is_some());
    server.text(&["route", "withdraw", "robot-3", LAN]);
    let (_, start) = laptop.come_back(server.address, None).await;
    assert_eq!(own(&start.map.snapshot().members).routes, None);
    server.text(&["node", "remove", "robot-3"]);
    assert_eq!(server.json(&["route", "list"]), serde_json::json!([]));
    let audit = server.json(&["audit", "list"]).to_string();
    for action in ["route.offered", "route.approved", "route.withdrawn"] {
        assert!(audit.contains(action), "{audit}");
    }
}

#[tokio::test]
async fn a_rule_about_devices_is_told_to_both_ends() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let (mut laptop, mut robot) = (Robot::new("laptop", &key), offering("robot-3", &key));
    laptop.join(server.address, &key).await;
    robot.join(server.address, &key).await;
    let file = server.path().join("policy");
    let text = |to: &str| format!("[[rule]]\nfrom = [\"laptop\"]\nto = [\"{to}\"]\nallow = [\"udp/2368\"]\n");
    std::fs::write(&file, text("route:10.66.3.0/24")).unwrap();
    let path = file.to_str().unwrap();
    let set = server.command(&["policy", "set", "--file", path]);
    let told = String::from_utf8_lossy(&set.stdout).into_owned() + &String::from_utf8_lossy(&set.stderr);
    assert!(set.status.success() && told.contains("nothing is reached at 10.66.3.0/24 (yet)"), "{told}");
    server.text(&["route", "approve", "robot-3", LAN, "--map", "10.66.3.0/24"]);
    for robot in [&mut laptop, &mut robot] {
        let (_, start) = robot.come_back(server.address, None).await;
        let rules = start.map.snapshot().policy.unwrap().rules.unwrap();
        assert_eq!(rules.len(), 1, "{}", robot.name);
        assert_eq!(rules[0].to.devices(), [prefix("10.66.3.0/24")]);
    }
    // A dry run tells of devices, too; and one may be asked for by its address.
    std::fs::write(&file, text("route:10.66.3.7/32")).unwrap();
    let tried = server.text(&["policy", "set", "--file", path, "--dry-run"]);
    assert!(tried.contains("laptop -> 10.66.3.0/24 behind robot-3: loses udp/2368\n"), "{tried}");
    assert!(tried.contains("laptop -> 10.66.3.7/32 behind robot-3: keeps udp/2368\n"), "{tried}");
    let tried = server.json(&["policy", "set", "--file", path, "--dry-run"]);
    let (pairs, devices) = (&tried["difference"]["pairs"], &tried["difference"]["device_pairs"]);
    assert_eq!((pairs.as_u64(), devices.as_u64()), (Some(0), Some(2)), "{tried}");
    let lidar = server.json(&["policy", "explain", "laptop", "10.66.3.7", "udp/2368"]);
    assert_eq!(
        (&lidar["to"], &lidar["to_devices"], &lidar["allowed"]),
        (&"robot-3".into(), &"10.66.3.7/32".into(), &true.into())
    );
    let address = server.json(&["node", "show", "robot-3"])["addresses"][0].as_str().unwrap().to_owned();
    let itself = server.command(&["policy", "explain", "laptop", &address, "udp/2368"]);
    assert!(String::from_utf8_lossy(&itself.stdout).starts_with("DENIED: udp/2368 from laptop to robot-3: "));
    let nowhere = server.command(&["policy", "explain", "laptop", "10.9.9.9", "22"]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("route list"), "{nowhere:?}");
    std::fs::write(&file, text("laptop").replace("from = [\"laptop\"]", "from = [\"route:10.66.3.0/24\"]"))
        .unwrap();
    let refused = server.command(&["policy", "set", "--file", path]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("only answer"), "{refused:?}");
    let untold = server.command(&["route", "approve", "robot-3", LAN]);
    assert!(
        String::from_utf8_lossy(&untold.stderr).contains("to = [\"route:192.168.10.0/24\"]"),
        "{untold:?}"
    );
}
