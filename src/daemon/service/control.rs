//! What the control loop does for the service: orders, signals, reload, the end.
//!
//! The rule: the first wish to end lets running files finish, for as long as the drain lasts, then stops
//! them at their next chunk; a second one ends the process at once, which is harmless at any moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};
use tokio::sync::{mpsc, oneshot};

use super::Service;
use super::board::Shown;
use super::desk::Flow;
use super::reload::{Reload, Reloaded};
use super::supervisor::{self, Progressed, Supervisor};
use crate::daemon::Control;
use crate::daemon::timeline::MarkKind;
use crate::heap::{Trim, malloc};
use crate::pipeline::fingerprints::Examine;
use crate::pipeline::scrub::PauseFor;
use crate::pressure::mode::Mode;

/// Signals that mean something to a service only.
pub(in crate::daemon) const SIGNALS: &[i32] = &[SIGUSR1, SIGUSR2];

/// While it drains, what still runs is told this often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The rate of work is that of so long, looked at in steps of so much.
const RATE_OVER: Duration = Duration::from_secs(5);
const RATE_STEP: Duration = Duration::from_millis(500);

/// A service with nothing to do looks at its memory this often: it does not grow by itself, work that
/// begins wakes the loop, and so does whoever tells of pressure.
const QUIET_SLEEP: Duration = Duration::from_secs(3);

/// Something that the control loop is to do.
pub enum Order {
    /// Give back all memory that nobody uses.
    Trim(oneshot::Sender<Trimmed>),
    /// Look at the cache's heap on its thread, or do something with it.
    Examine(Examine),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
    /// Look at memory: work begins.
    Look,
    /// End, as at a signal.
    Stop,
}

/// What a trim has brought.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Trimmed {
    /// Resident before, in bytes.
    pub resident_before_bytes: u64,
    /// Resident after, in bytes.
    pub resident_after_bytes: u64,
    /// Idle buffers that went back, in bytes.
    pub buffers_bytes: u64,
}

/// A service, as the control loop has it.
pub struct Attached<'a> {
    /// The service.
    pub service: Arc<Service>,
    orders: Option<mpsc::Receiver<Order>>,
    pub(super) reload: Reload<'a>,
    pub(super) drain: Duration,
    pub(super) renew_after_bytes: u64,
    /// Bytes of work at which it was last renewed.
    renewed_at_bytes: u64,
    pub(super) supervisor: Supervisor,
    /// When the end was asked for, and when what still runs was last told.
    draining: Option<(Instant, Instant)>,
    told_ready: bool,
    /// The scrub is kept from reading, because memory is short.
    scrub_paused: bool,
    /// When something was last in work.
    busy_at: Instant,
    /// Bytes of work at moments of the last seconds.
    course: VecDeque<(Instant, u64)>,
}

impl<'a> Attached<'a> {
    /// A service that takes these orders.
    pub fn new(
        service: Arc<Service>,
        orders: mpsc::Receiver<Order>,
        drain: Duration,
        renew_after_bytes: u64,
        reload: Reload<'a>,
    ) -> Attached<'a> {
        Attached {
            service,
            orders: Some(orders),
            reload,
            drain,
            renew_after_bytes,
            renewed_at_bytes: 0,
            supervisor: Supervisor::new(),
            draining: None,
            told_ready: false,
            scrub_paused: false,
            busy_at: Instant::now(),
            course: VecDeque::new(),
        }
    }

    /// Bytes of work in a second, over the last seconds.
    fn rate(&mut self, now: Instant, done_bytes: u64) -> u64 {
        let recent = |at: Instant| now.duration_since(at) < RATE_OVER;
        let due = self
            .course
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) >= RATE_STEP);
        if due {
            self.course.push_back((now, done_bytes));
        }
        while self.course.len() > 2 && !recent(self.course[1].0) {
            self.course.pop_front();
        }
        let Some((at, bytes)) = self.course.front() else {
            return 0;
        };
        let millis = now.duration_since(*at).as_millis().max(1) as u64;
        (done_bytes - bytes).saturating_mul(1000) / millis
    }

    pub(in crate::daemon) fn take_orders(&mut self) -> Option<mpsc::Receiver<Order>> {
        self.orders.take()
    }
}

/// The next order; waits for ever where nobody will give one any more.
pub(in crate::daemon) async fn next_order(orders: &mut Option<mpsc::Receiver<Order>>) -> Order {
    loop {
        match orders {
            Some(open) => match open.recv().await {
                Some(order) => return order,
                None => *orders = None,
            },
            None => std::future::pending().await,
        }
    }
}

