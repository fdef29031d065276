//! What every command needs before it acts: the configuration, checked; the memory it may use; logs.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::args::{Common, Working};
use super::exit::TooLittleMemory;
use super::logging::{self, Filter};
use super::screen::Screen;
use crate::config::{self, Config, FlagValue, Loaded, Measure, Origin, Role, Sources};
use crate::daemon::around::Surroundings;
use crate::daemon::live::{self, LiveLimits, Reload};
use crate::daemon::pushes::Pushes;
use crate::daemon::relief::Relief;
use crate::daemon::tuning::{self, Plan, Wish};
use crate::daemon::{Patience, Watch};
use crate::heap::Pool;
use crate::pipeline::Limits;
use crate::pipeline::fingerprints::Fingerprints;
use crate::pressure::dwell::Dwell;
use crate::pressure::level::Thresholds;
use crate::pressure::limits::{self, ConfiguredLimit, Resume, Wanted};
use crate::pressure::mode::Rules;
use crate::pressure::probe::host;
use crate::pressure::sample::Measure as SampleMeasure;
use crate::store::Store;

/// A command's settings.
pub(super) struct Setup {
    pub config: Config,
    pub memory: limits::Limits,
    pub screen: Screen,
    pub store: PathBuf,
    /// What the limits were found with, until a run takes it over.
    senses: Cell<Option<(Surroundings, LiveLimits<'static>)>>,
    pub sources: Sources,
    /// The configuration with where it came from.
    pub loaded: Loaded,
    /// Changes what is logged, if this started the logging.
    pub filter: Option<Filter>,
}

impl Setup {
    /// Loads the configuration with these flags above it, and starts logging.
    pub(super) fn load(
        common: &Common,
        working: Option<&Working>,
        mut flags: Vec<FlagValue>,
    ) -> anyhow::Result<Setup> {
        flags.extend(common_flags(common)?);
        if let Some(working) = working {
            flags.extend(flag("memory.limit", &working.memory, "--memory"));
            flags.extend(flag("pipeline.workers", &working.workers, "--workers"));
        }
        let sources = Sources::from_process(Role::Command, common.config.clone(), flags);
        let loaded = config::load(&sources)?;
        let quiet = working.is_none_or(|working| working.quiet);
        Setup::of(sources, loaded, quiet)
    }

    /// Loads the configuration of a service with these flags above it, and starts logging.
    pub(super) fn load_service(
        common: &Common,
        mut flags: Vec<FlagValue>,
    ) -> anyhow::Result<Setup> {
        flags.extend(common_flags(common)?);
        let sources = Sources::from_process(Role::Service, common.config.clone(), flags);
        let loaded = super::serve::load(&sources)?;
        Setup::of(sources, loaded, true)
    }

    fn of(sources: Sources, loaded: Loaded, quiet: bool) -> anyhow::Result<Setup> {
        let config = loaded.config.clone();
        let screen = Screen::new(quiet, config.progress.interval);
        let filter = logging::start(config.log.level, config.log.format, &screen)
            .context("write to the journal")?;
        let store = config::store_path(&config, |name| std::env::var_os(name))?;
        let around = Surroundings::open(Path::new("/"));
        let wanted = wanted(&config, loaded.origin.get("memory.limit"));
        let (live, memory) = LiveLimits::find(wanted, around.group(), host::memory());
        for problem in around.group().take_problems() {
            tracing::warn!(%problem, "a limit of the cgroup cannot be read");
        }
        Ok(Setup {
            config,
            memory,
            screen,
            store,
            senses: Cell::new(Some((around, live))),
            sources,
            loaded,
            filter,
        })
    }

    /// Threads that were asked for, or as many as there are cores.
    pub(super) fn workers(&self) -> usize {
        workers(&self.config)
    }

