//! The database behind the state: SQL that runs on SQLite and PostgreSQL alike, through sqlx's `Any` driver.
//!
//! One connection writes, on behalf of the registry; a few others read the audit log. The rest of the state is read
//! once, at the start. What the rows mean is the state's business.

mod audit;
mod enrolment;
mod file;
mod load;
mod people;
mod policy;
mod relays;
mod routes;
mod shared;
mod shelf;
mod stock;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use file::DatabaseFile;
use shared::Shared;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::MigrateError;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Executor, Transaction};

pub use enrolment::{Departure, KeyUse};
pub use file::{missing_file, path_of as sqlite_file};
pub use load::AuditQuery;
pub use relays::authorities;
pub use shared::{Instance, PasswordError, STORED, is_shared, with_password};
pub use write::Write;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

const READERS: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The database did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database can't be opened: {0}; check where it is and who may use it")]
    Open(#[source] sqlx::Error),
    #[error(
        "the database has a newer or altered schema: {0}; run the version of ria-coordinator that wrote it, or a newer one"
    )]
    Schema(#[from] MigrateError),
    #[error(
        "the database holds something that can't be read: {0}; restore it from a backup: ria-coordinator restore --force FILE"
    )]
    Damaged(String),
    #[error("the disk that holds the database is full; make room, then try again")]
    Full,
    #[error("the database is read-only; check the permissions and the mount of the data directory")]
    ReadOnly,
    #[error(
        "the database file {} was removed or replaced while the coordinator runs; put it back or restore it from a \
         backup, then restart the coordinator",
        .0.display()
    )]
    Moved(PathBuf),
    #[error(
        "only an SQLite database is backed up by this command; use the tools of your database, and copy the directory `identity`"
    )]
    NoFile,
    #[error(
        "the database is kept busy by another coordinator; try again, and if it stays so, look at the log of that one"
    )]
    Busy,
    #[error("a change that failed could not be taken back; nothing was stored, try again")]
    Undone,
    #[error("another coordinator has changed something at the same moment; nothing was stored, try again")]
    Overtaken,
    #[error("the database failed: {0}")]
    Failed(#[source] sqlx::Error),
}

/// The same of PostgreSQL (SQLSTATE); these have five characters, SQLite's codes have fewer.
const POSTGRES_DISK_FULL: &str = "53100";
const POSTGRES_READONLY: &str = "25006";
const POSTGRES_LOCK_NOT_AVAILABLE: &str = "55P03";
const POSTGRES_CORRUPTED: [&str; 2] = ["XX001", "XX002"];

/// SQLite's primary result codes that an administrator can do something about.
const SQLITE_READONLY: i64 = 8;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_FULL: i64 = 13;
const SQLITE_NOT_A_DATABASE: i64 = 26;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) = &error {
            return Self::Damaged(error.to_string());
        }
        let code = error.as_database_error().and_then(|e| e.code()).map(std::borrow::Cow::into_owned);
        if let Some(state) = code.as_deref().filter(|code| code.len() == 5) {
            return match state {
                POSTGRES_DISK_FULL => Self::Full,
                POSTGRES_READONLY => Self::ReadOnly,
                POSTGRES_LOCK_NOT_AVAILABLE => Self::Busy,
                state if POSTGRES_CORRUPTED.contains(&state) => Self::Damaged(error.to_string()),
                _ => Self::Failed(error),
            };
        }
        let code = code.and_then(|code| code.parse::<i64>().ok());
        // Extended codes carry the primary one in their low byte.
        match code.map(|c| c & 0xff) {
            Some(SQLITE_READONLY) => Self::ReadOnly,
            Some(SQLITE_FULL) => Self::Full,
            Some(SQLITE_CORRUPT | SQLITE_NOT_A_DATABASE) => Self::Damaged(error.to_string()),
            _ => Self::Failed(error),
        }
    }
}

/// The open database.
#[derive(Debug, Clone)]
pub struct Store {
    writer: AnyPool,
    readers: AnyPool,
    file: Option<DatabaseFile>,
    shared: Option<Arc<Shared>>,
}

