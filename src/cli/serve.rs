//! `filed serve`: the long-running form.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::geteuid;

use super::args::{Common, Serve};
use super::exit::Exit;
use super::process::{chunking, method_of, seal_left_behind, threads};
use super::setup::{Setup, flag, wanted};
use crate::config::{self, Config, Loaded, LogLevel, Metrics, Sources};
use crate::daemon::inbox::{After, InboxOptions, Inboxes};
use crate::daemon::service::control::Attached;
use crate::daemon::service::desk::DeskSettings;
use crate::daemon::service::reload::{Reload, Reloaded, Settings};
use crate::daemon::service::{self, Parts, Service, supervisor};
use crate::daemon::socket::{self, Socket};
use crate::daemon::tuning::{Wish, context_bytes};
use crate::daemon::{self, Patience};
use crate::heap::Pool;
use crate::pipeline::fingerprints::{self, Fingerprints};
use crate::pipeline::scrub::ScrubOptions;
use crate::pipeline::{self, Limits, Options, chunker};
use crate::store::Store;

/// Keys that apply only when the service starts.
const NEED_RESTART: &[&str] = &[
    "store.path",
    "memory.measure",
    "memory.dwell",
    "heap.long_pause",
    "service.socket",
    "service.metrics",
    "log.format",
];

/// Keys that mean nothing to a service that has its store.
const WITHOUT_MEANING: &[&str] = &[
    "chunking.method",
    "chunking.piece_size",
    "progress.interval",
];

/// A start may take this long before the service manager hears of it again: a large store is recovered.
const START_PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn run(common: &Common, args: &Serve) -> anyhow::Result<Exit> {
    let flags = [
        flag("memory.limit", &args.memory, "--memory"),
        flag("pipeline.workers", &args.workers, "--workers"),
    ];
    let mut setup = Setup::load_service(common, flags.into_iter().flatten().collect())?;
    // Whoever reads its status or its log is elsewhere.
    setup.store = std::path::absolute(&setup.store).context("find the current folder")?;
    let socket_path = config::socket_path(
        &setup.config,
        |name| std::env::var_os(name),
        geteuid().is_root(),
    )?;
    let socket_path = args.socket.clone().unwrap_or(socket_path);
    let method = method_of(&setup)?;
    let wish = wish(&setup.config, &method);
    let plan = setup.fit(&wish)?;

    supervisor::extend(START_PATIENCE);
    let store = Arc::new(Store::open_or_create(&setup.store, chunking(&setup))?);
    let _only_service = store.claim_service()?;
    seal_left_behind(&store, &setup.screen)?;
    let pool = Pool::new(plan.buffer_bytes);
    let limits = Arc::new(Limits::new(plan.workers));
    let settings = fingerprints::Settings {
        limit_bytes: plan.cache_bytes,
        long_pause: setup.config.heap.long_pause,
    };
    let known = Fingerprints::new(&store, settings, pool.account("fingerprints"));
    let (service, orders) = Service::new(Parts {
        store: Arc::clone(&store),
        pool: pool.clone(),
        limits: Arc::clone(&limits),
        options: options(&setup.config, threads(plan.workers, wish.workers)),
        desk: desk(&setup.config),
        scrub: scrub(&setup.config),
        heap: known.totals(),
        thresholds: setup.memory.thresholds,
        why: setup.memory.why.clone(),
        plan,
    })?;

    let inboxes = inboxes(&setup.config, store.root()).map_err(WrongInbox)?;
    let rescan = setup.config.service.rescan;
    let inboxes = service::inboxes::start(&service, inboxes, rescan).context("watch inboxes")?;
    let _ = service.inboxes.set(Arc::clone(&inboxes));
    let reload = reload(&setup, method, Arc::clone(&inboxes));
    let mut watch = setup.watch(Some(wish), &store, &pool, &limits, Some(&known));
    watch.service = Some(Attached::new(
        Arc::clone(&service),
        orders,
        setup.config.service.drain,
        setup.config.service.renew_after.as_u64(),
        reload,
    ));
    let listening = socket::bind(&socket_path)?;
    let metrics = match setup.config.service.metrics {
        Metrics::At(address) => Some(socket::bind_metrics(address)?),
        Metrics::Off => None,
    };
    let run = daemon::run(
        watch,
        &service.stop,
        &service.progress,
        Patience::Unlimited,
        &mut |_| {},
        || {
            // Only now are signals heard: whoever is answered may send one.
            let socket = Socket::serve(listening, metrics, Arc::clone(&service))?;
            tracing::info!(
                store = %crate::store::show_path(store.root()),
                socket = %crate::store::show_path(&socket_path),
                version = env!("CARGO_PKG_VERSION"),
                "serving"
            );
            service.work(&known);
            drop(socket);
            std::io::Result::Ok(())
        },
    )
    .context("start the control loop")?;
    run.outcome.context("serve the control socket")?;
    tracing::info!(
        peak_bytes = run.memory.peak_bytes,
        mode_changes = run.mode_changes,
        "ended"
    );
    Ok(Exit::Done)
}

