//! What strangers and broken nodes send: counted, answered or dropped, and never the end of anything.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use ria_protocol::error::ErrorCode;
use ria_protocol::message::{NodeMessage, to_bytes};
use ria_protocol::{ALPN_NODE, MAX_NODE_MESSAGE};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Robot, Server, soon};

/// Small and always the same, so that a failure can be looked at again (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

fn roots(server: &Server) -> RootCertStore {
    let pem = std::fs::read(server.data_dir().join("identity/ca.crt")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem.contents.into()).unwrap();
    roots
}

/// A browser, as it were.
async fn stranger(
    server: &Server,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(server))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(server.address).await?;
    // On ria/1 the coordinator has its one fixed name, whatever it was called as.
    let is_node = alpn.contains(&ALPN_NODE);
    let name = if is_node { ria_protocol::COORDINATOR_TLS_NAME } else { "coordinator.lab.example" };
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn get(server: &Server, alpn: &[&[u8]], path: &str) -> String {
    let mut stream = soon(stranger(server, alpn)).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: coordinator.lab.example\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that ends without TLS's own goodbye has still answered.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn people_get_a_page_and_health_on_the_same_port() {
    let server = Server::start();
    for alpn in [&[][..], &[b"http/1.1".as_slice()]] {
        let health = get(&server, alpn, "/healthz").await;
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
        let body = health.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["status"], "ok");
    }
    let page = get(&server, &[], "/").await;
    assert!(page.starts_with("HTTP/1.1 303") && page.contains("/login"), "{page}");
    assert!(get(&server, &[], "/login").await.contains("Ria coordinator"));
    assert!(get(&server, &[], "/v1/nodes").await.starts_with("HTTP/1.1 404"));
    let stream = get(&server, &[], ria_protocol::STREAM_PATH).await;
    assert!(stream.starts_with("HTTP/1.1 404"), "the node stream is for nodes only: {stream}");
}

#[tokio::test]
async fn who_offers_http2_gets_it() {
    use http_body_util::BodyExt;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let server = Server::start();
    let stream = soon(stranger(&server, &[b"h2", b"http/1.1"])).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = soon(builder.handshake(TokioIo::new(stream))).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/readyz").body(String::new()).unwrap();
    let answer = soon(sender.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "{\"status\":\"ready\"}");
    driver.abort();
}

#[tokio::test]
async fn a_node_without_a_certificate_gets_no_connection() {
    let server = Server::start();
    let mut stream = match soon(stranger(&server, &[ALPN_NODE])).await {
        // TLS 1.3 lets a client believe in success until it reads.
        Ok(stream) => stream,
        Err(error) => panic!("refused too early to see why: {error}"),
    };
    let error = soon(stream.read_u8()).await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn garbage_ends_its_own_connection_and_nothing_else() {
    let server = Server::start();
    let key = server.key(&["--reusable"]);
    let mut witness = Robot::new("witness", &key);
    let (mut at_witness, _) = witness.join(server.address, &key).await;
    let mut noise = Noise(0x5eed_1234_abcd_0001);

    for length in [0, 1, 5, 100, 5000] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may have hung up already.
        let _ = stream.write_all(&noise.bytes(length)).await;
        let _ = stream.shutdown().await;
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    let robot = Robot::new("robot", &key);
    let hello = to_bytes(&NodeMessage::Enrol({
        let connection = robot.connect(server.address).await;
        robot.enrol_request(&connection, &key)
    }));
    for round in 0..40 {
        let mut connection = robot.connect(server.address).await;
        let bytes = if round % 2 == 0 {
            let length = usize::try_from(noise.next() % 300).unwrap();
            noise.bytes(length)
        } else {
            // A real message with one byte changed. It may still be a message, but it can't be a good one.
            let mut bytes = hello.clone();
            let at = usize::try_from(noise.next()).unwrap() % bytes.len();
            bytes[at] ^= 1 << (noise.next() % 8);
            bytes
        };
        connection.send_bytes(bytes).await;
        let code = connection.refusal().await.code;
        let expected = [
            ErrorCode::BadMessage,
            ErrorCode::ProofFailed,
            ErrorCode::JoinKeyUnknown,
            ErrorCode::RateLimited,
        ];
        assert!(expected.contains(&code), "{code}");
    }
    assert_eq!(server.json(&["node", "list"]).as_array().unwrap().len(), 1);
    // A text, a message that is too long, and one that a member must not send.
    let mut connection = robot.connect(server.address).await;
    connection.socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(connection.refusal().await.code, ErrorCode::BadMessage);
    let mut connection = robot.connect(server.address).await;
    // The server may close before it has read all of it.
    let _ = connection.socket.send(Message::Binary(vec![0; MAX_NODE_MESSAGE + 1].into())).await;
    while let Some(Ok(_)) = soon(connection.socket.next()).await {}
    let (mut again, _) = witness.come_back(server.address, None).await;
    again.send(&witness.resume(None)).await;
    assert_eq!(again.refusal().await.code, ErrorCode::BadMessage);
    while at_witness.next_or_end().await.is_some() {}
    witness.come_back(server.address, None).await;
}

#[tokio::test]
async fn a_node_that_never_finishes_its_hello_does_not_stay() {
    let server = Server::start();
    let key = server.key(&[]);
    let robot = Robot::new("robot", &key);
    let mut connection = robot.connect_silently(server.address).await;
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    let ended = async { while let Some(Ok(_)) = connection.socket.next().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(40), ended)
        .await
        .expect("still open without a Hello");
    let mut rest = Vec::new();
    let hung_up = plain.read_to_end(&mut rest);
    tokio::time::timeout(std::time::Duration::from_secs(40), hung_up)
        .await
        .expect("still open without TLS")
        .unwrap();
}
