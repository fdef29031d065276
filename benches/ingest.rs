//! `cargo bench --bench ingest [-- FILE]`: storing a file, against `zstd -3 -T2` on the same file.
//!
//! Both run as whole processes in turn, so that the ratio holds where the machine's speed drifts.
//! Without FILE, 256 MB of text are generated. zstd must be installed for the comparison.

#[allow(dead_code, reason = "each benchmark uses a part of it")]
mod support;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Measured, measure, median};

const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    // cargo passes --bench before what is ours.
    let file = match std::env::args_os().skip(1).find(|arg| arg != "--bench") {
        Some(file) => PathBuf::from(file),
        None => {
            let file = folder.path().join("text.log");
            support::write_text(&file, 256_000_000)?;
            file
        }
    };
    let size = file.metadata()?.len();
    let store = folder.path().join("store");
    let packed = folder.path().join("packed.zst");
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..ROUNDS {
        if store.exists() {
            std::fs::remove_dir_all(&store)?;
        }
        ours.push(measure(
            filed(&store).args(["process", "--quiet"]).arg(&file),
        )?);
        let zstd = measure(
            Command::new("zstd")
                .args(["-q", "-f", "-3", "-T2", "-o"])
                .arg(&packed)
                .arg(&file),
        );
        match zstd {
            Ok(measured) => theirs.push(measured),
            Err(error) => eprintln!("zstd: {error}: no comparison"),
        }
    }
    let again = measure(
        filed(&store)
            .args(["process", "--quiet", "--reread"])
            .arg(&file),
    )?;
    let verify = measure(filed(&store).args(["verify", "--quiet"]))?;
    let out = folder.path().join("restored");
    let restore = measure(
        filed(&store)
            .args(["restore", "--quiet", "--to"])
            .arg(&out)
            .arg(&file),
    )?;
    println!("what          s        MB/s     peak MiB");
    show("store", size, &mut ours);
    show("zstd -3 -T2", size, &mut theirs);
    show("store again", size, &mut [again]);
    show("verify", size, &mut [verify]);
    show("restore", size, &mut [restore]);
    if ours.len() == theirs.len() {
        let pairs = ours.iter().zip(&theirs);
        let mut ratios: Vec<f64> = pairs
            .map(|(a, b)| a.wall.as_secs_f64() / b.wall.as_secs_f64())
            .collect();
        println!(
            "store / zstd: {:.2} (median of {ROUNDS} pairs)",
            median(&mut ratios)
        );
    }
    Ok(())
}

fn filed(store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_filed"));
    command.arg("--store").arg(store);
    command
}

fn show(what: &str, size: u64, runs: &mut [Measured]) {
    if runs.is_empty() {
        return;
    }
    let mut walls: Vec<f64> = runs.iter().map(|run| run.wall.as_secs_f64()).collect();
    let wall = median(&mut walls);
    let peak = runs
        .iter()
        .filter_map(|run| run.peak_bytes)
        .max()
        .unwrap_or(0);
    println!(
        "{what:<13} {wall:<8.2} {:<8.0} {:.1}",
        size as f64 / 1e6 / wall,
        peak as f64 / f64::from(1 << 20)
    );
}
