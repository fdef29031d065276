//! `filed process`: taking files in.

use crate::store::clock::now_ns;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::args::{Common, Form, Process};
use super::exit::{Exit, UsageError};
use super::names;
use super::output;
use super::report::{Destination, Report};
use super::screen::{Screen, Total};
use super::setup::{Setup, flag};
use super::summary::{Summary, Tally};
use crate::config::ChunkingMethod;
use crate::daemon::recorder::Recorder;
use crate::daemon::timeline::Timeline;
use crate::daemon::tuning::{Wish, context_bytes};
use crate::daemon::{self, Patience, Run, memory};
use crate::heap::{HeapTotals, Pool};
use crate::pipeline::fingerprints::{CacheStats, Fingerprints, Settings};
use crate::pipeline::{
    self, FileReport, Found, Input, Limits, Options, Progress, Status, Stop, TimeCounts, Walk,
};
use crate::store::format::Chunking;
use crate::store::recover::recover;
use crate::store::{FileName, Store, hex, show_path};

/// So many threads may be there beside those that the limit allows to work.
const RESTING_AT_MOST: usize = 16;

pub(super) fn run(common: &Common, args: &Process) -> anyhow::Result<Exit> {
    let form = Form::of_flag(args.working.json);
    let inputs = inputs(args)?;
    let destination = args.report.as_deref().map(Destination::new).transpose()?;
    let flags = [
        flag("chunking.method", &args.chunking, "--chunking"),
        flag("compression.level", &args.level, "--level"),
    ];
    let setup = Setup::load(
        common,
        Some(&args.working),
        flags.into_iter().flatten().collect(),
    )?;
    let wanted_chunking = chunking(&setup);
    let level = setup.config.compression.level;
    let wish = Wish {
        workers: setup.workers(),
        cache_bytes: setup.config.heap.piece_cache.as_u64(),
        shared_buffer_bytes: 0,
        reserved_bytes: 0,
        worker_buffer_bytes: pipeline::worker_buffer_bytes(&method_of(&setup)?),
        worker_context_bytes: context_bytes(level),
    };
    let plan = setup.fit(&wish)?;
    if let Some(destination) = &destination {
        destination.check()?;
    }
    if !setup.store.exists() && inputs.iter().all(is_missing) {
        // A mistyped path is no reason to create a store.
        return Ok(report_missing(inputs, &setup, form, destination.as_ref()));
    }
    let mut tally = Tally::default();
    let store = Store::open_or_create(&setup.store, wanted_chunking.clone())?;
    if args.chunking.is_some() && store.format().chunking != wanted_chunking {
        setup.screen.line(&format_args!(
            "{}: --chunking is ignored: a store's files are all cut as its first were",
            show_path(store.root())
        ));
    }
    seal_left_behind(&store, &setup.screen)?;
    let pool = Pool::new(plan.buffer_bytes);
    let limits = Limits::new(plan.workers);
    let settings = Settings {
        limit_bytes: plan.cache_bytes,
        long_pause: setup.config.heap.long_pause,
    };
    let known = Fingerprints::new(&store, settings, pool.account("fingerprints"));
    let options = Options {
        // As many as there may be: a limit that is raised meanwhile has more of them work.
        workers: threads(plan.workers, wish.workers),
        level: i32::from(level),
        pack_bytes: setup.config.store.pack_size.as_u64(),
        reread: args.reread,
    };
    let stop = Arc::new(Stop::default());
    let progress = Progress::default();
    let total = count_ahead(&setup.screen, &inputs, store.root(), &stop);
    let walk = Walk::new(inputs, store.root());
    let mut watch = setup.watch(Some(wish), &store, &pool, &limits, Some(&known));
    watch.recorder = args.record.as_deref().map(recorder).transpose()?;
    watch.timeline = destination.is_some().then(Timeline::new);
    let counted = Mutex::new(&mut tally);
    let report = |report: FileReport| {
        show_report(&report, form, &setup.screen);
        counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(&report);
    };
    let mut display = |glance: daemon::Glance<'_>| setup.screen.show(glance, total.now());
    let run = daemon::run(
        watch,
        &stop,
        &progress,
        Patience::Unlimited,
        &mut display,
        || {
            known.while_serving(|| {
                pipeline::take_in(
                    &store,
                    &pool,
                    Box::new(walk),
                    &Arc::default(),
                    &options,
                    &known,
                    None,
                    &limits,
                    &stop,
                    &progress,
                    &report,
                )
            })
        },
    )
    .context("start the control loop")?;
    stop.request();
    setup.screen.clear();
    let thresholds = &setup.memory.thresholds;
    let heaps = known.heap_totals();
    let summary = Summary::new(
        &tally,
        &run,
        thresholds,
        known.stats(),
        &heaps,
        &progress.chunk_times.counts(),
    );
    match form {
        Form::Json => output::json_line(&summary),
        Form::Text if !args.working.quiet => output::print(&summary.table(&tally, store.root())),
        Form::Text => {}
    }
    let reported = destination.is_none_or(|destination| {
        let report = Report {
            store: store.root(),
            summary: &summary,
            read_bytes: tally.read_bytes,
            timeline: &run.timeline.unwrap_or_default(),
            limits: &setup.memory,
            heaps: &heaps,
            signal: run.signal,
            error: run.outcome.as_ref().err().map(ToString::to_string),
        };
        write_report(&destination, &report)
    });
    if let Err(error) = run.outcome {
        return Err(anyhow::Error::new(error).context("stopped"));
    }
    Ok(match run.signal {
        Some(signal) => Exit::Signal(signal),
        None if reported => tally.exit(),
        None => tally.exit_without_report(),
    })
}

