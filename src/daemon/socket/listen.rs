//! The socket itself: made at its path, or taken over from the service manager.
//!
//! It appears under its name only when it has its mode, so nobody gets in who should not, and it is
//! taken away at the end if it is still ours.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// For its owner and its group.
const MODE: u32 = 0o660;

/// A socket that listens.
#[derive(Debug)]
pub struct Listening {
    listener: StdListener,
    /// Where it is, with its inode, if we made it.
    made: Option<(PathBuf, u64)>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("{path}: another service answers on this socket")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something is there that is no socket.
    #[error("{path}: something is there that is no socket")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("make the control socket {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Listens at `path`; or on the socket that the service manager has handed over, if there is one.
///
/// # Errors
///
/// See [`BindError`].
pub fn bind(path: &Path) -> Result<Listening, BindError> {
    let failed = |source| BindError::Io {
        path: path.to_owned(),
        source,
    };
    if let Some(listener) = handed_over().map_err(failed)? {
        return Ok(Listening {
            listener,
            made: None,
        });
    }
    match path.symlink_metadata() {
        Ok(metadata) => {
            use std::os::unix::fs::FileTypeExt;
            if !metadata.file_type().is_socket() {
                return Err(BindError::NoSocket {
                    path: path.to_owned(),
                });
            }
            if StdStream::connect(path).is_ok() {
                return Err(BindError::Taken {
                    path: path.to_owned(),
                });
            }
            // What a service left behind that was killed.
            fs::remove_file(path).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(failed)?;
            }
        }
        Err(error) => return Err(failed(error)),
    }
    let hidden = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = fs::remove_file(&hidden);
    let made = StdListener::bind(&hidden).and_then(|listener| {
        fs::set_permissions(&hidden, fs::Permissions::from_mode(MODE))?;
        let inode = hidden.symlink_metadata()?.ino();
        fs::rename(&hidden, path)?;
        Ok((listener, inode))
    });
    let (listener, inode) = made.map_err(|error| {
        let _ = fs::remove_file(&hidden);
        failed(error)
    })?;
    Ok(Listening {
        listener,
        made: Some((path.to_owned(), inode)),
    })
}

/// The socket of a socket unit.
fn handed_over() -> io::Result<Option<StdListener>> {
    let mut handed = listenfd::ListenFd::from_env();
    if handed.len() == 0 {
        return Ok(None);
    }
    handed.take_unix_listener(0)
}

impl Listening {
    /// The same for the event queue of this thread.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.made {
            let ours = path.symlink_metadata().is_ok_and(|now| now.ino() == *inode);
            if ours {
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_a_killed_service_left_is_replaced_and_one_that_answers_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/filed.sock");
        let first = bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, MODE);
        assert!(matches!(bind(&path), Err(BindError::Taken { .. })));
        drop(first);
        assert!(!path.exists());
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path), Err(BindError::NoSocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
