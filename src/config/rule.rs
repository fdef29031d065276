//! The table of keys: every key there is, and what it may hold.
//!
//! This is the only place that knows ranges. Messages, the check of each layer and the test of
//! the documented default file all take them from here, so that they cannot disagree.

use std::ops::RangeInclusive;
use std::path::{Component, Path};
use std::time::Duration;

use bytesize::{ByteSize, GIB, KIB, MIB, PIB, TIB};

use super::inbox::After;
use super::quote::quoted;
use super::value::{
    Limit, Metrics, Percent, Rate, Workers, format_duration, format_size, parse_duration,
    parse_size,
};

/// A key and what it may hold.
pub(super) struct Key {
    /// `section.key`
    pub(super) name: &'static str,
    pub(super) rule: Rule,
}

/// What a value must be.
pub(super) enum Rule {
    Path,
    Size(RangeInclusive<u64>),
    PowerOfTwo(RangeInclusive<u64>),
    SizeOrAuto(RangeInclusive<u64>),
    /// A size per second.
    RateOrOff(RangeInclusive<u64>),
    Percent(RangeInclusive<u8>),
    Time(RangeInclusive<Duration>),
    Number(RangeInclusive<u32>),
    NumberOrAuto(RangeInclusive<u16>),
    Choice(&'static [&'static str]),
    /// An address that no other machine can reach.
    LoopbackOrOff,
    /// An absolute path that can be compared with another.
    Folder,
    /// A glob for the name of a file.
    Pattern,
    Switch,
    Integer(RangeInclusive<i32>),
    /// What becomes of a file that was taken in: it may be moved to a folder.
    After,
}

/// The longest time anything is kept or put off for: larger is a mistake in the unit.
const TEN_YEARS: Duration = Duration::from_hours(24 * 3650);

/// All keys, in the order of the default file.
pub(super) static KEYS: [Key; 28] = [
    key("store.path", Rule::Path),
    key("store.pack_size", Rule::Size(MIB..=GIB)),
    key("chunking.method", Rule::Choice(&["content", "fixed"])),
    key(
        "chunking.piece_size",
        Rule::PowerOfTwo(16 * KIB..=256 * KIB),
    ),
    key("compression.level", Rule::Number(1..=19)),
    // How little is enough depends on the command, which says so. No machine has a pebibyte: a larger
    // number is a mistake in the unit.
    key("memory.limit", Rule::SizeOrAuto(MIB..=PIB)),
    key("memory.threshold", Rule::Size(MIB..=PIB)),
    // Under 100 %, or the way back would be the way in and the mode would flap.
    key("memory.resume", Rule::Percent(10..=95)),
    key("memory.measure", Rule::Choice(&["rss", "anon"])),
    key(
        "memory.dwell",
        Rule::Time(Duration::from_millis(100)..=Duration::from_secs(60)),
    ),
    key(
        "heap.idle",
        Rule::Time(Duration::ZERO..=Duration::from_hours(1)),
    ),
    key("heap.piece_cache", Rule::Size(256 * KIB..=64 * GIB)),
    key(
        "heap.long_pause",
        Rule::Time(Duration::from_micros(100)..=Duration::from_secs(60)),
    ),
    key("pipeline.workers", Rule::NumberOrAuto(1..=256)),
    key(
        "progress.interval",
        Rule::Time(Duration::from_secs(1)..=Duration::from_hours(1)),
    ),
    key(
        "log.level",
        Rule::Choice(&["auto", "error", "warn", "info", "debug", "trace"]),
    ),
    key(
        "log.format",
        Rule::Choice(&["auto", "text", "json", "journal"]),
    ),
    key("service.socket", Rule::Path),
    key(
        "service.drain",
        Rule::Time(Duration::ZERO..=Duration::from_hours(1)),
    ),
    key("service.renew_after", Rule::Size(GIB..=PIB)),
    key("service.queue", Rule::Number(1..=10_000_000)),
    key("service.attempts", Rule::Number(1..=100)),
    key(
        "service.history",
        Rule::Time(Duration::from_secs(60)..=TEN_YEARS),
    ),
    key("service.history_jobs", Rule::Number(0..=10_000_000)),
    key(
        "service.rescan",
        Rule::Time(Duration::from_secs(1)..=Duration::from_hours(24)),
    ),
    key("service.metrics", Rule::LoopbackOrOff),
    key("scrub.rate", Rule::RateOrOff(KIB..=TIB)),
    key(
        "scrub.every",
        Rule::Time(Duration::from_hours(1)..=TEN_YEARS),
    ),
];

