//! The agent with a coordinator of protocol 1, which says what such a coordinator was recorded to say.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![allow(clippy::wildcard_enum_match_arm, reason = "one message is looked for among many")]

mod support;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use netlab::{HostSpec, Lab, NetworkSpec};
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair, PublicKeyData};
use ria_protocol::id::KeyId;
use ria_protocol::join_key::{JoinKey, JoinSecret};
use ria_protocol::keys::SpkiHash;
use ria_protocol::{ALPN_NODE, COORDINATOR_TLS_NAME};
use ria_recorded::item::Item;
use ria_recorded::{Line, v1};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use serde_json::Value;
use support::{COORDINATOR, Robot, eventually};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What was recorded of the coordinator: the newcomer's half of the conversation, and a later change of the map.
struct Script {
    ca: (String, KeyPair),
    answers: Vec<Item>,
    /// What the agent said, by the number of the message.
    heard: Mutex<Vec<Item>>,
}

impl Script {
    fn new() -> Self {
        let answers = ria_recorded::conversation().unwrap().into_iter().filter_map(|line| match line {
            Line::Coordinator("newcomer", bytes) => Some(Item::read(&bytes).unwrap()),
            _ => None,
        });
        let key = KeyPair::from_pem(ria_recorded::IDENTITY[0].1).unwrap();
        Self {
            ca: (ria_recorded::IDENTITY[1].1.to_owned(), key),
            answers: answers.collect(),
            heard: Mutex::default(),
        }
    }

    fn pin(&self) -> SpkiHash {
        SpkiHash::of(&self.ca.1.subject_public_key_info())
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_ca_cert_pem(&self.ca.0, &self.ca.1).unwrap()
    }

    /// The recorded answer of this kind.
    fn answer(&self, kind: u64) -> Item {
        self.answers.iter().find(|item| item.at(0) == Some(&Item::Number(kind))).unwrap().clone()
    }

    /// A certificate as the coordinator issued it, with the time that it has now.
    fn certified(&self, kind: u64, way: &[u64], csr: &[u8]) -> Item {
        let mut answer = self.answer(kind);
        let request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - Duration::from_secs(86_400)).into();
        params.not_after = (SystemTime::now() + WEEK).into();
        let leaf = params.signed_by(&request.public_key, &self.issuer()).unwrap();
        let recorded = answer.find(&[way, &[0]].concat()).and_then(Item::as_bytes).unwrap().to_vec();
        answer.replace(&recorded, leaf.der());
        answer.set(&[way, &[2]].concat(), Item::Number(now() + WEEK.as_secs()));
        answer
    }

    fn tls(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![COORDINATOR_TLS_NAME.to_owned()]).unwrap();
        params.not_before = (SystemTime::now() - Duration::from_secs(86_400)).into();
        params.not_after = (SystemTime::now() + WEEK).into();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer()).unwrap().der().clone();
        let ca = x509_parser::pem::parse_x509_pem(self.ca.0.as_bytes()).unwrap().1.contents;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_single_cert(
                vec![leaf, CertificateDer::from(ca)],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![ALPN_NODE.to_vec()];
        config
    }

    /// Serves until the test ends.
    fn serve(self: &Arc<Self>, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let script = self.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(script.tls()));
                while let Ok((stream, _)) = listener.accept().await {
                    let (script, acceptor) = (script.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                        let mut wg_key = None;
                        while let Some(Ok(Message::Binary(bytes))) = next(&mut socket).await {
                            for answer in script.answers_to(&bytes, &mut wg_key) {
                                let _ = socket.send(Message::Binary(answer.bytes().into())).await;
                            }
                        }
                    });
                }
            });
        });
    }

    /// What a coordinator of protocol 1 says to this. It can't read anything else.
    fn answers_to(&self, bytes: &[u8], wg_key: &mut Option<Vec<u8>>) -> Vec<Item> {
        let message = v1::check_node_message(bytes);
        let message = message.unwrap_or_else(|problem| Item::Text(format!("not protocol 1: {problem}")));
        self.heard.lock().unwrap().push(message.clone());
        let field = |way: &[u64]| message.find(way).and_then(Item::as_bytes).map(<[u8]>::to_vec);
        match message.at(0).and_then(Item::as_number) {
            // Hello, Enrol, Resume
            Some(0) => {
                let mut welcome = self.answer(0);
                welcome.set(&[1, 0, 3], Item::Number(now()));
                vec![welcome]
            }
            Some(1) => {
                *WG_KEY.lock().unwrap() = field(&[1, 0, 4]);
                vec![self.certified(2, &[1, 0, 3], &field(&[1, 0, 5]).unwrap())]
            }
            Some(2) => {
                *wg_key = WG_KEY.lock().unwrap().clone();
                let mut snapshot = self.answer(3);
                let recorded = ria_recorded::robot("newcomer", "wg").unwrap();
                let recorded: [u8; 32] = recorded.try_into().unwrap();
                let recorded = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(recorded));
                snapshot.replace(recorded.as_bytes(), wg_key.as_ref().unwrap());
                vec![snapshot, self.answer(6), self.answer(5)]
            }
            // Ack: once the map is there, a member goes. Renew, Leave
            Some(3) if message.find(&[1, 0]) == Some(&Item::Number(6)) => vec![self.other_removed()],
            Some(5) => vec![self.certified(7, &[1, 0], &field(&[1, 0]).unwrap())],
            Some(6) => vec![self.answer(9)],
            _ => Vec::new(),
        }
    }

    /// The change by which the newcomer's own leaving was told, made to be about another member.
    fn other_removed(&self) -> Item {
        let recorded = ria_recorded::conversation().unwrap().into_iter().rev().find_map(|line| match line {
            Line::Coordinator("member", bytes) => {
                Item::read(&bytes).ok().filter(|item| item.at(0) == Some(&Item::Number(4)))
            }
            _ => None,
        });
        let mut removed = recorded.unwrap();
        let newcomer = removed.find(&[1, 0, 2, 0, 1, 0]).and_then(Item::as_bytes).unwrap().to_vec();
        let other = "rzzappnkmmloa57z".parse::<ria_protocol::id::NodeId>().unwrap();
        removed.replace(&newcomer, other.as_bytes());
        removed
    }

    fn has_heard(&self, wanted: &Item) -> bool {
        self.heard.lock().unwrap().contains(wanted)
    }
}

