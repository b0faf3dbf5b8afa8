//! People and their tokens in the database.

use std::collections::BTreeSet;
use std::sync::Arc;

use data_encoding::BASE64;
use ria_protocol::id::{KeyId, NodeId};
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::load::{damaged, number, optional_time, parsed, text, time};
use super::write::{Written, big};
use super::{Store, StoreError, Write};
use crate::state::people::{Federated, Invitation, LocalLogin, People, TokenEntry, UserEntry, UserName};

impl Write<'_> {
    /// Somebody, new or changed.
    pub async fn user(&mut self, user: &UserEntry) -> Written {
        let sql = "INSERT INTO users (name, roles, password_hash, totp_secret, invitation_digest, \
                   invitation_expires, created, disabled, version, era, issuer, subject, person_groups) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (name) DO UPDATE SET \
                   roles = excluded.roles, password_hash = excluded.password_hash, \
                   totp_secret = excluded.totp_secret, invitation_digest = excluded.invitation_digest, \
                   invitation_expires = excluded.invitation_expires, disabled = excluded.disabled, \
                   version = excluded.version, era = excluded.era, issuer = excluded.issuer, \
                   subject = excluded.subject, person_groups = excluded.person_groups";
        let federated = user.federated.as_ref();
        let groups = federated.map(|own| serde_json::to_string(&own.groups)).transpose();
        sqlx::query(sql)
            .bind(user.name.as_str())
            .bind(serde_json::to_string(&user.roles).map_err(|error| damaged("roles", error))?)
            .bind(user.login.as_ref().map(|login| login.password_hash.clone()))
            .bind(user.login.as_ref().map(|login| BASE64.encode(&login.totp_secret)))
            .bind(user.invitation.as_ref().map(|invitation| BASE64.encode(&invitation.digest)))
            .bind(user.invitation.as_ref().map(|invitation| big(invitation.expires.0)))
            .bind(big(user.created.0))
            .bind(user.disabled.map(|time| big(time.0)))
            .bind(big(user.version))
            .bind(big(user.era))
            .bind(federated.map(|own| own.issuer.clone()))
            .bind(federated.map(|own| own.subject.clone()))
            .bind(groups.map_err(|error| damaged("groups", error))?)
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// Somebody is not known any more.
    pub async fn user_removed(&mut self, name: &UserName) -> Written {
        for sql in ["DELETE FROM tokens WHERE user_name = $1", "DELETE FROM users WHERE name = $1"] {
            sqlx::query(sql).bind(name.as_str()).execute(&mut **self.transaction).await?;
        }
        Ok(())
    }

    /// A new token.
    pub async fn token(&mut self, token: &TokenEntry) -> Written {
        let sql = "INSERT INTO tokens (id, user_name, label, digest, scopes, created, expires) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        sqlx::query(sql)
            .bind(token.id.to_string())
            .bind(token.user.as_str())
            .bind(&token.label)
            .bind(BASE64.encode(&token.digest))
            .bind(serde_json::to_string(&token.scopes).map_err(|error| damaged("scopes", error))?)
            .bind(big(token.created.0))
            .bind(token.expires.map(|time| big(time.0)))
            .execute(&mut **self.transaction)
            .await?;
        Ok(())
    }

    /// A token is good for nothing any more.
    pub async fn token_removed(&mut self, id: KeyId) -> Written {
        let sql = "DELETE FROM tokens WHERE id = $1";
        sqlx::query(sql).bind(id.to_string()).execute(&mut **self.transaction).await?;
        Ok(())
    }
}

impl Store {
    /// All people and tokens.
    pub async fn people(&self) -> Result<People, StoreError> {
        let mut people = People::default();
        for row in sqlx::query("SELECT * FROM users").fetch_all(&self.writer).await? {
            let user = user(&row)?;
            people.users.insert(user.name.clone(), Arc::new(user));
        }
        for row in sqlx::query("SELECT * FROM tokens").fetch_all(&self.writer).await? {
            let token = token(&row)?;
            people.tokens.insert(token.id, Arc::new(token));
        }
        Ok(people)
    }

