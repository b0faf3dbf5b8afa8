//! What happened in a run: a hash of all of it, and lines of text when somebody wants to read it.

use std::fmt;
use std::time::Duration;

use crate::random::{hash, mix};

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps its lines.
    pub fn readable() -> Self {
        Self { hash: 0, lines: Some(Vec::new()) }
    }

    /// Notes something that can be read.
    pub fn note(&mut self, at: Duration, what: fmt::Arguments<'_>) {
        let text = what.to_string();
        self.fold(at, text.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} {text}", at.as_secs_f64()));
        }
    }

    /// Notes bytes under a heading that only readers see.
    pub fn mark(&mut self, at: Duration, bytes: &[u8], heading: fmt::Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            let head = bytes.first().copied().unwrap_or_default();
            lines.push(format!("{:>12.6}   {heading}: {} bytes, {head:#04x}", at.as_secs_f64(), bytes.len()));
        }
        self.fold(at, bytes);
    }

    fn fold(&mut self, at: Duration, bytes: &[u8]) {
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.hash = mix(self.hash.rotate_left(5) ^ hash(at, bytes));
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, for a readable trace.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
