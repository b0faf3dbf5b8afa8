//! One account and one order, as RFC 8555 has them.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, HttpClient, Identifier,
    NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenge::Challenges;
use super::files::Files;
use crate::config::AcmeSettings;
use crate::https::Https;

/// There is no certificate this time.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Acme(#[from] instant_acme::Error),
    #[error("the server does not prove {0} by TLS-ALPN-01")]
    NoChallenge(String),
    #[error(
        "the server could not see that {0} leads here ({1}); its port 443 has to be reached from the server's side, by \
         whatever stands before it"
    )]
    NotProven(String, String),
    #[error("a certificate can't be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("a certificate can't be used: {0}")]
    Key(#[from] rustls::Error),
    #[error("it can't be stored: {0}")]
    Store(#[from] io::Error),
}

/// Requests of the library by the coordinator's own client.
struct Client(Https);

impl HttpClient for Client {
    fn request(
        &self,
        request: axum::http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let https = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            // It comes whole.
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let answer = https.request(axum::http::Request::from_parts(parts, Full::new(body))).await;
            let answer = answer.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

/// The account from before, or a new one.
pub(super) async fn account(
    settings: &AcmeSettings,
    https: &Https,
    files: &Files,
) -> Result<Account, OrderError> {
    let builder = || Account::builder_with_http(Box::new(Client(https.clone())));
    let known = files.account().and_then(|text| serde_json::from_str::<Known>(&text).ok());
    if let Some(known) = known.filter(|known| known.directory == settings.directory) {
        return Ok(builder().from_credentials(known.credentials).await?);
    }
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder().create(&wanted, settings.directory.clone(), None).await?;
    let known = Known { directory: settings.directory.clone(), credentials };
    files.store_account(&serde_json::to_string(&known).map_err(io::Error::other)?)?;
    Ok(account)
}

/// An account, and at which server.
#[derive(serde::Serialize, serde::Deserialize)]
struct Known {
    directory: String,
    credentials: instant_acme::AccountCredentials,
}

/// A certificate with what leads to its authority, and its key, as PEM.
pub(super) async fn certificate(
    account: &Account,
    names: &[String],
    challenges: &Challenges,
) -> Result<(String, String), OrderError> {
    let wanted: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&wanted)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        // Nothing but names was asked for.
        let Identifier::Dns(name) = authorization.identifier().identifier.clone() else {
            return Err(OrderError::NoChallenge(names.join(", ")));
        };
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or_else(|| OrderError::NoChallenge(name.clone()))?;
        challenges.show(&name, challenge.key_authorization().digest().as_ref())?;
        challenge.set_ready().await?;
    }
    let status = order.poll_ready(&RetryPolicy::default()).await?;
    if status != OrderStatus::Ready {
        return Err(why_not(&mut order, names).await);
    }
    let key = KeyPair::generate()?;
    let mut request = CertificateParams::new(names.to_vec())?;
    request.distinguished_name = DistinguishedName::new();
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&RetryPolicy::default()).await?;
    Ok((chain, key.serialize_pem()))
}

/// What the server says of an order that failed.
async fn why_not(order: &mut instant_acme::Order, names: &[String]) -> OrderError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let reason = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let (Some(reason), Identifier::Dns(name)) = (reason, authorization.identifier().identifier) {
            return OrderError::NotProven(name.clone(), reason.to_string());
        }
    }
    OrderError::NotProven(names.join(", "), "it gives no reason".to_owned())
}
