//! Backups that are made by themselves: one each day, say, encrypted, into a directory of another machine's; the newest stay.
//!
//! How old the last one is, the directory says: neither a restart nor a second coordinator on the same settings makes more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use ria_protocol::message::{DecodeError, from_bytes};
use ria_protocol::time::UnixTime;
use tokio::time::sleep;

use super::seal;
use super::{Archive, BackupError, collect, files};
use crate::audit::Actor;
use crate::config::BackupSchedule;
use crate::registry::Unavailable;
use crate::session::Services;
use crate::store::Store;

const BEGINS: &str = "ria-coordinator-";
const ENDS: &str = ".backup";
/// How often it is looked whether one is due. Short against any schedule, and what failed is tried again as soon.
const LOOKED_EVERY: Duration = Duration::from_secs(60);

/// A backup that was due could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("{} can't be used: {source}; is it mounted, and may the coordinator write there? As a service it may write \
         to /var/backups/ria; another place takes ReadWritePaths= (systemctl edit ria-coordinator)", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Passphrase(#[from] super::PassphraseError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Seal(#[from] seal::OpenError),
    #[error("the archive can't be read: {0}")]
    Archive(#[from] DecodeError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The name of a backup's file.
pub fn file_name(archive: &Archive) -> String {
    format!("{BEGINS}{}-{}{ENDS}", archive.epoch.number, archive.made.0)
}

/// When the backup of this name was made; `None` for files that are none.
fn made(name: &str) -> Option<UnixTime> {
    let (_epoch, made) = name.strip_prefix(BEGINS)?.strip_suffix(ENDS)?.split_once('-')?;
    made.parse().ok().map(UnixTime)
}

/// Works until the coordinator drains.
pub async fn run(schedule: BackupSchedule, services: Arc<Services>, (store, data_dir): (Store, PathBuf)) {
    let draining = services.draining.clone();
    let look = async {
        let mut failing = false;
        loop {
            match make_if_due(&schedule, &services, (&store, &data_dir)).await {
                Ok(Some(path)) => tracing::info!(file = %path.display(), "backup made"),
                Ok(None) => {}
                Err(error) if !failing => {
                    tracing::error!(%error, "no backup is made; tried again each minute")
                }
                Err(error) => tracing::debug!(%error, "no backup is made"),
            }
            failing = services.counters.backup_failing.load(Ordering::Relaxed);
            sleep(LOOKED_EVERY).await;
        }
    };
    // There is no other end of it.
    let _: Option<()> = draining.run_until_cancelled(look).await;
}

/// Makes one when the last one is old enough; where it is then.
async fn make_if_due(
    schedule: &BackupSchedule,
    services: &Services,
    (store, data_dir): (&Store, &Path),
) -> Result<Option<PathBuf>, ScheduleError> {
    let done = async {
        let present = present(&schedule.directory)?;
        let last = present.last().map(|(made, _)| *made);
        let now = UnixTime::from(SystemTime::now());
        // One of the future was made while a clock was wrong.
        let due = last.is_none_or(|last| last > now || now.since(last) >= schedule.every);
        services.counters.last_backup.store(last.map_or(0, |made| made.0), Ordering::Relaxed);
        if !due {
            return Ok(None);
        }
        let passphrase = super::passphrase(&schedule.passphrase_file)?;
        services.registry.note_backup(Actor::Coordinator).await?;
        let content = collect(data_dir, store).await?;
        let archive: Archive = from_bytes(&content)?;
        let file = seal::seal(&content, Some(&passphrase))?;
        let path = schedule.directory.join(file_name(&archive));
        files::write_private(&path, &file).map_err(failed(&schedule.directory))?;
        services.counters.last_backup.store(archive.made.0, Ordering::Relaxed);
        forget_old(&schedule.directory, schedule.keep)?;
        Ok(Some(path))
    };
    let done = done.await;
    services.counters.backup_failing.store(done.is_err(), Ordering::Relaxed);
    done
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ScheduleError {
    let path = path.to_owned();
    move |source| ScheduleError::Directory { path: path.clone(), source }
}

/// The backups of a directory, oldest first.
fn present(directory: &Path) -> Result<Vec<(UnixTime, PathBuf)>, ScheduleError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        found.extend(entry.file_name().to_str().and_then(made).map(|made| (made, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// Removes all but the newest ones. Other files are nobody's business.
fn forget_old(directory: &Path, keep: usize) -> Result<(), ScheduleError> {
    let mut found = present(directory)?;
    found.truncate(found.len().saturating_sub(keep));
    for (_, path) in found {
        fs::remove_file(&path).map_err(failed(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let names = |times: &[u64]| -> Vec<String> {
            times.iter().map(|time| format!("{BEGINS}1-{time}{ENDS}")).collect()
        };
        let others = ["notes.txt", "ria-coordinator-1-x.backup", "my.backup"].map(str::to_owned);
        // As numbers, not as texts: 99 is older than 100.
        for name in names(&[99, 100, 5, 1000]).iter().chain(&others) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        forget_old(directory.path(), 2).unwrap();
        let mut left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = [names(&[100, 1000]), others.to_vec()].concat();
        expected.sort();
        assert_eq!(left, expected);
        assert!(present(&directory.path().join("missing")).unwrap_err().to_string().contains("mounted"));
    }
}
