//! `filed restore`: giving files out again.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::args::{Common, Form, Restore};
use super::exit::{Exit, UsageError, classify};
use super::names;
use super::output::{self, Count, Rate, Size};
use super::screen::{Screen, Total};
use super::setup::{READER_PATIENCE, Setup};
use crate::daemon::tuning::Wish;
use crate::daemon::{self, Patience};
use crate::heap::Pool;
use crate::pipeline::restore::{self, Output, RestoreError, give_out};
use crate::pipeline::{Limits, Progress, Stop};
use crate::store::catalog::VersionRow;
use crate::store::lists::PackLists;
use crate::store::target::{self, Existing, Target};
use crate::store::{FileName, Store, StoreError, hex, show_path};

/// Lists of packs kept in memory while restoring, in bytes.
pub(super) const LIST_BYTES: u64 = 2 << 20;

/// Files are asked from the catalog this many at a time.
const PAGE: u32 = 256;

pub(super) fn run(common: &Common, args: &Restore) -> anyhow::Result<Exit> {
    let setup = Setup::load(common, Some(&args.working), Vec::new())?;
    let plan = setup.fit(&wish(&setup))?;
    let store = Store::open(&setup.store)?;
    let pool = Pool::new(plan.buffer_bytes);
    let limits = Limits::new(plan.workers);
    let lists = PackLists::new(&store, LIST_BYTES);
    let (stop, progress) = (Stop::default(), Progress::default());
    let job = Job {
        store: &store,
        lists: &lists,
        pool: &pool,
        workers: plan.workers,
        stop: &stop,
        progress: &progress,
        screen: &setup.screen,
        form: Form::of_flag(args.working.json),
        existing: if args.force {
            Existing::Replace
        } else {
            Existing::Keep
        },
    };
    let what = Wanted::find(&store, args)?;
    let total = what.total();
    let watch = setup.watch(None, &store, &pool, &limits, None);
    let patience = if args.stdout {
        READER_PATIENCE
    } else {
        Patience::Unlimited
    };
    let mut display = |glance: daemon::Glance<'_>| setup.screen.show(glance, total);
    let run = daemon::run(watch, &stop, &progress, patience, &mut display, || {
        job.restore(&what)
    })
    .context("start the control loop")?;
    setup.screen.clear();
    if let Some(signal) = run.signal {
        return Ok(Exit::Signal(signal));
    }
    let done = run.outcome?;
    let rate = Rate {
        bytes: done.bytes,
        took: run.took,
    };
    match job.form {
        Form::Json => output::json_line(&Summary {
            v: 1,
            r#type: "summary",
            files: done.restored + done.failed,
            restored: done.restored,
            failed: done.failed,
            bytes: done.bytes,
            seconds: run.took.as_secs_f64(),
            rss_start: run.memory.start_bytes,
            rss_peak: run.memory.peak_bytes,
            rss_end: run.memory.end_bytes,
        }),
        Form::Text if !args.working.quiet && !args.stdout => {
            let mut text = format!(
                "files   {} restored, {} failed\n",
                Count(done.restored),
                Count(done.failed)
            );
            text += &format!(
                "bytes   {} in {:.2} s, {rate}\n",
                Size(done.bytes),
                run.took.as_secs_f64()
            );
            text += &format!(
                "memory  {} -> {} -> {}  (start, peak, end)\n",
                Size(run.memory.start_bytes),
                Size(run.memory.peak_bytes),
                Size(run.memory.end_bytes)
            );
            output::print(&text);
        }
        Form::Text => {}
    }
    Ok(match (done.restored, done.failed, done.damaged) {
        (_, 0, _) => Exit::Done,
        (0, _, 0) => Exit::Failed,
        (_, _, 1..) => Exit::Damage,
        _ => Exit::Partly,
    })
}

/// What giving out would like to use.
pub(super) fn wish(setup: &Setup) -> Wish {
    let one = restore::buffer_bytes(1);
    let each = restore::buffer_bytes(2) - one;
    Wish {
        workers: setup.workers(),
        cache_bytes: LIST_BYTES,
        shared_buffer_bytes: one - each,
        reserved_bytes: 0,
        worker_buffer_bytes: each,
        // A decompression context.
        worker_context_bytes: 256 << 10,
    }
}

/// What is to be restored.
enum Wanted {
    One { row: VersionRow, to: To },
    All { below: PathBuf },
}

/// Where one file goes.
enum To {
    Path(PathBuf),
    Stdout,
}

impl Wanted {
    fn find(store: &Store, args: &Restore) -> anyhow::Result<Wanted> {
        let Some(typed) = &args.name else {
            let below = args.to.clone();
            let below = below.ok_or_else(|| UsageError("--all needs --to FOLDER".to_owned()))?;
            return Ok(Wanted::All { below });
        };
        let mut row = names::find(store, typed)?;
        if let Some(number) = args.version {
            let name = row.name;
            row =
                store
                    .database()
                    .version(&name, number)?
                    .ok_or_else(|| StoreError::NotStored {
                        what: format!("version {number} of {name}"),
                    })?;
        }
        let to = match &args.to {
            _ if args.stdout => To::Stdout,
            None => To::Path(row.name.as_path().to_owned()),
            Some(folder) if folder.is_dir() => match row.name.as_path().file_name() {
                Some(name) => To::Path(folder.join(name)),
                None => return Err(UsageError("--to must name a file".to_owned()).into()),
            },
            Some(path) => To::Path(path.clone()),
        };
        Ok(Wanted::One { row, to })
    }

