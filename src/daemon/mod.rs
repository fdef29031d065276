//! The order of life of a run: memory is sensed, pressure relieved and signals heard while the data
//! plane works.
//!
//! ```text
//!            signals (own thread) ──┐
//!           pressure (own thread) ──┤
//!   timers: sample, idle, display ──┼─> control loop (tokio, this thread) ──> relief ──> limits, heap,
//!                work has ended ────┘            │                                      caches, malloc
//!                                                └──> stop                              (data plane)
//! ```
//!
//! This room carries out and computes nothing: what a sample means is decided by `pressure`, what a
//! chunk becomes by `pipeline`. The control loop never waits for the data plane, and ends only when
//! the work has ended, so nothing is left half done behind its back.

mod act;
pub mod around;
pub mod inbox;
pub mod jobs;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod pushes;
mod record;
pub mod recorder;
pub mod relief;
pub mod service;
mod signals;
mod slow_reads;
pub mod socket;
pub mod timeline;
pub mod tuning;

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGHUP;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::heap::Trim;
use crate::pipeline::{Progress, Stop};
use crate::pressure::mode::{Controller, Mode, Rules};
use crate::pressure::sample::Sample;
use around::Surroundings;
use live::{Applied, LiveLimits};
use memory::{MemoryProbe, MemorySeen};
use pushes::{Push, Pushes};
use recorder::Recorder;
use relief::{Holdings, Relief};
use service::control::Attached;
use signals::Listening;
use slow_reads::SlowReads;
use timeline::{MarkKind, Owners, Timeline};

/// Limits are looked at this often: a change is to hold within a second.
const LIMITS_EVERY: Duration = Duration::from_millis(400);

/// What a display may show at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Glance<'a> {
    /// Counters of the work.
    pub progress: &'a Progress,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Who holds it.
    pub owners: Owners,
    /// The mode.
    pub mode: Mode,
    /// Since the work began.
    pub elapsed: Duration,
}

/// How a run is to be watched.
pub struct Watch<'a> {
    /// Decides what samples mean.
    pub controller: Controller,
    /// Reads this process's memory.
    pub probe: MemoryProbe,
    /// Carries out what was decided.
    pub relief: Relief<'a>,
    /// Idle buffers go back to the operating system after this long.
    pub idle: Duration,
    /// Shown this often.
    pub display_every: Duration,
    /// What is left around us, if that is to count.
    pub around: Option<Surroundings>,
    /// Who tells when to look at once, if anybody does.
    pub pushes: Option<(Pushes, mpsc::Receiver<Push>)>,
    /// Limits that may change meanwhile, if they are to be followed.
    pub live: Option<LiveLimits<'a>>,
    /// Where the run is recorded, if it is.
    pub timeline: Option<Timeline>,
    /// Where samples are written to be replayed, if they are.
    pub recorder: Option<Recorder>,
    /// The service, if the work is one.
    pub service: Option<Attached<'a>>,
}

impl<'a> Watch<'a> {
    /// Watches over this process by `rules`, with what can be given back, and no more: nothing is shown
    /// or recorded, and nothing around it looked at.
    pub fn new(rules: Rules, relief: Relief<'a>) -> Watch<'a> {
        Watch {
            controller: Controller::new(rules),
            probe: MemoryProbe::open(Path::new("/"), rules.measure),
            relief,
            idle: Duration::from_secs(5),
            display_every: Duration::from_secs(3600),
            around: None,
            pushes: None,
            live: None,
            timeline: None,
            recorder: None,
            service: None,
        }
    }
}

/// How a run went, beside what the work itself says.
#[derive(Clone, Debug)]
pub struct Run<T> {
    /// What the work gave back.
    pub outcome: T,
    /// What was seen of memory.
    pub memory: MemorySeen,
    /// How often the mode changed.
    pub mode_changes: u64,
    /// The first signal that asked for the stop.
    pub signal: Option<i32>,
    /// From beginning to end of the work.
    pub took: Duration,
    /// The record, if there was to be one.
    pub timeline: Option<Timeline>,
}

/// How long a work that was asked to stop may take before the process is ended without it, where
/// that is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// As long as it takes: something is being made durable.
    Unlimited,
    /// This long: it may be waiting for a reader that does not read.
    AtMost(Duration),
}

