//! The sums of a run of `filed process`: counted file by file, told at the end.
//!
//! The same numbers go into the table for people, the last line of `--json`, and the report.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::exit::Exit;
use super::output::{self, Count, Rate, Size};
use crate::daemon::Run;
use crate::heap::HeapTotals;
use crate::pipeline::TimeCounts;
use crate::pipeline::fingerprints::CacheStats;
use crate::pipeline::{FileReport, Status};
use crate::pressure::level::Thresholds;
use crate::store::show_path;

/// Counts over all reports.
#[derive(Default)]
pub(super) struct Tally {
    stored: u64,
    unchanged: u64,
    failed: u64,
    skipped: u64,
    bytes: u64,
    pub(super) read_bytes: u64,
    pieces: u64,
    new_pieces: u64,
    new_bytes: u64,
    stored_bytes: u64,
}

impl Tally {
    /// Counts one in.
    pub(super) fn add(&mut self, report: &FileReport) {
        match report.status {
            Status::Stored => {
                self.stored += 1;
                self.read_bytes += report.size_bytes;
            }
            Status::Unchanged => self.unchanged += 1,
            Status::Failed => self.failed += 1,
            Status::Skipped => self.skipped += 1,
        }
        self.bytes += report.size_bytes;
        self.pieces += report.pieces;
        self.new_pieces += report.new_pieces;
        self.new_bytes += report.new_bytes;
        self.stored_bytes += report.stored_bytes;
    }

    /// How the run ended.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Tally {
                failed: 0,
                skipped: 0,
                ..
            } => Exit::Done,
            Tally {
                stored: 0,
                unchanged: 0,
                failed: 1..,
                ..
            } => Exit::Failed,
            _ => Exit::Partly,
        }
    }

    /// The same where the report that was asked for is missing.
    pub(super) fn exit_without_report(&self) -> Exit {
        match self.exit() {
            Exit::Done => Exit::Partly,
            exit => exit,
        }
    }
}

