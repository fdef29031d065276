//! Sizes: shares of them, and how this room writes them for people.
//!
//! `24 MiB`, `16.8 MiB`: one decimal, binary units, and no decimal where it
//! would be zero, so that a configured size reads back the way it was written.

use std::fmt;

use bytesize::ByteSize;

/// A number of bytes, to be printed.
#[derive(Clone, Copy)]
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.1}", ByteSize::b(self.0).display().iec());
        f.write_str(&text.replacen(".0 ", " ", 1))
    }
}

/// `percent` (0 to 100) of `bytes`, rounded down, without overflow.
pub(super) fn percent_of(bytes: u64, percent: u8) -> u64 {
    let percent = u64::from(percent.min(100));
    bytes / 100 * percent + bytes % 100 * percent / 100
}

#[cfg(test)]
mod tests {
    use super::{Size, percent_of};

    #[test]
    fn a_share_is_exact_and_never_overflows() {
        assert_eq!(percent_of(24 << 20, 70), 17_616_076);
        assert_eq!(percent_of(99, 50), 49);
        assert_eq!(percent_of(u64::MAX, 100), u64::MAX);
        assert_eq!(percent_of(u64::MAX, 255), u64::MAX);
    }

    #[test]
    fn whole_sizes_have_no_decimal_and_others_have_one() {
        assert_eq!(Size(0).to_string(), "0 B");
        assert_eq!(Size(24 << 20).to_string(), "24 MiB");
        assert_eq!(Size((24 << 20) / 10 * 7).to_string(), "16.8 MiB");
        assert_eq!(Size(1 << 30).to_string(), "1 GiB");
        assert_eq!(Size(10 << 20).to_string(), "10 MiB");
    }
}
