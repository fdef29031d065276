//! `[[inbox]]`: folders that files are taken in from by themselves.
//!
//! Inboxes are lists, which only files can hold, and those of all files add up: a drop-in adds its
//! own, and no layer changes one of another. Each is checked on its own like every key; then all
//! **together**: no file may belong to two inboxes, and none may come back to one after it was
//! taken in. Paths are compared as they are written; links are not looked at, as nothing here
//! touches a disk.
//!
//! Inboxes are counted from 1: in an error within their file, in `config show` over all files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ::config::{Value, ValueKind};
use serde::{Deserialize, Serialize};

use super::as_text;
use super::error::ConfigError;
use super::layer::{Origin, shown, sorted, text_in_file};
use super::nearest::nearest;
use super::quote::{quoted, readable};
use super::rule::{self, Key, Rule};
use super::value::{NotAValue, format_duration};

/// One `[[inbox]]`: a folder, and what happens to the files in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default = "defaults")]
pub struct Inbox {
    /// The folder, an absolute path.
    pub path: PathBuf,
    /// A file is taken in if its name matches one of these globs; never empty.
    pub patterns: Vec<String>,
    /// Whether files in folders below count too.
    pub recursive: bool,
    /// A file is taken in once it has not changed for this long.
    #[serde(with = "as_text::duration")]
    pub settle: Duration,
    /// What becomes of a file that was taken in.
    #[serde(with = "as_text::text")]
    pub after: After,
    /// Files of the inbox with the highest number come first.
    pub priority: i32,
}

/// What becomes of a file in an inbox once it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// It stays where it is.
    Keep,
    /// It is deleted.
    Delete,
    /// It is moved to this folder, an absolute path.
    MoveTo(PathBuf),
}

impl FromStr for After {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        match text {
            "keep" => Ok(Self::Keep),
            "delete" => Ok(Self::Delete),
            folder if Path::new(folder).is_absolute() => Ok(Self::MoveTo(folder.into())),
            _ => Err(NotAValue),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Delete => f.write_str("delete"),
            Self::MoveTo(folder) => folder.display().fmt(f),
        }
    }
}

/// What an inbox is where its table says nothing. There is no default for the path.
fn defaults() -> Inbox {
    Inbox {
        path: PathBuf::new(),
        patterns: vec!["*".to_owned()],
        recursive: false,
        settle: Duration::from_secs(2),
        after: After::Keep,
        priority: 0,
    }
}

impl Inbox {
    /// The value of each key, in the form a file takes, without quotes. Several patterns are a
    /// list, in which a string of JSON is one of TOML.
    pub(super) fn shown(&self) -> [(&'static str, String); 6] {
        let patterns = match self.patterns.as_slice() {
            [only] => only.clone(),
            several => serde_json::json!(several).to_string(),
        };
        [
            ("path", self.path.display().to_string()),
            ("patterns", patterns),
            ("recursive", self.recursive.to_string()),
            ("settle", format_duration(self.settle)),
            ("after", self.after.to_string()),
            ("priority", self.priority.to_string()),
        ]
    }
}

/// An inbox whose keys are known and whose values are allowed, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) inbox: Inbox,
    origin: Origin,
    /// Which inbox of its file it is.
    number: usize,
    written: BTreeSet<&'static str>,
}

impl Placed {
    /// Where the value of each key came from.
    pub(super) fn origins(&self) -> BTreeMap<&'static str, Origin> {
        let origin_of = |leaf| match self.written.contains(leaf) {
            true => self.origin.clone(),
            false => Origin::BuiltIn,
        };
        rule::inbox_leaves()
            .map(|leaf| (leaf, origin_of(leaf)))
            .collect()
    }

    fn refused(&self, leaf: &str, reason: String) -> ConfigError {
        bad_value(&self.origin, &key_name(self.number, leaf), reason)
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inbox[{}] in {}", self.number, self.origin)
    }
}

