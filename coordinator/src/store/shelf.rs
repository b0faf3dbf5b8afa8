//! What is kept for a while only, where coordinators share the database. None of it is part of the state: it has no turn, no
//! revision and no serial, and each statement stands alone.

use data_encoding::HEXLOWER;
use ria_protocol::time::UnixTime;
use sqlx::any::AnyRow;

use super::load::{damaged, text, time};
use super::write::big;
use super::{Store, StoreError};
use crate::people::shelf::{Id, Kept, Kind};

/// Name of the key from which all coordinators on the database make the secrets of forms.
const META_FORMS: &str = "forms_key";

impl Store {
    /// Puts a thing there; `false` when there is one already. What has expired goes.
    pub async fn shelve(&self, kind: Kind, id: &Id, kept: &Kept, now: UnixTime) -> Result<bool, StoreError> {
        let sql = "DELETE FROM shelf WHERE expires <= $1";
        sqlx::query(sql).bind(big(now.0)).execute(&self.readers).await?;
        let sql = "INSERT INTO shelf (kind, id, owner, value, made, expires) VALUES ($1, $2, $3, $4, $5, $6) \
                   ON CONFLICT (kind, id) DO NOTHING";
        let query = sqlx::query(sql).bind(kind.name()).bind(HEXLOWER.encode(id)).bind(kept.owner.clone());
        let query = query.bind(kept.value.clone()).bind(big(kept.made.0)).bind(big(kept.expires.0));
        Ok(query.execute(&self.readers).await?.rows_affected() == 1)
    }

    /// What is there.
    pub async fn shelved(&self, kind: Kind, id: &Id, now: UnixTime) -> Result<Option<Kept>, StoreError> {
        let sql = "SELECT * FROM shelf WHERE kind = $1 AND id = $2 AND expires > $3";
        let query = sqlx::query(sql).bind(kind.name()).bind(HEXLOWER.encode(id)).bind(big(now.0));
        query.fetch_optional(&self.readers).await?.map(|row| kept(&row)).transpose()
    }

    /// Takes a thing away that has this value; `false` when there is none.
    pub async fn unshelve(&self, kind: Kind, id: &Id, value: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM shelf WHERE kind = $1 AND id = $2 AND value = $3";
        let query = sqlx::query(sql).bind(kind.name()).bind(HEXLOWER.encode(id)).bind(value.to_owned());
        Ok(query.execute(&self.readers).await?.rows_affected() == 1)
    }

    /// Puts a thing in the place of one that has this value; `false` when there is none.
    pub async fn reshelve(&self, kind: Kind, id: &Id, value: &str, by: &Kept) -> Result<bool, StoreError> {
        let sql = "UPDATE shelf SET value = $4, expires = $5 WHERE kind = $1 AND id = $2 AND value = $3";
        let query = sqlx::query(sql).bind(kind.name()).bind(HEXLOWER.encode(id)).bind(value.to_owned());
        let query = query.bind(by.value.clone()).bind(big(by.expires.0));
        Ok(query.execute(&self.readers).await?.rows_affected() == 1)
    }

    /// All of a kind, or of an owner.
    pub async fn all_shelved(
        &self,
        kind: Kind,
        owner: Option<&str>,
        now: UnixTime,
    ) -> Result<Vec<(Id, Kept)>, StoreError> {
        let all = "SELECT * FROM shelf WHERE kind = $1 AND expires > $2";
        let own = "SELECT * FROM shelf WHERE kind = $1 AND expires > $2 AND owner = $3";
        let query = sqlx::query(if owner.is_some() { own } else { all });
        let query = query.bind(kind.name()).bind(big(now.0));
        let query = match owner {
            Some(owner) => query.bind(owner.to_owned()),
            None => query,
        };
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok((id(row)?, kept(row)?))).collect()
    }

    /// The key from which secrets of forms are made: all coordinators on the database have the same.
    pub async fn forms_key(&self) -> Result<[u8; 32], StoreError> {
        let fresh = HEXLOWER.encode(&crate::random::bytes::<32>());
        let sql = "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        sqlx::query(sql).bind(META_FORMS).bind(fresh).execute(&self.writer).await?;
        let stored = self.meta(META_FORMS).await?.unwrap_or_default();
        bytes(&stored).map_err(|error| damaged(META_FORMS, error))
    }
}

fn bytes(text: &str) -> Result<[u8; 32], &'static str> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| "no hexadecimal digits")?;
    bytes.try_into().map_err(|_| "wrong length")
}

fn id(row: &AnyRow) -> Result<Id, StoreError> {
    bytes(&text(row, "id")?).map_err(|error| damaged("id", error))
}

fn kept(row: &AnyRow) -> Result<Kept, StoreError> {
    let (made, expires) = (time(row, "made")?, time(row, "expires")?);
    Ok(Kept { owner: text(row, "owner")?, value: text(row, "value")?, made, expires })
}
