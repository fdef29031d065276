//! One layer: what a file, the environment or the flags set, checked on its own.
//!
//! A [`Layer`] holds only known keys with allowed values; there is no way to make one that does
//! not. That is what makes the merge safe: `::config` takes the keys of a file for paths, and a
//! quoted key such as `"store[999999999999]"` would have it build a list of that length.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use ::config::{File, FileFormat, Source, Value, ValueKind};
use serde::{Serialize, Serializer};

use super::error::ConfigError;
use super::inbox;
use super::nearest::nearest;
use super::quote::{printable, quoted, readable};
use super::rule::{self, Key, Rule};

/// Every variable that starts with this is taken for a key, so that a misspelt one is found.
const VARIABLE_PREFIX: &str = "FILED_";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    BuiltIn,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value that a flag of the command line sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagValue {
    /// The key it sets, as `section.key`.
    pub key: &'static str,
    /// The value as written by the user.
    pub value: String,
    /// The flag, as shown to the user: `--memory`.
    pub flag: &'static str,
}

/// Known keys with allowed values, and where each stands. The inboxes of a file are beside them, as
/// they add up where keys hide each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    settings: BTreeMap<&'static str, Setting>,
    inboxes: Vec<inbox::Placed>,
}

#[derive(Debug, Clone)]
struct Setting {
    text: String,
    origin: Origin,
}

impl Layer {
    /// The layer of a file whose content is `text`.
    pub(super) fn from_file(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let tables = File::from_str(text, FileFormat::Toml)
            .collect()
            .map_err(|error| syntax_error(path, &error))?;
        let origin = Origin::File(path.to_owned());
        let mut layer = Self::default();
        for (section, value) in sorted(tables) {
            if section == rule::INBOX {
                layer.inboxes = inbox::from_file(&origin, value)?;
                continue;
            }
            let keys = keys_of_section(&origin, &section, value)?;
            for (leaf, value) in sorted(keys) {
                layer.add_from_file(&origin, &section, &leaf, value)?;
            }
        }
        Ok(layer)
    }

    /// The layer of all variables that start with `FILED_`.
    pub(super) fn from_environment(
        environment: &[(OsString, OsString)],
    ) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (name, value) in environment {
            if !is_ours(name) {
                continue;
            }
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else {
                return Err(ConfigError::NotUnicode {
                    name: readable(&name.to_string_lossy()),
                });
            };
            let key = rule::KEYS
                .iter()
                .find(|key| variable_name(key.name) == name);
            let key = key.ok_or_else(|| unknown_variable(name))?;
            layer.add(key, value.to_owned(), Origin::Variable(name.to_owned()))?;
        }
        Ok(layer)
    }

    /// The layer of the command line. Of a flag given twice the last counts.
    pub(super) fn from_flags(flags: &[FlagValue]) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for FlagValue { key, value, flag } in flags {
            let origin = Origin::Flag(flag);
            let key = rule::find(key).ok_or_else(|| unknown_key(&origin, key))?;
            layer.add(key, value.clone(), origin)?;
        }
        Ok(layer)
    }

    /// The keys this layer sets, and where each stands.
    pub(super) fn origins(&self) -> impl Iterator<Item = (&'static str, &Origin)> {
        self.settings
            .iter()
            .map(|(key, setting)| (*key, &setting.origin))
    }

    /// The inboxes of this layer, in their order in the file.
    pub(super) fn inboxes(&self) -> &[inbox::Placed] {
        &self.inboxes
    }

    fn add_from_file(
        &mut self,
        origin: &Origin,
        section: &str,
        leaf: &str,
        value: Value,
    ) -> Result<(), ConfigError> {
        // A quoted key may hold a dot: "a.b".c is not a.b.c, and no key has a second dot.
        let name = format!("{section}.{leaf}");
        let key = rule::find(&name).ok_or_else(|| unknown_key(origin, &name))?;
        let text = text_in_file(&key.rule, value.kind).map_err(|reason| ConfigError::BadValue {
            origin: origin.clone(),
            key: key.name.to_owned(),
            reason,
        })?;
        self.add(key, text, origin.clone())
    }

    fn add(&mut self, key: &'static Key, text: String, origin: Origin) -> Result<(), ConfigError> {
        if let Err(reason) = key.rule.check(&text) {
            return Err(ConfigError::BadValue {
                origin,
                key: key.name.to_owned(),
                reason,
            });
        }
        self.settings.insert(key.name, Setting { text, origin });
        Ok(())
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<HashMap<String, Value>, ::config::ConfigError> {
        let settings = self.settings.iter();
        Ok(settings
            .map(|(key, setting)| {
                let origin = setting.origin.to_string();
                let value = Value::new(Some(&origin), setting.text.clone());
                ((*key).to_owned(), value)
            })
            .collect())
    }
}

