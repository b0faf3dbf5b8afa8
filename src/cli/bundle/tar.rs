//! An archive as tar(5) reads it (POSIX ustar): a header of 512 bytes for each file, its content filled up to that, and two
//! empty blocks.
//!
//! ```text
//! 0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 time 12 | 148 checksum 8 | 156 type 1 | 257 "ustar\000"
//! 345 directory 155
//! ```

use std::io::{self, Write};

const BLOCK: usize = 512;

pub struct Archive<W> {
    to: W,
    time: u64,
}

impl<W: Write> Archive<W> {
    /// All files are of this time.
    pub fn new(to: W, time: u64) -> Self {
        Self { to, time }
    }

    pub fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.to.write_all(&header(name, content.len() as u64, self.time)?)?;
        self.to.write_all(content)?;
        let over = content.len() % BLOCK;
        if over > 0 {
            self.to.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }

    pub fn end(mut self) -> io::Result<()> {
        self.to.write_all(&[0; 2 * BLOCK])
    }
}

fn header(name: &str, size: u64, time: u64) -> io::Result<[u8; BLOCK]> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is too long a name"));
    let (directory, base) = name.rsplit_once('/').unwrap_or(("", name));
    let mut block = [0; BLOCK];
    let mut put = |at: usize, room: usize, text: &[u8]| {
        let fits = text.len() <= room;
        if fits {
            block[at..at + text.len()].copy_from_slice(text);
        }
        fits.then_some(()).ok_or_else(too_long)
    };
    put(0, 100, base.as_bytes())?;
    put(345, 155, directory.as_bytes())?;
    put(100, 8, b"0000600\0")?;
    put(108, 8, b"0000000\0")?;
    put(116, 8, b"0000000\0")?;
    put(124, 12, format!("{size:011o}\0").as_bytes())?;
    put(136, 12, format!("{time:011o}\0").as_bytes())?;
    // The sum is made as if its own place were blank.
    put(148, 8, b"        ")?;
    put(156, 1, b"0")?;
    put(257, 8, b"ustar\x0000")?;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut archive = Archive::new(std::fs::File::create(&path).unwrap(), 1_790_000_000);
        let long = format!("{}/name", "d".repeat(150));
        let files = [("top/empty", ""), ("top/files/etc/hosts", "127.0.0.1 localhost\n"), (&long, "x")];
        for (name, content) in files {
            archive.add(name, content.as_bytes()).unwrap();
        }
        archive.add("top/block", &[b'a'; BLOCK]).unwrap();
        archive.end().unwrap();
        let unpacked = Command::new("tar").arg("-xf").arg(&path).current_dir(dir.path()).output().unwrap();
        assert!(unpacked.status.success() && unpacked.stderr.is_empty(), "{unpacked:?}");
        for (name, content) in files {
            assert_eq!(std::fs::read_to_string(dir.path().join(name)).unwrap(), content);
        }
        assert_eq!(std::fs::read(dir.path().join("top/block")).unwrap().len(), BLOCK);
        let mut archive = Archive::new(Vec::new(), 0);
        assert!(archive.add(&"n".repeat(101), b"").is_err());
    }
}
