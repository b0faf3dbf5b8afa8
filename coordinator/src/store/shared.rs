//! A database that several coordinators write, which is PostgreSQL's business: they take turns, each sees what the others
//! have stored before it writes, and all hear of it.
//!
//! The *serial* counts what was stored. A turn is a lock of the database's for one session; should it get lost with the
//! connection, the serial shows that somebody else wrote meanwhile, and nothing is stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ria_protocol::id::BootId;
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::PgListener;
use sqlx::{Any, AnyConnection, Executor, Transaction};

use super::{Store, StoreError};
use crate::random;

/// The lock's number in the database; "ria" in ASCII.
const LOCK: i64 = 0x72_69_61;
/// The name in the database under which the serial stands.
const META_SERIAL: &str = "serial";
/// Whom it concerns that something was stored: `INSTANCE SERIAL`.
pub const STORED: &str = "ria_stored";
/// What coordinators tell each other of nodes that are connected to them.
pub(super) const LIVE: &str = "ria_live";

/// This run of a coordinator, among those that share the database.
pub type Instance = BootId;

/// What is particular about a shared database.
#[derive(Debug)]
pub(super) struct Shared {
    url: String,
    instance: Instance,
    /// The serial that the state in memory is of.
    serial: AtomicU64,
}

impl Shared {
    /// Of the database at this address, if it can be shared.
    pub fn of(url: &str) -> Option<Arc<Self>> {
        let instance = Instance::from_bytes(random::bytes());
        is_shared(url).then(|| Arc::new(Self { url: url.to_owned(), instance, serial: AtomicU64::new(0) }))
    }
}

/// Whether several coordinators may use the database at this address.
pub fn is_shared(url: &str) -> bool {
    ["postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme))
}

/// The address with a password in it, which stands in a file.
pub fn with_password(url: &str, file: &Path) -> Result<String, PasswordError> {
    let unreadable = |source| PasswordError::File { path: file.to_owned(), source };
    let password = std::fs::read_to_string(file).map_err(unreadable)?;
    let mut options: AnyConnectOptions = url.parse().map_err(|_| PasswordError::Url)?;
    let first = password.lines().next().unwrap_or_default();
    options.database_url.set_password(Some(first)).map_err(|()| PasswordError::Url)?;
    Ok(options.database_url.into())
}

/// The database's password can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("the password of the database can't be read from {}: {source}; check the file and who may read it", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the address of the database has no host that a password is for")]
    Url,
}

/// Settings of a connection: nobody waits for ever for another coordinator, and one whose machine is gone loses its turn.
pub(super) async fn prepare(connection: &mut AnyConnection) -> sqlx::Result<()> {
    for setting in [
        "SET lock_timeout = '10s'",
        "SET tcp_keepalives_idle = 5",
        "SET tcp_keepalives_interval = 5",
        "SET tcp_keepalives_count = 2",
    ] {
        connection.execute(setting).await?;
    }
    Ok(())
}

/// Within a transaction of a shared database: the turn is this one's until its end, and nobody has written in between.
pub(super) async fn check_turn(
    transaction: &mut Transaction<'static, Any>,
    shared: &Shared,
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM pg_advisory_xact_lock($1)";
    sqlx::query(sql).bind(LOCK).execute(&mut **transaction).await?;
    let sql = "SELECT value FROM meta WHERE name = $1";
    let stored: Option<String> =
        sqlx::query_scalar(sql).bind(META_SERIAL).fetch_optional(&mut **transaction).await?;
    let known = shared.serial.load(Ordering::Acquire);
    if parse(stored.as_deref()) == known { Ok(()) } else { Err(StoreError::Overtaken) }
}

fn parse(serial: Option<&str>) -> u64 {
    serial.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Store {
    /// This run among those that share the database; `None` where it is nobody else's.
    pub fn instance(&self) -> Option<Instance> {
        self.shared.as_ref().map(|shared| shared.instance)
    }

    /// Waits for a turn in which the state is loaded.
    pub async fn take_first_turn(&self) -> Result<(), StoreError> {
        self.take_turn().await?;
        self.note_serial().await
    }

    /// Waits for a turn to write, where others write too. Tells whether they have since the state was loaded.
    pub async fn take_turn(&self) -> Result<bool, StoreError> {
        let Some(shared) = &self.shared else { return Ok(false) };
        let sql = "SELECT 1 FROM pg_advisory_lock($1)";
        sqlx::query(sql).bind(LOCK).execute(&self.writer).await?;
        let stored = parse(self.meta(META_SERIAL).await?.as_deref());
        Ok(stored != shared.serial.load(Ordering::Acquire))
    }

    /// Lets the others write. A turn that is over already, with its connection, is no mistake.
    pub async fn end_turn(&self) {
        if self.shared.is_none() {
            return;
        }
        let sql = "SELECT CASE WHEN pg_advisory_unlock($1) THEN 1 ELSE 0 END";
        if let Err(error) = sqlx::query(sql).bind(LOCK).execute(&self.writer).await {
            tracing::debug!(%error, "the turn to write has ended with its connection");
        }
    }

    /// The state in memory is now the stored one. To be called within a turn.
    pub(super) async fn note_serial(&self) -> Result<(), StoreError> {
        if let Some(shared) = &self.shared {
            shared.serial.store(parse(self.meta(META_SERIAL).await?.as_deref()), Ordering::Release);
        }
        Ok(())
    }

    /// Stores what was written, and tells the other coordinators.
    pub async fn commit(&self, mut transaction: Transaction<'static, Any>) -> Result<(), StoreError> {
        let Some(shared) = &self.shared else { return Ok(transaction.commit().await?) };
        let serial = shared.serial.load(Ordering::Acquire) + 1;
        super::Write::new(&mut transaction).meta(META_SERIAL, &serial.to_string()).await?;
        let news = format!("{} {serial}", shared.instance);
        notify(STORED, &news, &mut *transaction).await?;
        transaction.commit().await?;
        shared.serial.store(serial, Ordering::Release);
        Ok(())
    }

    /// Tells the other coordinators something that is not stored.
    pub async fn tell_others(&self, text: &str) -> Result<(), StoreError> {
        notify(LIVE, text, &self.readers).await
    }

    /// Hears what the others tell and store, beginning now.
    pub async fn listen(&self) -> Result<Option<PgListener>, StoreError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let mut listener = PgListener::connect(&shared.url).await?;
        listener.listen_all([STORED, LIVE]).await?;
        Ok(Some(listener))
    }
}

async fn notify<'e>(
    channel: &str,
    text: &str,
    executor: impl Executor<'e, Database = Any>,
) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM pg_notify($1, $2)";
    sqlx::query(sql).bind(channel.to_owned()).bind(text.to_owned()).execute(executor).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_stands_in_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "p@ss/w:rd\n").unwrap();
        let url = with_password("postgres://ria@db.lab.example/ria", &file).unwrap();
        assert_eq!(url, "postgres://ria:p%40ss%2Fw%3Ard@db.lab.example/ria");
        let missing = with_password("postgres://ria@db/ria", &directory.path().join("no")).unwrap_err();
        assert!(missing.to_string().contains("who may read it"), "{missing}");
    }
}