/// The name of the list of inboxes.
pub(super) const INBOX: &str = "inbox";

/// The keys of each inbox, in the order of the default file. They stand in files only.
pub(super) static INBOX_KEYS: [Key; 6] = [
    key("inbox.path", Rule::Folder),
    key("inbox.patterns", Rule::Pattern),
    key("inbox.recursive", Rule::Switch),
    key(
        "inbox.settle",
        Rule::Time(Duration::ZERO..=Duration::from_hours(1)),
    ),
    key("inbox.after", Rule::After),
    key("inbox.priority", Rule::Integer(-1000..=1000)),
];

const fn key(name: &'static str, rule: Rule) -> Key {
    Key { name, rule }
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The names of all keys.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// The key of an inbox that has this name within it.
pub(super) fn find_in_inbox(leaf: &str) -> Option<&'static Key> {
    INBOX_KEYS.iter().find(|key| key.leaf() == leaf)
}

/// The names that keys have within an inbox.
pub(super) fn inbox_leaves() -> impl Iterator<Item = &'static str> {
    INBOX_KEYS.iter().map(Key::leaf)
}

/// The names of all sections, each once.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = names()
        .filter_map(|name| name.split_once('.').map(|(section, _)| section))
        .collect();
    sections.dedup();
    sections
}

impl Key {
    /// The name without the section.
    pub(super) fn leaf(&self) -> &'static str {
        self.name
            .split_once('.')
            .map_or(self.name, |(_, leaf)| leaf)
    }
}

