//! Names in a block of hosts(5) that is the agent's. Everything else in the file stays byte for byte, and after the block is
//! removed the file is what it was.
//!
//! The file is changed by a rename. Where that can't be, since the directory is read-only or the file is a mount point, as
//! in the hardened service and in containers, it is written in place, and a copy in the state directory mends it when the
//! power was cut in the middle.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::{DOMAIN, Table};

/// Where it is.
pub const HOSTS: &str = "/etc/hosts";

const BEGIN: &str = "# BEGIN ria: written by the agent (ria status); what is between these lines is lost";
const END: &str = "# END ria";

/// What a line is known by that begins a block, also by another version.
const BEGINS: &str = "# BEGIN ria:";

/// A hosts(5) file, and where a copy is kept while it is written in place.
#[derive(Debug, Clone)]
pub struct HostsFile {
    path: PathBuf,
    copy: PathBuf,
}

/// Whether programs of this machine find this name.
pub fn are_known(full: &str) -> bool {
    fs::read(HOSTS).is_ok_and(|file| names_in(&file).contains(full))
}

/// Removes the block of an agent that does not run any more; tells whether there was one.
pub fn clear(hosts: &Path, state_dir: &Path) -> io::Result<bool> {
    let before = fs::read(hosts).or_else(none_is_empty)?;
    HostsFile::new(hosts, state_dir).put(&Table::default())?;
    Ok(fs::read(hosts).or_else(none_is_empty)? != before)
}

fn none_is_empty(error: io::Error) -> io::Result<Vec<u8>> {
    if error.kind() == ErrorKind::NotFound { Ok(Vec::new()) } else { Err(error) }
}

impl HostsFile {
    pub fn new(path: &Path, state_dir: &Path) -> Self {
        // A link stays one.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self { path, copy: state_dir.join("hosts.writing") }
    }

    /// Has these names in the file; writes only what is another.
    pub fn put(&self, table: &Table) -> io::Result<()> {
        let old = fs::read(&self.path).or_else(none_is_empty)?;
        let new = rewritten(&old, table);
        if new == old {
            return Ok(());
        }
        match self.replace(&new) {
            Err(error) if needs_other_way(&error) => self.overwrite(&new),
            done => done,
        }
    }

    /// After a power cut in the middle of [`Self::overwrite`]: what was to be written.
    pub fn mend(&self) -> io::Result<()> {
        let meant = match fs::read(&self.copy) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        let found = fs::read(&self.path).or_else(none_is_empty)?;
        if is_torn(&found, &meant) {
            self.write_in_place(&meant)?;
        }
        fs::remove_file(&self.copy)
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let mut temporary = tempfile::Builder::new().prefix(".hosts.ria.").tempfile_in(directory)?;
        temporary.write_all(content)?;
        let mode = match fs::metadata(&self.path) {
            Ok(old) => {
                if (old.uid(), old.gid()) != (0, 0) {
                    fchown(temporary.as_file(), Some(old.uid()), Some(old.gid()))?;
                }
                old.mode() & 0o7777
            }
            Err(_) => 0o644,
        };
        temporary.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        temporary.as_file().sync_all()?;
        temporary.persist(&self.path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    }

    fn overwrite(&self, content: &[u8]) -> io::Result<()> {
        let new = self.copy.with_extension("new");
        let mut copy = File::create(&new)?;
        copy.write_all(content)?;
        copy.sync_all()?;
        fs::rename(&new, &self.copy)?;
        self.write_in_place(content)?;
        fs::remove_file(&self.copy)
    }

    fn write_in_place(&self, content: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.write_all_at(content, 0)?;
        file.set_len(content.len() as u64)?;
        file.sync_all()
    }
}

/// Whether the file can be written all the same when it can't be replaced.
fn needs_other_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
            | ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
    )
}

/// Whether a file is what a power cut leaves of a write; somebody's later work is not.
fn is_torn(found: &[u8], meant: &[u8]) -> bool {
    found != meant && (found.is_empty() || found.contains(&0) || meant.starts_with(found))
}

/// The file with these names in the block, or without a block when there are none. Names that the rest of the file has
/// already are left to it.
fn rewritten(old: &[u8], table: &Table) -> Vec<u8> {
    let (before, after) = around(old);
    let rest = [before, after].concat();
    if table.entries().is_empty() {
        return rest;
    }
    let taken = names_in(&rest);
    let is_free = |name: &String| !taken.contains(name) && name != "localhost";
    let mut block = format!("{BEGIN}\n");
    for entry in table.entries() {
        let names: Vec<&str> = [Some(&entry.full), entry.bare.as_ref()]
            .into_iter()
            .flatten()
            .filter(|n| is_free(n))
            .map(String::as_str)
            .collect();
        for address in entry.addresses.iter().filter(|_| !names.is_empty()) {
            block.push_str(&format!("{address}\t{}\n", names.join(" ")));
        }
    }
    block.push_str(END);
    block.push('\n');
    [before, block.as_bytes(), after].concat()
}

/// What is before the block and after it; without one, it is to stand at the beginning: the end of the last line, which
/// may be missing, then needs no thought.
fn around(file: &[u8]) -> (&[u8], &[u8]) {
    let is_begin = |line: &[u8]| line.starts_with(BEGINS.as_bytes());
    let mut at = 0;
    let mut begin = None;
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        let end = at + line.len();
        match begin {
            None if is_begin(line) => begin = Some(at),
            Some(begin) if line.trim_ascii_end() == END.as_bytes() => return (&file[..begin], &file[end..]),
            // The end was taken away by somebody: it is where names of ours end.
            Some(begin) if !is_ours(line) => return (&file[..begin], &file[at..]),
            Some(_) | None => {}
        }
        at = end;
    }
    begin.map_or((&[], file), |begin| (&file[..begin], &[]))
}

