//! `cargo bench --bench memory`: is memory given back after each file?
//!
//! Files of 50, 100, 200 and 500 MB are taken in one after the other in this one process. The table
//! says resident memory before, at its peak during, and after each, and fails if what stays is more
//! than 4 MiB: that is not a matter of the machine's speed.

mod job;
#[allow(dead_code, reason = "each benchmark uses a part of it")]
mod support;

use std::error::Error;
use std::slice;

use filed::heap::malloc;

const MIB: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    malloc::configure();
    let folder = tempfile::tempdir()?;
    println!("file      start     peak      end       end - start");
    let mut worst = 0;
    for megabytes in [50, 100, 200, 500] {
        let file = folder.path().join(format!("{megabytes}.log"));
        support::write_text(&file, megabytes * 1_000_000)?;
        let seen = job::take_in(slice::from_ref(&file), &folder.path().join("store"))?;
        let stays = seen.end_bytes.saturating_sub(seen.start_bytes);
        worst = worst.max(stays);
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / MIB as f64);
        println!(
            "{:<9} {:<9} {:<9} {:<9} {}",
            format!("{megabytes} MB"),
            mib(seen.start_bytes),
            mib(seen.peak_bytes),
            mib(seen.end_bytes),
            mib(stays)
        );
    }
    if worst > 4 * MIB {
        return Err("more than 4 MiB stayed".into());
    }
    Ok(())
}
