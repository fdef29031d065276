//! Who tells us that memory is short: systemd's protocol, or the kernel alone.
//!
//! Owns the meaning of `MEMORY_PRESSURE_WATCH` and `MEMORY_PRESSURE_WRITE`. The
//! rule: what the variables name is used exactly as it is, since a sandbox may
//! have opened just that path; what cannot be used is told of once, and the
//! kernel's own files are watched instead.
//!
//! | the path is | opened | an event is |
//! |---|---|---|
//! | `/dev/null` | not at all; nothing else is watched either | - |
//! | a PSI file | for writing, never read | `POLLPRI` |
//! | a FIFO | for reading and writing, so that it never ends | `POLLIN`, read and discarded |
//! | a stream socket | by connecting | `POLLIN`, read and discarded |
//!
//! Without the variables a trigger is set on our own cgroup's
//! `memory.pressure`, or where that is refused, on the host's.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::pressure::probe::psi::{self, DEFAULT_TRIGGER, Registered, StallTotals};
use crate::pressure::probe::{ProbeError, cgroup};

/// Names the path to watch.
pub const WATCH: &str = "MEMORY_PRESSURE_WATCH";
/// Holds in Base64 what is to be written to it.
pub const WRITE: &str = "MEMORY_PRESSURE_WRITE";

/// The path that switches everything off.
const OFF: &str = "/dev/null";
/// Nobody asks for more than a line.
const WRITE_MAX_BYTES: usize = 4096;
/// Where PSI files are: proc and cgroup2. FUSE may show one too (lxcfs), but
/// also anybody's data, so there only our own paths are tried.
const PSI_FILE_SYSTEMS: [u32; 2] = [0x9fa0, 0x6367_7270];
/// A FIFO holds 64 KiB. Who fills it faster than we read must not keep us.
const READS_AT_ONCE: usize = 16;

/// A variable that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The path does not start at the root.
    #[error("{WATCH} is not an absolute path: {}", .0.display())]
    Relative(PathBuf),
    /// What should be written is not Base64.
    #[error("{WRITE} is not Base64: {0}")]
    Encoding(base64::DecodeError),
    /// What should be written is too long.
    #[error("{WRITE} is longer than {WRITE_MAX_BYTES} bytes")]
    TooLong,
    /// The path is a directory, a device or an ordinary file.
    #[error("{WATCH} is neither a PSI file nor a FIFO nor a socket: {}", .0.display())]
    Kind(PathBuf),
    /// The file could not be opened or written to.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// What tells us, opened and ready to be polled.
#[derive(Debug)]
pub enum Watch {
    /// Switched off by who started us.
    Off,
    /// There is nothing to watch.
    Nothing,
    /// The kernel tells by `POLLPRI`.
    Psi(PsiWatch),
    /// Somebody tells by writing something.
    Stream(Stream),
}

/// A trigger on a PSI file.
#[derive(Debug)]
pub struct PsiWatch {
    /// The file with the trigger.
    pub registered: Registered,
    /// The file, for its totals to be read through another descriptor.
    pub path: PathBuf,
    /// The totals when the trigger was set.
    pub totals: Option<StallTotals>,
}

/// A FIFO or a socket.
#[derive(Debug)]
pub struct Stream {
    descriptor: OwnedFd,
    /// What was opened.
    pub path: PathBuf,
    /// What we wrote to a FIFO comes back to us, unless the other side is
    /// quicker. It is no event.
    echo: Vec<u8>,
}

/// What reading a [`Stream`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Somebody wrote.
    Event,
    /// Nothing but our own words.
    Nothing,
    /// The other side is gone for good.
    End,
}

/// The watch and what was wrong on the way to it.
#[derive(Debug)]
pub struct Opened {
    /// What is watched.
    pub watch: Watch,
    /// Worth a warning each.
    pub problems: Vec<NotifyError>,
}

/// Opens what the variables name, which `lookup` gives, or else the kernel's
/// files below `root`.
pub fn open(root: &Path, lookup: &dyn Fn(&str) -> Option<OsString>) -> Opened {
    open_with(root, lookup, &psi::register)
}

/// Sets a trigger; another one in tests.
type Register<'a> = dyn Fn(&Path, &[u8]) -> Result<Registered, ProbeError> + 'a;

fn open_with(
    root: &Path,
    lookup: &dyn Fn(&str) -> Option<OsString>,
    register: &Register<'_>,
) -> Opened {
    let mut problems = Vec::new();
    if let Some(path) = lookup(WATCH) {
        if path == OFF {
            return Opened {
                watch: Watch::Off,
                problems,
            };
        }
        match named(Path::new(&path), lookup(WRITE).as_deref(), register) {
            Ok(watch) => return Opened { watch, problems },
            Err(problem) => problems.push(problem),
        }
    }
    let watch = by_ourselves(root, register, &mut problems);
    Opened { watch, problems }
}

