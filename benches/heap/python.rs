//! The column of CPython: `bench-data/heap_cpython.py`, run with `python3`.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use super::child::{self, Numbers};

/// What CPython has to say about a target; nothing if it is not there.
pub(crate) fn numbers(target: u8) -> Result<Numbers, Box<dyn Error>> {
    let there = Command::new("python3")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("there is no python3: its numbers are left out");
        return Ok(Numbers::default());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench-data/heap_cpython.py");
    child::output(Command::new("python3").arg(script).arg(target.to_string()))
}
