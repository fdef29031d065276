//! What the benchmarks share: deterministic data, and measuring a command as a whole process.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Writes `bytes` bytes of log-like text with changing numbers: it compresses about five times, and
/// nothing in it repeats as a whole.
pub(crate) fn write_text(path: &Path, bytes: u64) -> io::Result<()> {
    const WORDS: [&str; 8] = [
        "accepted",
        "connection",
        "from",
        "queue",
        "flushed",
        "segment",
        "retry",
        "upstream",
    ];
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x6669_6c65_6421_u64;
    let mut written = 0;
    let mut line = String::new();
    while written < bytes {
        line.clear();
        for _ in 0..12 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            line.push_str(WORDS[(state % 8) as usize]);
            line.push_str(&format!(" {:06} ", (state >> 8) % 1_000_000));
        }
        line.push('\n');
        let take = (bytes - written).min(line.len() as u64) as usize;
        out.write_all(&line.as_bytes()[..take])?;
        written += take as u64;
    }
    out.flush()
}

/// A finished process.
pub(crate) struct Measured {
    /// From start to end.
    pub(crate) wall: Duration,
    /// Peak resident memory in bytes, where it could be read.
    pub(crate) peak_bytes: Option<u64>,
}

/// Runs a command to its end, throwing away what it prints.
pub(crate) fn measure(command: &mut Command) -> io::Result<Measured> {
    let began = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_bytes = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // The kernel keeps the peak; what is read last before the end is all but it.
        if let Some(bytes) = fs::read_to_string(&status_file)
            .ok()
            .and_then(|text| peak(&text))
        {
            peak_bytes = Some(bytes);
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let wall = began.elapsed();
    if !status.success() {
        return Err(io::Error::other(format!("{command:?} failed: {status}")));
    }
    Ok(Measured { wall, peak_bytes })
}

fn peak(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            << 10,
    )
}

/// The middle one of an odd number of values.
pub(crate) fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values[values.len() / 2]
}