    fn total(&self) -> Total {
        match self {
            Wanted::One { row, .. } => Total::Bytes(row.size_bytes),
            Wanted::All { .. } => Total::Unknown,
        }
    }
}

/// What was restored.
#[derive(Default)]
struct Done {
    restored: u64,
    failed: u64,
    /// Files among `failed` whose stored data are damaged.
    damaged: u64,
    bytes: u64,
}

struct Job<'a> {
    store: &'a Store,
    lists: &'a PackLists<'a>,
    pool: &'a Pool,
    workers: usize,
    stop: &'a Stop,
    progress: &'a Progress,
    screen: &'a Screen,
    form: Form,
    existing: Existing,
}

impl Job<'_> {
    fn restore(&self, wanted: &Wanted) -> anyhow::Result<Done> {
        match wanted {
            Wanted::One { row, to } => self.restore_one(row, to),
            Wanted::All { below } => self.restore_all(below),
        }
    }

    fn restore_one(&self, row: &VersionRow, to: &To) -> anyhow::Result<Done> {
        match to {
            To::Stdout => self.to_stdout(row)?,
            To::Path(path) => {
                let target = Target::at(path, self.existing)?;
                self.to_target(row, target)?;
            }
        }
        Ok(Done {
            restored: 1,
            bytes: row.size_bytes,
            ..Done::default()
        })
    }

    /// Restores every file it can, and tells of each that it cannot.
    fn restore_all(&self, below: &Path) -> anyhow::Result<Done> {
        std::fs::create_dir_all(below)
            .with_context(|| format!("create folder {}", show_path(below)))?;
        let mut done = Done::default();
        let mut after: Option<FileName> = None;
        loop {
            let rows = self.store.database().files_after(after.as_ref(), PAGE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(done);
            };
            after = Some(last.name.clone());
            for (row, _) in &rows {
                if self.stop.requested() {
                    return Ok(done);
                }
                match self.restore_below(below, row) {
                    Ok(()) => {
                        done.restored += 1;
                        done.bytes += row.size_bytes;
                    }
                    Err(error) => {
                        done.failed += 1;
                        done.damaged += u64::from(classify(&error).0 == Exit::Damage);
                        self.tell(row, None, Some(&error));
                    }
                }
            }
        }
    }

    fn restore_below(&self, below: &Path, row: &VersionRow) -> anyhow::Result<()> {
        let relative = target::relative(row.name.as_path());
        let target = Target::beneath(below, &relative, self.existing)?;
        self.to_target(row, target)
    }

    fn to_target(&self, row: &VersionRow, target: Target) -> anyhow::Result<()> {
        let version = self.store.version(row.place)?;
        let path = target.path().to_owned();
        let output = Output::File(target.file());
        self.give_out(&version, output)
            .with_context(|| format!("restore {}", show_path(&path)))?;
        for unrestored in target.finish(version.size_bytes, version.metadata.as_ref())? {
            let path = show_path(&path);
            self.screen
                .line(&format_args!("{path}: not restored: {unrestored}"));
        }
        self.tell(row, Some(&path), None);
        Ok(())
    }

    fn to_stdout(&self, row: &VersionRow) -> anyhow::Result<()> {
        let version = self.store.version(row.place)?;
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        let mut stdout = std::fs::File::from(stdout.context("open standard output")?);
        let output = Output::Stream(&mut stdout);
        self.give_out(&version, output)
            .context("restore to standard output")?;
        stdout.flush().context("write to standard output")
    }

    fn give_out(
        &self,
        version: &crate::store::manifest::Version,
        output: Output<'_>,
    ) -> Result<(), RestoreError> {
        give_out(
            self.store,
            self.lists,
            version,
            self.pool,
            self.workers,
            self.stop,
            self.progress,
            None,
            output,
        )
    }

    fn tell(&self, row: &VersionRow, path: Option<&Path>, error: Option<&anyhow::Error>) {
        self.progress.one_file();
        match (self.form, error) {
            (Form::Json, error) => self.screen.above(|| {
                output::json_line(&FileLine {
                    v: 1,
                    r#type: "file",
                    name: row.name.to_string(),
                    version: row.number,
                    path: path.map(|path| show_path(path).to_string()),
                    status: if error.is_some() {
                        "failed"
                    } else {
                        "restored"
                    },
                    bytes: row.size_bytes,
                    digest: hex(&row.digest),
                    error: error.map(|error| format!("{error:#}")),
                });
            }),
            (Form::Text, Some(error)) => {
                self.screen.line(&format_args!("{}: {error:#}", row.name));
            }
            (Form::Text, None) => {}
        }
    }
}

#[derive(Serialize)]
struct FileLine {
    v: u8,
    r#type: &'static str,
    name: String,
    version: u64,
    path: Option<String>,
    status: &'static str,
    bytes: u64,
    digest: String,
    error: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    v: u8,
    r#type: &'static str,
    files: u64,
    restored: u64,
    failed: u64,
    bytes: u64,
    seconds: f64,
    rss_start: u64,
    rss_peak: u64,
    rss_end: u64,
}
