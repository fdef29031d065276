//! The `filed` command: phases only.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before there are threads: malloc's arenas and thresholds cannot be changed later.
    filed::heap::malloc::configure();
    filed::cli::run().into()
}