/// Runs `work` on a thread of its own and watches over it until it ends.
///
/// A signal asks it to stop; a second one ends the process at once. Idle memory is given back at the
/// end, before it is measured.
pub fn run<T: Send>(
    mut watch: Watch<'_>,
    stop: &Stop,
    progress: &Progress,
    patience: Patience,
    display: &mut dyn FnMut(Glance<'_>),
    work: impl FnOnce() -> T + Send,
) -> std::io::Result<Run<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let (listening, signals) = signals::listen(match watch.service {
        Some(_) => service::control::SIGNALS,
        None => &[],
    })?;
    let began = Instant::now();
    watch.probe.start();
    let (ended, end) = oneshot::channel::<()>();
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("filed-work".to_owned())
            .spawn_scoped(scope, move || {
                // Dropped also when the work panics: then the loop ends and the panic goes on below.
                let _ended = ended;
                work()
            })?;
        let control = Control {
            watch: &mut watch,
            stop,
            progress,
            patience,
            display,
            began,
            mode_changes: 0,
            signal: None,
            ordered: Vec::new(),
            slow_reads: SlowReads::default(),
            notified: false,
            listening: &listening,
            looked_at_limits: began,
            returned_idle: began,
        };
        let (mode_changes, signal) = runtime.block_on(control.until(end, signals));
        let outcome = worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        let took = began.elapsed();
        watch.end(began, progress);
        if let Some(recorder) = &mut watch.recorder {
            recorder.finish();
        }
        Ok(Run {
            outcome,
            memory: watch.probe.finish(),
            mode_changes,
            signal,
            took,
            timeline: watch.timeline.take(),
        })
    })
}

/// The control loop's state.
struct Control<'loop_, 'watch> {
    watch: &'loop_ mut Watch<'watch>,
    stop: &'loop_ Stop,
    progress: &'loop_ Progress,
    patience: Patience,
    display: &'loop_ mut dyn FnMut(Glance<'_>),
    began: Instant,
    mode_changes: u64,
    signal: Option<i32>,
    /// What was ordered for the timeline to tell of later.
    ordered: Vec<record::Ordered>,
    slow_reads: SlowReads,
    /// Somebody asked for memory since the last sample.
    notified: bool,
    listening: &'loop_ Listening,
    /// When limits were last looked at.
    looked_at_limits: Instant,
    /// When idle buffers were last given back.
    returned_idle: Instant,
}

