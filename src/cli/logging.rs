//! Logging: which events are told, and in which form.
//!
//! A command tells on stderr what goes wrong. A service tells more, and where its stderr is the journal it
//! writes the journal's fields: `FILED_` and the field's name; a change of mode has a message id of its
//! own, so that `journalctl` finds it whatever the words.

use std::ffi::OsStr;
use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

use super::screen::{LogWriter, Screen};
use crate::config::{LogFormat, LogLevel};

/// The target of changes of mode.
pub(super) const MODE_TARGET: &str = "filed::mode";

/// The message id of a change of mode.
pub(super) const MODE_MESSAGE_ID: &str = "5e2b3c4f8f0a4d6f9d3c1a7be4602f91";

/// Changes what is logged.
#[derive(Clone)]
pub(super) struct Filter(reload::Handle<Targets, Registry>);

impl Filter {
    /// Logs events of at least this level from now on.
    pub(super) fn set(&self, level: LogLevel) {
        // It fails only when there is no logging any more.
        let _ = self.0.reload(only_ours(level));
    }
}

/// Starts logging. `None` when it was started before in this process: that one stays.
///
/// # Errors
///
/// When the journal was asked for and cannot be had.
pub(super) fn start(
    level: LogLevel,
    format: LogFormat,
    screen: &Screen,
) -> io::Result<Option<Filter>> {
    let (filter, handle) = reload::Layer::new(only_ours(level));
    let registry = tracing_subscriber::registry().with(filter);
    let writer = LogWriter(screen.clone());
    let lines = fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(move || writer.clone());
    let started = match format {
        LogFormat::Journal => registry.with(journal()?).try_init(),
        LogFormat::Auto if stderr_is_journal() => match journal() {
            Ok(journal) => registry.with(journal).try_init(),
            Err(_) => registry.with(lines).try_init(),
        },
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Auto | LogFormat::Text => registry.with(lines).try_init(),
    };
    Ok(started.is_ok().then(|| Filter(handle)))
}

fn only_ours(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_target("filed", level)
}

/// Two writers to the journal: one for changes of mode, one for everything else.
fn journal<S>() -> io::Result<impl Layer<S>>
where
    S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
{
    let layer = || {
        let layer = tracing_journald::layer()?;
        Ok::<_, io::Error>(
            layer
                .with_field_prefix(Some("FILED".to_owned()))
                .with_syslog_identifier("filed".to_owned()),
        )
    };
    let of_mode = layer()?.with_custom_fields([("MESSAGE_ID", MODE_MESSAGE_ID)]);
    let is_mode = |target: &str| target == MODE_TARGET;
    let of_mode = of_mode.with_filter(tracing_subscriber::filter::filter_fn(move |event| {
        is_mode(event.target())
    }));
    let others = layer()?.with_filter(tracing_subscriber::filter::filter_fn(move |event| {
        !is_mode(event.target())
    }));
    Ok(of_mode.and_then(others))
}

/// Whether what is written to stderr goes to the journal: systemd tells which file that would be.
fn stderr_is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| names(&stream, stat.st_dev, stat.st_ino))
}

/// Whether `JOURNAL_STREAM` names this device and inode.
fn names(stream: &OsStr, device: u64, inode: u64) -> bool {
    let expected = format!("{device}:{inode}");
    stream == OsStr::new(&expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(names(OsStr::new("8:77"), 8, 77));
        assert!(!names(OsStr::new("8:78"), 8, 77));
        assert!(!names(OsStr::new("x"), 8, 77));
    }
}
