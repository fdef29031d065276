//! Another configuration while the service runs.
//!
//! The rule: all of it is read, checked and found to fit before any of it applies; if anything is wrong,
//! everything stays as it was, and whoever asked is told why.

use std::time::Duration;

use super::desk::DeskSettings;
use crate::daemon::Control;
use crate::daemon::tuning::Wish;
use crate::pipeline::Options;
use crate::pipeline::scrub::ScrubOptions;
use crate::pressure::limits::Wanted;
use crate::store::clock::now_ns;

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Reloaded {
    /// Keys that have changed and apply now.
    pub applied: Vec<String>,
    /// Keys that are not as the service was started with, and apply after a restart.
    pub restart: Vec<String>,
}

/// A configuration, as far as it can be applied while the service runs.
pub struct Settings {
    /// What is wanted of memory.
    pub wanted: Wanted,
    /// What the data plane would like to use.
    pub wish: Wish,
    /// How files are taken in.
    pub options: Options,
    /// How jobs are dealt with.
    pub desk: DeskSettings,
    /// How long running files may go on when the service is to end.
    pub drain: Duration,
    /// The cache's heap is renewed after so many bytes of work.
    pub renew_after_bytes: u64,
    /// Idle buffers go back after this long.
    pub idle: Duration,
    /// How what is stored is checked.
    pub scrub: ScrubOptions,
    /// What else applies then.
    pub also: Box<dyn FnOnce()>,
    /// What has changed.
    pub reloaded: Reloaded,
}

/// Reads the configuration again and checks all of it.
pub type Reload<'a> = Box<dyn FnMut() -> Result<Settings, String> + 'a>;

impl Control<'_, '_> {
    /// Reads the configuration again: all of what is new applies, or nothing.
    pub(super) fn reload_service(
        &mut self,
    ) -> (Result<Reloaded, String>, Option<tokio::time::Instant>) {
        let watch = &mut *self.watch;
        let Some(attached) = &mut watch.service else {
            return (Err("there is no service".to_owned()), None);
        };
        attached.supervisor.reloading();
        let outcome = (attached.reload)();
        let settings = match outcome {
            Ok(settings) => settings,
            Err(error) => {
                tracing::error!(%error, "the configuration is wrong: going on with the one before");
                attached.supervisor.ready();
                return (Err(error), None);
            }
        };
        let applied = match (&mut watch.live, &watch.around) {
            (Some(live), Some(around)) => {
                match live.set(settings.wanted, settings.wish, around.group()) {
                    Ok(applied) => Some(applied),
                    Err(too_small) => {
                        let error = format!(
                            "the memory limit is too small to work with: the smallest that works here \
                             is {} MiB",
                            too_small.smallest_bytes.div_ceil(1 << 20)
                        );
                        tracing::error!(%error, "going on with the configuration before");
                        attached.supervisor.ready();
                        return (Err(error), None);
                    }
                }
            }
            _ => None,
        };
        attached.drain = settings.drain;
        attached.renew_after_bytes = settings.renew_after_bytes;
        let service = &attached.service;
        service.desk.set(settings.desk);
        service.set_options(settings.options);
        service.scrub.set_options(settings.scrub);
        service.board.write(|shown| shown.configured_ns = now_ns());
        watch.idle = settings.idle;
        (settings.also)();
        let next = self.apply(applied);
        tracing::info!(
            applied = settings.reloaded.applied.join(", "),
            needs_restart = settings.reloaded.restart.join(", "),
            "the configuration was read again"
        );
        if let Some(attached) = &mut self.watch.service {
            attached.supervisor.ready();
        }
        (Ok(settings.reloaded), next)
    }
}