    /// Fits what a command would like to use under the limit.
    pub(super) fn fit(&self, wish: &Wish) -> Result<Plan, TooLittleMemory> {
        let plan = tuning::fit(wish, &self.memory.thresholds);
        let plan = plan.map_err(|too_small| TooLittleMemory {
            limit: self.memory.why.first().cloned().unwrap_or_default(),
            smallest_bytes: too_small.smallest_bytes,
        })?;
        live::tell(&self.memory.why, Some(&plan));
        Ok(plan)
    }

    /// How a run of this command is watched over. If what it may use can follow a limit that changes
    /// meanwhile, `wish` is what it would like to use.
    pub(super) fn watch<'a>(
        &self,
        wish: Option<Wish>,
        store: &'a Store,
        pool: &'a Pool,
        limits: &'a Limits,
        known: Option<&'a Fingerprints<'a>>,
    ) -> Watch<'a> {
        let need_bytes = tuning::need_bytes(limits.workers());
        let rules = rules(&self.config, self.memory.thresholds, need_bytes);
        let (around, live) = self.senses.take().unzip();
        let live = live.map(|live| live.follow(wish, reload(self.sources.clone())));
        let relief = Relief::new(pool, limits, known, store.database());
        Watch {
            idle: self.config.heap.idle,
            display_every: self.screen.every(),
            around,
            pushes: Some(Pushes::start(Path::new("/"), &|name| {
                std::env::var_os(name)
            })),
            live,
            ..Watch::new(rules, relief)
        }
    }
}

/// Reading stops within this time even if whoever takes the bytes does not take them.
pub(super) const READER_PATIENCE: Patience = Patience::AtMost(Duration::from_millis(900));

/// Threads that were asked for, or as many as there are cores.
pub(super) fn workers(config: &Config) -> usize {
    match config.pipeline.workers {
        config::Workers::Count(count) => usize::from(count),
        config::Workers::Auto => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
    }
}

/// What memory is judged by.
pub(super) fn rules(config: &Config, thresholds: Thresholds, need_bytes: u64) -> Rules {
    Rules {
        thresholds,
        measure: match config.memory.measure {
            Measure::Rss => SampleMeasure::Rss,
            Measure::Anonymous => SampleMeasure::Anonymous,
        },
        dwell: Dwell {
            base: config.memory.dwell,
        },
        need_bytes,
    }
}

/// Reads the configuration again, with the same flags above it.
fn reload(sources: Sources) -> Reload<'static> {
    Box::new(move || match config::load(&sources) {
        Ok(loaded) => Ok(wanted(&loaded.config, loaded.origin.get("memory.limit"))),
        Err(error) => Err(error.to_string()),
    })
}

pub(super) fn wanted(config: &Config, origin: Option<&Origin>) -> Wanted {
    Wanted {
        limit: match config.memory.limit {
            config::Limit::Auto => None,
            config::Limit::Size(size) => Some(ConfiguredLimit {
                bytes: size.as_u64(),
                origin: match origin.unwrap_or(&Origin::BuiltIn) {
                    Origin::Flag(flag) => (*flag).to_owned(),
                    origin => format!("memory.limit in {origin}"),
                },
            }),
        },
        threshold_bytes: config.memory.threshold.as_u64(),
        resume: Resume::Percent(config.memory.resume.0),
    }
}

/// What the flags of every command set.
pub(super) fn common_flags(common: &Common) -> anyhow::Result<Vec<FlagValue>> {
    let store = common.store.as_ref();
    let store = store.map(|path| path_text(path)).transpose()?;
    let flags = [
        flag("store.path", &store, "--store"),
        flag("log.level", &common.log, "--log"),
    ];
    Ok(flags.into_iter().flatten().collect())
}

/// The value that `flag` gives to `key`, if it was given.
pub(super) fn flag(
    key: &'static str,
    value: &Option<String>,
    flag: &'static str,
) -> Option<FlagValue> {
    let value = value.clone()?;
    Some(FlagValue { key, value, flag })
}

/// Configuration is text, so a path in it must be.
fn path_text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("--store {}: the path is not UTF-8", path.display()))
}
