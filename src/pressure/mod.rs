//! Memory pressure: sample -> level -> mode -> actions.
//!
//! This room decides and never acts. It turns what the kernel says about this
//! process into a list of actions; whoever holds the workers, the caches and
//! the heap carries them out, samples again and logs what they really freed.
//! Everything but `probe` is a pure function of its arguments: time comes in
//! with the sample, so any recorded trace can be replayed.
//!
//! ```text
//!  probe::{group, rlimit, host} --at start, 2 x a second--> limits::choose --> Rules
//!                                                                               |
//!  probe::proc   --4 ms .. 1 s-----> Sample --> Level --> Controller --> Decision { mode, actions }
//!  probe::group  --2 .. 10 x a second--^                                        |
//!  probe::{psi, notify}, pushed--------^                      recording <-------+
//! ```
//!
//! # Mechanics
//!
//! * **Probe.** Resident and shared bytes come from `/proc/self/statm`, kept
//!   open and read with one `pread` (about 1 us; opening it each time costs
//!   six times, asking sysinfo 35 times as much). File pages are clean and
//!   reclaimable, so a large mapping raises the resident size without any
//!   danger: [`sample::Measure`] says which size is compared with the threshold.
//! * **Limits.** Found at start and looked at again while work goes on, over all
//!   ancestors of our cgroup, v1 or v2, and the process's rlimits. The least one
//!   rules, and [`limits::Limits::why`] says which and from where.
//! * **Room.** What the tightest of our groups, or else the host, can still give
//!   counts beside our own measure: a neighbour that grows is seen before the
//!   kernel has to choose whom to kill.
//! * **Level** ([`level::Level`]) is what one sample says. **Mode**
//!   ([`mode::Mode`]) is what filed does, and it is sticky. The **share** of the
//!   workers ([`share::WorkerShare`]) follows the samples within a mode.
//! * **Pace.** The next sample is due when memory that grew as fast as it can be
//!   written would reach the next mark; sooner if it really grows.
//! * A probe that cannot be read is an error for the caller to report once; it
//!   then goes on with [`sample::Sample::of_counters`]. Nothing read from
//!   `/proc` or `/sys` panics.
//! * A **recording** ([`recording`]) of samples and rules replays into the same
//!   decisions.
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
//! | what others left of the cgroup at start, if they hold 4 MiB or more | 90 % |
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
//! | normal -> aggressive | 2 samples in a row at or above the threshold, or with less room around us than twice the need; 1 sample at 60 % of the threshold if the system asked for memory, or if reads are slow where room is short |
//! | any -> critical | 1 sample at or above critical, with less room than the need, or after a kill in our group |
//! | critical -> aggressive | for the dwell time below "leave critical", with 1.5 times the need around us, and nobody asking |
//! | aggressive -> normal | for the dwell time below resume, with 2.5 times the need, and nobody asking |
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
//! What each change asks for is in [`action::for_change`]; what may be left out
//! of it is, once enough came back. While a mode lasts and the measure stays above
//! resume without falling by 5 % of the threshold in 500 ms, more is asked for,
//! unless what is still on its way would do. malloc is trimmed on the way up only
//! and at most every 30 s: the call takes every arena's lock, 34 ms on a fragmented
//! heap even when there is nothing to return. In critical mode with one worker and
//! still at 95 % of the limit for 10 s, the jobs that run are failed: they do not
//! fit, and the process is to live. Once calm, nothing is asked for: giving memory
//! back in idle time is the heap's own decay.

pub mod action;
mod cadence;
pub mod dwell;
pub mod level;
pub mod limits;
pub mod mode;
pub mod probe;
pub mod reading;
pub mod reason;
pub mod recording;
pub mod sample;
pub mod share;
mod size;
