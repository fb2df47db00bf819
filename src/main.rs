//! The program. Everything is in the library, so that the tests can use it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    locum::cli::main()
}