    /// What somebody made that outlives a session, by the audit log: the subjects of `action`.
    pub async fn made_by(&self, user: &UserName, action: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT subject FROM audit WHERE actor = $1 AND action = $2 ORDER BY seq";
        let actor = format!("user:{user}");
        let rows = sqlx::query(sql).bind(actor).bind(action).fetch_all(&self.readers).await?;
        rows.iter().map(|row| text(row, "subject")).collect()
    }

    /// The static peers that somebody has added, by the audit log.
    pub async fn static_peers_of(&self, user: &UserName) -> Result<BTreeSet<NodeId>, StoreError> {
        let sql = "SELECT detail FROM audit WHERE actor = $1 AND action = 'static-peer.added'";
        let rows = sqlx::query(sql).bind(format!("user:{user}")).fetch_all(&self.readers).await?;
        let node = |row: &AnyRow| -> Result<Option<NodeId>, StoreError> {
            let detail: serde_json::Value =
                serde_json::from_str(&text(row, "detail")?).map_err(|e| damaged("detail", e))?;
            Ok(detail.get("node").and_then(|node| node.as_str()?.parse().ok()))
        };
        rows.iter().filter_map(|row| node(row).transpose()).collect()
    }
}

fn bytes(row: &AnyRow, column: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let text = row.try_get::<Option<String>, _>(column)?;
    text.map(|text| BASE64.decode(text.as_bytes()).map_err(|e| damaged(column, e))).transpose()
}

fn digest(row: &AnyRow, column: &str) -> Result<Option<[u8; 32]>, StoreError> {
    let bytes = bytes(row, column)?;
    bytes.map(|bytes| bytes.try_into().map_err(|_| damaged(column, "wrong length"))).transpose()
}

fn user(row: &AnyRow) -> Result<UserEntry, StoreError> {
    let login = match (row.try_get::<Option<String>, _>("password_hash")?, bytes(row, "totp_secret")?) {
        (Some(password_hash), Some(totp_secret)) => Some(LocalLogin { password_hash, totp_secret }),
        (_, _) => None,
    };
    let invitation = match (digest(row, "invitation_digest")?, optional_time(row, "invitation_expires")?) {
        (Some(digest), Some(expires)) => Some(Invitation { digest, expires }),
        (_, _) => None,
    };
    let optional = |column| row.try_get::<Option<String>, _>(column);
    let federated = match (optional("issuer")?, optional("subject")?, optional("person_groups")?) {
        (Some(issuer), Some(subject), groups) => {
            let groups = groups.map(|text| serde_json::from_str(&text)).transpose();
            let groups = groups.map_err(|error| damaged("groups", error))?.unwrap_or_default();
            Some(Federated { issuer, subject, groups })
        }
        (_, _, _) => None,
    };
    Ok(UserEntry {
        federated,
        name: parsed(row, "name")?,
        roles: serde_json::from_str(&text(row, "roles")?).map_err(|e| damaged("roles", e))?,
        login,
        invitation,
        created: time(row, "created")?,
        disabled: optional_time(row, "disabled")?,
        version: number(row, "version")?,
        era: number(row, "era")?,
    })
}

fn token(row: &AnyRow) -> Result<TokenEntry, StoreError> {
    Ok(TokenEntry {
        id: parsed(row, "id")?,
        user: parsed(row, "user_name")?,
        label: text(row, "label")?,
        digest: digest(row, "digest")?.ok_or_else(|| damaged("digest", "missing"))?,
        scopes: serde_json::from_str(&text(row, "scopes")?).map_err(|e| damaged("scopes", e))?,
        created: time(row, "created")?,
        expires: optional_time(row, "expires")?,
    })
}
