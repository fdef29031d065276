//! What is shown while work goes on: a bar on a terminal, a line now and then elsewhere, or nothing.
//!
//! Log lines and messages go through the screen too, so that they do not run into the bar.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{self, Count, Rate, Size};
use crate::daemon::Glance;
use crate::daemon::timeline::Owners;
use std::sync::atomic::Ordering;

/// Bars are redrawn this often.
const REDRAW: Duration = Duration::from_millis(200);

/// The place where talk goes.
#[derive(Clone, Debug)]
pub(super) enum Screen {
    /// A terminal with a bar.
    Bar(ProgressBar),
    /// A journal or a file: whole lines.
    Lines {
        /// One this often.
        every: Duration,
    },
    /// Nothing but what went wrong.
    Quiet,
}

/// What a bar's total is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Total {
    /// So many bytes.
    Bytes(u64),
    /// Not known, or not yet.
    Unknown,
}

impl Screen {
    /// The screen for a command that works on data.
    pub(super) fn new(quiet: bool, every: Duration) -> Screen {
        if quiet {
            Screen::Quiet
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(style(Total::Unknown));
            Screen::Bar(bar)
        } else {
            Screen::Lines { every }
        }
    }

    /// How often [`Screen::show`] is to be called.
    pub(super) fn every(&self) -> Duration {
        match self {
            Screen::Bar(_) => REDRAW,
            Screen::Lines { every } => *every,
            Screen::Quiet => Duration::from_secs(3600),
        }
    }

    /// Whether it would show a total, so that it is worth finding out.
    pub(super) fn shows_total(&self) -> bool {
        matches!(self, Screen::Bar(_))
    }

    /// Shows how work goes on.
    pub(super) fn show(&self, glance: Glance<'_>, total: Total) {
        let done = glance.progress.done_bytes.load(Ordering::Relaxed);
        let files = glance.progress.files.load(Ordering::Relaxed);
        let memory = Memory(glance.resident_bytes, glance.owners);
        let mode = glance.mode;
        match self {
            Screen::Quiet => {}
            Screen::Bar(bar) => {
                if let Total::Bytes(total) = total
                    && bar.length() != Some(total)
                {
                    bar.set_style(style(Total::Bytes(total)));
                    bar.set_length(total);
                }
                bar.set_position(done);
                bar.set_message(format!("memory {memory}, {mode}"));
            }
            Screen::Lines { .. } => {
                let rate = Rate {
                    bytes: done,
                    took: glance.elapsed,
                };
                let of = match total {
                    Total::Bytes(total) => format!(" of {}", Size(total)),
                    Total::Unknown => String::new(),
                };
                let files = Count(files);
                let done = Size(done);
                self.line(&format_args!(
                    "{done}{of}, {files} files, {rate}, memory {memory}, {mode}"
                ));
            }
        }
    }

    /// Prints a line on stderr.
    pub(super) fn line(&self, message: &dyn Display) {
        self.above(|| output::warn(message));
    }

    /// Prints something without the bar in the way.
    pub(super) fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        match self {
            Screen::Bar(bar) => bar.suspend(print),
            Screen::Lines { .. } | Screen::Quiet => print(),
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if let Screen::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Resident memory, and who of those that matter holds how much of it.
struct Memory(u64, Owners);

impl Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1 << 20;
        let Memory(resident, owners) = *self;
        write!(f, "{}", Size(resident))?;
        let mut before = " (";
        for (name, bytes) in [
            ("buffers", owners.chunks + owners.frames + owners.idle),
            ("compression", owners.compression),
            ("cache", owners.fingerprints),
        ] {
            // What would be shown as 0.0 is not worth a word.
            if bytes < MIB / 20 {
                continue;
            }
            if (MIB..1024 * MIB).contains(&resident) {
                let mib = bytes as f64 / MIB as f64;
                write!(f, "{before}{name} {mib:.1}")?;
            } else {
                write!(f, "{before}{name} {}", Size(bytes))?;
            }
            before = ", ";
        }
        f.write_str(if before == ", " { ")" } else { "" })
    }
}

fn style(total: Total) -> ProgressStyle {
    let template = match total {
        Total::Bytes(_) => {
            "{wide_bar} {binary_bytes}/{binary_total_bytes}  {decimal_bytes_per_sec}  {eta} left  {msg}"
        }
        Total::Unknown => "{spinner} {binary_bytes}  {decimal_bytes_per_sec}  {msg}",
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Log lines go where the screen says.
#[derive(Clone, Debug)]
pub(super) struct LogWriter(pub Screen);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.above(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_with_those_who_hold_it() {
        const MIB: u64 = 1 << 20;
        let owners = Owners {
            chunks: 4 * MIB,
            frames: MIB,
            idle: MIB,
            compression: 3 * MIB,
            fingerprints: 10,
            ..Owners::default()
        };
        let shown = |resident| Memory(resident, owners).to_string();
        assert_eq!(shown(17 * MIB), "17.0 MiB (buffers 6.0, compression 3.0)");
        assert_eq!(
            shown(2048 * MIB),
            "2.0 GiB (buffers 6.0 MiB, compression 3.0 MiB)"
        );
        assert_eq!(Memory(MIB, Owners::default()).to_string(), "1.0 MiB");
    }
}