/// The sums of a run.
#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) v: u8,
    pub(super) r#type: &'static str,
    pub(super) files: u64,
    pub(super) stored: u64,
    pub(super) unchanged: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) bytes: u64,
    pub(super) new_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) seconds: f64,
    pub(super) rss_start: u64,
    pub(super) rss_peak: u64,
    pub(super) rss_end: u64,
    pub(super) mode_changes: u64,
    pub(super) threshold: u64,
    pub(super) limit: u64,
    /// How long chunks took, reading and compression included, rounded up by less than 25 %.
    pub(super) chunk_p50_us: u64,
    pub(super) chunk_p99_us: u64,
    pub(super) chunk_max_us: u64,
    /// Collections that ended, by generation.
    pub(super) collections: [u64; 3],
    pub(super) whole_collections: u64,
    pub(super) longest_pause_us: u64,
    pub(super) total_pause_us: u64,
    pub(super) live_objects: u64,
    pub(super) live_bytes: u64,
    pub(super) cache_hits: u64,
    pub(super) cache_loaded: u64,
    pub(super) index_questions: u64,
    pub(super) cache_hit_rate: Option<f64>,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Summary {
    /// The sums of all that was counted.
    pub(super) fn new<T>(
        tally: &Tally,
        run: &Run<T>,
        thresholds: &Thresholds,
        cache: CacheStats,
        heaps: &HeapTotals,
        chunks: &TimeCounts,
    ) -> Summary {
        let chunk_us = |per_mille| chunks.per_mille(per_mille).map_or(0, micros);
        Summary {
            v: 1,
            r#type: "summary",
            files: tally.stored + tally.unchanged + tally.failed + tally.skipped,
            stored: tally.stored,
            unchanged: tally.unchanged,
            failed: tally.failed,
            skipped: tally.skipped,
            bytes: tally.bytes,
            new_bytes: tally.new_bytes,
            stored_bytes: tally.stored_bytes,
            seconds: run.took.as_secs_f64(),
            rss_start: run.memory.start_bytes,
            rss_peak: run.memory.peak_bytes,
            rss_end: run.memory.end_bytes,
            mode_changes: run.mode_changes,
            threshold: thresholds.threshold_bytes(),
            limit: thresholds.limit_bytes(),
            chunk_p50_us: chunk_us(500),
            chunk_p99_us: chunk_us(990),
            chunk_max_us: chunk_us(1000),
            collections: heaps.collections,
            whole_collections: heaps.whole_collections,
            longest_pause_us: micros(heaps.longest_pause),
            total_pause_us: micros(heaps.total_pause),
            live_objects: heaps.live_objects,
            live_bytes: heaps.live_bytes,
            cache_hits: cache.hits,
            cache_loaded: cache.loaded,
            index_questions: cache.asked,
            cache_hit_rate: cache.hit_rate(),
        }
    }

    /// What the cache did; nothing where no piece was known.
    fn cache(&self) -> Option<String> {
        Some(format!(
            "had {:.1} % of {} known pieces, the index was asked {} times",
            self.cache_hit_rate? * 100.0,
            Count(self.cache_hits + self.cache_loaded),
            Count(self.index_questions)
        ))
    }

    /// What the heap did; nothing where there was nothing on it.
    fn heap(&self) -> Option<String> {
        if self.live_objects == 0 && self.collections == [0; 3] {
            return None;
        }
        let [young, middle, old] = self.collections.map(Count);
        Some(format!(
            "{} objects in {}, {young} + {middle} + {old} collections, pauses {:.2} ms at most, {:.2} ms in all",
            Count(self.live_objects),
            Size(self.live_bytes),
            self.longest_pause_us as f64 / 1e3,
            self.total_pause_us as f64 / 1e3
        ))
    }

    /// How many files of each kind there were.
    pub(super) fn kinds(&self) -> String {
        let mut parts = vec![format!("{} stored", Count(self.stored))];
        for (count, what) in [
            (self.unchanged, "unchanged"),
            (self.failed, "failed"),
            (self.skipped, "skipped"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", Count(count)));
            }
        }
        parts.join(", ")
    }

    /// The summary for people.
    pub(super) fn table(&self, tally: &Tally, store: &Path) -> String {
        let took = Duration::from_secs_f64(self.seconds);
        let rate = Rate {
            bytes: tally.read_bytes,
            took,
        };
        let modes = match self.mode_changes {
            0 => "normal throughout".to_owned(),
            1 => "1 change".to_owned(),
            changes => format!("{changes} changes"),
        };
        let smaller = output::ratio(self.new_bytes, self.stored_bytes);
        let rows = [
            ("files", self.kinds()),
            (
                "read",
                format!(
                    "{} in {:.2} s, {rate}",
                    Size(tally.read_bytes),
                    self.seconds
                ),
            ),
            (
                "new",
                format!(
                    "{} in {} of {} pieces",
                    Size(self.new_bytes),
                    Count(tally.new_pieces),
                    Count(tally.pieces)
                ),
            ),
            ("kept", format!("{}  {smaller}", Size(self.stored_bytes))),
            (
                "memory",
                format!(
                    "{} -> {} -> {}  (start, peak, end; threshold {}, limit {})",
                    Size(self.rss_start),
                    Size(self.rss_peak),
                    Size(self.rss_end),
                    Size(self.threshold),
                    Size(self.limit)
                ),
            ),
            ("modes", modes),
            ("cache", self.cache().unwrap_or_default()),
            ("heap", self.heap().unwrap_or_default()),
            ("store", show_path(store).to_string()),
        ];
        rows.iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key:<8}{}\n", value.trim_end()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_says_whether_anything_was_stored() {
        let exit = |stored, unchanged, failed, skipped| {
            let tally = Tally {
                stored,
                unchanged,
                failed,
                skipped,
                ..Tally::default()
            };
            tally.exit()
        };
        assert_eq!(exit(0, 0, 0, 0), Exit::Done);
        assert_eq!(exit(1, 1, 0, 0), Exit::Done);
        assert_eq!(exit(1, 0, 1, 0), Exit::Partly);
        assert_eq!(exit(0, 1, 1, 0), Exit::Partly);
        assert_eq!(exit(0, 0, 1, 0), Exit::Failed);
        assert_eq!(exit(0, 0, 0, 1), Exit::Partly);
        let tally = Tally::default();
        assert_eq!(tally.exit_without_report(), Exit::Partly);
    }
}
