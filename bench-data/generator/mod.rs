//! The data itself: endless streams of several kinds, and the files made of them.
//!
//! A stream is a function of its kind and its seed alone. Nothing here asks for the time, the
//! machine or an address, and numbers become bytes in a stated order, so that data made on one
//! machine is the data made on every other. A size only says where a stream is cut off. Memory
//! stays flat because a stream remembers how to make data, never the data.
//!
//! The bytes are a promise as well: measurements are compared over years, and `sample.log` is in
//! the repository. A change to a kind is a new kind.

pub(crate) mod edit;
pub(crate) mod sparse;
pub(crate) mod tree;

mod binary;
mod line;
mod mixed;
mod random;
mod records;
mod text;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use binary::Binary;
use mixed::Mixed;
use random::Random;
use records::Records;
use text::Text;

/// Bytes written at once: enough for a cheap system call, and still in the processor's cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Bytes that random data and zeros come in.
const PART_BYTES: usize = 64 << 10;

/// Data without an end.
pub(crate) trait Stream {
    /// Appends the next item: a line, a row, a table, at most some hundred KiB.
    ///
    /// It may append nothing at times, but not forever.
    fn append(&mut self, out: &mut Vec<u8>);
}

/// What a stream consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Log lines of a service.
    Text,
    /// Rows of CSV and of JSON Lines.
    Records,
    /// Tables of little-endian integers, with their strings.
    Binary,
    /// Bytes that do not shrink.
    Random,
    /// Zeros.
    Zeros,
    /// Stretches of all the others, some of which come again.
    Mixed,
}

impl Kind {
    /// The stream of this kind and `seed`, from its beginning.
    pub(crate) fn stream(self, seed: u64) -> Box<dyn Stream> {
        let random = Random::new(seed);
        match self {
            Kind::Text => Box::new(Text::new(random)),
            Kind::Records => Box::new(Records::new(random)),
            Kind::Binary => Box::new(Binary::new(random)),
            Kind::Random => Box::new(Noise(random)),
            Kind::Zeros => Box::new(Zeros),
            Kind::Mixed => Box::new(Mixed::new(random)),
        }
    }
}

/// Writes exactly `size_bytes` of `stream` to `out`.
///
/// What it made beyond that is dropped, so the stream may go on behind the last byte written.
///
/// # Errors
///
/// Whatever `out` fails with.
pub(crate) fn write_stream(
    stream: &mut dyn Stream,
    size_bytes: u64,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut block = Vec::new();
    let mut left_bytes = size_bytes;
    while left_bytes > 0 {
        let wanted = usize::try_from(left_bytes).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
        block.clear();
        block.reserve(wanted);
        while block.len() < wanted {
            stream.append(&mut block);
        }
        let kept = usize::try_from(left_bytes).map_or(block.len(), |left| left.min(block.len()));
        out.write_all(&block[..kept])?;
        left_bytes -= kept as u64;
    }
    Ok(())
}

/// Bytes that do not shrink.
struct Noise(Random);

impl Stream for Noise {
    fn append(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + PART_BYTES, 0);
        self.0.fill(&mut out[start..]);
    }
}

/// Zeros.
struct Zeros;

impl Stream for Zeros {
    fn append(&mut self, out: &mut Vec<u8>) {
        out.resize(out.len() + PART_BYTES, 0);
    }
}

/// What could not be done to which path; why is its source.
#[derive(Debug)]
pub(crate) struct Failure {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Failure {
    /// Turns the error of an `action` on `path` into a failure, for `map_err`.
    pub(crate) fn to(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
        let path = path.to_owned();
        move |source| Failure {
            action,
            path,
            source,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.path.display())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}