impl Rule {
    /// Fails with what is wrong about `text` and what would be right.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let fits = match self {
            Self::Path => return check_path(text),
            Self::Choice(choices) => choices.contains(&text).then_some(true),
            Self::Size(range) | Self::PowerOfTwo(range) => parse_size(text)
                .ok()
                .map(|size| range.contains(&size.as_u64())),
            Self::SizeOrAuto(range) => text.parse().ok().map(|limit| match limit {
                Limit::Auto => true,
                Limit::Size(size) => range.contains(&size.as_u64()),
            }),
            Self::RateOrOff(range) => text.parse().ok().map(|rate| match rate {
                Rate::Off => true,
                Rate::PerSecond(size) => range.contains(&size.as_u64()),
            }),
            Self::Percent(range) => text
                .parse()
                .ok()
                .map(|Percent(share)| range.contains(&share)),
            Self::Time(range) => parse_duration(text).ok().map(|time| range.contains(&time)),
            Self::Number(range) => text.parse().ok().map(|number| range.contains(&number)),
            Self::NumberOrAuto(range) => text.parse().ok().map(|workers| match workers {
                Workers::Auto => true,
                Workers::Count(count) => range.contains(&count),
            }),
            Self::LoopbackOrOff => text.parse::<Metrics>().ok().map(|_| true),
            Self::Folder => {
                check_path(text)?;
                Path::new(text).is_absolute().then_some(true)
            }
            Self::Pattern => Some(true),
            Self::Switch => text.parse::<bool>().ok().map(|_| true),
            Self::Integer(range) => text.parse().ok().map(|number| range.contains(&number)),
            Self::After => {
                check_path(text)?;
                text.parse::<After>().ok().map(|_| true)
            }
        };
        match fits {
            None => Err(self.refuse(&quoted(text))),
            Some(false) => Err(format!(
                "{} is out of range ({})",
                quoted(text),
                self.allowed()
            )),
            Some(true) => self.check_shape(text),
        }
    }

    /// Says that `shown` is not of the right kind, and what would be.
    pub(super) fn refuse(&self, shown: &str) -> String {
        let wanted = match self {
            Self::Path => "a path; write it in quotes",
            Self::Size(_) | Self::PowerOfTwo(_) => "a size (examples: 512 MiB, 1 GiB)",
            Self::SizeOrAuto(_) => "\"auto\" or a size (examples: 512 MiB, 1 GiB)",
            Self::RateOrOff(_) => "\"off\" or a size per second (example: 8 MiB)",
            Self::Percent(_) => "a percentage (example: 80 %)",
            Self::Time(_) => "a time with its unit (examples: 500ms, 5s, 1m)",
            Self::Number(range) => &format!("a number from {} to {}", range.start(), range.end()),
            Self::NumberOrAuto(range) => &format!(
                "\"auto\" or a number from {} to {}",
                range.start(),
                range.end()
            ),
            Self::Choice(choices) => &format!("one of: {}", choices.join(", ")),
            Self::Folder => "an absolute path in quotes (example: /srv/incoming)",
            Self::Pattern => "a pattern in quotes (example: *.iso) or a list of such",
            Self::Switch => "true or false",
            Self::Integer(range) => {
                &format!("a whole number from {} to {}", range.start(), range.end())
            }
            Self::After => {
                "\"keep\", \"delete\" or the absolute path of a folder (example: /srv/done)"
            }
            Self::LoopbackOrOff => {
                "\"off\" or an address with its port (examples: 127.0.0.1:9184, [::1]:9184)"
            }
        };
        format!("{shown} is not {wanted}")
    }

    /// The range or the choices, as messages and the default file say them.
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Path => "a path".to_owned(),
            Self::Size(range)
            | Self::PowerOfTwo(range)
            | Self::SizeOrAuto(range)
            | Self::RateOrOff(range) => {
                let [least, most] =
                    [range.start(), range.end()].map(|end| format_size(ByteSize(*end)));
                format!("{least} to {most}")
            }
            Self::Percent(range) => {
                format!("{} to {}", Percent(*range.start()), Percent(*range.end()))
            }
            Self::Time(range) => {
                let [least, most] = [range.start(), range.end()].map(|end| format_duration(*end));
                format!("{least} to {most}")
            }
            Self::Number(range) => format!("{} to {}", range.start(), range.end()),
            Self::NumberOrAuto(range) => format!("{} to {}", range.start(), range.end()),
            Self::Choice(choices) => choices.join(", "),
            Self::Folder => "an absolute path".to_owned(),
            Self::Pattern => "a pattern, or a list of patterns".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Integer(range) => format!("{} to {}", range.start(), range.end()),
            Self::After => "keep, delete, or an absolute path".to_owned(),
            Self::LoopbackOrOff => "\"off\", or a loopback address with its port".to_owned(),
        }
    }

    /// What a value in range may still be wrong in.
    fn check_shape(&self, text: &str) -> Result<(), String> {
        let wrong = match self {
            Self::PowerOfTwo(_) => parse_size(text)
                .is_ok_and(|size| !size.as_u64().is_power_of_two())
                .then_some("is not a power of two (examples: 32 KiB, 64 KiB)"),
            Self::LoopbackOrOff => text
                .parse()
                .is_ok_and(|metrics| match metrics {
                    Metrics::Off => false,
                    Metrics::At(address) => !address.ip().is_loopback(),
                })
                .then_some(
                    "is not a loopback address: other machines could reach it, and metrics have no \
                     authentication (examples: 127.0.0.1:9184, [::1]:9184)",
                ),
            Self::Folder | Self::After => Path::new(text)
                .components()
                .any(|part| part == Component::ParentDir)
                .then_some("holds `..`; write the path without it"),
            Self::Pattern if text.is_empty() => Some("is empty and matches no file"),
            Self::Pattern => text
                .contains('/')
                .then_some("holds a /, but a pattern is compared with the name of a file alone"),
            _ => None,
        };
        match wrong {
            Some(wrong) => Err(format!("{} {wrong}", quoted(text))),
            None => Ok(()),
        }
    }
}

/// A file has no shell that would expand `~`, and a directory called `~` is never what was meant.
fn check_path(text: &str) -> Result<(), String> {
    if text.starts_with('~') {
        return Err(format!(
            "{} starts with ~, which is not expanded; write the whole path",
            quoted(text)
        ));
    }
    if text.contains('\0') {
        return Err(format!("{} holds a zero byte", quoted(text)));
    }
    Ok(())
}
