//! Gives back what only the start needed: pages of the program's code and constants that were read once.
//!
//! Reading the configuration, joining, the first measurement of the network and the first words with the bus use most of the
//! program, and an agent that runs for months a small part of it. The kernel counts all that was ever used as resident, and
//! takes it for in use while memory is short. Here it is told that nothing of it is needed now; what is used again comes back
//! from the page cache, or from the file, sixteen pages at a time.
#![allow(unsafe_code, reason = "madvise on mappings that are never written")]

use std::ops::Range;
use std::time::Duration;

use nix::libc;

/// After the start: once the tunnel is up as a rule, on slower machines, and once the network has been measured.
const AFTER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Does it when the time has come.
pub async fn run() {
    let began = tokio::time::Instant::now();
    for after in AFTER {
        tokio::time::sleep_until(began + after).await;
        let bytes = code();
        tracing::debug!(bytes, "pages of the program that only the start needed are given back");
    }
}

/// Gives the pages back; how many bytes of addresses that concerns.
fn code() -> usize {
    // Without /proc all stays as it is.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut bytes = 0;
    for range in maps.lines().filter_map(constant) {
        let len = range.len();
        // SAFETY: the mapping was listed by the kernel and is never unmapped while the program runs; it is private, backed by a
        // file, and was never writable, so no page of it differs from the file, and the next access finds the same bytes.
        let done = unsafe { libc::madvise(range.start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
        bytes += if done == 0 { len } else { 0 };
    }
    bytes
}

/// The addresses of a mapping of a program's or library's code, or of the constants at the beginning of its file (proc_pid_maps(5)).
/// Other mappings that are read-only now may have been written by the loader.
fn constant(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_whitespace();
    let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.nth(2)?;
    let is_constant = rights == "r-xp" || rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
    let (start, end) = range.split_once('-')?;
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    (path.starts_with('/') && is_constant).then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_leading_constants_are_taken_and_what_was_written_never() {
        let ranges = |line| constant(line).map(|range| (range.start, range.end));
        assert_eq!(ranges("1000-3000 r-xp 00001000 fe:00 12 /usr/bin/ria"), Some((0x1000, 0x3000)));
        assert_eq!(ranges("0-1000 r--p 00000000 fe:00 12     /usr/bin/ria (deleted)"), Some((0, 0x1000)));
        for other in [
            "3000-4000 r--p 00003000 fe:00 12 /usr/bin/ria",
            "3000-4000 rw-p 00003000 fe:00 12 /usr/bin/ria",
            "3000-4000 rwxp 00000000 fe:00 12 /usr/bin/ria",
            "7000-8000 r-xp 00000000 00:00 0 [vdso]",
            "7000-8000 r--p 00000000 00:00 0",
            "",
        ] {
            assert_eq!(ranges(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_runs_on_and_less_of_it_is_resident() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = resident();
        assert!(code() > 1 << 20);
        assert!(resident() < before);
        assert_eq!("1000-3000".split_once('-'), Some(("1000", "3000")), "code and constants are there again");
    }
}
