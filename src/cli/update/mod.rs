//! `ria update`: fetches a signed release, tries it, and keeps it only when the agent is as well with it as before.
//!
//! Owns the order of things: nothing is unpacked, run or replaced before the signature, the size and the digest are right.
//! For programs that `ria install` has put in place; packages are the package manager's.

mod release;
mod settings;
mod source;
mod trial;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::digest::{Context as Digest, SHA256};
use serde_json::json;

use self::release::{
    LONGEST_MANIFEST, LONGEST_SIGNATURE, MANIFEST, Program, Release, ReleaseError, SIGNATURE, Version,
};
use self::settings::Settings;
use self::source::SourceError;
use self::trial::Trial;
use super::Context;
use super::args::UpdateArgs;
use super::failure::{FAILED, Failure, USAGE};
use super::output::with_progress;
use super::service::{DIRECTORY, PREVIOUS, PROGRAM, can_not, need_root, packaged};
use crate::config::{Config, Overrides};
use crate::coordinator::reach::Reach;

pub async fn run(context: &Context, args: &UpdateArgs) -> Result<(), Failure> {
    need_root("ria update")?;
    if args.guard {
        return trial::guard();
    }
    if args.watch {
        return trial::watch(context).await;
    }
    if packaged() {
        return Err(Failure::new(
            FAILED,
            "Ria is here as a package; to update it: apt install ./ria_VERSION_ARCH.deb",
        ));
    }
    let here: Version =
        env!("CARGO_PKG_VERSION").parse().map_err(|error: String| Failure::new(FAILED, error))?;
    if !args.check {
        may_begin()?;
    }
    let patience = Duration::from_secs_f64(args.timeout);
    let (to, program) = if args.rollback {
        previous()?
    } else {
        let settings = Settings::load(Path::new(settings::FILE), args.from.as_deref(), patience)?;
        let reach = reach(&settings)?;
        let release = with_progress("Looking for a release", look(&settings, &reach)).await?;
        if args.check {
            return tell_check(context, here, release.version);
        }
        if release.version == here {
            return tell(context, false, (here, here), &format!("{here} is the newest release already"));
        }
        if release.version < here && !args.allow_downgrade {
            return Err(Failure::new(
                FAILED,
                format!(
                    "the release there, {}, is older than this one, {here}; if that is meant: --allow-downgrade",
                    release.version
                ),
            ));
        }
        let program = release.program(std::env::consts::ARCH).map_err(no_release)?;
        let staged = fetch(&settings, &reach, program, &staged_at(release.version)).await?;
        runs(&staged, release.version)?;
        (release.version, staged)
    };
    try_it(context, (here, to), program, patience).await
}

/// Nothing is tried before what is tried now is decided, and only from what `ria install` has made.
fn may_begin() -> Result<(), Failure> {
    if let Some(trial) = trial::current()? {
        return Err(Failure::new(
            FAILED,
            format!("an update to {} is under way; wait for its end", trial.to),
        ));
    }
    if Path::new(PROGRAM).exists() {
        return Ok(());
    }
    Err(Failure::new(FAILED, format!("there is no {PROGRAM}; install this program first: sudo ria install")))
}

async fn try_it(
    context: &Context,
    (from, to): (Version, Version),
    program: PathBuf,
    patience: Duration,
) -> Result<(), Failure> {
    let connected = trial::connected(context).await;
    let trial = Trial {
        from,
        to,
        program,
        patience: patience.as_secs().max(1),
        connected,
        starts: 0,
        given_up: false,
    };
    trial.begin()?;
    let outcome = with_progress(&format!("Trying {to}"), trial.outcome()).await?;
    if outcome.updated {
        return tell(context, true, (from, to), &outcome.text);
    }
    Err(Failure::new(FAILED, outcome.text))
}

/// The program from before, where it can't be overwritten by what is there now.
fn previous() -> Result<(Version, PathBuf), Failure> {
    let said = said_version(Path::new(PREVIOUS))
        .map_err(|why| Failure::new(FAILED, format!("there is no earlier program to go back to ({why})")))?;
    let version: Version = said.parse().map_err(|error: String| Failure::new(FAILED, error))?;
    let staged = staged_at(version);
    fs::copy(PREVIOUS, &staged).map_err(|error| can_not("write", &staged, &error))?;
    Ok((version, staged))
}