/// Threads to start: more than may work at first, for a limit that is raised meanwhile, but not by any
/// number, since each takes memory that nobody has planned for.
pub(super) fn threads(planned: usize, wanted: usize) -> usize {
    wanted.min(planned.max(RESTING_AT_MOST))
}

fn recorder(path: &Path) -> anyhow::Result<Recorder> {
    Recorder::create(path).with_context(|| format!("write {}", show_path(path)))
}

/// Writes the report; whether that worked. What was stored stays stored if it did not.
fn write_report(destination: &Destination, report: &Report<'_>) -> bool {
    let written = destination.write(report);
    if let Err(error) = &written {
        output::warn(&format_args!("{error:#}"));
    }
    written.is_ok()
}

/// What was asked for, as absolute paths.
fn inputs(args: &Process) -> anyhow::Result<Vec<Input>> {
    let usage = |message: &str| Err(UsageError(message.to_owned()).into());
    if args.name.is_some() && args.paths.len() > 1 {
        return usage("--as names a single file: give one PATH with it");
    }
    let name = args.name.as_deref().map(|name| {
        FileName::new(name.as_bytes()).map_err(|error| UsageError(format!("--as: {error}")))
    });
    let name = name.transpose()?;
    let mut inputs = Vec::with_capacity(args.paths.len());
    for path in &args.paths {
        if path == OsStr::new("-") {
            match &name {
                Some(name) => inputs.push(Input::Stdin { name: name.clone() }),
                None => return usage("standard input has no name: give it one with --as NAME"),
            }
        } else {
            let given = Path::new(path);
            // A path that cannot be resolved is reported like any other that is not there.
            let path = names::absolute(given).unwrap_or_else(|_| given.to_owned());
            let name = name.clone();
            inputs.push(Input::Path { path, name });
        }
    }
    Ok(inputs)
}

fn is_missing(input: &Input) -> bool {
    matches!(input, Input::Path { path, .. } if path.symlink_metadata()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound))
}

/// Says of each path that it is not there.
fn report_missing(
    inputs: Vec<Input>,
    setup: &Setup,
    form: Form,
    destination: Option<&Destination>,
) -> Exit {
    let mut tally = Tally::default();
    for input in inputs {
        if let Input::Path { path, .. } = input {
            let name = FileName::new(path.as_os_str().as_bytes()).ok();
            let why = io::Error::from(rustix::io::Errno::NOENT).to_string();
            let report = FileReport::without(Status::Failed, path, name, why);
            tally.add(&report);
            show_report(&report, form, &setup.screen);
        }
    }
    let run = Run {
        outcome: (),
        memory: memory::seen_now(Path::new("/")),
        mode_changes: 0,
        signal: None,
        took: Duration::ZERO,
        timeline: None,
    };
    let (cache, heaps) = (CacheStats::default(), HeapTotals::default());
    let summary = Summary::new(
        &tally,
        &run,
        &setup.memory.thresholds,
        cache,
        &heaps,
        &TimeCounts::default(),
    );
    if form == Form::Json {
        output::json_line(&summary);
    }
    if let Some(destination) = destination {
        let report = Report {
            store: &setup.store,
            summary: &summary,
            read_bytes: 0,
            timeline: &Timeline::new(),
            limits: &setup.memory,
            heaps: &heaps,
            signal: None,
            error: None,
        };
        write_report(destination, &report);
    }
    Exit::Failed
}

