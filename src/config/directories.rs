//! Directories that the environment names: the user's file, and the store and the socket nobody
//! configured.
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
    if let Some(state) = first_of_list(&lookup, "STATE_DIRECTORY") {
        return Ok(state.join("store"));
    }
    user_directory(lookup, "XDG_DATA_HOME", ".local/share")
        .map(|data| data.join("filed/store"))
        .ok_or(ConfigError::NoStorePath)
}

/// Where the service is reached: `service.socket`, else `$RUNTIME_DIRECTORY/filed.sock` (systemd),
/// else `/run/filed/filed.sock` for root, else `$XDG_RUNTIME_DIR/filed.sock`.
///
/// `lookup` gives the value of a variable; a program passes `|name| std::env::var_os(name)`.
///
/// # Errors
///
/// [`ConfigError::NoSocketPath`] if the path is empty and none of these holds an absolute path.
pub fn socket_path(
    config: &Config,
    lookup: impl Fn(&str) -> Option<OsString>,
    is_root: bool,
) -> Result<PathBuf, ConfigError> {
    if let Some(path) = &config.service.socket {
        return Ok(path.clone());
    }
    let directory = first_of_list(&lookup, "RUNTIME_DIRECTORY")
        .or_else(|| is_root.then(|| PathBuf::from("/run/filed")))
        .or_else(|| lookup("XDG_RUNTIME_DIR").and_then(|path| absolute(&path)));
    directory
        .map(|directory| directory.join("filed.sock"))
        .ok_or(ConfigError::NoSocketPath)
}

/// The user's own configuration file, whether or not it exists.
pub(super) fn user_file(lookup: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    user_directory(lookup, "XDG_CONFIG_HOME", ".config")
        .map(|directory| directory.join("filed/filed.toml"))
}

/// The first directory of `$variable`: systemd lists all that the unit names, and filed's is the
/// first.
fn first_of_list(lookup: impl Fn(&str) -> Option<OsString>, variable: &str) -> Option<PathBuf> {
    let list = lookup(variable)?;
    let first = list.as_bytes().split(|byte| *byte == b':').next()?;
    absolute(OsStr::from_bytes(first))
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

    const RUNTIME: [(&str, &str); 2] = [
        ("RUNTIME_DIRECTORY", "/run/filed-a:/run/other"),
        ("XDG_RUNTIME_DIR", "/run/user/1000"),
    ];

    fn resolve_socket(variables: &[(&str, &str)], is_root: bool) -> Option<PathBuf> {
        socket_path(&Config::default(), among(variables), is_root).ok()
    }

    #[test]
    fn configured_socket_wins_over_every_variable() {
        let mut config = Config::default();
        config.service.socket = Some(PathBuf::from("/srv/socket"));
        for is_root in [false, true] {
            assert_eq!(
                socket_path(&config, among(&RUNTIME), is_root).unwrap(),
                Path::new("/srv/socket")
            );
        }
    }

    #[test]
    fn first_runtime_directory_comes_before_that_of_root_before_that_of_the_user() {
        let cases = [
            (&RUNTIME[..], true, "/run/filed-a/filed.sock"),
            (&RUNTIME[..], false, "/run/filed-a/filed.sock"),
            (&RUNTIME[1..], true, "/run/filed/filed.sock"),
            (&RUNTIME[1..], false, "/run/user/1000/filed.sock"),
            (&[], true, "/run/filed/filed.sock"),
        ];
        for (variables, is_root, path) in cases {
            let socket = resolve_socket(variables, is_root);
            assert_eq!(socket.as_deref(), Some(Path::new(path)));
        }
    }

    #[test]
    fn relative_runtime_directories_are_passed_over() {
        let mut variables = RUNTIME;
        variables[0].1 = "filed:/run/other";
        assert_eq!(
            resolve_socket(&variables, false).as_deref(),
            Some(Path::new("/run/user/1000/filed.sock"))
        );
        variables[1].1 = "user";
        assert_eq!(resolve_socket(&variables, false), None);
        variables[0].1 = "";
        variables[1].1 = "";
        assert_eq!(resolve_socket(&variables, false), None);
    }

    #[test]
    fn without_a_runtime_directory_the_error_names_what_to_set() {
        let error = socket_path(&Config::default(), |_| None, false).unwrap_err();
        assert!(error.to_string().contains("service.socket"), "{error}");
        assert!(error.to_string().contains("XDG_RUNTIME_DIR"), "{error}");
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
