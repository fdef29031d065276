//! Memory pressure: sample -> level -> mode -> actions.
//!
//! This room decides and never acts. It turns what the kernel says about this
//! process into a list of actions; whoever holds the workers, the caches and
//! the heap carries them out, samples again and logs what they really freed.
//! Everything but `probe` is a pure function of its arguments: time comes in
//! with the sample, so any recorded trace can be replayed.
//!
//! ```text
//!  probe::{cgroup, rlimit, host} --once--> limits::choose --> Thresholds
//!                                                                 |
//!  probe::proc --every 50 ms .. 1 s--> Sample --> Level --> Controller --> Decision { mode, actions }
//! ```
//!
//! # Mechanics
//!
//! * **Probe.** Resident and shared bytes come from `/proc/self/statm`, kept
//!   open and read with one `pread` (about 1 us; opening it each time costs
//!   six times, asking sysinfo 35 times as much). Anonymous memory is resident
//!   minus shared. File pages are clean and reclaimable, so a large mapping
//!   raises the resident size without any danger: [`sample::Measure`] says
//!   which of the two is compared with the threshold.
//! * **Limits.** Found once at start and on reload, over all ancestors of our
//!   cgroup, v1 or v2, and the process's rlimits. The least one rules, and
//!   [`limits::Limits::why`] says which and from where.
//! * **Level** ([`level::Level`]) is what one sample says. **Mode**
//!   ([`mode::Mode`]) is what filed does, and it is sticky.
//! * **Pace.** The next sample is due in 1 s below 50 % of the threshold, in
//!   250 ms below 80 %, and in 50 ms from there on.
//! * A probe that cannot be read is an error for the caller to report once; it
//!   then goes on with [`sample::Sample::of_counters`]. Nothing read from
//!   `/proc` or `/sys` panics.
//!
//! # Policy
//!
//! The limit is the least of what was found, each with a margin for what the
//! kernel charges us beyond our own pages:
//!
//! | source | share |
//! |---|---|
//! | configured limit, cgroup `memory.high`, v1 `memory.soft_limit_in_bytes` | 100 % |
//! | cgroup `memory.max`, v1 `memory.limit_in_bytes`, `RLIMIT_DATA`, `RLIMIT_AS` | 90 % |
//! | host memory available at start | 80 % |
//! | none of these: threshold / 70 % | 100 % |
//!
//! | mark | where |
//! |---|---|
//! | threshold | as configured (1 GiB), at most 70 % of the limit |
//! | resume | as configured, 80 % of the threshold if not |
//! | critical | half way from the threshold to the limit |
//! | leave critical | half way from the threshold to critical |
//!
//! | change | when |
//! |---|---|
//! | normal -> aggressive | 2 samples in a row at or above the threshold |
//! | any -> critical | 1 sample at or above critical |
//! | critical -> aggressive | below "leave critical" for the dwell time |
//! | aggressive -> normal | below resume for the dwell time |
//!
//! Going up is never delayed: that is what protects the process. Going down is
//! where flapping is stopped, by two rules:
//!
//! * The **dwell time** (2 s) doubles, up to 8 times, when a mode is entered
//!   again within 30 s of having left it, and is reset when 60 s passed.
//! * A **budget of 4 changes a minute**. A step down is only taken if the
//!   steps up that may follow it (two from normal, one from aggressive) still
//!   fit in the minute. So no trace at all gives more than four changes in any
//!   60 s, and the price is paid on the safe side: after a visit to critical,
//!   aggressive mode may last up to a minute.
//!
//! What each change asks for is in [`action::for_change`]. While a mode lasts
//! and the measure stays above resume without falling by 5 % of the threshold
//! in 500 ms, idle segments are asked for again. malloc is trimmed on the way
//! up only and at most every 30 s: the call takes every arena's lock, 34 ms
//! on a fragmented heap even when there is nothing to return. Once calm,
//! nothing is asked for: giving memory back in idle time is the heap's own
//! decay.

pub mod action;
mod cadence;
pub mod dwell;
pub mod level;
pub mod limits;
pub mod mode;
pub mod probe;
pub mod reason;
pub mod recording;
pub mod sample;
pub mod share;
mod size;
