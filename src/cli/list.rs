//! `filed list` and `filed show`: what is stored.

use std::fmt::Write;

use serde::Serialize;

use super::args::{Common, Form, List, Show};
use super::exit::Exit;
use super::names;
use super::output::{self, Count, Size};
use super::setup::Setup;
use crate::store::catalog::VersionRow;
use crate::store::manifest::Version;
use crate::store::{FileName, Store, hex};

/// Files and versions are asked from the catalog this many at a time.
const PAGE: u32 = 256;

pub(super) fn list(common: &Common, args: &List) -> anyhow::Result<Exit> {
    let setup = Setup::load(common, None, Vec::new())?;
    let store = Store::open(&setup.store)?;
    let mut after: Option<FileName> = None;
    loop {
        let files = store.database().files_after(after.as_ref(), PAGE)?;
        let Some((last, _)) = files.last() else {
            return Ok(Exit::Done);
        };
        after = Some(last.name.clone());
        let mut page = String::new();
        for (row, versions) in &files {
            match Form::of_flag(args.json) {
                Form::Json => output::json_line(&FileLine {
                    v: 1,
                    r#type: "file",
                    name: row.name.to_string(),
                    version: row.number,
                    versions: *versions,
                    bytes: row.size_bytes,
                    digest: hex(&row.digest),
                    read_at_ns: row.read_at_ns,
                    new_bytes: row.new_bytes,
                    stored_bytes: row.stored_bytes,
                }),
                Form::Text => {
                    let (size, time) = (
                        Size(row.size_bytes).to_string(),
                        output::time(row.read_at_ns),
                    );
                    // Writing to a string cannot fail.
                    let _ = writeln!(page, "{time}  {size:>11}  v{:<4} {}", row.number, row.name);
                }
            }
        }
        output::print(&page);
    }
}

pub(super) fn show(common: &Common, args: &Show) -> anyhow::Result<Exit> {
    let setup = Setup::load(common, None, Vec::new())?;
    let store = Store::open(&setup.store)?;
    let name = names::find(&store, &args.name)?.name;
    let form = Form::of_flag(args.json);
    if form == Form::Text {
        output::print(&format!("{name}\n"));
    }
    let mut after = 0;
    loop {
        let rows = store.database().versions_after(&name, after, PAGE)?;
        let Some(last) = rows.last() else {
            return Ok(Exit::Done);
        };
        after = last.number;
        for row in &rows {
            let version = store.version(row.place)?;
            match form {
                Form::Json => output::json_line(&VersionLine::new(row, &version)),
                Form::Text => output::print(&describe(row, &version)),
            }
        }
    }
}

fn describe(row: &VersionRow, version: &Version) -> String {
    let amounts = &version.amounts;
    let data_bytes = row.size_bytes - amounts.hole_bytes.min(row.size_bytes);
    let known_bytes = data_bytes - amounts.new_bytes.min(data_bytes);
    let known = if data_bytes == 0 {
        0.0
    } else {
        100.0 * known_bytes as f64 / data_bytes as f64
    };
    let mut text = format!(
        "\nversion {}, read {}\n",
        row.number,
        output::time(row.read_at_ns)
    );
    let mut line = |key: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {key:<9}{value}");
    };
    let holes = match amounts.hole_bytes {
        0 => String::new(),
        bytes => format!(", {} of it holes", Size(bytes)),
    };
    line(
        "size",
        format!(
            "{} ({} bytes{holes})",
            Size(row.size_bytes),
            Count(row.size_bytes)
        ),
    );
    line("digest", hex(&row.digest));
    if let Some(metadata) = &version.metadata {
        let modified = output::time(metadata.mtime_ns);
        let (mode, uid, gid) = (metadata.mode, metadata.uid, metadata.gid);
        line(
            "file",
            format!("mode {mode:04o}, owner {uid}:{gid}, modified {modified}"),
        );
    }
    line(
        "pieces",
        format!(
            "{} in {} chunks, {} new",
            Count(amounts.pieces),
            Count(amounts.chunks),
            Count(amounts.new_pieces)
        ),
    );
    line(
        "known",
        format!(
            "{} ({known:.1} %) was in the store before",
            Size(known_bytes)
        ),
    );
    let smaller = output::ratio(amounts.new_bytes, row.stored_bytes);
    line(
        "kept",
        format!(
            "{} for {} new  {smaller}",
            Size(row.stored_bytes),
            Size(amounts.new_bytes)
        ),
    );
    text
}

#[derive(Serialize)]
struct FileLine {
    v: u8,
    r#type: &'static str,
    name: String,
    version: u64,
    versions: u64,
    bytes: u64,
    digest: String,
    read_at_ns: i64,
    new_bytes: u64,
    stored_bytes: u64,
}

#[derive(Serialize)]
struct VersionLine {
    v: u8,
    r#type: &'static str,
    name: String,
    version: u64,
    bytes: u64,
    hole_bytes: u64,
    chunks: u64,
    pieces: u64,
    new_pieces: u64,
    new_bytes: u64,
    stored_bytes: u64,
    /// Share of the data that was in the store before, 0 to 1.
    dedup_ratio: f64,
    /// New bytes for each byte kept; `null` where nothing was new.
    compression_ratio: Option<f64>,
    digest: String,
    read_at_ns: i64,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime_ns: Option<i64>,
}

impl VersionLine {
    fn new(row: &VersionRow, version: &Version) -> VersionLine {
        let amounts = &version.amounts;
        let data_bytes = row.size_bytes.saturating_sub(amounts.hole_bytes);
        let known_bytes = data_bytes.saturating_sub(amounts.new_bytes);
        let metadata = version.metadata;
        VersionLine {
            v: 1,
            r#type: "version",
            name: row.name.to_string(),
            version: row.number,
            bytes: row.size_bytes,
            hole_bytes: amounts.hole_bytes,
            chunks: amounts.chunks,
            pieces: amounts.pieces,
            new_pieces: amounts.new_pieces,
            new_bytes: amounts.new_bytes,
            stored_bytes: row.stored_bytes,
            dedup_ratio: known_bytes as f64 / data_bytes.max(1) as f64,
            compression_ratio: (row.stored_bytes > 0)
                .then(|| amounts.new_bytes as f64 / row.stored_bytes as f64),
            digest: hex(&row.digest),
            read_at_ns: row.read_at_ns,
            mode: metadata.map(|m| m.mode),
            uid: metadata.map(|m| m.uid),
            gid: metadata.map(|m| m.gid),
            mtime_ns: metadata.map(|m| m.mtime_ns),
        }
    }
}