impl Control<'_, '_> {
    async fn until(
        mut self,
        mut end: oneshot::Receiver<()>,
        mut signals: mpsc::Receiver<i32>,
    ) -> (u64, Option<i32>) {
        let mut display = interval(self.watch.display_every);
        display.set_missed_tick_behavior(MissedTickBehavior::Delay);
        display.tick().await;
        let mut points = interval(record::POINT_EVERY);
        points.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let recorded = self.watch.timeline.is_some();
        // Kept until the end: dropping the first ends the second.
        let (_pushes, mut pushed) = self.watch.pushes.take().unzip();
        let mut orders = self.watch.service.as_mut().and_then(Attached::take_orders);
        let mut next_sample = tokio::time::Instant::now();
        let mut give_up_at: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                _ = &mut end => return (self.mode_changes, self.signal),
                () = sleep_until(next_sample) => next_sample = self.turn(),
                push = next_push(&mut pushed) => {
                    self.hear(push);
                    next_sample = self.sample();
                }
                _ = points.tick(), if recorded => self.record_now(),
                _ = display.tick() => self.show(),
                order = service::control::next_order(&mut orders) => {
                    next_sample = self.obey(order).unwrap_or(next_sample);
                }
                Some(signal) = signals.recv() => {
                    if self.watch.service.is_some() {
                        next_sample = self.serve_signal(signal).unwrap_or(next_sample);
                        continue;
                    }
                    if self.listening.is_reload(signal) {
                        next_sample = self.reload().unwrap_or(next_sample);
                        continue;
                    }
                    if self.on_signal(signal).is_break() {
                        std::process::exit(128 + signal);
                    }
                    if let Patience::AtMost(time) = self.patience {
                        give_up_at = Some(tokio::time::Instant::now() + time);
                    }
                }
                () = until(give_up_at) => std::process::exit(128 + self.signal.unwrap_or(0)),
            }
        }
    }

    /// What is done each time the loop comes round by itself: one timer for all of it, so that a process
    /// that has nothing to do wakes up no more often than its memory is looked at.
    fn turn(&mut self) -> tokio::time::Instant {
        let now = Instant::now();
        if now.duration_since(self.looked_at_limits) >= LIMITS_EVERY {
            self.looked_at_limits = now;
            if let Some(next) = self.check_limits() {
                return next;
            }
        }
        let idle = self.watch.idle.max(Duration::from_millis(500));
        if now.duration_since(self.returned_idle) >= idle && !self.is_quiet(now) {
            self.returned_idle = now;
            self.return_idle();
        }
        let next = self.sample();
        self.tend_service(now, next)
    }

    /// Takes a sample, has it judged, carries out what follows; gives when the next one is due.
    fn sample(&mut self) -> tokio::time::Instant {
        let sample = self.look();
        let decision = self.watch.controller.observe(&sample);
        let held_before_bytes = match decision.change {
            Some(_) => self.watch.relief.holdings().held_bytes,
            None => 0,
        };
        self.record(&sample);
        if let Some(attached) = &self.watch.service {
            let around = self.watch.around.as_ref();
            attached.service.board.write(|shown| {
                shown.level = decision.level;
                shown.resident_bytes = sample.resident_bytes;
                shown.anonymous_bytes = sample.anonymous_bytes;
                shown.headroom_bytes = sample.headroom_bytes;
                shown.group = around.and_then(Surroundings::usage);
            });
        }
        if !decision.actions.is_empty() {
            self.carry_out(&decision.actions, &sample);
        }
        if let Some(change) = &decision.change {
            self.mode_changes += 1;
            let after = self.watch.probe.sample(
                self.began.elapsed(),
                self.watch.relief.holdings().held_bytes,
            );
            tracing::info!(
                target: "filed::mode",
                from = %change.from,
                to = %change.to,
                why = %change.why,
                resident_before_bytes = sample.resident_bytes,
                resident_after_bytes = after.resident_bytes,
                anonymous_before_bytes = sample.anonymous_bytes,
                anonymous_after_bytes = after.anonymous_bytes,
                held_before_bytes,
                held_after_bytes = after.held_bytes,
                "mode changed"
            );
            let what = MarkKind::ModeChange {
                from: change.from,
                to: change.to,
                why: change.why.to_string(),
            };
            let freed_bytes = sample.resident_bytes.saturating_sub(after.resident_bytes);
            self.mark(sample.at, what, 0, freed_bytes);
        }
        tokio::time::Instant::now() + decision.next_sample_in
    }

    /// Remembers what was said until the next sample.
    fn hear(&mut self, push: Push) {
        tracing::debug!(?push, "word of memory pressure");
        self.notified |= push == Push::Notified;
        if let Some(around) = &mut self.watch.around {
            around.look_again();
        }
    }

    /// Looks at everything that a decision is made of.
    fn look(&mut self) -> Sample {
        let at = self.began.elapsed();
        let mode = self.watch.controller.mode();
        let watch = &mut *self.watch;
        // Counting costs more than looking, so it is done when somebody wants to know.
        let counts = mode > Mode::Normal
            || !watch.probe.sees()
            || watch.timeline.is_some()
            || watch.recorder.is_some();
        let holdings = if counts {
            watch.relief.holdings()
        } else {
            Holdings::default()
        };
        let mut sample = watch.probe.sample(at, holdings.held_bytes);
        sample.in_flight_bytes = holdings.in_flight_bytes;
        sample.idle_bytes = holdings.idle_bytes;
        if let Some(around) = &mut watch.around {
            around.add_to(&mut sample, mode);
        }
        sample.notified = std::mem::take(&mut self.notified);
        let times = &self.progress.read_times;
        sample.slow_reads = self.slow_reads.look(at, || times.counts());
        if let Some(recorder) = &mut watch.recorder {
            recorder.sample(watch.controller.rules(), &sample);
        }
        sample
    }

    /// Follows limits that have changed.
    fn check_limits(&mut self) -> Option<tokio::time::Instant> {
        let watch = &mut *self.watch;
        let applied = (watch.live.as_mut()?).check(watch.around.as_ref()?.group());
        self.apply(applied)
    }

    /// Reads the configuration again.
    fn reload(&mut self) -> Option<tokio::time::Instant> {
        let watch = &mut *self.watch;
        let applied = (watch.live.as_mut()?).reload(watch.around.as_ref()?.group());
        self.apply(applied)
    }

    /// Has what changed apply, and looks at once what that means; gives when to look next.
    fn apply(&mut self, applied: Option<Applied>) -> Option<tokio::time::Instant> {
        let Applied { limits, plan } = applied?;
        if let Some(attached) = &self.watch.service {
            attached.service.board.write(|shown| {
                shown.thresholds = limits.thresholds;
                shown.limits.clone_from(&limits.why);
                shown.plan = plan.unwrap_or(shown.plan);
            });
        }
        let watch = &mut *self.watch;
        let mut need_bytes = watch.controller.rules().need_bytes;
        if let Some(plan) = plan {
            watch.relief.follow(&plan, watch.controller.share());
            need_bytes = tuning::need_bytes(plan.workers);
        }
        watch.controller.set_limits(limits.thresholds, need_bytes);
        if let Some(around) = &mut watch.around {
            around.look_again();
        }
        let next = self.sample();
        // Only now: in a group that is far above its limit the kernel makes whoever writes a line wait.
        live::tell(&limits.why, plan.as_ref());
        Some(next)
    }

    fn show(&mut self) {
        let resident_bytes = self.watch.probe.last_resident_bytes();
        (self.display)(Glance {
            progress: self.progress,
            resident_bytes,
            owners: record::owners(self.watch.relief.pool, resident_bytes),
            mode: self.watch.controller.mode(),
            elapsed: self.began.elapsed(),
        });
    }

    fn return_idle(&mut self) {
        let trim = Trim::IdleSince(self.watch.idle);
        let at = self.began.elapsed();
        let returned = |watch: &Watch<'_>| watch.relief.pool.stats().returned_bytes;
        let before = returned(self.watch);
        self.watch.relief.return_idle(trim, Instant::now());
        let freed_bytes = returned(self.watch).saturating_sub(before);
        if freed_bytes > 0 {
            self.mark(at, MarkKind::Trim, freed_bytes, freed_bytes);
        }
    }

    /// The first signal asks for the stop; the next one breaks.
    fn on_signal(&mut self, signal: i32) -> ControlFlow<()> {
        if self.signal.is_some() {
            // A terminal that goes away may say so twice, and means it once.
            if signal == SIGHUP {
                return ControlFlow::Continue(());
            }
            return ControlFlow::Break(());
        }
        tracing::info!(signal, "stopping at the next chunk");
        self.signal = Some(signal);
        self.stop.request();
        ControlFlow::Continue(())
    }
}

/// The next word of pressure; waits for ever where nobody will say any more.
async fn next_push(pushed: &mut Option<mpsc::Receiver<Push>>) -> Push {
    loop {
        match pushed {
            Some(open) => match open.recv().await {
                Some(push) => return push,
                None => *pushed = None,
            },
            None => std::future::pending().await,
        }
    }
}

/// Waits until that moment; for ever, if there is none.
async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
