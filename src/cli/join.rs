//! `ria join`: gets the key to the agent without ever showing it: not in arguments, which every user can list, not
//! in a shell's history, not on the terminal.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use ria_api::client::Agent;
use ria_api::state::{JoinOptions, Joined};
use zeroize::Zeroizing;

use super::Context;
use super::approval;
use super::args::JoinArgs;
use super::failure::{FAILED, Failure, USAGE};
use super::output::{Colour, with_progress};

const KEY_VARIABLE: &str = "RIA_JOIN_KEY";

/// Longest text that is taken for a key; the agent reads no more either.
const MAX: u64 = 4096;

pub async fn run(context: &Context, args: JoinArgs) -> Result<(), Failure> {
    refuse_keys_in_arguments(&args)?;
    let agent = context.agent().await?;
    let key = open_key(&args)?;
    finish(context, &agent, Joining { key: key.as_fd(), name: args.name, wait: args.wait }).await
}

/// What the agent is given to join.
pub(super) struct Joining<'k> {
    /// From which it reads the key.
    pub key: BorrowedFd<'k>,
    pub name: Option<String>,
    pub wait: Option<f64>,
}

/// Has the agent join, and tells what came of it.
pub(super) async fn finish(context: &Context, agent: &Agent, joining: Joining<'_>) -> Result<(), Failure> {
    let options = JoinOptions { name: joining.name };
    let mut joined = with_progress("Joining", agent.proxy().join(joining.key.into(), options)).await?;
    if joined.waiting {
        approval::wait(agent, &mut joined, joining.wait).await?;
    }
    if context.output.json {
        return Ok(context.output.value(&joined)?);
    }
    let status = agent.network_at(&joined.path).await?.status().await?;
    let address = status.addresses.first().map_or("", |a| a.split('/').next().unwrap_or(a));
    let done = if joined.already { "already in" } else { "joined" };
    let Joined { network, name, .. } = &joined;
    let line = format!("{done} {network} as {name}: {address} on {}", status.interface);
    context.output.line(context.output.paint(Colour::Good, line))?;
    context.output.line("for ROS 2 in this terminal: eval \"$(ria env)\"   the others: ria peers")?;
    Ok(())
}

/// First of all, whether an agent runs or not: the harm is done already.
fn refuse_keys_in_arguments(args: &JoinArgs) -> Result<(), Failure> {
    let mut given =
        args.source.iter().map(OsString::as_os_str).chain(args.file.iter().map(|f| f.as_os_str()));
    if given.any(|text| text.to_string_lossy().to_ascii_lowercase().starts_with("ria1_")) {
        return Err(Failure::new(
            USAGE,
            "a join key is a secret, and arguments are seen by every user of this machine (ps) and kept in the \
             shell's history; use `ria join -` and paste it, or `ria join --file FILE`. If others could have seen \
             this key, have it revoked: ria-coordinator key revoke",
        ));
    }
    match &args.source {
        Some(source) if source != "-" => {
            Err(Failure::new(USAGE, "ria join takes `-` (key on standard input) or --file FILE"))
        }
        _ => Ok(()),
    }
}

/// A descriptor from which the agent can read the key.
fn open_key(args: &JoinArgs) -> Result<OwnedFd, Failure> {
    if let Some(path) = &args.file {
        if path.is_dir() {
            let text =
                format!("{} is a directory; name the file in it that holds the join key", path.display());
            return Err(Failure::new(USAGE, text));
        }
        // A pipe that nobody writes to must not hold this command; the agent gives its writer a while.
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        return match opened {
            Ok(file) => Ok(file.into()),
            Err(error) => {
                Err(Failure::new(FAILED, format!("can't open the join key {}: {error}", path.display())))
            }
        };
    }
    if args.source.is_some() {
        return Ok(pipe(&read_stdin()?)?);
    }
    match std::env::var(KEY_VARIABLE).map(Zeroizing::new) {
        Ok(key) if !key.trim().is_empty() => Ok(pipe(key.as_bytes())?),
        _ => Err(Failure::new(
            USAGE,
            format!(
                "no join key: give it by `ria join -` (then paste it), by `ria join --file FILE` or in \
                 {KEY_VARIABLE}; the administrator makes one with: ria-coordinator key create"
            ),
        )),
    }
}

fn read_stdin() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let stdin = io::stdin();
    let mut text = Zeroizing::new(Vec::with_capacity(MAX as usize + 1));
    let read = if stdin.is_terminal() {
        let _ = write!(io::stderr(), "Paste the join key (it is not shown): ");
        let line = without_echo(|| read_line(&mut text));
        let _ = writeln!(io::stderr());
        line
    } else {
        stdin.lock().take(MAX + 1).read_to_end(&mut text).map(|_| ())
    };
    read.map_err(|error| {
        Failure::new(FAILED, format!("can't read the join key from standard input: {error}"))
    })?;
    Ok(text)
}

fn read_line(text: &mut Vec<u8>) -> io::Result<()> {
    use std::io::BufRead;
    io::stdin().lock().take(MAX + 1).read_until(b'\n', text).map(|_| ())
}

fn without_echo<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let terminal = io::stdin();
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent)?;
    let result = work();
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &before)?;
    result
}

/// A pipe holds this little at once, so nobody has to write while the agent reads.
pub(super) fn pipe(key: &[u8]) -> io::Result<OwnedFd> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(key)?;
    Ok(reader.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: Option<&str>, file: Option<&str>) -> String {
        let args =
            JoinArgs { source: source.map(Into::into), file: file.map(Into::into), name: None, wait: None };
        let Err(Failure::Told { code: USAGE, text }) = refuse_keys_in_arguments(&args) else {
            panic!("taken, or the wrong failure")
        };
        text
    }

    #[test]
    fn a_key_among_the_arguments_is_refused_and_not_repeated() {
        let key = Some("ria1_secretsecret");
        for text in [refused(key, None), refused(None, key), refused(Some("RIA1_SECRETSECRET"), None)] {
            assert!(text.contains("history") && !text.to_lowercase().contains("secretsecret"), "{text}");
        }
        assert!(!refused(Some("tskey"), None).contains("history"));
        let fine = JoinArgs { source: Some("-".into()), file: None, name: None, wait: None };
        assert_eq!(refuse_keys_in_arguments(&fine), Ok(()));
    }

    #[test]
    fn a_missing_key_file_is_named() {
        let args = JoinArgs { source: None, file: Some("/no/such/key".into()), name: None, wait: None };
        let Err(Failure::Told { text, .. }) = open_key(&args) else { panic!("wrong failure") };
        assert!(text.contains("/no/such/key"));
        let args = JoinArgs { source: None, file: Some("/".into()), name: None, wait: None };
        let Err(Failure::Told { text, .. }) = open_key(&args) else { panic!("wrong failure") };
        assert!(text.contains("directory"));
    }

    #[test]
    fn the_longest_key_fits_into_the_pipe() {
        let mut read = Vec::new();
        std::fs::File::from(pipe(&[b'x'; MAX as usize + 1]).unwrap()).read_to_end(&mut read).unwrap();
        assert_eq!(read.len() as u64, MAX + 1);
    }
}
