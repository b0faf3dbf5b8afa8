//! How many files and connections this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Each node takes one; most systems begin with 1024, and allow more to who asks.
const WANTED: u64 = 1 << 20;
/// Fewer are worth a word.
const FEW: u64 = 4096;

/// Asks for as many as this process may have.
pub fn allow_many() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(now, most)| {
        let wanted = WANTED.min(most).max(now);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, most).map(|()| wanted)
    });
    match raised {
        Ok(files) if files < FEW => tracing::warn!(
            files,
            "so few connections are possible at a time; allow more, with LimitNOFILE= or ulimit -n"
        ),
        Ok(files) => tracing::debug!(files, "open files"),
        Err(error) => tracing::warn!(%error, "how many files may be open is not known, and stays as it is"),
    }
}
