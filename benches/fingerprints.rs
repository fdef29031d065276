//! The fingerprint cache with millions of pieces: `cargo bench --bench fingerprints [-- MILLIONS]`.
//!
//! Makes a store of 10 million pieces (more than a gigabyte, some ten seconds) and looks all of them up in the order
//! they were stored, as a second copy of the same data would: what a piece costs in memory, how often
//! the cache answers, how long the collector pauses; and what is left when the cache is dropped.

mod many_pieces;

use std::error::Error;
use std::time::{Duration, Instant};

use filed::heap::{Pool, malloc};
use filed::pipeline::fingerprints::{Fingerprints, Settings};

/// Pieces asked for at once: those of a chunk.
const CHUNK_PIECES: u64 = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let millions = std::env::args()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(10_u64);
    let pieces = millions * 1_000_000;
    malloc::configure();
    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    let store = many_pieces::store_of(folder.path(), pieces, 8192)?;
    println!(
        "{millions} million pieces stored in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    store.database().shrink();
    malloc::trim();

    let settings = Settings {
        limit_bytes: 64 * pieces * 8 / 7,
        long_pause: Duration::from_millis(1),
    };
    let pool = Pool::new(0);
    let known = Fingerprints::new(&store, settings, pool.account("fingerprints"));
    let start = resident_bytes();
    let found = known.while_serving(|| -> Result<u64, Box<dyn Error>> {
        let asker = known.asker();
        let mut found = 0;
        for pass in ["first", "second"] {
            let (began, before) = (Instant::now(), known.stats());
            for first in (0..pieces).step_by(CHUNK_PIECES as usize) {
                let ids: Vec<_> = (first..pieces.min(first + CHUNK_PIECES))
                    .map(many_pieces::piece)
                    .collect();
                found += asker.find(&ids)?.iter().flatten().count() as u64;
            }
            let took = began.elapsed().as_secs_f64();
            let (after, heap) = (known.stats(), known.heap_totals());
            let hits = (after.hits - before.hits) as f64 / pieces as f64;
            println!(
                "{pass} pass: {:.3} % answered by the cache, {:.2} million pieces/s, {:.1} bytes a piece",
                hits * 100.0,
                pieces as f64 / took / 1e6,
                (resident_bytes() - start) as f64 / pieces as f64,
            );
            println!(
                "  heap: {} objects, collections {:?}, pauses {:.3} ms at most, {:.1} ms in all",
                heap.live_objects,
                heap.collections,
                heap.longest_pause.as_secs_f64() * 1e3,
                heap.total_pause.as_secs_f64() * 1e3,
            );
        }
        // Dropped as in critical mode, while the thread goes on.
        let held = |when: &str| {
            let more = resident_bytes().saturating_sub(start) as f64 / (1 << 20) as f64;
            println!("{when}: {more:.1} MiB above the start");
        };
        held("before the cache is dropped");
        let began = Instant::now();
        known.set_limit(0);
        known.collect();
        known.trim(filed::heap::Trim::All);
        // An answer comes after the orders that came before it.
        asker.find(&[many_pieces::piece(0)])?;
        println!("dropped, collected and trimmed in {:.2} s", began.elapsed().as_secs_f64());
        malloc::trim();
        held("after");
        Ok(found)
    })?;
    assert_eq!(found, 2 * pieces, "every piece is found, twice");
    Ok(())
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
