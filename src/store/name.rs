//! Names of files in the store, and the one escape in which they are shown.
//!
//! A name is any non-empty string of bytes without NUL: usually an absolute path. On a terminal and
//! in JSON it is shown as text in which
//!
//! * a backslash is written `\\`,
//! * every byte that is not part of valid UTF-8, and every byte of a control character (C0, DEL, C1,
//!   line and paragraph separators, bidirectional overrides), is written `\xHH`,
//! * everything else stands for itself.
//!
//! The escape is reversible: [`FileName::unescape`] of what is shown gives the same bytes.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The longest name the store takes, in bytes.
pub const MAX_NAME_BYTES: usize = 65_535;

/// Name of a file in the store.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(Vec<u8>);

/// Why some bytes cannot be a file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing to call it by.
    #[error("a file's name cannot be empty")]
    Empty,
    /// NUL cannot stand in a path.
    #[error("a file's name cannot hold a NUL byte")]
    Nul,
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("a file's name cannot be longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
}

impl FileName {
    /// Checks and takes the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<FileName, NameError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(NameError::Empty),
            n if n > MAX_NAME_BYTES => Err(NameError::TooLong),
            _ if bytes.contains(&0) => Err(NameError::Nul),
            _ => Ok(FileName(bytes)),
        }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Reads the escaped form back; `None` if `text` is not a valid escape.
    pub fn unescape(text: &[u8]) -> Option<FileName> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((&first, tail)) = rest.split_first() {
            if first != b'\\' {
                bytes.push(first);
                rest = tail;
                continue;
            }
            match tail {
                [b'\\', tail @ ..] => {
                    bytes.push(b'\\');
                    rest = tail;
                }
                [b'x', high, low, tail @ ..] => {
                    let digits = [*high, *low];
                    let digits = std::str::from_utf8(&digits).ok()?;
                    bytes.push(u8::from_str_radix(digits, 16).ok()?);
                    rest = tail;
                }
                _ => return None,
            }
        }
        FileName::new(bytes).ok()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, &self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Shows a path in the same escape as a name.
pub fn show_path(path: &Path) -> impl fmt::Display + '_ {
    ShownPath(path)
}

struct ShownPath<'a>(&'a Path);

impl fmt::Display for ShownPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.0.as_os_str().as_bytes())
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    use std::fmt::Write;
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                c if misleads(c) => {
                    let mut utf8 = [0; 4];
                    write_bytes(f, c.encode_utf8(&mut utf8).as_bytes())?;
                }
                c => f.write_char(c)?,
            }
        }
        write_bytes(f, part.invalid())?;
    }
    Ok(())
}

fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

/// Characters that would move the cursor, break the line or reorder what a person reads.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_and_foreign_bytes_are_shown_escaped() {
        let name = FileName::new(b"/a\\b\n\xff\xc3\xa9\x1b[31m".to_vec()).unwrap();
        assert_eq!(name.to_string(), "/a\\\\b\\x0a\\xffé\\x1b[31m");
    }

    #[test]
    fn bidirectional_override_is_shown_escaped() {
        let name = FileName::new("/x\u{202e}gpj".as_bytes()).unwrap();
        assert_eq!(name.to_string(), "/x\\xe2\\x80\\xaegpj");
    }

    #[test]
    fn half_an_escape_is_refused() {
        for text in [&b"a\\"[..], b"a\\x", b"a\\x1", b"a\\xzz", b"a\\n"] {
            assert_eq!(FileName::unescape(text), None);
        }
    }

    #[test]
    fn impossible_names_are_refused() {
        assert_eq!(FileName::new(b"".to_vec()), Err(NameError::Empty));
        assert_eq!(FileName::new(b"a\0b".to_vec()), Err(NameError::Nul));
        assert_eq!(
            FileName::new(vec![b'a'; MAX_NAME_BYTES + 1]),
            Err(NameError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same_name(
            bytes in prop::collection::vec(1u8.., 1..200)
        ) {
            let name = FileName::new(bytes).unwrap();
            let shown = name.to_string();
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert_eq!(FileName::unescape(shown.as_bytes()), Some(name));
        }
    }
}
