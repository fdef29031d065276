//! `filed verify`: checking that everything stored can be restored.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::args::{Common, Form, Verify};
use super::exit::Exit;
use super::names;
use super::output::{self, Count, Rate, Size};
use super::restore::LIST_BYTES;
use super::screen::{Screen, Total};
use super::setup::Setup;
use crate::daemon::memory::MemorySeen;
use crate::daemon::tuning::Wish;
use crate::daemon::{self, Patience};
use crate::heap::Pool;
use crate::pipeline::restore::{Output, RestoreError, give_out};
use crate::pipeline::verify::{Checked, Finding, check_versions, verify};
use crate::pipeline::{Limits, Progress, Stop, verify as sweep};
use crate::store::catalog::VersionRow;
use crate::store::lists::PackLists;
use crate::store::verify::{Depth, LostPieces};
use crate::store::{Store, show_path};

pub(super) fn run(common: &Common, args: &Verify) -> anyhow::Result<Exit> {
    let setup = Setup::load(common, Some(&args.working), Vec::new())?;
    let wish = if args.names.is_empty() {
        wish(&setup)
    } else {
        super::restore::wish(&setup)
    };
    let plan = setup.fit(&wish)?;
    let store = Store::open(&setup.store)?;
    let rows: Vec<VersionRow> = args
        .names
        .iter()
        .map(|typed| names::find(&store, typed))
        .collect::<Result<_, _>>()?;
    let pool = Pool::new(plan.buffer_bytes);
    let limits = Limits::new(plan.workers);
    let lists = PackLists::new(&store, LIST_BYTES);
    let (stop, progress) = (Stop::default(), Progress::default());
    let depth = if args.quick {
        Depth::Structure
    } else {
        Depth::Content
    };
    let form = Form::of_flag(args.working.json);
    let told = Mutex::new(());
    let found = |finding: Finding| {
        let _one_at_a_time = told.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&finding, form, &setup.screen);
    };
    let check = Check {
        store: &store,
        lists: &lists,
        depth,
        pool: &pool,
        workers: plan.workers,
        stop: &stop,
        progress: &progress,
        found: &found,
    };
    let watch = setup.watch(None, &store, &pool, &limits, None);
    let mut display = |glance: daemon::Glance<'_>| setup.screen.show(glance, Total::Unknown);
    let patience = Patience::Unlimited;
    let run = daemon::run(watch, &stop, &progress, patience, &mut display, || {
        if rows.is_empty() {
            check.everything()
        } else {
            check.named(&rows)
        }
    })
    .context("start the control loop")?;
    setup.screen.clear();
    if let Some(signal) = run.signal {
        return Ok(Exit::Signal(signal));
    }
    let checked = run.outcome?;
    let memory = run.memory;
    let seconds = run.took.as_secs_f64();
    match form {
        Form::Json => output::json_line(&Summary {
            v: 1,
            r#type: "summary",
            packs: checked.packs,
            pieces: checked.pieces,
            bytes: checked.read_bytes,
            files: checked.files,
            versions: checked.versions,
            damaged: checked.damaged,
            replaced: checked.replaced,
            lost_versions: checked.lost_versions,
            seconds,
            rss_start: memory.start_bytes,
            rss_peak: memory.peak_bytes,
            rss_end: memory.end_bytes,
        }),
        Form::Text if !args.working.quiet => output::print(&table(&checked, run.took, &memory)),
        Form::Text => {}
    }
    let clean = checked.damaged == 0 && checked.lost_versions == 0;
    Ok(if clean { Exit::Done } else { Exit::Damage })
}

fn wish(setup: &Setup) -> Wish {
    let one = sweep::buffer_bytes(1);
    Wish {
        workers: setup.workers(),
        cache_bytes: LIST_BYTES,
        shared_buffer_bytes: 0,
        reserved_bytes: 0,
        worker_buffer_bytes: one,
        // A decompression context, and a pack's lists: as its trailer has them and as walked.
        worker_context_bytes: 3 << 20,
    }
}

struct Check<'a> {
    store: &'a Store,
    lists: &'a PackLists<'a>,
    depth: Depth,
    pool: &'a Pool,
    workers: usize,
    stop: &'a Stop,
    progress: &'a Progress,
    found: &'a (dyn Fn(Finding) + Sync),
}