/// The key of the robot that enrolled; sessions after that come over other connections.
static WG_KEY: Mutex<Option<Vec<u8>>> = Mutex::new(None);

type Socket = tokio_tungstenite::WebSocketStream<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>;

/// The next message that is not about keeping the connection alive.
async fn next(socket: &mut Socket) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
    loop {
        match socket.next().await? {
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            other => return Some(other),
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn the_agent_works_with_a_coordinator_of_protocol_1() {
    let mut lab = Lab::new("agent-older").unwrap();
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
    let host =
        lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
    lab.add_host("robot", HostSpec::on("internet")).unwrap();
    let script = Arc::new(Script::new());
    script.serve(host.enter(|| TcpListener::bind((COORDINATOR, 443))).unwrap());

    let key = JoinKey {
        urls: vec![format!("https://{COORDINATOR}")],
        ca_pin: script.pin(),
        key_id: KeyId::from_bytes([1; 5]),
        secret: JoinSecret::from_bytes([2; 16]),
    };
    let logs = tempfile::tempdir().unwrap();
    let mut robot = Robot::on(lab.host("robot").unwrap(), &logs.path().join("robot.log"));
    robot.start(&[]);
    let joined = robot.join(&key.to_text());
    assert_eq!(joined.code, 0, "{joined:?}\n{}", robot.log());
    assert_eq!((robot.address().as_str(), robot.status()["name"].as_str()), ("10.213.0.5", Some("newcomer")));

    let ack = |revision| Item::Array(vec![Item::Number(3), Item::Array(vec![Item::Number(revision)])]);
    eventually("both maps are confirmed", || script.has_heard(&ack(6)) && script.has_heard(&ack(7)));
    eventually("the map is followed", || {
        robot.peer("other") == Value::Null && robot.peer("member")["name"] == "member"
    });
    // A new session, by the revision that is stored.
    robot.kill();
    robot.start(&[]);
    eventually("it is back", || robot.status()["coordinator_state"] == "connected");
    let left = robot.ria(&["leave", "--yes"]);
    assert_eq!(left.code, 0, "{left:?}");
    assert!(script.has_heard(&Item::Array(vec![Item::Number(6), Item::Array(vec![])])));
    let strange: Vec<_> =
        script.heard.lock().unwrap().iter().filter(|item| matches!(item, Item::Text(_))).cloned().collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// The recorded coordinator took any certificate in the handshake as well, and judged the node afterwards.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("nodes speak TLS 1.3")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
