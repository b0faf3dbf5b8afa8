//! The program `ria`; all of it is in the library beside.

use std::process::ExitCode;

fn main() -> ExitCode {
    ria::main()
}
