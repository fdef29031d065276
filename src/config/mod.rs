//! Configuration: what can be set, where it may be set, and who wins.
//!
//! Layers, each above the one before it:
//!
//! ```text
//! built in < /etc/filed/filed.toml < /etc/filed/conf.d/*.toml < user's filed.toml
//!          < --config FILE < FILED_SECTION__KEY < flags
//! ```
//!
//! Three rules hold. A layer is checked **on its own before it is merged**: a mistake is reported
//! with the file, variable or flag that holds it even where a higher layer would have hidden it,
//! and the merge, whose key syntax knows dots and indices, never sees a key that is not in the
//! table in `rule`. **Nothing is guessed**: an unknown key or a value out of range is an error.
//! **Nothing is done**: loading reads files and returns values; no directory is made.
//!
//! Inboxes are the one thing that is no key with a value: they stand in files only and add up, see
//! `inbox`.
//!
//! `config/filed.toml` ([`DEFAULT_FILE`]) is the documentation of every key, and a test keeps it
//! equal to [`Config::default`] and to the ranges of the table.
//!
//! The crate `config` merges the layers; it is written `::config` here, as the names collide.

mod as_text;
mod directories;
mod error;
mod inbox;
mod layer;
mod load;
mod nearest;
mod quote;
mod rule;
mod show;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

pub use directories::{socket_path, store_path};
pub use error::ConfigError;
pub use inbox::{After, Inbox};
pub use layer::{FlagValue, Origin};
pub use load::{Loaded, Role, Sources, check_file, load};
pub use show::{Shown, show};
pub(crate) use value::parse_duration;
pub use value::{Limit, Metrics, Percent, Rate, Workers};

/// The documented default file: every key with its default, unit, range and reason.
pub const DEFAULT_FILE: &str = include_str!("../../config/filed.toml");

/// Everything that can be configured. Each room gets its own options made from this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the store is and how it writes.
    pub store: Store,
    /// How files are cut into pieces.
    pub chunking: Chunking,
    /// How frames are compressed.
    pub compression: Compression,
    /// How much memory may be used, and when to save it.
    pub memory: Memory,
    /// The managed heap.
    pub heap: Heap,
    /// The threads files go through.
    pub pipeline: Pipeline,
    /// What is told while work goes on.
    pub progress: Progress,
    /// What is logged.
    pub log: Log,
    /// How `filed serve` works.
    pub service: Service,
    /// How stored data are checked in the background.
    pub scrub: Scrub,
    /// Where the service takes files in from by itself.
    #[serde(default)]
    pub inbox: Vec<Inbox>,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Directory of the store; `None` asks the environment, see [`store_path`].
    #[serde(with = "as_text::path")]
    pub path: Option<PathBuf>,
    /// A pack is sealed at about this size.
    #[serde(with = "as_text::size")]
    pub pack_size: ByteSize,
}

/// `[chunking]`: used when a store is created and recorded in it then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// Where cuts are made.
    pub method: ChunkingMethod,
    /// Average size of a content-defined piece, a power of two; unused by `fixed`.
    #[serde(with = "as_text::size")]
    pub piece_size: ByteSize,
}

/// Where a stream is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChunkingMethod {
    /// Where the content says so: an inserted byte changes one piece.
    Content,
    /// After every chunk (1 MiB): an inserted byte changes all that follow.
    Fixed,
}

/// `[compression]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// Level of zstd, 1 to 19.
    pub level: u8,
}

/// `[memory]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What filed never grows beyond.
    #[serde(with = "as_text::text")]
    pub limit: Limit,
    /// At this much aggressive mode begins.
    #[serde(with = "as_text::size")]
    pub threshold: ByteSize,
    /// Aggressive mode ends below this share of the threshold.
    #[serde(with = "as_text::text")]
    pub resume: Percent,
    /// Which number of the kernel is compared.
    pub measure: Measure,
    /// A mode lasts at least this long.
    #[serde(with = "as_text::duration")]
    pub dwell: Duration,
}

