//! `--report FILE`: a run on one page, for people as HTML, for programs as JSON.
//!
//! The rule that must hold: **a report never costs a run.** Whether it can be written is found out
//! before the work starts, it is put in its place whole or not at all, and if that fails what was
//! stored stays stored, and the exit code says that something is missing.

mod html;
mod json;

use crate::store::clock::now_ns;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::exit::UsageError;
use super::summary::Summary;
use crate::daemon::timeline::Timeline;
use crate::heap::HeapTotals;
use crate::pressure::limits::Limits;
use crate::store::show_path;

/// What a report tells.
pub(super) struct Report<'a> {
    /// The store's folder.
    pub store: &'a Path,
    /// The sums of the run, as `--json` prints them.
    pub summary: &'a Summary,
    /// Bytes that were read of files that were stored.
    pub read_bytes: u64,
    /// How memory went.
    pub timeline: &'a Timeline,
    /// Which limit ruled and why.
    pub limits: &'a Limits,
    /// What the heap came to.
    pub heaps: &'a HeapTotals,
    /// The signal that stopped the run.
    pub signal: Option<i32>,
    /// The error that stopped the run.
    pub error: Option<String>,
}

impl Report<'_> {
    /// How fast files were read, in bytes a second.
    fn rate(&self) -> f64 {
        self.read_bytes as f64 / self.summary.seconds.max(1e-6)
    }

    /// Pauses by doublings of their length, without empty ones at both ends: from, to, how many.
    fn pauses(&self) -> Vec<(Duration, Duration, u64)> {
        let pauses = &self.heaps.pauses;
        let Some(first) = pauses.iter().position(|count| *count > 0) else {
            return Vec::new();
        };
        let last = pauses.iter().rposition(|count| *count > 0).unwrap_or(first);
        let bucket = |at: usize| {
            let (from, to) = (Duration::from_nanos(1 << at), Duration::from_nanos(2 << at));
            (from, to, pauses[at])
        };
        (first..=last).map(bucket).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Html,
    Json,
}

/// Where a report goes.
#[derive(Debug)]
pub(super) struct Destination {
    path: PathBuf,
    temporary: PathBuf,
    kind: Kind,
}

impl Destination {
    /// Takes the path of `--report`; what its name ends in says what is written.
    pub(super) fn new(path: &Path) -> Result<Destination, UsageError> {
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("html") => Kind::Html,
            Some(extension) if extension.eq_ignore_ascii_case("json") => Kind::Json,
            _ => {
                return Err(UsageError(format!(
                    "--report {}: the name must end in .html or .json",
                    show_path(path)
                )));
            }
        };
        // In the same folder, so that it can be renamed; not like that of any other run, so that
        // nothing left behind is in the way.
        let (process, now) = (std::process::id(), now_ns());
        let temporary = path.with_file_name(format!(".filed-report-{process}-{now}.tmp"));
        Ok(Destination {
            path: path.to_owned(),
            temporary,
            kind,
        })
    }

    /// Finds out before the work whether the report can be written after it.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let there = match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        there
            .and_then(|()| self.create())
            .and_then(|_file| fs::remove_file(&self.temporary))
            .with_context(|| self.cannot())
    }

    /// Writes the report and puts it in its place.
    pub(super) fn write(&self, report: &Report<'_>) -> anyhow::Result<()> {
        let text = match self.kind {
            Kind::Html => Ok(html::page(report)),
            Kind::Json => json::text(report).map_err(io::Error::from),
        };
        let written = text.and_then(|text| {
            let mut file = self.create()?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&self.temporary, &self.path)
        });
        if written.is_err() {
            // It is of no use to anybody; if it cannot be removed either, the error below says enough.
            let _ = fs::remove_file(&self.temporary);
        }
        written.with_context(|| self.cannot())
    }

    fn create(&self) -> io::Result<File> {
        File::options()
            .write(true)
            .create_new(true)
            .open(&self.temporary)
    }

    fn cannot(&self) -> String {
        format!("cannot write the report {}", show_path(&self.path))
    }
}