fn is_ours(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    text.split_whitespace().any(|word| word.ends_with(&format!(".{DOMAIN}")))
        && !text.trim_start().starts_with('#')
}

/// All names that lines of hosts(5) give.
fn names_in(file: &[u8]) -> BTreeSet<String> {
    let lines = file.split(|byte| *byte == b'\n').map(String::from_utf8_lossy);
    let mut names = BTreeSet::new();
    for line in lines {
        let text = line.split('#').next().unwrap_or_default();
        names.extend(text.split_whitespace().skip(1).map(str::to_ascii_lowercase));
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Entry;
    use super::*;

    fn table(names: &[(&str, &str)]) -> Table {
        let entry = |(name, address): &(&str, &str)| Entry {
            addresses: vec![address.parse().unwrap()],
            full: format!("{name}.lab.ria.internal"),
            bare: Some((*name).to_owned()),
        };
        Table { entries: names.iter().map(entry).collect(), zones: Vec::new() }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn names_come_and_go_and_the_rest_of_the_file_is_not_touched() {
        let old = "127.0.0.1 localhost\n# mine\n10.9.9.9\tNAS robot-3 # the spare\n192.0.2.1 no-newline";
        let two = table(&[("robot-2", "10.213.0.2"), ("robot-3", "fd00::3"), ("localhost", "10.213.0.66")]);
        let new = text(rewritten(old.as_bytes(), &two));
        let block = new.strip_suffix(old).unwrap();
        assert_eq!(
            block.lines().skip(1).collect::<Vec<_>>(),
            [
                "10.213.0.2\trobot-2.lab.ria.internal robot-2",
                // The administrator's robot-3 is another machine.
                "fd00::3\trobot-3.lab.ria.internal",
                "10.213.0.66\tlocalhost.lab.ria.internal",
                END
            ]
        );
        let one = table(&[("robot-9", "10.213.0.9")]);
        let other = text(rewritten(new.as_bytes(), &one));
        assert!(other.ends_with(old) && !other.contains("robot-2") && other.contains("robot-9"), "{other}");
        assert_eq!(text(rewritten(other.as_bytes(), &Table::default())), old);
    }

    #[test]
    fn a_block_that_somebody_has_cut_takes_nothing_of_others_along() {
        let one = table(&[("robot-2", "10.213.0.2")]);
        let whole = text(rewritten(b"", &one));
        let cut = format!("127.0.0.1 localhost\n{}192.0.2.1 mine\n", whole.replace(&format!("{END}\n"), ""));
        assert_eq!(
            text(rewritten(cut.as_bytes(), &Table::default())),
            "127.0.0.1 localhost\n192.0.2.1 mine\n"
        );
        let moved = format!("192.0.2.1 mine\n{whole}192.0.2.2 mine-too");
        let new = text(rewritten(moved.as_bytes(), &table(&[("robot-4", "10.213.0.4")])));
        assert!(
            new.starts_with("192.0.2.1 mine\n# BEGIN ria") && new.ends_with("# END ria\n192.0.2.2 mine-too")
        );
    }

    #[test]
    fn a_power_cut_in_the_middle_is_mended_and_later_work_is_not_undone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("hosts"), dir.path().join("hosts.writing"));
        let file = HostsFile::new(&path, dir.path());
        for (found, mended) in
            [("", true), ("127.0.0.1 loc", true), ("a\0\0", true), ("192.0.2.1 mine\n", false)]
        {
            fs::write(&path, found).unwrap();
            fs::write(&copy, "127.0.0.1 localhost\n").unwrap();
            file.mend().unwrap();
            let expected = if mended { "127.0.0.1 localhost\n" } else { found };
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{found:?}");
            assert!(!copy.exists());
        }
        fs::remove_file(&path).unwrap();
        file.put(&Table::default()).unwrap();
        assert!(!path.exists(), "nothing to write, nothing written");
        file.put(&table(&[("robot-2", "10.213.0.2")])).unwrap();
        assert!(clear(&path, dir.path()).unwrap() && !clear(&path, dir.path()).unwrap());
    }

    #[test]
    fn in_place_and_by_rename_give_the_same_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n127.0.1.1 a-long-line-that-goes-away\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let file = HostsFile::new(&path, dir.path());
        for write in [HostsFile::replace, HostsFile::overwrite] {
            write(&file, b"127.0.0.1 localhost\n").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"127.0.0.1 localhost\n");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_in_the_file_is_there_again_afterwards(lines in prop::collection::vec(".{0,30}", 0..8), newline: bool) {
            let mut old = lines.join("\n");
            if newline { old.push('\n'); }
            prop_assume!(!old.contains(BEGINS));
            let two = table(&[("robot-2", "10.213.0.2"), ("robot-3", "10.213.0.3")]);
            let new = rewritten(old.as_bytes(), &two);
            prop_assert_eq!(rewritten(&new, &two), new.clone(), "once is enough");
            prop_assert_eq!(rewritten(&new, &Table::default()), old.into_bytes());
        }
    }
}