/// What the data plane would like to use.
fn wish(config: &Config, method: &chunker::Method) -> Wish {
    Wish {
        workers: super::setup::workers(config),
        cache_bytes: config.heap.piece_cache.as_u64(),
        shared_buffer_bytes: 0,
        reserved_bytes: service::buffer_bytes(),
        worker_buffer_bytes: pipeline::worker_buffer_bytes(method),
        worker_context_bytes: context_bytes(config.compression.level),
    }
}

fn options(config: &Config, workers: usize) -> Options {
    Options {
        workers,
        level: i32::from(config.compression.level),
        pack_bytes: config.store.pack_size.as_u64(),
        reread: false,
    }
}

fn desk(config: &Config) -> DeskSettings {
    DeskSettings {
        most_open: u64::from(config.service.queue),
        attempts: config.service.attempts,
        history: config.service.history,
        history_jobs: u64::from(config.service.history_jobs),
    }
}

fn scrub(config: &Config) -> ScrubOptions {
    ScrubOptions {
        rate_bytes: match config.scrub.rate {
            config::Rate::Off => None,
            config::Rate::PerSecond(size) => Some(size.as_u64()),
        },
        every: config.scrub.every,
    }
}

/// The inboxes, unless one of them holds the store: what is written there is not to be taken in.
fn inboxes(config: &Config, store: &Path) -> Result<Vec<InboxOptions>, String> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let store = real(store);
    let wanted = config.inbox.iter().map(|inbox| {
        let path = real(&inbox.path);
        if path == store || inbox.recursive && store.starts_with(&path) || path.starts_with(&store)
        {
            return Err(format!(
                "inbox {}: the store {} and an inbox cannot lie within each other",
                crate::store::show_path(&inbox.path),
                crate::store::show_path(&store)
            ));
        }
        Ok(InboxOptions {
            path: inbox.path.clone(),
            patterns: inbox.patterns.clone(),
            recursive: inbox.recursive,
            settle: inbox.settle,
            after: match &inbox.after {
                config::After::Keep => After::Keep,
                config::After::Delete => After::Delete,
                config::After::MoveTo(folder) => After::MoveTo(folder.clone()),
            },
            priority: inbox.priority,
        })
    });
    wanted.collect()
}

/// An inbox that cannot be one here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WrongInbox(String);

/// Reads the configuration again, as it was read at the start.
fn reload(setup: &Setup, method: chunker::Method, inboxes: Arc<Inboxes>) -> Reload<'static> {
    let store = setup.store.clone();
    let sources = setup.sources.clone();
    let filter = setup.filter.clone();
    let started = setup.loaded.clone();
    let applies = Rc::new(RefCell::new(setup.loaded.clone()));
    Box::new(move || {
        let loaded = load(&sources).map_err(|error| error.to_string())?;
        let reloaded = compare(&started, &applies.borrow(), &loaded)?;
        let config = &loaded.config;
        let wish = wish(config, &method);
        let level = config.log.level;
        let filter = filter.clone();
        let wanted_inboxes = self::inboxes(config, &store)?;
        let (inboxes, rescan) = (Arc::clone(&inboxes), config.service.rescan);
        let applies = Rc::clone(&applies);
        let settings = Settings {
            wanted: wanted(config, loaded.origin.get("memory.limit")),
            wish,
            options: options(config, threads(wish.workers, wish.workers)),
            desk: desk(config),
            drain: config.service.drain,
            renew_after_bytes: config.service.renew_after.as_u64(),
            idle: config.heap.idle,
            scrub: scrub(config),
            also: Box::new(move || {
                *applies.borrow_mut() = loaded;
                if let Some(filter) = filter {
                    filter.set(level);
                }
                inboxes.replace(wanted_inboxes, rescan);
            }),
            reloaded,
        };
        Ok(settings)
    })
}

/// The configuration of a service.
pub(super) fn load(sources: &Sources) -> Result<Loaded, config::ConfigError> {
    let mut loaded = config::load(sources)?;
    if loaded.config.log.level == LogLevel::Auto {
        loaded.config.log.level = LogLevel::Info;
    }
    Ok(loaded)
}

/// Which keys are not as they apply, or, if they need a restart, not as the service was started with.
fn compare(started: &Loaded, applies: &Loaded, after: &Loaded) -> Result<Reloaded, String> {
    let shown = |loaded| config::show(loaded).map_err(|error| error.to_string());
    let (started, applies, after) = (shown(started)?, shown(applies)?, shown(after)?);
    let value_of = |list: &[config::Shown], key: &str| {
        let found = list.iter().find(|shown| shown.key == key);
        found.map(|shown| shown.value.clone())
    };
    let mut reloaded = Reloaded::default();
    let all = started.iter().chain(&applies).chain(&after);
    for key in all.map(|shown| &shown.key) {
        let (old, list) = if NEED_RESTART.contains(&key.as_str()) {
            (&started, &mut reloaded.restart)
        } else {
            (&applies, &mut reloaded.applied)
        };
        let differs = value_of(old, key) != value_of(&after, key);
        if differs && !list.contains(key) && !WITHOUT_MEANING.contains(&key.as_str()) {
            list.push(key.clone());
        }
    }
    Ok(reloaded)
}
