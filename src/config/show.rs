//! Every value and where it came from, as `config show` prints it.

use serde::Serialize;

use super::error::ConfigError;
use super::inbox::key_name;
use super::layer::Origin;
use super::load::Loaded;
use super::rule;

/// A key, its value, and the layer that set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The key, as `section.key`, or `inbox[1].key` for the first inbox of all.
    pub key: String,
    /// The value in the form a configuration file takes, without quotes.
    pub value: String,
    /// The layer it came from.
    pub origin: Origin,
}

/// Lists all keys in the order of the documented default file, and those of every inbox.
///
/// # Errors
///
/// Fails only if a value has no text, as a store path that is not UTF-8: no layer holds one, but
/// a program that fills [`super::Config`] by hand can.
pub fn show(loaded: &Loaded) -> Result<Vec<Shown>, ConfigError> {
    let values = ::config::Config::try_from(&loaded.config).map_err(ConfigError::Merge)?;
    let mut shown = Vec::new();
    for key in rule::names() {
        let origin = loaded.origin.get(key).cloned();
        shown.push(Shown {
            key: key.to_owned(),
            value: values.get_string(key).map_err(ConfigError::Merge)?,
            origin: origin.unwrap_or(Origin::BuiltIn),
        });
    }
    for (index, inbox) in loaded.config.inbox.iter().enumerate() {
        let origins = loaded.inbox_origin.get(index);
        for (leaf, value) in inbox.shown() {
            let origin = origins.and_then(|origins| origins.get(leaf)).cloned();
            shown.push(Shown {
                key: key_name(index + 1, leaf),
                value,
                origin: origin.unwrap_or(Origin::BuiltIn),
            });
        }
    }
    Ok(shown)
}
