//! What can be wrong with a configuration.
//!
//! Every message names the file, variable or flag at fault first, then the key, then what would
//! be right: it must be possible to fix it without opening the manual.

use std::io;
use std::path::PathBuf;

use super::layer::Origin;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or directory is there (or was named) but cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is larger than any configuration.
    #[error("{}: larger than {most_bytes} bytes, this is no configuration file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size that is read, in bytes.
        most_bytes: u64,
    },
    /// A file is not TOML.
    #[error("{}{}: {reason}", path.display(), line.map(|n| format!(": line {n}")).unwrap_or_default())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where the parser knows it.
        line: Option<usize>,
        /// What the parser expected.
        reason: String,
    },
    /// A key, section or variable that does not exist.
    #[error("{origin}: unknown {what} `{name}`{}", nearest.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default())]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// "key" or "section".
        what: &'static str,
        /// Its name as written, shortened and with control characters escaped.
        name: String,
        /// The nearest name that exists, if one is near.
        nearest: Option<String>,
    },
    /// A variable that starts with `FILED_` but names no key.
    #[error("unknown variable `{name}`{}", nearest.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default())]
    UnknownVariable {
        /// Its name, shortened and with control characters escaped.
        name: String,
        /// The nearest variable that exists, if one is near.
        nearest: Option<String>,
    },
    /// A value that its key does not allow.
    #[error("{origin}: {key}: {reason}")]
    BadValue {
        /// Where it stands.
        origin: Origin,
        /// The key; one of an inbox with its number within the file, as `inbox[2].settle`.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A variable whose name or value is not UTF-8.
    #[error("{name}: the variable is not UTF-8")]
    NotUnicode {
        /// Its name, with what is not UTF-8 replaced.
        name: String,
    },
    /// No variable says where the store could be.
    #[error(
        "store.path is empty, and none of STATE_DIRECTORY, XDG_DATA_HOME and HOME holds an absolute path"
    )]
    NoStorePath,
    /// No variable says where the socket could be.
    #[error(
        "service.socket is empty, and neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR holds an absolute path"
    )]
    NoSocketPath,
    /// The layers, each valid, could not be merged.
    #[error("merge the configuration")]
    Merge(#[source] ::config::ConfigError),
}