/// The variable that sets `key`: `memory.limit` is `FILED_MEMORY__LIMIT`.
fn variable_name(key: &str) -> String {
    let path = key.to_ascii_uppercase().replace('.', "__");
    format!("{VARIABLE_PREFIX}{path}")
}

fn is_ours(name: &OsStr) -> bool {
    name.as_encoded_bytes()
        .starts_with(VARIABLE_PREFIX.as_bytes())
}

/// The value of a file in the one form that all layers have. Fails with what would be right.
pub(super) fn text_in_file(rule: &Rule, kind: ValueKind) -> Result<String, String> {
    match (kind, rule) {
        (ValueKind::String(text), _) => Ok(text),
        (kind, Rule::Path | Rule::Folder | Rule::Pattern | Rule::After) => {
            Err(rule.refuse(&shown(&kind)))
        }
        (ValueKind::I64(number), _) => Ok(number.to_string()),
        (ValueKind::Boolean(switch), Rule::Switch) => Ok(switch.to_string()),
        (kind, _) => Err(rule.refuse(&shown(&kind))),
    }
}

/// By name, so that of several mistakes always the same one is reported.
pub(super) fn sorted(table: HashMap<String, Value>) -> BTreeMap<String, Value> {
    table.into_iter().collect()
}

fn keys_of_section(
    origin: &Origin,
    section: &str,
    value: Value,
) -> Result<HashMap<String, Value>, ConfigError> {
    let known = rule::sections().into_iter().find(|known| *known == section);
    match (known, value.kind) {
        (Some(_), ValueKind::Table(keys)) => Ok(keys),
        (Some(known), kind) => Err(ConfigError::BadValue {
            origin: origin.clone(),
            key: known.to_owned(),
            reason: format!(
                "{} is not a section; write [{known}] and its keys below",
                shown(&kind)
            ),
        }),
        (None, kind) if is_section(&kind) => Err(ConfigError::Unknown {
            origin: origin.clone(),
            what: "section",
            name: as_key(section),
            nearest: nearest(section, rule::sections().into_iter().chain([rule::INBOX]))
                .map(str::to_owned),
        }),
        (None, _) => Err(ConfigError::Unknown {
            origin: origin.clone(),
            what: "key",
            name: as_key(section),
            nearest: nearest_in_file(section),
        }),
    }
}

/// Whether it was written below `[name]` or `[[name]]`.
fn is_section(kind: &ValueKind) -> bool {
    match kind {
        ValueKind::Table(_) => true,
        ValueKind::Array(list) => {
            let table = |one: &Value| matches!(one.kind, ValueKind::Table(_));
            list.first().is_some_and(table)
        }
        _ => false,
    }
}

/// The key of a file nearest to `name`, if one is near.
fn nearest_in_file(name: &str) -> Option<String> {
    let keys = rule::names().chain(rule::INBOX_KEYS.iter().map(|key| key.name));
    nearest(name, keys).map(str::to_owned)
}

/// A name as TOML writes it: in quotes if it holds a dot, as "memory.limit" in quotes is not
/// memory.limit and the message must show why.
fn as_key(name: &str) -> String {
    if name.contains('.') {
        quoted(name)
    } else {
        readable(name)
    }
}

fn unknown_key(origin: &Origin, name: &str) -> ConfigError {
    ConfigError::Unknown {
        origin: origin.clone(),
        what: "key",
        name: readable(name),
        nearest: nearest_in_file(name),
    }
}

/// The hint looks at the key the name spells, where `_` for `__` is a slip like any other. For an
/// inbox, which no variable sets, the nearest key would be a wrong hint.
fn unknown_variable(name: &str) -> ConfigError {
    let path = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
    let key = path.to_ascii_lowercase().replace("__", ".");
    ConfigError::UnknownVariable {
        name: readable(name),
        nearest: nearest(&key, rule::names())
            .filter(|_| !key.starts_with(rule::INBOX))
            .map(variable_name),
    }
}

pub(super) fn shown(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => quoted(text),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        plain => readable(&plain.to_string()),
    }
}

/// The parser says "TOML parse error at line 3, column 5", draws the line, and says in the last
/// line what is wrong; the type behind it is not to be had through `::config`. Text in another
/// form (a number too large for 64 bits has none of this) is passed on without a line.
fn syntax_error(path: &Path, error: &::config::ConfigError) -> ConfigError {
    let message = error.to_string();
    let line = message
        .split_once("at line ")
        .and_then(|(_, rest)| rest.split(',').next())
        .and_then(|number| number.parse().ok());
    let reason = message.lines().rev().find(|line| !line.trim().is_empty());
    ConfigError::Syntax {
        path: path.to_owned(),
        line,
        reason: reason.map_or_else(|| "not TOML".to_owned(), printable),
    }
}