/// Opens what the variables name.
fn named(
    path: &Path,
    write: Option<&OsStr>,
    register: &Register<'_>,
) -> Result<Watch, NotifyError> {
    if !path.is_absolute() {
        return Err(NotifyError::Relative(path.to_owned()));
    }
    let words = write.map(decode).transpose()?;
    let failed = |source: io::Error| ProbeError::watch(path, source);
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_socket() {
        let words = words.unwrap_or_default();
        let stream = connect(path, &words).map_err(|error| failed(error.into()))?;
        return Ok(Watch::Stream(stream));
    }
    if kind.is_fifo() {
        let stream = open_fifo(path, words.unwrap_or_default()).map_err(failed)?;
        return Ok(Watch::Stream(stream));
    }
    if !kind.is_file() || !is_psi_file(path).map_err(|error| failed(error.into()))? {
        return Err(NotifyError::Kind(path.to_owned()));
    }
    // A PSI file without a trigger tells nothing, so without words it gets ours.
    let words = words.as_deref().unwrap_or(DEFAULT_TRIGGER);
    Ok(Watch::Psi(PsiWatch::set(path, words, register)?))
}

fn decode(write: &OsStr) -> Result<Vec<u8>, NotifyError> {
    if write.len() > WRITE_MAX_BYTES {
        return Err(NotifyError::TooLong);
    }
    BASE64_STANDARD
        .decode(write.as_bytes())
        .map_err(NotifyError::Encoding)
}

/// A trigger must never be written into somebody's data.
fn is_psi_file(path: &Path) -> rustix::io::Result<bool> {
    let magic = rustix::fs::statfs(path)?.f_type;
    Ok(PSI_FILE_SYSTEMS
        .iter()
        .any(|known| i128::from(*known) == i128::from(magic)))
}

/// Sets our own trigger on the file that is nearest to us.
fn by_ourselves(root: &Path, register: &Register<'_>, problems: &mut Vec<NotifyError>) -> Watch {
    let host = root.join("proc/pressure/memory");
    let mut refused = None;
    for path in cgroup::pressure_file(root).into_iter().chain([host]) {
        match PsiWatch::set(&path, DEFAULT_TRIGGER, register) {
            Ok(watch) => return Watch::Psi(watch),
            Err(ProbeError::Watch { source, .. }) if is_without_psi(&source) => {}
            Err(problem) => {
                refused.get_or_insert(problem);
            }
        }
    }
    problems.extend(refused.map(NotifyError::Probe));
    Watch::Nothing
}

/// No such file, or PSI built in but switched off: nothing to tell of.
fn is_without_psi(error: &io::Error) -> bool {
    cgroup::is_absent(error)
        || error.raw_os_error().is_some_and(|code| {
            [Errno::OPNOTSUPP, Errno::NODEV].contains(&Errno::from_raw_os_error(code))
        })
}

impl PsiWatch {
    fn set(path: &Path, trigger: &[u8], register: &Register<'_>) -> Result<Self, ProbeError> {
        // Before the trigger, so that no stall it counts is missed.
        let totals = psi::stall_totals(path);
        Ok(Self {
            registered: register(path, trigger)?,
            path: path.to_owned(),
            totals,
        })
    }
}

fn open_fifo(path: &Path, words: Vec<u8>) -> io::Result<Stream> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let descriptor = OwnedFd::from(
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?,
    );
    // At most 4 KiB: to a FIFO that is written as a whole or not at all.
    if !words.is_empty() {
        rustix::io::write(&descriptor, &words)?;
    }
    Ok(Stream {
        descriptor,
        path: path.to_owned(),
        echo: words,
    })
}

fn connect(path: &Path, words: &[u8]) -> rustix::io::Result<Stream> {
    // Not to be kept waiting by a socket that nobody accepts from.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let descriptor =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&descriptor, &SocketAddrUnix::new(path)?)?;
    if !words.is_empty()
        && rustix::net::send(&descriptor, words, SendFlags::NOSIGNAL)? < words.len()
    {
        return Err(Errno::MSGSIZE);
    }
    Ok(Stream {
        descriptor,
        path: path.to_owned(),
        echo: Vec::new(),
    })
}

impl Stream {
    /// Reads and discards what is there, as much as was there when it began.
    ///
    /// # Errors
    ///
    /// If it cannot be read; it is of no use any more.
    pub fn drain(&mut self) -> Result<Drained, ProbeError> {
        let mut buffer = [0; WRITE_MAX_BYTES];
        let mut heard = false;
        for _ in 0..READS_AT_ONCE {
            match rustix::io::read(&self.descriptor, &mut buffer) {
                // What was said before the end still counts; the end is met again.
                Ok(0) if heard => break,
                Ok(0) => return Ok(Drained::End),
                Ok(length) => {
                    let content = buffer.get(..length).unwrap_or_default();
                    // Only the first reading can hold all of it.
                    let echo = std::mem::take(&mut self.echo);
                    heard |= content.len() > echo.len() || !content.ends_with(&echo);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(ProbeError::read(&self.path, error.into())),
            }
        }
        Ok(if heard {
            Drained::Event
        } else {
            Drained::Nothing
        })
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests;