fn staged_at(version: Version) -> PathBuf {
    Path::new(DIRECTORY).join(format!("ria-{version}"))
}

/// How this machine gets out, as the agent does.
fn reach(settings: &Settings) -> Result<Reach, Failure> {
    if matches!(settings.source, source::Source::Directory(_)) {
        return Ok(Reach::default());
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let config = Config::load(&Overrides::default(), variable);
    config.map(|config| config.reach).map_err(|errors| Failure::new(USAGE, errors.to_string().trim_end()))
}

fn no_release(error: ReleaseError) -> Failure {
    Failure::new(FAILED, error.to_string())
}

fn not_fetched(error: SourceError) -> Failure {
    Failure::new(FAILED, error.to_string())
}

async fn look(settings: &Settings, reach: &Reach) -> Result<Release, Failure> {
    let from = &settings.source;
    let manifest = from.read(reach, MANIFEST, LONGEST_MANIFEST).await.map_err(not_fetched)?;
    let signature = from.read(reach, SIGNATURE, LONGEST_SIGNATURE).await.map_err(not_fetched)?;
    Release::verify(&manifest, &signature, &settings.keys).map_err(no_release)
}

/// Lays the program down beside the one in use, once it is whole.
async fn fetch(settings: &Settings, reach: &Reach, program: &Program, to: &Path) -> Result<PathBuf, Failure> {
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory).map_err(|error| can_not("make", directory, &error))?;
    let failed = |error: io::Error| can_not("write", directory, &error);
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let (mut digest, mut size) = (Digest::new(&SHA256), 0);
    let mut keep = |piece: &[u8]| {
        size += piece.len() as u64;
        digest.update(piece);
        file.write_all(piece)
    };
    let fetching = settings.source.fetch(reach, &program.file, program.size, &mut keep);
    with_progress(&format!("Fetching {}", program.file), fetching).await.map_err(not_fetched)?;
    let wanted = HEXLOWER_PERMISSIVE.decode(program.sha256.as_bytes()).unwrap_or_default();
    if size != program.size || digest.finish().as_ref() != wanted {
        return Err(Failure::new(
            FAILED,
            format!(
                "{} is not what was signed ({size} of {} bytes): it was damaged or changed on its way; nothing was changed. \
                 Try again",
                program.file, program.size
            ),
        ));
    }
    file.as_file().sync_all().map_err(failed)?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let kept: File = file.persist(to).map_err(|error| failed(error.error))?;
    // A program that is open for writing can't be run.
    drop(kept);
    Ok(to.to_owned())
}

/// Whether the program can be run on this machine, and is what the release says.
fn runs(program: &Path, version: Version) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::new(
            FAILED,
            format!("the new program does not run on this machine: {why}; nothing was changed"),
        )
    };
    let said = said_version(program).map_err(failed)?;
    if said == version.to_string() {
        return Ok(());
    }
    Err(failed(format!("it says that it is {said}, and the release that it is {version}")))
}

fn said_version(program: &Path) -> Result<String, String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match said.strip_prefix("ria ") {
        Some(version) if output.status.success() => Ok(version.to_owned()),
        _ => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn tell_check(context: &Context, here: Version, there: Version) -> Result<(), Failure> {
    if context.output.json {
        let value = json!({ "version": here, "available": there, "newer": there > here });
        return Ok(context.output.value(&value)?);
    }
    let text = if there > here {
        format!("{there} is there; this is {here}. To update: sudo ria update")
    } else {
        format!("{there} is there; this is {here}: nothing to do")
    };
    Ok(context.output.line(text)?)
}

fn tell(context: &Context, updated: bool, (from, to): (Version, Version), text: &str) -> Result<(), Failure> {
    if context.output.json {
        return Ok(context
            .output
            .value(&json!({ "updated": updated, "from": from, "to": to, "text": text }))?);
    }
    Ok(context.output.line(text)?)
}
