//! Finding the layers, reading them, and putting one above the other.
//!
//! Which files there are is decided from values in [`Sources`] alone, never from the process: a
//! test has its own `/etc`, and the service does not see the files of whoever started it.
//! A default file may be absent; one that is there must be readable and right, as a protection
//! that is silently not read is worse than a start that fails.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::directories::user_file;
use super::error::ConfigError;
use super::layer::{FlagValue, Layer, Origin};
use super::{Config, inbox, rule};

/// The largest file read, in bytes. The documented default file has a few KiB, and
/// `--config /dev/zero` must end.
const MOST_FILE_BYTES: u64 = 1 << 20;

/// Everything a configuration is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// Directory of `filed.toml` and `conf.d`.
    pub etc: PathBuf,
    /// The user's own file, if that layer is looked at.
    pub user: Option<PathBuf>,
    /// The file named with `--config`, which must exist.
    pub explicit: Option<PathBuf>,
    /// All variables of the process; those that start with `FILED_` are keys.
    pub environment: Vec<(OsString, OsString)>,
    /// What the flags set, in their order.
    pub flags: Vec<FlagValue>,
}

/// Who loads the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A command, which looks at the user's own file too.
    Command,
    /// The service, which belongs to the machine and does not.
    Service,
}

/// A configuration and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// For every key, the layer its value came from.
    pub origin: BTreeMap<&'static str, Origin>,
    /// The same for every inbox, whose keys are named without their section.
    pub inbox_origin: Vec<BTreeMap<&'static str, Origin>>,
    /// The files that were read, lowest layer first.
    pub files: Vec<PathBuf>,
}

impl Sources {
    /// The sources of this process, which `main` calls once before any thread starts.
    pub fn from_process(role: Role, explicit: Option<PathBuf>, flags: Vec<FlagValue>) -> Self {
        let environment: Vec<_> = std::env::vars_os().collect();
        let user = match role {
            Role::Command => user_file(|name| {
                let found = environment.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone())
            }),
            Role::Service => None,
        };
        Self {
            etc: PathBuf::from("/etc/filed"),
            user,
            explicit,
            environment,
            flags,
        }
    }
}

/// Reads, checks and merges all layers.
///
/// # Errors
///
/// Fails at the first layer that cannot be read or holds a mistake, lowest layer first, even if
/// a higher one sets the same key; then if the inboxes of all files do not go together.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut layers = Vec::new();
    let mut files = Vec::new();
    for path in default_files(sources)? {
        layers.push(read_layer(&path)?);
        files.push(path);
    }
    layers.push(Layer::from_environment(&sources.environment)?);
    layers.push(Layer::from_flags(&sources.flags)?);

    let config = merge(&layers)?;
    let mut origin: BTreeMap<_, _> = rule::names().map(|key| (key, Origin::BuiltIn)).collect();
    for (key, from) in layers.iter().flat_map(Layer::origins) {
        origin.insert(key, from.clone());
    }
    let inboxes = layers.iter().flat_map(Layer::inboxes);
    Ok(Loaded {
        config,
        origin,
        inbox_origin: inboxes.map(inbox::Placed::origins).collect(),
        files,
    })
}

/// Checks one file as if it were the only layer above the defaults.
///
/// # Errors
///
/// Fails if it cannot be read or holds a mistake.
pub fn check_file(path: &Path) -> Result<(), ConfigError> {
    let layer = read_layer(path)?;
    merge(&[layer]).map(drop)
}

/// Lays `layers` above the defaults, the last on top, and puts their inboxes one after the other.
fn merge(layers: &[Layer]) -> Result<Config, ConfigError> {
    let built_in = ::config::Config::try_from(&Config::default()).map_err(ConfigError::Merge)?;
    let mut builder = ::config::Config::builder().add_source(built_in);
    for layer in layers {
        builder = builder.add_source(layer.clone());
    }
    let merged = builder.build().map_err(ConfigError::Merge)?;
    let mut config: Config = merged.try_deserialize().map_err(ConfigError::Merge)?;

    let inboxes: Vec<_> = layers.iter().flat_map(Layer::inboxes).collect();
    inbox::check_together(&inboxes)?;
    config.inbox = inboxes.iter().map(|placed| placed.inbox.clone()).collect();
    Ok(config)
}

/// The files to read, lowest layer first: default files that are there, and the explicit one.
fn default_files(sources: &Sources) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = Vec::new();
    files.extend(present(sources.etc.join("filed.toml"))?);
    files.extend(drop_ins(&sources.etc.join("conf.d"))?);
    if let Some(user) = &sources.user {
        files.extend(present(user.clone())?);
    }
    if let Some(explicit) = &sources.explicit {
        // Named again it only moves up: read twice, it would have every inbox twice.
        files.retain(|file| !is_same(file, explicit));
        files.push(explicit.clone());
    }
    Ok(files)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let found = |path: &Path| path.canonicalize().ok();
    one == other || found(one).is_some_and(|path| Some(path) == found(other))
}

/// `path`, unless nothing is there. A link that leads nowhere is something: reading it fails.
fn present(path: PathBuf) -> Result<Option<PathBuf>, ConfigError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

/// The `*.toml` in `directory`, sorted by name. As in a shell, hidden files do not match: editors
/// keep their locks and backups in them.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: directory.to_owned(),
        source,
    };
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            files.push(directory.join(name));
        }
    }
    files.sort();
    Ok(files)
}

fn read_layer(path: &Path) -> Result<Layer, ConfigError> {
    let content = read_bounded(path)?;
    let text = str::from_utf8(&content).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: Some(line_of(&content, error.valid_up_to())),
        reason: "not UTF-8".to_owned(),
    })?;
    Layer::from_file(path, text)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let mut bounded = file.take(MOST_FILE_BYTES + 1);
    let read_bytes = bounded.read_to_end(&mut content).map_err(failed)?;
    if read_bytes as u64 > MOST_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            most_bytes: MOST_FILE_BYTES,
        });
    }
    Ok(content)
}

fn line_of(content: &[u8], offset: usize) -> usize {
    let before = content.iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}
