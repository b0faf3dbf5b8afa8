//! A login provider over real TLS that tells the truth, or lies as it is told to. Its page for people is left out: a test
//! comes back with a code as a browser would.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub const CLIENT: &str = "ria";
pub const SECRET: &str = "a secret/with:signs";

/// What the provider does and says.
pub struct Mind {
    key: EcdsaKeyPair,
    pub kid: String,
    /// What it says that it is.
    pub issuer: String,
    /// Over what it would say in an ID token.
    pub claims: Value,
    pub header: Value,
    pub userinfo: Value,
    pub publishes_keys: bool,
    /// Codes that were given out: challenge of PKCE, nonce.
    codes: BTreeMap<String, (String, String)>,
    pub key_requests: usize,
}

impl Mind {
    pub fn rotate(&mut self, kid: &str) {
        (self.key, self.kid) = (fresh_key(), kid.to_owned());
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

type Shared = Arc<Mutex<Mind>>;

/// It serves until it is dropped.
pub struct Provider {
    directory: TempDir,
    pub issuer: String,
    pub mind: Shared,
    task: tokio::task::JoinHandle<()>,
}

fn fresh_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

fn over(base: &mut Value, change: &Value) {
    for (name, value) in change.as_object().unwrap() {
        base[name] = value.clone();
    }
}

impl Provider {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://localhost:{}/realm", listener.local_addr().unwrap().port());
        let acceptor = acceptor(&directory.path().join("ca.pem"));
        std::fs::write(directory.path().join("secret"), format!("{SECRET}\n")).unwrap();
        let mind = Arc::new(Mutex::new(Mind {
            key: fresh_key(),
            kid: "one".into(),
            issuer: issuer.clone(),
            claims: json!({}),
            header: json!({}),
            userinfo: json!({ "sub": "4711", "email": "ada@uni.example", "email_verified": true }),
            publishes_keys: true,
            codes: BTreeMap::new(),
            key_requests: 0,
        }));
        let router = Router::new()
            .route("/realm/.well-known/openid-configuration", get(describe))
            .route("/realm/keys", get(keys))
            .route("/realm/token", post(token))
            .route("/realm/me", get(me))
            .with_state(mind.clone());
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = TowerToHyperService::new(router);
                    let served = hyper::server::conn::http1::Builder::new();
                    drop(served.serve_connection(TokioIo::new(tls), service).await);
                });
            }
        });
        Self { directory, issuer, mind, task }
    }

    /// The section of the coordinator's settings.
    pub fn settings(&self, more: &str) -> String {
        let path = |name: &str| -> PathBuf { self.directory.path().join(name) };
        format!(
            "[oidc]\nissuer = {:?}\nclient_id = {CLIENT:?}\nclient_secret_file = {:?}\nca = {:?}\nlabel = \"Log in at Uni\"\n{more}\n",
            self.issuer,
            path("secret"),
            path("ca.pem"),
        )
    }

    /// Somebody has logged in on its page, which was asked for by this query.
    pub fn code(&self, query: &BTreeMap<String, String>) -> String {
        let mut mind = self.mind.lock().unwrap();
        let code = format!("code-{}", mind.codes.len());
        assert_eq!(query["code_challenge_method"], "S256");
        mind.codes.insert(code.clone(), (query["code_challenge"].clone(), query["nonce"].clone()));
        code
    }

    pub fn change(&self, change: impl FnOnce(&mut Mind)) {
        change(&mut self.mind.lock().unwrap());
    }

    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor(ca_file: &std::path::Path) -> TlsAcceptor {
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(ca_file, ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn describe(State(mind): State<Shared>) -> Json<Value> {
    let issuer = mind.lock().unwrap().issuer.clone();
    let at = |path: &str| format!("{issuer}{path}");
    Json(json!({
        "issuer": issuer, "authorization_endpoint": at("/auth"), "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"), "userinfo_endpoint": at("/me"),
    }))
}

async fn keys(State(mind): State<Shared>) -> Json<Value> {
    let mut mind = mind.lock().unwrap();
    mind.key_requests += 1;
    let point = mind.key.public_key().as_ref();
    let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let key = json!({ "kty": "EC", "crv": "P-256", "kid": mind.kid, "use": "sig", "alg": "ES256",
                      "x": part(&point[1..33]), "y": part(&point[33..]) });
    Json(json!({ "keys": if mind.publishes_keys { vec![key] } else { Vec::new() } }))
}

async fn token(
    State(mind): State<Shared>,
    headers: HeaderMap,
    Form(form): Form<BTreeMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    let mut mind = mind.lock().unwrap();
    let pair = format!("{CLIENT}:a%20secret%2Fwith%3Asigns");
    let wanted = format!("Basic {}", BASE64.encode(pair.as_bytes()));
    if headers.get("authorization").is_none_or(|given| given.to_str().unwrap() != wanted) {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" })));
    }
    let Some((challenge, nonce)) = form.get("code").and_then(|code| mind.codes.remove(code)) else {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
    };
    let verifier = ring::digest::digest(&ring::digest::SHA256, form["code_verifier"].as_bytes());
    if BASE64URL_NOPAD.encode(verifier.as_ref()) != challenge {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({ "iss": mind.issuer, "sub": "4711", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": nonce });
    over(&mut claims, &mind.claims);
    let mut header = json!({ "alg": "ES256", "kid": mind.kid });
    over(&mut header, &mind.header);
    let id_token = mind.sign(&header, &claims);
    (StatusCode::OK, Json(json!({ "access_token": "at", "token_type": "Bearer", "id_token": id_token })))
}

async fn me(State(mind): State<Shared>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    if headers.get("authorization").is_none_or(|given| given != "Bearer at") {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_token" })));
    }
    (StatusCode::OK, Json(mind.lock().unwrap().userinfo.clone()))
}
