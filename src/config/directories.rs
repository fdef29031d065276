//! Directories that the environment names: the user's file, and the store nobody configured.
//!
//! The environment comes in as a function from a name to a value. A directory that is not
//! absolute is passed over, as the XDG specification demands: the store must not move with the
//! working directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Config;
use super::error::ConfigError;

/// Where the store is: `store.path`, else `$STATE_DIRECTORY/store` (systemd), else
/// `$XDG_DATA_HOME/filed/store`, else `$HOME/.local/share/filed/store`.
///
/// `lookup` gives the value of a variable; a program passes `|name| std::env::var_os(name)`.
///
/// # Errors
///
/// [`ConfigError::NoStorePath`] if the path is empty and none of these holds an absolute path.
pub fn store_path(
    config: &Config,
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, ConfigError> {
    if let Some(path) = &config.store.path {
        return Ok(path.clone());
    }
    // systemd lists every StateDirectory= of the unit; filed's is the first.
    let state = lookup("STATE_DIRECTORY").and_then(|list| {
        let first = list.as_bytes().split(|byte| *byte == b':').next()?;
        absolute(OsStr::from_bytes(first))
    });
    if let Some(state) = state {
        return Ok(state.join("store"));
    }
    user_directory(lookup, "XDG_DATA_HOME", ".local/share")
        .map(|data| data.join("filed/store"))
        .ok_or(ConfigError::NoStorePath)
}

/// The user's own configuration file, whether or not it exists.
pub(super) fn user_file(lookup: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    user_directory(lookup, "XDG_CONFIG_HOME", ".config")
        .map(|directory| directory.join("filed/filed.toml"))
}

/// `$variable`, else `$HOME/fallback`.
fn user_directory(
    lookup: impl Fn(&str) -> Option<OsString>,
    variable: &str,
    fallback: &str,
) -> Option<PathBuf> {
    let named = lookup(variable).and_then(|path| absolute(&path));
    named.or_else(|| {
        let home = lookup("HOME").and_then(|path| absolute(&path))?;
        Some(home.join(fallback))
    })
}

fn absolute(path: &OsStr) -> Option<PathBuf> {
    let path = Path::new(path);
    path.is_absolute().then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        }
    }

    fn resolve(variables: &[(&str, &str)]) -> Option<PathBuf> {
        store_path(&Config::default(), among(variables)).ok()
    }

    const ALL: [(&str, &str); 3] = [
        ("STATE_DIRECTORY", "/var/lib/filed:/var/lib/other"),
        ("XDG_DATA_HOME", "/data"),
        ("HOME", "/home/ann"),
    ];

    #[test]
    fn configured_path_wins_over_every_variable() {
        let mut config = Config::default();
        config.store.path = Some(PathBuf::from("/srv/store"));
        assert_eq!(
            store_path(&config, among(&ALL)).unwrap(),
            Path::new("/srv/store")
        );
    }

    #[test]
    fn first_state_directory_comes_before_data_home_before_home() {
        let expected = [
            "/var/lib/filed/store",
            "/data/filed/store",
            "/home/ann/.local/share/filed/store",
        ];
        for (skipped, path) in expected.iter().enumerate() {
            assert_eq!(resolve(&ALL[skipped..]).as_deref(), Some(Path::new(path)));
        }
    }

    #[test]
    fn empty_and_relative_directories_are_passed_over() {
        let mut variables = ALL;
        variables[0].1 = "";
        variables[1].1 = "data";
        assert_eq!(
            resolve(&variables).as_deref(),
            Some(Path::new("/home/ann/.local/share/filed/store"))
        );
        variables[2].1 = "";
        assert_eq!(resolve(&variables), None);
    }

    #[test]
    fn without_variables_the_error_names_what_to_set() {
        let error = store_path(&Config::default(), |_| None).unwrap_err();
        assert!(error.to_string().contains("store.path"), "{error}");
        assert!(error.to_string().contains("HOME"), "{error}");
    }

    #[test]
    fn user_file_is_in_config_home_else_in_home() {
        let home = ("HOME", "/home/ann");
        assert_eq!(
            user_file(among(&[("XDG_CONFIG_HOME", "/conf"), home])).unwrap(),
            Path::new("/conf/filed/filed.toml")
        );
        assert_eq!(
            user_file(among(&[("XDG_CONFIG_HOME", ""), home])).unwrap(),
            Path::new("/home/ann/.config/filed/filed.toml")
        );
        assert_eq!(user_file(|_| None), None);
    }
}
