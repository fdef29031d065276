//! Logging: which events are told, and in which form.
//!
//! A command tells on stderr what goes wrong. A service tells more, and where its stderr is the journal it
//! writes the journal's fields: `FILED_` and the field's name; a change of mode has a message id of its
//! own, so that `journalctl` finds it whatever the words. The message says all of it too, as it would on
//! stderr: whoever just reads the journal sees no fields.

use std::ffi::OsStr;
use std::fmt::{Debug, Write};
use std::io;

use tracing::field::{Field, Value, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber, span};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
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
        LogLevel::Auto | LogLevel::Warn => LevelFilter::WARN,
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
    let of_mode = InWords(layer()?.with_custom_fields([("MESSAGE_ID", MODE_MESSAGE_ID)]));
    let is_mode = |target: &str| target == MODE_TARGET;
    let of_mode = of_mode.with_filter(tracing_subscriber::filter::filter_fn(move |event| {
        is_mode(event.target())
    }));
    let others =
        InWords(layer()?).with_filter(tracing_subscriber::filter::filter_fn(move |event| {
            !is_mode(event.target())
        }));
    Ok(of_mode.and_then(others))
}

/// Fields of an event that are told; no event has as many.
const FIELDS: usize = 32;

/// A writer whose messages say what the fields hold too.
struct InWords<L>(L);

impl<S: Subscriber, L: Layer<S>> Layer<S> for InWords<L> {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut told);
        let fields = event.metadata().fields();
        let Some(message) = fields.field("message").filter(|_| told.0.len() < FIELDS) else {
            return self.0.on_event(event, context);
        };
        let mut words = String::new();
        let said = |field: &Field| *field == message;
        for (_, text) in told.0.iter().filter(|(field, _)| said(field)) {
            words.push_str(text);
        }
        for (field, text) in told.0.iter().filter(|(field, _)| !said(field)) {
            // Writing to a string does not fail.
            let _ = write!(words, " {field}={text}");
        }
        let words: &dyn Value = &words;
        let mut values = [(&message, None); FIELDS];
        values[0].1 = Some(words);
        let others = told.0.iter().filter(|(field, _)| !said(field));
        for (place, (field, text)) in values[1..].iter_mut().zip(others) {
            *place = (field, Some(text));
        }
        let values = fields.value_set(&values);
        self.0
            .on_event(&Event::new(event.metadata(), &values), context);
    }
}

/// The fields of an event, as text.
#[derive(Default)]
struct Told(Vec<(Field, String)>);

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.clone(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.clone(), format!("{value:?}")));
    }
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

    /// Keeps the fields of what it is told.
    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<(String, String)>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut told = Told::default();
            event.record(&mut told);
            let fields = told.0.iter();
            let fields = fields.map(|(field, text)| (field.to_string(), text.clone()));
            self.0.lock().unwrap().extend(fields);
        }
    }

    #[test]
    fn a_message_in_the_journal_says_what_its_fields_hold() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(InWords(kept.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("no such key");
            let nothing: Option<u64> = None;
            tracing::error!(%error, bytes = 7, text = "x y", nothing, "the configuration is wrong");
        });
        let expected = [
            (
                "message",
                "the configuration is wrong error=no such key bytes=7 text=x y",
            ),
            ("error", "no such key"),
            ("bytes", "7"),
            ("text", "x y"),
        ];
        let expected = expected.map(|(field, text)| (field.to_owned(), text.to_owned()));
        assert_eq!(*kept.0.lock().unwrap(), expected);
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(names(OsStr::new("8:77"), 8, 77));
        assert!(!names(OsStr::new("8:78"), 8, 77));
        assert!(!names(OsStr::new("x"), 8, 77));
    }
}