/// The inboxes of a file, where `value` is what it has under the name `inbox`.
pub(super) fn from_file(origin: &Origin, value: Value) -> Result<Vec<Placed>, ConfigError> {
    let refused = |key: &str, kind: &ValueKind| {
        let shown = shown(kind);
        let reason = format!(
            "{shown} is not a list of inboxes; write [[inbox]], in double brackets, and the keys \
             of one below"
        );
        bad_value(origin, key, reason)
    };
    let list = match value.kind {
        ValueKind::Array(list) => list,
        kind => return Err(refused("inbox", &kind)),
    };
    let numbered = (1..).zip(list);
    numbered
        .map(|(number, one)| match one.kind {
            ValueKind::Table(keys) => read(origin, number, keys),
            kind => Err(refused(&format!("inbox[{number}]"), &kind)),
        })
        .collect()
}

fn read(
    origin: &Origin,
    number: usize,
    keys: HashMap<String, Value>,
) -> Result<Placed, ConfigError> {
    let mut checked = HashMap::new();
    let mut written = BTreeSet::new();
    for (leaf, value) in sorted(keys) {
        let key = rule::find_in_inbox(&leaf).ok_or_else(|| ConfigError::Unknown {
            origin: origin.clone(),
            what: "key",
            name: readable(&key_name(number, &leaf)),
            nearest: nearest(&leaf, rule::inbox_leaves()).map(|leaf| key_name(number, leaf)),
        })?;
        let value = check(key, value)
            .map_err(|reason| bad_value(origin, &key_name(number, &leaf), reason))?;
        written.insert(key.leaf());
        checked.insert(leaf, value);
    }
    if !written.contains("path") {
        let reason = "missing; each inbox names its folder (example: /srv/incoming)".to_owned();
        return Err(bad_value(origin, &key_name(number, "path"), reason));
    }
    let checked = Value::new(Some(&origin.to_string()), ValueKind::Table(checked));
    Ok(Placed {
        inbox: Inbox::deserialize(checked).map_err(ConfigError::Merge)?,
        origin: origin.clone(),
        number,
        written,
    })
}

/// `value` as text, or as a list of texts for patterns, if it is allowed.
fn check(key: &Key, value: Value) -> Result<Value, String> {
    let one = |value: Value| {
        let text = text_in_file(&key.rule, value.kind)?;
        key.rule.check(&text).map(|()| Value::from(text))
    };
    let Rule::Pattern = key.rule else {
        return one(value);
    };
    let list = match value.kind {
        ValueKind::Array(list) => list,
        _ => vec![value],
    };
    if list.is_empty() {
        return Err("an empty list matches no file; leave it out for all files".to_owned());
    }
    let checked: Result<Vec<_>, _> = list.into_iter().map(one).collect();
    checked.map(Value::from)
}

/// Checks that no file belongs to two of these inboxes or comes back to one.
pub(super) fn check_together(inboxes: &[&Placed]) -> Result<(), ConfigError> {
    let mut by_path: BTreeMap<&Path, &Placed> = BTreeMap::new();
    for &one in inboxes {
        let path = one.inbox.path.as_path();
        if let Some(other) = by_path.insert(path, one) {
            let reason = format!("{} is the folder of {other} too", quoted_path(path));
            return Err(one.refused("path", reason));
        }
    }
    for &one in inboxes {
        let path = one.inbox.path.as_path();
        let mut around = path.ancestors().skip(1).filter_map(|p| by_path.get(p));
        if let Some(other) = around.find(|other| other.inbox.recursive) {
            let reason = format!(
                "{} lies inside {}, the folder of {other}, which is recursive: files in it would \
                 belong to both",
                quoted_path(path),
                quoted_path(&other.inbox.path)
            );
            return Err(one.refused("path", reason));
        }
        let After::MoveTo(folder) = &one.inbox.after else {
            continue;
        };
        if let Some(other) = folder.ancestors().find_map(|p| by_path.get(p)) {
            let reason = format!(
                "{} lies inside {}, the folder of {other}: files that were taken in must not come \
                 back to an inbox",
                quoted_path(folder),
                quoted_path(&other.inbox.path)
            );
            return Err(one.refused("after", reason));
        }
    }
    Ok(())
}

fn bad_value(origin: &Origin, key: &str, reason: String) -> ConfigError {
    ConfigError::BadValue {
        origin: origin.clone(),
        key: key.to_owned(),
        reason,
    }
}

/// What messages and `config show` call a key of an inbox.
pub(super) fn key_name(number: usize, leaf: &str) -> String {
    format!("inbox[{number}].{leaf}")
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}
