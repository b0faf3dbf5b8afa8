//! Settings of backups that are made by themselves.

use std::path::PathBuf;
use std::time::Duration;

use super::sources::Sources;

const EVERY: Duration = Duration::from_secs(24 * 3600);
const KEPT: u64 = 14;

/// When and where backups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSchedule {
    pub every: Duration,
    /// Has to be there; as a rule another machine's, mounted.
    pub directory: PathBuf,
    /// Its first line encrypts them.
    pub passphrase_file: PathBuf,
    /// The newest so many stay.
    pub keep: usize,
}

impl BackupSchedule {
    pub(super) fn find(sources: &mut Sources<'_>, shared: bool) -> Option<Self> {
        let section = Some("backup");
        let directory = sources.find(None, "RIA_BACKUP_DIRECTORY", section, "directory");
        let passphrase = sources.find(None, "RIA_BACKUP_PASSPHRASE_FILE", section, "passphrase_file");
        let every = sources.find(None, "RIA_BACKUP_EVERY", section, "every");
        let keep = sources.find(None, "RIA_BACKUP_KEEP", section, "keep");
        let every = sources.lifetime(every, EVERY);
        let keep = sources.number(keep).unwrap_or(KEPT);
        let passphrase = sources.text(passphrase);
        let (directory, place) = sources.text(directory)?;
        if shared {
            return sources.wrong(
                &place,
                "a PostgreSQL database is backed up by its own tools (pg_dump); copy `identity` beside it",
            );
        }
        let Some((passphrase_file, _)) = passphrase else {
            return sources.wrong(
                &place,
                "give backup.passphrase_file (RIA_BACKUP_PASSPHRASE_FILE) as well: a backup holds the authority's key",
            );
        };
        Some(Self {
            every,
            directory: directory.into(),
            passphrase_file: passphrase_file.into(),
            keep: usize::try_from(keep).unwrap_or(usize::MAX),
        })
    }
}