impl Control<'_, '_> {
    /// Does what a client of the socket asked for; gives when to look at memory next, if that has changed.
    pub(in crate::daemon) fn obey(&mut self, order: Order) -> Option<tokio::time::Instant> {
        match order {
            Order::Trim(reply) => {
                let trimmed = self.trim_all();
                // Whoever asked may have gone.
                let _ = reply.send(trimmed);
                None
            }
            Order::Examine(examine) => {
                if let Some(known) = self.watch.relief.known {
                    known.examine(examine);
                }
                None
            }
            Order::Reload(reply) => {
                let (outcome, next) = self.reload_service();
                let _ = reply.send(outcome);
                next
            }
            Order::Look => {
                if let Some(attached) = &mut self.watch.service {
                    attached.busy_at = Instant::now();
                }
                Some(self.sample())
            }
            Order::Stop => {
                self.begin_drain("it was asked to over its socket");
                None
            }
        }
    }

    /// What a signal means to a service.
    pub(in crate::daemon) fn serve_signal(&mut self, signal: i32) -> Option<tokio::time::Instant> {
        match signal {
            SIGHUP if !self.listening.is_reload(signal) => self.end_signal(signal),
            SIGHUP => return self.reload_service().1,
            SIGUSR1 => {
                if let Some(known) = self.watch.relief.known {
                    known.collect();
                    self.mark(self.began.elapsed(), MarkKind::Collection, 0, 0);
                }
                let trimmed = self.trim_all();
                tracing::info!(
                    resident_before_bytes = trimmed.resident_before_bytes,
                    resident_after_bytes = trimmed.resident_after_bytes,
                    "collected and trimmed, as a signal asked for"
                );
            }
            SIGUSR2 => self.dump(),
            signal => self.end_signal(signal),
        }
        None
    }

    fn end_signal(&mut self, signal: i32) {
        if self.signal.is_some() {
            if signal == SIGHUP {
                return;
            }
            tracing::warn!(signal, "ending at once, as a second signal asked for");
            std::process::exit(128 + signal);
        }
        self.signal = Some(signal);
        self.begin_drain(&format!("signal {signal}"));
    }

    /// No new work from now on.
    fn begin_drain(&mut self, why: &str) {
        let Some(attached) = &mut self.watch.service else {
            return;
        };
        if attached.draining.is_some() {
            return;
        }
        let now = Instant::now();
        attached.draining = Some((now, now));
        attached
            .supervisor
            .stopping(attached.drain + Duration::from_secs(30));
        let in_work = attached.service.desk.in_work();
        tracing::info!(
            why,
            in_work = in_work.len(),
            drain_seconds = attached.drain.as_secs(),
            "ending: no new work"
        );
        attached.service.desk.set_flow(Flow::Draining);
        self.tell_what_runs();
    }

    fn tell_what_runs(&self) {
        let Some(attached) = &self.watch.service else {
            return;
        };
        for in_work in attached.service.desk.in_work() {
            tracing::info!(
                path = %crate::store::show_path(&in_work.what),
                for_seconds = in_work.for_.as_secs(),
                "still running"
            );
        }
    }

