//! The certificate of the pages by ACME (RFC 8555): ordered, proven on the one port (TLS-ALPN-01, RFC 8737), kept in files
//! beside the identity, and renewed when two thirds of its life have passed. Until there is one, and while none can be
//! had, the pages show the own authority's.

pub mod challenge;
mod files;
mod order;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::Account;
use tokio_util::sync::CancellationToken;

use crate::config::{AcmeSettings, PageCertificate};
use crate::https::{Https, RootsError};
use crate::tls::operator::Operator;
use challenge::Challenges;
use files::Files;
use order::OrderError;

/// How often is looked whether it is time.
const EVERY: Duration = Duration::from_secs(60);

/// Time between tries while they fail, doubling: servers count failures, and block who has too many.
const TRY_FIRST: Duration = Duration::from_secs(60);
const TRY_LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Orders a certificate when one is due.
pub struct Keeper {
    settings: AcmeSettings,
    https: Https,
    files: Files,
    challenges: Challenges,
    operator: Arc<Operator>,
    account: Option<Account>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Where certificate and key are kept.
pub fn files(data_dir: &std::path::Path) -> PageCertificate {
    Files::new(data_dir).certificate()
}

impl Keeper {
    /// One that keeps its files below the data directory; `operator` shows them.
    pub fn new(
        settings: AcmeSettings,
        data_dir: &std::path::Path,
        challenges: Challenges,
        operator: Arc<Operator>,
    ) -> Result<Self, RootsError> {
        let https = Https::new("acme.ca", settings.ca.as_deref())?;
        Ok(Self { settings, https, files: Files::new(data_dir), challenges, operator, account: None })
    }

    /// Works until the coordinator drains.
    pub async fn run(mut self, draining: CancellationToken) {
        let mut again = TRY_FIRST;
        while !draining.is_cancelled() {
            let pause = if self.files.is_due(&self.settings.names, SystemTime::now()) {
                match draining.run_until_cancelled(self.obtain()).await {
                    None => return,
                    Some(Ok(())) => {
                        again = TRY_FIRST;
                        EVERY
                    }
                    Some(Err(error)) => {
                        let hint = "the pages show the certificate from before, or the own authority's";
                        tracing::warn!(%error, retry_s = again.as_secs(), "no certificate by ACME; {hint}");
                        let pause = again;
                        again = (again * 2).min(TRY_LONGEST);
                        pause
                    }
                }
            } else {
                EVERY
            };
            if draining.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn obtain(&mut self) -> Result<(), OrderError> {
        let account = match &self.account {
            Some(known) => known.clone(),
            None => {
                self.account.insert(order::account(&self.settings, &self.https, &self.files).await?).clone()
            }
        };
        let issued = order::certificate(&account, &self.settings.names, &self.challenges).await;
        self.challenges.clear();
        let (chain, key) = issued?;
        self.files.store(&chain, &key)?;
        self.operator.renew_if_changed();
        tracing::info!(
            names = self.settings.names.join(", "),
            by = self.settings.directory,
            "the pages have a certificate by ACME"
        );
        Ok(())
    }
}
