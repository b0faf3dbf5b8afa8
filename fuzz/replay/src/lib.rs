//! The inputs that fuzzing has found (`fuzz/corpus/<target>/`), replayed in the tests of each crate through the function
//! that the fuzzer runs too, so that a regression shows without a fuzzer.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// Runs a target's body over all inputs of its corpus.
#[allow(clippy::panic, clippy::print_stderr, reason = "this is a part of tests")]
pub fn replay(target: &str, body: fn(&[u8])) {
    let files = inputs(target);
    assert!(!files.is_empty(), "fuzz/corpus/{target} holds no input; scripts/fuzz {target} makes some");
    for file in files {
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&bytes))) {
            eprintln!("the input is {}", file.display());
            resume_unwind(panic);
        }
    }
}

/// The inputs of a target, in order of their names.
fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corpus_belongs_to_a_target() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let names = |folder: &str| {
            let entries = fs::read_dir(root.join(folder)).unwrap().flatten();
            let mut names: Vec<String> = entries
                .map(|entry| entry.path().file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("corpus"), names("fuzz_targets"));
    }

    #[test]
    #[should_panic(expected = "holds no input")]
    fn a_target_without_inputs_is_a_mistake() {
        replay("no-such-target", |_| {});
    }
}