    /// What the service needs each time the loop comes round; gives when the loop is to come round next.
    pub(in crate::daemon) fn tend_service(
        &mut self,
        now: Instant,
        next: tokio::time::Instant,
    ) -> tokio::time::Instant {
        let done_bytes = self.progress.done_bytes.load(Ordering::Relaxed);
        let steps = done_bytes
            + self.progress.files.load(Ordering::Relaxed)
            + self.progress.stored_bytes.load(Ordering::Relaxed);
        let Some(attached) = &mut self.watch.service else {
            return next;
        };
        if !attached.told_ready {
            attached.told_ready = true;
            attached.supervisor.ready();
        }
        let busy = attached.service.desk.is_busy();
        if !attached.service.desk.is_idle() {
            attached.busy_at = now;
        }
        let pressed = self.watch.controller.mode() != Mode::Normal;
        if pressed != attached.scrub_paused {
            attached.scrub_paused = pressed;
            attached.service.scrub.pause(PauseFor::Pressure, pressed);
        }
        attached.supervisor.feed(now, Progressed { busy, steps });
        let rate = attached.rate(now, done_bytes);
        let service = &attached.service;
        service.board.write(|shown| shown.bytes_per_second = rate);
        let shown = service.board.read();
        attached
            .supervisor
            .status(now, || status_line(service, &shown));
        if done_bytes - attached.renewed_at_bytes.min(done_bytes) >= attached.renew_after_bytes {
            attached.renewed_at_bytes = done_bytes;
            if let Some(known) = self.watch.relief.known {
                known.renew();
            }
        }
        let mut tell = false;
        if let Some((since, told)) = &mut attached.draining {
            if now.duration_since(*since) >= attached.drain && !self.stop.requested() {
                tracing::warn!("the drain is over: what still runs stops at its next chunk");
                self.stop.request();
                attached.service.bell.ring();
            }
            if now.duration_since(*told) >= TELL_EVERY {
                *told = now;
                tell = true;
                supervisor::extend(attached.drain + Duration::from_secs(30));
            }
        }
        let longest = attached.supervisor.longest_sleep();
        if tell {
            self.tell_what_runs();
        }
        let next = if self.is_quiet(now) && self.watch.controller.mode() == Mode::Normal {
            next.max(tokio::time::Instant::now() + QUIET_SLEEP)
        } else {
            next
        };
        next.min(tokio::time::Instant::now() + longest.min(Duration::from_secs(3600)))
    }

    /// Whether this is a service that has had nothing to do for a while, so that its memory is as it is.
    pub(in crate::daemon) fn is_quiet(&self, now: Instant) -> bool {
        let quiet_after = self.watch.idle * 2 + QUIET_SLEEP;
        let attached = self.watch.service.as_ref();
        attached.is_some_and(|attached| now.duration_since(attached.busy_at) >= quiet_after)
    }

    /// Gives back all that nobody uses.
    fn trim_all(&mut self) -> Trimmed {
        let at = self.began.elapsed();
        let relief = &self.watch.relief;
        let resident = |control: &mut Self| {
            control.watch.probe.sample(at, 0);
            control.watch.probe.last_resident_bytes()
        };
        let returned = relief.pool.stats().returned_bytes;
        let resident_before_bytes = resident(self);
        let relief = &self.watch.relief;
        relief.database.shrink();
        relief.return_idle(Trim::All, Instant::now());
        malloc::trim();
        let buffers_bytes = relief.pool.stats().returned_bytes.saturating_sub(returned);
        let resident_after_bytes = resident(self);
        let freed_bytes = resident_before_bytes.saturating_sub(resident_after_bytes);
        self.mark(at, MarkKind::Trim, buffers_bytes, freed_bytes);
        Trimmed {
            resident_before_bytes,
            resident_after_bytes,
            buffers_bytes,
        }
    }

    /// Writes how things are into the log.
    fn dump(&self) {
        let Some(attached) = &self.watch.service else {
            return;
        };
        let shown = attached.service.board.read();
        let stats = self.watch.relief.pool.stats();
        let counts = attached.service.desk.counts().unwrap_or_default();
        let heap = attached.service.heap.now();
        tracing::info!(
            mode = %shown.mode,
            resident_bytes = shown.resident_bytes,
            anonymous_bytes = shown.anonymous_bytes,
            threshold_bytes = shown.thresholds.threshold_bytes(),
            limit_bytes = shown.thresholds.limit_bytes(),
            workers = self.watch.relief.limits.workers(),
            buffers_held_bytes = stats.held_bytes,
            buffers_idle_bytes = stats.idle_resident_bytes,
            heap_objects = heap.live_objects,
            heap_bytes = heap.held_bytes,
            trims = shown.trims.count,
            trimmed_bytes = shown.trims.bytes,
            jobs_queued = counts.queued,
            jobs_running = counts.running,
            jobs_stored = counts.stored,
            jobs_failed = counts.failed,
            problem = shown.problem,
            "state, as a signal asked for"
        );
        self.tell_what_runs();
    }
}

/// One line for the service manager.
fn status_line(service: &Service, shown: &Shown) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let in_work = service.desk.in_work().len();
    let mut line = format!(
        "{}: {} of {} MiB, {in_work} files in work, {} of {} workers",
        shown.mode,
        mib(shown.resident_bytes),
        mib(shown.thresholds.limit_bytes()),
        service.limits.workers(),
        shown.plan.workers,
    );
    if let Some(problem) = &shown.problem {
        line.push_str("; ");
        line.push_str(problem);
    }
    line
}
