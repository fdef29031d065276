//! Exit codes and the errors they stand for.

use std::process::ExitCode;

use super::client::ClientError;
use super::serve::WrongInbox;
use crate::config::ConfigError;
use crate::pipeline::restore::RestoreError;
use crate::store::StoreError;

/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// All that was asked for is done.
    Done,
    /// Nothing of it is.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Finished, but some files were skipped or failed.
    Partly,
    /// Stored data are damaged.
    Damage,
    /// There is no store.
    NoStore,
    /// Another process needs the store for itself.
    InUse,
    /// No service answers, or it is busy: another attempt may work.
    Unreachable,
    /// The configuration is invalid.
    Config,
    /// A signal ended it.
    Signal(i32),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partly => 3,
            Exit::Damage => 4,
            Exit::NoStore => 10,
            Exit::InUse => 11,
            Exit::Unreachable => 75,
            Exit::Config => 78,
            Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
        })
    }
}

/// A mistake in how filed was called that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub String);

/// The limit does not suffice for the command.
#[derive(Debug, thiserror::Error)]
#[error("too little memory: {limit}; the smallest limit that works here is {} MiB",
    .smallest_bytes.div_ceil(1 << 20))]
pub(super) struct TooLittleMemory {
    /// The limit and what set it.
    pub limit: String,
    /// The smallest that works, in bytes.
    pub smallest_bytes: u64,
}

/// The exit code of an error, and what the user can do about it.
pub(super) fn classify(error: &anyhow::Error) -> (Exit, Option<String>) {
    let of_store = |error: &StoreError| {
        let (exit, hint) = of_store(error);
        (exit, hint.map(str::to_owned))
    };
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<ClientError>() {
            return of_client(error);
        }
        if cause.is::<UsageError>() {
            return (Exit::Usage, None);
        }
        if cause.is::<ConfigError>() || cause.is::<TooLittleMemory>() || cause.is::<WrongInbox>() {
            return (Exit::Config, None);
        }
        if let Some(RestoreError::Store(error)) = cause.downcast_ref() {
            return of_store(error);
        }
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            return of_store(error);
        }
        if let Some(error) = cause.downcast_ref::<std::sync::Arc<StoreError>>() {
            return of_store(error);
        }
    }
    (Exit::Failed, None)
}

/// The exit code of what a service did not do, and what the user can do about it.
pub(super) fn of_client(error: &ClientError) -> (Exit, Option<String>) {
    let (exit, hint) = match error {
        ClientError::NotRunning { .. } => (
            Exit::Unreachable,
            "start one with `filed serve`, or give --socket the path of one that runs",
        ),
        ClientError::NoPermission { .. } => (
            Exit::Failed,
            "its owner, its group and root may: ask for membership in its group",
        ),
        ClientError::NotYours(_) => (Exit::Failed, "run this as that user or as root"),
        ClientError::Busy { .. } => (Exit::Unreachable, "try again in a moment"),
        ClientError::Refused { hint, .. } => return (Exit::Failed, hint.clone()),
        ClientError::Broken { .. } | ClientError::Content(_) => return (Exit::Failed, None),
    };
    (exit, Some(hint.to_owned()))
}

fn of_store(error: &StoreError) -> (Exit, Option<&'static str>) {
    match error {
        StoreError::Missing { .. } => (
            Exit::NoStore,
            Some("`filed process PATH` creates one; --store names another folder"),
        ),
        StoreError::NotAStore { .. } => {
            (Exit::Failed, Some("give --store a new or an empty folder"))
        }
        StoreError::Served { .. } => (
            Exit::InUse,
            Some("one service is enough for a store; `filed status` shows it"),
        ),
        StoreError::InUse { .. } => (Exit::InUse, Some("try again when it has finished")),
        StoreError::Newer { .. } => (
            Exit::Failed,
            Some("use the filed that wrote it, or a newer one"),
        ),
        error if error.is_disk_full() => (
            Exit::Failed,
            Some("make room on the store's disk and run it again: what is stored is kept"),
        ),
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            (Exit::Failed, Some("--force replaces what is there"))
        }
        error if error.is_damage() => (
            Exit::Damage,
            Some("`filed verify` names everything that is damaged"),
        ),
        StoreError::NotStored { .. } => (Exit::Failed, Some("`filed list` shows what is stored")),
        _ => (Exit::Failed, None),
    }
}