impl Check<'_> {
    fn everything(&self) -> Result<Checked, RestoreError> {
        verify(
            self.store,
            self.lists,
            self.depth,
            self.pool,
            self.workers,
            self.stop,
            self.progress,
            self.found,
        )
    }

    /// Checks all versions of these files: that they are there, and, unless only the structure is
    /// asked for, by giving them out to nowhere.
    fn named(&self, rows: &[VersionRow]) -> Result<Checked, RestoreError> {
        let mut checked = Checked::default();
        let lost = LostPieces::default();
        for newest in rows {
            checked.files += 1;
            let name = &newest.name;
            let told = Mutex::new(HashSet::new());
            let found = |finding: Finding| {
                if let Finding::Version { row, .. } = &finding {
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    told.insert(row.number);
                }
                (self.found)(finding);
            };
            check_versions(
                self.store,
                self.lists,
                name,
                &lost,
                self.stop,
                &mut checked,
                &found,
            )?;
            if self.depth == Depth::Structure {
                continue;
            }
            let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
            for number in (1..=newest.number).filter(|number| !told.contains(number)) {
                let Some(row) = self.store.database().version(name, number)? else {
                    continue;
                };
                match self.read(&row) {
                    Ok((pieces, bytes)) => {
                        checked.pieces += pieces;
                        checked.read_bytes += bytes;
                    }
                    Err(RestoreError::Store(error)) if error.is_damage() => {
                        checked.lost_versions += 1;
                        let why = error.to_string();
                        (self.found)(Finding::Version { row, why });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(checked)
    }

    fn read(&self, row: &VersionRow) -> Result<(u64, u64), RestoreError> {
        let version = self.store.version(row.place)?;
        give_out(
            self.store,
            self.lists,
            &version,
            self.pool,
            self.workers,
            self.stop,
            self.progress,
            None,
            Output::Nowhere,
        )?;
        Ok((version.amounts.pieces, version.size_bytes))
    }
}

fn tell(finding: &Finding, form: Form, screen: &Screen) {
    match (finding, form) {
        (Finding::Pack { damage, replaced }, Form::Text) => {
            let path = show_path(&damage.path);
            let (offset, what) = (damage.offset, &damage.what);
            let since = if *replaced {
                "; its pieces have been replaced"
            } else {
                ""
            };
            screen.line(&format_args!(
                "{path}: damaged at byte {offset}: {what}{since}"
            ));
        }
        (Finding::Version { row, why }, Form::Text) => {
            let (name, number) = (&row.name, row.number);
            screen.line(&format_args!(
                "{name}: version {number} cannot be restored: {why}"
            ));
        }
        (Finding::Pack { damage, replaced }, Form::Json) => screen.above(|| {
            output::json_line(&PackLine {
                v: 1,
                r#type: "pack",
                pack: damage.pack.0,
                path: show_path(&damage.path).to_string(),
                offset: damage.offset,
                error: damage.what.clone(),
                replaced: *replaced,
            });
        }),
        (Finding::Version { row, why }, Form::Json) => screen.above(|| {
            output::json_line(&VersionLine {
                v: 1,
                r#type: "file",
                name: row.name.to_string(),
                version: row.number,
                status: "damaged",
                error: why.clone(),
            });
        }),
    }
}

fn table(checked: &Checked, took: Duration, memory: &MemorySeen) -> String {
    let rate = Rate {
        bytes: checked.read_bytes,
        took,
    };
    let verdict = match (checked.damaged, checked.replaced, checked.lost_versions) {
        (0, 0, 0) => "no damage".to_owned(),
        (0, replaced, 0) => format!(
            "{} damaged places in packs, all of them replaced: nothing is lost",
            Count(replaced)
        ),
        (open, replaced, versions) => format!(
            "{} damaged places in packs, {} versions cannot be restored",
            Count(open + replaced),
            Count(versions)
        ),
    };
    let rows = [
        (
            "files",
            format!(
                "{} with {} versions",
                Count(checked.files),
                Count(checked.versions)
            ),
        ),
        (
            "packs",
            format!(
                "{} with {} pieces",
                Count(checked.packs),
                Count(checked.pieces)
            ),
        ),
        (
            "read",
            format!(
                "{} in {:.2} s, {rate}",
                Size(checked.read_bytes),
                took.as_secs_f64()
            ),
        ),
        (
            "memory",
            format!(
                "{} -> {} -> {}  (start, peak, end)",
                Size(memory.start_bytes),
                Size(memory.peak_bytes),
                Size(memory.end_bytes)
            ),
        ),
        ("found", verdict),
    ];
    rows.iter()
        .map(|(key, value)| format!("{key:<8}{value}\n"))
        .collect()
}

#[derive(Serialize)]
struct PackLine {
    v: u8,
    r#type: &'static str,
    pack: u64,
    path: String,
    offset: u64,
    error: String,
    replaced: bool,
}

#[derive(Serialize)]
struct VersionLine {
    v: u8,
    r#type: &'static str,
    name: String,
    version: u64,
    status: &'static str,
    error: String,
}

#[derive(Serialize)]
struct Summary {
    v: u8,
    r#type: &'static str,
    packs: u64,
    pieces: u64,
    bytes: u64,
    files: u64,
    versions: u64,
    damaged: u64,
    replaced: u64,
    lost_versions: u64,
    seconds: f64,
    rss_start: u64,
    rss_peak: u64,
    rss_end: u64,
}
