//! Relays in the database.

use std::sync::Arc;

use data_encoding::BASE64;
use ria_protocol::enrol::Authority;
use ria_protocol::relay::CredentialKey;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

use super::load::{damaged, number, optional_time, parsed, text, time};
use super::write::{Written, big};
use super::{Store, StoreError, Write};
use crate::state::relay::{Place, RelayEntry, RelayKind, StandaloneRelay, TurnServer, TurnTls};

/// Another TURN server.
const TURN: &str = "turn";
/// Ria's own relay on another machine.
const OWN: &str = "own";

impl Write<'_> {
    /// Nodes are told of another relay.
    pub async fn relay_added(&mut self, relay: &RelayEntry) -> Written {
        match &relay.kind {
            RelayKind::Turn(server) => self.turn_server_added(relay, server).await,
            RelayKind::Standalone(own) => self.standalone_relay_added(relay, own).await,
        }
    }

    async fn turn_server_added(&mut self, relay: &RelayEntry, server: &TurnServer) -> Written {
        let sql = "INSERT INTO relays (name, kind, host, udp_port, tls_port, secret, tls_ca, added) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        sqlx::query(sql)
            .bind(relay.name.as_str())
            .bind(TURN)
            .bind(&server.host)
            .bind(i64::from(server.udp_port))
            .bind(server.tls.as_ref().map(|tls| i64::from(tls.port)))
            .bind(server.secret.as_str())
            .bind(server.tls.as_ref().map(|tls| pem(&tls.authorities)))
            .bind(big(relay.added.0))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    async fn standalone_relay_added(&mut self, relay: &RelayEntry, own: &StandaloneRelay) -> Written {
        let sql = "INSERT INTO relays (name, kind, host, udp_port, secret, key_digest, key_expires, networks, added) \
                   VALUES ($1, $2, '', 0, $3, $4, $5, $6, $7)";
        let networks = own.networks.as_ref().map(serde_json::to_string).transpose();
        sqlx::query(sql)
            .bind(relay.name.as_str())
            .bind(OWN)
            .bind(BASE64.encode(&own.secret.0))
            .bind(BASE64.encode(&own.key_digest))
            .bind(own.key_expires.map(|at| big(at.0)))
            .bind(networks.map_err(|error| damaged("networks", error))?)
            .bind(big(relay.added.0))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A relay has said who it is and where.
    pub async fn relay_placed(&mut self, name: &str, own: &StandaloneRelay) -> Written {
        let Some(place) = &own.place else { return Ok(()) };
        let sql = "UPDATE relays SET tls_key = $1, host = $2, udp_port = $3, tls_port = $4 WHERE name = $5";
        sqlx::query(sql)
            .bind(own.tls_key.map(|key| key.to_string()))
            .bind(&place.host)
            .bind(i64::from(place.udp_port))
            .bind(place.tls_port.map(i64::from))
            .bind(name)
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// It is there no more.
    pub async fn relay_removed(&mut self, name: &str) -> Written {
        let sql = "DELETE FROM relays WHERE name = $1";
        sqlx::query(sql).bind(name).execute(&mut **self.transaction).await?;
        Ok(())
    }
}

impl Store {
    /// All relays, in order of their names.
    pub async fn relays(&self) -> Result<Vec<Arc<RelayEntry>>, StoreError> {
        let rows = sqlx::query("SELECT * FROM relays ORDER BY name").fetch_all(&self.writer).await?;
        rows.iter().map(|row| relay(row).map(Arc::new)).collect()
    }
}

fn relay(row: &AnyRow) -> Result<RelayEntry, StoreError> {
    let kind = match text(row, "kind")?.as_str() {
        TURN => RelayKind::Turn(turn_server(row)?),
        OWN => RelayKind::Standalone(standalone_relay(row)?),
        other => {
            return Err(damaged("kind", format!("{other:?} is no kind of relay that this version knows")));
        }
    };
    Ok(RelayEntry { name: parsed(row, "name")?, kind, added: time(row, "added")? })
}

fn turn_server(row: &AnyRow) -> Result<TurnServer, StoreError> {
    let tls = match (optional_port(row, "tls_port")?, optional_text(row, "tls_ca")?) {
        (Some(port), Some(ca)) => {
            let authorities = authorities(&ca).map_err(|error| damaged("tls_ca", error))?;
            Some(TurnTls { port, authorities })
        }
        (_, _) => None,
    };
    Ok(TurnServer {
        host: text(row, "host")?,
        udp_port: port(row, "udp_port")?,
        tls,
        secret: Zeroizing::new(text(row, "secret")?),
    })
}

fn standalone_relay(row: &AnyRow) -> Result<StandaloneRelay, StoreError> {
    let host = text(row, "host")?;
    let place = if host.is_empty() {
        None
    } else {
        let (udp_port, tls_port) = (port(row, "udp_port")?, optional_port(row, "tls_port")?);
        Some(Place { host, udp_port, tls_port })
    };
    let networks = optional_text(row, "networks")?;
    let tls_key = optional_text(row, "tls_key")?;
    let key_digest = optional_text(row, "key_digest")?.unwrap_or_default();
    Ok(StandaloneRelay {
        key_digest: bytes("key_digest", &key_digest)?,
        key_expires: optional_time(row, "key_expires")?,
        tls_key: tls_key.map(|key| key.parse().map_err(|e| damaged("tls_key", e))).transpose()?,
        networks: networks
            .map(|list| serde_json::from_str(&list).map_err(|e| damaged("networks", e)))
            .transpose()?,
        place,
        secret: CredentialKey(bytes("secret", &text(row, "secret")?)?),
    })
}

fn bytes(column: &str, text: &str) -> Result<[u8; 32], StoreError> {
    let decoded = BASE64.decode(text.as_bytes()).map_err(|error| damaged(column, error))?;
    decoded.try_into().map_err(|_| damaged(column, "wrong length"))
}

fn optional_text(row: &AnyRow, column: &str) -> Result<Option<String>, StoreError> {
    Ok(row.try_get::<Option<String>, _>(column)?)
}

fn port(row: &AnyRow, column: &str) -> Result<u16, StoreError> {
    u16::try_from(number(row, column)?).map_err(|error| damaged(column, error))
}

fn optional_port(row: &AnyRow, column: &str) -> Result<Option<u16>, StoreError> {
    let value = row.try_get::<Option<i64>, _>(column)?;
    value.map(|value| u16::try_from(value).map_err(|error| damaged(column, error))).transpose()
}

/// The certificates of a PEM file.
pub fn authorities(text: &str) -> Result<Vec<Authority>, String> {
    let all = Pem::iter_from_buffer(text.as_bytes()).map(|pem| {
        let pem = pem.map_err(|error| error.to_string())?;
        if pem.label != "CERTIFICATE" {
            return Err(format!("it holds a {}; give certificates only", pem.label));
        }
        pem.parse_x509().map_err(|error| error.to_string())?;
        Ok(Authority(pem.contents.clone()))
    });
    let all: Vec<Authority> = all.collect::<Result<_, _>>()?;
    if all.is_empty() { Err("there is no certificate (PEM) in it".to_owned()) } else { Ok(all) }
}

fn pem(authorities: &[Authority]) -> String {
    let mut text = String::new();
    for authority in authorities {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in BASE64.encode(&authority.0).as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