/// Which number of the kernel the memory rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// All resident pages of the process.
    Rss,
    /// Resident pages that no file on disk backs.
    #[serde(rename = "anon")]
    Anonymous,
}

/// `[heap]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heap {
    /// A buffer unused for this long goes back to the operating system.
    #[serde(with = "as_text::duration")]
    pub idle: Duration,
    /// Memory for fingerprints of known pieces.
    #[serde(with = "as_text::size")]
    pub piece_cache: ByteSize,
    /// A pause for a collection that is longer is told as a warning.
    #[serde(with = "as_text::duration")]
    pub long_pause: Duration,
}

/// `[pipeline]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Threads that digest and compress.
    #[serde(with = "as_text::text")]
    pub workers: Workers,
}

/// `[progress]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Time between two progress lines where stderr is no terminal.
    #[serde(with = "as_text::duration")]
    pub interval: Duration,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The least important events that are still logged.
    pub level: LogLevel,
    /// The form they are written in.
    pub format: LogFormat,
}

/// How important an event must be to be logged, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `Info` for a service, which has nobody who looks on; `Warn` for commands.
    Auto,
    /// A human must look.
    Error,
    /// Unexpected, but work went on.
    Warn,
    /// Changes of state.
    Info,
    /// What each part decides.
    Debug,
    /// Every step.
    Trace,
}

/// The form of what is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Fields of the journal where stderr is the journal, else lines of text.
    Auto,
    /// Lines for a human.
    Text,
    /// JSON Lines.
    Json,
    /// Fields of the journal.
    Journal,
}

/// `[service]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The socket; `None` asks the environment, see [`socket_path`].
    #[serde(with = "as_text::path")]
    pub socket: Option<PathBuf>,
    /// Files being taken in may go on this long after the service is asked to stop.
    #[serde(with = "as_text::duration")]
    pub drain: Duration,
    /// After so much work the heap of the fingerprint cache is thrown away and built anew.
    #[serde(with = "as_text::size")]
    pub renew_after: ByteSize,
    /// Jobs that may be open at once.
    pub queue: u32,
    /// A job is given up after so many attempts.
    pub attempts: u32,
    /// Jobs that have ended are kept this long.
    #[serde(with = "as_text::duration")]
    pub history: Duration,
    /// At most so many jobs that have ended are kept.
    pub history_jobs: u32,
    /// Inboxes are looked through again this often, even if nothing was heard.
    #[serde(with = "as_text::duration")]
    pub rescan: Duration,
    /// Where metrics can be asked for.
    #[serde(with = "as_text::text")]
    pub metrics: Metrics,
}

/// `[scrub]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scrub {
    /// How fast stored data are read to check them.
    #[serde(with = "as_text::text")]
    pub rate: Rate,
    /// A pack that was checked within this time is not checked again.
    #[serde(with = "as_text::duration")]
    pub every: Duration,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: None,
            pack_size: ByteSize::mib(64),
        }
    }
}

impl Default for Chunking {
    fn default() -> Self {
        Self {
            method: ChunkingMethod::Content,
            piece_size: ByteSize::kib(64),
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self { level: 3 }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            limit: Limit::Auto,
            threshold: ByteSize::gib(1),
            resume: Percent(80),
            measure: Measure::Rss,
            dwell: Duration::from_secs(2),
        }
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(5),
            piece_cache: ByteSize::mib(4),
            long_pause: Duration::from_millis(5),
        }
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Auto,
            format: LogFormat::Auto,
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self {
            socket: None,
            drain: Duration::from_secs(60),
            renew_after: ByteSize::gib(64),
            queue: 200_000,
            attempts: 5,
            history: Duration::from_hours(30 * 24),
            history_jobs: 100_000,
            rescan: Duration::from_mins(10),
            metrics: Metrics::Off,
        }
    }
}

impl Default for Scrub {
    fn default() -> Self {
        Self {
            rate: Rate::PerSecond(ByteSize::mib(8)),
            every: Duration::from_hours(30 * 24),
        }
    }
}
