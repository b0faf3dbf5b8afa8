//! A recorded conversation with a node of protocol 1, held again with the coordinator as it is now.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use rcgen::KeyPair;
use ria_protocol::enrol::{Certificate, Transcript, proof};
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::time::UnixTime;
use ria_recorded::item::Item;
use ria_recorded::{Line, v1};
use sqlx::Connection as _;
use tokio_tungstenite::tungstenite::Message;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::support::{Connection, Robot, Server, soon};

/// Indices of messages, as protocol 1 numbers them.
const WELCOME: u64 = 0;
const ENROL: u64 = 1;
const ENROLLED: u64 = 2;
const LIVE: u64 = 5;
const DRAIN: u64 = 8;

/// The data directory of the recorded coordinator, before the conversation.
fn recorded_data(directory: &Path) {
    let identity = directory.join("identity");
    fs::create_dir(&identity).unwrap();
    for (name, content) in ria_recorded::IDENTITY {
        fs::write(identity.join(name), content).unwrap();
    }
    let url = format!("sqlite://{}?mode=rwc", directory.join("coordinator.db").display());
    // On a thread of its own, for the caller may be within a runtime.
    let make = move || {
        sqlx::any::install_default_drivers();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut database = sqlx::AnyConnection::connect(&url).await.unwrap();
            // The dump makes tables in the order of their names.
            sqlx::raw_sql("PRAGMA foreign_keys = OFF").execute(&mut database).await.unwrap();
            sqlx::raw_sql(ria_recorded::DATABASE).execute(&mut database).await.unwrap();
            // A node that was away for a year is no member any more; the recording may be older than that.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let sql = "UPDATE nodes SET last_contact = $1";
            sqlx::query(sql).bind(i64::try_from(now).unwrap()).execute(&mut database).await.unwrap();
            database.close().await.unwrap();
        });
    };
    std::thread::spawn(make).join().unwrap();
}

fn robot(name: &'static str) -> Robot {
    let part = |what| ria_recorded::robot(name, what);
    let wg: [u8; 32] = part("wg").unwrap().try_into().unwrap();
    let pem = ria_recorded::IDENTITY[0].1;
    let authority = KeyPair::from_pem(pem).unwrap();
    Robot {
        wg: StaticSecret::from(wg),
        tls: KeyPair::try_from(part("tls").unwrap()).unwrap(),
        name,
        certificate: part("certificate").map(|leaf| Certificate {
            leaf,
            authorities: Vec::new(),
            not_after: UnixTime(0),
            issued: None,
            membership: None,
        }),
        network: NetworkId::from_bytes([0; 10]),
        node: NodeId::from_bytes([0; 10]),
        boot: BootId::from_bytes([7; 10]),
        pin: SpkiHash::of(&rcgen::PublicKeyData::subject_public_key_info(&authority)),
        routes: Vec::new(),
    }
}

/// One recorded node with its connection to the new coordinator.
struct Node {
    robot: Robot,
    connection: Connection,
    /// What the coordinator draws at random: as it was recorded, and as it is now.
    replaced: Vec<(Vec<u8>, Vec<u8>)>,
    challenge: [u8; 32],
}

impl Node {
    async fn connect(name: &'static str, server: &Server) -> Self {
        let robot = robot(name);
        let connection = robot.connect_silently(server.address).await;
        Self { robot, connection, replaced: Vec::new(), challenge: [0; 32] }
    }

    /// Says what the node of protocol 1 said.
    async fn say(&mut self, recorded: &[u8]) {
        let mut message = Item::read(recorded).unwrap();
        if message.at(0).and_then(Item::as_number) == Some(ENROL) {
            let field = |key| message.find(&[1, 0, key]).and_then(Item::as_bytes).unwrap().to_vec();
            let (csr, recorded_proof) = (field(5), field(6));
            let shared = self.robot.wg.diffie_hellman(&PublicKey::from(self.challenge));
            let transcript = Transcript {
                exporter: &self.connection.exporter,
                challenge: &WgPublicKey(self.challenge),
                wg_key: &self.robot.wg_key(),
                csr: &csr,
            };
            message.replace(&recorded_proof, &proof(shared.as_bytes(), &transcript));
        }
        for (old, new) in &self.replaced {
            message.replace(old, new);
        }
        soon(self.connection.socket.send(Message::Binary(message.bytes().into()))).await.unwrap();
    }