/// How a store that has yet to be created would cut files.
pub(super) fn chunking(setup: &Setup) -> Chunking {
    let chunking = &setup.config.chunking;
    match chunking.method {
        ChunkingMethod::Fixed => Chunking::Fixed,
        ChunkingMethod::Content => Chunking::Content {
            // The configuration allows at most 256 KiB.
            average_bytes: chunking.piece_size.as_u64() as u32,
        },
    }
}

/// The chunker of the store there is, or would be: its buffers are planned before the store is opened.
pub(super) fn method_of(setup: &Setup) -> anyhow::Result<pipeline::chunker::Method> {
    let format = crate::store::format::Format::read(&setup.store);
    let chunking = format.map_or_else(|_| chunking(setup), |format| format.chunking);
    Ok(pipeline::method(&chunking, &setup.store)?)
}

pub(super) fn seal_left_behind(store: &Store, screen: &Screen) -> anyhow::Result<()> {
    let recovered = recover(store, now_ns())?;
    for path in &recovered.damaged {
        let path = show_path(path);
        screen.line(&format_args!(
            "{path}: damaged: it is shorter than what was committed; `filed verify` names the files"
        ));
    }
    if recovered.sealed > 0 {
        tracing::info!(
            packs = recovered.sealed,
            pieces = recovered.pieces,
            cut_bytes = recovered.cut_bytes,
            "sealed what an earlier process left behind"
        );
    }
    Ok(())
}

/// The sum of what is to be taken in, found out beside the work where it is shown.
struct Ahead {
    bytes: AtomicU64,
}

impl Ahead {
    const UNKNOWN: u64 = u64::MAX;

    fn now(&self) -> Total {
        match self.bytes.load(Ordering::Relaxed) {
            Ahead::UNKNOWN => Total::Unknown,
            bytes => Total::Bytes(bytes),
        }
    }
}

fn count_ahead(screen: &Screen, inputs: &[Input], store: &Path, stop: &Arc<Stop>) -> Arc<Ahead> {
    let ahead = Arc::new(Ahead {
        bytes: AtomicU64::new(Ahead::UNKNOWN),
    });
    let streams = inputs
        .iter()
        .any(|input| matches!(input, Input::Stdin { .. }));
    if streams || !screen.shows_total() {
        return ahead;
    }
    let (walk, found, stop) = (
        Walk::new(inputs.to_vec(), store),
        Arc::clone(&ahead),
        Arc::clone(stop),
    );
    // Ends with the walk, with the work, or with the process: nobody waits for it.
    std::thread::spawn(move || {
        let mut bytes = 0u64;
        for entry in walk {
            if stop.requested() {
                return;
            }
            if let Found::File { metadata, .. } = entry {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
        found.bytes.store(bytes, Ordering::Relaxed);
    });
    ahead
}

fn show_report(report: &FileReport, form: Form, screen: &Screen) {
    if form == Form::Json {
        return screen.above(|| output::json_line(&FileLine::new(report)));
    }
    if let Some(error) = &report.error {
        let path = show_path(&report.path);
        match report.status {
            Status::Skipped => screen.line(&format_args!("{path}: skipped: {error}")),
            _ => screen.line(&format_args!("{path}: {error}")),
        }
    }
}

#[derive(Serialize)]
struct FileLine {
    v: u8,
    r#type: &'static str,
    name: Option<String>,
    path: String,
    version: Option<u64>,
    status: &'static str,
    bytes: u64,
    chunks: u64,
    pieces: u64,
    new_pieces: u64,
    new_bytes: u64,
    stored_bytes: u64,
    digest: Option<String>,
    seconds: f64,
    error: Option<String>,
}

impl FileLine {
    fn new(report: &FileReport) -> FileLine {
        FileLine {
            v: 1,
            r#type: "file",
            name: report.name.as_ref().map(FileName::to_string),
            path: show_path(&report.path).to_string(),
            version: report.version,
            status: match report.status {
                Status::Stored => "stored",
                Status::Unchanged => "unchanged",
                Status::Failed => "failed",
                Status::Skipped => "skipped",
            },
            bytes: report.size_bytes,
            chunks: report.chunks,
            pieces: report.pieces,
            new_pieces: report.new_pieces,
            new_bytes: report.new_bytes,
            stored_bytes: report.stored_bytes,
            digest: report.digest.as_ref().map(|digest| hex(digest)),
            seconds: report.took.as_secs_f64(),
            error: report.error.clone(),
        }
    }
}
