//! Stalls for want of memory, as the kernel counts and announces them (PSI).
//!
//! Owns the format of `memory.pressure` and `/proc/pressure/memory` and the
//! writing of triggers. The rule: a descriptor that carries a trigger is never
//! read, and the totals of a file with a trigger are read no more than once a
//! second, each time through a descriptor of its own. Every reading makes the
//! kernel bring its averages up to date, and a reader at 20 ms kept triggers
//! from firing for seconds, or for good.
//!
//! Without privileges the kernel takes only windows that are multiples of 2 s.
//! The first event after a trigger was set is often none: the kernel starts the
//! window with the stalls since boot. [`is_confirmed`] tells.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::pressure::probe::{ProbeError, number, read_start};

/// What filed asks for by itself: 200 ms of stalls within 2 s, as systemd does.
pub const DEFAULT_TRIGGER: &[u8] = b"some 200000 2000000\0";

/// The least window that needs no privilege.
const FREE_WINDOW: Duration = Duration::from_secs(2);
/// Two lines of four short fields.
const PRESSURE_MAX_BYTES: u64 = 1 << 10;

/// How long tasks stalled since boot, or since the group was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallTotals {
    /// At least one task stalled.
    pub some: Duration,
    /// All tasks stalled.
    pub full: Duration,
}

impl StallTotals {
    /// The total of one kind.
    pub fn of(&self, kind: Stall) -> Duration {
        match kind {
            Stall::Some => self.some,
            Stall::Full => self.full,
        }
    }
}

/// Whose stalls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// Those of any task.
    Some,
    /// Those of all tasks at once.
    Full,
}

/// So much stalling within so much time is an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Whose stalls count.
    pub kind: Stall,
    /// How much of them.
    pub threshold: Duration,
    /// Within what time.
    pub window: Duration,
}

impl Trigger {
    /// Reads what would be written to the kernel, with or without the NUL at
    /// its end.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        let mut fields = text
            .split(u8::is_ascii_whitespace)
            .filter(|field| !field.is_empty());
        let kind = match fields.next()? {
            b"some" => Stall::Some,
            b"full" => Stall::Full,
            _ => return None,
        };
        let threshold = Duration::from_micros(number(fields.next()?)?);
        let window = Duration::from_micros(number(fields.next()?)?);
        fields.next().is_none().then_some(Self {
            kind,
            threshold,
            window,
        })
    }

    /// The same share of a window that needs no privilege. `None` if this is
    /// such a window, or none at all.
    fn with_free_window(self) -> Option<Self> {
        if self.window.is_zero() || self.window == FREE_WINDOW {
            return None;
        }
        let share = self.threshold.as_micros().checked_mul(2_000_000)? / self.window.as_micros();
        Some(Self {
            threshold: Duration::from_micros(u64::try_from(share).ok()?),
            window: FREE_WINDOW,
            ..self
        })
    }

    /// What is written to the kernel, which overwrites the last byte with NUL.
    fn to_bytes(self) -> Vec<u8> {
        let kind = match self.kind {
            Stall::Some => "some",
            Stall::Full => "full",
        };
        let (threshold, window) = (self.threshold.as_micros(), self.window.as_micros());
        format!("{kind} {threshold} {window}\0").into_bytes()
    }
}

/// A file with a trigger, to be polled for `POLLPRI`.
#[derive(Debug)]
pub struct Registered {
    /// The trigger lasts as long as this is open.
    pub file: File,
    /// The trigger in force; `None` if it was accepted without being
    /// understood here.
    pub trigger: Option<Trigger>,
}

/// Reads the totals. `None` if there are none: no such file, a kernel without
/// PSI, or something else in the file.
pub fn stall_totals(path: &Path) -> Option<StallTotals> {
    parse_totals(&read_start(path, PRESSURE_MAX_BYTES).ok()?)
}

/// Opens the file and sets a trigger on it.
///
/// # Errors
///
/// If the file cannot be opened for writing, or the kernel takes neither this
/// trigger nor the same share of a window of 2 s.
pub fn register(path: &Path, trigger: &[u8]) -> Result<Registered, ProbeError> {
    let open = || -> io::Result<Registered> {
        // std adds O_CLOEXEC to what it opens.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        let trigger = set_trigger(trigger, |bytes| file.write_all(bytes))?;
        Ok(Registered { file, trigger })
    };
    open().map_err(|source| ProbeError::watch(path, source))
}

/// Writes the trigger, and if it is refused as invalid, the same share of a
/// window that everybody may use. Gives the one that was taken.
fn set_trigger(
    bytes: &[u8],
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Option<Trigger>> {
    let wanted = Trigger::parse(bytes);
    let refused = match write(bytes) {
        Ok(()) => return Ok(wanted),
        Err(error) => error,
    };
    match wanted.and_then(Trigger::with_free_window) {
        Some(free) if refused.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            write(&free.to_bytes())?;
            Ok(Some(free))
        }
        _ => Err(refused),
    }
}

/// Whether the first event of a trigger is one: since the trigger was set,
/// stalls grew by at least half of what it asks for. Totals that are not known
/// confirm nothing.
pub fn is_confirmed(before: Option<Duration>, now: Option<Duration>, threshold: Duration) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => now.saturating_sub(before) >= threshold / 2,
        _ => false,
    }
}

/// Kernels before 5.13 have no line `full` for some files; that is no stall.
fn parse_totals(content: &[u8]) -> Option<StallTotals> {
    let total = |kind: &[u8]| {
        content
            .split_inclusive(|byte| *byte == b'\n')
            // A line without its end may be cut short.
            .filter_map(|line| line.strip_suffix(b"\n"))
            .find_map(|line| line.strip_prefix(kind)?.strip_prefix(b" "))?
            .split(|byte| *byte == b' ')
            .find_map(|field| field.strip_prefix(b"total="))
            .and_then(number)
            .map(Duration::from_micros)
    };
    Some(StallTotals {
        some: total(b"some")?,
        full: total(b"full").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
