//! From something found to a stream being read: or to a report of why there is none.

use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::feed::Tag;
use super::report::{Blame, FileReport, Progress, Status};
use super::source::{FileSource, ReadError, metadata_of};
use super::stream::{Origin, Sequence, SequenceState, Stream};
use super::walk::Found;
use super::worker::Crew;
use crate::store::catalog::{Identity, VersionRow};
use crate::store::clock::now_ns;
use crate::store::error::Chain;
use crate::store::{FileName, StoreError};

/// A file may change twice within one tick of the file system's clock and show the same times. So a
/// version read within this long after the file's last change proves nothing about it.
const CLOCK_TICK_NS: i64 = 5_000_000;

/// Opens what was found; `None` if it needs no reading, which has then been reported.
pub(super) fn open(
    crew: &Crew<'_>,
    found: Found,
    tag: Tag,
) -> Result<Option<Arc<Stream>>, StoreError> {
    let opened = Instant::now();
    let report = |report: FileReport| (crew.report)(report.numbered(tag.number));
    let (path, name, origin) = match found {
        Found::Skipped { path, why } => {
            let name = FileName::new(path.as_os_str().as_bytes()).ok();
            report(FileReport::without(Status::Skipped, path, name, why));
            return Ok(None);
        }
        Found::Failed { path, why } => {
            let name = FileName::new(path.as_os_str().as_bytes()).ok();
            report(FileReport::without(Status::Failed, path, name, why));
            return Ok(None);
        }
        Found::Stdin { name } => {
            let path = PathBuf::from("-");
            match std::io::stdin().as_fd().try_clone_to_owned() {
                Ok(input) => {
                    let input = Sequence::Stdin(File::from(input));
                    (path, name, sequence(input))
                }
                Err(error) => {
                    let why = error.to_string();
                    report(FileReport::without(Status::Failed, path, Some(name), why));
                    return Ok(None);
                }
            }
        }
        Found::Handed { name, taking } => {
            (PathBuf::from("-"), name, sequence(Sequence::Handed(taking)))
        }
        Found::File {
            path,
            name,
            metadata,
        } => {
            let failed = |path, name, why: String| {
                report(FileReport::without(Status::Failed, path, name, why));
                Ok(None)
            };
            let name = match name.map_or_else(|| FileName::new(path.as_os_str().as_bytes()), Ok) {
                Ok(name) => name,
                Err(error) => return failed(path, None, error.to_string()),
            };
            let unchanged = match unchanged_version(crew, &name, &metadata) {
                Ok(unchanged) => unchanged,
                Err(error) => {
                    // It is in no list of what is open: whoever gave it out must hear of it from here.
                    let why = format!("not stored: {}", Chain(&error));
                    let failed = FileReport::without(Status::Failed, path, Some(name), why);
                    report(failed.blaming(Blame::Store));
                    return Err(error);
                }
            };
            if let Some(row) = unchanged {
                Progress::add(&crew.progress.done_bytes, row.size_bytes);
                report(FileReport {
                    version: Some(row.number),
                    size_bytes: row.size_bytes,
                    digest: Some(row.digest),
                    took: opened.elapsed(),
                    ..FileReport::of(Status::Unchanged, path, Some(name))
                });
                return Ok(None);
            }
            match FileSource::open(&path) {
                Ok(file) => (path, name, Origin::File(file)),
                Err(ReadError::Io(error)) => {
                    return failed(path, Some(name), format!("open: {error}"));
                }
                Err(error) => return failed(path, Some(name), error.to_string()),
            }
        }
    };
    let mut stream = Stream::new(path, name, origin, &crew.method, opened, now_ns());
    stream.round = crew.limits.round();
    stream.tag = tag;
    let stream = Arc::new(stream);
    let mut live = crew.live.lock().unwrap_or_else(PoisonError::into_inner);
    live.push(Arc::clone(&stream));
    Ok(Some(stream))
}

/// The newest version of a file, if it is certainly what the file still is and can be restored.
fn unchanged_version(
    crew: &Crew<'_>,
    name: &FileName,
    metadata: &Metadata,
) -> Result<Option<VersionRow>, StoreError> {
    if crew.options.reread {
        return Ok(None);
    }
    let row = crew.store.database().latest(name)?;
    match row.filter(|row| is_unchanged(row, metadata)) {
        Some(row) if !crew.damage.has_lost(&row)? => Ok(Some(row)),
        _ => Ok(None),
    }
}

fn sequence(input: Sequence) -> Origin {
    Origin::Sequence(Mutex::new(SequenceState {
        input,
        before: Vec::with_capacity(Stream::CONTEXT),
    }))
}

/// Whether the file is certainly what this version was read from.
pub fn is_unchanged(row: &VersionRow, metadata: &Metadata) -> bool {
    let now = Identity::from(metadata_of(metadata));
    row.identity == Some(now)
        && row.size_bytes == metadata.len()
        && now.ctime_ns.saturating_add(CLOCK_TICK_NS) < row.read_at_ns
}
