//! What is told to the service manager, in systemd's protocol; without one, nothing.
//!
//! The rule: the watchdog is fed from the control loop, and only while work that has begun goes on. A
//! service that hangs, in its control loop or in the data plane, is ended by its manager and takes
//! everything up again when it is started anew.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Work that has begun and has not moved for this long hangs. A disk that is busy writes nothing for
/// some seconds, a network file system for more.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// The status line changes at most this often.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// See the head of this file.
pub struct Supervisor {
    /// The watchdog is fed this often.
    feed_every: Option<Duration>,
    fed: Option<Instant>,
    status: String,
    status_at: Option<Instant>,
    moved: Moved,
}

/// How far the work had come, and when that was seen.
#[derive(Clone, Copy)]
struct Moved {
    steps: u64,
    at: Instant,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progressed {
    /// Something is in work.
    pub busy: bool,
    /// A number that grows with every step.
    pub steps: u64,
}

impl Supervisor {
    /// Looks whether somebody wants to be told.
    pub fn new() -> Supervisor {
        Supervisor {
            // Half of the time that it waits.
            feed_every: sd_notify::watchdog_enabled().map(|patience| patience / 2),
            fed: None,
            status: String::new(),
            status_at: None,
            moved: Moved {
                steps: 0,
                at: Instant::now(),
            },
        }
    }

    /// All is up.
    pub fn ready(&mut self) {
        tell(&[NotifyState::Ready]);
    }

    /// The configuration is being read again. [`ready`](Supervisor::ready) must follow.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    /// The service ends, and may need so long for it.
    pub fn stopping(&mut self, within: Duration) {
        tell(&[NotifyState::Stopping]);
        extend(within);
    }

    /// Feeds the watchdog if it is time, unless the work hangs.
    pub fn feed(&mut self, now: Instant, progressed: Progressed) {
        let Some(every) = self.feed_every else {
            return;
        };
        if !progressed.busy || progressed.steps != self.moved.steps {
            self.moved = Moved {
                steps: progressed.steps,
                at: now,
            };
        }
        if now.duration_since(self.moved.at) >= HANGS_AFTER {
            return;
        }
        // A little early rather than a whole round of the loop late.
        let due = every.mul_f32(0.8);
        if self.fed.is_none_or(|fed| now.duration_since(fed) >= due) {
            self.fed = Some(now);
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// How long the control loop may sleep for the watchdog's sake.
    pub fn longest_sleep(&self) -> Duration {
        self.feed_every.map_or(Duration::MAX, |every| every / 5)
    }

    /// Shows a line about how things are, if it is a new one and the last one was not just now.
    pub fn status(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if !is_there() {
            return;
        }
        let recent = |at: Instant| now.duration_since(at) < STATUS_EVERY;
        if self.status_at.is_some_and(recent) {
            return;
        }
        let line = line();
        if line != self.status {
            self.status_at = Some(now);
            tell(&[NotifyState::Status(&line)]);
            self.status = line;
        }
    }
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        Supervisor::new()
    }
}

/// Asks the manager for so much more time before it takes a start or a stop for failed.
pub fn extend(time: Duration) {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