    /// The next message that a node of protocol 1 waits for; news of members come when they like.
    async fn hear(&mut self) -> Item {
        loop {
            match soon(self.connection.socket.next()).await.expect("the connection ended").unwrap() {
                Message::Binary(bytes) => {
                    let message = v1::check_coordinator_message(&bytes).unwrap();
                    if message.at(0).and_then(Item::as_number) != Some(LIVE) {
                        return message;
                    }
                }
                Message::Close(_) => panic!("the connection was closed"),
                _ => {}
            }
        }
    }

    /// Hears the answer that belongs to the recorded one.
    async fn hear_as(&mut self, recorded: &[u8]) {
        let recorded = Item::read(recorded).unwrap();
        let kind = recorded.at(0).and_then(Item::as_number).unwrap();
        if kind == LIVE {
            return;
        }
        let now = self.hear().await;
        assert_eq!(now.at(0), recorded.at(0), "{now:?}");
        let same = |way: &[u64]| assert_eq!(now.find(way), recorded.find(way), "{now:?}");
        match kind {
            WELCOME => {
                same(&[1, 0, 0]);
                let challenge = now.find(&[1, 0, 2]).and_then(Item::as_bytes).unwrap();
                self.challenge = challenge.try_into().unwrap();
            }
            ENROLLED => {
                same(&[1, 0, 0]);
                same(&[1, 0, 2]);
                let node = |item: &Item| item.find(&[1, 0, 1]).and_then(Item::as_bytes).unwrap().to_vec();
                self.replaced.push((node(&recorded), node(&now)));
                let leaf = now.find(&[1, 0, 3, 0]).and_then(Item::as_bytes).unwrap().to_vec();
                assert!(!leaf.is_empty());
            }
            // Snapshot: network and members; Patches: from and to.
            3 => {
                same(&[1, 0, 1, 0]);
                same(&[1, 0, 1, 2]);
                let members = |item: &Item| match item.find(&[1, 0, 2]) {
                    Some(Item::Array(members)) => members.len(),
                    _ => panic!("{item:?}"),
                };
                assert_eq!(members(&now), members(&recorded));
            }
            // Refused: for the same reason.
            1 => same(&[1, 0, 0]),
            DRAIN | 4 | 6 | 7 | 9 => {}
            new => panic!("message {new} is not of protocol 1"),
        }
    }

    async fn end(&mut self) {
        while let Some(Ok(message)) = soon(self.connection.socket.next()).await {
            match message {
                Message::Binary(bytes) => {
                    let message = v1::check_coordinator_message(&bytes).unwrap();
                    assert_eq!(message.at(0), Some(&Item::Number(LIVE)), "after the end: {message:?}");
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_node_of_protocol_1_is_served_as_it_always_was() {
    let mut server = Server::start_on(recorded_data);
    let mut nodes: BTreeMap<&str, Node> = BTreeMap::new();
    let mut revisions = Vec::new();
    for line in ria_recorded::conversation().unwrap() {
        match line {
            Line::Node(name, bytes) => {
                if !nodes.contains_key(name) {
                    nodes.insert(name, Node::connect(name, &server).await);
                }
                nodes.get_mut(name).unwrap().say(&bytes).await;
            }
            Line::Coordinator(name, bytes) => nodes.get_mut(name).unwrap().hear_as(&bytes).await,
            Line::End(name) => nodes.remove(name).unwrap().end().await,
            Line::Done("terminate") => {
                revisions.push(server.json(&["network", "show", "lab"])["revision"].as_u64().unwrap());
                assert!(server.terminate().0.success());
            }
            Line::Done(other) => panic!("{other} is not known"),
        }
    }
    assert!(nodes.is_empty());
    assert!(revisions[0] >= 7, "the newcomer came and went");
    server.start_again();
    assert_eq!(server.json(&["audit", "list"])["chain"]["intact"], true);
    let names: Vec<_> = server.json(&["node", "list"]).as_array().unwrap().clone();
    assert_eq!(names.iter().map(|n| n["name"].as_str().unwrap()).collect::<Vec<_>>(), ["member", "other"]);
}