impl Store {
    /// Opens the database, made when it is missing, and brings its schema up to date.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign enumeration; all others are about the schema"
    )]
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let options: AnyConnectOptions = url.parse().map_err(StoreError::Open)?;
        try_to_open(&options).await?;
        let options: AnyConnectOptions = existing(url).parse().map_err(StoreError::Open)?;
        let writer = pool(1).connect_with(options.clone()).await.map_err(StoreError::Open)?;
        MIGRATIONS.run(&writer).await.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            error => StoreError::Schema(error),
        })?;
        let readers = pool(READERS).connect_lazy_with(options);
        Ok(Self { writer, readers, file: DatabaseFile::of(url), shared: Shared::of(url) })
    }

    /// Begins a transaction of the one writer.
    pub async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        if let Some(path) = self.file.as_ref().and_then(DatabaseFile::moved) {
            return Err(StoreError::Moved(path));
        }
        let mut transaction = self.writer.begin().await?;
        if let Some(shared) = &self.shared {
            shared::check_turn(&mut transaction, shared).await?;
        }
        Ok(transaction)
    }

    /// Lets go of the writer's connection after a failure. A transaction that could not be ended, on a full disk say,
    /// would stay open on it, and all later changes would be within that one and lost with it.
    pub async fn renew_writer(&self) {
        if self.file.as_ref().and_then(DatabaseFile::moved).is_some() {
            return;
        }
        let closed = async { self.writer.acquire().await?.close().await };
        if let Err(error) = closed.await {
            tracing::debug!(%error, "the writer's connection is gone already");
        }
    }

    /// A copy of the database as it is at this moment, in a new file; changes may be made meanwhile.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        if self.file.is_none() {
            return Err(StoreError::NoFile);
        }
        let path = path.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO $1").bind(path).execute(&self.readers).await?;
        Ok(())
    }

    /// Writes back what is pending and closes all connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    #[cfg(test)]
    pub(crate) async fn execute(&self, sql: &'static str) -> Result<(), StoreError> {
        self.writer.execute(sql).await?;
        Ok(())
    }
}

/// The address of the SQLite database in a data directory.
pub fn sqlite_url(data_dir: &Path) -> String {
    file_url(&data_dir.join("coordinator.db"))
}

/// The address of the SQLite database in a file.
pub fn file_url(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;

    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            url.push(char::from(*byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url + "?mode=rwc"
}

/// For connections that are made later: where somebody has taken the file away, they must not put an empty one in its place, which
/// could pass for it.
fn existing(url: &str) -> String {
    url.split_once('?').map_or_else(
        || url.to_owned(),
        |(file, settings)| format!("{file}?{}", settings.replace("mode=rwc", "mode=rw")),
    )
}

/// Says at once what is wrong; a pool would go on trying for a while.
async fn try_to_open(options: &AnyConnectOptions) -> Result<(), StoreError> {
    let attempt = async {
        let mut connection = AnyConnection::connect_with(options).await?;
        prepare(&mut connection).await?;
        check(&mut connection).await?;
        connection.close().await
    };
    attempt.await.map_err(|error| match StoreError::from(error) {
        StoreError::Failed(error) => StoreError::Open(error),
        telling @ (StoreError::Open(_)
        | StoreError::Schema(_)
        | StoreError::Damaged(_)
        | StoreError::Full
        | StoreError::ReadOnly
        | StoreError::NoFile
        | StoreError::Busy
        | StoreError::Overtaken
        | StoreError::Undone
        | StoreError::Moved(_)) => telling,
    })
}

/// Whether an SQLite database is what SQLite wrote: better no start than one on half of what was known.
async fn check(connection: &mut AnyConnection) -> sqlx::Result<()> {
    if connection.backend_name() == "SQLite" {
        let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(connection).await?;
        if verdict != "ok" {
            return Err(sqlx::Error::Decode(verdict.into()));
        }
    }
    Ok(())
}

fn pool(size: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(prepare(connection)))
}

async fn prepare(connection: &mut AnyConnection) -> sqlx::Result<()> {
    if connection.backend_name() == "SQLite" {
        // A committed change survives a power failure; readers never wait for the writer.
        connection.execute("PRAGMA journal_mode = WAL").await?;
        connection.execute("PRAGMA synchronous = FULL").await?;
        connection.execute("PRAGMA foreign_keys = ON").await?;
        connection.execute("PRAGMA busy_timeout = 5000").await?;
        return Ok(());
    }
    shared::prepare(connection).await
}
